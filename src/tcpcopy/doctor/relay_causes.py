"""What keeps the relay from working, from how each intercept answered."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from tcpcopy.doctor.finding import Finding, Level
from tcpcopy.doctor.observed import ProbeFacts, RelayFacts
from tcpcopy.relay.classic import RelayFault
from tcpcopy.report import remedies
from tcpcopy.report.context import Context

CHECK: Final = "relay"
_HOP: Final = "relay"
_SAME_SECRET: Final = (
    "the same file for both: sha256sum FILE must print the same on online and on assistant {};"
    " copy it there and start intercept again with --secret-file FILE"
)


def relay_findings(facts: ProbeFacts, context: Context) -> list[Finding]:
    """A fault while no intercept is connected; a warning for one of several that is not."""
    level = Level.WARNING if facts.up() else Level.FAULT
    findings = [_down(relay, context, level) for relay in facts.relays if not relay.is_up]
    for relay in facts.up():
        if relay.is_native:
            findings.append(Finding(CHECK, Level.OK, f"intercept {relay.name}: native relay"))
            if relay.is_open:
                findings.append(_open(relay))
        else:
            findings.append(
                Finding(
                    CHECK,
                    Level.NOTE,
                    f"intercept {relay.name}: classic relay (a C program, or --relay classic): it"
                    " does not say what it sees, so causes are told less exactly",
                )
            )
        if relay.report is not None and relay.report.problem:
            text = f"intercept {relay.name} cannot look without its filter: {relay.report.problem}"
            findings.append(Finding(CHECK, Level.NOTE, text))
    return findings


def named(steps: Iterable[str]) -> tuple[str, ...]:
    """The steps of a summary with the hosts' names as a check has them."""
    return tuple(
        step.replace("on the target:", "on target:")
        .replace("on the assistant:", "on assistant:")
        .replace("on this host:", "on online:")
        for step in steps
    )


def _open(relay: RelayFacts) -> Finding:
    """Anybody may be its peer."""
    text = f"intercept {relay.name} is open: whoever reaches it may have the headers of answers"
    if relay.report is not None and relay.report.is_open:
        text += ", and it gives no details without a secret, so causes are told less exactly"
    steps = (
        f"on assistant {relay.address}: openssl rand -hex 32 > FILE; chmod 600 FILE; start"
        " intercept with --secret-file FILE, and tcpcopy with a copy of it",
    )
    return Finding(CHECK, Level.NOTE, text, steps, _HOP)


def _down(relay: RelayFacts, context: Context, level: Level) -> Finding:
    text = f"intercept {relay.name}: {relay.problem or 'no answer'}"
    where = f"on assistant {relay.address}"
    fault = relay.fault
    steps: tuple[str, ...]
    if fault in (RelayFault.SECRET_MISSING, RelayFault.SECRET_WRONG):
        steps = (f"{where}: {_SAME_SECRET.format(relay.address)}",)
        if "it wants a secret" in relay.problem:
            steps = (f"on online: give tcpcopy --secret-file FILE, a copy of {relay.address}'s",)
        elif "it has no secret" in relay.problem:
            steps = (f"{where}: start intercept with --secret-file FILE, a copy of online's",)
    elif fault is RelayFault.CLASSIC:
        text += ", and IPv6 targets, a secret, TLS or --relay native need the native one"
        steps = (
            f"{where}: run this project's intercept (intercept -v), without --relay classic",
            "on online: or do without them: no --secret-file, --tls, --relay native, IPv6 targets",
        )
    elif fault is RelayFault.PROTOCOL:
        steps = (f"{where}: tcpcopy --version and intercept -v must be of one version",)
    elif fault is RelayFault.TLS:
        steps = (f"{where}: start intercept with --tls as tcpcopy is, or neither",)
    elif relay.was_reached:
        steps = (f"{where}: its log says why (--allow, --max-peers, -c, --tls)",)
    else:
        steps = named(remedies.relay_down(context, [relay.name]))
    return Finding(CHECK, level, text, steps, _HOP)
