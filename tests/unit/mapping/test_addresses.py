"""Addresses, ports and hosts as text."""

from __future__ import annotations

import pytest

from tcpcopy.mapping import addresses

V6 = bytes.fromhex("20010db8000000000000000000000001")


@pytest.mark.parametrize(
    ("text", "packed"),
    [
        ("10.1.2.3", b"\x0a\x01\x02\x03"),
        ("2001:db8::1", V6),
        ("[2001:db8::1]", V6),
    ],
)
def test_parse_address(text: str, packed: bytes) -> None:
    assert addresses.parse_address(text) == packed


@pytest.mark.parametrize(
    "text",
    ["", "10.1", "010.1.2.3", "10.1.2.256", "fe80::1%eth0", "[10.1.2.3]", "name", "1.2.3.4 "],
)
def test_parse_address_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="address"):
        addresses.parse_address(text)


def test_format_endpoint() -> None:
    assert addresses.format_endpoint(b"\x0a\x01\x02\x03", 80) == "10.1.2.3:80"
    assert addresses.format_endpoint(V6, 80) == "[2001:db8::1]:80"
    assert addresses.format_endpoint(b"", 80) == "80"
    assert addresses.format_address(b"") == "any"


@pytest.mark.parametrize("text", ["1", "80", "65535"])
def test_parse_port(text: str) -> None:
    assert addresses.parse_port(text) == int(text)


@pytest.mark.parametrize("text", ["", "0", "65536", "-1", "+80", " 80", "8o", "1_0", "٣", "9" * 99])
def test_parse_port_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="65535"):
        addresses.parse_port(text)


def test_parse_mac() -> None:
    expected = bytes.fromhex("0a1b2c3d4e5f")
    assert addresses.parse_mac("0a:1B:2c:3d:4e:5f") == expected
    assert addresses.parse_mac("0a-1b-2c-3d-4e-5f") == expected
    for text in ("", "0a:1b", "0a:1b:2c:3d:4e:5g", "0a:1b:2c:3d:4e:5f:60"):
        with pytest.raises(ValueError, match="MAC"):
            addresses.parse_mac(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", ("a", None)),
        ("a:1", ("a", "1")),
        ("a:", ("a", "")),
        ("[::1]", ("::1", None)),
        ("[::1]:80", ("::1", "80")),
    ],
)
def test_split_host_port(text: str, expected: tuple[str, str | None]) -> None:
    assert addresses.split_host_port(text) == expected


@pytest.mark.parametrize("text", ["::1", "::1:80", "[::1", "[::1]80", "[10.0.0.1]:80", "[]:80"])
def test_split_host_port_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="bracket"):
        addresses.split_host_port(text)


def test_host_names_are_resolved_but_mistyped_numbers_are_not() -> None:
    asked = []

    def resolve(name: str) -> bytes:
        asked.append(name)
        return b"\x0a\x00\x00\x09"

    assert addresses.parse_host("web-1.example", resolve) == b"\x0a\x00\x00\x09"
    assert addresses.parse_host("10.0.0.1", resolve) == b"\x0a\x00\x00\x01"
    for text in ("10.1", "300.1.1.1", "", "-web", "a b", "web/"):
        with pytest.raises(ValueError, match="address"):
            addresses.parse_host(text, resolve)
    assert asked == ["web-1.example"]


def test_resolve_host_prefers_ipv4() -> None:
    assert addresses.resolve_host("localhost") in (b"\x7f\0\0\1", bytes(15) + b"\1")
    with pytest.raises(ValueError, match="has no address"):
        addresses.resolve_host("a..b")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("128.0.0.1", False),
        ("::2", False),
        ("::ffff:10.0.0.1", False),
    ],
)
def test_is_loopback(text: str, expected: bool) -> None:
    assert addresses.is_loopback(addresses.parse_address(text)) is expected


@pytest.mark.parametrize(
    "text", ["0.0.0.0", "0.1.2.3", "224.0.0.1", "255.255.255.255", "::", "ff02::1"]
)
def test_addresses_that_are_no_peer(text: str) -> None:
    assert addresses.unusable_as_peer(addresses.parse_address(text))


@pytest.mark.parametrize("text", ["10.0.0.1", "127.0.0.1", "::1", "fe80::1", "2001:db8::1"])
def test_addresses_that_are_a_peer(text: str) -> None:
    assert not addresses.unusable_as_peer(addresses.parse_address(text))


def test_link_local_addresses_are_no_destination() -> None:
    """They may be captured from, and be connected to by none without a device."""
    for text in ("fe80::1", "febf::1"):
        address = addresses.parse_address(text)
        assert "link-local" in addresses.unusable_as_destination(address)
        assert not addresses.unusable_as_peer(address)
    for text in ("fd00::1", "fec0::1", "10.0.0.1", "169.254.0.1", "::1"):
        assert not addresses.unusable_as_destination(addresses.parse_address(text))
    assert addresses.unusable_as_destination(addresses.parse_address("ff02::1"))
