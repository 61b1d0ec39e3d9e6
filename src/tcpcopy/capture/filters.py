"""Kernel filters: pcap expressions made from the transfers, compiled to socket filter programs.

A program is `struct sock_filter` records (8 bytes each, native byte order) as SO_ATTACH_FILTER
takes them. Expressions are compiled for link type RAW: a SOCK_DGRAM packet socket runs its filter
from the network header on, so the link layer (and one VLAN tag, which the kernel takes off) is out
of sight.

What a generated expression cannot see: the ports of fragments after the first one, and ports
behind an authentication header or a chain of IPv6 extension headers. All of these to the addresses
in question are let through unseen, for the engine's own match to decide.

Source: pcap-filter(7), Documentation/networking/filter.rst, RFC 791, RFC 8200, RFC 9293 (3.1).
"""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Callable, Sequence

import cypcap

from tcpcopy.errors import UsageError
from tcpcopy.packet.tunnels import PROTOCOLS, UDP_PORTS

_INSTRUCTION = struct.Struct("=HBBI")
# The kernel's BPF_MAXINSNS is 4096; a program is attached twice over (`accept_stacked_tags`).
MAX_INSTRUCTIONS = 2000
# libpcap's optimizer takes seconds for some expressions of a hundred terms, minutes for more; its
# translation takes seconds for some hundreds. Generated expressions stay within these bounds.
MAX_TERMS = 64
_MAX_UNOPTIMIZED = 8000
_MAX_CONNECTIVES = 500
# Longer than any packet, also than those of BIG TCP: what passes the filter passes whole.
_WHOLE_PACKET = 0x40000

# linux/bpf_common.h
_LOAD_WORD_ABSOLUTE = 0x20
_JUMP_ALWAYS = 0x05
_JUMP_IF_EQUAL = 0x15
_JUMP_IF_GREATER = 0x25
_RETURN = 0x06
_CLASS_MASK, _MODE_MASK = 0x07, 0xE0
_CLASS_LOAD, _CLASS_LOAD_X = 0x00, 0x01
_MODE_ABSOLUTE, _MODE_INDIRECT, _MODE_HEADER_LENGTH = 0x20, 0x40, 0xA0
# linux/filter.h: absolute loads from here on read facts about the packet instead of its bytes.
_ANCILLARY = 0xFFFFF000
_ANCILLARY_PROTOCOL, _ANCILLARY_PACKET_TYPE = _ANCILLARY + 0, _ANCILLARY + 4
_PACKET_MULTICAST, _PACKET_OUTGOING = 2, 4
_TAG, _SERVICE_TAG = 0x8100, 0x88A8
_TAG_BYTES = 4

# EtherTypes of what stands before IP in frames of switches and mirrors (`packet.links.typed`).
_SHIMS = (0x8847, 0x8848, 0x8864, 0x88E5, 0x88E7, 0x8909, 0x8926, 0x893F, 0x894F)

REJECT_ALL = _INSTRUCTION.pack(_RETURN, 0, 0, 0)
"""The program that lets nothing through."""

_IPV4_HAS_PAYLOAD = "ip[2:2] - ((ip[0] & 15) << 2) - ((tcp[12] & 0xf0) >> 2) != 0"
_IPV6_HAS_PAYLOAD = "ip6[4:2] - ((ip6[52] & 0xf0) >> 2) != 0"
# Hop-by-hop options, routing, destination options; a fragment header is measured the same way
# because its second byte is zero, but only a first fragment has ports.
_ONE_EXTENSION = (
    "(ip6[6] == 0 or ip6[6] == 43 or ip6[6] == 60 or (ip6[6] == 44 and ip6[42:2] & 0xfff8 == 0))"
)
_MORE_EXTENSIONS = (
    "(ip6[40] == 0 or ip6[40] == 43 or ip6[40] == 44 or ip6[40] == 51 or ip6[40] == 60)"
)
_PORT_BEHIND_EXTENSION = "ip6[50 + (ip6[41] << 3) : 2]"

Endpoint = tuple[bytes, int]
Group = tuple[list[bytes], list[int]]


def expression_for(
    sources: Sequence[Endpoint], excluded_targets: Sequence[Endpoint], pure_acks: bool = True
) -> str:
    """Return the pcap expression for the client packets of the given online endpoints.

    `sources` and `excluded_targets` are (address, port); an address is 4 or 16 bytes in network
    order, or b"" for any address of both families. Packets to an excluded target do not pass even
    if a source without address covers them. With `pure_acks` false, segments without data, SYN, FIN
    and RST are dropped too (the last acknowledgement of a handshake is one of them), except
    behind IPv6 extension headers.

    The filter only saves work, the engine matches each packet itself: of more than MAX_TERMS
    sources the expression covers more than these, of more than MAX_TERMS exclusions it has none.

    Raises ValueError when `sources` is empty or an address has another length.
    """
    if not sources:
        raise ValueError("a filter needs at least one source")
    families = []
    for size, build in ((4, _expression_v4), (16, _expression_v6)):
        wanted = _covering(_grouped(sources, size))
        excluded = _grouped(excluded_targets, size)
        if wanted:
            families.append(build(wanted, [] if _is_long(excluded) else excluded, pure_acks))
    return " or ".join(families)


