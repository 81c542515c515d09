# Slurm: munged, slurmctld and two slurmd of our own in the scratch folder, on ports and
# sockets of their own. Sourced by `run`.
# shellcheck shell=bash disable=SC2154 # `run` sets scratch and program

recipe_slurm() {
    local run=$scratch/runs/slurm
    ((EUID == 0)) || skip "a Slurm for tests wants root"
    debian_package slurmctld slurm-wlm
    start_slurm
    PATH=$(dirname "$program"):$PATH

    submit "$run" 4
    kill_task "$run" 2
    wait_for_jobs
    [[ $(state "$finish") == COMPLETED ]] || die "the last job is $(state "$finish"): $(tail -n 5 "$run"/*.log)"
    grep -q 'gradients/4 ended with 137' "$run"/slurm-gradients-*_2.log || die "no task was killed: $(tail -n 20 "$run"/*.log)"
    grep -q 'attempt 2' "$run"/slurm-gradients-*_2.log || die "the killed task did not come again"
    same_subset "$run"

    # One task of the array alone finds that nothing is missing, and so do the others.
    MISSING=3 submit "$run" 4
    wait_for_jobs
    [[ $(state "$finish") == COMPLETED ]] || die "submitted again, the last job is $(state "$finish")"
    same_subset "$run"

    # Bad data is not tried again, and nobody waits for it.
    run=$scratch/runs/bad
    sed -i 's|^pool = .*|pool = ["'"$REPO"'/README.md"]|' "$scratch/etc/bad.toml"
    settings=$scratch/etc/bad.toml submit "$run" 4
    wait_for_jobs
    [[ $(state "$prepare") == FAILED ]] || die "bad data: the first job is $(state "$prepare")"
    ! grep -q 'attempt 2' "$run"/*.log || die "bad data was tried again"
    [[ $(state "$finish") == CANCELLED ]] || die "bad data: the last job is $(state "$finish")"
    say "ok: killed and requeued, submitted again, given up"
}

# submit RUN SHARDS: sets prepare, gradients and finish to the jobs' numbers.
submit() {
    cp -n "$scratch/etc/nightly.toml" "$scratch/etc/bad.toml"
    read -r prepare gradients finish < <("$REPO/pipelines/slurm/submit" \
        "${settings:-$scratch/etc/nightly.toml}" "$1" "$2" --cpus-per-task=1 --mem=500)
    say "jobs $prepare, $gradients, $finish"
}

# kill_task RUN PART: kills the program of this array task once shards are there.
kill_task() {
    local deadline=$((SECONDS + 120)) pid
    while ((SECONDS < deadline)); do
        for pid in $(pgrep -f -- "^less-select gradients --shard $2/"); do
            # Of our run, and of no other's.
            if grep -qz "^LESS_SELECT_RUN=$1\$" "/proc/$pid/environ" 2>/dev/null &&
                compgen -G "$1/gradients/epoch-1/pool/shard-*.json" >/dev/null; then
                kill -KILL "$pid" && return
            fi
        done
        sleep 0.02
    done
    die "task $2 was never seen: $(squeue)"
}

wait_for_jobs() {
    local deadline=$((SECONDS + 180))
    while [[ -n $(squeue --noheader) ]]; do
        ((SECONDS < deadline)) || die "jobs do not end: $(squeue)"
        sleep 0.5
    done
}

state() { scontrol show job "$1" | sed -n 's/.*JobState=\([A-Z]*\).*/\1/p' | head -n 1; }

# start_slurm: everything in a folder of its own, ended by end_slurm.
start_slurm() {
    local dir=$scratch/slurm node port=$((20000 + $$ % 20000))
    mkdir -p "$dir"/{state,spool/n1,spool/n2}
    # munged insists on who may write above its socket.
    chmod 755 "$scratch" "$dir"
    dd if=/dev/urandom of="$dir/munge.key" bs=1024 count=1 status=none
    chmod 600 "$dir/munge.key"
    slurm_conf >"$dir/slurm.conf"
    export SLURM_CONF=$dir/slurm.conf
    munged --force --key-file="$dir/munge.key" --socket="$dir/munge.sock" \
        --pid-file="$dir/munged.pid" --log-file="$dir/munged.log" --seed-file="$dir/munge.seed"
    slurmctld -f "$SLURM_CONF"
    for node in n1 n2; do slurmd -f "$SLURM_CONF" -N "$node"; done
    local deadline=$((SECONDS + 30))
    until [[ $(sinfo --noheader --format=%T 2>/dev/null) == idle ]]; do
        ((SECONDS < deadline)) || die "Slurm does not come up: $(tail -n 5 "$dir"/*.log)"
        sleep 0.2
    done
    say "$(slurmctld -V), $(sinfo --noheader --format='%D nodes of %c processors')"
}

slurm_conf() {
    cat <<CONF
ClusterName=less
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$port
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# By default a requeued job waits two minutes, until its old credential has expired.
AuthInfo=socket=$dir/munge.sock,cred_expire=5
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool/%n
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd-%n.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay=0,bf_interval=2,requeue_delay=1
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
MpiDefault=none
ReturnToService=2
JobRequeue=1
SlurmdTimeout=10
KillWait=2
NodeName=n1 NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=$((port + 1)) CPUs=2 RealMemory=1500
NodeName=n2 NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=$((port + 2)) CPUs=2 RealMemory=1500
PartitionName=all Nodes=n1,n2 Default=YES State=UP
CONF
}

# Ends the daemons of start_slurm, and what they run.
end_slurm() {
    local pids=("$scratch"/slurm/{slurmd-n1,slurmd-n2,slurmctld,munged}.pid) file
    if [[ -f ${SLURM_CONF:-} ]]; then scancel --user="$(id -un)" 2>/dev/null || true; fi
    for file in "${pids[@]}"; do
        if [[ -f $file ]]; then kill "$(<"$file")" 2>/dev/null || true; fi
    done
    # They write into the folder until they are gone.
    for file in "${pids[@]}"; do
        for _ in {1..50}; do
            if [[ ! -f $file ]] || ! kill -0 "$(<"$file")" 2>/dev/null; then break; fi
            sleep 0.1
        done
    done
}
