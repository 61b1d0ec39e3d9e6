"""Real servers in pairs: started with their own files, compared after a replay, always ended."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Self, TypeVar

import pytest

from tcpcopy.demo.netns import Host, Lab, LabError
from tcpcopy.demo.processes import Program
from tests.lab.scenario import PORT, Replay, Scenario, wait_until

CATCH_UP_S = 15.0
_SYSTEM_DIRECTORIES = "/usr/local/sbin:/usr/sbin:/sbin"  # not on every user's path


def find_program(name: str, package: str, pattern: str = "") -> str:
    """Path of a program; skips the test without it, fails it where nothing may be skipped.

    `pattern`: directories to look in first, as a glob below / (the last one that sorts wins).
    """
    for directory in sorted(Path("/").glob(pattern), reverse=True) if pattern else ():
        if (directory / name).exists():
            return str(directory / name)
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_SYSTEM_DIRECTORIES}")
    if found is None:
        lack = f"{name} is not installed (Debian package {package})"
        if os.environ.get("CI") == "true" or os.environ.get("TCPCOPY_REQUIRE_NETNS") == "1":
            pytest.fail(lack, pytrace=False)
        pytest.skip(lack)
    return found


def as_user(user: str, *command: str, ends_with: str = "TERM") -> list[str]:
    """`command` under another user; it gets the signal `ends_with` when the tests die."""
    # One pid for all of it. Changing the user clears the parent-death signal: set it again.
    options = ["--reuid", user, "--regid", user, "--clear-groups", "--pdeathsig", ends_with]
    return [find_program("setpriv", "util-linux"), *options, "--", *command]


def run(*command: str, stdin: str | None = None, timeout: float = 30.0) -> str:
    """Run a program on no host of the lab; return what it printed. Raises `LabError`."""
    done = subprocess.run(
        command, input=stdin, capture_output=True, text=True, timeout=timeout, check=False
    )
    if done.returncode:
        raise LabError(f"{' '.join(command)}: exit status {done.returncode}\n{done.stderr}")
    return done.stdout


class Service:
    """One server on one host, listening on `PORT`; `directory` is its own."""

    NAME: ClassVar[str]
    END: ClassVar[int] = signal.SIGTERM

    def __init__(self, host: Host, directory: Path) -> None:
        self.host = host
        self.directory = directory
        self.program: Program

    def start(self) -> Self:
        """Start it; return when it takes connections."""
        raise NotImplementedError

    def progress(self) -> int:
        """How much work it has done: grows with every request that changes or is logged."""
        raise NotImplementedError

    def stop(self) -> None:
        """End it and wait."""
        if self.program.alive:
            self.program.stop(self.END)

    def _launch(self, command: list[str]) -> None:
        self.program = self.host.start(command, name=self.NAME)
        self.program.wait_sockets(PORT)


S = TypeVar("S", bound=Service)


class RealServers:
    """The same kind of server on online and on target, real clients, a replay."""

    def __init__(self, scenario: Scenario, directory: Path) -> None:
        self.scenario = scenario
        self.directory = directory
        self._services: list[Service] = []

    @property
    def lab(self) -> Lab:
        return self.scenario.lab

    def start(
        self, kind: type[S], target: dict[str, object] | None = None, **options: object
    ) -> tuple[S, S]:
        """Start one on online and one on target with the same options, and `target`'s own."""
        pair = []
        for host in (self.lab.online, self.lab.target):
            if host is self.lab.target:
                options |= target or {}
            directory = self.directory / host.role
            directory.mkdir()
            directory.chmod(0o755)
            service = kind(host, directory, **options)
            self._services.append(service)
            pair.append(service.start())
        return pair[0], pair[1]

    def client(self, *command: object, timeout: float = 30.0) -> str:
        """Run a client program on the client host to its end; return what it printed."""
        return self.lab.client.run(*map(str, command), timeout=timeout)

    def start_client(self, *command: object) -> Program:
        """Start a client program on the client host."""
        return self.lab.client.start([*map(str, command)], name="client")

    @contextmanager
    def replay(
        self, mode: str, *arguments: object, catch_up_s: float = CATCH_UP_S
    ) -> Iterator[Replay]:
        """Replay within the block, until the target has done as much as online; then stop.

        Raises `AssertionError` if the target stays behind for `catch_up_s` after the block, or if
        tcpcopy's report tells of a loss.
        """
        online, target = self._services[-2:]
        with self.scenario.replay(mode, *arguments) as replay:
            yield replay
            wanted = online.progress()
            equal = wait_until(lambda: target.progress() >= wanted, catch_up_s, 0.05)
        report = f"{replay.output}\n{replay.report['sessions']}"
        assert equal, f"target did {target.progress()} of {wanted} in {catch_up_s:g} s\n{report}"
        assert replay.exit_code == 0, report

    def close(self) -> None:
        """End all servers and remove their files."""
        try:
            for service in self._services:
                if hasattr(service, "program"):
                    service.stop()
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)


@contextmanager
def real_servers(scenario: Scenario) -> Iterator[RealServers]:
    """`RealServers` for one test, with a directory that other users may enter."""
    # Named after the lab, so that the next lab removes it if this process is killed.
    directory = Path(tempfile.mkdtemp(prefix=f"{scenario.lab.name}-real-", dir="/tmp"))
    directory.chmod(0o755)
    real = RealServers(scenario, directory)
    try:
        yield real
    finally:
        real.close()


def check_report(replay: Replay, sessions: int = -1) -> None:
    """All that was captured was replayed and nothing else happened, says tcpcopy.

    `sessions`: how many there were, where the client's part in it is exact.
    """
    report = replay.report
    counts = report["sessions"]
    assert report["exit_code"] == 0, report["headline"]
    assert report["kernel"]["dropped"] == 0, report["kernel"]
    assert counts["lost"] == counts["skipped"] == counts["live"] == 0, counts
    assert counts["replayed"] == counts["captured"] > 0, counts
    assert sessions in (-1, counts["captured"]), counts
    assert not report["violations"], report["violations"]
    assert report["bytes"]["delivered"] == report["bytes"]["captured"] > 0, report["bytes"]
