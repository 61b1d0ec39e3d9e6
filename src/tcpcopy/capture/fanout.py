"""Sharing what is captured among processes: PACKET_FANOUT by client address and port.

The rings of a group take a packet each: the kernel runs a small program over the packet, whose
result says which ring, in the order in which they joined. It computes `shares.worker_of` for the
packet's source, so a connection stays in one process. The rings stay in the group as long as any
process holds them; that a worker dies moves no connection.

A ring that is bound and has not joined yet gets all packets: let rings reject all until each has
joined. A ring in a group cannot be bound anew (`Ring.rebind`).

Source: packet(7), Documentation/networking/filter.rst, linux/net/packet/af_packet.c.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Sequence
from typing import Final

from tcpcopy.capture.filters import accept_stacked_tags
from tcpcopy.capture.ring import Ring
from tcpcopy.mapping.shares import MULTIPLIER, SHIFT

# linux/if_packet.h
_SOL_PACKET: Final = 263
_PACKET_FANOUT: Final = 18
_PACKET_FANOUT_DATA: Final = 22
_CLASSIC_PROGRAM: Final = 6
_UNIQUE_ID: Final = 0x2000
_IGNORE_OUTGOING: Final = 0x4000
_DEFRAGMENT: Final = 0x8000

# linux/bpf_common.h
_LOAD_WORD, _LOAD_BYTE, _LOAD_HALF_BEHIND_X = 0x20, 0x30, 0x48
_LOAD_X, _LOAD_X_IPV4_HEADER, _LOAD_X_MEMORY = 0x01, 0xB1, 0x61
_ADD, _ADD_X, _MULTIPLY, _SHIFT_LEFT, _SHIFT_RIGHT, _XOR_X = 0x04, 0x0C, 0x24, 0x64, 0x74, 0xAC
_RETURN = 0x06
_STORE, _STORE_X, _TO_X, _JUMP, _JUMP_IF_EQUAL, _RETURN_A = 0x02, 0x03, 0x07, 0x05, 0x15, 0x16
_IPV4_SOURCE, _IPV6_SOURCE = 12, 8

_ANCILLARY_PROTOCOL: Final = 0xFFFFF000  # linux/filter.h

Instruction = tuple[int, int, int, int]


def program() -> bytes:
    """The program whose result, modulo the number of workers, is `worker_of` a packet's source.

    Behind a chain of IPv6 extension headers it does not find the port and goes by address alone.
    Of tunnels it sees the outer packet, of which a connection's have the same source, as a rule.
    """
    address = [
        (_LOAD_WORD, 0, 0, _IPV6_SOURCE),
        *(
            part
            for at in (4, 8, 12)
            for part in ((_TO_X, 0, 0, 0), (_LOAD_WORD, 0, 0, _IPV6_SOURCE + at), (_XOR_X, 0, 0, 0))
        ),
    ]
    ipv4 = [
        (_LOAD_X_IPV4_HEADER, 0, 0, 0),
        *_port(),
        (_LOAD_WORD, 0, 0, _IPV4_SOURCE),
        *_sum(),
    ]
    ipv6 = [
        (_LOAD_BYTE, 0, 0, 6),  # next header
        (_JUMP_IF_EQUAL, 4, 0, 6),
        (_JUMP_IF_EQUAL, 5, 0, 0),  # hop-by-hop options, routing, fragment, destination options
        (_JUMP_IF_EQUAL, 4, 0, 43),
        (_JUMP_IF_EQUAL, 3, 0, 44),
        (_JUMP_IF_EQUAL, 2, 9, 60),
        (_LOAD_X, 0, 0, 40),
        (_JUMP, 0, 0, 8),  # to the port
        (_LOAD_BYTE, 0, 0, 40),  # one extension header; what follows it
        (_JUMP_IF_EQUAL, 0, 5, 6),
        (_LOAD_BYTE, 0, 0, 41),
        (_ADD, 0, 0, 6),  # it has 8 bytes more than that many times 8, and 40 are before it
        (_SHIFT_LEFT, 0, 0, 3),
        (_TO_X, 0, 0, 0),
        (_JUMP, 0, 0, 1),
        (_JUMP, 0, 0, len(_port())),  # without the port: its part is 0, as memory is
        *_port(),
        *address,
        *_sum(),
    ]
    head = [(_LOAD_BYTE, 0, 0, 0), (_SHIFT_RIGHT, 0, 0, 4), (_JUMP_IF_EQUAL, 0, len(ipv6), 6)]
    # The kernel refuses a program that reads memory which a way through it has not written.
    start = [(_LOAD_X, 0, 0, 0), (_STORE_X, 0, 0, 0)]
    packed = b"".join(struct.pack("=HBBI", *item) for item in (*start, *head, *ipv6, *ipv4))
    return _first_for_others() + accept_stacked_tags(packed)


def _first_for_others() -> bytes:
    """What is neither IP nor behind VLAN tags goes to the first: its bytes tell no connection."""
    kinds = (0x0800, 0x86DD, 0x8100, 0x88A8)
    return b"".join(
        struct.pack("=HBBI", *item)
        for item in (
            (_LOAD_WORD, 0, 0, _ANCILLARY_PROTOCOL),
            *((_JUMP_IF_EQUAL, len(kinds) - place, 0, kind) for place, kind in enumerate(kinds)),
            (_RETURN, 0, 0, 0),
        )
    )


def _port() -> list[Instruction]:
    """Leave the hash of the source port, which stands at X, in memory."""
    return [
        (_LOAD_HALF_BEHIND_X, 0, 0, 0),
        (_MULTIPLY, 0, 0, MULTIPLIER),
        (_SHIFT_RIGHT, 0, 0, SHIFT),
        (_STORE, 0, 0, 0),
    ]


def _sum() -> list[Instruction]:
    """Return the hash of the word in A and what is in memory."""
    return [
        (_MULTIPLY, 0, 0, MULTIPLIER),
        (_SHIFT_RIGHT, 0, 0, SHIFT),
        (_LOAD_X_MEMORY, 0, 0, 0),
        (_ADD_X, 0, 0, 0),
        (_RETURN_A, 0, 0, 0),
    ]


def join(rings: Sequence[Ring], defragment: bool = False) -> None:
    """Make a group of its own of rings on the same device, which reject all packets as yet.

    The first gets the packets of worker 0, and so on. With `defragment` the kernel puts IPv4
    fragments together first, of which only the first one has the port that decides. Raises OSError
    when the kernel cannot do it (before Linux 4.13).
    """
    kind = (_CLASSIC_PROGRAM | _IGNORE_OUTGOING | (_DEFRAGMENT if defragment else 0)) << 16
    group = _UNIQUE_ID << 16  # the kernel finds a free number
    for index, ring in enumerate(rings):
        with socket.socket(fileno=os.dup(ring.fileno())) as shared:
            shared.setsockopt(_SOL_PACKET, _PACKET_FANOUT, struct.pack("@I", kind | group))
            if index:
                continue
            group = shared.getsockopt(_SOL_PACKET, _PACKET_FANOUT) & 0xFFFF
            code = program()
            instructions = ctypes.create_string_buffer(code, len(code))
            # struct sock_fprog: number of instructions, address of the first
            descriptor = struct.pack("@HP", len(code) // 8, ctypes.addressof(instructions))
            shared.setsockopt(_SOL_PACKET, _PACKET_FANOUT_DATA, descriptor)
