#!/usr/bin/env bash
# Everything that judges the text of the project, not its behaviour. Reports all, then fails.
set -uo pipefail
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"

status=0
check() {
    printf '== %s\n' "$*"
    "$@" || status=1
}

mapfile -t pxd < <(find src -name '*.pxd' -size +0)
check ruff check .
check ruff format --check .
check mypy
check cython-lint "${pxd[@]}"
exit $status
