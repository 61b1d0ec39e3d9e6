"""Traffic recorded with tcpdump on online, and replayed from the file afterwards."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tcpcopy.demo.processes import Program
from tests.lab.scenario import PORT, Replay, Scenario, python, wait_until

# Nothing may be opened that needs a privilege: all capabilities are gone for good.
UNPRIVILEGED = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs")


@contextmanager
def recording(scenario: Scenario, name: str = "traffic.pcap", *words: str) -> Iterator[Path]:
    """Record online's traffic, both directions, within the `with` block."""
    path = scenario.lab.directory / name
    program = start_tcpdump(scenario, "-w", str(path), *words)
    yield path
    sizes = [-1, -2]

    def is_quiet() -> bool:  # what it has not read yet, it would leave out
        sizes.append(path.stat().st_size)
        return sizes[-1] == sizes[-2] == sizes[-3]

    wait_until(is_quiet, 10, 0.3)
    program.stop(signal.SIGINT)


def start_tcpdump(scenario: Scenario, *words: str) -> Program:
    """tcpdump on online's device, ready; a buffer that no test fills."""
    command = ["tcpdump", "-i", "eth0", "--immediate-mode", "-U", "-s", "0", "-B", "524288", *words]
    program = scenario.lab.online.start([*command, f"tcp port {PORT}"], name="tcpdump")
    program.wait_for("listening on")
    return program


def replay_files(
    scenario: Scenario,
    mode: str,
    *arguments: object,
    transfer: str = "",
    timeout: float = 60.0,
) -> Replay:
    """Replay files to their end: tcpcopy ends by itself. Unprivileged in socket mode."""
    replay = start_replay(scenario, mode, *arguments, transfer=transfer)
    replay.exit_code = replay.tcpcopy.wait(timeout)
    for intercept in replay.intercepts:
        intercept.stop()
    return replay


def start_replay(scenario: Scenario, mode: str, *arguments: object, transfer: str = "") -> Replay:
    """Start to replay files (`-i` among the arguments), as `replay_files` does."""
    report = scenario.lab.directory / f"report-{len(scenario.lab.programs)}.json"
    rule = transfer or f"{PORT}-{scenario.lab.target.v4}:{PORT}"
    command = python("tcpcopy.cli", "--json", report, "-x", rule, *arguments)
    intercepts = []
    if mode == "classic":
        scenario.lab.classic(None)
        intercepts.append(scenario.start_intercept())
        command += ["-s", scenario.lab.assistant.v4]
    else:
        command = [*UNPRIVILEGED, *command]
    program = scenario.lab.online.start(command, name="tcpcopy", env=scenario.environment)
    return Replay(program, intercepts, report)
