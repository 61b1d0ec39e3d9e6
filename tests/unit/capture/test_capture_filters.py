"""Kernel filters: what the expressions let through, judged by libpcap and by the kernel itself."""

from __future__ import annotations

import ctypes
import socket
import struct

import cypcap
import pytest

from tcpcopy.capture import filters
from tcpcopy.errors import UsageError

_SERVER, _CLIENT = socket.inet_aton("10.1.2.3"), socket.inet_aton("192.0.2.77")
_OTHER = socket.inet_aton("10.1.2.4")
_SERVER_V6 = socket.inet_pton(socket.AF_INET6, "2001:db8::1")
_CLIENT_V6 = socket.inet_pton(socket.AF_INET6, "2001:db8:1::77")
_OTHER_V6 = socket.inet_pton(socket.AF_INET6, "2001:db8::2")
_FIN, _SYN, _RST, _PSH, _ACK, _URG = 1, 2, 4, 8, 16, 32
_TCP, _UDP = 6, 17

_INSTRUCTION = struct.Struct("=HBBI")


def tcp(
    flags: int = _ACK,
    payload: bytes = b"",
    *,
    port: int = 80,
    options: bytes = b"",
    source: int = 0,
) -> bytes:
    """Return a TCP segment; `options` is padded to whole words."""
    options += bytes(-len(options) % 4)
    return (
        struct.pack(
            "!HHIIBBHHH", source or 40000, port, 7, 9, (20 + len(options)) << 2, flags, 512, 0, 0
        )
        + options
        + payload
    )


def v4(
    body: bytes,
    *,
    to: bytes = _SERVER,
    options: bytes = b"",
    fragment: int = 0,
    protocol: int = _TCP,
) -> bytes:
    """Return an IPv4 packet; `fragment` is the field of flags and offset."""
    options += bytes(-len(options) % 4)
    length = 20 + len(options) + len(body)
    first = 0x45 + len(options) // 4
    return (
        struct.pack("!BBHHHBBH", first, 0, length, 1, fragment, 64, protocol, 0)
        + _CLIENT
        + to
        + options
        + body
    )


