"""How findings are shown, and what they come to."""

from __future__ import annotations

import json

from tcpcopy.doctor.finding import Finding, Level, exit_code, render, serious, to_json, worst

GOOD = Finding("route", Level.OK, "by eth0")
WARNED = Finding("mtu", Level.WARNING, "too large", ("on this host: tcpcopy ... -M 1400",))
BROKEN = Finding("handshake", Level.FAULT, "no answer", ("on the target: x",), "target")


def test_a_line_for_each_and_remedies_below() -> None:
    assert render([GOOD, WARNED, BROKEN]) == (
        "ok       route: by eth0\n"
        "warning  mtu: too large\n"
        "           on this host: tcpcopy ... -M 1400\n"
        "fault    handshake [target]: no answer\n"
        "           on the target: x\n"
    )


def test_only_faults_make_the_exit_code_one() -> None:
    assert exit_code([]) == exit_code([GOOD, WARNED]) == 0
    assert exit_code([GOOD, BROKEN]) == 1
    assert worst([]) is Level.OK and worst([GOOD, WARNED]) is Level.WARNING


def test_the_worst_come_first_of_what_is_serious() -> None:
    assert serious([GOOD, WARNED, BROKEN]) == [BROKEN, WARNED]


def test_json_holds_everything() -> None:
    data = json.loads(json.dumps(to_json([GOOD, BROKEN])))
    assert data["level"] == "fault"
    assert data["findings"][1] == {
        "check": "handshake",
        "level": "fault",
        "text": "no answer",
        "remedy": ["on the target: x"],
        "hop": "target",
    }
