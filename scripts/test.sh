#!/usr/bin/env bash
# All tests, in the order in which they are quick to fail: the uncompiled package, the compiled one,
# a minute of the fuzzer, and the compiled package with real servers in network namespaces (as root).
#
#   scripts/test.sh [pure|compiled|fuzz|netns]...    default: all four
set -euo pipefail
cd "$(dirname "$0")/.."

RINGS=(tests/unit tests/sim tests/property tests/vectors)
PATH="$PWD/.venv/bin:$PATH:/usr/local/sbin:/usr/sbin:/sbin"
unset PYTHONPATH

# run BUILD ARGUMENT...: pytest with the package that BUILD names ("pure", "compiled")
#
# A busy machine can make a test fail that measures time. Up to five that failed run once more, each
# with nothing beside it; those that pass then are named at the end.
run() {
    local build=$1 started=$SECONDS code=0
    shift
    printf '\n== %s package: %s\n' "$build" "$*"
    # The sources hold no compiled module, so naming them first selects the pure package.
    local path=()
    [ "$build" = compiled ] || path=(PYTHONPATH=src)
    rm -f .pytest_cache/v/cache/lastfailed
    env "${path[@]}" TCPCOPY_EXPECT_BUILD="$build" .venv/bin/python -m pytest "$@" || code=$?
    if [ $code = 1 ]; then
        again "$build" "$@" || failed+=("$build: $*")
    elif [ $code != 0 ]; then
        failed+=("$build: $*")
    fi
    printf '== took %d s\n' $((SECONDS - started))
}

# again BUILD ARGUMENT...: the few tests that just failed, once more; false if any fails again
again() {
    local build=$1 path=() names
    shift
    [ "$build" = compiled ] || path=(PYTHONPATH=src)
    names=$(.venv/bin/python -c 'import json; print(*json.load(open(".pytest_cache/v/cache/lastfailed")), sep="\n")')
    [ "$(wc -l <<<"$names")" -le 5 ] || return 1
    printf '\n== once more, alone:\n%s\n' "$names"
    local arguments=("$@")
    [ "$1" != -n ] || arguments=("${@:3}")
    env "${path[@]}" TCPCOPY_EXPECT_BUILD="$build" .venv/bin/python -m pytest \
        --last-failed --last-failed-no-failures=none "${arguments[@]}" || return 1
    mapfile -t -O ${#unsteady[@]} unsteady <<<"$names"
}

# An empty ring is a failure of its own: tests/repo/test_documents.py.
rings() { find "${RINGS[@]}" -maxdepth 0 2>/dev/null || true; }

failed=()
unsteady=()
for part in "${@:-pure}" $([ $# -gt 0 ] || echo compiled fuzz netns); do
    case $part in
        pure) run pure -n 2 tests/repo $(rings) ;;
        compiled) run compiled -n 2 $(rings) ;;
        # The same inputs each time; `make asan` and `make soak` run it under sanitizers.
        fuzz) .venv/bin/python -m tests.fuzz --seconds 60 || failed+=("fuzz") ;;
        netns)
            run compiled -n 2 -m "not alone and not soak and not acceptance" tests/netns
            run compiled -m "alone and not soak and not acceptance" tests/netns
            ;;
        *) echo "usage: scripts/test.sh [pure|compiled|fuzz|netns]..." >&2; exit 2 ;;
    esac
done

if [ ${#unsteady[@]} -gt 0 ]; then
    printf '\nFAILED at first, passed alone: %s' "${unsteady[@]}"
    echo
fi
if [ ${#failed[@]} -gt 0 ]; then
    printf '\nFAILED %s\n' "${failed[@]}" >&2
    exit 1
fi
