#!/usr/bin/env bash
# The promises at the full size that they name, one after the other, with the figures that were measured.
# Small versions of the same are in `make test`.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH:/usr/local/sbin:/usr/sbin:/sbin"
unset PYTHONPATH
export TCPCOPY_EXPECT_BUILD=compiled TCPCOPY_REQUIRE_NETNS=1

.venv/bin/python -m pytest --timeout 1800 -m acceptance -rA "${@:-tests/netns}"
