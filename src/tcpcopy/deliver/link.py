"""Deliver whole packets as Ethernet frames on one device, a batch in one system call.

Past the IP layer: no route, no netfilter, no conntrack, no queueing discipline, and no tap on this
host sees them (tcpdump on the device shows nothing). SOCK_RAW with the header from here and
SOCK_DGRAM with the kernel's header cost the same; only the first can have another source MAC.

Where the device cuts large segments by itself (TCP segmentation offload), the batch may hold
segments of up to 64 KiB: each goes as one frame, with a header that says how to cut it. A device
that refuses them after all gets none from then on; TCP sends the lost ones again, cut.

Source: packet(7) (PACKET_VNET_HDR), sendmmsg(2).
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import socket
import time
from collections.abc import Callable

import cython

from tcpcopy.deliver.batches import BatchSender
from tcpcopy.deliver.nexthop import NextHops, Tables
from tcpcopy.deliver.offload import NO_HEADER, cutting_header, largest_payload
from tcpcopy.errors import UsageError
from tcpcopy.mapping.transfers import TransferTable
from tcpcopy.packet.batch import PacketBatch

_log = logging.getLogger(__name__)

SEND_BUFFER_BYTES = 8 << 20
_SO_SNDBUFFORCE = 32
_SOL_PACKET = 263
_PACKET_QDISC_BYPASS = 20
_PACKET_VNET_HDR = 15
_WAIT_MS = 5  # for room in the socket's buffer, before a packet is given up
_QUEUE_WAIT_S = 0.001  # for the device to send some of what it has
_LOST_LOOK_NS = 20_000_000  # between look-ups while packets are being lost
_LOOK_AGAIN = frozenset(
    (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.ENODEV, errno.ENXIO)
)
_MOST_REFUSALS = 3  # of frames to be cut, for want of room: then it is no passing want


class LinkSender(BatchSender):
    """Sends IPv4 and IPv6 packets to the next hops of the targets. Needs CAP_NET_RAW."""

    __slots__ = (
        "cuts",  # frames go with a header that may ask the device to cut them
        "device_index",
        "fd",
        "hop_count",
        "hops",
        "largest",  # payload bytes of a frame that the device cuts, 0: it cuts none
        "looked_ns",  # when the hops were last looked up
        "packets",  # sent since the hops were last looked up
        "refusals",  # times that the kernel did not take a frame to be cut
        "sender",
        "table",  # the hops as the C code reads them
        "view",  # the table, typed
    )

    def __init__(
        self,
        device: str,
        transfers: TransferTable,
        before: Callable[[], object] | None = None,
        *,
        mtu: int = 1500,
        tables: Tables | None = None,
        cut: bool = True,
    ) -> None:
        """Look the next hops up and open the socket. `cut`: let the device cut large segments.

        Raises: UsageError (device, next hop, `mtu`), OSError (PermissionError without the
        capability).
        """
        super().__init__(before)
        self.packets = 0
        self.largest = 0
        self.cuts = False
        self.refusals = 0 if cut else _MOST_REFUSALS
        self.hops = (
            NextHops(device, transfers) if tables is None else NextHops(device, transfers, tables)
        )
        self.sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        try:
            self._set_up(mtu)
        except BaseException:
            self.sender.close()
            raise
        self.fd = self.sender.fileno()
        self.hop_count = len(self.hops.hops)
        self.table = bytearray(self.hops.table())
        self.view = memoryview(self.table)
        self.device_index = self.hops.index
        self.looked_ns = time.monotonic_ns()

    def _set_up(self, mtu: int) -> None:
        with contextlib.suppress(OSError):
            self.sender.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, SEND_BUFFER_BYTES)
        with contextlib.suppress(OSError):
            self.sender.setsockopt(_SOL_PACKET, _PACKET_QDISC_BYPASS, 1)
        self.hops.open()
        if mtu > self.hops.mtu:
            raise UsageError(
                "-M",
                mtu,
                f"is more than the device of -o ({self.hops.device}) takes",
                f"give -M {self.hops.mtu}",
            )
        self._learn_to_cut()

    def _learn_to_cut(self) -> None:
        """Follow what the device can do."""
        link = self.hops.link
        tired = self.refusals >= _MOST_REFUSALS
        largest = 0 if tired or link is None else largest_payload(link)
        cuts = largest > 0
        if cuts != self.cuts:
            try:
                self.sender.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, int(cuts))
                self.cuts = cuts
            except OSError as error:
                self.refusals = _MOST_REFUSALS
                largest = 0
                _log.info("-o %s: large segments are cut here (%s)", link and link.name, error)
        self.largest = largest

    def _stop_cutting(self, code: int) -> None:
        """A frame to be cut was refused: send no more of them, for now or for ever."""
        self.refusals += 1 if code == errno.ENOBUFS else _MOST_REFUSALS
        self.largest = 0
        if self.refusals >= _MOST_REFUSALS:
            _log.warning(
                "-o %s: it does not cut large segments after all (%s); they are cut here from now "
                "on, which takes more CPU",
                self.hops.device,
                os.strerror(code),
            )

    def look(self, now_ns: int) -> None:
        """Look the next hops up again; to be called every second or so."""
        self.hops.look(now_ns, in_use=self.packets > 0)
        self.looked_ns = now_ns
        self.packets = 0
        self.device_index = self.hops.index
        self.table[:] = self.hops.table()
        self._learn_to_cut()

    def send_batch(self, batch: PacketBatch) -> None:
        """Send every packet of the batch."""
        BatchSender.send_batch(self, batch)
        batch.largest = self.largest

    def _given_up(self, batch: PacketBatch, index: int, code: int) -> int:
        if code == errno.ENXIO:
            return errno.ENODEV  # what everyone else calls a device that is gone
        if batch.sizes[index] and code not in _LOOK_AGAIN and self.largest:
            self._stop_cutting(code)
        return code

    def _mended(self, code: int) -> int:
        """Do what may help against an error; whether to try once more."""
        if code == errno.EAGAIN:
            poll = select.poll()
            poll.register(self.sender.fileno(), select.POLLOUT)
            poll.poll(_WAIT_MS)
            return 1
        if code == errno.ENOBUFS:
            # The device's own queue is full; the socket is writable all the time.
            time.sleep(_QUEUE_WAIT_S)
            return 1
        if code in _LOOK_AGAIN:
            now_ns = time.monotonic_ns()
            if now_ns - self.looked_ns >= _LOST_LOOK_NS:
                self.look(now_ns)
                return 1
        return 0

    def _send_from(self, batch: PacketBatch, index: int) -> int:
        result = self._send_frames(batch, index)
        if result > 0:
            self.packets += result
        return result

    def _send_frames(self, batch: PacketBatch, index: int) -> int:
        """Send packets from `index` on; how many went, or a negative errno for the first."""
        if cython.compiled:
            return send_frames(  # type: ignore[name-defined,no-any-return]  # noqa: F821
                self.fd,
                self.device_index,
                cython.address(self.view[0]),
                self.hop_count,
                cython.address(batch.view[0]),
                batch.slot_size,
                cython.address(batch.lengths[0]),
                index,
                batch.count,
                self.cuts,
                cython.address(batch.sizes[0]),
                batch.payloads,
                cython.address(batch.payload_at[0]),
                cython.address(batch.payload_lengths[0]),
            )
        packet = batch.packet(index)
        is_v4 = packet[0] >> 4 == 4
        address = packet[16:20] if is_v4 else packet[24:40]
        at = 22 if is_v4 else 42
        port = int.from_bytes(packet[at : at + 2], "big")
        # A fragment has its ports elsewhere, or none at all: its address says enough.
        is_part = packet[6] & 0x3F or packet[7] if is_v4 else packet[6] == 44
        for hop in self.hops.hops:
            if hop.address == address and (is_part or hop.port == port):
                break
        else:
            return -errno.EHOSTUNREACH
        if hop.error:
            return -hop.error
        try:
            self.sender.sendmsg(
                (self._before_frame(batch, index, is_v4), self.hops.header(hop), packet),
                (),
                0,
                (self.hops.device, 0x0800 if is_v4 else 0x86DD),
            )
        except OSError as error:
            return -(error.errno or errno.EIO)
        return 1

    def _before_frame(self, batch: PacketBatch, index: int, is_v4: bool) -> bytes:
        if not self.cuts:
            return b""
        size = batch.sizes[index]
        return cutting_header(is_v4, batch.lengths[index], size) if size else NO_HEADER

    def close(self) -> None:
        """Close the socket; may be called twice."""
        self.sender.close()
