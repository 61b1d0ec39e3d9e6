"""Live capture: a memory-mapped AF_PACKET receive ring (TPACKET_V2), one per device.

**Whole packets.** A frame of the ring holds a packet up to the usual MTU. Larger ones (GRO and TSO
make segments of up to 64 KiB, BIG TCP of up to 512 KiB) are cut in their frame, and because of
PACKET_COPY_THRESH the kernel also queues them, uncopied, on the socket: `drain` reads them there,
in step with their frames. If that queue is full the packet is handed on cut, with its true length,
and counted in `cut`. A large queue takes CAP_NET_ADMIN; else the sysctl net.core.rmem_max bounds it
(`queue_bytes`).

**Each packet once.** What this host sends is never captured (PACKET_IGNORE_OUTGOING, and in the
filter for kernels without it): on `lo` each packet is seen when it comes in, not when it leaves.

- *All devices* are captured at the place where the kernel's own IP layer takes its packets: the
  socket is bound to one network protocol instead of to all. A packet then shows up once, on the
  device where it ends: on the bridge, bond or VLAN device, not on the port below it; forwarded
  frames that a bridge only switches do not show up at all. Packets for another host's link address
  are refused by the filter, as the IP layer does. There is one ring for IPv4 and one for IPv6.
- *A named device* shows everything that arrives on it, also what carries a VLAN tag and what is
  for other hosts. Most cards take no frames for others in the first place; a mirror port's are
  had by `promiscuous`, which the kernel undoes when the ring is closed, however that comes. If
  two named devices lie above one another (a bridge and its port, a VLAN device and its parent),
  their packets are seen on both: `devices.overlapping` tells. The engine drops such duplicates by
  sequence number.

**A device that goes down** is counted (`device_downs`) and captured again when it comes up. One
that is removed sets `failed`; `rebind` goes on with a new one of the same name.

Not thread-safe. Source: packet(7), Documentation/networking/packet_mmap.rst.
"""

from __future__ import annotations

import errno
import mmap
import os
import socket
import struct
import sys
from collections.abc import Sequence
from typing import Any

import cython

from tcpcopy.capture import filters, packet_socket
from tcpcopy.errors import UsageError
from tcpcopy.packet import frame as found_in
from tcpcopy.packet.frame import UNREAD_NAMES, UNREAD_SLOTS, Frame
from tcpcopy.packet.handler import PacketHandler
from tcpcopy.packet.links import typed

ALL_PROTOCOLS = 0x0003  # ETH_P_ALL
IPV4 = 0x0800
IPV6 = 0x86DD

DEFAULT_BUFFER_BYTES = 16 << 20
DEFAULT_SNAPLEN = 1 << 20  # twice what the kernel merges at most (BIG TCP: 512 KiB)

# Frames that hold a packet of 1,500 bytes; a block is a contiguous piece of the kernel's memory.
FRAME_BYTES = 2048
_BLOCK_BYTES = 1 << 16
_COPY_BYTES = DEFAULT_SNAPLEN + 64

# linux/if_packet.h, linux/if_ether.h
_SOL_PACKET = 263
_PACKET_RX_RING = 5
_PACKET_STATISTICS = 6
_PACKET_COPY_THRESH = 7
_PACKET_VERSION = 10
_TPACKET_V2 = 1
_STATUS_KERNEL = 0
_STATUS_USER = 1 << 0
_STATUS_COPY = 1 << 1
_STATUS_VLAN = 1 << 4
_IPV4 = IPV4
_IPV6 = IPV6
_TAG = 0x8100
_SERVICE_TAG = 0x88A8
_TAG_BYTES = 4
_SHORTEST_HEADER = 20
_MOST_PADDING = 46

# struct tpacket2_hdr, and struct sockaddr_ll 32 bytes after it
_AT_LENGTH = 4
_AT_CAPTURED = 8
_AT_NETWORK = 14
_AT_SECONDS = 16
_AT_NANOSECONDS = 20
_AT_TAG = 24
_AT_PROTOCOL = 32 + 2
_SECOND_NS = 1_000_000_000
_VLAN = found_in.VLAN

if not cython.compiled:
    # Compiled, these are the C functions of ring.pxd.

    def load_status(base: memoryview, at: int) -> int:
        return int.from_bytes(base[at : at + 4], sys.byteorder)

    def store_status(base: memoryview, at: int, value: int) -> None:
        base[at : at + 4] = value.to_bytes(4, sys.byteorder)

    def read_u32(base: memoryview, at: int) -> int:
        return int.from_bytes(base[at : at + 4], sys.byteorder)

    def read_u16(base: memoryview, at: int) -> int:
        return int.from_bytes(base[at : at + 2], sys.byteorder)