def v6(body: bytes, *, to: bytes = _SERVER_V6, extensions: tuple[int, ...] = (), size: int = 8,
       protocol: int = _TCP, fragment: int = 0) -> bytes:  # fmt: skip
    """Return an IPv6 packet with extension headers of `size` bytes each (a fragment header: 8)."""
    chain = b""
    for position, _ in enumerate(extensions):
        following = (*extensions, protocol)[position + 1]
        if extensions[position] == 44:
            chain += struct.pack("!BBHI", following, 0, fragment, 99)
        else:
            chain += bytes((following, size // 8 - 1)) + bytes(size - 2)
    first = (*extensions, protocol)[0]
    header = struct.pack("!IHBB", 6 << 28, len(chain) + len(body), first, 64)
    return header + _CLIENT_V6 + to + chain + body


def judged_by_pcap(program: bytes, packet: bytes) -> bool:
    """Run the program with libpcap's interpreter."""
    assembled = cypcap.BpfProgram(list(_INSTRUCTION.iter_unpack(program)))
    header = cypcap.Pkthdr(caplen=len(packet), len=len(packet))
    return bool(assembled.offline_filter(header, packet))


def judged_by_kernel(program: bytes, packet: bytes) -> bool:
    """Attach the program to a socket, which takes no privilege, and send the packet through it."""
    instructions = ctypes.create_string_buffer(program, len(program))
    descriptor = struct.pack("@HP", len(program) // 8, ctypes.addressof(instructions))
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with sender, receiver:
        receiver.setsockopt(socket.SOL_SOCKET, 26, descriptor)  # SO_ATTACH_FILTER
        try:
            sender.send(packet, socket.MSG_DONTWAIT)
        except PermissionError:  # so a stream-less socket reports a filter that said no
            return False
        try:
            return receiver.recv(1 << 16, socket.MSG_DONTWAIT) == packet
        except BlockingIOError:
            return False


def passes(program: bytes, packet: bytes) -> bool:
    """Both judges have to agree."""
    verdict = judged_by_kernel(program, packet)
    assert judged_by_pcap(program, packet) == verdict
    return verdict


def program_for(*sources: tuple[bytes, int], excluded: list[tuple[bytes, int]] | None = None,
                pure_acks: bool = True) -> bytes:  # fmt: skip
    return filters.compile_filter(filters.expression_for(sources, excluded or [], pure_acks))


_TIMESTAMPS = bytes((8, 10)) + bytes(8)

# kind of packet -> (TCP segment, passes also when pure acknowledgements are dropped)
_KINDS = {
    "syn": (tcp(_SYN), True),
    "syn with options": (tcp(_SYN, options=bytes(40)), True),
    "syn with data": (tcp(_SYN, b"early"), True),
    "pure ack": (tcp(), False),
    "pure ack with timestamps": (tcp(options=_TIMESTAMPS), False),
    "pure ack with all options": (tcp(options=bytes(40)), False),
    "window update, push set": (tcp(_ACK | _PSH), False),
    "one byte": (tcp(_ACK, b"x"), True),
    "one byte with timestamps": (tcp(_ACK | _PSH, b"x", options=_TIMESTAMPS), True),
    "one byte with all options": (tcp(_ACK, b"x", options=bytes(40)), True),
    "full segment": (tcp(_ACK, bytes(1448), options=_TIMESTAMPS), True),
    "64 KiB": (tcp(_ACK, bytes(65000)), True),
    "urgent": (tcp(_ACK | _URG, b"!"), True),
    "fin": (tcp(_FIN | _ACK), True),
    "fin with data": (tcp(_FIN | _ACK | _PSH, b"bye"), True),
    "rst": (tcp(_RST), True),
    "rst ack": (tcp(_RST | _ACK), True),
}


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("kind", list(_KINDS))
def test_kinds_of_segments(kind: str, family: int) -> None:
    """With and without pure acknowledgements, addressed and not, each kind gets its verdict."""
    segment, without_acks = _KINDS[kind]
    packet = v4(segment) if family == 4 else v6(segment)
    server = _SERVER if family == 4 else _SERVER_V6
    for address in (b"", server):
        assert passes(program_for((address, 80)), packet)
        assert passes(program_for((address, 80), pure_acks=False), packet) == without_acks
        assert not passes(program_for((address, 81)), packet)
        assert not passes(program_for((address, 81), pure_acks=False), packet)


@pytest.mark.parametrize("pure_acks", [True, False])
def test_ipv4_headers(pure_acks: bool) -> None:
    program = program_for((_SERVER, 80), pure_acks=pure_acks)
    request = tcp(_ACK, b"request")
    assert passes(program, v4(request, options=bytes(4)))
    assert passes(program, v4(request, options=bytes(40)))
    assert passes(program, v4(tcp(_ACK), options=bytes(40))) == pure_acks
    assert passes(program, v4(request, fragment=0x4000))  # do not fragment
    assert passes(program, v4(request, fragment=0x2000))  # the first of several
    assert passes(program, v4(request, fragment=0x2010))  # a later one has no ports
    assert passes(program, v4(request, fragment=0x0010))
    assert passes(program, v4(tcp(_ACK)[:8], fragment=0x2000))  # of which the flags come later
    assert not passes(program, v4(request, fragment=0x0010, to=_OTHER))
    assert not passes(program, v4(request, fragment=0x0010, protocol=_UDP))
    assert passes(program, v4(bytes(24) + request, protocol=51))  # for the engine to decide
    assert not passes(program, v4(bytes(24) + request, protocol=51, to=_OTHER))
    assert not passes(program, v4(request, protocol=_UDP))
    assert not passes(program, v4(request, to=_OTHER))
    assert not passes(program, v4(tcp(_ACK, b"answer", source=80, port=40000)))
    # Cut before the port: no verdict but no.
    assert not passes(program, v4(request)[:22])
    assert not passes(program, b"\x45")


@pytest.mark.parametrize("pure_acks", [True, False])
@pytest.mark.parametrize("address", [b"", _SERVER_V6])
def test_ipv6_extension_headers(address: bytes, pure_acks: bool) -> None:
    program = program_for((address, 80), pure_acks=pure_acks)
    request, elsewhere = tcp(_ACK, b"request"), tcp(_ACK, b"request", port=81)
    for kind in (0, 43, 60):
        for size in (8, 16, 64):
            assert passes(program, v6(request, extensions=(kind,), size=size))
            assert not passes(program, v6(elsewhere, extensions=(kind,), size=size))
            assert not passes(program, v6(request, extensions=(kind,), size=size, protocol=_UDP))
    # An acknowledgement behind an extension header is not worth finding.
    assert passes(program, v6(tcp(), extensions=(0,)))
    # A packet in one fragment, the first of several, a later one.
    assert passes(program, v6(request, extensions=(44,)))
    assert passes(program, v6(request, extensions=(44,), fragment=1))
    assert not passes(program, v6(elsewhere, extensions=(44,)))
    assert passes(program, v6(request, extensions=(44,), fragment=8 << 3 | 1))
    assert passes(program, v6(elsewhere, extensions=(44,), fragment=1))
    elsewhere_to = v6(request, extensions=(44,), fragment=8 << 3, to=_OTHER_V6)
    assert passes(program, elsewhere_to) == (address == b"")
    # Several headers: for the engine to decide.
    assert passes(program, v6(request, extensions=(0, 60)))
    assert passes(program, v6(elsewhere, extensions=(0, 43, 60)))
    assert passes(program, v6(elsewhere, extensions=(0, 60), to=_OTHER_V6)) == (address == b"")
    assert not passes(program, v6(request, protocol=_UDP))
    assert passes(program, v6(request, extensions=(51,)))


def test_addresses_and_ports_go_together() -> None:
    """(address, port) pairs match as pairs; an address of one family says nothing of the other."""
    program = program_for((_SERVER, 80), (_OTHER, 81), (_SERVER_V6, 82), (b"", 90))
    for packet, wanted in (
        (v4(tcp(port=80)), True),
        (v4(tcp(port=81)), False),
        (v4(tcp(port=80), to=_OTHER), False),
        (v4(tcp(port=81), to=_OTHER), True),
        (v4(tcp(port=82)), False),
        (v6(tcp(port=82)), True),
        (v6(tcp(port=80)), False),
        (v6(tcp(port=82), to=_OTHER_V6), False),
        (v4(tcp(port=90), to=_OTHER), True),
        (v6(tcp(port=90), to=_OTHER_V6), True),
        (v4(tcp(port=90, source=80)), True),
    ):
        assert passes(program, packet) == wanted
    assert not passes(program_for((_SERVER, 80)), v6(tcp()))
    assert not passes(program_for((_SERVER_V6, 80)), v4(tcp()))


def test_excluded_targets() -> None:
    """Packets to a target do not pass, whatever else covers them; its other ports do."""
    program = program_for(
        (b"", 80), (b"", 81), excluded=[(_OTHER, 80), (_OTHER_V6, 80)], pure_acks=False
    )
    request = tcp(_ACK, b"request")
    assert passes(program, v4(request)) and passes(program, v6(request))
    assert not passes(program, v4(request, to=_OTHER))
    assert not passes(program, v6(request, to=_OTHER_V6))
    assert not passes(program, v6(request, to=_OTHER_V6, extensions=(0,)))
    assert passes(program, v4(tcp(_ACK, b"request", port=81), to=_OTHER))
    assert passes(program, v6(tcp(_ACK, b"request", port=81), to=_OTHER_V6))
    everywhere = program_for((_SERVER, 80), (b"", 81), excluded=[(b"", 80)])
    assert not passes(everywhere, v4(request))
    assert passes(everywhere, v4(tcp(port=81)))


def test_equal_ports_of_many_servers() -> None:
    servers = [bytes((10, 9, 0, i)) for i in range(60)]
    program = program_for(*((server, port) for server in servers for port in (80, 443, 8080)))
    for port in (80, 443, 8080):
        assert passes(program, v4(tcp(port=port), to=servers[59]))
    assert not passes(program, v4(tcp(port=81), to=servers[0]))
    assert not passes(program, v4(tcp(port=80), to=bytes((10, 9, 0, 60))))


def test_neighbouring_ports_are_a_range() -> None:
    program = program_for(*((b"", port) for port in range(8000, 8200)), pure_acks=False)
    for port, wanted in ((7999, False), (8000, True), (8100, True), (8199, True), (8200, False)):
        assert passes(program, v4(tcp(_SYN, port=port))) == wanted
        assert passes(program, v6(tcp(_SYN, port=port))) == wanted
        assert passes(program, v6(tcp(_SYN, port=port), extensions=(0,))) == wanted
    assert len(program) < 120 * 8


def test_the_longest_generated_expressions_compile() -> None:
    """At the bound of terms, of the longest kind: IPv6 addresses with exclusions and without."""
    for ports in (1, filters.MAX_TERMS // 2):
        addresses = [
            socket.inet_pton(socket.AF_INET6, f"2001:db8:1234:5678:9abc:def0:1234:{i:x}")
            for i in range(4096, 4096 + filters.MAX_TERMS - ports)
        ]
        sources = [(address, 81 + 2 * n) for address in addresses for n in range(ports)]
        for excluded in ([], [(_OTHER_V6, 81)], [(b"", port) for port in range(1, 99, 2)]):
            program = program_for(*sources, excluded=excluded, pure_acks=False)
            assert passes(program, v6(tcp(_SYN, port=79 + 2 * ports), to=addresses[-1])) == (
                (b"", 79 + 2 * ports) not in excluded
            )
            assert not passes(program, v6(tcp(_SYN, port=81), to=_SERVER_V6))


@pytest.mark.parametrize("count", [40, 101, 5000])
def test_too_many_sources_are_covered(count: int) -> None:
    """However many, each source passes, the program stays short, and few exclusions still hold."""
    sources = [(bytes((10, 9, i >> 8, i & 255)), 1000 + 2 * i) for i in range(count)]
    program = program_for(*sources, excluded=[(_OTHER, 1000)])
    assert len(program) // 8 < filters.MAX_INSTRUCTIONS
    for address, port in sources[:: count // 30]:
        assert passes(program, v4(tcp(port=port), to=address))
    assert not passes(program, v4(tcp(port=999), to=sources[0][0]))
    assert not passes(program, v4(tcp(port=1000), to=_OTHER))
    # Too many exclusions are left to the engine: none may take a source's packets away.
    excluded = [(bytes((10, 8, i >> 8, i & 255)), 1000 + 2 * i) for i in range(count)]
    unbound = program_for(*sources, excluded=excluded)
    assert passes(unbound, v4(tcp(port=1000), to=sources[0][0]))


def test_bad_sources() -> None:
    with pytest.raises(ValueError, match="at least one source"):
        filters.expression_for([], [])
    with pytest.raises(ValueError, match="not an address"):
        filters.expression_for([(b"12345", 80)], [])


@pytest.mark.parametrize(
    ("expression", "matching", "other"),
    [
        ("host 10.1.2.3 and tcp dst port 80", v4(tcp()), v4(tcp(), to=_OTHER)),
        ("net 10.1.0.0/16", v4(tcp()), v4(tcp(), to=bytes((10, 2, 0, 1)))),
        ("tcp dst portrange 80-90", v6(tcp(port=85)), v6(tcp(port=91))),
        ("ip6 dst host 2001:db8::1", v6(tcp()), v6(tcp(), to=_OTHER_V6)),
        ("dst net 2001:db8::/126 and tcp", v6(tcp()), v6(tcp(), protocol=_UDP)),
        ("src host 192.0.2.77 and not dst port 81", v4(tcp()), v4(tcp(port=81))),
        ("tcp[13] & 2 != 0", v4(tcp(_SYN)), v4(tcp())),
        ("  tcp\tport 80\n", v4(tcp(source=80, port=1)), v4(tcp(source=81, port=1))),
    ],
)
def test_filters_of_the_user(expression: str, matching: bytes, other: bytes) -> None:
    program = filters.compile_filter(expression)
    assert passes(program, matching)
    assert not passes(program, other)


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("", "the filter is empty"),
        (" \t", "the filter is empty"),
        ("tcp dst port", "syntax error"),
        ("tcp dst prt 80", "unknown host 'prt'"),
        ("tcp and (port 80", "syntax error"),
        ("port 99999", "illegal port"),
        ("vlan 5 and tcp", "name the VLAN device with -i"),
        ("ether host 02:00:00:00:00:01", "match on IP addresses"),
        ("host no-such-host.invalid", "write the address"),
        ("ip6 protochain 6", "leave out `protochain`"),
        (" or ".join(f"port {port}" for port in range(1, 400, 2)), "make it simpler"),
        (" or ".join(f"port {port}" for port in range(1, 4000, 2)), "is too long"),
    ],
)
def test_bad_filters_are_refused_in_one_line(expression: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        filters.compile_filter(expression)
    line = str(caught.value)
    assert line.startswith("-F ") and words in line and "\n" not in line
    assert caught.value.option == "-F"


def test_the_option_named_is_the_callers() -> None:
    with pytest.raises(UsageError, match=r"^--filter 'nonsense'"):
        filters.compile_filter("nonsense", "--filter")


def test_reject_all() -> None:
    assert not passes(filters.REJECT_ALL, v4(tcp()))
    assert not passes(filters.REJECT_ALL, b"")


@pytest.mark.parametrize("pure_acks", [True, False])
def test_guards_leave_the_verdict_alone(pure_acks: bool) -> None:
    """What the ring puts before a program changes nothing for an untagged packet for this host.

    On a socket pair each packet counts as one for this host, of no protocol.
    """
    program = program_for((_SERVER, 80), (b"", 443), pure_acks=pure_acks)
    guarded = filters.not_outgoing(filters.accept_stacked_tags(filters.for_this_host(program)))
    for segment, _ in _KINDS.values():
        for packet in (v4(segment), v6(segment), v4(segment, to=_OTHER)):
            assert judged_by_kernel(guarded, packet) == judged_by_kernel(program, packet)


def test_stacked_tags_move_every_read_of_the_packet() -> None:
    """The half for tagged packets judges what stands behind the tag as the other half does."""
    for pure_acks in (True, False):
        program = program_for((_SERVER, 80), (_SERVER_V6, 80), (b"", 443), pure_acks=pure_acks)
        both = filters.accept_stacked_tags(program)
        behind_tag = both[4 * 8 : 4 * 8 + len(program)]
        assert both[4 * 8 + len(program) :] == program
        for segment, _ in _KINDS.values():
            for packet in (
                v4(segment), v4(segment, to=_OTHER), v4(segment, options=bytes(12)), v6(segment),
                v6(segment, extensions=(0,), size=16), v6(segment, extensions=(0, 60)),
            ):  # fmt: skip
                tagged = b"\x00\x05\x08\x00" + packet
                if len(tagged) < 60_000:
                    assert passes(behind_tag, tagged) == passes(program, packet)
