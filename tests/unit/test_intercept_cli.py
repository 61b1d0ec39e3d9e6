"""The command line of intercept: the C program's options, one clear line for what is wrong."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tcpcopy.errors import UsageError
from tcpcopy.intercept_cli import OPTIONS, main, parse
from tcpcopy.interceptor import InterceptConfig
from tcpcopy.relay.classic import Layout

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="capture needs root")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tcpcopy.intercept_cli", *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_defaults_are_the_c_programs() -> None:
    assert parse([]).config == InterceptConfig()
    assert parse([]).config.port == 36524
    assert parse([]).config.batch_records == 16


def test_c_command_line_is_taken(tmp_path: Path) -> None:
    """Every short option of DESIGN section 7, as one types it."""
    options = parse(
        ["-i", "eth0,eth1", "-F", "tcp and src port 8080", "-n", "8", "-p", "1234", "-s", "4096",
         "-D", "172.17.0.1-62.135.200.1", "-l", str(tmp_path / "log"), "-P", str(tmp_path / "pid"),
         "-b", "127.0.0.1", "-c", "-d"]
    )  # fmt: skip
    assert options.config == InterceptConfig(
        devices=("eth0", "eth1"),
        filter="tcp and src port 8080",
        host="127.0.0.1",
        port=1234,
        batch_records=8,
        early_limit=4096,
        replaced_address=bytes([172, 17, 0, 1]),
        original_address=bytes([62, 135, 200, 1]),
        protected=True,
    )
    assert options.daemon
    assert options.log_file == str(tmp_path / "log")
    assert options.pid_file == str(tmp_path / "pid")


def test_each_short_option_has_a_long_name() -> None:
    assert {option.short for option in OPTIONS} - {""} == {
        *("-i", "-F", "-n", "-p", "-s", "-D", "-l", "-P", "-b", "-c", "-d", "-h", "-v"),
        "-B",  # not the C intercept's: the same as tcpcopy's
    }
    assert all(option.long.startswith("--") for option in OPTIONS)


def test_what_the_c_program_decides_at_build_time() -> None:
    config = parse(["--relay-format", "batched-payload", "--dnat"]).config
    assert (config.layout, config.ignore_target) == (Layout.BATCHED_PAYLOAD, True)


def test_large_hash_size_of_an_old_command_line_does_not_cost_memory() -> None:
    assert parse(["-s", "2000000000"]).config.early_limit == 1 << 20


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["-p", "0"], "-p 0: is out of range; give a whole number from 1 to 65535"),
        (["-p", "70000"], "-p 70000: is out of range; give a whole number from 1 to 65535"),
        (["-p", "http"], "-p http: is not a whole number; give a whole number from 1 to 65535"),
        (["-n", "17"], "-n 17: is out of range; give a whole number from 1 to 16"),
        (["-F"], "-F: needs a value; write -F FILTER"),
        (["-F", " "], "-F  : is empty; give a value"),
        (["-D", "1.2.3.4"], "-D 1.2.3.4: is not a pair of IPv4 addresses; write dockeredIP-origIP"),
        (["-D", "1.2.3.4-::1"],
         "-D 1.2.3.4-::1: is not a pair of IPv4 addresses; write dockeredIP-origIP"),
        (["-b", "eth0"], "-b eth0: is not an IP address; give an address of this host, "
         "see `ip address`"),
        (["--relay-format", "x"], "--relay-format x: is not a relay format; give one of batched, "
         "bare, batched-payload"),
        (["-P", "/nowhere/pid"],
         "-P /nowhere/pid: its directory does not exist; create /nowhere or name another file"),
        (["-x", "80"], "-x: is not an option; see intercept --help"),
        (["stray"], "stray: belongs to no option; see intercept --help"),
    ],
)  # fmt: skip
def test_nonsense_is_one_line_with_option_value_and_mend(arguments: list[str], line: str) -> None:
    with pytest.raises(UsageError) as error:
        parse(arguments)
    assert str(error.value) == line


def test_bad_usage_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-p", "0"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "intercept: -p 0: is out of range; give a whole number from 1 to 65535\n"


def test_help_shows_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-h"]) == 0
    text = capsys.readouterr().out
    assert [option.long for option in OPTIONS if option.long not in text] == []


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-v"]) == 0
    assert capsys.readouterr().out.startswith("intercept ")


@needs_root
@pytest.mark.parametrize("daemon", [[], ["-d"]])
def test_port_in_use_leaves_nothing_behind(tmp_path: Path, daemon: list[str]) -> None:
    """Also as a daemon: the line is on the terminal, no process, no file stays."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        arguments = ["-b", "127.0.0.1", "-p", port, "-i", "lo", *daemon]
        arguments += ["-P", str(tmp_path / "pid"), "-l", str(tmp_path / "log")]
        result = subprocess.run(
            command(*arguments), capture_output=True, text=True, timeout=20, check=False,
            env=environment(),
        )  # fmt: skip
    assert result.returncode == 2
    assert result.stderr == (
        f"intercept: -p {port}: the port is in use; stop what listens there (`ss -ltnp`)\n"
    )
    assert list(tmp_path.iterdir()) == []


@needs_root
def test_daemon_runs_until_it_is_told_to_stop(tmp_path: Path) -> None:
    pid_file, log_file = tmp_path / "pid", tmp_path / "log"
    port = free_port()
    arguments = ["-d", "-i", "lo", "-F", "tcp and src port 1", "-b", "127.0.0.1"]
    arguments += ["-p", str(port), "-P", str(pid_file), "-l", str(log_file)]
    result = subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=20, check=False,
        env=environment(),
    )  # fmt: skip
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    pid = int(pid_file.read_text())
    socket.create_connection(("127.0.0.1", port), timeout=5).close()
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}/stat").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert not pid_file.exists()
    lines = log_file.read_text()
    assert "capturing 'tcp and src port 1' on lo" in lines
    assert lines.endswith("INFO intercept: stopped\n")


@needs_root
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stop_signals_end_it_with_0(number: signal.Signals) -> None:
    with subprocess.Popen(
        command("-i", "lo", "-F", "tcp and src port 1", "-b", "127.0.0.1", "-p", str(free_port())),
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        assert process.stderr is not None
        seen = ""
        while "listening" not in seen:
            seen = process.stderr.readline()
            assert seen
        process.send_signal(number)
        assert process.wait(10) == 0
        assert process.stderr.read().endswith("INFO intercept: stopped\n")


def test_missing_privilege_is_one_line() -> None:
    if os.geteuid() != 0:
        result = subprocess.run(command(), capture_output=True, text=True, check=False, timeout=20)
    else:
        code = (
            "import os, sys; os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)\n"
            "from tcpcopy.intercept_cli import main; sys.exit(main([]))"
        )
        result = subprocess.run(
            [sys.executable, "-c", "from tcpcopy.intercept_cli import main\n" + code],
            capture_output=True, text=True, check=False, timeout=20, env=environment(),
        )  # fmt: skip
    assert result.returncode == 2
    assert result.stderr.startswith("intercept: capture: CAP_NET_RAW is missing; ")
    assert result.stderr.count("\n") == 1
