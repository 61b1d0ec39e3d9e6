"""What a host's packet filter does with a packet, as far as its rules can be understood.

A small model that both nftables and iptables are read into: chains of rules, a rule being
conditions and what happens when all hold. A condition holds, does not, or cannot be told (a set
that is filled at run time, a counter, a module unknown here); what depends on one that cannot be
told is only said to be possible.

Source: nft(8), iptables(8), iptables-extensions(8), Netfilter's hook priorities.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

OUTPUT, POSTROUTING, PREROUTING, INPUT, FORWARD = (
    "output", "postrouting", "prerouting", "input", "forward",
)  # fmt: skip

# Fields of a packet that conditions ask for.
PROTOCOL, SOURCE, DESTINATION = "protocol", "source", "destination"
SOURCE_PORT, DESTINATION_PORT = "source port", "destination port"
DEVICE_IN, DEVICE_OUT, STATE = "device in", "device out", "state"
OTHER: Final = "other"  # whatever is not understood

# What happens: verdicts end the walk through a chain, the others do not.
ACCEPT, DROP, REJECT, RETURN = "accept", "drop", "reject", "return"
JUMP, GOTO = "jump", "goto"
NAT, NOTRACK, MARK = "nat", "notrack", "mark"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Value = str | tuple[int, int] | Network  # a word; a range of ports; a network

_MOST_JUMPS: Final = 64


@dataclass(frozen=True, slots=True)
class Condition:
    """A field has (or, `negated`, has not) one of some values. No values: cannot be told."""

    field: str
    values: tuple[Value, ...] = ()
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """What happens to packets for which all conditions hold."""

    conditions: tuple[Condition, ...] = ()
    action: str = ""  # of those above; "": nothing that matters here
    chain: str = ""  # where JUMP and GOTO lead
    text: str = ""  # as an administrator would know it again


@dataclass(slots=True)
class Chain:
    """Rules in their order. A base chain has a hook."""

    table: str  # "inet filter"
    name: str
    family: str = "inet"  # ip, ip6, inet
    hook: str = ""  # "": only jumped to
    priority: int = 0
    policy: str = ACCEPT
    kind: str = "filter"  # or nat
    rules: list[Rule] = field(default_factory=list)
    is_iptables: bool = False


@dataclass(slots=True)
class Firewall:
    """All chains, by (table, name)."""

    chains: dict[tuple[str, str], Chain] = field(default_factory=dict)

    def add(self, chain: Chain) -> Chain:
        """Add a chain, unless it is there."""
        return self.chains.setdefault((chain.table, chain.name), chain)

    def hooked(self, hook: str, family: str) -> list[Chain]:
        """Base chains at a hook for packets of a family (ip, ip6), in the order they are met."""
        found = [
            chain
            for chain in self.chains.values()
            if chain.hook == hook and chain.family in ("inet", family)
        ]
        return sorted(found, key=lambda chain: chain.priority)


Packet = Mapping[str, object]
"""Values by field: bytes of an address, a port, a word. A field that is missing is not known."""


@dataclass(frozen=True, slots=True)
class Hit:
    """Something that happens, or may happen, to a packet."""

    action: str  # DROP, REJECT, NAT or MARK
    is_certain: bool
    chain: Chain
    text: str  # the rule, or the policy

    @property
    def where(self) -> str:
        """Table and chain."""
        return f"{self.chain.table} {self.chain.name}"


def hits(firewall: Firewall, hook: str, packet: Packet) -> list[Hit]:
    """What the chains at a hook do to a packet, the certain first; nothing when it just passes."""
    destination = packet.get(DESTINATION, b"")
    family = "ip6" if isinstance(destination, bytes) and len(destination) == 16 else "ip"
    seen = dict(packet)
    found: list[Hit] = []
    for chain in firewall.hooked(hook, family):
        if chain.kind == "nat" and seen.get(STATE) != "new":
            continue  # only the first packet of a connection comes by
        walk = _Walk(firewall, seen, chain)
        found += walk.run()
        if any(hit.is_certain and hit.action in (DROP, REJECT) for hit in found):
            break
    return sorted(found, key=lambda hit: not hit.is_certain)


class _Walk:
    """The way of one packet through one base chain."""

    __slots__ = ("base", "certain", "firewall", "found", "jumps", "packet")

    def __init__(self, firewall: Firewall, packet: dict[str, object], base: Chain) -> None:
        self.firewall = firewall
        self.packet = packet  # NOTRACK changes its state, for the chains behind as well
        self.base = base
        self.certain = True  # nothing before may have ended the walk
        self.found: list[Hit] = []
        self.jumps = 0

    def run(self) -> list[Hit]:
        if self._chain(self.base) and self.base.policy != ACCEPT:
            self._hit(self.base.policy, self.certain, f"policy {self.base.policy}")
        return self.found

    def _chain(self, chain: Chain) -> bool:
        """Whether the packet is still on its way at the end of the chain, for all that is known."""
        for rule in chain.rules:
            holds = all_hold(rule.conditions, self.packet)
            if holds is False or not rule.action:
                continue
            if not self._rule(rule, holds is True):
                return False
            if rule.action == RETURN and holds:
                break  # back to the rule that led here
        return True

    def _rule(self, rule: Rule, holds: bool) -> bool:
        """Whether the packet may go on behind this rule."""
        if rule.action in (JUMP, GOTO):
            return self._jump(rule, holds)
        if rule.action == NOTRACK:
            if holds:
                self.packet[STATE] = "untracked"
            return True
        if rule.action in (DROP, REJECT, NAT, MARK):
            self._hit(rule.action, holds and self.certain, rule.text)
        if rule.action == MARK:
            return True
        self.certain = self.certain and holds  # else it may have ended here
        return rule.action == RETURN or not holds

    def _jump(self, rule: Rule, holds: bool) -> bool:
        chain = self.firewall.chains.get((self.base.table, rule.chain))
        self.jumps += 1
        if chain is None or self.jumps > _MOST_JUMPS:
            return True
        self.certain = self.certain and holds
        goes_on = self._chain(chain)
        return not holds or (goes_on and rule.action == JUMP)

    def _hit(self, action: str, certain: bool, text: str) -> None:
        self.found.append(Hit(action, certain, self.base, text))


def all_hold(conditions: tuple[Condition, ...], packet: Packet) -> bool | None:
    """Whether all conditions hold; None when that cannot be told."""
    answers = [_holds(condition, packet) for condition in conditions]
    if False in answers:
        return False
    return None if None in answers else True


def _holds(condition: Condition, packet: Packet) -> bool | None:
    if condition.field not in packet or not condition.values:
        return None
    actual = packet[condition.field]
    return any(_is(actual, value) for value in condition.values) != condition.negated


def _is(actual: object, value: Value) -> bool:
    if isinstance(value, tuple):
        return isinstance(actual, int) and value[0] <= actual <= value[1]
    if isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network):
        return (
            isinstance(actual, bytes)
            and len(actual) == value.max_prefixlen // 8
            and ipaddress.ip_address(actual) in value
        )
    if value.endswith("*") or value.endswith("+"):  # devices, as nft and iptables write it
        return isinstance(actual, str) and actual.startswith(value[:-1])
    return actual == value
