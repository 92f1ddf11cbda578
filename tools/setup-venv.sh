#!/bin/sh
# Make .venv with EMIM (editable) and its development tools; instant when nothing has changed.
#   tools/setup-venv.sh
# PYTHON=/path/to/python3 chooses the interpreter. pip's own settings (PIP_INDEX_URL, pip.conf, …) apply.
set -eu
cd "$(dirname "$0")/.."

fail() {
    echo "setup: $1" >&2
    exit 1
}

# Whatever decides the contents of .venv; a different fingerprint means installing again.
has_gpu=no
if command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi >/dev/null 2>&1; then has_gpu=yes; fi
fingerprint="gpu=$has_gpu $(cat pyproject.toml tools/cpu-constraints.txt tools/setup-venv.sh | cksum) $(pwd)"
stamp=.venv/emim-setup
if [ -x .venv/bin/python ] && [ "$(cat $stamp 2>/dev/null)" = "$fingerprint" ] && .venv/bin/python -c ""; then
    exit 0
fi

# 1. Python 3.10 or later. A pyenv shim exists even where no version is chosen, so run it to know.
new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; }
python=
for candidate in ${PYTHON:-python3 python3.12 python3.11 python3.10 python3.13 /usr/bin/python3}; do
    if new_enough "$candidate"; then python=$candidate; break; fi
done
[ -n "$python" ] || fail "no Python 3.10 or later found${PYTHON:+ (PYTHON=$PYTHON)}.
On Debian or Ubuntu: sudo apt-get install python3 python3-venv
Elsewhere, name it: PYTHON=/path/to/python3 make …"

# 2. Debian and Ubuntu ship Python without ensurepip, which the venv module needs.
can_make_venv() { "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; }
if ! can_make_venv; then
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    package=python$version-venv
    command -v apt-get >/dev/null 2>&1 || fail "$python lacks the modules venv and ensurepip; install them."
    [ "$(id -u)" = 0 ] || fail "$python lacks the venv module. Run:
    sudo apt-get update && sudo apt-get install -y $package
and then the same make command again."
    echo "setup: installing $package"
    apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y "$package" ||
        fail "installing $package failed; see the messages above."
    can_make_venv || fail "$python still lacks the venv module after installing $package."
fi

# 3. The environment. Without its stamp it is taken for half made, and made anew.
rm -rf .venv
"$python" -m venv .venv
pip=".venv/bin/python -m pip"
# Without a GPU the CPU build of torch saves some 3 GB. On Linux, PyPI carries the CUDA build, PyTorch's
# own index the CPU build. Where the user has told pip which indexes to use, those are not added to.
constrain=
if [ $has_gpu = no ]; then
    constrain="--constraint tools/cpu-constraints.txt"
    case "$(uname -s) $($pip config list)" in
        *index* | *find-links*) ;;
        Linux*) constrain="$constrain --extra-index-url https://download.pytorch.org/whl/cpu" ;;
    esac
fi
echo "setup: installing EMIM into .venv (GPU: $has_gpu); this takes some minutes"
# shellcheck disable=SC2086  # $pip and $constrain are several words
$pip install --quiet $constrain --editable ".[dev]" || fail "installing the Python packages failed (see above).
Behind a proxy or on a mirror, set HTTPS_PROXY, PIP_INDEX_URL or PIP_EXTRA_INDEX_URL and try again."

printf '%s\n' "$fingerprint" >"$stamp.new"
mv "$stamp.new" "$stamp"
