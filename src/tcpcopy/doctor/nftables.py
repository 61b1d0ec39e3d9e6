"""Reads what `nft -j list ruleset` prints into the model of `firewall`.

Source: libnftables-json(5). What iptables-nft has put there shows as `xt`, without its contents:
`iptables-save` has them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tcpcopy.doctor import firewall
from tcpcopy.doctor.firewall import Chain, Condition, Firewall, Rule, Value

_FAMILIES: Final = ("ip", "ip6", "inet")
_VERDICTS: Final = {
    "accept": firewall.ACCEPT,
    "drop": firewall.DROP,
    "reject": firewall.REJECT,
    "return": firewall.RETURN,
    "masquerade": firewall.NAT,
    "snat": firewall.NAT,
    "dnat": firewall.NAT,
    "redirect": firewall.NAT,
    "notrack": firewall.NOTRACK,
    "queue": firewall.DROP,  # decided by a program: see _action
}
_META: Final = {
    "oifname": firewall.DEVICE_OUT,
    "oif": firewall.DEVICE_OUT,
    "iifname": firewall.DEVICE_IN,
    "iif": firewall.DEVICE_IN,
    "l4proto": firewall.PROTOCOL,
}
_PAYLOAD: Final = {
    "saddr": firewall.SOURCE,
    "daddr": firewall.DESTINATION,
    "sport": firewall.SOURCE_PORT,
    "dport": firewall.DESTINATION_PORT,
    "protocol": firewall.PROTOCOL,
    "nexthdr": firewall.PROTOCOL,
}
_DEEPEST: Final = 8  # lists within lists that are shown
_NO_EFFECT: Final = ("counter", "log", "comment")
_NOT_TOLD: Final = Condition(firewall.OTHER)

Sets = dict[tuple[str, str], Any]


def read_ruleset(data: Any) -> tuple[Firewall, bool]:
    """The chains of a ruleset (JSON, read), and whether iptables-nft has rules in it, left out.

    What is not as the manual says is passed over: no exception.
    """
    found = Firewall()
    sets: Sets = {}
    has_xt = False
    items = data.get("nftables", ()) if isinstance(data, Mapping) else ()
    for item in items if isinstance(items, Sequence) else ():
        if not isinstance(item, Mapping):
            continue
        if isinstance(body := item.get("chain"), Mapping) and body.get("family") in _FAMILIES:
            found.add(_chain(body))
        elif isinstance(body := item.get("set"), Mapping):
            sets[_table(body), str(body.get("name"))] = body.get("elem")
        elif isinstance(body := item.get("rule"), Mapping):
            chain = found.chains.get((_table(body), str(body.get("chain"))))
            expressions = body.get("expr")
            if chain is None or not isinstance(expressions, Sequence):
                continue
            if any(isinstance(part, Mapping) and "xt" in part for part in expressions):
                has_xt = True
                continue
            handle = body.get("handle", 0)
            chain.rules += _rules(expressions, chain, sets, f"handle {handle}")
    return found, has_xt


def _table(body: Mapping[str, Any]) -> str:
    return f"{body.get('family')} {body.get('table')}"


def _chain(body: Mapping[str, Any]) -> Chain:
    priority = body.get("prio", 0)
    return Chain(
        _table(body),
        str(body.get("name")),
        str(body.get("family")),
        str(body.get("hook", "")),
        priority if isinstance(priority, int) else 0,
        str(body.get("policy", firewall.ACCEPT)),
        str(body.get("type", "filter")),
    )


def _rules(expressions: Sequence[Any], chain: Chain, sets: Sets, name: str) -> list[Rule]:
    """One rule; one for each entry of a verdict map."""
    conditions: list[Condition] = []
    rules: list[Rule] = []
    text = f"'{' '.join(filter(None, map(_shown, expressions)))}' ({name})"
    for part in expressions:
        if not isinstance(part, Mapping) or len(part) != 1:
            conditions.append(_NOT_TOLD)
            continue
        ((kind, body),) = part.items()
        if kind == "match" and isinstance(body, Mapping):
            conditions.append(_condition(body, chain, sets))
        elif kind == "vmap" and isinstance(body, Mapping):
            return rules + _verdict_map(body, tuple(conditions), chain, sets, text)
        elif kind in ("jump", "goto") and isinstance(body, Mapping):
            return [*rules, Rule(tuple(conditions), kind, str(body.get("target")), text)]
        elif kind in _VERDICTS:
            if kind == "queue":
                conditions.append(_NOT_TOLD)
            return [*rules, Rule(tuple(conditions), _VERDICTS[kind], "", text)]
        elif kind == "mangle" and isinstance(body, Mapping):
            if body.get("key") == {"meta": {"key": "mark"}}:
                rules.append(Rule(tuple(conditions), firewall.MARK, "", text))
        elif kind not in _NO_EFFECT:
            conditions.append(_NOT_TOLD)
    return rules


def _verdict_map(
    body: Mapping[str, Any], before: tuple[Condition, ...], chain: Chain, sets: Sets, text: str
) -> list[Rule]:
    data = body.get("data")
    entries = data.get("set") if isinstance(data, Mapping) else None
    rules = []
    for entry in entries if isinstance(entries, Sequence) else ():
        if not (isinstance(entry, Sequence) and len(entry) == 2 and isinstance(entry[1], Mapping)):
            continue
        match = {"op": "==", "left": body.get("key"), "right": entry[0]}
        kind, verdict = next(iter(entry[1].items()), ("", None))
        conditions = (*before, _condition(match, chain, sets))
        if kind in ("jump", "goto") and isinstance(verdict, Mapping):
            rules.append(Rule(conditions, kind, str(verdict.get("target")), text))
        elif kind in _VERDICTS:
            rules.append(Rule(conditions, _VERDICTS[kind], "", text))
    return rules


def _condition(body: Mapping[str, Any], chain: Chain, sets: Sets) -> Condition:
    field = _field(body.get("left"))
    if field in (firewall.OTHER, ""):
        return Condition(field) if field else _NOT_TOLD
    right = body.get("right")
    if isinstance(right, str) and right.startswith("@"):
        right = {"set": sets.get((chain.table, right[1:]))}
    values = tuple(_values(field, right))
    return Condition(field, values, body.get("op") == "!=")


def _field(left: Any) -> str:
    if not isinstance(left, Mapping) or len(left) != 1:
        return firewall.OTHER
    ((kind, body),) = left.items()
    if not isinstance(body, Mapping):
        return firewall.OTHER
    if kind == "meta":
        return _META.get(str(body.get("key")), firewall.OTHER)
    if kind == "payload":
        return _PAYLOAD.get(str(body.get("field")), firewall.OTHER)
    if kind == "ct" and body.get("key") == "state":
        return firewall.STATE
    return firewall.OTHER


def _values(field: str, right: Any) -> list[Value]:
    """The values a match compares with; none when any is not understood."""
    if isinstance(right, Mapping) and "set" in right:
        right = right["set"]
    items = right if isinstance(right, list) else [right]
    found: list[Value] = []
    for item in items:
        if isinstance(item, Mapping) and isinstance(item.get("elem"), Mapping):
            item = item["elem"].get("val")
        value = _value(field, item)
        if value is None:
            return []
        found.append(value)
    return found


def _value(field: str, item: Any) -> Value | None:
    if field in (firewall.SOURCE, firewall.DESTINATION):
        return _network(item)
    if field in (firewall.SOURCE_PORT, firewall.DESTINATION_PORT):
        if isinstance(item, Mapping) and isinstance(bounds := item.get("range"), list):
            low, high = bounds if len(bounds) == 2 else (None, None)
            return (low, high) if isinstance(low, int) and isinstance(high, int) else None
        return (item, item) if isinstance(item, int) else None
    return item if isinstance(item, str) else None


def _network(item: Any) -> Value | None:
    try:
        if isinstance(item, Mapping) and isinstance(prefix := item.get("prefix"), Mapping):
            return ipaddress.ip_network((str(prefix["addr"]), int(prefix["len"])))
        return ipaddress.ip_network(item) if isinstance(item, str) else None
    except (ValueError, KeyError, TypeError):
        return None


def _shown(part: Any) -> str:
    """An expression as nft would write it, roughly; "" for what does not matter."""
    if not isinstance(part, Mapping) or len(part) != 1:
        return "..."
    ((kind, body),) = part.items()
    if kind in _NO_EFFECT:
        return ""
    if kind == "match" and isinstance(body, Mapping):
        sign = "!= " if body.get("op") == "!=" else ""
        return f"{_shown_key(body.get('left'))} {sign}{_shown_value(body.get('right'))}"
    if kind in ("jump", "goto") and isinstance(body, Mapping):
        return f"{kind} {body.get('target')}"
    if kind == "vmap" and isinstance(body, Mapping):
        return f"{_shown_key(body.get('key'))} vmap {{...}}"
    return str(kind)


def _shown_key(left: Any) -> str:
    if isinstance(left, Mapping) and len(left) == 1:
        ((kind, body),) = left.items()
        if isinstance(body, Mapping):
            words = {"payload": ("protocol", "field"), "meta": ("key",)}.get(kind)
            if words is not None:
                return " ".join(str(body.get(word)) for word in words)
            if kind == "fib":
                flags = body.get("flags")
                shown = " . ".join(map(str, flags)) if isinstance(flags, list) else str(flags)
                return f"fib {shown} {body.get('result')}"
            return f"{kind} {body.get('key', '...')}"
    return "..."


def _shown_value(right: Any, depth: int = 0) -> str:
    if depth > _DEEPEST:
        return "..."
    if isinstance(right, str | int) and not isinstance(right, bool):
        return str(right)
    if isinstance(right, bool):
        return "exists" if right else "missing"
    if isinstance(right, list):
        return ",".join(_shown_value(item, depth + 1) for item in right)
    if isinstance(right, Mapping):
        if isinstance(prefix := right.get("prefix"), Mapping):
            return f"{prefix.get('addr')}/{prefix.get('len')}"
        if isinstance(bounds := right.get("range"), list):
            return "-".join(_shown_value(bound, depth + 1) for bound in bounds)
        if isinstance(members := right.get("set"), list):
            return f"{{{','.join(_shown_value(member, depth + 1) for member in members)}}}"
    return "..."
