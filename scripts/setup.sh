# Common parts of the scripts; sourced by them, never run.
# shellcheck shell=bash
set -euo pipefail

# shellcheck disable=SC2034 # for those who source this
REPO=$(cd "${BASH_SOURCE[0]%/*}/.." && pwd)
CACHE=${LESS_SELECT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/less-select}
[[ $CACHE == /* ]] || CACHE=$PWD/$CACHE
# The program looks for models in the same place.
export LESS_SELECT_CACHE=$CACHE

# Messages go to stderr: stdout belongs to the program.
say() { printf '%s\n' "$*" >&2; }

# Exit code 2 is the program's own for "something you have to change".
die() {
    say "${0##*/}: $*"
    exit 2
}

has() { command -v "$1" >/dev/null 2>&1; }

# system_packages PACKAGE...: installed through apt where we may, else asked for.
system_packages() {
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get)
    has apt-get || die "something is missing that Debian calls: $*. Please install it."
    if ((EUID != 0)); then
        sudo -n true 2>/dev/null || die "please run: sudo apt-get install -y $*"
        apt=(sudo -n "${apt[@]}")
    fi
    say "installing $* with apt"
    "${apt[@]}" update -qq >&2
    "${apt[@]}" install -y -qq "$@" >&2
}

# Everything that must come with the system, asked for in one go.
system_requirements() {
    local missing=()
    has cargo || die "Rust is missing: see https://rustup.rs"
    has c++ || missing+=(build-essential)
    [[ -x $CACHE/tools/bin/python ]] || python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
    ((${#missing[@]} == 0)) || system_packages "${missing[@]}"
}

# python_venv FOLDER REQUIREMENT...: a private Python with these packages (the arguments
# are pip's), made anew.
python_venv() {
    local venv=$1
    shift
    system_requirements
    say "installing Python packages into $venv"
    rm -rf "$venv"
    python3 -m venv "$venv"
    # From 25.1 on pip continues a download that broke off.
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check 'pip>=25.1' >&2
    "$venv/bin/python" -m pip install --quiet "$@" >&2
}

# tools_python COMMAND...: runs Python with pip and numpy.
tools_python() {
    local venv=$CACHE/tools
    "$venv/bin/python" -c 'import numpy, pip' 2>/dev/null || python_venv "$venv" 'numpy>=1.26,<3'
    "$venv/bin/python" "$@"
}

# fetch_wheels FOLDER REQUIREMENT... [-- PIP OPTION...]: downloads pinned wheels. Each
# requirement carries its sha256, which pip checks, also for a file that is already there.
fetch_wheels() {
    local folder=$1 requirements=()
    shift
    while (($#)) && [[ $1 != -- ]]; do
        requirements+=("$1")
        shift
    done
    tools_python -m pip download --dest "$folder" --no-cache-dir --no-deps --only-binary=:all: \
        --require-hashes --requirement <(printf '%s\n' "${requirements[@]}") "${@:2}" >&2
}

# unpack WHEEL FOLDER PATTERN...: the files of a wheel that match a pattern.
unpack() {
    tools_python - "$@" <<'PYTHON'
import sys, zipfile
from fnmatch import fnmatch

wheel, folder, *patterns = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive:
    names = [name for name in archive.namelist() if any(fnmatch(name, p) for p in patterns)]
    archive.extractall(folder, names)
PYTHON
}

# once COMMAND...: one process at a time fills the cache; the next finds it filled.
once() {
    mkdir -p "$CACHE"
    if has flock; then
        (flock 9 && "$@") 9>"$CACHE/lock"
    else
        "$@"
    fi
}
