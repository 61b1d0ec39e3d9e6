#!/usr/bin/env bash
# The compiled modules with gcc's address and undefined-behaviour sanitizers, in build/asan.
#
#   scripts/sanitized.sh build             compile them (what has not changed stays)
#   scripts/sanitized.sh run ARGUMENT...   Python with that package: run -m pytest tests/unit
#   scripts/sanitized.sh tests             the unit, vector and property tests under them
#   scripts/sanitized.sh fuzz ARGUMENT...  the fuzzer under them: tests/fuzz/__main__.py
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"
BUILD=build/asan

build() {
    mkdir -p $BUILD
    local log=$BUILD/build.log
    if ! TCPCOPY_COMPILE=require TCPCOPY_SANITIZE=1 .venv/bin/python setup.py -q build \
        --build-lib $BUILD/lib --build-temp $BUILD/temp >$log 2>&1; then
        cat $log >&2
        echo "the package does not build with sanitizers; the text above says why" >&2
        exit 1
    fi
    tail -n 1 $log >&2
}

# run ARGUMENT...: Python with the sanitized package
run() {
    local libraries
    # The interpreter is not sanitized, so the run-time comes in first by itself. libstdc++ has to be
    # there when it does: extension modules written in C++ bring it later.
    libraries="$(cc -print-file-name=libasan.so) $(cc -print-file-name=libstdc++.so.6)"
    # No small-block allocator: every object is a block of its own, with red zones around it.
    # Leaks: the interpreter frees nothing at exit.
    env LD_PRELOAD="$libraries" PYTHONMALLOC=malloc PYTHONPATH="$PWD/$BUILD/lib" \
        TCPCOPY_EXPECT_BUILD=compiled \
        ASAN_OPTIONS="detect_leaks=0:abort_on_error=0:exitcode=99:quarantine_size_mb=32:allocator_may_return_null=1" \
        UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1:exitcode=99:suppressions=$PWD/tests/fuzz/ubsan.supp" \
        .venv/bin/python "$@"
}

command=${1:-}
shift || true
case $command in
    build) build ;;
    run) run "$@" ;;
    # What is written below Python is lost with a process that dies, unless it goes straight through.
    tests) run -m pytest -n 2 --capture=sys --timeout 1200 tests/unit tests/vectors tests/property ;;
    fuzz) run -m tests.fuzz "$@" ;;
    *) echo "usage: scripts/sanitized.sh build|run|tests|fuzz [ARGUMENT]..." >&2; exit 2 ;;
esac
