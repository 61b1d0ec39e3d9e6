"""The commands as processes: daemons, signals, log rotation, terminals, exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tcpcopy.demo.netns import Host
from tcpcopy.demo.processes import Program
from tests.lab.scenario import RELAY_PORT, Scenario, environment, python, wait_until

pytestmark = pytest.mark.netns

X = ("-x", "8080-10.66.0.3:8080")
FILTER = ("-F", "tcp and src port 8080")
EXIT_WAIT_S = 10
AT_ONCE_S = 2.0


class Daemon:
    """A command started with -d, -P and -l, as an init script would."""

    def __init__(
        self,
        host: Host,
        module: str,
        directory: Path,
        *words: object,
        before: tuple[str, ...] = (),
    ) -> None:
        directory.mkdir()
        self.pid_file = directory / "pid"
        self.log_file = directory / "log"
        started = time.monotonic()
        # Names without a directory: the daemon itself runs in /.
        command = [*before, *python(module, *words), "-d", "-P", "pid", "-l", "log"]
        done = subprocess.run(
            host.command(command), capture_output=True, text=True, timeout=20, check=False,
            cwd=directory, env=environment(),
        )  # fmt: skip
        self.seconds = time.monotonic() - started
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        self.pid = int(self.pid_file.read_text())

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    @property
    def runs(self) -> bool:
        """Whether it runs; where nobody reaps orphans a zombie stays."""
        try:
            state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        return state != "Z"

    def stop(self, number: int = signal.SIGTERM, timeout: float = 15.0) -> None:
        os.kill(self.pid, number)
        assert wait_until(lambda: not self.runs, timeout), self.log


def report_of(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text())
    assert isinstance(found, dict)
    return found


def drop_at_target(scenario: Scenario) -> None:
    """The target's firewall drops what comes to its server: nothing is ever answered."""
    scenario.lab.target.nft(
        "table inet firewall {\n chain input {\n  type filter hook input priority 0;\n"
        "  tcp dport 8080 drop\n }\n}\n"
    )


# --- daemons -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["socket", "classic"])
def test_daemons_from_start_to_end(scenario: Scenario, tmp_path: Path, mode: str) -> None:
    """Up when the command returns; log, pid file, summary and JSON as they should be."""
    lab = scenario.lab
    scenario.servers()
    report = tmp_path / "report.json"
    words: list[object] = [*X, "--json", report]
    daemons = []
    if mode == "classic":
        lab.classic()
        daemons.append(
            Daemon(lab.assistant, "tcpcopy.intercept_cli", tmp_path / "intercept", *FILTER)
        )
        words += ["-s", lab.assistant.v4]
    tcpcopy = Daemon(lab.online, "tcpcopy.cli", tmp_path / "tcpcopy", *words)
    daemons.append(tcpcopy)
    assert all(daemon.seconds < 4 for daemon in daemons)
    assert f"ready: {mode} mode, copying 8080-10.66.0.3:8080 from all devices" in tcpcopy.log
    for daemon in daemons:
        assert daemon.runs
        assert os.getsid(daemon.pid) == daemon.pid
        assert os.readlink(f"/proc/{daemon.pid}/cwd") == "/"
        assert {os.readlink(f"/proc/{daemon.pid}/fd/{n}") for n in range(3)} == {"/dev/null"}
    scenario.load("--connections 20 --requests 5")
    scenario.wait_for_target(20)
    for daemon in reversed(daemons):
        daemon.stop()
        assert not daemon.pid_file.exists()
    assert "INFO cli: tcpcopy: all 20 sessions replayed exactly\n" in tcpcopy.log
    assert report_of(report)["exit_code"] == 0
    assert report_of(report)["sessions"]["replayed"] == 20
    if mode == "classic":
        assert daemons[0].log.endswith("INFO intercept: stopped\n")
    assert scenario.compare().clean


