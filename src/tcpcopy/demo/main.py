"""`tcpcopy demo`: copy live traffic between two servers on this machine, and compare them."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from tcpcopy.demo import traffic
from tcpcopy.demo.netns import Host, Lab, missing_requirement
from tcpcopy.demo.processes import Interrupted, Interrupts, LabError, Program, end_all
from tcpcopy.errors import UsageError
from tcpcopy.version import build_kind

MODES = ("socket", "classic")
_CATCH_UP_S = 5.0  # without another request at the target, it has all it will get
_END_S = 15.0


@dataclass(frozen=True, slots=True)
class Result:
    """What one mode's run came to. Counts are of sessions unless they say requests."""

    mode: str
    online_requests: int
    target_requests: int
    online_sessions: int
    target_sessions: int
    exact: int
    lost: int  # at online and, request by request, not so at the target
    extra: int  # at the target only
    online_latency: dict[str, float | None]
    target_latency: dict[str, float | None]
    exit_code: int  # of tcpcopy

    @property
    def arrived(self) -> bool:
        """Whether there was traffic and exactly that is at the target."""
        return self.exact > 0 and not self.lost and not self.extra

    @property
    def complete(self) -> bool:
        """Whether all arrived and tcpcopy says so too."""
        return self.arrived and self.exit_code == 0

    def table(self) -> str:
        """The result in columns."""
        rows = [
            ("sessions", f"{self.online_sessions:,}", f"{self.target_sessions:,}"),
            ("requests", f"{self.online_requests:,}", f"{self.target_requests:,}"),
            ("sessions exact", "", f"{self.exact:,}"),
            ("sessions lost", "", f"{self.lost:,}"),
        ]
        if self.extra:
            rows.append(("sessions not from online", "", f"{self.extra:,}"))
        for name, key in (("latency, median", "p50_ms"), ("latency, 99 %", "p99_ms")):
            pair = (self.online_latency.get(key), self.target_latency.get(key))
            shown = ["-" if value is None else f"{value:.3f} ms" for value in pair]
            rows.append((name, shown[0], shown[1]))
        lines = [f"  {self.mode} mode".ljust(28) + f"{'online':>14}{'target':>14}"]
        lines += [f"    {name:<24}{left:>14}{right:>14}" for name, left, right in rows]
        return "\n".join(lines)


class Demo:
    """One demonstration in a lab that is built."""

    def __init__(self, lab: Lab, options: argparse.Namespace, interrupts: Interrupts) -> None:
        self.lab = lab
        self.options = options
        self.interrupts = interrupts
        self.wrk = not options.python and shutil.which("wrk") is not None
        nginx = "" if options.python else traffic.Nginx.describe()
        self.server_kind = traffic.Nginx if nginx else traffic.PythonServer
        self.server_name = nginx or traffic.PythonServer.describe()

    def run(self) -> list[Result]:
        """All modes asked for. Raises `Interrupted` and `LabError`."""
        options = self.options
        lab = self.lab
        say(
            f"hosts: client {lab.client.v4}, online {lab.online.v4}, target {lab.target.v4}, "
            f"assistant {lab.assistant.v4} (network namespaces)"
        )
        say(
            f"{self.server_name} on online and target; load by {'wrk' if self.wrk else 'Python'}: "
            f"{options.clients} clients for {options.seconds} s; tcpcopy is {build_kind()}"
        )
        results = []
        for mode in options.modes:
            results.append(self._mode(mode))
            self._end_programs()
            say(results[-1].table())
        return results

    def _mode(self, mode: str) -> Result:
        lab = self.lab
        directory = lab.directory / mode
        online = self.server_kind.start(lab.online, directory / "online")
        target = self.server_kind.start(lab.target, directory / "target")
        taps = [self._start_tap(host) for host in (lab.online, lab.target)]
        for server in (online, target):
            server.program.wait_sockets(traffic.PORT)
        for tap in taps:
            tap.wait_for("^ready")
        self.interrupts.check()
        tcpcopy = self._start_replay(mode)
        load = traffic.start_load(
            lab.client, lab.online.v4, self.options.clients, self.options.seconds, wrk=self.wrk
        )
        self._watch(mode, online, target, tcpcopy, load)
        exit_code = self._end(tcpcopy, signal.SIGINT)
        latencies = []
        for tap in taps:
            self._end(tap, signal.SIGTERM)
            latencies.append(json.loads(tap.output().splitlines()[-1]))
        online_sessions, target_sessions = online.sessions(), target.sessions()
        exact, lost, extra = traffic.match(online_sessions, target_sessions)
        result = Result(
            mode=mode,
            online_requests=online.requests(),
            target_requests=target.requests(),
            online_sessions=len(online_sessions),
            target_sessions=len(target_sessions),
            exact=exact,
            lost=lost,
            extra=extra,
            online_latency=latencies[0],
            target_latency=latencies[1],
            exit_code=exit_code,
        )
        if not result.complete:
            say(tcpcopy.describe(f"ended with exit code {exit_code}, its last words:"))
        return result

    def _start_tap(self, host: Host) -> Program:
        command = [sys.executable, "-m", "tcpcopy.demo.tap", "eth0", host.v4, str(traffic.PORT)]
        return host.start(command, name="tap")

    def _start_replay(self, mode: str) -> Program:
        """Start what the mode needs; return tcpcopy once it captures."""
        lab, port = self.lab, traffic.PORT
        arguments = ["-x", f"{port}-{lab.target.v4}:{port}"]
        if mode == "classic":
            lab.classic()
            say(f"on target:    ip route add {lab.client.v4} via {lab.assistant.v4}")
            filter_text = f"tcp and src port {port}"
            say(f"on assistant: intercept -i any -F '{filter_text}'")
            command = [sys.executable, "-m", "tcpcopy.intercept_cli"]
            intercept = lab.assistant.start(
                [*command, "-i", "any", "-F", filter_text], name="intercept"
            )
            self._wait_ready(intercept)
            arguments += ["-s", lab.assistant.v4]
        say(f"on online:    tcpcopy {' '.join(arguments)}")
        command = [sys.executable, "-m", "tcpcopy.cli", *arguments]
        tcpcopy = lab.online.start(command, name="tcpcopy")
        self._wait_ready(tcpcopy)
        return tcpcopy

    def _wait_ready(self, program: Program, timeout: float = 20.0) -> None:
        deadline = time.monotonic() + timeout
        while True:
            self.interrupts.sleep(0.05)
            alive = program.alive
            if re.search(r"\b(ready|listening)\b", program.output()):
                return
            if not alive:
                raise LabError(program.describe(f"ended with {program.returncode}"))
            if time.monotonic() > deadline:
                raise LabError(program.describe(f"is not ready in {timeout:g} s"))

    def _watch(
        self,
        mode: str,
        online: traffic.WebServer,
        target: traffic.WebServer,
        tcpcopy: Program,
        load: Program,
    ) -> None:
        """Show progress until the load is over and the target has caught up or stands still."""
        begin = moved = time.monotonic()
        shown, said = 0, (-1, -1)
        before = -1
        while True:
            self.interrupts.sleep(0.1)
            now = time.monotonic()
            at_online, at_target = online.requests(), target.requests()
            if at_target != before:
                before, moved = at_target, now
            caught_up = not load.alive and at_online == at_target
            seconds = int(now - begin)
            if seconds > shown or (caught_up and said != (at_online, at_target)):
                shown, said = seconds, (at_online, at_target)
                counts = f"online {at_online:6,}   target {at_target:6,} requests"
                say(f"{mode}: {seconds:2} s   {counts}")
            if not tcpcopy.alive:
                raise LabError(tcpcopy.describe(f"ended by itself with {tcpcopy.returncode}"))
            if caught_up or (not load.alive and now - moved > _CATCH_UP_S):
                break
        if load.returncode or "Socket errors" in load.output():
            raise LabError(load.describe("had failures"))

    def _end(self, program: Program, number: int) -> int:
        """Ask a program to end and wait for it; return its exit code."""
        program.send_signal(number)
        deadline = time.monotonic() + _END_S
        while (code := program.returncode) is None:
            if time.monotonic() > deadline:
                raise LabError(program.describe(f"still runs {_END_S:g} s after it was to end"))
            self.interrupts.sleep(0.02)
        return code

    def _end_programs(self) -> None:
        end_all(self.lab.programs)
        self.lab.programs.clear()
        self.lab.classic_off()


