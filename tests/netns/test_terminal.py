"""tcpcopy on a terminal: the live line is drawn, and leaves log and summary readable."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab.scenario import Scenario, python

pytestmark = pytest.mark.netns

X = ("-x", "8080-10.66.0.3:8080")
COLUMNS = 90
LIVE = re.compile(r"\d:\d\d +sessions [\d,]+ .*lost [\d,]+ +drops [\d,]+")


class Terminal:
    """A terminal of `COLUMNS` columns with one program on it, which is its foreground process."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
        # Both become the program. The tests may run under nohup, which would be inherited;
        # setsid need not fork, as it is no group's leader.
        words = ["env", "--default-signal=HUP", "setsid", "--ctty", *command]
        self.program = subprocess.Popen(
            words, stdin=slave, stdout=slave, stderr=slave, env=environment
        )
        os.close(slave)
        self.raw = ""

    def read(self, seconds: float) -> str:
        """Take what is shown within that time; all there was until now."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([self.master], [], [], left)[0]:
                break
            try:
                self.raw += os.read(self.master, 65536).decode()
            except OSError:  # EIO: nobody has the other end any more
                break
        return self.raw

    def wait_for(self, found: Callable[[str], object], seconds: float = 10) -> None:
        """Read until `found(all there was)`."""
        deadline = time.monotonic() + seconds
        while not found(self.read(0.05)):
            assert time.monotonic() < deadline, self.raw

    def press(self, key: bytes) -> None:
        """Type a key; b"\\x03" is Ctrl-C."""
        os.write(self.master, key)

    def hang_up(self) -> None:
        """Close the window."""
        os.close(self.master)
        self.master = -1

    def wait(self, seconds: float) -> int:
        """Read until the program ends; its exit code."""
        deadline = time.monotonic() + seconds
        while self.program.poll() is None:
            assert time.monotonic() < deadline, self.raw
            if self.master >= 0:
                self.read(0.05)
            else:
                time.sleep(0.02)
        if self.master >= 0:
            self.read(0.2)
        return self.program.returncode

    def screen(self) -> list[str]:
        """The lines as they stand there at the end; no line may be longer than the terminal."""
        lines: list[list[str]] = [[]]
        column = 0
        for character in self.raw:
            if character == "\r":
                column = 0
            elif character == "\n":
                lines.append([])
            else:
                assert character.isprintable(), repr(character)
                line = lines[-1]
                line += [" "] * (column + 1 - len(line))
                line[column] = character
                column += 1
        return ["".join(line).rstrip() for line in lines]

    def close(self) -> None:
        if self.program.poll() is None:
            self.program.kill()
        self.program.wait(5)
        if self.master >= 0:
            os.close(self.master)


Typed = Callable[..., Terminal]


@pytest.fixture
def typed(scenario: Scenario) -> Iterator[Typed]:
    """Type a tcpcopy command line on a terminal of the online host."""
    terminals = []

    def start(*words: object) -> Terminal:
        command = scenario.lab.online.command(python("tcpcopy.cli", *X, *words))
        terminals.append(Terminal(command, scenario.environment))
        return terminals[-1]

    yield start
    for terminal in terminals:
        terminal.close()


def test_live_line(scenario: Scenario, typed: Typed) -> None:
    """Drawn over and over while it copies, wiped before each log line and before the summary."""
    scenario.servers()
    terminal = typed()
    terminal.wait_for(LIVE.search)
    scenario.load("--connections 20 --requests 5")
    scenario.wait_for_target(20)
    terminal.wait_for(re.compile("sessions 20 ").search)
    drawn = re.findall(r"\r([^\r\n]+)(?=\r(?!\n)|\Z)", terminal.raw)  # and not log lines
    assert len(drawn) >= 3
    assert max(map(len, drawn)) < COLUMNS
    terminal.press(b"\x03")
    assert terminal.wait(6) == 0
    screen = terminal.screen()
    assert "ready: socket mode" in "\n".join(screen)
    assert len([line for line in screen if "INFO cli: stopping: " in line]) == 1
    assert "tcpcopy: all 20 sessions replayed exactly" in screen
    assert [line for line in screen if "new/s" in line] == [], "the live line is gone"
    # Every log line stands by itself, whole.
    log = [line for line in screen if " INFO " in line]
    whole = re.compile(r"(\^C)?\d{4}-\d\d-\d\dT\S+ INFO (cli|doctor|privileges): \S")
    assert all(map(whole.match, log)), log


def test_summary_is_what_a_pipe_gets(scenario: Scenario, typed: Typed, tmp_path: Path) -> None:
    """Nothing of the live line is left in or between its lines."""
    scenario.servers()
    log = tmp_path / "log"
    terminal = typed("-l", log)
    terminal.wait_for(LIVE.search)
    scenario.load("--connections 3")
    scenario.wait_for_target(3)
    terminal.read(1.5)
    terminal.program.send_signal(signal.SIGTERM)
    assert terminal.wait(6) == 0
    shown = [line for line in terminal.screen() if line]
    logged = log.read_text().splitlines()
    at = next(
        i for i, line in enumerate(logged) if line.endswith("all 3 sessions replayed exactly")
    )
    assert shown == [line.partition(" INFO cli: ")[2].rstrip() for line in logged[at:]]


def test_log_line_amid_the_live_line(scenario: Scenario, typed: Typed) -> None:
    """A warning that comes while the live line stands there is whole, and so is the next line."""
    scenario.lab.classic()
    intercept = scenario.start_intercept()
    terminal = typed("-s", scenario.lab.assistant.v4)
    terminal.wait_for(LIVE.search)
    intercept.stop()
    terminal.wait_for(re.compile(r" (WARNING|INFO|ERROR) (?!cli: ready)").search)
    before = len(terminal.raw)
    terminal.wait_for(lambda raw: LIVE.search(raw[before:]))
    terminal.program.send_signal(signal.SIGTERM)
    assert terminal.wait(6) == 1
    levels = re.compile(r"\d{4}-\d\d-\d\dT\S+ (WARNING|INFO|ERROR) [a-z.]+: \S.*")
    log = [line for line in terminal.screen() if re.search(" (WARNING|INFO|ERROR) ", line)]
    assert len(log) >= 3
    assert all(levels.fullmatch(line) and "new/s" not in line for line in log), log


def test_no_status(scenario: Scenario, typed: Typed) -> None:
    """--no-status: as if there were no terminal."""
    terminal = typed("--no-status")
    terminal.wait_for(re.compile("ready: ").search)
    terminal.read(2.5)
    assert LIVE.search(terminal.raw) is None
    assert "\r" not in terminal.raw.replace("\r\n", "\n")
    terminal.press(b"\x03")
    assert terminal.wait(6) == 1


def test_window_that_is_closed(scenario: Scenario, typed: Typed, tmp_path: Path) -> None:
    """The terminal goes away: open work is finished and the report written."""
    scenario.servers()
    report = tmp_path / "report.json"
    terminal = typed("--json", report, "-l", tmp_path / "log")
    terminal.wait_for(LIVE.search)
    scenario.load("--connections 5")
    scenario.wait_for_target(5)
    terminal.hang_up()
    assert terminal.wait(6) == 0
    assert json.loads(report.read_text())["sessions"]["replayed"] == 5
    assert "all 5 sessions replayed exactly" in (tmp_path / "log").read_text()
