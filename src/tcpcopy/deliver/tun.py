"""Deliver packets through a TUN device, and take the answers out of it.

Packets written to the device come into this host's IP layer as if a network had brought them, so
a server here gets them. What the host sends to addresses that lead to the device is read from it.
One system call for each packet, both ways; large segments go whole (the kernel cuts them where
they must be cut, for a server here nowhere), and come whole, of which only the headers are read.

The device is of this process alone and vanishes with its descriptor, and its routes with it.

Source: Linux tuntap.rst, linux/if_tun.h, virtio specification 1.2 (5.1.6).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Sequence
from typing import Any

import cython

from tcpcopy.deliver.batches import BatchSender
from tcpcopy.deliver.offload import NO_HEADER, cutting_header
from tcpcopy.deliver.tunnet import (
    Network,
    Server,
    add_route,
    dropped_by,
    lead_answers,
    remove_leftovers,
    remove_rules,
    set_up_link,
    turn_ipv6_on,
)
from tcpcopy.errors import UsageError
from tcpcopy.packet.batch import PacketBatch, PacketSink
from tcpcopy.packet.handler import PacketHandler

HEADER_BYTES = 10  # struct virtio_net_hdr, before each packet
SNAPLEN = 256  # bytes read of an answer: its headers, with all options
_TCP = 6
_IPV4_BYTES = 4
# Errors that say nothing about the size of a packet: no memory, device down, device gone.
_NOT_FOR_SIZE = frozenset((errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN, errno.EIO, errno.EBADFD))
_DEVICE = "/dev/net/tun"
_TUNSETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x400454D0
_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR, _IFF_TUN_EXCL = 0x0001, 0x1000, 0x4000, 0x8000
_F_CSUM, _F_TSO4, _F_TSO6 = 0x01, 0x02, 0x04
_IFREQ = struct.Struct("16sH22x")
_LARGEST_PAYLOAD = 65_535 - 160
_QUEUE_LENGTH = 10_000  # answers that wait to be read
_SIOCSIFTXQLEN = 0x8943
_TXQLEN = struct.Struct("16si20x")


class TunDevice(BatchSender):
    """A TUN device: a sink for batches, and a source of answers. Needs CAP_NET_ADMIN.

    Not thread-safe. `fileno` polls readable when there are answers.
    """

    __slots__ = (
        "buffer",  # what one answer is read into, behind its virtio header
        "cuts",  # packets may be larger than the MTU
        "failed",  # errno of the device being gone, 0: it is there
        "fd",  # -1: closed
        "index",
        "name",
        "others",  # handler for what is not TCP; None: that of the call gets it, too
        "received",  # answers read
        "view",  # the buffer, typed
    )

    def __init__(
        self,
        name: str,
        *,
        mtu: int = 1500,
        networks: Sequence[Network] = (),
        servers: Sequence[Server] = (),
        reaches_loopback: bool = False,
        snaplen: int = SNAPLEN,
        option: str = "--local",
    ) -> None:
        """Make the device, bring it up and lead to it.

        `name` may hold `%d`: the first number that is free. `networks` are routed to it. What
        `servers` send leaves by it whatever address it is for, other than this host's own; that
        takes rules, and those of runs that were killed are removed first. `reaches_loopback`:
        servers on 127.0.0.0/8 are to be reached. `snaplen`: bytes read of each packet. `option` is
        what to blame. Raises: UsageError, with nothing left behind.
        """
        super().__init__()
        self.failed = 0
        self.others: PacketHandler | None = None
        self.received = 0
        self.cuts = False
        self.fd = -1
        self.index = 0
        self.name = name
        self.buffer = bytearray(HEADER_BYTES + snaplen)
        self.view = memoryview(self.buffer)
        try:
            self._make(name)
            self._lead(networks, servers, mtu, reaches_loopback)
        except OSError as error:
            self.close()
            raise _refusal(error, option, name) from error
        except BaseException:
            self.close()
            raise

    def _make(self, name: str) -> None:
        self.fd = os.open(_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        flags = _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR | _IFF_TUN_EXCL
        made = fcntl.ioctl(self.fd, _TUNSETIFF, _IFREQ.pack(name.encode(), flags))
        self.name = made[:16].rstrip(b"\0").decode()
        self.index = socket.if_nametoindex(self.name)
        with contextlib.suppress(OSError):
            fcntl.ioctl(self.fd, _TUNSETOFFLOAD, _F_CSUM | _F_TSO4 | _F_TSO6)
            self.cuts = True
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_:
            fcntl.ioctl(any_, _SIOCSIFTXQLEN, _TXQLEN.pack(self.name.encode(), _QUEUE_LENGTH))

    def _lead(
        self, networks: Sequence[Network], servers: Sequence[Server], mtu: int, loopback: bool
    ) -> None:
        remove_leftovers()
        set_up_link(self.index, mtu=mtu, route_localnet=loopback)
        if any(network.version == 6 for network in networks) or any(
            len(server.address) != _IPV4_BYTES for server in servers
        ):
            turn_ipv6_on(self.name)
        for network in networks:
            add_route(network, self.index)
        if servers:
            lead_answers(servers, self.index)

    @property
    def largest(self) -> int:
        """Most payload bytes of a segment that is taken whole; for `PacketBatch.largest`."""
        return _LARGEST_PAYLOAD if self.cuts else 0

    def fileno(self) -> int:
        """Polls readable when answers are there; -1 once closed."""
        return self.fd

    # --- to the host -----------------------------------------------------------------------

    def send(self, packet: Any, start: int, end: int) -> int:
        """Send one packet that stands whole, checksums and all, at `packet[start:end]`.

        Returns 0, or the errno, which is counted.
        """
        result: int
        if cython.compiled:
            result = tun_write_one(  # type: ignore[name-defined]  # noqa: F821
                self.fd, cython.address(packet[start]), end - start
            )
        else:
            try:
                result = os.writev(self.fd, (NO_HEADER, memoryview(packet)[start:end]))
            except OSError as error:
                result = -(error.errno or errno.EIO)
        if result >= 0:
            return 0
        self.errors[-result] = self.errors.get(-result, 0) + 1
        return -result

    def _given_up(self, batch: PacketBatch, index: int, code: int) -> int:
        if batch.sizes[index] and code not in _NOT_FOR_SIZE:
            self.cuts = False  # TCP sends it again, cut
            batch.largest = 0
        return code

    def _send_from(self, batch: PacketBatch, index: int) -> int:
        """Send packets from `index` on; how many went, or a negative errno for the first."""
        if cython.compiled:
            return tun_write(  # type: ignore[name-defined,no-any-return]  # noqa: F821
                self.fd,
                cython.address(batch.view[0]),
                batch.slot_size,
                cython.address(batch.lengths[0]),
                index,
                batch.count,
                cython.address(batch.sizes[0]),
                batch.payloads,
                cython.address(batch.payload_at[0]),
                cython.address(batch.payload_lengths[0]),
            )
        packet = batch.packet(index)
        size = batch.sizes[index]
        before = NO_HEADER
        if size:
            before = cutting_header(packet[0] >> 4 == 4, batch.lengths[index], size, link_bytes=0)
        try:
            os.writev(self.fd, (before, packet))
        except OSError as error:
            return -(error.errno or errno.EIO)
        return 1

    # --- from the host ---------------------------------------------------------------------

    def drain(self, handler: PacketHandler, limit: int, timestamp_ns: int) -> int:
        """Hand on answers that are there, `limit` at the most; how many.

        `timestamp_ns`: the time now (CLOCK_REALTIME). Of each, the first `snaplen` bytes are
        handed on; its length on the wire is said, and that of one that is still to be cut is of
        all of it.
        """
        handed = 0
        while handed < limit:
            count = self._read()
            if count < 0:
                if count == -errno.EINTR:
                    continue
                if count != -errno.EAGAIN:
                    self.failed = -count
                break
            handed += 1
            if count < HEADER_BYTES + 20:
                continue
            at = HEADER_BYTES
            version = self.view[at] >> 4
            if version == 4:
                length = self.view[at + 2] << 8 | self.view[at + 3]
                protocol = self.view[at + 9]
            elif count < HEADER_BYTES + 40 or version != 6:
                continue
            else:
                length = 40 + (self.view[at + 4] << 8 | self.view[at + 5])
                protocol = self.view[at + 6]
            end = HEADER_BYTES + length
            if end > count:
                end = count
            if protocol == _TCP or self.others is None:
                handler.packet(self.view, at, end, length, timestamp_ns)
            else:
                self.others.packet(self.view, at, end, length, timestamp_ns)
        self.received += handed
        return handed

    def _read(self) -> int:
        """Read one packet into the buffer; its bytes there, or a negative errno."""
        if cython.compiled:
            return tun_read(  # type: ignore[name-defined,no-any-return]  # noqa: F821
                self.fd, cython.address(self.view[0]), len(self.buffer)
            )
        try:
            return os.readv(self.fd, (self.buffer,))
        except OSError as error:
            return -(error.errno or errno.EIO)

    def dropped(self) -> int:
        """Answers that found no room in the device's queue. Raises OSError."""
        return dropped_by(self.index) if self.fd >= 0 else 0

    def close(self) -> None:
        """Remove the device and what leads to it; may be called twice."""
        if self.fd >= 0:
            if self.index:
                remove_rules(self.index)
            os.close(self.fd)
            self.fd = -1