def udp_expression_for(sources: Sequence[Endpoint], excluded_targets: Sequence[Endpoint]) -> str:
    """As `expression_for`, for UDP datagrams and their fragments.

    Fragments after the first carry no ports: those to any address of the sources pass.
    """
    if not sources:
        raise ValueError("a filter needs at least one source")
    families = []
    for size, build in ((4, _udp_expression_v4), (16, _udp_expression_v6)):
        wanted = _covering(_grouped(sources, size))
        excluded = _grouped(excluded_targets, size)
        if wanted:
            families.append(build(wanted, [] if _is_long(excluded) else excluded))
    return " or ".join(families)


def tunnels_expression() -> str:
    """Return the expression for all packets that may carry others, and for their fragments.

    Nothing of it looks at what is inside: `capture.unwrapping` does.
    """
    ports = _any_of([f"udp dst port {port}" for port in UDP_PORTS])
    kinds = (*PROTOCOLS, 51)
    v4 = _any_of([f"ip[9] == {kind}" for kind in kinds])
    v6 = _any_of([f"ip6[6] == {kind}" for kind in kinds])
    later = "(ip[9] == 17 and ip[6:2] & 0x1fff != 0)"
    return f"({ports} or (ip and ({v4} or {later})) or (ip6 and ({v6} or ip6[6] == 44)))"


def compile_filter(expression: str, option: str = "-F") -> bytes:
    """Return the socket filter program for a pcap expression.

    `option` is the option to name when the expression is bad: "-F" for the user's own.
    Raises UsageError when it is empty, does not compile, is too long for the kernel, or needs a
    loop, which the kernel does not run.
    """
    if not expression.strip():
        raise UsageError(option, '""', "the filter is empty", "write a pcap-filter expression")
    shown = f"'{expression}'" if len(expression) <= 80 else f"'{expression[:77]}...'"
    if len(re.findall(r"\b(?:or|and)\b|\|\||&&", expression)) > _MAX_CONNECTIVES:
        raise UsageError(option, shown, "is too long", "make it simpler: `portrange`, `net`")
    try:
        instructions = _compiled(expression, optimize=False)
        if len(instructions) <= _MAX_UNOPTIMIZED:
            instructions = _compiled(expression, optimize=True)
    except cypcap.Error as error:
        problem = str(error.args[-1])
        raise UsageError(option, shown, problem, _hint_for(problem)) from None
    if len(instructions) > MAX_INSTRUCTIONS:
        problem = f"takes {len(instructions)} instructions, {MAX_INSTRUCTIONS} is the most"
        raise UsageError(option, shown, problem, "make it simpler: `portrange`, `net`")
    # Conditional jumps cannot go back; an unconditional one does by wrapping round (protochain).
    if any(code == _JUMP_ALWAYS and k >= 1 << 31 for code, _, _, k in instructions):
        problem = "needs a loop, which the kernel does not run in a filter"
        raise UsageError(option, shown, problem, "leave out `protochain`")
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in instructions)


def matcher(expression: str) -> Callable[[bytes], bool]:
    """Return what tells whether a pcap expression that compiles lets an IP packet through."""
    # Not optimized, which may take libpcap seconds; a packet or two is all that it judges.
    program = cypcap.compile(
        cypcap.DatalinkType.RAW, _WHOLE_PACKET, expression, False, cypcap.NETMASK_UNKNOWN
    )

    def matches(packet: bytes) -> bool:
        return bool(program.offline_filter(cypcap.Pkthdr(0.0, len(packet), len(packet)), packet))

    return matches


def accept_stacked_tags(program: bytes) -> bytes:
    """Return a program that also judges packets which still begin with one VLAN tag.

    The kernel takes off the outer tag only; of a frame with two, the inner one stands before the
    IP header and would hide it from the program. Anything deeper is judged as it stands.
    """
    behind_tag = b"".join(_shifted(*item) for item in _INSTRUCTION.iter_unpack(program))
    length = len(program) // _INSTRUCTION.size
    return b"".join(
        (
            _INSTRUCTION.pack(_LOAD_WORD_ABSOLUTE, 0, 0, _ANCILLARY_PROTOCOL),
            _INSTRUCTION.pack(_JUMP_IF_EQUAL, 2, 0, _TAG),
            _INSTRUCTION.pack(_JUMP_IF_EQUAL, 1, 0, _SERVICE_TAG),
            _INSTRUCTION.pack(_JUMP_ALWAYS, 0, 0, length),
            behind_tag,
            program,
        )
    )


