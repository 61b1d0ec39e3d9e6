"""Inputs made out of others. The same seed, target and number always give the same input."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from random import Random
from zlib import crc32

_MOST_CHANGES = 8
_NUMBERS = (0, 1, 2, 3, 4, 7, 8, 15, 16, 19, 20, 31, 32, 39, 40, 59, 60, 63, 64, 100, 127, 128, 255)
_WIDE_NUMBERS = (
    *_NUMBERS, 256, 1024, 1460, 4095, 4096, 16384, 16385, 32767, 32768, 65534, 65535, 65536,
    0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1,
)  # fmt: skip
_FORMATS = ("B", "H", "H", "I", "I", "Q")
_SHORT = (1, 1, 2, 3, 4, 8, 14, 20, 40)


def made_input(seed: int, name: str, index: int, corpus: Sequence[bytes], words: Sequence[bytes],
               most_bytes: int) -> bytes:  # fmt: skip
    """Input `index` of a target under a seed; `corpus` is not empty."""
    random = Random((seed << 64) ^ (crc32(name.encode()) << 32) ^ index)
    data = bytearray(random.choice(corpus))
    for _ in range(random.randint(1, _MOST_CHANGES)):
        _change(random, data, corpus, words)
    return bytes(data[:most_bytes])


def _change(
    random: Random, data: bytearray, corpus: Sequence[bytes], words: Sequence[bytes]
) -> None:
    at = random.randrange(len(data) + 1)
    kind = random.randrange(13)
    if kind == 0 and at < len(data):
        data[at] ^= 1 << random.randrange(8)
    elif kind == 1 and at < len(data):
        data[at] = random.randrange(256)
    elif kind in (2, 3):
        _put_number(random, data, at)
    elif kind == 4 and at < len(data):
        data[at] = (data[at] + random.randint(-16, 16)) & 0xFF
    elif kind == 5:
        data[at:at] = random.randbytes(random.choice(_SHORT))
    elif kind == 6:
        del data[at : at + _size(random, len(data))]
    elif kind == 7:
        data[at:at] = data[at : at + _size(random, len(data))]
    elif kind == 8:
        del data[at:]
    elif kind == 9:
        _splice(random, data, at, random.choice(corpus))
    elif kind == 10 and words:
        data[at:at] = random.choice(words)
    elif kind == 11 and words:
        word = random.choice(words)
        data[at : at + len(word)] = word
    elif kind == 12:
        data[at:at] = bytes([random.randrange(256)]) * random.choice((*_SHORT, 100, 300))


def _size(random: Random, most: int) -> int:
    return random.choice(_SHORT) if random.random() < 0.7 else random.randrange(most + 1)


def _put_number(random: Random, data: bytearray, at: int) -> None:
    form = random.choice("<>") + random.choice(_FORMATS)
    size = struct.calcsize(form)
    number = random.choice(_WIDE_NUMBERS) & (1 << 8 * size) - 1
    data[at : at + size] = struct.pack(form, number)


def _splice(random: Random, data: bytearray, at: int, other: bytes) -> None:
    start = random.randrange(len(other) + 1)
    piece = other[start : start + _size(random, len(other))]
    if random.random() < 0.5:
        data[at:at] = piece
    else:
        data[at : at + len(piece)] = piece
