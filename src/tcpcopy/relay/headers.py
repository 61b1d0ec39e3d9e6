"""Whether a captured answer has the headers that a record is made from."""

from __future__ import annotations

from typing import Any

from tcpcopy.report.outcome import Drop

_NOT_IP = int(Drop.NOT_IP)
_SHORT = int(Drop.SHORT)
_BAD_HEADER = int(Drop.BAD_HEADER)
_FRAGMENT = int(Drop.FRAGMENT)
_NOT_TCP = int(Drop.NOT_TCP)


def check_v4(data: Any, start: int, end: int) -> int:
    """0 when an IPv4 and a TCP header stand whole in `data[start:end]`, else the Drop number."""
    if start < 0 or end > len(data) or end - start < 40:
        return _SHORT
    if data[start] >> 4 != 4:
        return _NOT_IP
    network = (data[start] & 15) << 2
    if network < 20:
        return _BAD_HEADER
    if data[start + 6] & 0x3F or data[start + 7]:  # more fragments, or an offset
        return _FRAGMENT
    if data[start + 9] != 6:
        return _NOT_TCP
    tcp = start + network
    if tcp + 20 > end:
        return _SHORT
    transport = (data[tcp + 12] >> 4) << 2
    total = (data[start + 2] << 8) | data[start + 3]
    if transport < 20 or total < network + transport:
        return _BAD_HEADER
    if tcp + transport > end:
        return _SHORT
    return 0


def check_v6(data: Any, start: int, end: int, wire_length: int) -> int:
    """As `check_v4` for IPv6; 40 bytes are there. A target's answers have no extension headers."""
    if data[start + 6] == 44:
        return _FRAGMENT
    if data[start + 6] != 6:
        return _NOT_TCP
    if start + 60 > end:
        return _SHORT
    total = (data[start + 4] << 8) | data[start + 5]
    total = total + 40 if total else wire_length
    transport = (data[start + 52] >> 4) << 2
    if transport < 20 or total < 40 + transport:
        return _BAD_HEADER
    if start + 40 + transport > end:
        return _SHORT
    return 0


def read32(data: Any, at: int) -> int:
    """Four bytes as a number."""
    high: int = (data[at] << 8) | data[at + 1]
    low: int = (data[at + 2] << 8) | data[at + 3]
    return (high << 16) | low
