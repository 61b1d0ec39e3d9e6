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
run() {
    local build=$1 started=$SECONDS
    shift
    printf '\n== %s package: %s\n' "$build" "$*"
    # The sources hold no compiled module, so naming them first selects the pure package.
    local path=()
    [ "$build" = compiled ] || path=(PYTHONPATH=src)
    env "${path[@]}" TCPCOPY_EXPECT_BUILD="$build" .venv/bin/python -m pytest "$@" || failed+=("$build: $*")
    printf '== took %d s\n' $((SECONDS - started))
}

# An empty ring is a failure of its own: tests/repo/test_documents.py.
rings() { find "${RINGS[@]}" -maxdepth 0 2>/dev/null || true; }

failed=()
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

if [ ${#failed[@]} -gt 0 ]; then
    printf '\nFAILED %s\n' "${failed[@]}" >&2
    exit 1
fi
