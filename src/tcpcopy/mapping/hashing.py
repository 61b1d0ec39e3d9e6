"""A hash that is the same in every process, run and machine (Python's own is salted)."""

from __future__ import annotations

from zlib import crc32


def stable_hash(data: bytes) -> int:
    """32-bit hash of a few bytes; every bit of the result depends on every bit of the data.

    CRC-32 alone is linear (close ports give related values), so MurmurHash3's 32-bit finaliser
    follows it.
    """
    value = crc32(data)
    value ^= value >> 16
    value = value * 0x85EBCA6B & 0xFFFFFFFF
    value ^= value >> 13
    value = value * 0xC2B2AE35 & 0xFFFFFFFF
    return value ^ value >> 16
