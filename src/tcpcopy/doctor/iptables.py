"""Reads what `iptables-save` prints into the model of `firewall`.

Source: iptables-save(8), iptables(8), iptables-extensions(8).
"""

from __future__ import annotations

import ipaddress
import shlex
from collections.abc import Iterable
from typing import Final

from tcpcopy.doctor import firewall
from tcpcopy.doctor.firewall import Chain, Condition, Firewall, Rule, Value

# As Netfilter orders the tables at a hook.
_PRIORITIES: Final = {"raw": -300, "mangle": -150, "nat": 100, "filter": 0, "security": 50}
_HOOKS: Final = {
    "OUTPUT": firewall.OUTPUT,
    "POSTROUTING": firewall.POSTROUTING,
    "PREROUTING": firewall.PREROUTING,
    "INPUT": firewall.INPUT,
    "FORWARD": firewall.FORWARD,
}
_TARGETS: Final = {
    "ACCEPT": firewall.ACCEPT,
    "DROP": firewall.DROP,
    "REJECT": firewall.REJECT,
    "RETURN": firewall.RETURN,
    "MASQUERADE": firewall.NAT,
    "SNAT": firewall.NAT,
    "DNAT": firewall.NAT,
    "REDIRECT": firewall.NAT,
    "NETMAP": firewall.NAT,
    "NOTRACK": firewall.NOTRACK,
    "MARK": firewall.MARK,
}
_FIELDS: Final = {
    "-p": firewall.PROTOCOL,
    "-s": firewall.SOURCE,
    "-d": firewall.DESTINATION,
    "-i": firewall.DEVICE_IN,
    "-o": firewall.DEVICE_OUT,
    "--sport": firewall.SOURCE_PORT,
    "--dport": firewall.DESTINATION_PORT,
    "--sports": firewall.SOURCE_PORT,
    "--dports": firewall.DESTINATION_PORT,
    "--ctstate": firewall.STATE,
    "--state": firewall.STATE,
}
# Modules whose own conditions are among those above, and what only remarks or counts.
_UNDERSTOOD: Final = ("tcp", "udp", "multiport", "conntrack", "state", "comment")
_NO_EFFECT: Final = ("LOG", "NFLOG", "CONNMARK", "TCPMSS", "TTL", "DSCP", "ULOG")


def read_save(text: str, family: str = "ip", into: Firewall | None = None) -> Firewall:
    """The chains of one program's output (`family` ip or ip6), added to `into`.

    Lines that are not understood are passed over: no exception.
    """
    found = Firewall() if into is None else into
    table = ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:].strip()
        elif line.startswith(":"):
            name, _, rest = line[1:].partition(" ")
            found.add(_chain(table, name, rest.partition(" ")[0], family))
        elif line.startswith("-A "):
            try:
                words = shlex.split(line)
            except ValueError:
                continue
            chain = found.chains.get((_table(family, table), words[1])) if words[1:] else None
            if chain is not None:
                chain.rules.append(_rule(words[2:], line))
    return found


def _table(family: str, table: str) -> str:
    return f"{'ip6tables' if family == 'ip6' else 'iptables'} {table}"


def _chain(table: str, name: str, policy: str, family: str) -> Chain:
    return Chain(
        _table(family, table),
        name,
        family,
        _HOOKS.get(name, ""),
        _PRIORITIES.get(table, 0),
        _TARGETS.get(policy, firewall.ACCEPT),
        "nat" if table == "nat" else "filter",
        is_iptables=True,
    )


def _rule(words: list[str], text: str) -> Rule:
    conditions: list[Condition] = []
    action, chain = "", ""
    negated = False
    at = 0
    while at < len(words):
        word = words[at]
        value = words[at + 1] if at + 1 < len(words) else ""
        at += 2
        if word == "!":
            negated = True
            at -= 1
            continue
        if word in ("-j", "-g"):
            if value == "CT":
                action = firewall.NOTRACK if "--notrack" in words else ""
            elif value not in _NO_EFFECT:
                action = _TARGETS.get(value, firewall.JUMP if word == "-j" else firewall.GOTO)
                chain = value if action in (firewall.JUMP, firewall.GOTO) else ""
            break  # what follows belongs to the target
        if word == "-m":
            if value not in _UNDERSTOOD:
                conditions.append(Condition(firewall.OTHER))
        elif word == "--comment":
            pass
        elif word in _FIELDS:
            values = _values(_FIELDS[word], value)
            conditions.append(Condition(_FIELDS[word], values, negated))
        else:
            conditions.append(Condition(firewall.OTHER))
            if value.startswith("-") or value == "!":
                at -= 1  # it has no value
        negated = False
    return Rule(tuple(conditions), action, chain, f"'{text}'")


def _values(field: str, text: str) -> tuple[Value, ...]:
    parts: Iterable[str] = text.split(",")
    found: list[Value] = []
    for part in parts:
        if field in (firewall.SOURCE, firewall.DESTINATION):
            try:
                found.append(ipaddress.ip_network(part, strict=False))
            except ValueError:
                return ()
        elif field in (firewall.SOURCE_PORT, firewall.DESTINATION_PORT):
            low, _, high = part.partition(":")
            if not (_is_port(low) and _is_port(high or low)):
                return ()
            found.append((int(low), int(high or low)))
        else:
            found.append(part.lower() if field == firewall.STATE else part)
    return tuple(found)


def _is_port(text: str) -> bool:
    """Whether int() takes it: there are digits, as superscripts, that it does not take."""
    return text.isascii() and text.isdigit() and len(text) <= 5
