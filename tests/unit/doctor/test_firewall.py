"""The walk of a packet through chains, whatever program wrote the rules."""

from __future__ import annotations

import ipaddress

import pytest

from tcpcopy.doctor.firewall import (
    ACCEPT,
    DESTINATION,
    DESTINATION_PORT,
    DEVICE_OUT,
    DROP,
    GOTO,
    INPUT,
    JUMP,
    MARK,
    NAT,
    NOTRACK,
    OTHER,
    OUTPUT,
    PROTOCOL,
    RETURN,
    STATE,
    Chain,
    Condition,
    Firewall,
    Rule,
    hits,
)
from tests.unit.doctor.made import TARGET

SYN = {PROTOCOL: "tcp", DESTINATION: TARGET, DESTINATION_PORT: 8080, STATE: "new"}
TO_PORT = Condition(DESTINATION_PORT, ((8080, 8080),))
TO_OTHER_PORT = Condition(DESTINATION_PORT, ((1, 1024),))
UNKNOWN = Condition(OTHER)


def walls(*chains: Chain) -> Firewall:
    found = Firewall()
    for chain in chains:
        found.add(chain)
    return found


def output(*rules: Rule, policy: str = ACCEPT, **changes: object) -> Chain:
    chain = Chain("inet filter", "output", hook=OUTPUT, policy=policy)
    for name, value in changes.items():
        setattr(chain, name, value)
    chain.rules += rules
    return chain


def outcome(*chains: Chain) -> list[tuple[str, bool]]:
    return [(hit.action, hit.is_certain) for hit in hits(walls(*chains), OUTPUT, SYN)]


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ((), [(DROP, True)]),
        ((TO_PORT,), [(DROP, True)]),
        ((TO_OTHER_PORT,), []),
        ((Condition(DESTINATION_PORT, ((8080, 8080),), negated=True),), []),
        ((Condition(DESTINATION, (ipaddress.ip_network("10.0.0.0/24"),)),), [(DROP, True)]),
        ((Condition(DESTINATION, (ipaddress.ip_network("10.1.0.0/24"),)),), []),
        ((Condition(DESTINATION, (ipaddress.ip_network("fd00::/8"),)),), []),
        ((Condition(PROTOCOL, ("udp", "tcp")),), [(DROP, True)]),
        ((Condition(STATE, ("invalid",)),), []),
        ((UNKNOWN,), [(DROP, False)]),
        ((UNKNOWN, TO_OTHER_PORT), []),
        ((Condition(DEVICE_OUT, ("eth0",)),), [(DROP, False)]),  # the device is not known
    ],
)
def test_conditions(conditions: tuple[Condition, ...], expected: list[tuple[str, bool]]) -> None:
    assert outcome(output(Rule(conditions, DROP))) == expected


def test_devices_are_matched_by_their_beginning() -> None:
    chain = output(Rule((Condition(DEVICE_OUT, ("eth*",)),), DROP))
    assert hits(walls(chain), OUTPUT, {**SYN, DEVICE_OUT: "eth7"})
    assert not hits(walls(chain), OUTPUT, {**SYN, DEVICE_OUT: "lo"})


def test_what_is_accepted_before_is_not_dropped_behind() -> None:
    drop = Rule((), DROP)
    assert outcome(output(Rule((TO_PORT,), ACCEPT), drop)) == []
    assert outcome(output(Rule((TO_OTHER_PORT,), ACCEPT), drop)) == [(DROP, True)]
    assert outcome(output(Rule((UNKNOWN,), ACCEPT), drop)) == [(DROP, False)]


def test_the_policy_is_for_what_no_rule_decides() -> None:
    assert outcome(output(policy=DROP)) == [(DROP, True)]
    assert outcome(output(Rule((TO_PORT,), ACCEPT), policy=DROP)) == []
    assert outcome(output(Rule((UNKNOWN,), ACCEPT), policy=DROP)) == [(DROP, False)]
    assert outcome(output(Rule((TO_PORT,), RETURN), Rule((), ACCEPT), policy=DROP)) == [
        (DROP, True)
    ]


def test_chains_that_are_jumped_to() -> None:
    inner = Chain("inet filter", "mine", rules=[Rule((TO_PORT,), DROP)])
    assert outcome(output(Rule((), JUMP, "mine")), inner) == [(DROP, True)]
    assert outcome(output(Rule((UNKNOWN,), JUMP, "mine")), inner) == [(DROP, False)]
    passes = Chain("inet filter", "mine", rules=[Rule((TO_PORT,), RETURN), Rule((), DROP)])
    assert outcome(output(Rule((), JUMP, "mine"), Rule((), DROP)), passes) == [(DROP, True)]
    assert outcome(output(Rule((), GOTO, "mine"), Rule((), DROP)), passes) == []
    accepts = Chain("inet filter", "mine", rules=[Rule((), ACCEPT)])
    assert outcome(output(Rule((), JUMP, "mine"), Rule((), DROP)), accepts) == []


def test_a_loop_of_jumps_ends() -> None:
    round_about = Chain("inet filter", "mine", rules=[Rule((), JUMP, "mine")])
    assert outcome(output(Rule((), JUMP, "mine"), Rule((), JUMP, "nowhere")), round_about) == []


def test_notrack_changes_what_later_chains_see() -> None:
    raw = output(Rule((TO_PORT,), NOTRACK), table="inet raw", priority=-300)
    invalid = output(Rule((Condition(STATE, ("invalid", "new")),), DROP))
    assert outcome(invalid) == [(DROP, True)]
    assert outcome(invalid, raw) == []


def test_nat_is_for_the_first_packet_and_a_mark_goes_on() -> None:
    nat = output(Rule((), NAT), kind="nat")
    assert outcome(nat) == [(NAT, True)]
    assert not hits(walls(nat), OUTPUT, {**SYN, STATE: "invalid"})
    assert outcome(output(Rule((), MARK), Rule((), DROP))) == [(MARK, True), (DROP, True)]


def test_other_hooks_and_families_are_passed_by() -> None:
    assert outcome(output(Rule((), DROP), hook=INPUT)) == []
    assert outcome(output(Rule((), DROP), family="ip6")) == []
    assert outcome(output(Rule((), DROP), family="ip")) == [(DROP, True)]


def test_chains_are_met_by_priority_and_end_with_a_drop() -> None:
    late = output(Rule((), DROP, text="late"), table="inet b", priority=10)
    early = output(Rule((), DROP, text="early"), table="inet a", priority=-10)
    assert [hit.text for hit in hits(walls(late, early), OUTPUT, SYN)] == ["early"]
