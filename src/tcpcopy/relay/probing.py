"""What the probe of `tcpcopy doctor` and intercept say to each other over the native relay.

tcpcopy asks with a PROBE about one flow; intercept answers each with one REPORT: what it is set to
do, and what of that flow it has seen since it was first asked, with and without its filter. Only
an intercept that says so in its HELLO is asked (`native.PROBES`).

PROBE: u8 IP version, u8 flags (1: go on watching), two zero bytes, target and mapped address of 16
bytes each (IPv4 in the first four), target port u16, mapped port u16. REPORT: a JSON object; names
that are not known are passed over, so that later versions may say more.

An intercept that does not know who asks (no secret, no certificate of tcpcopy) says `open`, and of
a flow whose answers the asking host gets anyway whether they travel on: `forwards_*` of its family,
and its SYN-ACK, if it was seen leaving. Of any other flow, and besides, nothing.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any, Final

_PROBE: Final = struct.Struct("!BB2x16s16sHH")
PROBE_BYTES: Final = _PROBE.size
_WATCH: Final = 1
#: What a REPORT has at most.
MOST_REPORT_BYTES: Final = 16384
_MOST_TEXT: Final = 1000
_MOST_ITEMS: Final = 64

#: What was seen of a flow.
SYN_ACK, RESET, ECHO, UNREACHABLE, OTHER = "syn-ack", "reset", "echo", "unreachable", "other"


@dataclass(frozen=True, slots=True)
class Flow:
    """A probe's connection: the addresses of one family, and its ports."""

    target: bytes
    target_port: int
    mapped: bytes
    mapped_port: int


@dataclass(frozen=True, slots=True)
class Seen:
    """Packets of a kind that a host saw on a device."""

    kind: str  # one of the above
    source: str  # addresses as text
    destination: str
    device: str
    leaves: bool  # it went out there
    count: int = 1


@dataclass(frozen=True, slots=True)
class Report:
    """An intercept's answer. Every field may be missing there."""

    version: str = ""
    filter: str = ""  # what it captures by
    devices: tuple[str, ...] = ()  # none: all
    received: int = 0  # packets that passed its filter since it was started
    dropped: int = 0  # those for which its buffer had no room
    forwards_v4: bool | None = None  # None: not known
    forwards_v6: bool | None = None
    seen: tuple[Seen, ...] = ()  # of the flow, without its filter
    passed: tuple[Seen, ...] = ()  # of the flow, by its filter and on its devices
    problem: str = ""  # why it could not look
    is_open: bool = False  # it does not know who asks, and gives no details


def encode_probe(flow: Flow, *, watch: bool) -> bytes:
    """The body of a PROBE. Addresses of 4 or 16 bytes."""
    version = 4 if len(flow.target) == 4 else 6
    return _PROBE.pack(
        version, _WATCH * watch, flow.target, flow.mapped, flow.target_port, flow.mapped_port
    )


def read_probe(body: bytes) -> tuple[Flow, bool] | None:
    """The flow of a PROBE and whether to go on watching; None when it is none."""
    if len(body) != PROBE_BYTES:
        return None
    version, flags, target, mapped, target_port, mapped_port = _PROBE.unpack(body)
    if version not in (4, 6) or not target_port or not mapped_port:
        return None
    size = 4 if version == 4 else 16
    return Flow(target[:size], target_port, mapped[:size], mapped_port), bool(flags & _WATCH)


def encode_report(report: Report) -> bytes:
    """The body of a REPORT; texts are cut, so that it always fits."""
    if report.is_open:
        return _encode_open(report)
    said = {
        "version": report.version[:_MOST_TEXT],
        "filter": report.filter[:_MOST_TEXT],
        "devices": [name[:_MOST_TEXT] for name in report.devices[:_MOST_ITEMS]],
        "received": report.received,
        "dropped": report.dropped,
        "forwards_v4": report.forwards_v4,
        "forwards_v6": report.forwards_v6,
        "seen": [_said(seen) for seen in report.seen[:_MOST_ITEMS]],
        "passed": [_said(seen) for seen in report.passed[:_MOST_ITEMS]],
        "problem": report.problem[:_MOST_TEXT],
    }
    body = json.dumps(said).encode()
    return body if len(body) <= MOST_REPORT_BYTES else b"{}"


def _encode_open(report: Report) -> bytes:
    said: dict[str, object] = {"open": True}
    for name in ("forwards_v4", "forwards_v6"):
        if getattr(report, name) is not None:
            said[name] = getattr(report, name)
    if report.seen:
        said["seen"] = [_said(seen) for seen in report.seen[:_MOST_ITEMS]]
    return json.dumps(said).encode()


def read_report(body: bytes) -> Report:
    """What a REPORT says; what is damaged in it is as if it were missing. Never raises."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return Report()
    if not isinstance(said, dict):
        return Report()
    return Report(
        version=_text(said.get("version")),
        filter=_text(said.get("filter")),
        devices=tuple(_text(name) for name in _items(said.get("devices"))),
        received=_number(said.get("received")),
        dropped=_number(said.get("dropped")),
        forwards_v4=_truth(said.get("forwards_v4")),
        forwards_v6=_truth(said.get("forwards_v6")),
        seen=_all_seen(said.get("seen")),
        passed=_all_seen(said.get("passed")),
        problem=_text(said.get("problem")),
        is_open=said.get("open") is True,
    )


def _said(seen: Seen) -> list[object]:
    return [seen.kind, seen.source, seen.destination, seen.device, seen.leaves, seen.count]


def _all_seen(value: object) -> tuple[Seen, ...]:
    found = []
    for item in _items(value):
        if isinstance(item, list) and len(item) >= 6:
            kind, source, destination, device, leaves, count = item[:6]
            found.append(
                Seen(
                    _text(kind),
                    _text(source),
                    _text(destination),
                    _text(device),
                    leaves is True,
                    _number(count),
                )
            )
    return tuple(found)


def _items(value: object) -> list[Any]:
    return value[:_MOST_ITEMS] if isinstance(value, list) else []


def _text(value: object) -> str:
    """Text that may be shown on a terminal: a peer's, so without control characters."""
    if not isinstance(value, str):
        return ""
    return "".join(c if c.isprintable() else "?" for c in value[:_MOST_TEXT])


def _number(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < 1 << 62 else 0


def _truth(value: object) -> bool | None:
    return value if isinstance(value, bool) else None
