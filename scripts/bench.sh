#!/usr/bin/env bash
# Runs every benchmarks/bench_*.py with the compiled package, and says what it was measured on.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH:/usr/local/sbin:/usr/sbin:/sbin"
unset PYTHONPATH

printf 'date     %s\n' "$(date -u +%Y-%m-%dT%H:%MZ)"
printf 'commit   %s\n' "$(git describe --always --dirty 2>/dev/null || echo unknown)"
printf 'machine  %s x %s, Linux %s\n' "$(nproc)" \
    "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)" "$(uname -r)"
printf 'build    %s\n' "$(.venv/bin/python -c 'from tcpcopy.version import version_line; print(version_line())')"

shopt -s nullglob
benchmarks=(benchmarks/bench_*.py)
[ ${#benchmarks[@]} -gt 0 ] || { echo "bench: no benchmarks/bench_*.py here" >&2; exit 1; }
for benchmark in "${benchmarks[@]}"; do
    printf '\n== %s\n' "$benchmark"
    .venv/bin/python "$benchmark" "$@"
done