def test_log_that_is_rotated(scenario: Scenario, tmp_path: Path) -> None:
    """mv, with SIGHUP or without: the next line goes to a new file, nothing ends."""
    lab = scenario.lab
    scenario.servers()
    lab.classic()
    intercept = Daemon(lab.assistant, "tcpcopy.intercept_cli", tmp_path / "intercept", *FILTER)
    tcpcopy = Daemon(lab.online, "tcpcopy.cli", tmp_path / "tcpcopy", *X, "-s", lab.assistant.v4)
    for daemon, hang_up in ((tcpcopy, True), (intercept, False)):
        daemon.log_file.rename(daemon.log_file.with_suffix(".1"))
        if hang_up:
            os.kill(daemon.pid, signal.SIGHUP)
    scenario.load("--connections 5")
    scenario.wait_for_target(5)
    for daemon in (tcpcopy, intercept):
        assert daemon.runs
        daemon.stop()
    assert "all 5 sessions replayed exactly" in tcpcopy.log
    assert "ready:" not in tcpcopy.log
    assert "ready:" in tcpcopy.log_file.with_suffix(".1").read_text()
    assert "all 5 sessions" not in tcpcopy.log_file.with_suffix(".1").read_text()
    assert intercept.log.endswith("INFO intercept: stopped\n")
    assert "stopped" not in intercept.log_file.with_suffix(".1").read_text()


def test_second_daemon_with_the_same_pid_file(scenario: Scenario, tmp_path: Path) -> None:
    """The first goes on, and its file stays; killed at once, it leaves one that is taken over."""
    online = scenario.lab.online
    first = Daemon(online, "tcpcopy.cli", tmp_path / "first", *X)
    words = [*python("tcpcopy.cli", *X), "-d", "-P", str(first.pid_file)]
    again = online.command(words)
    done = subprocess.run(
        again, capture_output=True, text=True, timeout=20, check=False, env=environment()
    )
    assert done.returncode == 2
    assert done.stderr == (
        f"tcpcopy: -P {first.pid_file}: process {first.pid} runs with this file; stop it, or name"
        " another\n"
    )
    assert first.runs and int(first.pid_file.read_text()) == first.pid
    first.stop(signal.SIGKILL)
    assert int(first.pid_file.read_text()) == first.pid
    subprocess.run(again, timeout=20, check=True, env=environment())
    second = int(first.pid_file.read_text())
    assert second != first.pid
    os.kill(second, signal.SIGTERM)
    assert wait_until(lambda: not first.pid_file.exists(), 15)


# --- signals and exit codes --------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("mode", ["socket", "classic"])
def test_stopped_with_all_replayed(scenario: Scenario, number: signal.Signals, mode: str) -> None:
    """The summary is printed, the exit code is 0, and that without waiting for long."""
    scenario.servers()
    with scenario.replay(mode) as replay:
        scenario.load("--connections 10 --requests 3")
        scenario.wait_for_target(10)
        started = time.monotonic()
        assert replay.stop(number) == 0
        assert time.monotonic() - started < 4
    assert "tcpcopy: all 10 sessions replayed exactly\n" in replay.output
    assert "\r" not in replay.output and "new/s" not in replay.output, "no terminal, no live line"
    assert replay.report["exit_code"] == 0


@pytest.mark.parametrize("mode", ["socket", "classic"])
def test_nothing_captured_is_1(scenario: Scenario, mode: str) -> None:
    with scenario.replay(mode) as replay:
        started = time.monotonic()
        assert replay.stop(signal.SIGTERM) == 1
        assert time.monotonic() - started < 4
    assert "tcpcopy: NOTHING CAPTURED" in replay.output
    assert replay.report["exit_code"] == 1
    assert [finding["key"] for finding in replay.report["findings"]] == ["nothing_captured"]


@pytest.mark.parametrize("mode", ["socket", "classic"])
def test_open_work_is_waited_for_within_bounds(scenario: Scenario, mode: str) -> None:
    """A target that never answers: losses, told after the time there is, exit code 1."""
    scenario.servers()
    drop_at_target(scenario)
    with scenario.replay(mode) as replay:
        scenario.load("--connections 10 --requests 3")
        started = time.monotonic()
        assert replay.stop(signal.SIGTERM) == 1
        assert time.monotonic() - started < EXIT_WAIT_S + AT_ONCE_S
    assert "tcpcopy: 10 of 10 sessions LOST" in replay.output
    report = replay.report
    assert (report["exit_code"], report["sessions"]["lost"]) == (1, 10)
    assert report["violations"] == []


