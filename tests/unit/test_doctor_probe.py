"""Whose address the probe of `tcpcopy doctor` has where there is no -c."""

from __future__ import annotations

import socket

import pytest

from tcpcopy.doctor_probe import client_in, connected_clients

LINE = "   1: {local} {remote} 01 00000000:00000000 00:00000000 00000000     0        0 1 1 0 20"


def entry(local: str, remote: str) -> str:
    return LINE.format(local=local, remote=remote)


@pytest.mark.parametrize(
    ("line", "client"),
    [
        (entry("0100000A:0050", "0907A8C0:C001"), "192.168.7.9"),
        (entry("0100000A:0051", "0907A8C0:C001"), ""),  # another port
        (entry("00000000:0050", "00000000:0000"), ""),  # it listens
        (entry("0100007F:0050", "0100007F:C001"), ""),  # loopback
        (
            entry("0000000000000000FFFF00000100000A:0050", "0000000000000000FFFF00000907A8C0:C001"),
            "192.168.7.9",
        ),
        (
            entry("000000FD000000000000000001000000:0050", "000000FD000000000000000009000000:C001"),
            "fd00::9",
        ),
        (
            entry("000000FD000000000000000001000000:0050", "00000000000000000000000001000000:C001"),
            "",
        ),
        ("", ""),
        ("sl local_address", ""),
    ],
)
def test_client_in_a_line(line: str, client: str) -> None:
    family = socket.AF_INET6 if ":" in client else socket.AF_INET
    assert client_in(line, {80}) == (socket.inet_pton(family, client) if client else b"")


def test_connections_of_this_host_are_found() -> None:
    """A real one, of loopback, which is passed over."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            assert connected_clients({port}) == []
