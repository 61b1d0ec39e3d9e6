"""Deliver whole packets through raw IP sockets, a batch in one system call.

IPPROTO_RAW: the IP header comes with the packet, the kernel routes it and resolves the neighbour.
A packet that cannot be sent is counted by its errno and costs nothing else; TCP sends it again.

Source: raw(7), ipv6(7), sendmmsg(2).
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
from collections.abc import Callable

import cython

from tcpcopy.deliver.batches import BatchSender
from tcpcopy.packet.batch import PacketBatch

SEND_BUFFER_BYTES = 8 << 20
_SO_SNDBUFFORCE = 32
_WAIT_MS = 5  # for room in the device's queue, before a packet is given up


class RawSender(BatchSender):
    """Sends IPv4 and IPv6 packets with their headers. Needs CAP_NET_RAW."""

    __slots__ = (
        "fd_v4",
        "fd_v6",  # -1: IPv6 is not there
        "sockets",
    )

    def __init__(self, before: Callable[[], object] | None = None, device: str = "") -> None:
        """Open the sockets. Raises: OSError (PermissionError without the capability)."""
        super().__init__(before)
        self.sockets: list[socket.socket] = []
        self.fd_v4 = self._open(socket.AF_INET)
        self.fd_v6 = -1
        with contextlib.suppress(OSError):
            self.fd_v6 = self._open(socket.AF_INET6)

    def _open(self, family: int) -> int:
        raw = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_RAW)
        self.sockets.append(raw)
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, SEND_BUFFER_BYTES)
        # Nothing is ever read here: leave the kernel nothing to queue.
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        return raw.fileno()

    def _send_from(self, batch: PacketBatch, index: int) -> int:
        """Send packets from `index` on; how many went, or a negative errno for the first."""
        if cython.compiled:
            return send_run(  # type: ignore[name-defined,no-any-return]  # noqa: F821
                self.fd_v4,
                self.fd_v6,
                cython.address(batch.view[0]),
                batch.slot_size,
                cython.address(batch.lengths[0]),
                index,
                batch.count,
            )
        packet = batch.packet(index)
        try:
            if packet[0] >> 4 == 4:
                self.sockets[0].sendto(packet, (socket.inet_ntoa(packet[16:20]), 0))
            elif self.fd_v6 < 0:
                return -errno.EAFNOSUPPORT
            else:
                host = socket.inet_ntop(socket.AF_INET6, packet[24:40])
                self.sockets[1].sendto(packet, (host, 0, 0, 0))
        except OSError as error:
            return -(error.errno or errno.EIO)
        return 1

    def _mended(self, code: int) -> int:
        """Wait for room."""
        if code not in (errno.EAGAIN, errno.ENOBUFS):
            return 0
        poll = select.poll()
        for raw in self.sockets:
            poll.register(raw.fileno(), select.POLLOUT)
        poll.poll(_WAIT_MS)
        return 1

    def close(self) -> None:
        """Close the sockets; may be called twice."""
        for raw in self.sockets:
            raw.close()
