"""Rulesets as `nft -j list ruleset` prints them (nft 1.0.6)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcpcopy.doctor.firewall import INPUT, OUTPUT, POSTROUTING, PREROUTING, STATE, hits
from tcpcopy.doctor.nftables import read_ruleset
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


def match(left: dict[str, Any], right: Any, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": left, "right": right}}


def payload(field: str, protocol: str = "ip") -> dict[str, Any]:
    return {"payload": {"protocol": protocol, "field": field}}


DPORT = payload("dport", "tcp")
CT = {"ct": {"key": "state"}}


def ruleset(*expressions: list[Any], hook: str = OUTPUT, **chain: Any) -> dict[str, Any]:
    base = {"family": "inet", "table": "t", "name": "c", "handle": 1, "type": "filter",
            "hook": hook, "prio": 0, "policy": "accept", **chain}  # fmt: skip
    items: list[dict[str, Any]] = [
        {"metainfo": {"version": "1.0.6", "json_schema_version": 1}},
        {"table": {"family": "inet", "name": "t", "handle": 1}},
        {"chain": base},
    ]
    items += [
        {"rule": {"family": "inet", "table": "t", "chain": "c", "handle": 5 + n, "expr": parts}}
        for n, parts in enumerate(expressions)
    ]
    return {"nftables": items}


def found(data: dict[str, Any], hook: str = OUTPUT, **changes: Any) -> list[tuple[str, bool]]:
    firewall, _ = read_ruleset(data)
    return [(hit.action, hit.is_certain) for hit in hits(firewall, hook, {**PACKET, **changes})]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (match(DPORT, 8080), True),
        (match(DPORT, 80), False),
        (match(DPORT, 80, "!="), True),
        (match(DPORT, {"set": [80, 8080]}), True),
        (match(DPORT, {"range": [8000, 9000]}), True),
        (match(DPORT, {"set": [{"range": [1, 9]}, 80]}), False),
        (match(payload("daddr"), "10.0.0.2"), True),
        (match(payload("daddr"), {"prefix": {"addr": "10.0.0.0", "len": 24}}), True),
        (match(payload("saddr"), {"prefix": {"addr": "10.0.0.0", "len": 24}}), False),
        (match({"meta": {"key": "l4proto"}}, "tcp"), True),
        (match({"meta": {"key": "oifname"}}, "eth*"), True),
        (match({"meta": {"key": "oifname"}}, "lo"), False),
        (match(CT, "invalid"), False),
        (match(CT, ["new", "established"]), True),
        (match(CT, {"set": ["established", "related"]}), False),
        (match({"meta": {"key": "skuid"}}, 33), None),
        (match({"fib": {"result": "oif", "flags": ["saddr", "iif"]}}, False), None),
        (match(payload("daddr"), "@unknown"), None),
        (match(DPORT, {"range": [1, 2, 3]}), None),
        (match(DPORT, "http"), None),
        (match(payload("daddr"), {"prefix": {"addr": "10.0.0.1", "len": 24}}), None),
        ({"limit": {"rate": 10, "per": "second"}}, None),
    ],
)
def test_matches(condition: dict[str, Any], expected: bool | None) -> None:
    told = found(ruleset([condition, {"counter": {"packets": 0, "bytes": 0}}, {"drop": None}]))
    assert told == ([] if expected is False else [("drop", expected is True)])


def test_verdicts() -> None:
    assert found(ruleset([{"reject": {"type": "icmp", "expr": "port-unreachable"}}])) == [
        ("reject", True)
    ]
    nat = ruleset([{"masquerade": None}], hook=POSTROUTING, type="nat")
    assert found(nat, POSTROUTING) == [("nat", True)]
    marks = ruleset([{"mangle": {"key": {"meta": {"key": "mark"}}, "value": 1}}])
    assert found(marks) == [("mark", True)]
    assert found(ruleset([{"accept": None}], policy="drop")) == []
    assert found(ruleset(policy="drop")) == [("drop", True)]
    assert found(ruleset([{"queue": {"num": 1}}])) == [("drop", False)]


def test_named_sets_and_chains() -> None:
    data = ruleset([match(payload("daddr"), "@blocked"), {"jump": {"target": "mine"}}])
    data["nftables"].insert(2, {"set": {"family": "inet", "table": "t", "name": "blocked",
        "elem": [{"elem": {"val": "10.0.0.2", "timeout": 9}}]}})  # fmt: skip
    data["nftables"].insert(3, {"chain": {"family": "inet", "table": "t", "name": "mine"}})
    data["nftables"].append(
        {"rule": {"family": "inet", "table": "t", "chain": "mine", "expr": [{"drop": None}]}}
    )
    assert found(data) == [("drop", True)]
    assert found(data, destination=address("10.0.0.9")) == []


def test_verdict_map() -> None:
    entries = [["established", {"accept": None}], ["invalid", {"drop": None}]]
    data = ruleset([{"vmap": {"key": CT, "data": {"set": entries}}}])
    assert found(data, **{STATE: "invalid"}) == [("drop", True)]
    assert found(data, **{STATE: "new"}) == []


def test_the_rule_is_shown_as_it_was_written() -> None:
    data = ruleset([match(CT, "invalid"), match(DPORT, 8080), {"drop": None}])
    (hit,) = hits(read_ruleset(data)[0], OUTPUT, {**PACKET, STATE: "invalid"})
    assert hit.text == "'ct state invalid tcp dport 8080 drop' (handle 5)"
    assert hit.where == "inet t c"
    reverse = match({"fib": {"result": "oif", "flags": ["saddr", "iif"]}}, False)
    (hit,) = hits(read_ruleset(ruleset([reverse, {"drop": None}], hook=PREROUTING))[0],
                  PREROUTING, PACKET)  # fmt: skip
    assert hit.text == "'fib saddr . iif oif missing drop' (handle 5)"


def test_rules_of_iptables_nft_are_told_apart() -> None:
    data = ruleset([{"xt": {"type": "match", "name": "conntrack"}}, {"drop": None}])
    assert read_ruleset(data)[1]
    assert found(data) == [], "iptables-save has it in full"
    assert not read_ruleset(ruleset([{"drop": None}]))[1]


def test_input_is_another_hook() -> None:
    assert found(ruleset([{"drop": None}], hook=INPUT)) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["match", "left", "right", "op", "payload", "field", "set", "vmap",
                             "key", "data", "jump", "target", "prefix", "range", "drop", "ct",
                             "elem", "val", "mangle", "meta", "protocol"])
            | st.text(max_size=3),
            inner, max_size=4)
    ),
    max_leaves=20,
)  # fmt: skip


@given(st.lists(st.lists(JSON, max_size=4), max_size=4))
def test_anything_is_read_without_an_exception(expressions: list[list[Any]]) -> None:
    firewall, _ = read_ruleset(ruleset(*expressions))
    hits(firewall, OUTPUT, PACKET)


@given(JSON)
def test_so_is_what_is_no_ruleset(data: Any) -> None:
    read_ruleset({"nftables": data})
    read_ruleset({"nftables": [{"chain": data}, {"rule": data}, {"set": data}]})
