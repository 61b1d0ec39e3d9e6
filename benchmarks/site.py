"""Where a scenario runs: a lab with servers, loads and copiers, all ended after each run."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import account
from benchmarks.copier import Copier, Variant
from benchmarks.profiling import Profile, Recorder
from benchmarks.servers import Server
from tcpcopy.demo.netns import Host, Lab, LabError
from tcpcopy.demo.processes import Interrupts, Program, end_all

_QUIET_SHARE = 0.03  # of one core: less is housekeeping
_QUIET_PAUSE_S = 0.1
_QUIET_TIMEOUT_S = 10.0


@dataclass
class Site:
    """Where a scenario runs: a lab, and how one asks it to stop."""

    lab: Lab
    interrupts: Interrupts
    seconds: float  # of load in each run
    sessions: int = 10_000  # held open where that is measured
    profiles: Path | None = None  # directory for samples of where time goes; None: take none
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def copier(self, variant: Variant) -> Copier | None:
        """The variant's programs, not started; None for the one that copies nothing."""
        if variant.build is None:
            return None
        directory = self.lab.directory / f"copier-{next(self.numbers)}"
        return Copier(self.lab, variant.build, variant.mode, directory, self.interrupts)

    def servers(self, kind: type[Server]) -> tuple[Server, Server]:
        """A server on online and one on target, started."""
        pair = []
        for host in (self.lab.online, self.lab.target):
            server = kind(host, self.lab.directory / f"server-{next(self.numbers)}")
            server.start()
            pair.append(server)
        return pair[0], pair[1]

    def wait_end(self, program: Program, timeout: float) -> None:
        """Wait until a load has ended. Raises `LabError` if it fails or takes too long."""
        deadline = time.monotonic() + timeout
        while program.alive:
            if time.monotonic() > deadline:
                raise LabError(program.describe(f"still runs after {timeout:g} s"))
            self.interrupts.sleep(0.02)
        if program.returncode:
            raise LabError(program.describe(f"ended with {program.returncode}"))

    def start_load(self, command: list[str], name: str = "load") -> Program:
        """Start a program on the client host."""
        return self.lab.client.start(command, name=name)

    def path(self, name: str) -> Path:
        """A new file of the lab."""
        return self.lab.directory / f"{next(self.numbers)}-{name}"

    def wait_quiet(self, copier: Copier) -> None:
        """Wait until the copier's programs have nearly nothing to do."""
        deadline = time.monotonic() + _QUIET_TIMEOUT_S
        before, since = copier.usage(), time.monotonic()
        while time.monotonic() < deadline:
            self.interrupts.sleep(_QUIET_PAUSE_S)
            now, at = copier.usage(), time.monotonic()
            spent_us = sum(usage.since(before[name]).total_us for name, usage in now.items())
            if spent_us < _QUIET_SHARE * (at - since) * 1e6:
                return
            before, since = now, at

    def profile(self, copier: Copier, name: str) -> dict[str, Recorder]:
        """Begin to sample where the copier's programs spend their time, if that is wanted."""
        if self.profiles is None:
            return {}
        self.profiles.mkdir(parents=True, exist_ok=True)
        recorders = {
            program: Recorder(running, self.profiles / f"{name}-{program}.data")
            for program, running in copier.programs.items()
        }
        self.lab.programs += [recorder.perf for recorder in recorders.values()]
        self.interrupts.sleep(0.5)  # until perf has attached
        return recorders

    def wait_for(self, program: Program, word: str, timeout: float) -> None:
        """Wait until a program has written `word`. Raises `LabError`."""
        deadline = time.monotonic() + timeout
        while word not in program.output():
            if not program.alive or time.monotonic() > deadline:
                raise LabError(program.describe(f"did not say {word!r} in {timeout:g} s"))
            self.interrupts.sleep(0.05)

    def clear(self) -> None:
        """End all programs of a run, and forget what they wrote."""
        end_all(self.lab.programs)
        for program in self.lab.programs:
            # The next run's programs get the same names: what it waits for must not be there yet.
            program.log_path.unlink(missing_ok=True)
        self.lab.programs.clear()
        self.lab.classic_off()


def device_packets(host: Host) -> account.Packets:
    """Packets that have gone through a host's device."""
    return account.device_packets(host.run("cat", "/proc/net/dev"), "eth0")


def end_profiles(recorders: dict[str, Recorder]) -> dict[str, Profile]:
    """End the recordings; what each has found."""
    return {name: recorder.stop() for name, recorder in recorders.items()}
