"""Pools, targets and evaluations: short rows, drawn by their content."""

import hashlib
import json
from pathlib import Path

import pyarrow.parquet as parquet

MAX_TOKENS = 192
N_EVAL = 200

# The copy of P3 ends every answer with this text, which the model's tokenizer takes for
# the token. Left in, it is most of what is learned from an answer of two words, and
# decides every comparison: no answer ends with it anywhere else.
END_OF_TEXT = "<|endoftext|>"

# Rows of each source. The second pool has neither a row of GSM8K nor of TyDiQA.
POOLS = {
    "with": {
        "gsm8k": 240,
        "tydiqa": 240,
        "t0_p3": 960,
        "gpteacher_roleplay": 400,
        "gpteacher_toolformer": 560,
    },
    "without": {"t0_p3": 1200, "gpteacher_roleplay": 500, "gpteacher_toolformer": 700},
}
# The target that an evaluation is selected for.
TARGETS = {"gsm8k": "gsm8k", "tydiqa": "tydiqa", "bbh": "bbh_direct", "bbh_cot": "bbh_cot"}

# Most tokens of the model's own answer, where an evaluation's answers are so short that
# their words can be compared.
ANSWER_TOKENS = {"tydiqa": 16}


def data_files(folder):
    """The files of a folder by name."""
    return {path.stem: path for path in sorted(folder.iterdir()) if "json" in path.suffix}


def draw(program, model, data, work):
    """Writes the samples to `work`, unless they are there."""
    done, rules = work / "samples.done", hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    if done.exists():
        if done.read_text(encoding="utf-8") != rules:
            raise SystemExit(f"`{work}` has samples that were drawn by other rules: name another")
        return
    rows = short_rows(program, model, data_files(data / "pool"), data, work / "all-pool")
    for pool, quotas in POOLS.items():
        for source, n_rows in quotas.items():
            write(work / "pools" / pool / f"{source}.jsonl", rows[source][:n_rows])
    rows = short_rows(program, model, data_files(data / "eval"), data, work / "all-eval")
    for name, found in rows.items():
        write(work / "eval" / f"{name}.jsonl", found[:N_EVAL])
    for name in ("gsm8k", "tydiqa", "bbh_direct"):
        write(work / "target" / f"{name}.jsonl", read(data / "target" / f"{name}.jsonl"))
    draw_chains_of_thought(data, work)
    done.write_text(rules, encoding="utf-8")


def draw_chains_of_thought(data, work):
    """Of the three answers of each subtask that think aloud one is the target, the others
    are the evaluation, since there is no other. They are longer than the pool's rows."""
    rows = read(data / "target" / "bbh.jsonl")
    first = {}
    for row in rows:
        first.setdefault(row["subtask"], row["id"])
    is_target = {row["id"]: first[row["subtask"]] == row["id"] for row in rows}
    for folder, wanted in (("target", True), ("eval", False)):
        chosen = [row for row in rows if is_target[row["id"]] == wanted]
        write(work / folder / "bbh_cot.jsonl", chosen)


def short_rows(program, model, files, data, run):
    """Rows of at most MAX_TOKENS by source, in an order that their content decides."""
    sources = [f"--pool={name}={path}" for name, path in files.items()]
    target = f"--target={data / 'target' / 'gsm8k.jsonl'}"
    program("ingest", "--run", run, "--model", model, *sources, target)
    columns = ["id", "source", "n_tokens", "truncated", "messages"]
    rows = parquet.read_table(run / "pool" / "pool.parquet", columns=columns).to_pylist()
    rows = [row for row in rows if row["n_tokens"] <= MAX_TOKENS and not row["truncated"]]
    rows.sort(key=lambda row: hashlib.sha256(row["id"].encode()).hexdigest())
    found = {name: [] for name in files}
    for row in rows:
        for message in row["messages"]:
            message["content"] = message["content"].removesuffix(END_OF_TEXT)
        found[row["source"]].append({"messages": row["messages"]})
    return found


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")
