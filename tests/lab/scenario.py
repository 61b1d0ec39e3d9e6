"""Scenarios in few lines: servers on online and target, load, a replay, the comparison.

online, target = scenario.servers()
with scenario.replay(mode) as replay:
    scenario.load("--connections", 50, "--requests", 200)
    scenario.wait_for_target()
result = scenario.compare()
assert result.clean and result.exact == 50, result
assert replay.exit_code == 0, replay.output
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tcpcopy.demo.netns import Host, Lab, LabError
from tcpcopy.demo.processes import Program
from tests.lab.compare import Comparison, Stream, compare, load

ROOT = Path(__file__).resolve().parents[2]
PORT = 8080
RELAY_PORT = 36524
LOCAL_PORT = 8081  # of the target on 127.0.0.1 of the online host
MODES = ("socket", "classic")
ALL_MODES = (*MODES, "local", "tunnel")

# The C programs, for the tests that put one of them on the other end of the relay.
C_PROGRAMS = {
    name: Path(os.environ.get(f"LAB_C_{name.upper()}", f"/usr/local/{name}/sbin/{name}"))
    for name in ("tcpcopy", "intercept")
}


def python(module: str, *arguments: object) -> list[str]:
    """Command line of a module, under the interpreter that runs the tests."""
    return [sys.executable, "-m", module, *map(str, arguments)]


def _words(arguments: tuple[object, ...]) -> list[str]:
    """Arguments of a lab program; a string may hold several: "--connections 50 --end rst"."""
    return [word for argument in arguments for word in str(argument).split()]


def environment() -> dict[str, str]:
    """The tests' own environment; modules of the repository are found from any directory."""
    entries = [str(ROOT)]
    entries += [str(Path(entry).resolve()) for entry in sys.path if entry.endswith("src")]
    entries += [e for e in os.environ.get("PYTHONPATH", "").split(os.pathsep) if e]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(entries))}


def wait_until(condition: Any, timeout: float, pause: float = 0.02) -> bool:
    """Poll `condition()` until it is true; False if `timeout` seconds go by before."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True


class Server:
    """A framed server and its record file. May be stopped; a new one gets a new file."""

    def __init__(self, program: Program, records: Path) -> None:
        self.program = program
        self.records = records
        self._offset = self._lines = 0

    def count(self) -> int:
        """Connections that have ended (and been recorded) until now."""
        if self.records.exists():
            with self.records.open("rb") as file:
                file.seek(self._offset)
                new = file.read()
            self._offset += len(new)
            self._lines += new.count(b"\n")
        return self._lines

    def snapshot(self) -> list[Stream]:
        """All streams until now, open ones as they are. `count` is of no use afterwards."""
        before = self.program.output().count("dumped")
        self.program.send_signal(signal.SIGUSR1)
        if not wait_until(lambda: self.program.output().count("dumped") > before, 10):
            raise LabError(self.program.describe("gave no snapshot"))
        return load(self.records)

    def stop(self) -> list[Stream]:
        """End the server (open connections are recorded as open); return all its streams."""
        if self.program.alive:
            self.program.stop(signal.SIGTERM)
        return load(self.records)


class Replay:
    """A running tcpcopy, with intercept in classic mode."""

    def __init__(self, tcpcopy: Program, intercepts: list[Program], report_path: Path) -> None:
        self.tcpcopy = tcpcopy
        self.intercepts = intercepts
        self.report_path = report_path
        self.exit_code: int | None = None

    def stop(self, number: int = signal.SIGINT, timeout: float = 30.0) -> int:
        """End tcpcopy as a user would, then intercept; return tcpcopy's exit code."""
        if self.exit_code is None:
            self.exit_code = self.tcpcopy.stop(number, timeout)
            for intercept in self.intercepts:
                if intercept.alive:
                    intercept.stop()
        return self.exit_code

    @property
    def report(self) -> dict[str, Any]:
        """What `--json` wrote at the end."""
        result = json.loads(self.report_path.read_text())
        assert isinstance(result, dict)
        return result

    @property
    def output(self) -> str:
        """What tcpcopy printed."""
        return self.tcpcopy.output()


