"""The command tcpcopy without a network: what it prints, and what its options come to."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tcpcopy import cli, options
from tcpcopy.mapping.addresses import parse_address
from tcpcopy.options import Options
from tcpcopy.report import log
from tcpcopy.report.context import CLASSIC, SOCKET, TransferInfo
from tcpcopy.version import VERSION, version_line
from tests.unit.report.samples import clean

X = ("-x", "80-10.0.0.2:8080")
SECOND = 1_000_000_000
MIB = 1 << 20


def parse(*argv: str) -> Options:
    return options.parse(argv, devices=lambda: ["lo", "eth0"])


def config(*argv: str, open_files: int = 0) -> Any:
    return cli.copier_config(parse(*X, *argv), lambda bits: bits, open_files=open_files)


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        capture_output=True, text=True, timeout=20, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip


# --- what is printed ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["-v", "--version"])
def test_version(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert cli.main([name]) == 0
    shown = capsys.readouterr()
    assert shown.out == f"{version_line('tcpcopy')}\n"
    assert VERSION in shown.out and shown.err == ""


@pytest.mark.parametrize("name", ["-h", "--help"])
def test_help(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert cli.main([name]) == 0
    shown = capsys.readouterr()
    assert shown.out == options.help_text() and shown.err == ""
    assert shown.out.startswith("usage: tcpcopy -x TRANSFER,...")


@pytest.mark.parametrize(
    ("module", "name"),
    [("tcpcopy", "tcpcopy"), ("tcpcopy.cli", "tcpcopy"), ("tcpcopy.intercept_cli", "intercept")],
)
def test_modules_are_commands(module: str, name: str) -> None:
    """`python -m tcpcopy` is the command; both say who they are."""
    done = run("-m", module, "-v")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{version_line(name)}\n", "")
    done = run("-m", module, "--no-such")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"{name}: --no-such: is not an option; see {name} --help\n"


@pytest.mark.parametrize("module", ["tcpcopy", "tcpcopy.intercept_cli"])
def test_help_that_nobody_reads(module: str) -> None:
    """`tcpcopy --help | head -1` ends without a trace and without a code that pipefail sees."""
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    with subprocess.Popen(
        [sys.executable, "-m", module, "--help"], stdout=write_fd, stderr=subprocess.PIPE,
        text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:  # fmt: skip
        os.close(write_fd)
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")


def test_bad_usage_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == (
        "tcpcopy: -x: is missing; say what to copy, for example -x 80-192.168.0.2:8080\n"
    )


def test_bad_usage_of_the_demonstration(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["demo", "--no-such"]) == 2
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1 and shown.err.startswith("tcpcopy demo: ")


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """What is logged, whatever earlier tests have set up."""
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    log.set_up(os.devnull)
    handler = Keep()
    logging.getLogger("tcpcopy").addHandler(handler)
    yield lines
    log.shut_down()


def test_what_does_nothing_is_told(logged: list[str]) -> None:
    """Options of classic mode in socket mode, most likely because -s was forgotten."""
    found = parse(*X, "-f", "3", "--lonely", "-U", "5")
    cli._log_start(found, [])
    assert logged == ["no effect: -f, --lonely (classic mode only, which -s turns on)"]
    told = cli._describe(found)
    assert told.startswith("socket mode, copying 80-10.0.0.2:8080 from all devices (")
    assert parse(*X, "-f", "3", "-s", "10.0.0.3").without_effect == ()


# --- what the options come to ------------------------------------------------------------------


def test_defaults() -> None:
    found = config()
    assert found.transfers == parse(*X).transfers
    assert (found.devices, found.filter, found.intercepts) == ((), None, ())
    assert found.buffer_bytes == parse(*X).buffer_bytes
    assert (found.snaplen, found.memory_bytes) == (1 << 20, 1024 * MIB)
    assert (found.copies, found.factor, found.percentage, found.gradual) == (1, 0, 100, False)
    assert (found.pool, found.localhost_replacement, found.local_addresses) == (None, None, ())
    engine = found.engine
    assert (engine.answer_timeout_ns, engine.idle_timeout_ns) == (600 * SECOND, 720 * SECOND)
    assert (engine.rtt_ns, engine.mtu, engine.mss) == (0, 1500, 0)
    assert engine.wait_for_answers and not engine.full_sessions_only
    assert (engine.max_sessions, engine.seed, found.port_shift) == (0, 31, 9)


@pytest.mark.parametrize(
    ("argv", "read", "value"),
    [
        (("-i", "eth0,lo"), lambda c: c.devices, ("eth0", "lo")),
        (("-F", "tcp"), lambda c: c.filter, "tcp"),
        (("-B", "3"), lambda c: c.buffer_bytes, 3 * MIB),
        (("-S", "200"), lambda c: c.snaplen, 200),
        (("-m", "100"), lambda c: c.memory_bytes, 100 * MIB),
        (("-n", "3"), lambda c: c.copies, 3),
        (("-f", "3"), lambda c: c.factor, 3),
        (("-r", "30"), lambda c: c.percentage, 30),
        (("-g",), lambda c: c.gradual, True),
        (("-O",), lambda c: c.engine.full_sessions_only, True),
        (("-W",), lambda c: c.engine.wait_for_answers, False),
        (("-t", "5"), lambda c: c.engine.answer_timeout_ns, 5 * SECOND),
        (("-k", "9"), lambda c: c.engine.idle_timeout_ns, 9 * SECOND),
        (("-R", "40"), lambda c: c.engine.rtt_ns, SECOND // 25),
        (("-M", "1400"), lambda c: (c.engine.mtu, c.engine.mss), (1400, 1360)),
        (("-D", "700"), lambda c: c.engine.mss, 700),
        (("-L",), lambda c: c.lonely, True),
        (("-C", "4"), lambda c: c.relay_connections, 4),
        (("-s", "10.0.0.3,10.0.0.4:9"), lambda c: c.intercepts,
         (("10.0.0.3", 36524), ("10.0.0.4", 9))),
        (("-H", "10.0.0.9"), lambda c: c.localhost_replacement, parse_address("10.0.0.9")),
        (("-c", "10.0.1.x", "-s", "10.0.0.3"), lambda c: (len(c.pool), c.local_addresses),
         (254, ())),
        (("-c", "127.0.0.4/31"), lambda c: c.local_addresses, (b"\x7f\0\0\4", b"\x7f\0\0\5")),
        (("-c", "127.0.0.0/8"), lambda c: len(c.local_addresses), 65536),
    ],
)  # fmt: skip
def test_values(argv: tuple[str, ...], read: Callable[[Any], object], value: object) -> None:
    assert read(config(*argv)) == value


def test_session_limit_follows_open_files() -> None:
    """In socket mode a session is an open file; some are kept for all else."""
    assert config(open_files=1024).engine.max_sessions == 960
    assert config("-i", "eth0,lo", open_files=1024).engine.max_sessions == 958
    assert config(open_files=10).engine.max_sessions == 1
    assert config("-s", "10.0.0.3", open_files=1024).engine.max_sessions == 0


def test_context_of_reports() -> None:
    """What a remedy shows are the words that were typed."""
    found = cli.report_context(
        parse("-x", "80-10.0.0.2:8080,10.0.0.1:81-[::2]:81", "-c", "127.0.0.3,::1", "-B", "9"),
        77,
        10,
    )
    assert (found.mode, found.session_limit, found.buffer_mib) == (SOCKET, 77, 9)
    assert found.exit_wait_s == 10
    assert found.transfers == (
        TransferInfo("", 80, "10.0.0.2", 8080),
        TransferInfo("10.0.0.1", 81, "::2", 81),
    )
    assert found.client_addresses == ("127.0.0.3", "::1")
    assert (found.client_pool_size, found.example_client) == (2, "127.0.0.3")
    assert (found.answer_timeout_s, found.keep_alive_s, found.version) == (600, 720, VERSION)
    found = cli.report_context(parse(*X, "-s", "10.0.0.3", "-F", "tcp", "-i", "lo"))
    assert (found.mode, found.intercepts) == (CLASSIC, ("10.0.0.3:36524",))
    assert (found.filter_text, found.devices, found.session_limit) == ("tcp", ("lo",), 0)


def test_report_that_cannot_be_written_any_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], logged: list[str]
) -> None:
    """The disk is full at the end: the summary is there, the exit code says that something is."""

    class Ended:
        def snapshot(self) -> Any:
            return clean()

    found = parse(*X, "--json", str(tmp_path / "report"))
    context = cli.report_context(found)
    assert cli._report(found, Ended(), context) == 0  # type: ignore[arg-type]
    assert (tmp_path / "report").read_text().startswith("{")
    (tmp_path / "report").unlink()
    (tmp_path / "report").mkdir()
    assert cli._report(found, Ended(), context) == 1  # type: ignore[arg-type]
    assert logged == [f"--json {tmp_path / 'report'}: is not a file; nothing was changed there"]
    assert capsys.readouterr().out.count("replayed exactly") == 2
