#!/usr/bin/env bash
# Installs what the tests need, then runs them all. Arguments go to pytest: ./test.sh tests/shared -k ledger
set -euo pipefail
cd "$(dirname "$0")"

PYTHON=${PYTHON:-python3}
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
    echo "Python 3.11 or newer is needed. Install it, or name it: PYTHON=/path/to/python3.11 ./test.sh" >&2
    exit 1
}
[ -x .venv/bin/python ] || "$PYTHON" -m venv .venv
stamp=.venv/.installed-dev
if [ ! -f "$stamp" ] || [ requirements-dev.txt -nt "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
    echo "Installing what the tests need …"
    .venv/bin/python -m pip install --progress-bar on -r requirements-dev.txt
    .venv/bin/python -m pip install --quiet --no-deps -e .
    touch "$stamp"
fi
exec .venv/bin/python -m pytest "$@"
