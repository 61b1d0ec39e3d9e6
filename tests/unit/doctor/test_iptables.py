"""Rules as `iptables-save` prints them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcpcopy.doctor.firewall import FORWARD, OUTPUT, POSTROUTING, STATE, hits
from tcpcopy.doctor.iptables import read_save
from tests.unit.doctor.made import TARGET, address

PACKET = {
    "protocol": "tcp",
    "source": address("62.135.200.1"),
    "source port": 45678,
    "destination": TARGET,
    "destination port": 8080,
    "device out": "eth0",
    "state": "new",
}


def save(*rules: str, table: str = "filter", policy: str = "ACCEPT") -> str:
    chains = f":INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT {policy} [1:60]\n:MINE - [0:0]\n"
    if table == "nat":
        chains = ":POSTROUTING ACCEPT [0:0]\n"
    return f"# Generated\n*{table}\n{chains}" + "\n".join(rules) + "\nCOMMIT\n"


def found(text: str, hook: str = OUTPUT, **changes: object) -> list[tuple[str, bool]]:
    return [(h.action, h.is_certain) for h in hits(read_save(text), hook, {**PACKET, **changes})]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("-A OUTPUT -j DROP", True),
        ("-A OUTPUT -d 10.0.0.2/32 -p tcp -m tcp --dport 8080 -j DROP", True),
        ("-A OUTPUT ! -d 10.0.0.2/32 -j DROP", False),
        ("-A OUTPUT -s 10.0.0.0/8 -j DROP", False),
        ("-A OUTPUT -p udp -j DROP", False),
        ("-A OUTPUT -p tcp -m multiport --dports 80,8000:9000 -j DROP", True),
        ("-A OUTPUT -o eth+ -j DROP", True),
        ("-A OUTPUT -o lo -j DROP", False),
        ("-A OUTPUT -m conntrack --ctstate INVALID -j DROP", False),
        ("-A OUTPUT -m conntrack --ctstate NEW,ESTABLISHED -j DROP", True),
        ("-A OUTPUT -m owner --uid-owner 33 -j DROP", None),
        ("-A OUTPUT -m set --match-set bad dst -j DROP", None),
        ('-A OUTPUT -m comment --comment "no -j ACCEPT here" -j DROP', True),
        ("-A OUTPUT -j LOG --log-prefix x", False),
        ("-A INPUT -j DROP", False),
    ],
)
def test_rules(rule: str, expected: bool | None) -> None:
    told = found(save(rule))
    assert told == ([] if expected is False else [("drop", expected is True)])


def test_policy_jumps_and_the_text_of_a_rule() -> None:
    assert found(save(policy="DROP")) == [("drop", True)]
    assert found(save("-A OUTPUT -d 10.0.0.0/24 -j ACCEPT", policy="DROP")) == []
    assert found(save("-A OUTPUT -j MINE", "-A MINE -p tcp -j DROP")) == [("drop", True)]
    assert found(save("-A OUTPUT -j MINE", "-A MINE -j RETURN", "-A OUTPUT -j DROP"))
    rule = "-A OUTPUT -m conntrack --ctstate INVALID -j DROP"
    (hit,) = hits(read_save(save(rule)), OUTPUT, {**PACKET, STATE: "invalid"})
    assert (hit.text, hit.where, hit.chain.is_iptables) == (f"'{rule}'", "iptables filter OUTPUT",
                                                            True)  # fmt: skip


def test_nat_notrack_and_forwarding() -> None:
    masquerade = save("-A POSTROUTING -o eth0 -j MASQUERADE", table="nat")
    assert found(masquerade, POSTROUTING) == [("nat", True)]
    assert found(masquerade, POSTROUTING, **{STATE: "invalid"}) == []
    raw = save("-A OUTPUT -p tcp -j CT --notrack", table="raw")
    invalid = save("-A OUTPUT -m state --state INVALID -j DROP")
    assert found(invalid, **{STATE: "invalid"}) == [("drop", True)]
    assert found(raw + invalid, **{STATE: "invalid"}) == []
    assert found(save(), FORWARD) == [("drop", True)]
    assert found(save("-A OUTPUT -j MARK --set-xmark 0x1/0xffffffff")) == [("mark", True)]


def test_ipv6_has_rules_of_its_own() -> None:
    firewall = read_save(save("-A OUTPUT -d fd00::2/128 -j DROP"), "ip6")
    assert not hits(firewall, OUTPUT, PACKET)
    assert hits(firewall, OUTPUT, {**PACKET, "destination": address("fd00::2")})


@given(st.lists(st.text(st.sampled_from("-A OUTPUjDRs!'\"*:. 10/mctae"), max_size=40)))
def test_anything_is_read_without_an_exception(lines: list[str]) -> None:
    hits(read_save("*filter\n:OUTPUT ACCEPT [0:0]\n" + "\n".join(lines)), OUTPUT, PACKET)