def say(text: str) -> None:
    """Show a line at once."""
    print(text, flush=True)


class _Parser(argparse.ArgumentParser):
    """Bad usage is one line."""

    def error(self, message: str) -> NoReturn:
        option, _, problem = message.removeprefix("argument ").partition(": ")
        raise UsageError(option, "", problem or "not understood", "see tcpcopy demo --help")


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    """The options. Raises `UsageError`."""
    parser = _Parser(
        prog="tcpcopy demo",
        description="Copies live traffic between two servers in network namespaces of this "
        "machine, first in socket mode, then in classic mode, and compares what they got.",
        allow_abbrev=False,
    )
    parser.add_argument("--seconds", type=int, default=6, help="of load in each mode, 2 to 60")
    parser.add_argument("--clients", type=int, default=0, help="connections at once, 1 to 500")
    parser.add_argument("--mode", choices=MODES, help="only this mode")
    parser.add_argument("--python", action="store_true", help="do not use nginx and wrk")
    options = parser.parse_args(argv)
    if not 2 <= options.seconds <= 60:
        raise UsageError("--seconds", options.seconds, "out of range", "give 2 to 60")
    if not 0 <= options.clients <= 500:
        raise UsageError("--clients", options.clients, "out of range", "give 1 to 500")
    # Uncompiled, tcpcopy is some ten times slower; the servers and the load run here as well.
    options.clients = options.clients or (50 if build_kind() == "compiled" else 15)
    options.modes = (options.mode,) if options.mode else MODES
    return options


def main(argv: Sequence[str]) -> int:
    """Run the demonstration; return 0 if all arrived, 1 if not, 2 if it could not be run.

    130 and the like (128 + signal) after a signal. Nothing is left behind in any case.
    """
    try:
        options = _parse(argv)
    except UsageError as error:
        print(f"tcpcopy demo: {error}", file=sys.stderr)
        return 2
    problem = missing_requirement()
    if problem:
        print(f"tcpcopy demo: {problem}", file=sys.stderr)
        return 2
    with Interrupts().installed() as interrupts:
        lab = Lab()
        try:
            lab.build()
            results = Demo(lab, options, interrupts).run()
        except Interrupted as signal_came:
            say("interrupted; removing the hosts")
            return 128 + signal_came.number
        except LabError as error:
            print(f"tcpcopy demo: {error}", file=sys.stderr)
            return 2
        finally:
            lab.close()
    say(
        "latency: from a request's first packet in to the first byte of its answer out, on each "
        "server's own network device, for a quarter of the clients"
    )
    if all(result.complete for result in results):
        say("all sessions arrived, request by request")
        return 0
    if all(result.arrived for result in results):
        say("all sessions arrived, but tcpcopy reports a problem")
    else:
        say("not all sessions arrived")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
