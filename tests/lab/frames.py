"""What client and server of the lab say to each other: frames, flags and recognisable content.

Request: payload length u32, wanted answer length u32, flags u16 (big-endian), payload.
Answer (and greeting, and pushed frame): length u32, content.
"""

from __future__ import annotations

import random
import struct

REQUEST = struct.Struct(">IIH")
ANSWER = struct.Struct(">I")
_TAG = struct.Struct(">III")

# Flags of a request: what the server is to do with it.
CLOSE_AFTER = 0x0001  # answer, then close first
RESET_AFTER = 0x0002  # answer, then reset
NO_ANSWER = 0x0004
DELAY_SHIFT = 8  # the upper byte: answer after so many milliseconds

LONGEST_PAYLOAD = 1 << 28  # a header that says more is garbage
_BLOCK_BYTES = (1 << 20) + 37  # no multiple of anything that segments are cut by


class Content:
    """Payloads that say whose they are: tag (connection, request, seed), then seeded bytes."""

    __slots__ = ("_block", "_seed")

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._block = random.Random(seed).randbytes(_BLOCK_BYTES)

    def payload(self, connection: int, request: int, length: int) -> bytes:
        """`length` bytes; the same arguments and seed give the same bytes."""
        tag = _TAG.pack(connection & 0xFFFFFFFF, request & 0xFFFFFFFF, self._seed & 0xFFFFFFFF)
        start = (connection * 7919 + request * 104729) % _BLOCK_BYTES
        body = tag + self._block[start : start + length]
        while len(body) < length:
            body += self._block
        return body[:length]


def request(payload: bytes, answer_bytes: int, flags: int = 0) -> bytes:
    """One request frame."""
    return REQUEST.pack(len(payload), answer_bytes, flags) + payload


ANSWER_BLOCK = random.Random(2026).randbytes(1 << 16)


def answer(length: int) -> bytes:
    """One answer frame with `length` bytes of content, the same for every server."""
    repeats = length // len(ANSWER_BLOCK) + 1
    return ANSWER.pack(length) + (ANSWER_BLOCK * repeats)[:length]
