# The run that every recipe does, and what has to come out; sourced by `run`.
# shellcheck shell=bash disable=SC2154 # `run` sets scratch and program

# write_settings: 216 rows, shards of four, two checkpoints: a second or two of gradients.
write_settings() {
    mkdir -p "$scratch/etc" "$scratch/runs"
    cat >"$scratch/etc/nightly.toml" <<TOML
model = "$REPO/tests/fixtures/tiny-llama"
pool = ["$REPO/data/example/pool/*.jsonl"]
target = ["$REPO/data/example/gsm8k.jsonl"]
max-tokens = 256
max-rejects = "100%"
dtype = "f32"
threads = 1
warmup-share = "20%"
warmup-min-rows = 1
batch-size = 4
learning-rate = 1e-3
lora-rank = 4
proj-dim = 512
shard-rows = 4
budget = "10%"
TOML
}

plain_run() {
    "$program" --quiet --pipeline "$scratch/etc/nightly.toml" --run "$scratch/runs/plain" >/dev/null
}

# subset RUN: the name of its subset and the checksums of the subset's files.
subset() {
    local name
    name=$(<"$1/latest")
    echo "$name"
    (cd "$1/$name" && find . -type f -print0 | sort -z | xargs -0 sha256sum)
}

# same_subset RUN: fails unless it ended with the plain run's subset.
same_subset() {
    local expected found
    expected=$(subset "$scratch/runs/plain")
    found=$(subset "$1")
    [[ $found == "$expected" ]] || {
        say "another subset than the plain run's:"
        diff <(echo "$expected") <(echo "$found") >&2 || true
        return 1
    }
    say "ok: ${expected%%$'\n'*}, $(($(wc -l <<<"$expected") - 1)) files, equal to the plain run's"
}

# bare COMMAND...: as a scheduler runs it, with nothing of our environment but the
# machine's place for programs.
bare() { env -i PATH="$(dirname "$program"):/usr/bin:/bin" HOME=/ SHELL=/bin/sh "$@"; }
