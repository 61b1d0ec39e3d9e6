"""The rights that a mode takes."""

from __future__ import annotations

from tcpcopy.doctor.finding import Finding, Level
from tcpcopy.doctor.host_facts import CAP_NET_ADMIN, CAP_NET_RAW, NetworkFacts, ProcessFacts
from tcpcopy.doctor.plan import InterceptPlan, Plan
from tcpcopy.report.context import CLASSIC, LINK, LOCAL

_CHECK = "privilege"
_NAMES = {CAP_NET_RAW: "NET_RAW", CAP_NET_ADMIN: "NET_ADMIN"}


def check_privilege(
    plan: Plan, process: ProcessFacts, capture: NetworkFacts, send: NetworkFacts
) -> list[Finding]:
    """What tcpcopy may do on this host."""
    missing: dict[int, str] = {}
    if plan.captures and capture.capture_problem:
        missing[CAP_NET_RAW] = f"to capture on devices ({capture.capture_problem})"
    elif plan.mode == CLASSIC and send.raw_problem:
        missing[CAP_NET_RAW] = f"to send packets with client addresses ({send.raw_problem})"
    elif plan.mode == LINK and send.capture_problem:
        missing[CAP_NET_RAW] = f"to send frames ({send.capture_problem})"
    if plan.mode == LOCAL and not process.has(CAP_NET_ADMIN):
        missing[CAP_NET_ADMIN] = "to make the TUN device of local mode"
    findings = [_missing("tcpcopy", process, which, why) for which, why in missing.items()]
    if plan.mode == LOCAL:
        findings += _tun(process)
    if not findings:
        needs_none = plan.is_recorded and not plan.forges and plan.mode != LOCAL
        text = "none is needed" if needs_none else "this process has what it needs"
        findings.append(Finding(_CHECK, Level.OK, text))
    return findings


def check_intercept_privilege(
    plan: InterceptPlan, process: ProcessFacts, capture: NetworkFacts
) -> list[Finding]:
    """What intercept may do on this host."""
    findings = []
    if plan.uses_tun:
        if not process.has(CAP_NET_ADMIN):
            why = "to make the TUN device"
            findings.append(_missing("intercept", process, CAP_NET_ADMIN, why))
        findings += _tun(process)
    elif capture.capture_problem:
        why = f"to capture the target's answers ({capture.capture_problem})"
        findings.append(_missing("intercept", process, CAP_NET_RAW, why))
    return findings or [Finding(_CHECK, Level.OK, "this process has what it needs")]


def _missing(program: str, process: ProcessFacts, which: int, why: str) -> Finding:
    name = _NAMES[which]
    capabilities = f"cap_{name.lower()}"
    if not process.may_have(which):
        remedy: tuple[str, ...] = (
            f"on this host: docker run --cap-add={name} ...",
            f"in Kubernetes: securityContext: {{capabilities: {{add: [{name}]}}}}",
        )
    elif process.is_root and process.has(which):
        # It has the right, but not here: a namespace that belongs to another user namespace.
        remedy = (f"on this host: run {program} as root outside of user namespaces",)
    else:
        remedy = (
            f"on this host: sudo {program} ...",
            f"on this host: sudo setcap {capabilities}+ep {process.interpreter}",
        )
    return Finding(_CHECK, Level.FAULT, f"CAP_{name} is missing, {why}", remedy)


def _tun(process: ProcessFacts) -> list[Finding]:
    if process.has_tun:
        return []
    remedy = (
        "on this host: modprobe tun",
        "on this host: docker run --device=/dev/net/tun ...",
    )
    return [Finding("tun", Level.FAULT, "there is no /dev/net/tun", remedy)]
