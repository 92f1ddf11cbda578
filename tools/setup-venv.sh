#!/bin/sh
# Make .venv; instant when nothing has changed.
#   tools/setup-venv.sh          EMIM (editable), pytest and ruff
#   tools/setup-venv.sh slicer   also what the tests of the Slicer modules need: Slicer's core, Qt, CMake
# PYTHON=/path/to/python3 chooses the interpreter. pip's own settings (PIP_INDEX_URL, pip.conf, …) apply.
set -eu
cd "$(dirname "$0")/.."

fail() {
    echo "setup: $1" >&2
    exit 1
}

want=${1:-core}
case $want in core | slicer) ;; *) fail "unknown argument '$want'; use none, or slicer" ;; esac

apt_install() { # packages…
    echo "setup: installing $*"
    apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" ||
        fail "installing $* failed; see the messages above."
}

# Whatever decides the contents of .venv; a different fingerprint means installing again.
has_gpu=no
if command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi >/dev/null 2>&1; then has_gpu=yes; fi
fingerprint="gpu=$has_gpu $(cat pyproject.toml tools/*.txt tools/setup-venv.sh | cksum) $(pwd)"
stamp=.venv/emim-setup
is_done() { [ -x .venv/bin/python ] && [ "$(cat "$stamp-$1" 2>/dev/null)" = "$fingerprint" ] && .venv/bin/python -c ""; }
mark_done() {
    printf '%s\n' "$fingerprint" >"$stamp.new"
    mv "$stamp.new" "$stamp-$1"
}

choose_python() { # Python 3.10 or later. A pyenv shim exists even where no version is chosen, so run it to know.
    new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; }
    python=
    for candidate in ${PYTHON:-python3 python3.12 python3.11 python3.10 python3.13 /usr/bin/python3}; do
        if new_enough "$candidate"; then python=$candidate; break; fi
    done
    [ -n "$python" ] || fail "no Python 3.10 or later found${PYTHON:+ (PYTHON=$PYTHON)}.
On Debian or Ubuntu: sudo apt-get install python3 python3-venv
Elsewhere, name it: PYTHON=/path/to/python3 make …"
}

install_venv_module() { # Debian and Ubuntu ship Python without ensurepip, which the venv module needs.
    can_make_venv() { "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; }
    if can_make_venv; then return; fi
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    package=python$version-venv
    command -v apt-get >/dev/null 2>&1 || fail "$python lacks the modules venv and ensurepip; install them."
    [ "$(id -u)" = 0 ] || fail "$python lacks the venv module. Run:
    sudo apt-get update && sudo apt-get install -y $package
and then the same make command again."
    apt_install "$package"
    can_make_venv || fail "$python still lacks the venv module after installing $package."
}

pip_install() { # what to install
    # Without a GPU the CPU build of torch saves some 3 GB. On Linux, PyPI carries the CUDA build, PyTorch's
    # own index the CPU build. Where the user has told pip which indexes to use, those are not added to.
    pip=".venv/bin/python -m pip"
    constrain=
    if [ $has_gpu = no ]; then
        constrain="--constraint tools/cpu-constraints.txt"
        case "$(uname -s) $($pip config list)" in
            *index* | *find-links*) ;;
            Linux*) constrain="$constrain --extra-index-url https://download.pytorch.org/whl/cpu" ;;
        esac
    fi
    # shellcheck disable=SC2086  # $pip and $constrain are several words
    $pip install --quiet $constrain --editable "$1" || fail "installing the Python packages failed (see above).
Behind a proxy or on a mirror, set HTTPS_PROXY, PIP_INDEX_URL or PIP_EXTRA_INDEX_URL and try again."
}

install_system_libraries() { # for Qt and OpenGL without a screen; Linux only, and only what is missing
    [ "$(uname -s)" = Linux ] || return 0
    missing=$(.venv/bin/python tools/missing_libraries.py)
    [ -n "$missing" ] || return 0
    packages=$(grep -v '^#' tools/apt-packages.txt | tr '\n' ' ')
    command -v apt-get >/dev/null 2>&1 || fail "the tests of the Slicer modules need these libraries: $missing
Install the packages of your distribution that hold them (on Debian: $packages)."
    [ "$(id -u)" = 0 ] || fail "the tests of the Slicer modules need these libraries: $missing
Run:
    sudo apt-get update && sudo apt-get install -y $packages
and then the same make command again."
    # shellcheck disable=SC2086  # several packages
    apt_install $packages
    missing=$(.venv/bin/python tools/missing_libraries.py)
    [ -z "$missing" ] || fail "still missing after installing $packages: $missing"
}

if ! is_done core; then
    choose_python
    install_venv_module
    rm -rf .venv # without its stamp it is taken for half made
    "$python" -m venv .venv
    echo "setup: installing EMIM into .venv (GPU: $has_gpu); this takes some minutes"
    pip_install ".[dev]"
    mark_done core
fi
if [ "$want" = slicer ] && ! is_done slicer; then
    echo "setup: adding Slicer's core and Qt for the tests of the Slicer modules (about 1 GB)"
    pip_install ".[dev,slicer]"
    install_system_libraries
    mark_done slicer
fi
