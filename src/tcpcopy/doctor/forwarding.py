"""Do the assistants pass answers on? Asked of the intercepts, without a packet to the target."""

from __future__ import annotations

import select
import time
from typing import Final

from tcpcopy.doctor.line import RelayLine
from tcpcopy.doctor.probe import ProbeConfig

_MS: Final = 1_000_000
_WAIT_NS: Final = 3_000 * _MS


def still_forwards(config: ProbeConfig) -> bool | None:
    """Whether one of them does; None when one of them cannot be asked now. Blocks for seconds.

    One that gives no word of it (another program by now) is taken to do no harm, as at a start.
    """
    lines = [
        RelayLine(host, port, config.relay, config.relay_names.get(host, ""))
        for host, port in config.intercepts
    ]
    try:
        return _ask(lines, config)
    finally:
        for line in lines:
            line.close()


def _ask(lines: list[RelayLine], config: ProbeConfig) -> bool | None:
    now_ns = time.monotonic_ns()
    until_ns = now_ns + _WAIT_NS
    asked: set[str] = set()
    for line in lines:
        line.start(now_ns)
    while now_ns < until_ns:
        for line in lines:
            line.service(now_ns)
            if line.is_up and line.name not in asked:
                asked.add(line.name)
                line.announce(config.flow)
                line.ask(config.flow, watch=False)
        if all(line.reports or (line.is_decided and not line.takes_probes) for line in lines):
            break
        poll = select.poll()
        for line in lines:
            descriptor, events = line.wants()
            if descriptor >= 0:
                poll.register(descriptor, events)
        poll.poll(20)  # short, because a silent intercept is taken for a classic one by the clock
        now_ns = time.monotonic_ns()
    is_v6 = len(config.flow.target) == 16
    told = [report for line in lines for report in line.reports]
    if any(report.forwards_v6 if is_v6 else report.forwards_v4 for report in told):
        return True
    if any(not line.is_up or (line.takes_probes and not line.reports) for line in lines):
        return None
    return False
