"""Which worker a client address and port belong to.

The kernel hands the packets of a client to the worker that this says (`capture.fanout`), and a
worker maps sessions only to addresses and ports that are its own (`Allocator`): so workers that
share nothing never use the same one, and a client that keeps its address and port stays where it
is. Clients' ports come in patterns (Linux prefers even ones), hence the multiplications.
"""

from __future__ import annotations

from typing import Final

MULTIPLIER: Final = 0x9E3779B1  # 2**32 over the golden ratio, a prime
SHIFT: Final = 16
_MASK: Final = 0xFFFFFFFF


def port_hash(port: int) -> int:
    """A port's part of the sum, below 2**16."""
    return (port * MULTIPLIER & _MASK) >> SHIFT


def address_hash(address: bytes) -> int:
    """The part of an address of 4 or 16 bytes, below 2**16."""
    word = 0
    for at in range(0, len(address), 4):
        word ^= int.from_bytes(address[at : at + 4], "big")
    return (word * MULTIPLIER & _MASK) >> SHIFT


def worker_of(address: bytes, port: int, workers: int) -> int:
    """Index of the worker, of so many, that an address and port belong to."""
    return (address_hash(address) + port_hash(port)) % workers
