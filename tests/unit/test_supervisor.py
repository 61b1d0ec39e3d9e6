"""Daemon start, pid file, log and stop signals, each in a process of its own where it must."""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tcpcopy import supervisor
from tcpcopy.errors import UsageError
from tcpcopy.report import log
from tcpcopy.supervisor import (
    PidFile,
    StopSignals,
    check_replaceable,
    hold_log,
    open_log,
    run_command,
    started_before,
    starting,
    stop_signals,
)


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


@pytest.mark.parametrize("text", ["listen 80\n", "-1\n", "12x", "1 2\n", "9" * 30])
def test_file_that_holds_something_else_is_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "precious"
    path.write_text(text)
    with pytest.raises(UsageError, match="holds something else than a process id; name a file of"):
        PidFile(str(path)).__enter__()
    assert path.read_text() == text


@pytest.mark.parametrize("text", ["", "\n", "0\n"])
def test_empty_file_is_taken(tmp_path: Path, text: str) -> None:
    path = tmp_path / "pid"
    path.write_text(text)
    with PidFile(str(path)):
        assert path.read_text() == f"{os.getpid()}\n"


def test_pid_file_of_another_program_that_runs(tmp_path: Path) -> None:
    """It does not lock its file; that it ran when the file was written is enough."""
    path = tmp_path / "pid"
    with subprocess.Popen(["sleep", "60"]) as other:
        try:
            path.write_text(f"{other.pid}\n")
            with pytest.raises(UsageError, match=f"process {other.pid} runs with this file; "):
                PidFile(str(path)).__enter__()
            assert path.read_text() == f"{other.pid}\n"
            os.utime(path, (1e9, 1e9))  # from before it was started: the number came again
            with PidFile(str(path)):
                assert path.read_text() == f"{os.getpid()}\n"
        finally:
            other.kill()


def test_started_before() -> None:
    now = time.time()
    assert started_before(os.getpid(), now)
    assert not started_before(os.getpid(), now - 86400)
    assert not started_before(0, now) and not started_before(-1, now)
    ended = subprocess.Popen(["true"])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    assert not started_before(ended.pid, time.time()), "a zombie does not run"
    ended.wait()
    assert not started_before(ended.pid, time.time())


def test_log_goes_to_the_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    open_log(str(path)).info("a line")
    log.shut_down()
    assert path.read_text().endswith("INFO a line\n")


def test_log_of_a_daemon_without_file_goes_to_syslog(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    address = tmp_path / "log"
    monkeypatch.setattr(supervisor, "_SYSLOG", str(address))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslog:
        syslog.bind(str(address))
        open_log(None, daemon=True).warning("a line")
        log.shut_down()
        syslog.settimeout(5)
        line = syslog.recv(1000).rstrip(b"\0").decode()
    assert line == f"<28>tcpcopy[{os.getpid()}]: WARNING a line"  # daemon, warning
    assert capsys.readouterr().err == ""


def test_daemon_that_logs_nowhere_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(supervisor, "_SYSLOG", str(tmp_path / "none"))
    open_log(None, daemon=True, program="intercept").warning("a line")
    log.shut_down()
    assert capsys.readouterr().err == (
        "intercept: -d: no syslog here, nothing is logged; give -l FILE\n"
    )


def test_what_was_logged_before_comes_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log"
    hold_log()
    logger = logging.getLogger("tcpcopy.early")
    logger.info("first")
    logger.error("second")
    assert not path.exists()
    open_log(str(path)).info("third")
    log.shut_down()
    assert [line.split()[-1] for line in path.read_text().splitlines()] == [
        "first", "second", "third"
    ]  # fmt: skip
    assert capsys.readouterr().err == ""


def test_what_was_held_is_not_said_when_all_ends_before(capsys: pytest.CaptureFixture[str]) -> None:
    """One line says what is wrong; a warning before it would be a second."""
    hold_log()
    logging.getLogger("tcpcopy").warning("on the way")
    log.shut_down()
    assert capsys.readouterr().err == ""


def test_check_replaceable(tmp_path: Path) -> None:
    """Tried, not guessed; what is there stays, what is not is not left behind."""
    path = tmp_path / "file"
    check_replaceable("--json", str(path))
    assert not path.exists()
    path.write_text("kept")
    check_replaceable("--json", str(path))
    assert path.read_text() == "kept"
    check_replaceable("--json", "/dev/null")
    with pytest.raises(UsageError, match=r"^--json /proc/none: No such file or directory; give a"):
        check_replaceable("--json", "/proc/none")
    (tmp_path / "link").symlink_to("missing/file")
    with pytest.raises(UsageError, match=r"link: is a symbolic link; name the file that it leads"):
        check_replaceable("--json", str(tmp_path / "link"))
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize(
    ("number", "hint"),
    [(errno.EMFILE, "ulimit -n"), (errno.ENOMEM, "-B"), (errno.EAFNOSUPPORT, "this host does not")],
)
def test_what_the_system_refuses_is_bad_usage(number: int, hint: str) -> None:
    with pytest.raises(UsageError) as caught, starting():
        raise OSError(number, os.strerror(number))
    assert str(caught.value).startswith(f"start: {os.strerror(number)}; ")
    assert hint in caught.value.hint


def test_run_command(capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(_: object) -> int:
        raise UsageError("-x", "1", "is wrong", "mend it")

    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    assert run_command("tcpcopy", False, lambda startup: 1 if startup is None else 9) == 1
    assert capsys.readouterr().err == ""
    assert run_command("tcpcopy", False, refuse) == 2
    assert capsys.readouterr().err == "tcpcopy: -x 1: is wrong; mend it\n"
    assert run_command("tcpcopy", False, interrupted) == 130
    assert capsys.readouterr().err == ""


def test_open_files_are_raised_to_what_is_allowed() -> None:
    """In a process of its own, since it cannot be undone."""
    code = (
        "import resource, sys\n"
        "from tcpcopy.supervisor import raise_open_files\n"
        "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))\n"
        "found = raise_open_files()\n"
        "print(found >= min(hard, 1 << 20), found == resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    assert run(code).stdout == "True True\n"


@pytest.mark.parametrize(
    ("setting", "ends"), [("SIG_DFL", "1"), ("SIG_IGN", "0")], ids=["terminal", "nohup"]
)
def test_hang_up_on_a_terminal(setting: str, ends: str) -> None:
    """The terminal is gone: as good as a stop signal, unless nohup has it ignored."""
    code = (
        "import os, pty, signal, sys\n"
        "from tcpcopy.supervisor import stop_signals\n"
        "os.dup2(pty.openpty()[1], 0)\n"
        f"signal.signal(signal.SIGHUP, signal.{setting})\n"
        "with stop_signals() as signals:\n"
        "    signal.raise_signal(signal.SIGHUP)\n"
        "    print(signals.requests)\n"
    )
    assert run(code).stdout == f"{ends}\n"


def test_hang_up_without_a_terminal_is_ignored() -> None:
    code = (
        "import signal\n"
        "from tcpcopy.supervisor import stop_signals\n"
        "with stop_signals() as signals:\n"
        "    signal.raise_signal(signal.SIGHUP)\n"
        "    print(signals.requests)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=20, check=False, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "0\n")


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
