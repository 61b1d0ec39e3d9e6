"""All checks of one run, in the order in which a request meets what they look at."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol

from tcpcopy.doctor import host
from tcpcopy.doctor.checks_addresses import check_overlap
from tcpcopy.doctor.checks_capture import (
    check_answer_filter,
    check_capture_filter,
    check_devices,
    check_queue,
    check_ring,
)
from tcpcopy.doctor.checks_firewall import check_firewall, check_relay_firewall
from tcpcopy.doctor.checks_intercept import (
    check_forwarding,
    check_listening,
    check_open,
    check_target_here,
)
from tcpcopy.doctor.checks_limits import (
    check_clock,
    check_conntrack,
    check_intercept_files,
    check_memory,
    check_open_files,
    check_port_rate,
    check_ports,
)
from tcpcopy.doctor.checks_privilege import check_intercept_privilege, check_privilege
from tcpcopy.doctor.checks_route import check_routes, destinations
from tcpcopy.doctor.finding import Finding, Level
from tcpcopy.doctor.host_facts import NetworkFacts, ProcessFacts
from tcpcopy.doctor.plan import InterceptPlan, Plan
from tcpcopy.errors import UsageError
from tcpcopy.namespaces import inside, same
from tcpcopy.report.context import SOCKET


class Reader(Protocol):
    """What reads a host: `host.HostReader`, or a test's."""

    def process(self) -> ProcessFacts: ...
    def network(
        self, destinations: Iterable[bytes], *, enter: str = "", with_firewall: bool = True
    ) -> NetworkFacts: ...
    def new_connections(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Facts:
    """What was read for one run: where is captured, and where is sent from or listened."""

    process: ProcessFacts
    capture: NetworkFacts | None  # None: a running process that may no longer enter it
    other: NetworkFacts


def check_tcpcopy(
    plan: Plan, reader: Reader | None = None, *, is_running: bool = False
) -> list[Finding]:
    """Check this host for a tcpcopy. `is_running`: it runs, and has opened all that it needs.

    Raises: UsageError when a namespace cannot be entered.
    """
    reader = reader or host.HostReader()
    process = reader.process()
    shared = same(plan.capture_namespace, plan.send_namespace)
    with inside(plan.send_namespace):
        send = reader.network(destinations(plan), enter=host.entering(plan.send_namespace))
    capture: NetworkFacts | None = send
    if not shared:
        try:
            with inside(plan.capture_namespace):
                enter = host.entering(plan.capture_namespace)
                capture = reader.network((), enter=enter, with_firewall=False)
        except UsageError:
            if not is_running:
                raise
            capture = None
    if plan.captures and plan.filter_program and not is_running and capture is not None:
        with inside(plan.capture_namespace):
            capture = replace(capture, ring_problem=host.ring_problem(plan))
    if plan.mode == SOCKET and plan.captures and not is_running and capture is not None:
        with inside(plan.capture_namespace):
            capture = replace(capture, new_connections=reader.new_connections())
    return judge_tcpcopy(plan, Facts(process, capture, send), is_running=is_running)


def judge_tcpcopy(plan: Plan, facts: Facts, *, is_running: bool = False) -> list[Finding]:
    """What the facts mean for a tcpcopy."""
    process, capture, send = facts.process, facts.capture, facts.other
    findings = []
    if not is_running and capture is not None:  # else it has given up what it needed to begin
        findings += check_privilege(plan, process, capture, send)
    if plan.captures and capture is None:
        text = "not looked at: to enter its network namespace again takes CAP_SYS_ADMIN"
        findings.append(Finding("devices", Level.NOTE, text))
    elif plan.captures and capture is not None:
        findings += check_devices(plan.devices, capture)
        findings += check_capture_filter(plan)
        if not is_running:  # else it has told so itself, by what it was granted
            findings += check_ring(plan, capture)
            findings += check_queue(plan.buffer_bytes, process, capture)
    findings += check_routes(plan, send)
    findings += check_overlap(plan, send)
    findings += check_firewall(plan, send)
    findings += check_conntrack(plan, send)
    findings += check_ports(plan, send)
    if capture is not None:
        findings += check_port_rate(plan, send, capture.new_connections)
    findings += check_open_files(plan, process)
    findings += check_memory(plan, process)
    findings += check_clock(plan.needs_intercept, process)
    return findings


def check_intercept(
    plan: InterceptPlan, reader: Reader | None = None, *, is_running: bool = False
) -> list[Finding]:
    """Check this host for an intercept. `is_running`: it runs, and has opened all that it needs.

    Raises: UsageError when a namespace cannot be entered.
    """
    reader = reader or host.HostReader()
    process = reader.process()
    shared = same(plan.capture_namespace, plan.listen_namespace)
    with inside(plan.capture_namespace):
        capture = reader.network((), enter=host.entering(plan.capture_namespace))
    listen = capture
    with inside(plan.listen_namespace):
        if not shared:
            listen = reader.network((), enter=host.entering(plan.listen_namespace))
        if not is_running:
            listen = replace(listen, bind_problem=host.bind_problem(plan.host, plan.port))
    return judge_intercept(plan, Facts(process, capture, listen), is_running=is_running)


def judge_intercept(
    plan: InterceptPlan, facts: Facts, *, is_running: bool = False
) -> list[Finding]:
    """What the facts mean for an intercept."""
    process, capture, listen = facts.process, facts.capture, facts.other
    assert capture is not None
    findings = check_intercept_privilege(plan, process, capture)
    if not plan.uses_tun:
        findings += check_devices(plan.devices, capture)
        findings += check_answer_filter(plan)
        findings += check_forwarding(plan, capture)
        findings += check_target_here(plan, capture)
        findings += check_queue(plan.buffer_bytes, process, capture)
    findings += check_listening(plan, listen)
    if not is_running:  # else it has said so itself
        findings += check_open(plan)
    findings += check_relay_firewall(plan, listen)
    findings += check_intercept_files(plan, process)
    findings += check_clock(True, process)
    return findings