def accept_shims(program: bytes) -> bytes:
    """Return a program that also lets through frames with IP behind headers of switches."""
    jumps = [
        _INSTRUCTION.pack(_JUMP_IF_EQUAL, len(_SHIMS) - place, 0, kind)
        for place, kind in enumerate(_SHIMS)
    ]
    return b"".join(
        (
            _INSTRUCTION.pack(_LOAD_WORD_ABSOLUTE, 0, 0, _ANCILLARY_PROTOCOL),
            *jumps,
            _INSTRUCTION.pack(_JUMP_ALWAYS, 0, 0, 1),
            _INSTRUCTION.pack(_RETURN, 0, 0, _WHOLE_PACKET),
            program,
        )
    )


def for_this_host(program: bytes) -> bytes:
    """Return a program that first refuses packets whose link address is another host's."""
    return (
        _INSTRUCTION.pack(_LOAD_WORD_ABSOLUTE, 0, 0, _ANCILLARY_PACKET_TYPE)
        + _INSTRUCTION.pack(_JUMP_IF_GREATER, 0, 1, _PACKET_MULTICAST)
        + REJECT_ALL
        + program
    )


def not_outgoing(program: bytes) -> bytes:
    """Return a program that first refuses what this host sends itself.

    The socket says so too (PACKET_IGNORE_OUTGOING), but only since Linux 4.20.
    """
    return (
        _INSTRUCTION.pack(_LOAD_WORD_ABSOLUTE, 0, 0, _ANCILLARY_PACKET_TYPE)
        + _INSTRUCTION.pack(_JUMP_IF_EQUAL, 0, 1, _PACKET_OUTGOING)
        + REJECT_ALL
        + program
    )


def _compiled(expression: str, *, optimize: bool) -> list[tuple[int, int, int, int]]:
    program = cypcap.compile(
        cypcap.DatalinkType.RAW, _WHOLE_PACKET, expression, optimize, cypcap.NETMASK_UNKNOWN
    )
    return [(code, jump_true, jump_false, k) for code, jump_true, jump_false, k in program]


def _grouped(endpoints: Sequence[Endpoint], size: int) -> list[Group]:
    """Return one family's endpoints as (addresses, ports): all of these with all of those."""
    ports_of: dict[bytes, set[int]] = {}
    for address, port in endpoints:
        if len(address) not in (0, 4, 16):
            raise ValueError(f"not an address: {address!r}")
        if len(address) in (0, size):
            ports_of.setdefault(address, set()).add(port)
    anywhere = ports_of.pop(b"", set())
    addresses_of: dict[tuple[int, ...], list[bytes]] = {}
    for address in sorted(ports_of):
        ports = tuple(sorted(ports_of[address] - anywhere))
        if ports:
            addresses_of.setdefault(ports, []).append(address)
    groups: list[Group] = [([], sorted(anywhere))] if anywhere else []
    groups += [(addresses, list(ports)) for ports, addresses in addresses_of.items()]
    return groups


def _is_long(groups: list[Group]) -> bool:
    return sum(len(addresses) + len(ports) for addresses, ports in groups) > MAX_TERMS


def _covering(groups: list[Group]) -> list[Group]:
    """Return the groups, or if they are too many one that covers them all: any address, a range."""
    if not _is_long(groups):
        return groups
    ports = sorted({port for _, ports in groups for port in ports})
    return [([], ports if len(ports) <= MAX_TERMS else list(range(ports[0], ports[-1] + 1)))]


def _any_of(terms: Sequence[str]) -> str:
    return terms[0] if len(terms) == 1 else "(" + " or ".join(terms) + ")"


def _expression_v4(wanted: list[Group], excluded: list[Group], pure_acks: bool) -> str:
    clauses = ["ip", "tcp", _destinations(wanted, "ip", "tcp[2:2]")]
    if excluded:
        clauses.append("not " + _destinations(excluded, "ip", "tcp[2:2]"))
    if not pure_acks:
        # Of a first fragment so much of the header may not be there, which would be a no.
        clauses.append(f"(ip[6] & 0x20 != 0 or tcp[13] & 7 != 0 or {_IPV4_HAS_PAYLOAD})")
    unseen = ["ip", "((ip[9] == 6 and ip[6:2] & 0x3fff != 0) or ip[9] == 51)"]
    unseen += _hosts(wanted, "ip")
    return f"(({' and '.join(clauses)}) or ({' and '.join(unseen)}))"


