#!/bin/bash -eu
# Makes a program of each target of tests/fuzz. The image sets CC, CFLAGS, SRC, OUT and SANITIZER.

# Compiled with the image's sanitizers; -fno-wrapv: or no signed overflow counts as undefined.
export TCPCOPY_COMPILE=require CFLAGS="$CFLAGS -fno-wrapv"
pip3 install . pytest zstandard

python3 -m tests.fuzz --write-seeds "$WORK/seeds"
for folder in "$WORK"/seeds/*; do
    target=$(basename "$folder")
    (cd "$folder" && python3 -m zipfile -c "$OUT/fuzz_${target}_seed_corpus.zip" *)
    harness=$SRC/fuzz_$target.py
    printf 'import sys\nfrom tests.fuzz.libfuzzer import run\nrun("%s", sys.argv[1:])\n' "$target" >"$harness"
    # What the compiled modules import cannot be seen from outside.
    compile_python_fuzzer "$harness" --paths . --collect-submodules tcpcopy --collect-data tcpcopy \
        --collect-submodules tests.fuzz --add-data tests/fuzz/corpus:tests/fuzz/corpus
done
