"""The process that runs the targets. What kills it must not take the input along.

It writes each input into a file that it shares with its parent before it runs it (`Shown`), and
tells the parent in lines of JSON what it found and how far it came.
"""

from __future__ import annotations

import importlib
import json
import mmap
import os
import struct
import sys
import time
import traceback
from collections.abc import Iterator, Sequence

from tests.fuzz.mutation import made_input
from tests.fuzz.table import corpus
from tests.fuzz.target import Target

_HEAD = struct.Struct("=QQQ")  # number of the target, of the input, bytes of it
_SHARED_BYTES = 1 << 16
_TURN_S = 0.2  # each target runs so long before the next has its turn
_LOOK = 8  # inputs between two looks at the clock
MOST_FAILURES = 5  # of one target; then it is left out


class Shown:
    """What is being run, in shared memory: it outlives the process that runs it."""

    def __init__(self, descriptor: int) -> None:
        os.ftruncate(descriptor, _SHARED_BYTES)
        self._memory = mmap.mmap(descriptor, _SHARED_BYTES)

    def show(self, target: int, index: int, data: bytes) -> None:
        """Say what is run next."""
        data = data[: _SHARED_BYTES - _HEAD.size]
        self._memory[: _HEAD.size] = _HEAD.pack(target, index, len(data))
        self._memory[_HEAD.size : _HEAD.size + len(data)] = data

    def seen(self) -> tuple[int, int, bytes]:
        """The last that was shown: number of the target, of the input, the input."""
        target, index, size = _HEAD.unpack(self._memory[: _HEAD.size])
        return target, index, self._memory[_HEAD.size : _HEAD.size + size]


def problem_with(target: Target, data: bytes) -> str:
    """Run one input; "" or the trace of what went wrong."""
    try:
        target.run(data)
    except target.documented:
        pass
    except Exception:
        return traceback.format_exc()
    return ""


def inputs(
    target: Target, whole: Sequence[bytes], seed: int, first: int
) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of every input from `first` on: the corpus as it is, then mutants of it."""
    for index in range(first, len(whole)):
        yield index, whole[index]
    index = max(first, len(whole))
    while True:
        yield index, made_input(seed, target.name, index, whole, target.words, target.most_bytes)
        index += 1


def run(
    table: str, names: list[str], seed: int, firsts: list[int], until: float, shared: int
) -> None:
    """Run targets of a module in turns until a time (CLOCK_MONOTONIC); ends by itself."""
    shown = Shown(shared)
    known: dict[str, Target] = importlib.import_module(table).TARGETS
    targets = [known[name] for name in names]
    streams = []
    for place, (target, first) in enumerate(zip(targets, firsts, strict=True)):
        shown.show(place, first, b"")  # what makes its inputs may die as well
        streams.append(inputs(target, corpus(target), seed, first))
    failures = [0] * len(targets)
    places = list(range(len(targets)))
    rounds = 0
    while places and (time.monotonic() < until or rounds == 0):
        for place in places:
            target, count = targets[place], 0
            ends = time.monotonic() + _TURN_S
            while count % _LOOK or time.monotonic() < ends:
                index, data = next(streams[place])
                shown.show(place, index, data)
                count += 1
                if problem := problem_with(target, data):
                    failures[place] += 1
                    _say(target=place, index=index, problem=problem, input=data.hex())
                    break
            _say(target=place, done=index + 1, count=count)
        places = [place for place in places if failures[place] < MOST_FAILURES]
        rounds += 1


def _say(**fields: object) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Read from the command line what `runner` has put there."""
    order = json.loads(sys.argv[1])
    run(**order)


if __name__ == "__main__":
    main()
