"""Intercept's host: no forwarding, a port that is free; and a target that turns out to be here."""

from __future__ import annotations

from typing import Any

from tcpcopy.capture.rtnetlink import InterfaceAddress
from tcpcopy.doctor.checks_intercept import (
    check_forwarding,
    check_listening,
    check_open,
    check_target_here,
)
from tcpcopy.doctor.finding import Finding, Level
from tcpcopy.doctor.host_facts import NetworkFacts
from tcpcopy.doctor.iptables import read_save
from tcpcopy.doctor.plan import InterceptPlan
from tests.unit.doctor.made import LO, address, levels, link, network, said


def settings(**changes: Any) -> NetworkFacts:
    names = {name.replace("__", "/"): str(value) for name, value in changes.items()}
    return network(sysctls={f"net/{name}": value for name, value in names.items()})


FORWARDS = {"ipv4__ip_forward": 1, "ipv4__conf/eth0/forwarding": 1}


def forwarding(facts: NetworkFacts, **changes: Any) -> list[Finding]:
    return check_forwarding(InterceptPlan(**changes), facts)


def test_no_forwarding() -> None:
    assert levels(forwarding(network())) == {"ip_forward": Level.OK}


def test_forwarding_is_a_fault() -> None:
    (found,) = forwarding(settings(**FORWARDS))
    assert found.level is Level.FAULT
    assert found.remedy == ("on this host: sysctl -w net.ipv4.ip_forward=0",)


def test_the_device_of_the_answers_counts() -> None:
    other = settings(**{"ipv4__ip_forward": 1, "ipv4__conf/eth0/forwarding": 0})
    assert levels(forwarding(other, devices=("eth0",))) == {"ip_forward": Level.OK}
    alone = settings(**{"ipv4__ip_forward": 0, "ipv4__conf/eth0/forwarding": 1})
    (found,) = forwarding(alone)
    assert found.remedy == ("on this host: sysctl -w net.ipv4.conf.eth0.forwarding=0",)
    on_loopback = settings(**{"ipv4__conf/lo/forwarding": 1})
    assert levels(forwarding(on_loopback)) == {"ip_forward": Level.OK}


def test_a_firewall_may_stop_it() -> None:
    facts = settings(**FORWARDS)
    rules = read_save("*filter\n:FORWARD DROP [0:0]\n")
    facts = network(sysctls=facts.sysctls, firewall=rules)
    (found,) = forwarding(facts)
    assert found.level is Level.NOTE


def test_ipv6_and_tun() -> None:
    six = settings(**{"ipv6__conf/all/forwarding": 1})
    (found,) = forwarding(six)
    assert found.level is Level.WARNING and "net.ipv6.conf.all.forwarding=0" in said([found])
    assert forwarding(settings(**FORWARDS), uses_tun=True) == []


def test_listening() -> None:
    plan = InterceptPlan(host="10.0.0.3")
    assert levels(check_listening(plan, network())) == {"listen": Level.OK}
    taken = network(bind_problem="Address already in use", listening=frozenset({36524}))
    (found,) = check_listening(plan, taken)
    assert found.level is Level.FAULT and "taken" in found.text and "-p 36525" in said([found])
    foreign = network(bind_problem="Cannot assign requested address")
    (found,) = check_listening(plan, foreign)
    assert "10.0.0.3 port 36524 cannot be listened on: Cannot assign" in found.text
    assert found.remedy == ("on this host: ip address",)


def two_devices(**sysctls: str) -> NetworkFacts:
    return network(
        links=(LO, link(), link(3, "eth1")),
        addresses=(
            InterfaceAddress(address("10.0.0.2"), 24, 2),
            InterfaceAddress(address("10.1.0.2"), 24, 3),
        ),
        listening=frozenset({8080}),
        sysctls={name.replace("__", "/"): value for name, value in sysctls.items()},
    )


def test_a_target_is_looked_at_as_one() -> None:
    plan = InterceptPlan(filter_text="tcp and src port 8080")
    assert check_target_here(plan, network()) == []
    found = check_target_here(plan, two_devices())
    assert levels(found) == {"target_here": Level.NOTE, "rp_filter": Level.OK}
    strict = two_devices(net__ipv4__conf__all__rp_filter="1")
    found = check_target_here(plan, strict)
    assert levels(found)["rp_filter"] is Level.WARNING
    assert "sysctl -w net.ipv4.conf.eth1.rp_filter=2" in said(found)
    loose = two_devices(net__ipv4__conf__all__rp_filter="1", net__ipv4__conf__eth0__rp_filter="2",
                        net__ipv4__conf__eth1__rp_filter="2")  # fmt: skip
    assert levels(check_target_here(plan, loose))["rp_filter"] is Level.OK, "the larger counts"


def test_one_device_cannot_be_the_wrong_one() -> None:
    facts = network(listening=frozenset({8080}), sysctls={"net/ipv4/conf/eth0/rp_filter": "1"})
    found = check_target_here(InterceptPlan(filter_text="src port 8080"), facts)
    assert levels(found)["rp_filter"] is Level.OK


def test_an_open_relay_is_a_warning() -> None:
    """With both ways to close it; a closed one is well."""
    assert levels(check_open(InterceptPlan())) == {"open_relay": Level.OK}
    (found,) = check_open(InterceptPlan(is_open=True, host="10.0.0.3", port=9))
    assert found.level is Level.WARNING and "port 9 of 10.0.0.3" in found.text
    assert "--secret-file" in found.remedy[0] and "--allow" in found.remedy[1]
