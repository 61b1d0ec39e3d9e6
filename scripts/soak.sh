#!/usr/bin/env bash
# The long tests: the fuzzer under sanitizers, every property with many more examples, and the soaks
# with real servers (root).
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH:/usr/local/sbin:/usr/sbin:/sbin"
unset PYTHONPATH

scripts/sanitized.sh build
# Other inputs each time; the seed is printed.
scripts/sanitized.sh fuzz --seconds 900 --seed "$(date +%s)"

export TCPCOPY_HYPOTHESIS=deep TCPCOPY_EXPECT_BUILD=compiled

.venv/bin/python -m pytest -n 2 --timeout 3600 -m 'not soak and not acceptance' tests/sim tests/property
.venv/bin/python -m pytest --timeout 7200 -m soak tests
