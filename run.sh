#!/usr/bin/env bash
# Starts ExplainMyXray on this machine and reads the demo image. Options: --once, --port N, --data DIR
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"

python=
for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "Python 3.11 or newer is needed. Install it, or name it: PYTHON=/path/to/python3.11 ./run.sh" >&2
    exit 1
fi
venv="$here/.venv"
stamp="$venv/.installed-run"
if [ ! -f "$stamp" ] || [ "$here/requirements.txt" -nt "$stamp" ] || [ "$here/pyproject.toml" -nt "$stamp" ]; then
    free=$(df -Pk "$here" | awk 'NR == 2 { print $4 }')
    if [ "$free" -lt 3000000 ] && [ ! -d "$venv" ]; then
        echo "About 3 GB of disk are needed here for Python packages; $((free / 1024)) MB are free." >&2
        exit 1
    fi
    echo "First start: installing into .venv (some minutes, about 1.5 GB) …"
    [ -x "$venv/bin/python" ] || "$python" -m venv "$venv" || {
        echo "Python's venv module doesn't work here. On Debian and Ubuntu: apt install python3-venv" >&2
        exit 1
    }
    "$venv/bin/python" -P -m pip install --disable-pip-version-check --progress-bar on -r "$here/requirements.txt"
    "$venv/bin/python" -P -m pip install --disable-pip-version-check --quiet --no-deps -e "$here"
    touch "$stamp"
fi
exec "$venv/bin/emx" up "$@"
