# systemd: `systemd-analyze verify` reads the units as systemd would; what the service
# would run is run. Sourced by `run`.
# shellcheck shell=bash disable=SC2154 # `run` sets scratch and program

recipe_systemd() {
    local units=$scratch/units command run=$scratch/runs/systemd
    debian_package systemd-analyze systemd
    mkdir -p "$units"
    # The program is asked for where it would be installed: put it where it is.
    for unit in service timer; do
        sed "s|/usr/local/bin/less-select|$program|" "$REPO/pipelines/systemd/less-select@.$unit" \
            >"$units/less-select@.$unit"
    done
    # Silent when all is well; it warns of unknown keys with exit code 0.
    local said
    said=$(systemd-analyze verify "$units"/less-select@{.service,nightly.service,nightly.timer} 2>&1) ||
        die "systemd-analyze: $said"
    # What the machine's own units lack is not ours.
    said=$(grep less-select <<<"$said" || true)
    [[ -z $said ]] || die "systemd-analyze: $said"
    say "ok: $(systemd-analyze calendar '*-*-* 02:00:00' | grep -c 'Normalized form') calendar event, 3 units"

    command=$(sed -n 's/^ExecStart=//p' "$units/less-select@.service")
    command=${command//\/var\/lib\/less-select\/%i/$run}
    command=${command//\/etc\/less-select\/%i/$scratch/etc/nightly}
    # No shell: systemd splits at blanks.
    read -ra command <<<"$command"
    bare "${command[@]}" >/dev/null 2>"$scratch/log" || die "the service: $(tail -n 5 "$scratch/log")"
    same_subset "$run"
}
