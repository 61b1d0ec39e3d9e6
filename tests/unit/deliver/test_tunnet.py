"""The rules and names around a TUN device, as far as they go without one."""

from __future__ import annotations

import ipaddress
import socket

import pytest

from tcpcopy.deliver import tunnet
from tcpcopy.deliver.tunnet import Route, Server

V4 = ipaddress.ip_address("127.0.0.1").packed
V6 = ipaddress.ip_address("::1").packed


def test_rules_of_tcp_are_for_one_address() -> None:
    """A TCP socket has its address when an answer is routed; a UDP socket may have none."""
    assert Server(V4, 80).source == V4
    assert Server(V6, 80, socket.IPPROTO_UDP).source == b""


@pytest.mark.parametrize("address", [V4, V6])
def test_a_rule_names_the_server(address: bytes) -> None:
    rule = tunnet._rule(Server(address, 8080), tunnet.TABLE_BASE + 5)
    assert rule[0] == (socket.AF_INET if len(address) == 4 else socket.AF_INET6)
    assert rule[2] == len(address) * 8
    assert address in rule


def test_a_route_of_a_device_that_is_gone() -> None:
    network = ipaddress.ip_network("10.0.0.0/8")
    assert Route(network, 254, 0).device_name == ""
    assert Route(network, 254, 2**31 - 1).device_name == ""
    assert Route(network, 254, socket.if_nametoindex("lo")).device_name == "lo"


def test_this_host_is_read() -> None:
    """Every host has a route to 127.0.0.0/8, by the device lo, and a way to 127.0.0.1."""
    lo = socket.if_nametoindex("lo")
    loopback = ipaddress.ip_network("127.0.0.0/8")
    assert any(route.network == loopback and route.device == lo for route in tunnet.routes())
    assert tunnet.device_towards(V4) == lo