def open_rings(
    devices: Sequence[str],
    program: bytes,
    *,
    buffer_bytes: int = DEFAULT_BUFFER_BYTES,
    snaplen: int = DEFAULT_SNAPLEN,
    promiscuous: bool = False,
    unwraps: bool = False,
) -> list[Ring]:
    """Return the rings that capture the devices named, or all devices when none is named.

    `promiscuous`, for named devices only: also take frames addressed to other hosts. `unwraps`,
    likewise: also frames with IP behind other headers than VLAN tags. Each ring has a buffer of its
    own. Raises what `Ring` raises, with none left open.
    """
    wanted: list[tuple[str | None, int]] = [(name, ALL_PROTOCOLS) for name in devices]
    rings: list[Ring] = []
    try:
        for device, protocol in wanted or [(None, IPV4), (None, IPV6)]:
            rings.append(
                Ring(
                    device,
                    program,
                    buffer_bytes=buffer_bytes,
                    snaplen=snaplen,
                    protocol=protocol,
                    promiscuous=promiscuous and device is not None,
                    unwraps=unwraps and device is not None,
                )
            )
    except BaseException:
        for ring in rings:
            ring.close()
        raise
    return rings


class Ring:
    """The packets that arrive on one device, or of one IP version on all devices."""

    __slots__ = (
        "adrift",  # where the kernel writes next is not known (`resume`)
        "base",  # the mapped ring, for reading frame headers
        "copied",  # packets larger than a frame that were read whole from the socket
        "copy_buffer",  # where the last of those stands
        "copy_view",  # the same, typed
        "cut",  # packets handed on shorter than they were, against the will of snaplen
        "device",  # its name; None: all devices
        "device_downs",  # times the device went down or away
        "down",  # the device went down, and nothing has arrived since
        "dropped",  # packets the kernel had no room for, until the statistics were last read
        "failed",  # why nothing can arrive any more; None while all is well
        "frame",  # what was found out about the frame at hand
        "frame_count",  # 0 once closed, and while it is let go
        "frame_size",  # bytes, header included
        "frames_let_go",  # what `frame_count` is again after `take_up`
        "mapping",  # the mmap object behind `base` and `view`
        "next_frame",  # index of the oldest frame not yet taken
        "promiscuous",  # the device takes frames addressed to other hosts, while this is open
        "protocol",  # link-layer protocol the socket is bound to
        "queue_bytes",  # room for packets larger than a frame, overhead included, as granted
        "received",  # packets the kernel put into the ring, as `dropped`
        "ring_bytes",  # size of the ring
        "skipped",  # frames that passed the filter and are not IP
        "snaplen",  # bytes of a packet to hand on, at most
        "socket",
        "unread",  # frames by encapsulation that could not be read (frame.UNREAD_NAMES)
        "unwraps",  # frames with IP behind other headers than VLAN tags are taken, too
        "view",  # the mapped ring, as the handler gets it
    )

    def __init__(
        self,
        device: str | None,
        program: bytes,
        *,
        buffer_bytes: int = DEFAULT_BUFFER_BYTES,
        snaplen: int = DEFAULT_SNAPLEN,
        protocol: int = ALL_PROTOCOLS,
        frame_bytes: int = FRAME_BYTES,
        promiscuous: bool = False,
        unwraps: bool = False,
    ) -> None:
        """Start to capture what passes the filter program (of `filters.compile_filter`).

        `device` None means all devices, which takes `protocol` IPV4 or IPV6 (`open_rings` does
        both). `buffer_bytes` is the size of the ring; up to twice as much again may be queued for
        packets larger than a frame (`frame_bytes`, a power of two).

        Raises UsageError when the device is not there or the buffer cannot be had, PermissionError
        without CAP_NET_RAW, ValueError for all devices and all protocols at once.
        """
        if device is None and protocol == ALL_PROTOCOLS:
            raise ValueError("all devices are captured by IP version: see open_rings")
        self.device = device
        self.frame = Frame()
        self.unread = [0] * UNREAD_SLOTS
        self.unwraps = unwraps
        self.promiscuous = promiscuous
        self.protocol = protocol
        self.snaplen = snaplen
        self.frame_size = frame_bytes
        self.frame_count = self.frames_let_go = self.ring_bytes = 0
        self.next_frame = 0
        self.copied = self.cut = self.skipped = 0
        self.received = self.dropped = self.device_downs = self.queue_bytes = 0
        self.down = self.adrift = False
        self.failed: str | None = None
        self.mapping: mmap.mmap | None = None
        self.view: Any = None
        self.copy_view: Any = None
        # Protocol 0: nothing arrives before the filter stands and `bind` names the protocol.
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        try:
            self.set_filter(program)
            self._map(max(buffer_bytes, mmap.PAGESIZE))
            packet_socket.ignore_outgoing(self.socket)
            self._bind()
        except OSError as error:
            self.close()
            if error.errno == errno.ENODEV:
                hint = "name one that exists (`ip link`)"
                raise UsageError("-i", device, "there is no such device", hint) from None
            raise
        except BaseException:
            self.close()
            raise

    def set_filter(self, program: bytes) -> None:
        """Let another filter program decide from now on; packets in the ring stay there."""
        if self.device is None:
            guarded = filters.for_this_host(program)
        else:
            guarded = filters.accept_stacked_tags(program)
            if self.unwraps and program != filters.REJECT_ALL:
                guarded = filters.accept_shims(guarded)
            guarded = filters.not_outgoing(guarded)
        packet_socket.attach_filter(self.socket, guarded)

    def fileno(self) -> int:
        """Return the descriptor that polls readable while a packet (or a failure) waits."""
        return int(self.socket.fileno())

    def drain(self, handler: PacketHandler, limit: int) -> int:
        """Hand on packets that have arrived, `limit` at most, and return how many.

        Less than `limit` means that the ring was empty, or that one whole round of it has been
        looked at, in which frames were skipped. The buffer lent to the handler is the ring
        itself; its frame goes back to the kernel after the call, also when the handler raises:
        then the exception is passed on and the next `drain` goes on with the next packet.
        """
        handed = 0
        if self.adrift:
            self._find_place()
        # Never more than one round: frames that are skipped must not hold the loop.
        for _ in range(self.frame_count):
            if handed >= limit:
                break
            at = self.next_frame * self.frame_size
            status = load_status(self.base, at)
            if not status & _STATUS_USER:
                break
            try:
                handed += self._hand_on(handler, at, status)
            finally:
                store_status(self.base, at, _STATUS_KERNEL)
                self.next_frame += 1
                if self.next_frame == self.frame_count:
                    self.next_frame = 0
        if handed:
            self.down = False
        return handed

    def waiting(self) -> int:
        """Return how many frames of the ring hold what nobody has taken yet."""
        count = 0
        for index in range(self.frame_count):
            if load_status(self.base, index * self.frame_size) & _STATUS_USER:
                count += 1
        return count

    def statistics(self) -> tuple[int, int]:
        """Return how many packets the kernel put into the ring and how many it had no room for.

        Both since the start, after the filter; together they are what should have been captured.
        """
        if self.frame_count:
            raw = self.socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
            offered, dropped = struct.unpack("@II", raw)  # and both are zero again
            self.received += offered - dropped
            self.dropped += dropped
        return self.received, self.dropped

    def rebind(self) -> bool:
        """Try to capture the device again after `failed`; return whether that worked."""
        try:
            self._bind()
        except OSError as error:
            self.failed = f"device {self.device}: {error.strerror}"
            return False
        self.failed = None
        self.down = False
        return True

    def resume(self) -> None:
        """Go on in place of a process with the same ring that ended, nobody knows where in it."""
        self.adrift = True

    def let_go(self) -> None:
        """Give the memory back in this process, and keep the ring open: nothing can be read."""
        self.frames_let_go = self.frame_count
        self._unmap()

    def take_up(self) -> None:
        """Map the ring again after `let_go`, in this process or a child. Raises: OSError."""
        self._map_memory(mmap.mmap(self.socket.fileno(), self.ring_bytes))
        self.frame_count = self.frames_let_go

    def close(self) -> None:
        """Stop and give the memory back; statistics stay readable. May be called twice."""
        if self.frame_count:
            self.statistics()
        self.detach()

    def detach(self) -> None:
        """Close it for this process alone: another that shares it goes on, with the statistics."""
        self._unmap()
        self.socket.close()

    def _unmap(self) -> None:
        if self.frame_count:
            self.frame_count = 0
            if cython.compiled:
                self.view = None
                self.copy_view = None
            else:
                self.view.release()
                self.copy_view.release()
        if self.mapping is not None:
            try:
                self.mapping.close()
            except BufferError:
                pass  # a handler still holds the buffer: it goes when that does
            self.mapping = None

    def _bind(self) -> None:
        """Let packets come in, from now on."""
        if self.device is None:
            packet_socket.bind_all(self.socket, self.protocol)
            return
        self.socket.bind((self.device, self.protocol))
        if self.promiscuous:
            packet_socket.be_promiscuous(self.socket, self.device)

    def _map(self, buffer_bytes: int) -> None:
        """Make the ring: whole blocks of whole frames."""
        block = min(_BLOCK_BYTES, buffer_bytes // mmap.PAGESIZE * mmap.PAGESIZE)
        blocks = buffer_bytes // block
        frames = blocks * (block // self.frame_size)
        self.socket.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V2)
        self.socket.setsockopt(_SOL_PACKET, _PACKET_COPY_THRESH, 1)
        self.queue_bytes = packet_socket.bound_queue(self.socket, buffer_bytes)
        request = struct.pack("@IIII", block, blocks, self.frame_size, frames)
        try:
            self.socket.setsockopt(_SOL_PACKET, _PACKET_RX_RING, request)
            mapping = mmap.mmap(self.socket.fileno(), block * blocks)
        except OSError as error:
            problem = f"no capture buffer of this size can be had ({error.strerror})"
            value = f"{buffer_bytes / (1 << 20):.9g}"
            raise UsageError("-B", value, problem, "ask for fewer MiB") from None
        self.ring_bytes = block * blocks
        self._map_memory(mapping)
        self.frame_count = frames

    def _map_memory(self, mapping: mmap.mmap) -> None:
        self.mapping = mapping
        self.view = memoryview(mapping)
        # Unlike a bytearray's, pages that nothing is read into take no memory.
        private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self.copy_buffer = mmap.mmap(-1, _COPY_BYTES, flags=private)
        self.copy_view = memoryview(self.copy_buffer)
        if cython.compiled:
            self.base = cython.address(self.view[0])
        else:
            self.base = self.view

    def _hand_on(self, handler: PacketHandler, at: int, status: int) -> int:
        """Hand on the packet of the frame at `at`; return 1, or 0 when it was skipped."""
        wire_length = read_u32(self.base, at + _AT_LENGTH)
        available = read_u32(self.base, at + _AT_CAPTURED)
        seconds = read_u32(self.base, at + _AT_SECONDS)
        timestamp_ns = seconds * _SECOND_NS + read_u32(self.base, at + _AT_NANOSECONDS)
        protocol = (self.view[at + _AT_PROTOCOL] << 8) | self.view[at + _AT_PROTOCOL + 1]
        vlan = 0
        if status & _STATUS_VLAN:
            vlan = read_u16(self.base, at + _AT_TAG) & 0xFFF
        if status & _STATUS_COPY:
            copied = self._receive_copy(wire_length)
            if copied >= 0:
                return self._hand_on_ip(
                    handler, self.copy_view, 0, copied, wire_length, protocol, timestamp_ns, vlan
                )
        start = at + read_u16(self.base, at + _AT_NETWORK)
        return self._hand_on_ip(
            handler, self.view, start, available, wire_length, protocol, timestamp_ns, vlan
        )

    def _hand_on_ip(
        self,
        handler: PacketHandler,
        data: Any,
        start: int,
        available: int,
        wire_length: int,
        protocol: int,
        timestamp_ns: int,
        vlan: int,
    ) -> int:
        """Hand on what is IP, within `snaplen`; `start` may still stand before VLAN tags.

        `vlan`: of the tag that the kernel has taken off; 0: there was none.
        """
        end = start + available
        network = self._skip_tags(data, start, end, wire_length, protocol)
        is_tagged = vlan != 0 or network != start
        if is_tagged:
            network = self._find_network(data, start, end, network, protocol, vlan)
        if network < 0:
            self.skipped += 1
            return 0
        wire_length -= network - start
        if end - network > self.snaplen:
            end = network + self.snaplen
        elif end - network < wire_length and end - network < self.snaplen:
            self.cut += 1
        if is_tagged and self.frame.network:
            handler.enter(self.frame.network)
            handler.packet(data, network, end, wire_length, timestamp_ns)
            handler.enter(0)
        else:
            handler.packet(data, network, end, wire_length, timestamp_ns)
        return 1

    def _find_network(
        self, data: Any, start: int, end: int, found: int, protocol: int, vlan: int
    ) -> int:
        """Set the frame's virtual network; return where the IP header stands, -1: there is none.

        `found`: where it stands behind VLAN tags, or -1.
        """
        frame = self.frame
        frame.network = 0
        frame.unread = 0
        if vlan:
            frame.enter(_VLAN, vlan)
        if found >= 0:
            for at in range(start, found, _TAG_BYTES):
                tag = ((data[at] & 15) << 8) | data[at + 1]
                if tag:
                    frame.enter(_VLAN, tag)
            return found
        if not self.unwraps:
            return -1
        found = typed(data, protocol, start, end, frame)
        if frame.unread:
            self.unread[frame.unread] += 1
        return found if found >= 0 else -1

    def unread_counts(self) -> dict[str, int]:
        """The frames of encapsulations that could not be read, by name, none of them 0."""
        return {UNREAD_NAMES[kind]: count for kind, count in enumerate(self.unread) if count}

    def _skip_tags(self, data: Any, start: int, end: int, wire_length: int, protocol: int) -> int:
        """Return where the IP header stands, or -1 if there is none.

        `protocol` is the frame's as the kernel tells it: of the tag before Linux 6.10, since then
        of what stands behind all tags, although they are still there.
        """
        while end - start >= _SHORTEST_HEADER:
            following = (data[start + 2] << 8) | data[start + 3]
            if protocol == _IPV4 or protocol == _IPV6:  # noqa: SIM109
                if (
                    following != _IPV4
                    and following != _IPV6
                    and following != _TAG
                    and following != _SERVICE_TAG
                ):
                    return start
                # Bytes 2 and 3 of an IP header can look like that, too: does its length fit?
                version = data[start] >> 4
                if version == 4:
                    length = following
                else:
                    length = 40 + ((data[start + 4] << 8) | data[start + 5])
                if (version == 4 or version == 6) and 0 <= wire_length - length <= _MOST_PADDING:
                    return start
            elif protocol != _TAG and protocol != _SERVICE_TAG:
                return -1
            protocol = following
            start += _TAG_BYTES
        return -1

    def _receive_copy(self, wire_length: int) -> int:
        """Read the packet queued beside the current frame; return its bytes, -1: not there."""
        # A pending error of the socket (the device went down) is reported first, once.
        for _ in range(2):
            try:
                length = self.socket.recv_into(
                    self.copy_buffer, 0, socket.MSG_DONTWAIT | socket.MSG_TRUNC
                )
            except BlockingIOError:
                return -1
            except OSError as error:
                self._device_lost(error.errno or 0)
                continue
            self.copied += 1
            return int(min(length, _COPY_BYTES)) if length == wire_length else -1
        return -1

    def _find_place(self) -> None:
        """Find the oldest packet: the kernel fills frames in order, so it follows an empty one."""
        before = load_status(self.base, (self.frame_count - 1) * self.frame_size) & _STATUS_USER
        oldest_ns = 0
        for index in range(self.frame_count):
            at = index * self.frame_size
            status = load_status(self.base, at) & _STATUS_USER
            if status and not before:
                self.next_frame = index
                self.adrift = False
                return
            before = status
        if not before:
            return  # all are empty: not before the next packet can be told where it is put
        for index in range(self.frame_count):
            at = index * self.frame_size
            seconds = read_u32(self.base, at + _AT_SECONDS)
            timestamp_ns = seconds * _SECOND_NS + read_u32(self.base, at + _AT_NANOSECONDS)
            if not index or timestamp_ns < oldest_ns:
                self.next_frame = index
                oldest_ns = timestamp_ns
        self.adrift = False

    def check_device(self) -> None:
        """Look whether the device is still there; sets `failed` if not.

        Call now and then, and when the descriptor polls ready and `drain` finds nothing: then an
        error of the socket is pending, which would else poll ready for ever.
        """
        if self.frame_count:
            code = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                self._device_lost(code)
            elif self.down and self.failed is None:
                self._find_device()

    def _device_lost(self, code: int) -> None:
        """The device went down (the kernel goes on when it comes up), or away."""
        self.device_downs += 1
        self.down = True
        if code == errno.ENETDOWN:
            self._find_device()
        else:
            self.failed = f"device {self.device}: {os.strerror(code)}"

    def _find_device(self) -> None:
        """Set `failed` if the socket is bound to a device that is no more."""
        if not self.socket.getsockname()[0]:
            self.failed = f"device {self.device} is gone"
