"""The kernel filter for UDP: datagrams to the sources, their fragments, and nothing else."""

from __future__ import annotations

import struct

import pytest

from tcpcopy.capture import filters
from tests.unit.capture.test_capture_filters import passes, tcp, v4, v6

SERVER = bytes((192, 168, 7, 9))
SERVER6 = bytes.fromhex("20010db8000000000000000000000009")
OTHER = bytes((192, 168, 7, 10))
OTHER6 = SERVER6[:-1] + b"\x0a"
UDP, FRAGMENT = 17, 44


def udp(port: int = 53, payload: bytes = b"question") -> bytes:
    return struct.pack("!HHHH", 40000, port, 8 + len(payload), 0) + payload


def program(*sources: tuple[bytes, int], excluded: tuple[tuple[bytes, int], ...] = ()) -> bytes:
    return filters.compile_filter(filters.udp_expression_for(sources, excluded))


@pytest.mark.parametrize("size", [0, 1, 1472])
@pytest.mark.parametrize("address", [b"", SERVER])
def test_ipv4(address: bytes, size: int) -> None:
    found = program((address, 53))
    assert passes(found, v4(udp(53, bytes(size)), to=SERVER, protocol=UDP))
    assert passes(found, v4(udp(), to=SERVER, protocol=UDP, options=bytes(12)))
    assert not passes(found, v4(udp(54), to=SERVER, protocol=UDP))
    assert passes(found, v4(udp(), to=OTHER, protocol=UDP)) is not bool(address)
    assert not passes(found, v4(tcp(port=53), to=SERVER))
    assert passes(found, v6(udp(), to=SERVER6, protocol=UDP)) is not bool(address)


@pytest.mark.parametrize("address", [b"", SERVER])
def test_ipv4_fragments(address: bytes) -> None:
    """The first by its port; later ones have none: by their address, if the sources have one."""
    found = program((address, 53))
    assert passes(found, v4(udp(), to=SERVER, protocol=UDP, fragment=0x2000))
    assert not passes(found, v4(udp(54), to=SERVER, protocol=UDP, fragment=0x2000))
    for field in (0x2001, 0x00B9, 0x3FFF):
        assert passes(found, v4(bytes(64), to=SERVER, protocol=UDP, fragment=field))
        assert not passes(found, v4(bytes(64), to=SERVER, protocol=6, fragment=field))
        to_other = v4(bytes(64), to=OTHER, protocol=UDP, fragment=field)
        assert passes(found, to_other) is not bool(address)


@pytest.mark.parametrize("address", [b"", SERVER6])
def test_ipv6(address: bytes) -> None:
    found = program((address, 53))
    assert passes(found, v6(udp(), to=SERVER6, protocol=UDP))
    assert not passes(found, v6(udp(54), to=SERVER6, protocol=UDP))
    assert not passes(found, v6(tcp(port=53), to=SERVER6))
    assert passes(found, v6(udp(), to=OTHER6, protocol=UDP)) is not bool(address)
    for kind in (0, 43, 60):
        assert passes(found, v6(udp(), to=SERVER6, protocol=UDP, extensions=(kind,), size=16))
        wrong = v6(udp(54), to=SERVER6, protocol=UDP, extensions=(kind,), size=16)
        assert not passes(found, wrong)


@pytest.mark.parametrize("address", [b"", SERVER6])
def test_ipv6_fragments(address: bytes) -> None:
    found = program((address, 53))
    one = (FRAGMENT,)
    assert passes(found, v6(udp(), to=SERVER6, protocol=UDP, extensions=one, fragment=1))
    assert not passes(found, v6(udp(54), to=SERVER6, protocol=UDP, extensions=one, fragment=1))
    for field in (8, 9, 0xFFF8):
        later = v6(bytes(64), to=SERVER6, protocol=UDP, extensions=one, fragment=field)
        assert passes(found, later)
        of_tcp = v6(bytes(64), to=SERVER6, protocol=6, extensions=one, fragment=field)
        assert not passes(found, of_tcp)
        to_other = v6(bytes(64), to=OTHER6, protocol=UDP, extensions=one, fragment=field)
        assert passes(found, to_other) is not bool(address)


def test_excluded_targets() -> None:
    found = program((b"", 53), excluded=((OTHER, 53), (OTHER6, 53)))
    assert passes(found, v4(udp(), to=SERVER, protocol=UDP))
    assert passes(found, v6(udp(), to=SERVER6, protocol=UDP))
    assert not passes(found, v4(udp(), to=OTHER, protocol=UDP))
    assert not passes(found, v6(udp(), to=OTHER6, protocol=UDP))


def test_both_protocols_in_one_program() -> None:
    """As --transport both asks for it."""
    sources = [(b"", 53)]
    both = filters.compile_filter(
        f"{filters.expression_for(sources, [])} or {filters.udp_expression_for(sources, [])}"
    )
    assert passes(both, v4(udp(), to=SERVER, protocol=UDP))
    assert passes(both, v4(tcp(port=53), to=SERVER))
    assert passes(both, v6(udp(), to=SERVER6, protocol=UDP))
    assert passes(both, v6(tcp(port=53), to=SERVER6))
    assert not passes(both, v4(udp(54), to=SERVER, protocol=UDP))
    assert not passes(both, v4(tcp(port=54), to=SERVER))


def test_many_servers_compile_together_with_tcp() -> None:
    """The longest expressions that are generated still fit the kernel, for both protocols."""
    sources = [(bytes((10, 0, 0, number)), 1000 + 7 * number) for number in range(30)]
    targets = [(bytes((10, 1, 0, number)), 1000 + 7 * number) for number in range(30)]
    text = f"{filters.expression_for(sources, targets)} or "
    text += filters.udp_expression_for(sources, targets)
    assert filters.compile_filter(text)


def test_no_source() -> None:
    with pytest.raises(ValueError, match="at least one"):
        filters.udp_expression_for([], [])
