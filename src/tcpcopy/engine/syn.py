"""What a SYN of ours carries: the initial sequence number and the options of the client's SYN.

Source: RFC 9293 (3.4.1, 3.7.1), RFC 6528 (initial numbers), RFC 7323, RFC 2018.
"""

from __future__ import annotations

import cython

from tcpcopy.mapping.places import mix

_MASK = 0xFFFFFFFF  # typed: as literals these would be Python objects when compiled
_WIDE_MASK = 0xFFFFFFFFFFFFFFFF
_FOLD = 1_000_003
_MOST = 20  # bytes of the options


def initial_number(source: bytes, target: bytes, ports: int, seed: int, now_ns: int) -> int:
    """A clock of 4 us a step plus a number of its own for each pair of ends (`ports`: both)."""
    wide = 0
    for byte in source:
        wide = (wide * _FOLD ^ byte) & _WIDE_MASK
    for byte in target:
        wide = (wide * _FOLD ^ byte) & _WIDE_MASK
    number: int = cython.cast(cython.uint, (now_ns // 4000 + mix(wide, ports, 0) + seed) & _MASK)
    return number


def syn_options(mss: int, sack: int, timestamps: int, timestamp: int, window_scale: int) -> bytes:
    """The options as Linux orders them, padded to four bytes; no window scale when it is -1."""
    options = bytearray(_MOST)
    options[0], options[1] = 2, 4
    options[2] = cython.cast(cython.uchar, mss >> 8)
    options[3] = cython.cast(cython.uchar, mss & 0xFF)
    used = 4
    if timestamps:
        options[4], options[5] = (4, 2) if sack else (1, 1)
        options[6], options[7] = 8, 10
        for place in range(4):
            options[8 + place] = cython.cast(cython.uchar, timestamp >> (24 - 8 * place) & 0xFF)
        used = 16
    elif sack:
        options[4], options[5], options[6], options[7] = 4, 2, 1, 1
        used = 8
    if window_scale >= 0:
        options[used], options[used + 1], options[used + 2] = 1, 3, 3
        options[used + 3] = cython.cast(cython.uchar, window_scale)
        used += 4
    return bytes(options[:used]) if used < _MOST else bytes(options)
