"""AF_PACKET sockets: what is set on one besides its ring. Source: packet(7), socket(7)."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct

from tcpcopy.errors import UsageError

# linux/if_packet.h, linux/sockios.h, asm-generic/socket.h
_SOL_PACKET = 263
_PACKET_ADD_MEMBERSHIP = 1
_PACKET_MR_PROMISC = 1
_PACKET_IGNORE_OUTGOING = 23
_SIOCGIFINDEX = 0x8933
_SO_ATTACH_FILTER = 26
_SO_RCVBUFFORCE = 33


def attach_filter(sock: socket.socket, program: bytes) -> None:
    """Let a filter program decide. Raises: UsageError when the kernel refuses it, OSError."""
    instructions = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: number of instructions, address of the first
    descriptor = struct.pack("@HP", len(program) // 8, ctypes.addressof(instructions))
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, descriptor)
    except OSError as error:
        if error.errno not in (errno.ENOMEM, errno.EINVAL):
            raise
        hint = "make it simpler, or raise the sysctl net.core.optmem_max"
        problem = f"the kernel does not take the filter ({error.strerror})"
        raise UsageError("-F", None, problem, hint) from None


def bind_all(sock: socket.socket, protocol: int) -> None:
    """Capture a network protocol on all devices. Raises: OSError."""
    # Python's own `bind` wants a device. struct sockaddr_ll, of which two fields matter:
    address = struct.pack("=HHiHBB8x", socket.AF_PACKET, socket.htons(protocol), 0, 0, 0, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.bind(sock.fileno(), address, len(address)) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def be_promiscuous(sock: socket.socket, device: str) -> None:
    """Have the device take frames addressed to other hosts, as long as the socket is open."""
    # Asked of this socket: the process may be in another network namespace by now.
    found = fcntl.ioctl(sock, _SIOCGIFINDEX, struct.pack("@16si20x", device.encode(), 0))
    # struct packet_mreq: device, type, length of an address, the address
    index = struct.unpack_from("@i", found, 16)[0]
    request = struct.pack("@iHH8x", index, _PACKET_MR_PROMISC, 0)
    sock.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, request)


def bound_queue(sock: socket.socket, size: int) -> int:
    """Bound the queue of packets larger than a frame; return the bytes granted.

    The kernel doubles the size, and counts its overhead.
    """
    size = min(size, (1 << 30) - 1)
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size)
    except PermissionError:  # CAP_NET_RAW without CAP_NET_ADMIN: as much as the sysctl allows
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


def ignore_outgoing(sock: socket.socket) -> None:
    """Do not capture what this host sends. Raises: OSError."""
    try:
        sock.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
    except OSError as error:  # before Linux 4.20 the filter alone does it
        if error.errno != errno.ENOPROTOOPT:
            raise
