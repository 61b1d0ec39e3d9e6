"""Plain encoding and strict decoding of IPv4 and IPv6 packets that carry TCP.

Reading list: RFC 791, RFC 8200, RFC 9293 section 3.1, RFC 7323, RFC 2018, RFC 1071.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = 1, 2, 4, 8, 16, 32, 64, 128
SEQUENCE_MASK = 0xFFFFFFFF
IPPROTO_TCP = 6

_FLAG_LETTERS = ((SYN, "S"), (FIN, "F"), (RST, "R"), (PSH, "P"), (ACK, "."), (URG, "U"))
_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_IPV6 = struct.Struct("!IHBB16s16s")
_TCP = struct.Struct("!HHIIHHHH")


class WireError(AssertionError):
    """A packet that no correct sender puts on the wire; always a failure of the test."""


@dataclass(slots=True)
class Segment:
    """One TCP segment with its addresses. Addresses are 4 or 16 bytes, network order."""

    source: bytes
    source_port: int
    destination: bytes
    destination_port: int
    seq: int  # as on the wire, modulo 2**32
    ack: int = 0  # as on the wire; meaningful when the ACK flag is set
    flags: int = 0
    window: int = 0  # unscaled, as on the wire
    payload: bytes = b""
    mss: int | None = None
    window_scale: int | None = None
    sack_permitted: bool = False
    sack_blocks: tuple[tuple[int, int], ...] = ()  # (left edge, right edge)
    timestamp: tuple[int, int] | None = None  # (TSval, TSecr)
    other_options: tuple[tuple[int, bytes], ...] = ()  # (kind, value), kinds unknown here
    options_length: int = 0  # bytes of options on the wire; set by decode

    @property
    def key(self) -> tuple[bytes, int, bytes, int]:
        """The four-tuple, sender first."""
        return (self.source, self.source_port, self.destination, self.destination_port)

    @property
    def length(self) -> int:
        """SEG.LEN: sequence space taken, SYN and FIN count one each (RFC 9293 3.4)."""
        return len(self.payload) + (self.flags & 1) + (self.flags >> 1 & 1)


def internet_sum(data: bytes) -> int:
    """Return the ones' complement sum of `data` folded to 16 bits (RFC 1071).

    2**16 is 1 modulo 65535, so the whole is one division; 0 stands for 0xFFFF as well.
    """
    if len(data) & 1:
        data += b"\0"
    return int.from_bytes(data, "big") % 0xFFFF


def _checksum(data: bytes) -> int:
    return 0xFFFF - (internet_sum(data) or 0xFFFF)


def _pseudo_header(source: bytes, destination: bytes, tcp_length: int) -> bytes:
    """RFC 9293 3.1 for IPv4, RFC 8200 8.1 for IPv6; both add up alike for short lengths."""
    return source + destination + struct.pack("!IBBH", tcp_length, 0, 0, IPPROTO_TCP)


def encode_options(segment: Segment) -> bytes:
    """Return the options of `segment` padded with NOPs to a multiple of four bytes."""
    parts = []
    if segment.mss is not None:
        parts.append(struct.pack("!BBH", 2, 4, segment.mss))
    if segment.sack_permitted:
        parts.append(b"\4\2" if segment.timestamp is not None else b"\1\1\4\2")
    if segment.timestamp is not None:
        if not segment.sack_permitted:
            parts.append(b"\1\1")
        parts.append(struct.pack("!BBII", 8, 10, *segment.timestamp))
    if segment.window_scale is not None:
        parts.append(struct.pack("!BBBB", 1, 3, 3, segment.window_scale))
    if segment.sack_blocks:
        parts.append(struct.pack("!BBBB", 1, 1, 5, 2 + 8 * len(segment.sack_blocks)))
        parts.extend(struct.pack("!II", left, right) for left, right in segment.sack_blocks)
    parts.extend(bytes((kind, 2 + len(value))) + value for kind, value in segment.other_options)
    options = b"".join(parts)
    if len(options) > 40:
        raise WireError(f"{len(options)} bytes of TCP options do not fit in a header")
    return options + b"\1" * (-len(options) % 4)


def encode(segment: Segment, *, fill_checksums: bool = True, identification: int = 0) -> bytes:
    """Return the packet, network header first.

    With `fill_checksums` false the TCP checksum is what a sender that leaves it to its network
    card writes: the sum of the pseudo header only.
    """
    options = encode_options(segment) if segment.flags & SYN or _has_options(segment) else b""
    header_length = 20 + len(options)
    tcp_length = header_length + len(segment.payload)
    header = bytearray(
        _TCP.pack(
            segment.source_port,
            segment.destination_port,
            segment.seq,
            segment.ack,
            header_length << 10 | segment.flags,
            segment.window,
            0,
            0,
        )
    )
    header += options
    pseudo = _pseudo_header(segment.source, segment.destination, tcp_length)
    if fill_checksums:
        struct.pack_into("!H", header, 16, _checksum(pseudo + header + segment.payload))
    else:
        struct.pack_into("!H", header, 16, internet_sum(pseudo))
    network = _network_header(segment, tcp_length, identification)
    return network + bytes(header) + segment.payload


def _has_options(segment: Segment) -> bool:
    return bool(
        segment.timestamp is not None
        or segment.sack_blocks
        or segment.other_options
        or segment.mss is not None
        or segment.window_scale is not None
        or segment.sack_permitted
    )


def _network_header(segment: Segment, tcp_length: int, identification: int) -> bytes:
    if len(segment.source) == 16:
        if tcp_length > 0xFFFF:
            raise WireError(f"payload of {tcp_length} bytes does not fit in IPv6")
        return _IPV6.pack(6 << 28, tcp_length, IPPROTO_TCP, 64, segment.source, segment.destination)
    total = 20 + tcp_length
    if total > 0xFFFF:
        raise WireError(f"packet of {total} bytes does not fit in IPv4")
    header = bytearray(
        _IPV4.pack(
            0x45,
            0,
            total,
            identification & 0xFFFF,
            0x4000,
            64,
            IPPROTO_TCP,
            0,
            segment.source,
            segment.destination,
        )
    )
    struct.pack_into("!H", header, 10, _checksum(bytes(header)))
    return bytes(header)


def decode(packet: bytes, *, verify: bool = True) -> Segment:
    """Return the segment in `packet`; with `verify` every field that can be wrong is checked.

    Raises: WireError for a wrong length, checksum, protocol, fragment or option.
    """
    if not packet:
        raise WireError("empty packet")
    version = packet[0] >> 4
    if version == 4:
        source, destination, start = _decode_ipv4(packet, verify)
    elif version == 6:
        source, destination, start = _decode_ipv6(packet)
    else:
        raise WireError(f"IP version {version}: {packet[:20].hex()}")
    tcp_length = len(packet) - start
    if tcp_length < 20:
        raise WireError(f"only {tcp_length} bytes of TCP")
    source_port, destination_port, seq, ack, offset_flags, window, checksum, urgent = (
        _TCP.unpack_from(packet, start)
    )
    header_length = offset_flags >> 12 << 2
    if header_length < 20 or header_length > tcp_length:
        raise WireError(f"TCP header of {header_length} bytes in {tcp_length}")
    if verify:
        pseudo = _pseudo_header(source, destination, tcp_length)
        if internet_sum(pseudo + packet[start:]) != 0:
            raise WireError(f"wrong TCP checksum {checksum:#06x}: {packet[: start + 20].hex()}")
        if offset_flags & 0xE00 or (urgent and not offset_flags & URG):
            raise WireError("reserved bits or a stray urgent pointer in the TCP header")
    segment = Segment(
        source,
        source_port,
        destination,
        destination_port,
        seq,
        ack,
        offset_flags & 0xFF,
        window,
        packet[start + header_length :],
    )
    segment.options_length = header_length - 20
    if header_length > 20:
        _decode_options(segment, packet[start + 20 : start + header_length], verify)
    return segment


def _decode_ipv4(packet: bytes, verify: bool) -> tuple[bytes, bytes, int]:
    if len(packet) < 20:
        raise WireError(f"IPv4 packet of {len(packet)} bytes")
    fields = _IPV4.unpack_from(packet)
    start = (packet[0] & 15) * 4
    if start < 20 or start > len(packet):
        raise WireError(f"IPv4 header of {start} bytes")
    if fields[2] != len(packet):
        raise WireError(f"IPv4 total length {fields[2]}, packet has {len(packet)} bytes")
    if fields[4] & 0x3FFF:
        raise WireError("IPv4 fragment")
    if fields[6] != IPPROTO_TCP:
        raise WireError(f"IPv4 protocol {fields[6]}")
    if verify:
        if internet_sum(packet[:start]) != 0:
            raise WireError(f"wrong IPv4 checksum {fields[7]:#06x}: {packet[:start].hex()}")
        if fields[5] == 0:
            raise WireError("IPv4 time to live is zero")
    return fields[8], fields[9], start


def _decode_ipv6(packet: bytes) -> tuple[bytes, bytes, int]:
    if len(packet) < 40:
        raise WireError(f"IPv6 packet of {len(packet)} bytes")
    _, payload_length, next_header, hop_limit, source, destination = _IPV6.unpack_from(packet)
    if payload_length != len(packet) - 40:
        raise WireError(f"IPv6 payload length {payload_length}, there are {len(packet) - 40}")
    if next_header != IPPROTO_TCP:
        raise WireError(f"IPv6 next header {next_header}")
    if hop_limit == 0:
        raise WireError("IPv6 hop limit is zero")
    return source, destination, 40


def _decode_options(segment: Segment, options: bytes, verify: bool) -> None:
    at = 0
    other = []
    while at < len(options):
        kind = options[at]
        if kind == 0:
            break
        if kind == 1:
            at += 1
            continue
        length = options[at + 1] if at + 1 < len(options) else 0
        if (length < 2 or at + length > len(options)) and not verify:
            break  # a record may be cut within an option
        if length < 2 or at + length > len(options):
            raise WireError(f"malformed TCP options {options.hex()}")
        value = options[at + 2 : at + length]
        at += length
        if kind == 2 and length == 4:
            segment.mss = int.from_bytes(value, "big")
        elif kind == 3 and length == 3:
            segment.window_scale = value[0]
        elif kind == 4 and length == 2:
            segment.sack_permitted = True
        elif kind == 5 and length % 8 == 2 and length > 2:
            edges = struct.unpack(f"!{(length - 2) // 4}I", value)
            segment.sack_blocks = tuple(zip(edges[::2], edges[1::2], strict=True))
        elif kind == 8 and length == 10:
            segment.timestamp = struct.unpack("!II", value)
        elif kind in (2, 3, 4, 5, 8):
            raise WireError(f"TCP option {kind} with length {length}")
        else:
            other.append((kind, value))
    segment.other_options = tuple(other)


def cut_answer(packet: bytes) -> bytes:
    """Return the record that a header-only relay keeps of a target's packet.

    The network header without options, the TCP header with at most 24 bytes of options, padded
    with zeros to 64 bytes for IPv4 (84 for IPv6). Lengths in the network header stay those of
    the packet. Source: the classic relay record.
    """
    if packet[0] >> 4 == 6:
        network, start = packet[:40], 40
    else:
        start = (packet[0] & 15) * 4
        network = packet[:20]
    header_length = packet[start + 12] >> 4 << 2
    tcp = packet[start : start + min(header_length, 44)]
    return network + tcp + bytes(44 - len(tcp))


def decode_cut(record: bytes) -> Segment:
    """Return the segment of a `cut_answer` record, its payload made up of zeros."""
    if record[0] >> 4 == 6:
        start, total = 40, 40 + int.from_bytes(record[4:6], "big")
    else:
        start, total = 20, int.from_bytes(record[2:4], "big")
        total -= (record[0] & 15) * 4 - 20
    header_length = record[start + 12] >> 4 << 2
    kept = min(header_length, 44)
    header = bytearray(record[start : start + kept])
    header[12] = kept << 2 | (header[12] & 15)
    whole = bytearray(record[:start]) + header + bytes(total - start - header_length)
    if record[0] >> 4 == 6:
        struct.pack_into("!H", whole, 4, len(whole) - 40)
    else:
        whole[0] = 0x45
        struct.pack_into("!H", whole, 2, len(whole))
    return decode(bytes(whole), verify=False)


def describe(packet: bytes) -> str:
    """Return one line about `packet` for failure reports; never raises."""
    try:
        segment = decode(packet, verify=False)
    except WireError as error:
        return f"undecodable ({error}) {packet[:64].hex()}"
    flags = "".join(letter for flag, letter in _FLAG_LETTERS if segment.flags & flag) or "-"
    text = (
        f"{segment.source_port} > {segment.destination_port} {flags} seq {segment.seq} "
        f"ack {segment.ack} len {len(segment.payload)} win {segment.window}"
    )
    if segment.mss is not None:
        text += f" mss {segment.mss}"
    if segment.window_scale is not None:
        text += f" ws {segment.window_scale}"
    if segment.sack_permitted:
        text += " sackOK"
    if segment.timestamp is not None:
        text += f" ts {segment.timestamp[0]}/{segment.timestamp[1]}"
    for left, right in segment.sack_blocks:
        text += f" sack {left}-{right}"
    return text