def _expression_v6(wanted: list[Group], excluded: list[Group], pure_acks: bool) -> str:
    direct = ["ip6[6] == 6", _destinations(wanted, "ip6", "ip6[42:2]")]
    behind = ["ip6[40] == 6", _destinations(wanted, "ip6", _PORT_BEHIND_EXTENSION)]
    chained = [_MORE_EXTENSIONS, *_hosts(wanted, "ip6")]
    if excluded:
        direct.append("not " + _destinations(excluded, "ip6", "ip6[42:2]"))
        behind.append("not " + _destinations(excluded, "ip6", _PORT_BEHIND_EXTENSION))
    if not pure_acks:
        direct.append(f"(ip6[53] & 7 != 0 or {_IPV6_HAS_PAYLOAD})")
    parts = "(ip6[6] == 44 and ip6[40] == 6 and ip6[42:2] & 0xfff9 != 0)"
    unseen = [f"({parts} or ip6[6] == 51)", *_hosts(wanted, "ip6")]
    extended = f"({_ONE_EXTENSION} and (({' and '.join(behind)}) or ({' and '.join(chained)})))"
    ways = f"({' and '.join(direct)}) or {extended} or ({' and '.join(unseen)})"
    return f"(ip6 and ({ways}))"


def _udp_expression_v4(wanted: list[Group], excluded: list[Group]) -> str:
    # `udp[2:2]` reads ports of packets that are whole, and of first fragments.
    clauses = ["ip", "udp", _destinations(wanted, "ip", "udp[2:2]")]
    if excluded:
        clauses.append("not " + _destinations(excluded, "ip", "udp[2:2]"))
    later = ["((ip[9] == 17 and ip[6:2] & 0x1fff != 0) or ip[9] == 51)", *_hosts(wanted, "ip")]
    return f"(({' and '.join(clauses)}) or (ip and {' and '.join(later)}))"


def _udp_expression_v6(wanted: list[Group], excluded: list[Group]) -> str:
    direct = ["ip6[6] == 17", _destinations(wanted, "ip6", "ip6[42:2]")]
    behind = ["ip6[40] == 17", _destinations(wanted, "ip6", _PORT_BEHIND_EXTENSION)]
    if excluded:
        direct.append("not " + _destinations(excluded, "ip6", "ip6[42:2]"))
        behind.append("not " + _destinations(excluded, "ip6", _PORT_BEHIND_EXTENSION))
    hosts = _hosts(wanted, "ip6")
    chained = [_MORE_EXTENSIONS, *hosts]
    parts = "(ip6[6] == 44 and ip6[40] == 17 and ip6[42:2] & 0xfff8 != 0)"
    later = [f"({parts} or ip6[6] == 51)", *hosts]
    extended = f"({_ONE_EXTENSION} and (({' and '.join(behind)}) or ({' and '.join(chained)})))"
    return f"(ip6 and (({' and '.join(direct)}) or {extended} or ({' and '.join(later)})))"


def _hosts(wanted: list[Group], family: str) -> list[str]:
    """A clause that matches the addresses of the groups; none where any address is wanted."""
    if not all(addresses for addresses, _ in wanted):
        return []
    hosts = [address for addresses, _ in wanted for address in addresses]
    return [_any_of([f"{family} dst host {_text(address)}" for address in hosts])]


def _destinations(groups: list[Group], family: str, port_field: str) -> str:
    """Return the expression that matches one of the destinations."""
    terms = []
    for addresses, ports in groups:
        if len(ports) > 1 and ports[-1] - ports[0] == len(ports) - 1:
            matched = f"({port_field} >= {ports[0]} and {port_field} <= {ports[-1]})"
        else:
            matched = _any_of([f"{port_field} == {port}" for port in ports])
        if addresses:
            hosts = _any_of([f"{family} dst host {_text(address)}" for address in addresses])
            matched = f"({hosts} and {matched})"
        terms.append(matched)
    return _any_of(terms)


def _text(address: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address)


def _shifted(code: int, jump_true: int, jump_false: int, k: int) -> bytes:
    """Return the instruction with its reads of packet bytes moved behind a VLAN tag."""
    reads_packet = code & _CLASS_MASK in (_CLASS_LOAD, _CLASS_LOAD_X) and (
        code & _MODE_MASK in (_MODE_ABSOLUTE, _MODE_INDIRECT, _MODE_HEADER_LENGTH)
    )
    if reads_packet and k < _ANCILLARY:
        k += _TAG_BYTES
    return _INSTRUCTION.pack(code, jump_true, jump_false, k)


def _hint_for(problem: str) -> str:
    if "VLAN" in problem:
        return "leave out `vlan`: tags are off by then; name the VLAN device with -i"
    if "ethernet" in problem or "link" in problem:
        return "match on IP addresses: link-layer headers are off by then"
    if "unknown host" in problem:
        return "write the address"
    return "see pcap-filter(7)"
