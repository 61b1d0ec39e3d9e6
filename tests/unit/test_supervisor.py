"""Daemon start, pid file, log and stop signals, each in a process of its own where it must."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tcpcopy.errors import UsageError
from tcpcopy.report import log
from tcpcopy.supervisor import PidFile, StopSignals, open_log, stop_signals


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python code that uses the supervisor; returns when the command that was typed does."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def wait_for(path: Path) -> str:
    deadline = time.monotonic() + 10
    while not (path.exists() and path.read_text().endswith("\n")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return path.read_text()


DAEMON = """
import os, signal, sys, time
from tcpcopy.supervisor import daemonize
print("before", flush=True)
startup = daemonize()
startup.ready()
print("nobody sees this", flush=True)
sys.stdin.read()
told = (os.getpid(), os.getsid(0), os.getcwd(), signal.getsignal(signal.SIGHUP) == signal.SIG_IGN)
with open(sys.argv[1], "w") as file:
    print(*told, os.getppid() != int(sys.argv[2]), file=file)
"""


def test_daemon_lets_the_command_return_and_has_no_terminal(tmp_path: Path) -> None:
    result = run(DAEMON, str(tmp_path / "told"), str(os.getpid()))
    assert (result.returncode, result.stdout, result.stderr) == (0, "before\n", "")
    pid, session, folder, ignores_hangup, is_orphan = wait_for(tmp_path / "told").split()
    assert pid == session
    assert (folder, ignores_hangup, is_orphan) == ("/", "True", "True")


def test_daemon_that_cannot_start_says_so_with_its_exit_code() -> None:
    code = (
        "from tcpcopy.supervisor import daemonize\n"
        "daemonize().fail('intercept: -p 80: the port is in use; stop it', 2)\n"
    )
    result = run(code)
    assert result.returncode == 2
    assert result.stderr == "intercept: -p 80: the port is in use; stop it\n"


def test_daemon_that_dies_at_start_is_noticed() -> None:
    result = run("import os; from tcpcopy.supervisor import daemonize; daemonize(); os._exit(7)")
    assert result.returncode == 1
    assert "ended before it was up" in result.stderr


def test_pid_file_holds_the_id_while_it_runs(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    with PidFile(str(path)):
        assert path.read_text() == f"{os.getpid()}\n"
    assert not path.exists()


def test_pid_file_of_a_running_process_is_refused_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    with PidFile(str(path)):
        with pytest.raises(UsageError, match=rf"^-P {path}: process {os.getpid()} runs with"):
            PidFile(str(path)).__enter__()
        assert path.read_text() == f"{os.getpid()}\n"


def test_pid_file_left_by_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    path.write_text("123456789\n")
    with PidFile(str(path)):
        assert path.read_text() == f"{os.getpid()}\n"


def test_pid_file_that_cannot_be_written_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^-P .*: Is a directory; give a file"):
        PidFile(str(tmp_path)).__enter__()


def test_log_goes_to_the_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    open_log(str(path)).info("a line")
    log.shut_down()
    assert path.read_text().endswith("INFO a line\n")


def test_log_of_a_daemon_without_file_does_not_go_to_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    open_log(None, daemon=True).debug("a line")
    log.shut_down()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stop_signal_wakes_a_poll(number: signal.Signals) -> None:
    import select

    with stop_signals() as signals:
        assert not signals.requested()
        assert select.select([signals], [], [], 0)[0] == []
        signal.raise_signal(number)
        assert select.select([signals], [], [], 5)[0] == [signals]
        assert signals.requested()
        signal.raise_signal(number)
        assert signals.requests == 2


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    StopSignals().close()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