class Scenario:
    """Servers, load and replay in one lab; what was started is ended with the lab."""

    def __init__(self, lab: Lab, *, one_host: bool = False) -> None:
        """`one_host`: the target is a server on 127.0.0.1 of the online host (local mode).

        That host checks where packets come from, as strictly as it can.
        """
        self.lab = lab
        self.one_host = one_host
        if one_host:
            names = ("all", "default", "lo", "eth0")
            lab.online.sysctl({f"net/ipv4/conf/{name}/rp_filter": "1" for name in names})
        # Killed programs leave files, which are the lab's.
        self.environment = {**environment(), "RUNTIME_DIRECTORY": str(lab.directory / "run")}
        self.online: list[Server] = []
        self.target: list[Server] = []
        self._numbers = 0

    def _path(self, name: str) -> Path:
        self._numbers += 1
        return self.lab.directory / f"{self._numbers:02d}-{name}"

    # -- servers ------------------------------------------------------------------------------

    def serve(self, host: Host, *arguments: object, port: int = PORT) -> Server:
        """Start a framed server (`server._parser` has its options) on `host`."""
        records = self._path(f"{host.role}.jsonl")
        where = host
        if self.one_host and host is self.lab.target:
            where = self.lab.online
            port = LOCAL_PORT
            arguments = ("--address 127.0.0.1", *arguments)
        command = python(
            "tests.lab.server", "--port", port, "--records", records, *_words(arguments)
        )
        program = where.start(command, name="server", env=self.environment)
        program.wait_for(r"^ready")
        server = Server(program, records)
        (self.online if host is self.lab.online else self.target).append(server)
        return server

    def servers(
        self, *arguments: object, online: tuple[object, ...] = (), target: tuple[object, ...] = ()
    ) -> tuple[Server, Server]:
        """One server on online and one on target, with common and own arguments."""
        return (
            self.serve(self.lab.online, *arguments, *online),
            self.serve(self.lab.target, *arguments, *target),
        )

    # -- load ---------------------------------------------------------------------------------

    def start_load(
        self, *arguments: object, to: str = "", host: Host | None = None, port: int = PORT
    ) -> Program:
        """Start a load client (`script.parser` has its options) towards online, or `to`."""
        command = python("tests.lab.client", to or self.lab.online.v4, port, *_words(arguments))
        return (host or self.lab.client).start(command, name="load", env=self.environment)

    def load(self, *arguments: object, timeout: float = 60.0, **where: Any) -> dict[str, Any]:
        """Run a load client to its end; return its totals. Raises `LabError` if any failed."""
        return self.finish_load(self.start_load(*arguments, **where), timeout)

    def finish_load(self, program: Program, timeout: float = 60.0) -> dict[str, Any]:
        """Wait for a load client; return its totals. Raises `LabError` if any connection failed."""
        if program.wait(timeout):
            raise LabError(program.describe("failed"))
        totals = json.loads(program.output().splitlines()[-1])
        assert isinstance(totals, dict)
        return totals

    # -- network ------------------------------------------------------------------------------

    def bad_link(self, *arguments: object, host: Host | None = None) -> Program:
        """Put a bad cable on the target's link, or another's (`badlink` has the options)."""
        ends = self.lab.cut_link(host or self.lab.target)
        command = python("tests.lab.badlink", *ends, *_words(arguments))
        program = self.lab.bridge.start(command, name="badlink", env=self.environment)
        program.wait_for(r"^ready")
        return program

    # -- replay -------------------------------------------------------------------------------

    def start_intercept(self, *arguments: object, c: bool = False) -> Program:
        """Start intercept on the assistant, ready to be connected to."""
        command = python("tcpcopy.intercept_cli", "-i", "any")
        if c:
            command = [str(C_PROGRAMS["intercept"]), "-i", "eth0"]
            command += ["-l", str(self._path("c-intercept.log"))]
        command += ["-F", f"tcp and src port {PORT}", *map(str, arguments)]
        program = self.lab.assistant.start(command, name="intercept", env=self.environment)
        words = list(arguments)
        program.wait_sockets(
            int(str(words[words.index("-p") + 1])) if "-p" in words else RELAY_PORT
        )
        return program

    @property
    def secret(self) -> Path:
        """A file with a secret."""
        path = self.lab.directory / "secret"
        if not path.exists():
            path.touch(0o600)
            path.write_text("what both of them know\n")
        return path

    def start_tunnel_end(self, *arguments: object, host: Host | None = None) -> Program:
        """Start intercept on the target, ready to be connected to."""
        command = python("tcpcopy.intercept_cli", "--tun", *arguments)
        if "--secret-file" not in command:
            command += ["--secret-file", str(self.secret)]
        where = host or self.lab.target
        program = where.start(list(map(str, command)), name="intercept", env=self.environment)
        program.wait_sockets(RELAY_PORT)
        return program

    def start_tcpcopy(
        self,
        *arguments: object,
        c: bool = False,
        wait: bool = True,
        host: Host | None = None,
        prefix: tuple[str, ...] = (),
    ) -> Replay:
        """Start tcpcopy on online with just these arguments, capturing when this returns.

        `host`: elsewhere. `prefix`: a command that runs it, such as setpriv.
        """
        report = self._path("report.json")
        if c:
            command = [str(C_PROGRAMS["tcpcopy"]), "-l", str(self._path("c-tcpcopy.log"))]
        else:
            command = python("tcpcopy.cli", "--json", report)
        command += map(str, arguments)
        command = [*prefix, *command]
        where = host or self.lab.online
        program = where.start(command, name="tcpcopy", env=self.environment)
        if c:
            program.wait_sockets(RELAY_PORT, "01")
            time.sleep(0.3)  # it says nothing when capture is on
        elif wait:
            program.wait_for(r"\bready\b", 20)
        return Replay(program, [], report)

    @contextmanager
    def replay(
        self,
        mode: str,
        *arguments: object,
        mapped: str = "",
        transfer: str = "",
        c_tcpcopy: bool = False,
        c_intercept: bool = False,
        intercept_arguments: tuple[object, ...] = (),
        host: Host | None = None,
        prefix: tuple[str, ...] = (),
    ) -> Iterator[Replay]:
        """Replay online's traffic to the target within the `with` block; stop at its end.

        `mode` is "socket", "classic", "tunnel" or "local", the latter with the device on the target
        where that is a host of its own. `mapped`: except in socket mode, give `-c` this network.
        `transfer`: instead of the usual `-x`. Programs in C where asked for. `host` and `prefix`:
        as `start_tcpcopy` has them.
        """
        command: list[object] = ["-x", transfer or f"{PORT}-{self.lab.target.v4}:{PORT}"]
        intercepts = []
        if mode == "classic":
            self.lab.classic([mapped] if mapped else None)
            intercepts.append(self.start_intercept(*intercept_arguments, c=c_intercept))
            command += ["-s", self.lab.assistant.v4]
            if mapped:  # the C program knows no other way to name a network
                command += ["-c", mapped.replace(".0/24", ".x") if c_tcpcopy else mapped]
        elif mode == "tunnel":
            intercepts.append(self.start_tunnel_end(*intercept_arguments))
            command += ["--via", "tunnel", "-s", self.lab.target.v4]
            command += ["--secret-file", self.secret]
            if mapped:
                command += ["-c", mapped]
        elif mode == "local":
            command.append("--local")
            if self.one_host:
                command[1] = transfer or f"{PORT}-127.0.0.1:{LOCAL_PORT}"
            else:
                command += ["--send-netns", self.lab.target.namespace]
            if mapped:
                command += ["-c", mapped]
        elif mode != "socket":
            raise ValueError(f"no such mode: {mode}")
        replay = self.start_tcpcopy(*command, *arguments, c=c_tcpcopy, host=host, prefix=prefix)
        replay.intercepts = intercepts
        yield replay
        replay.stop()

    def wait_for_target(self, streams: int = -1, timeout: float = 20.0) -> bool:
        """Wait until the target has recorded as many ended streams as online, or `streams`.

        False after `timeout` seconds; the comparison then says what is missing.
        """

        def enough() -> bool:
            wanted = sum(s.count() for s in self.online) if streams < 0 else streams
            return sum(s.count() for s in self.target) >= wanted

        return wait_until(enough, timeout)

    def compare(self, *, copies: int = 1) -> Comparison:
        """Stop the servers and compare all that was recorded at online and at the target."""
        seen = [-1, sum(server.count() for server in self.online)]
        # The target may have read the last end before online has.
        if self.one_host or seen[-1] < sum(server.count() for server in self.target):

            def is_quiet() -> bool:
                seen.append(sum(server.count() for server in self.online))
                return seen[-1] == seen[-2]

            wait_until(is_quiet, 10, 0.2)
        online = [stream for server in self.online for stream in server.stop()]
        target = [stream for server in self.target for stream in server.stop()]
        return compare(online, target, copies=copies)
