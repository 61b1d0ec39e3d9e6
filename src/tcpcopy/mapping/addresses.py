"""Addresses, ports and hosts as text: what -x, -c, -H and -s have in common.

Inside the program an address is `bytes` of 4 (IPv4) or 16 (IPv6), in network order. The functions
here raise `ValueError` with a short problem as text; the callers know the option and make the
`UsageError`.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable
from typing import Final

IPV4_BYTES: Final = 4
IPV6_BYTES: Final = 16
MAX_PORT: Final = 65535

Resolver = Callable[[str], bytes]

_HOST_NAME: Final = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?")
_MAC: Final = re.compile(r"[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}")
_IPV6_LOOPBACK: Final = bytes(15) + b"\x01"


def parse_address(text: str) -> bytes:
    """Numeric IPv4 or IPv6 address, an IPv6 one with or without brackets, as bytes.

    Raises ValueError for anything else, a scope (`%eth0`) included: packets carry none.
    """
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if "%" in bare:
        raise ValueError("an address with a scope cannot be matched against packets")
    if bare is not text and ":" not in bare:
        raise ValueError("only IPv6 addresses stand in brackets")
    try:
        return ipaddress.ip_address(bare).packed
    except ValueError:
        raise ValueError("is not an IP address") from None


def format_address(address: bytes) -> str:
    """Text of an address; `b""` is "any"."""
    if not address:
        return "any"
    return str(ipaddress.ip_address(address))


def format_endpoint(address: bytes, port: int) -> str:
    """`address:port`, with brackets around IPv6; only the port when the address is any."""
    if not address:
        return str(port)
    text = format_address(address)
    return f"[{text}]:{port}" if len(address) == IPV6_BYTES else f"{text}:{port}"


def parse_port(text: str) -> int:
    """Port number 1 to 65535; ValueError otherwise."""
    if not (text.isascii() and text.isdigit() and len(text) <= 5):
        raise ValueError(f"port {text!r} is not a number from 1 to {MAX_PORT}")
    port = int(text)
    if not 1 <= port <= MAX_PORT:
        raise ValueError(f"port {text} is not in 1 to {MAX_PORT}")
    return port


def parse_mac(text: str) -> bytes:
    """Six bytes of a MAC address written `aa:bb:cc:dd:ee:ff` (or with dashes)."""
    if not _MAC.fullmatch(text):
        raise ValueError(f"{text!r} is not a MAC address")
    return bytes.fromhex(text.replace(":", "").replace("-", ""))


def split_host_port(text: str) -> tuple[str, str | None]:
    """Host and port text of `host`, `host:port`, `[ipv6]` or `[ipv6]:port`; port None if absent.

    The host comes back without brackets. Raises ValueError for an IPv6 address without brackets:
    where its port begins cannot be told.
    """
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket:
            raise ValueError("the bracket is not closed")
        if ":" not in host:
            raise ValueError("only IPv6 addresses stand in brackets")
        if not rest:
            return host, None
        if not rest.startswith(":"):
            raise ValueError(f"{rest!r} stands behind the bracket")
        return host, rest[1:]
    if text.count(":") > 1:
        raise ValueError("an IPv6 address needs brackets")
    host, colon, port = text.partition(":")
    return host, port if colon else None


def resolve_host(name: str) -> bytes:
    """Address of a host name, IPv4 first. Raises ValueError when there is none."""
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise ValueError(f"host name {name!r} has no address") from None
    by_family = {family: sockaddr[0] for family, _, _, _, sockaddr in reversed(found)}
    for family in (socket.AF_INET, socket.AF_INET6):
        if family in by_family:
            return parse_address(str(by_family[family]).partition("%")[0])
    raise ValueError(f"host name {name!r} has no address")


def parse_host(text: str, resolve: Resolver = resolve_host) -> bytes:
    """Address of a numeric address or a host name. Raises ValueError."""
    try:
        return parse_address(text)
    except ValueError:
        # Digits and dots only is a mistyped address; the resolver would read "10.1" as 10.0.0.1.
        if not _HOST_NAME.fullmatch(text):
            raise
    return resolve(text)


def is_loopback(address: bytes) -> bool:
    """Whether an address is in 127.0.0.0/8 or is ::1 (also as ::ffff:127.x.y.z)."""
    if len(address) == IPV4_BYTES:
        return address[0] == 127
    if address == _IPV6_LOOPBACK:
        return True
    return address[:12] == bytes(10) + b"\xff\xff" and address[12] == 127


def unusable_as_peer(address: bytes) -> str:
    """Why an address cannot be one end of a TCP connection, or "" when it can."""
    value = ipaddress.ip_address(address)
    if value.is_unspecified:
        return "is the address that stands for none"
    if value.is_multicast:
        return "is a multicast address"
    if len(address) == IPV4_BYTES and (address[0] == 0 or address[0] >= 240):
        return "is a reserved or broadcast address"
    return ""


def unusable_as_destination(address: bytes) -> str:
    """Why an address cannot be connected to, or "" when it can.

    As `unusable_as_peer`; and a link-local IPv6 address says nothing without a device, which what
    is given here does not have. Source: RFC 4007 (6).
    """
    value = ipaddress.ip_address(address)
    if len(address) == IPV6_BYTES and value.is_link_local:
        return "is a link-local address, of which each device has its own"
    return unusable_as_peer(address)
