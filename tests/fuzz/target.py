"""What a fuzz target is, and what several of them need."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """One reader of foreign bytes.

    `run` takes any bytes and raises nothing but the `documented` errors; what else it raises, and
    an `assert` of its own that fails, is a finding. It keeps nothing from call to call: an input
    alone repeats what was found. `seeds` makes valid inputs; `words` are pieces worth inserting.
    """

    name: str
    run: Callable[[bytes], None]
    seeds: Callable[[], Sequence[bytes]]
    documented: tuple[type[Exception], ...] = ()
    words: tuple[bytes, ...] = ()
    most_bytes: int = 2048  # of an input


def exact(data: bytes) -> memoryview:
    """A buffer that ends where the data ends, in memory as well.

    `bytes` and `bytearray` have a byte more behind them, so that the sanitizer would not see a read
    of one too many.
    """
    return memoryview(array("B", array("B", data)))


def pieces(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Cut an input into events: kind u8, length u16, bytes (as many as there are)."""
    at = 0
    while at + 3 <= len(data):
        kind, length = struct.unpack_from("!BH", data, at)
        yield kind, data[at + 3 : at + 3 + length]
        at += 3 + length


def joined(*events: tuple[int, bytes]) -> bytes:
    """The input whose `pieces` these are."""
    return b"".join(struct.pack("!BH", kind, len(body)) + body for kind, body in events)


def cut(data: bytes) -> list[bytes]:
    """A stream as it may arrive: the first byte says in how long pieces, the rest is the stream."""
    size = data[0] if data else 0
    stream = data[1:]
    if size == 0:
        return [stream]
    return [stream[at : at + size] for at in range(0, len(stream), size)]


def streams(*wholes: bytes) -> list[bytes]:
    """Inputs for `cut`: each stream whole, and in pieces of 7 bytes."""
    return [bytes([size]) + whole for whole in wholes for size in (0, 7)]
