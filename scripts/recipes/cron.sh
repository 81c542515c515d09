# cron: the table is read by `crontab`, and its command runs as cron would run it. Sourced
# by `run`.
# shellcheck shell=bash disable=SC2154 # `run` sets scratch and program

recipe_cron() {
    local table=$scratch/crontab command run=$scratch/runs/cron said
    sed -e "s|/etc/less-select|$scratch/etc|; s|/var/lib/less-select/nightly|$run|" \
        -e "s|/usr/local/bin|$(dirname "$program")|" \
        "$REPO/pipelines/cron/less-select.crontab" >"$table"
    debian_package crontab cron
    # Newer versions check with -T, Debian 12's with -n.
    crontab -T "$table" 2>/dev/null || said=$(crontab -n "$table" 2>&1) ||
        die "crontab does not accept the table: $said"

    # The five fields of time are cron's, and so are lines of NAME=VALUE.
    command=$(sed -n 's/^0 2 \* \* \* *//p' "$table")
    # cron takes an unescaped percent sign for the end of the line.
    [[ -n $command && $command != *%* ]] || die "no command, or one that cron would cut"
    mapfile -t variables < <(grep -E '^[A-Z_]+=' "$table")
    said=$(env -i HOME=/ LOGNAME=nobody "${variables[@]}" sh -c "$command" 2>&1)
    [[ -z $said ]] || die "a night on which all went well sends a mail: $said"
    same_subset "$run"
    # The next night has nothing to do.
    env -i HOME=/ LOGNAME=nobody "${variables[@]}" sh -c "$command"

    # A run in use is tried three times, anything else once.
    [[ $(tries 75) == 3 && $(tries 74) == 1 ]] || die "tried $(tries 75) and $(tries 74) times"
    say "ok: exit code 75 is tried again"
}

# tries CODE: how often the line starts a program that ends with CODE, on a clock that
# does not wait.
tries() {
    local stubs=$scratch/stubs
    mkdir -p "$stubs"
    printf '#!/bin/sh\necho x >>%s/log\nexit %d\n' "$stubs" "$1" >"$stubs/less-select"
    printf '#!/bin/sh\n' >"$stubs/sleep"
    chmod +x "$stubs"/*
    : >"$stubs/log"
    env -i PATH="$stubs:/usr/bin:/bin" sh -c "$command" || true
    grep -c x "$stubs/log"
}
