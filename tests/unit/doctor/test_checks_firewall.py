"""Rules against the packets of each mode."""

from __future__ import annotations

from typing import Any

import pytest

from tcpcopy.doctor.checks_firewall import (
    check_firewall,
    check_relay_firewall,
    check_served_here,
    drops_forwarded,
)
from tcpcopy.doctor.finding import Finding, Level
from tcpcopy.doctor.firewall import Firewall
from tcpcopy.doctor.iptables import read_save
from tcpcopy.doctor.plan import InterceptPlan
from tcpcopy.report.context import CLASSIC, LINK, LOCAL, SOCKET
from tests.unit.doctor.made import levels, network, plan, said


def rules(*lines: str, table: str = "filter", policy: str = "ACCEPT") -> Firewall:
    names = ("INPUT", "FORWARD", "OUTPUT", "PREROUTING", "POSTROUTING")
    chains = "\n".join(f":{name} {policy} [0:0]" for name in names)
    return read_save(f"*{table}\n{chains}\n" + "\n".join(f"-A {line}" for line in lines))


def check(firewall: Firewall | None, mode: str = CLASSIC, **changes: Any) -> list[Finding]:
    return check_firewall(plan(mode, **changes), network(firewall=firewall))


@pytest.mark.parametrize("mode", [CLASSIC, SOCKET, LINK])
def test_no_rules(mode: str) -> None:
    assert levels(check(Firewall(), mode)) == {"firewall": Level.OK}


@pytest.mark.parametrize("mode", [CLASSIC, SOCKET])
def test_the_way_to_the_target_is_barred(mode: str) -> None:
    (found,) = check(rules("OUTPUT -d 10.0.0.2 -p tcp -j DROP"), mode, intercepts=())
    assert found.level is Level.FAULT and "drops what is sent to the target" in found.text
    assert found.remedy[0] == (
        "on this host: iptables -t filter -I OUTPUT -d 10.0.0.2 -p tcp --dport 8080 -j ACCEPT"
    )


def test_invalid_is_what_conntrack_takes_copies_for() -> None:
    """It sees the SYN and no answer. Socket mode has both."""
    invalid = rules("OUTPUT -m conntrack --ctstate INVALID -j DROP")
    (found,) = check(invalid)
    assert found.level is Level.FAULT and "conntrack takes it for invalid" in found.text
    assert any("-j CT --notrack" in step for step in found.remedy)
    assert levels(check(invalid, SOCKET)) == {"firewall": Level.OK}
    assert levels(check(invalid, LINK)) == {"firewall": Level.OK}, "frames come by no rule"


def test_a_policy_drops() -> None:
    (found,) = check(rules(policy="DROP"), intercepts=())
    assert "iptables filter OUTPUT: its policy drops what is sent" in found.text


def test_a_rule_is_told_once() -> None:
    """Of a rule that drops all packets the first is enough."""
    found = check(rules("OUTPUT -j DROP"), intercepts=())
    assert len(found) == 1


def test_masquerading_changes_forged_addresses() -> None:
    masquerade = rules("POSTROUTING -o eth0 -j MASQUERADE", table="nat")
    (found,) = check(masquerade)
    assert found.level is Level.FAULT and "changes the client addresses" in found.text
    assert "-t nat -I POSTROUTING" in said([found])
    assert levels(check(masquerade, SOCKET)) == {"firewall": Level.OK}
    other = rules("POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE", table="nat")
    assert levels(check(other)) == {"firewall": Level.OK}, "as docker has it"


def test_what_cannot_be_told_is_only_possible() -> None:
    (found,) = check(rules("OUTPUT -m set --match-set bad dst -j DROP"), intercepts=())
    assert found.level is Level.NOTE and "may drop" in found.text


def test_marks() -> None:
    (found, *_) = check(rules("OUTPUT -j MARK --set-mark 1", table="mangle"), intercepts=())
    assert found.level is Level.NOTE and "ip rule show" in said([found])


def test_answers_that_are_not_let_in() -> None:
    closed = rules("INPUT -s 10.0.0.2 -j DROP")
    (found,) = check(closed, SOCKET)
    assert "answers of the target" in found.text and "--sport 8080" in said([found])
    usual = rules("INPUT -m state --state RELATED,ESTABLISHED -j ACCEPT", "INPUT -j DROP")
    assert levels(check(usual, SOCKET)) == {"firewall": Level.OK}
    assert levels(check(closed)) == {"firewall": Level.OK}, "they go to the assistant"


def test_local_mode_comes_in_by_a_device() -> None:
    """As packets of any client do, by a device that a rule set may not know."""
    only_eth0 = rules("INPUT -i lo -j ACCEPT", "INPUT -i eth0 -p tcp --dport 8080 -j ACCEPT",
                      "INPUT -j DROP")  # fmt: skip
    (found,) = check(only_eth0, LOCAL)
    assert found.level is Level.FAULT and "--dport 8080 -j ACCEPT" in said([found])
    assert levels(check(rules("INPUT -p tcp --dport 8080 -j ACCEPT", "INPUT -j DROP"), LOCAL)) == {
        "firewall": Level.OK
    }
    (found,) = check(rules("OUTPUT -d 62.135.200.0/24 -j REJECT"), LOCAL)
    assert "answers of the target" in found.text


def test_the_relay() -> None:
    barred = rules("OUTPUT -p tcp --dport 36524 -j REJECT")
    (found,) = check(barred)
    assert found.level is Level.FAULT and "the connection to intercept" in found.text
    assert levels(check(barred, transport="udp")) == {"firewall": Level.OK}
    (found,) = check(barred, LINK, intercepts=plan().intercepts)
    assert "the connection to intercept" in found.text


def test_rules_that_cannot_be_read() -> None:
    (found,) = check_firewall(plan(), network(firewall=None, firewall_problem="no nft"))
    assert found.level is Level.NOTE and "no nft" in found.text


def test_intercept_is_reached() -> None:
    def of(firewall: Firewall) -> list[Finding]:
        return check_relay_firewall(InterceptPlan(), network(firewall=firewall))

    assert levels(of(rules())) == {"firewall": Level.OK}
    (found,) = of(rules("INPUT -p tcp -j DROP"))
    assert found.level is Level.FAULT and "connections of tcpcopy to port 36524" in found.text
    assert "-I INPUT -p tcp --dport 36524 -j ACCEPT" in said([found])
    some = rules("INPUT -s 10.0.0.0/8 -j ACCEPT", "INPUT -j DROP")
    (found,) = of(some)
    assert found.level is Level.NOTE, "whether tcpcopy is in 10.0.0.0/8 is not known here"


def test_on_a_target() -> None:
    assert check_served_here([8080], network()) == []
    (found,) = check_served_here([8080], network(firewall=rules("INPUT -j DROP")))
    assert found.level is Level.FAULT and "mapped clients to port 8080" in found.text


def test_forwarding_that_the_firewall_stops() -> None:
    assert not drops_forwarded(network())
    assert not drops_forwarded(network(firewall=None))
    assert drops_forwarded(network(firewall=rules("FORWARD -j DROP")))
    assert not drops_forwarded(
        network(firewall=rules("FORWARD -i docker0 -j ACCEPT", "FORWARD -j DROP"))
    )
