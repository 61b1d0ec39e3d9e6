"""Capture files and frames written byte by byte, right or wrong, for tests of the reader."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from typing import Any, Literal

from tcpcopy.packet.handler import PacketHandler

Order = Literal["<", ">"]
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
MACS = b"\x02\0\0\0\0\1\x02\0\0\0\0\2"
START_NS = 1_700_000_000_000_000_000

Packet = tuple[int, bytes]  # time in nanoseconds, frame


class Collector(PacketHandler):
    """Keeps what it is given: (time, IP packet, length on the wire)."""

    def __init__(self) -> None:
        self.packets: list[tuple[int, bytes, int]] = []

    def packet(self, data: Any, start: int, end: int, wire_length: int, timestamp_ns: int) -> int:
        """Keep a copy; returns how many there are."""
        self.packets.append((timestamp_ns, bytes(data[start:end]), wire_length))
        return len(self.packets)


def tcp(
    source: str,
    destination: str,
    flags: int = ACK,
    payload: bytes = b"",
    *,
    seq: int = 1,
    ack: int = 1,
) -> bytes:
    """An IP packet of either family; ends are `address:port`, IPv6 addresses in brackets."""
    source_port, destination_port = (int(end.rpartition(":")[2]) for end in (source, destination))
    header = struct.pack(
        "!HHIIBBHHH",
        source_port,
        destination_port,
        seq & 0xFFFFFFFF,
        ack & 0xFFFFFFFF,
        5 << 4,
        flags,
        512,
        0,
        0,
    )
    return ip(source, destination, 6, header + payload)


def udp(source: str, destination: str, payload: bytes = b"") -> bytes:
    """As `tcp`."""
    ports = (int(end.rpartition(":")[2]) for end in (source, destination))
    return ip(source, destination, 17, struct.pack("!HHHH", *ports, 8 + len(payload), 0) + payload)


def ip(source: str, destination: str, protocol: int, body: bytes, *, fragment: int = 0) -> bytes:
    """An IP packet; the ends may have a port, which is passed over."""
    if source.startswith("["):
        ends = b"".join(
            socket.inet_pton(socket.AF_INET6, end[1:].partition("]")[0])
            for end in (source, destination)
        )
        return struct.pack("!IHBB", 6 << 28, len(body), protocol, 64) + ends + body
    ends = b"".join(socket.inet_aton(end.partition(":")[0]) for end in (source, destination))
    return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 1, fragment, 64, protocol, 0) + (
        ends + body
    )


def ethernet(packet: bytes, *tags: int, kind: int = 0) -> bytes:
    """A frame around an IP packet; `tags` are the EtherTypes of VLAN tags, the outermost first."""
    frame = MACS
    for tag in tags:
        frame += struct.pack("!HH", tag, 100)
    return frame + struct.pack("!H", kind or ethertype(packet)) + packet


def ethertype(packet: bytes) -> int:
    """0x0800 or 0x86DD by the version of an IP packet."""
    return 0x86DD if packet[0] >> 4 == 6 else 0x0800


def vxlan(frame: bytes, port: int = 4789) -> bytes:
    """An IP packet that carries `frame` in VXLAN."""
    return udp("192.0.2.1:5555", f"192.0.2.2:{port}", b"\x08\0\0\0\0\0\x2a\0" + frame)


def gre(payload: bytes, kind: int, *, key: bool = False, sequence: bool = False) -> bytes:
    """An IP packet that carries `payload` in GRE."""
    flags = (0x2000 if key else 0) | (0x1000 if sequence else 0)
    words = b"\0\0\0\x07" * (key + sequence)
    return ip("192.0.2.1", "192.0.2.2", 47, struct.pack("!HH", flags, kind) + words + payload)


def pcap(
    packets: Iterable[Packet],
    *,
    order: Order = "<",
    nano: bool = False,
    link: int = 1,
    snaplen: int = 262144,
) -> bytes:
    """A pcap file; frames longer than `snaplen` are cut."""
    magic = 0xA1B23C4D if nano else 0xA1B2C3D4
    made = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, snaplen, link)
    for time_ns, frame in packets:
        fraction = time_ns % 10**9 // (1 if nano else 1000)
        kept = frame[:snaplen]
        made += struct.pack(order + "IIII", time_ns // 10**9, fraction, len(kept), len(frame))
        made += kept
    return made


def block(kind: int, body: bytes, order: Order = "<") -> bytes:
    """A pcapng block."""
    body += bytes(-len(body) % 4)
    length = struct.pack(order + "I", 12 + len(body))
    return struct.pack(order + "I", kind) + length + body + length


def section(order: Order = "<") -> bytes:
    """A pcapng section header of unknown length."""
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def option(code: int, value: bytes, order: Order = "<") -> bytes:
    """One option of a pcapng block."""
    return struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4)


def interface(
    link: int = 1, options: bytes = b"", order: Order = "<", *, snaplen: int = 0
) -> bytes:
    """A pcapng interface description."""
    return block(1, struct.pack(order + "HHI", link, 0, snaplen) + options, order)


def enhanced(
    frame: bytes,
    ticks: int,
    *,
    number: int = 0,
    order: Order = "<",
    original: int | None = None,
    options: bytes = b"",
) -> bytes:
    """A pcapng enhanced packet block; `ticks` is the time in the interface's units."""
    size = len(frame) if original is None else original
    head = struct.pack(
        order + "IIIII", number, ticks >> 32 & 0xFFFFFFFF, ticks & 0xFFFFFFFF, len(frame), size
    )
    return block(6, head + frame + bytes(-len(frame) % 4) + options, order)


def pcapng(packets: Iterable[Packet], *, link: int = 1, order: Order = "<") -> bytes:
    """A pcapng file of one section and one interface with microseconds."""
    return (
        section(order)
        + interface(link, order=order)
        + b"".join(enhanced(frame, time // 1000, order=order) for time, frame in packets)
    )


def conversation(
    client: str = "198.51.100.7:40000",
    server: str = "10.0.0.1:80",
    *,
    request: bytes = b"GET / HTTP/1.1\r\n\r\n",
    answer: bytes = b"HTTP/1.1 200 OK\r\n\r\n",
    isn: int = 1000,
) -> list[bytes]:
    """A whole TCP session: handshake, request, answer, both FINs; IP packets."""
    sent, got = isn + 1, 5001
    after, answered = sent + len(request), got + len(answer)
    return [
        tcp(client, server, SYN, seq=isn, ack=0),
        tcp(server, client, SYN | ACK, seq=5000, ack=sent),
        tcp(client, server, ACK, seq=sent, ack=got),
        tcp(client, server, ACK | PSH, request, seq=sent, ack=got),
        tcp(server, client, ACK | PSH, answer, seq=got, ack=after),
        tcp(client, server, ACK | FIN, seq=after, ack=answered),
        tcp(server, client, ACK | FIN, seq=answered, ack=after + 1),
        tcp(client, server, ACK, seq=after + 1, ack=answered + 1),
    ]


def timed(
    packets: Iterable[bytes], *, start_ns: int = START_NS, step_ns: int = 10**6
) -> list[Packet]:
    """Ethernet frames around IP packets, one every `step_ns`."""
    return [(start_ns + i * step_ns, ethernet(packet)) for i, packet in enumerate(packets)]
