"""One target under libFuzzer, which looks for inputs that go new ways. Needs the package atheris.

    pip install atheris
    PYTHONPATH=src python -m tests.fuzz.libfuzzer engine -max_total_time=600 build/fuzz/new

With the uncompiled package it sees every branch; what it finds goes into the corpus that the
compiled one is fuzzed from. `.clusterfuzzlite` makes a program of each target out of `run`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["tcpcopy"]):
    from tests.fuzz.table import CORPUS, TARGETS, corpus


def run(name: str, arguments: Sequence[str] = ()) -> None:
    """Hand the target over to libFuzzer, which ends the process; `arguments` are its own."""
    target = TARGETS[name]

    def once(data: bytes) -> None:
        try:
            target.run(data)
        except target.documented:
            pass

    atheris.Setup([sys.argv[0], f"-max_len={target.most_bytes}", *arguments], once)
    atheris.Fuzz()


def main() -> None:
    """TARGET [libFuzzer's options] FOLDER: valid inputs are put into the folder first."""
    name, *arguments = sys.argv[1:]
    for folder in (Path(word) for word in arguments if not word.startswith("-")):
        folder.mkdir(parents=True, exist_ok=True)
        if folder.resolve() != CORPUS / name:
            for place, data in enumerate(corpus(TARGETS[name])):
                (folder / f"seed-{place}").write_bytes(data)
    run(name, arguments)


if __name__ == "__main__":
    main()
