"""`doctor` of both commands: options, output, exit codes; and the check at the start."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tcpcopy import cli, doctor_cli, intercept_cli, options
from tcpcopy.doctor.finding import Finding, Level
from tcpcopy.doctor_plan import intercept_plan_of, plan_of, running_plan_of
from tcpcopy.errors import UsageError
from tcpcopy.report.context import CLASSIC, LINK, LOCAL, SOCKET
from tests.unit.doctor.made import address

OK = Finding("route", Level.OK, "by eth0")
FAULT = Finding("listen", Level.FAULT, "taken", ("on this host: ss -ltnp",))


def test_text_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor_cli.run("tcpcopy", [], lambda words: [OK]) == 0
    assert capsys.readouterr().out == "ok       route: by eth0\n"
    assert doctor_cli.run("tcpcopy", [], lambda words: [OK, FAULT]) == 1
    assert "fault    listen: taken\n           on this host: ss -ltnp\n" in capsys.readouterr().out


def test_bad_options_are_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(words: list[str]) -> list[Finding]:
        raise UsageError("-x", "80", "has no '-'", "write it")

    assert doctor_cli.run("tcpcopy", ["-x", "80"], refuse) == 2
    assert capsys.readouterr().err == "tcpcopy: -x 80: has no '-'; write it\n"


def test_json_is_a_switch_unless_a_file_stands_behind(
    capsys: pytest.CaptureFixture[str],
) -> None:
    given: list[list[str]] = []

    def examine(words: list[str]) -> list[Finding]:
        given.append(words)
        return [FAULT]

    assert doctor_cli.run("tcpcopy", ["--json", "-x", "a"], examine) == 1
    assert json.loads(capsys.readouterr().out)["level"] == "fault"
    assert doctor_cli.run("tcpcopy", ["-x", "a", "--json"], examine) == 1
    assert json.loads(capsys.readouterr().out)["findings"][0]["check"] == "listen"
    assert doctor_cli.run("tcpcopy", ["-x", "a", "--json", "out"], examine) == 1
    assert capsys.readouterr().out.startswith("fault")
    assert given == [["-x", "a"], ["-x", "a"], ["-x", "a", "--json", "out"]]


@pytest.mark.parametrize("program", ["tcpcopy", "intercept"])
def test_help(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    main = cli.main if program == "tcpcopy" else intercept_cli.main
    assert main(["doctor", "--help"]) == 0
    assert capsys.readouterr().out == doctor_cli.help_text(program)
    assert main(["doctor", "-v"]) == 2
    assert "doctor" in capsys.readouterr().err


def test_files_that_the_run_would_write_are_not_touched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A whole command line of a run is taken as it is."""
    words = ["-x", "80-127.0.0.1:9999", "-d", "-l", str(tmp_path / "log"),
             "-P", str(tmp_path / "pid"), "--json", str(tmp_path / "json")]  # fmt: skip
    assert cli.main(["doctor", *words]) in (0, 1)
    assert "route: the target 127.0.0.1: this host" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_intercept_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert intercept_cli.main(["doctor", "-F", "tcp and dst port 80"]) == 1
    assert "-F 'tcp and src port 80'" in capsys.readouterr().out
    assert intercept_cli.main(["doctor", "-p", "0"]) == 2


def test_plans() -> None:
    found = options.parse(["-x", "80-10.0.0.2:8080", "-s", "10.0.0.3", "-c", "62.135.200.x"])
    plan = plan_of(found, cli.copier_config(found), cli.report_context(found).mode)
    assert (plan.mode, plan.targets) == (CLASSIC, ((address("10.0.0.2"), 8080),))
    assert plan.intercepts == ((address("10.0.0.3"), 36524),)
    assert plan.client_addresses == ("62.135.200.x",) and plan.pool is not None
    assert plan.filter_program and not plan.filter_problem and plan.captures
    bad = options.parse(["-x", "80-10.0.0.2:8080", "-F", "portt 80"])
    plan = plan_of(bad, cli.copier_config(bad), SOCKET)
    assert not plan.filter_program and "syntax error" in plan.filter_problem
    frames = options.parse(
        ["-x", "80-10.0.0.2:8080", "-s", "10.0.0.3", "-o", "eth0"], devices=lambda: ["eth0"]
    )
    assert cli.report_context(frames).mode == LINK
    plan = running_plan_of(bad, LOCAL, ("198.18.0.0/15",))
    assert plan.pool is not None and address("198.18.0.1") in plan.pool
    assert running_plan_of(bad, LOCAL, ("keep",)).pool is None
    answers = intercept_cli.parse(["-F", "nonsense 1", "-p", "99"]).config
    intercept_plan = intercept_plan_of(answers)
    assert intercept_plan.port == 99 and intercept_plan.filter_problem


def test_at_the_start(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    """Logged; and said on the terminal where the log goes to a file."""
    doctor_cli.check_at_start("tcpcopy", lambda: [OK, FAULT], None)
    assert "check: listen: taken" in caplog.text and capsys.readouterr().err == ""
    doctor_cli.check_at_start("intercept", lambda: [OK, FAULT], "/var/log/x")
    assert capsys.readouterr().err == (
        "intercept: fault: listen: taken\nintercept:     on this host: ss -ltnp\n"
    )
    caplog.clear()
    doctor_cli.check_at_start("tcpcopy", lambda: [OK], "/var/log/x")
    assert caplog.records == [] and capsys.readouterr().err == ""


def test_a_check_that_breaks_does_not_end_the_run() -> None:
    def broken() -> list[Finding]:
        raise RuntimeError("a fault of ours")

    doctor_cli.check_at_start("tcpcopy", broken, None)


def test_no_check() -> None:
    assert options.parse(["-x", "80-10.0.0.2:80"]).check
    assert not options.parse(["-x", "80-10.0.0.2:80", "--no-check"]).check
    assert intercept_cli.parse([]).check and not intercept_cli.parse(["--no-check"]).check
