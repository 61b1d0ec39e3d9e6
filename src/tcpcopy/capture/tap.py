"""A short look at few packets, as they arrive and leave: for probes, never for replay.

A packet socket without a ring, on all devices or on named ones, whose filter lets through next to
nothing. What it hands on is what `Sighting` says: packets of a connection, or ICMP about it.

Source: packet(7), RFC 826 (ARP), RFC 792, RFC 4443.
"""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tcpcopy.threads import start_beside

_SO_ATTACH_FILTER: Final = 26
_ALL_PROTOCOLS: Final = 0x0003
_ARP: Final = 0x0806
_OUTGOING: Final = 4
_QUEUE_BYTES: Final = 1 << 17
_PACKET_BYTES: Final = 256  # headers, and what ICMP quotes
_MOST: Final = 256  # packets taken in one go
_ARP_REQUEST: Final = 1
_closers = threading.BoundedSemaphore(4)  # threads that close sockets


@dataclass(frozen=True, slots=True)
class Sighting:
    """One packet, from its network header on (of ARP: from the ARP header on)."""

    device: str
    leaves: bool  # this host sent it, or passed it on
    data: bytes


class Tap:
    """Packets that pass a filter program, until closed. Needs CAP_NET_RAW. Not thread-safe."""

    def __init__(
        self, program: bytes = b"", devices: Sequence[str] = (), protocol: int = _ALL_PROTOCOLS
    ) -> None:
        """Look from now on. `program` is one of `filters.compile_filter`. Raises: OSError."""
        self._sockets: list[socket.socket] = []
        try:
            for device in devices or ("",):
                self._open(program, device, protocol)
        except BaseException:
            self.close()
            raise

    def _open(self, program: bytes, device: str, protocol: int) -> None:
        first = 0 if device else socket.htons(protocol)
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, first)
        self._sockets.append(tap)
        tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _QUEUE_BYTES)
        if program:
            attach_filter(tap, program)
        if device:
            tap.bind((device, protocol))
        else:
            _discard(tap)  # what came before the filter stood

    def filenos(self) -> list[int]:
        """Descriptors that poll readable when `take` has something."""
        return [tap.fileno() for tap in self._sockets]

    def take(self) -> list[Sighting]:
        """What was seen since the last call; a bounded number."""
        found = []
        for tap in self._sockets:
            for _ in range(_MOST):
                try:
                    data, (device, _, kind, _, _) = tap.recvfrom(_PACKET_BYTES)
                except BlockingIOError:
                    break
                except OSError:  # a device went down: once told, it goes on
                    continue
                found.append(Sighting(device, kind == _OUTGOING, data))
        return found

    def close(self) -> None:
        """Stop, at once; may be called twice."""
        _let_go(self._sockets)
        self._sockets = []


def arp_tap() -> Tap:
    """A tap for ARP, which has no filter: there is little of it."""
    return Tap(protocol=_ARP)


def arp_question(data: bytes) -> tuple[bytes, bytes] | None:
    """Who asks for whom, in an ARP request for IPv4; None when it is something else."""
    if len(data) < 28 or data[2:6] != b"\x08\x00\x06\x04":
        return None
    if int.from_bytes(data[6:8], "big") != _ARP_REQUEST:
        return None
    return data[14:18], data[24:28]


def attach_filter(receiver: socket.socket, program: bytes) -> None:
    """Let a filter program decide what the socket gets. Raises: OSError."""
    instructions = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: number of instructions, address of the first
    descriptor = struct.pack("@HP", len(program) // 8, ctypes.addressof(instructions))
    receiver.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, descriptor)


def _let_go(sockets: Sequence[socket.socket]) -> None:
    """Close packet sockets beside whoever used them, who has packets to go on with.

    The kernel lets go of each after two RCU grace periods, which are tens of milliseconds.
    """
    if sockets and _closers.acquire(blocking=False):
        try:
            start_beside("closer", _close_beside, sockets)
            return
        except RuntimeError:  # no room for a thread
            _closers.release()
    _close(sockets)


def _close_beside(sockets: Sequence[socket.socket]) -> None:
    try:
        _close(sockets)
    finally:
        _closers.release()


def _close(sockets: Sequence[socket.socket]) -> None:
    for each in sockets:
        each.close()


def _discard(tap: socket.socket) -> None:
    with contextlib.suppress(OSError):
        for _ in range(10_000):
            tap.recv(1)
