"""One build's programs at work in a lab: started, watched, ended."""

from __future__ import annotations

import json
import re
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import account
from benchmarks.builds import Build
from tcpcopy.demo.netns import Lab, LabError
from tcpcopy.demo.processes import Interrupts, Program
from tests.lab.scenario import PORT, RELAY_PORT

_READY_S = 20.0
_END_S = 20.0
#: Modes that send frames (-o), and whether the device may cut large segments.
LINK_MODES = {"link": "on", "link-no-tso": "off"}
#: Classic mode with several workers.
WORKER_MODES = {"workers-2": 2, "workers-4": 4}
_ANSWERS_DROPPED = re.compile(r"(\d+) answers lost by the kernel")


@dataclass(frozen=True, slots=True)
class Variant:
    """A build in a mode; no build: online's traffic is not copied."""

    build: Build | None
    mode: str = ""

    @property
    def name(self) -> str:
        return f"{self.build.name}, {self.mode}" if self.build else "no copy"


class Copier:
    """tcpcopy on online, and intercept on assistant in classic and link mode."""

    def __init__(
        self, lab: Lab, build: Build, mode: str, directory: Path, interrupts: Interrupts
    ) -> None:
        self.lab = lab
        self.build = build
        self.mode = mode
        self.interrupts = interrupts
        self.directory = directory
        self.report: dict[str, Any] = {}
        self.intercept: Program | None = None
        directory.mkdir()

    def start(self) -> None:
        """Start what the mode needs; return when tcpcopy captures."""
        lab = self.lab
        arguments = ["-x", f"{PORT}-{lab.target.v4}:{PORT}"]
        if self.mode != "socket":
            lab.classic()
            self.intercept = self._start_intercept()
            arguments += ["-s", lab.assistant.v4]
        if self.mode in WORKER_MODES:
            arguments += ["--workers", str(WORKER_MODES[self.mode])]
        if self.mode in LINK_MODES:
            arguments += ["-o", "eth0"]
            lab.online.run("ethtool", "-K", "eth0", "tso", LINK_MODES[self.mode])
        if self.build.is_c:
            arguments += ["-l", str(self.directory / "tcpcopy.log")]
        else:
            arguments += ["--json", str(self.directory / "report.json")]
        self.tcpcopy = lab.online.start(
            [*self.build.tcpcopy, *arguments], name="tcpcopy", env=self.build.environment
        )
        if self.build.is_c:
            self.tcpcopy.wait_sockets(RELAY_PORT, "01")
            self.interrupts.sleep(0.3)  # it says nothing when capture is on
        else:
            self._wait_for(self.tcpcopy, r"\bready\b")

    def _start_intercept(self) -> Program:
        command = [*self.build.intercept, "-i", "eth0", "-F", f"tcp and src port {PORT}"]
        if self.build.is_c:
            command += ["-l", str(self.directory / "intercept.log")]
        program = self.lab.assistant.start(command, name="intercept", env=self.build.environment)
        program.wait_sockets(RELAY_PORT)
        return program

    def _wait_for(self, program: Program, pattern: str) -> None:
        deadline = time.monotonic() + _READY_S
        while not re.search(pattern, program.output()):
            self.interrupts.sleep(0.02)
            if not program.alive or time.monotonic() > deadline:
                raise LabError(program.describe(f"is not ready in {_READY_S:g} s"))

    @property
    def programs(self) -> dict[str, Program]:
        """What runs, by name."""
        running = {"tcpcopy": self.tcpcopy}
        return running | ({"intercept": self.intercept} if self.intercept else {})

    def usage(self) -> dict[str, account.Usage]:
        """CPU time of each program until now."""
        return {name: account.usage(program.pid) for name, program in self.programs.items()}

    def resident(self, kind: str = "VmRSS") -> dict[str, int]:
        """Resident bytes of each program, as `account.resident_bytes` has them."""
        return {
            name: account.resident_bytes(program.pid, kind)
            for name, program in self.programs.items()
        }

    def check(self) -> None:
        """Raises `LabError` if a program has ended by itself."""
        for program in self.programs.values():
            if not program.alive:
                raise LabError(program.describe(f"ended by itself with {program.returncode}"))

    def stop(self) -> int | None:
        """End the programs as a user would; return the packets the kernel dropped, if known."""
        raw_drops = account.raw_socket_drops(self.tcpcopy.pid)
        for program in self.programs.values():
            self._end(program)
        self.lab.classic_off()
        if self.mode in LINK_MODES:
            self.lab.online.run("ethtool", "-K", "eth0", "tso", "on")
        if self.build.is_c:
            return raw_drops
        self.report = json.loads((self.directory / "report.json").read_text())
        return int(self.report["kernel"]["dropped"])

    @property
    def captured(self) -> int:
        """Packets that the kernel gave tcpcopy, after `stop`; 0 for a program that does not say."""
        return int(self.report["kernel"]["received"]) if self.report else 0

    @property
    def answers_dropped(self) -> int | None:
        """Answers that the kernel could not hand to intercept, after `stop`, if known."""
        if self.intercept is None or self.build.is_c:
            return None
        found = _ANSWERS_DROPPED.findall(self.intercept.output())
        return int(found[-1]) if found else 0

    def _end(self, program: Program) -> None:
        program.send_signal(signal.SIGINT)
        deadline = time.monotonic() + _END_S
        while program.alive:
            if time.monotonic() > deadline:
                program.kill()
                raise LabError(program.describe(f"still ran {_END_S:g} s after it was to end"))
            self.interrupts.sleep(0.02)
