# Kubernetes: the manifests are validated against the schema, and the containers' commands
# run one after the other, as the jobs would. Sourced by `run`.
# shellcheck shell=bash disable=SC2154 # `run` sets scratch and program

KUBERNETES_VALIDATE=kubernetes-validate==1.37.0

recipe_kubernetes() {
    local venv=$CACHE/kubernetes manifests=$REPO/pipelines/kubernetes run=$scratch/runs/kubernetes
    if [[ ! -f $venv/$KUBERNETES_VALIDATE ]]; then
        once python_venv "$venv" "$KUBERNETES_VALIDATE"
        touch "$venv/$KUBERNETES_VALIDATE"
    fi
    "$venv/bin/kubernetes-validate" --strict --quiet "$manifests"/*.yaml
    say "ok: $(cat "$manifests"/*.yaml | grep -c '^kind:') resources"

    container prepare
    for index in 0 1 2 3 4 5 6 7; do container gradients "$index"; done
    container finish
    same_subset "$run"
    rm -rf "$run"
    container nightly
    same_subset "$run"
}

# container JOB [INDEX]: runs the command of the job's only container, paths replaced by
# ours.
container() {
    local words
    mapfile -d '' words < <("$venv/bin/python" - "$manifests/$1.yaml" <<'PYTHON'
import sys, yaml

(job,) = yaml.safe_load_all(open(sys.argv[1]))
spec = job["spec"].get("jobTemplate", job)["spec"]
(container,) = spec["template"]["spec"]["containers"]
words = [f"{item['name']}={item['value']}" for item in container["env"]]
words += container["command"] + container.get("args", [])
print(*words, sep="\0", end="\0")
PYTHON
    )
    words=("${words[@]//\/data\/runs\/nightly/$run}")
    words=("${words[@]//\/settings\/settings.toml/$scratch/etc/nightly.toml}")
    bare env ${2:+"JOB_COMPLETION_INDEX=$2"} "${words[@]}" >"$scratch/log" 2>&1 ||
        die "$1 ${2:-}: $(tail -n 5 "$scratch/log")"
}