class TunDatagrams(PacketSink):
    """A second way into a device, which tells its owner alone what could not be sent."""

    __slots__ = ("errors", "failures", "tun")

    def __init__(self, tun: TunDevice) -> None:
        self.tun = tun
        self.errors: dict[int, int] = {}
        self.failures: list[tuple[int, int]] | None = None

    def send_batch(self, batch: PacketBatch) -> None:
        """Send every packet of the batch."""
        tun, errors = self.tun, self.tun.errors
        tun.failures, tun.errors = self.failures, self.errors
        tun.send_batch(batch)
        tun.failures, tun.errors = None, errors

    def close(self) -> None:
        """The device is its owner's to close."""


def _refusal(error: OSError, option: str, name: str) -> UsageError:
    if error.errno == errno.EACCES and error.filename == _DEVICE:
        return UsageError(
            option, None, f"{_DEVICE} may not be opened by this user", f"chmod 666 {_DEVICE}"
        )
    if error.errno == errno.EPERM:
        return UsageError(
            option,
            None,
            "making a TUN device needs the capability CAP_NET_ADMIN",
            "run it as root, or give it the capability (docker run --cap-add NET_ADMIN)",
        )
    if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO) and error.filename == _DEVICE:
        return UsageError(
            option,
            None,
            f"there is no {_DEVICE} here",
            "modprobe tun; docker run --device /dev/net/tun",
        )
    if error.errno == errno.EBUSY:
        return UsageError(
            f"{option}-device" if option in ("--local", "--tun") else option,
            name,
            "there is a device of that name",
            "give another name, or leave it out",
        )
    if error.errno == errno.EEXIST:
        return UsageError(
            option, name, "a route or rule that it needs is there already", "see ip route, ip rule"
        )
    if error.filename and "ipv6" in str(error.filename):
        return UsageError(
            option,
            name,
            "IPv6 is turned off for new devices",
            "sysctl -w net.ipv6.conf.default.disable_ipv6=0",
        )
    return UsageError(
        option, name, f"the device cannot be made ({error.strerror})", "see dmesg of this host"
    )
