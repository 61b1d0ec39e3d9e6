"""Devices, filters and buffers of the capture."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcpcopy.doctor.checks_capture import (
    check_answer_filter,
    check_capture_filter,
    check_devices,
    check_queue,
    check_ring,
    named_hosts,
    named_ports,
)
from tcpcopy.doctor.finding import Level
from tcpcopy.doctor.plan import InterceptPlan
from tcpcopy.report.context import SOCKET
from tests.unit.doctor.made import LO, address, levels, link, network, plan, process, said


def test_all_devices() -> None:
    assert levels(check_devices((), network())) == {"devices": Level.OK}
    assert levels(check_devices((), network(links=(LO,)))) == {"devices": Level.NOTE}
    assert levels(check_devices((), network(links=()))) == {"devices": Level.FAULT}


def test_named_devices() -> None:
    down = network(links=(LO, link(), link(3, "eth1", is_up=False)))
    assert levels(check_devices(("eth0",), down)) == {"devices": Level.OK}
    (found,) = check_devices(("eth1",), down)
    assert found.level is Level.FAULT
    assert found.remedy == ("on this host: ip link set dev eth1 up",)
    (found,) = check_devices(("eth0", "eth1"), down)
    assert found.level is Level.WARNING, "the other one is there"
    assert levels(check_devices(("eth9",), down)) == {"devices": Level.FAULT}
    unplugged = network(links=(LO, link(has_carrier=False)))
    (found,) = check_devices(("eth0",), unplugged)
    assert found.level is Level.WARNING and "no link" in found.text


def test_commands_are_for_the_namespace() -> None:
    inside = network(enter="ip netns exec web ", links=(link(is_up=False),))
    (found,) = check_devices(("eth0",), inside)
    assert found.remedy == ("on this host: ip netns exec web ip link set dev eth0 up",)


@pytest.mark.parametrize(
    ("expression", "level"),
    [
        (None, Level.OK),
        ("tcp and dst port 80", Level.OK),
        ("port 80 and not host 9.9.9.9", Level.OK),
        ("tcp and dst port 80 and src net 10.7.0.0/16", Level.OK),
        ("dst host 192.168.3.4 and dst port 80", Level.OK),
        ("ip6 and tcp dst port 80", Level.OK),
        ("tcp and src port 80", Level.FAULT),
        ("tcp and dst port 8080", Level.FAULT),
        ("udp and dst port 80", Level.FAULT),
    ],
)
def test_capture_filter(expression: str | None, level: Level) -> None:
    found = check_capture_filter(plan(SOCKET, "", filter_text=expression))
    assert levels(found) == {"filter": level}
    if level is Level.FAULT:
        assert "dst port 80" in found[0].remedy[0]


def test_capture_filter_for_some_ports_and_for_udp() -> None:
    two = plan(SOCKET, "", sources=((b"", 80), (address("10.0.0.1"), 81)))
    (found,) = check_capture_filter(replace(two, filter_text="tcp dst port 80"))
    assert found.level is Level.WARNING and "10.0.0.1:81" in found.text
    datagrams = plan(SOCKET, "", sources=((b"", 53),), transport="udp", filter_text="udp port 53")
    assert levels(check_capture_filter(datagrams)) == {"filter": Level.OK}
    (found,) = check_capture_filter(plan(filter_text="portt 9", filter_problem="syntax error"))
    assert found.level is Level.FAULT and "syntax error" in found.text


@pytest.mark.parametrize(
    ("expression", "level"),
    [
        ("", Level.NOTE),
        ("tcp and src port 8080", Level.OK),
        ("tcp and (src port 8080 or src port 9090)", Level.OK),
        ("port 8080", Level.OK),
        ("tcp", Level.OK),
        ("src host 10.0.0.2 and src port 8080 and dst net 62.135.200.0/24", Level.OK),
        ("src portrange 8000-9000", Level.OK),
        ("ip6 and src port 8080", Level.OK),
        ("src host fd00::2 and src port 80", Level.OK),
        ("tcp and dst port 8080", Level.FAULT),
        ("dst host 10.0.0.2 and dst port 8080", Level.FAULT),
        ("udp and src port 8080", Level.WARNING),
        ("tcp[13] & 4 != 0 and src port 8080", Level.WARNING),
    ],
)
def test_answer_filter(expression: str, level: Level) -> None:
    found = check_answer_filter(InterceptPlan(filter_text=expression))
    assert levels(found) == {"filter": level}
    if level >= Level.WARNING:
        assert "-F 'tcp and src port 8080'" in said(found)


def test_answer_filter_that_does_not_compile() -> None:
    (found,) = check_answer_filter(InterceptPlan(filter_text="x", filter_problem="no such host"))
    assert found.level is Level.FAULT and "no such host" in found.text


def test_what_a_filter_names() -> None:
    text = "tcp and src port 80 or 81 and net 10.0.0.0/8 and host fd00::1 and port http"
    assert named_ports(text) == [80, 81]
    assert named_ports("port http or port mysql") == [80, 3306]
    assert named_hosts(text) == [address("10.0.0.1"), address("fd00::1")]


@given(st.text(st.sampled_from("port src 0123456789.:/or-fd"), max_size=60))
def test_names_are_found_in_anything(text: str) -> None:
    named_ports(text)
    named_hosts(text)


def test_ring_and_queue() -> None:
    assert check_ring(plan(), network()) == []
    (found,) = check_ring(plan(), network(ring_problem="Cannot allocate memory"))
    assert found.level is Level.FAULT and "Cannot allocate memory" in found.text
    both = network(ring_problem="Operation not permitted", capture_problem="it")
    assert check_ring(plan(), both) == [], "the missing right is said already"
    small = network(sysctls={"net/core/rmem_max": "212992"})
    assert check_queue(32 << 20, process(), small) == [], "CAP_NET_ADMIN goes beyond"
    (found,) = check_queue(32 << 20, process(capabilities=0), small)
    assert found.remedy == ("on this host: sysctl -w net.core.rmem_max=33554432",)
    assert check_queue(1 << 17, process(capabilities=0), small) == []
