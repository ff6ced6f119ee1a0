#!/usr/bin/env bash
# Build .venv from requirements.lock and register the Jupyter kernel `sparse-transfer` in it.
#
# Why a script: SparseML and DeepSparse run on Python 3.11 at the latest, which is rarely the `python3` of a new
# machine, so it is looked for in all the usual places. Why a stamp, written last: a half-built .venv must never
# pass for a whole one. Running again with the same lock in the same folder does nothing.
#
# bash tools/setup.sh            build what is missing
# bash tools/setup.sh --python   only print the Python 3.11 that was found
# bash tools/setup.sh --built    only tell, by the exit code, whether there is nothing to build
# Exit codes: 0 done, 1 the installation failed, 2 something on this machine has to change first.
set -euo pipefail
cd "${BASH_SOURCE[0]%/*}/.."

VENV=.venv
PY=$VENV/bin/python
LOCK=requirements.lock
STAMP=$VENV/lock.stamp
CPU_INDEX=https://download.pytorch.org/whl/cpu
NEEDED_GB=5

say() { printf '%s\n' "$*"; }
complain() { printf '%s\n' "$*" >&2; }

# Every Python 3.11 there might be, best first, one path a line. Shims that refuse are sorted out later.
candidates() {
    local home=${HOME:-/nonexistent}
    [ -z "${PYTHON:-}" ] || type -P "$PYTHON" || true
    type -aP python3.11 || true
    printf '%s\n' "${PYENV_ROOT:-$home/.pyenv}"/versions/3.11*/bin/python
    ! type -P uv >/dev/null || uv python find --system 3.11 2>/dev/null || true
    [ -z "${CONDA_PREFIX:-}" ] || say "$CONDA_PREFIX/bin/python"
    ! type -P conda >/dev/null || conda env list 2>/dev/null | sed -n 's|^[^#/]*\(/.*\)$|\1/bin/python|p'
    printf '%s\n' "$home"/{miniforge3,mambaforge,miniconda3,anaconda3}{,/envs/*}/bin/python
}

# A Python counts if it runs, is 3.11 and can build a working venv (Debian ships it without ensurepip). The one of
# $VENV, first on the path where that is activated, would be deleted before it builds anything.
works() {
    [ -x "$1" ] && "$1" - "$VENV" 2>/dev/null <<'PYTHON'
import ensurepip, os, sys, venv
sys.exit(sys.version_info[:2] != (3, 11) or os.path.realpath(sys.prefix) == os.path.realpath(sys.argv[1]))
PYTHON
}

find_python() {
    local candidate
    while IFS= read -r candidate; do
        if works "$candidate"; then
            say "$candidate"
            return
        fi
    done < <(candidates)
    complain "No Python 3.11 that can build a venv was found: SparseML and DeepSparse need exactly 3.11."
    complain "Get one:  uv python install 3.11   or   pyenv install 3.11   or   conda create -n py311 python=3.11"
    complain "(Debian, Ubuntu: apt install python3.11-venv.)  Then run make setup again, or: make setup PYTHON=/path/to/python3.11"
    return 2
}

check_platform() {
    case "${OSTYPE:-}" in
        linux*) ;;
        msys* | cygwin* | win32*)
            complain "DeepSparse is for Linux only, and this set-up needs a Unix shell and folder layout."
            complain "On Windows use WSL (wsl --install): it is Linux, and there everything works, DeepSparse included."
            exit 2
            ;;
        *) say "Note: DeepSparse is for Linux only, so its timings are left out here. The rest works." ;;
    esac
}

# The stamp holds the lock's sha256 and the folder: a venv that was moved or copied does not work.
stamp() {
    "$1" - "$LOCK" <<'PYTHON'
import hashlib, os, sys
print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())
print(os.getcwd())
PYTHON
}

is_built() {
    [ -x "$PY" ] && [ -f "$STAMP" ] && [ "$(stamp "$PY" 2>/dev/null)" = "$(cat "$STAMP")" ]
}

# An older .venv makes room before the new one is built.
check_space() {
    "$1" - "$NEEDED_GB" "$VENV" <<'PYTHON' || exit 2
import os, shutil, sys
free, needed = shutil.disk_usage(".").free / 1e9, float(sys.argv[1])
there = () if os.path.islink(sys.argv[2]) else os.walk(sys.argv[2])  # a link may lead to another disk
old = (os.path.join(folder, name) for folder, _, names in there for name in names)
if free + sum(os.lstat(file).st_size for file in old) / 1e9 < needed:
    sys.exit(f"Only {free:.1f} GB free here; the set-up needs {needed:.0f} GB. Make room and run make setup again.")
PYTHON
}

# PyTorch's last build for Intel Macs is older than the one in the lock.
check_machine() {
    "$1" - <<'PYTHON' || exit 2
import platform, sys
if platform.system() == "Darwin" and platform.machine() != "arm64":
    sys.exit("On a Mac this needs Apple silicon and a Python for it: there is no PyTorch of today for Intel Macs.")
PYTHON
}

# Twice quiet: only errors. Silence is named beforehand, step by step, in build().
# pip compiles what it installs: half of the time, but where PYTHONDONTWRITEBYTECODE is set nothing else ever would.
install() { "$PY" -m pip install -qq --disable-pip-version-check --no-deps --require-hashes "$@"; }

# The lines of the lock that belong to the packages named.
lock_lines() {
    local name
    for name in "$@"; do
        awk -v start="$name==" 'index($0, start) == 1 { on = 1; print; next } /^[^ ]/ { on = 0 } on' "$LOCK"
    done
}

# The plain index has torch for Linux as a CUDA build only, which is no use without gigabytes of CUDA packages.
# Where the reader's own index knows the CPU build it is taken from there, else from PyTorch's public one.
install_torch() {
    local version=$1 options=()
    if [[ ${OSTYPE:-} == linux* ]] &&
        ! "$PY" -m pip install --quiet --dry-run --no-deps "torch==$version+cpu" >/dev/null 2>&1; then
        options=(--extra-index-url "$CPU_INDEX")
    fi
    install ${options[@]+"${options[@]}"} -r "$VENV/torch.txt"
}

build() {
    local python=$1
    rm -rf "$VENV"
    "$python" -m venv "$VENV"
    say "1/4 what installs: pip, setuptools and their companions"
    lock_lines pip setuptools setuptools-scm vcs-versioning packaging >"$VENV/installer.txt"
    install -r "$VENV/installer.txt"
    say "2/4 torch"
    lock_lines torch >"$VENV/torch.txt"
    install_torch "$(sed -n 's/^torch==\([0-9.]*\).*/\1/p' "$VENV/torch.txt" | sed -n 1p)"
    say "3/4 the other packages of $LOCK (a minute or two)"
    # No build isolation: the few packages that come as source are built by the locked setuptools.
    install --no-build-isolation -r "$LOCK"
    say "4/4 the Jupyter kernel sparse-transfer"
    "$PY" -m ipykernel install --sys-prefix --name sparse-transfer \
        --display-name "Python 3.11 (sparse-transfer)" >/dev/null
    # Notebooks and scripts import `helpers` from the checkout, wherever they are started.
    pwd >"$VENV/lib/python3.11/site-packages/sparse-transfer-tutorial.pth"
    stamp "$PY" >"$STAMP.part"
    mv "$STAMP.part" "$STAMP"
}

main() {
    local python
    if [ "${1:-}" = --python ]; then
        find_python
        return
    fi
    if is_built; then
        return
    fi
    if [ "${1:-}" = --built ]; then
        return 1
    fi
    check_platform
    if ! [ -w . ]; then
        complain "$PWD cannot be written to, and .venv has to go there. Copy the repository to a folder of yours."
        exit 2
    fi
    python=$(find_python)
    check_machine "$python"
    check_space "$python"
    say "Building $VENV with $python; this takes a few minutes, once."
    trap 'complain "The set-up did not finish and $VENV is not usable. Run make setup again (a network is needed)."' EXIT
    build "$python"
    trap - EXIT
    say "Done. Next: make lab"
}

main "$@"
