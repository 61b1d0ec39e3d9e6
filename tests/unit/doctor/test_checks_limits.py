"""Open files, ports, memory, conntrack, clock."""

from __future__ import annotations

from tcpcopy.doctor.checks_limits import (
    check_clock,
    check_conntrack,
    check_intercept_files,
    check_memory,
    check_open_files,
    check_port_rate,
    check_ports,
)
from tcpcopy.doctor.finding import Level
from tcpcopy.doctor.plan import InterceptPlan
from tcpcopy.report.context import CLASSIC, LINK, SOCKET
from tests.unit.doctor.made import levels, network, plan, process, said

GIB = 1 << 30


def test_open_files() -> None:
    assert levels(check_open_files(plan(SOCKET), process())) == {"open_files": Level.OK}
    found = check_open_files(plan(SOCKET), process(open_files=1024))
    assert levels(found) == {"open_files": Level.WARNING} and "ulimit -Hn" in said(found)
    assert check_open_files(plan(CLASSIC), process(open_files=1024)) == []
    assert check_intercept_files(InterceptPlan(), process()) == []
    assert levels(check_intercept_files(InterceptPlan(), process(open_files=256))) == {
        "open_files": Level.WARNING
    }
    assert check_intercept_files(InterceptPlan(peer_limit=1), process(open_files=256)) == []


def test_ports() -> None:
    assert levels(check_ports(plan(SOCKET, ""), network())) == {"ports": Level.OK}
    few = network(sysctls={"net/ipv4/ip_local_port_range": "60000\t60999"})
    (found,) = check_ports(plan(SOCKET, ""), few)
    assert found.level is Level.WARNING and "1,000 connections" in found.text
    many = check_ports(plan(SOCKET, "10.0.0.1,10.0.0.4/30,10.0.0.9/32,10.0.0.16/28"), few)
    assert levels(many) == {"ports": Level.OK}, "each address has its own"
    assert check_ports(plan(CLASSIC), few) == []


def test_new_connections_against_the_ports_that_rest() -> None:
    usual = {"net/ipv4/ip_local_port_range": "32768\t60999"}
    assert check_port_rate(plan(SOCKET), network(), -1) == [], "not measured"
    assert check_port_rate(plan(CLASSIC), network(), 9000) == []
    (found,) = check_port_rate(plan(SOCKET, ""), network(sysctls=usual), 470)
    assert found.level is Level.OK and "470 new connections/s" in found.text
    assert "enough for 470/s" in found.text
    (found,) = check_port_rate(plan(SOCKET, ""), network(sysctls=usual), 471)
    assert found.level is Level.NOTE and "used again" in found.text
    assert "tcp_tw_reuse=1" in said([found]) and "-c" in said([found])
    stale = network(sysctls={**usual, "net/ipv4/tcp_timestamps": "0"})
    (found,) = check_port_rate(plan(SOCKET, ""), stale, 471)
    assert found.level is Level.WARNING and "will wait" in found.text
    reused = network(sysctls={**usual, "net/ipv4/tcp_tw_reuse": "1"})
    (found,) = check_port_rate(plan(SOCKET, ""), reused, 28_232)
    assert found.level is Level.OK and "rests for 1 s" in found.text
    (found,) = check_port_rate(plan(SOCKET, "10.0.0.0/28"), network(sysctls=usual), 471)
    assert found.level is Level.OK
    kept = network(sysctls={**usual, "net/ipv4/ip_local_reserved_ports": "40000-49999"})
    assert "18,232 connections" in said(check_ports(plan(SOCKET, ""), kept))


def test_memory() -> None:
    assert levels(check_memory(plan(), process())) == {"memory": Level.OK}
    (found,) = check_memory(plan(), process(memory_limit=GIB // 2))
    assert found.level is Level.WARNING and "-m 384" in said([found])
    assert levels(check_memory(plan(), process(memory_limit=2 * GIB))) == {"memory": Level.OK}
    (found,) = check_memory(plan(), process(memory_total=GIB // 2))
    assert found.level is Level.WARNING and "more than this host has" in found.text
    (found,) = check_memory(plan(), process(memory_total=4 * GIB, memory_available=GIB // 2))
    assert found.level is Level.NOTE
    rings = plan(buffer_bytes=GIB, devices=("eth0", "eth1"))
    assert levels(check_memory(rings, process(memory_limit=GIB * 3 // 2))) == {
        "memory": Level.WARNING
    }


def test_conntrack() -> None:
    assert check_conntrack(plan(), network()) == []
    assert levels(check_conntrack(plan(), network(conntrack=(10, 100)))) == {"conntrack": Level.OK}
    found = check_conntrack(plan(), network(conntrack=(80, 100)))
    assert levels(found) == {"conntrack": Level.WARNING}
    assert "nf_conntrack_max=400" in said(found) and "--notrack" in said(found)
    assert "--notrack" not in said(check_conntrack(plan(SOCKET), network(conntrack=(99, 100))))
    assert check_conntrack(plan(LINK), network(conntrack=(99, 100))) == []


def test_clock() -> None:
    assert levels(check_clock(True, process())) == {"clock": Level.OK}
    assert levels(check_clock(True, process(is_synchronised=False))) == {"clock": Level.NOTE}
    assert levels(check_clock(False, process(is_synchronised=False))) == {"clock": Level.OK}
    assert levels(check_clock(False, process(clock_source="hpet"))) == {"clock": Level.NOTE}
    coarse = process(clock_resolution_ns=4_000_000)
    assert levels(check_clock(False, coarse)) == {"clock": Level.WARNING}