@pytest.mark.parametrize("mode", ["socket", "classic"])
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_second_signal_ends_at_once(scenario: Scenario, mode: str, second: signal.Signals) -> None:
    scenario.servers()
    drop_at_target(scenario)
    with scenario.replay(mode) as replay:
        scenario.load("--connections 10 --requests 3")
        replay.tcpcopy.send_signal(signal.SIGINT)
        replay.tcpcopy.wait_for("stopping: ")
        time.sleep(0.3)
        started = time.monotonic()
        assert replay.stop(second) == 1
        assert time.monotonic() - started < AT_ONCE_S
    assert "tcpcopy: 10 of 10 sessions LOST" in replay.output
    assert replay.report["sessions"]["outcomes"]["open_at_exit"] == 10


def test_interrupt_while_it_starts(scenario: Scenario) -> None:
    """Ctrl-C while the intercept does not answer: gone without a word, nothing left."""
    scenario.lab.assistant.nft(
        "table inet firewall {\n chain input {\n  type filter hook input priority 0;\n"
        f"  tcp dport {RELAY_PORT} drop\n }}\n}}\n"
    )
    pid_file = scenario.lab.directory / "pid"
    words = (*X, "-s", scenario.lab.assistant.v4, "-P", pid_file)
    replay = scenario.start_tcpcopy(*words, wait=False)
    replay.tcpcopy.wait_sockets(RELAY_PORT, "02")  # SYN sent
    started = time.monotonic()
    assert replay.stop(signal.SIGINT) == 130
    assert time.monotonic() - started < AT_ONCE_S
    assert replay.output == ""
    assert not pid_file.exists()


# --- streams that are not there ----------------------------------------------------------------


def copy_ten(scenario: Scenario, start: Callable[[list[str], Path], Program]) -> Path:
    """Replay ten connections with a tcpcopy that `start` runs; the JSON report, once it ended."""
    scenario.servers()
    report = scenario.lab.directory / "report.json"
    program = start(python("tcpcopy.cli", *X, "--json", report, "-l", report.with_suffix(".log")),
                    report.with_suffix(".log"))  # fmt: skip
    log = report.with_suffix(".log")
    assert wait_until(lambda: log.exists() and "ready" in log.read_text(), 10)
    scenario.load("--connections 10")
    scenario.wait_for_target(10)
    assert program.stop(signal.SIGTERM) == 0, log.read_text()
    assert report_of(report)["sessions"]["replayed"] == 10
    assert "all 10 sessions replayed exactly" in log.read_text()
    return report


CLOSED = ("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh")


def test_standard_streams_closed(scenario: Scenario) -> None:
    """As under some supervisors: the work is done."""

    def start(command: list[str], log: Path) -> Program:
        return scenario.lab.online.start(
            [*CLOSED, *command], name="tcpcopy", env=scenario.environment
        )

    copy_ten(scenario, start)


def test_standard_streams_closed_for_a_daemon(scenario: Scenario, tmp_path: Path) -> None:
    """No socket takes their place, to be closed when the daemon lets go of its terminal."""
    scenario.servers()
    lab = scenario.lab
    lab.classic()
    intercept = Daemon(
        lab.assistant, "tcpcopy.intercept_cli", tmp_path / "intercept", *FILTER, before=CLOSED
    )
    words = (*X, "-s", lab.assistant.v4)
    tcpcopy = Daemon(lab.online, "tcpcopy.cli", tmp_path / "tcpcopy", *words, before=CLOSED)
    scenario.load("--connections 10")
    scenario.wait_for_target(10)
    tcpcopy.stop()
    intercept.stop()
    assert "all 10 sessions replayed exactly" in tcpcopy.log


def test_nobody_reads_the_summary(scenario: Scenario) -> None:
    """`tcpcopy ... | true`: still 0, the report written, no complaint about the pipe."""
    read_fd, write_fd = os.pipe()
    os.close(read_fd)

    def start(command: list[str], log: Path) -> Program:
        shell = ["sh", "-c", f'exec "$@" >/proc/{os.getpid()}/fd/{write_fd}', "sh", *command]
        return scenario.lab.online.start(shell, name="tcpcopy", env=scenario.environment)

    try:
        copy_ten(scenario, start)
    finally:
        os.close(write_fd)
    assert "Exception" not in scenario.lab.programs[-2].output()
