"""What a peer that is no tcpcopy of ours gets out of intercept, with and without a secret: the
attacks on whole hosts, each by a host of its own that speaks the relay's protocol.
"""

from __future__ import annotations

import json
import re
import signal
import time
from typing import Any

import pytest

from tcpcopy.demo.netns import Host
from tcpcopy.demo.processes import Program
from tests.lab.scenario import PORT, RELAY_PORT, Scenario, python, wait_until
from tests.netns.test_replay import check

pytestmark = pytest.mark.netns
acceptance = pytest.mark.acceptance

PASSWORD = "the password is hunter2"
SERVICE = 8090  # of the assistant, which has nothing to do with tcpcopy
VICTIM_PORT = 45678
MAPPED = {"v4": "10.77.0.9", "v6": "fd99::9"}
NETWORK = {"v4": "10.77.0.0/24", "v6": "fd99::/64"}

# A service that reads, and a client that tells it a secret, a line at a time.
_SERVICE = """
import socket, sys
listener = socket.create_server(("::", int(sys.argv[1])), family=socket.AF_INET6,
                                dualstack_ipv6=True)
print("ready", flush=True)
peer, _ = listener.accept()
while peer.recv(4096):
    pass
"""
_VICTIM = """
import socket, sys, time
host, port, own, text = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4].encode()
peer = socket.create_connection((host, port), timeout=10,
                                source_address=("::" if ":" in host else "", own))
for _ in range(20):
    peer.sendall(text)
    time.sleep(0.01)
print("done", flush=True)
"""


def address(host: Host, family: str) -> str:
    return host.v4 if family == "v4" else host.v6


def attack(scenario: Scenario, *words: object, host: Host | None = None) -> Program:
    """A peer that has announced what it wants."""
    lab = scenario.lab
    to = lab.target.v4 if "--tunnel" in words else lab.assistant.v4
    command = python("tests.lab.relay_peer", to, RELAY_PORT, *words)
    program = (host or lab.client).start(command, name="attacker", env=scenario.environment)
    program.wait_for("^announced", 20)
    return program


def result(program: Program, records: int = 0) -> dict[str, Any]:
    """What it got: once it has so many, or where there should be none a while later."""
    if records:
        program.wait_for(rf"^records {records}$", 20)
    else:
        time.sleep(1)
    program.send_signal(signal.SIGUSR1)
    assert program.wait(30) == 0, program.output()
    found = json.loads(program.output().splitlines()[-1])
    assert isinstance(found, dict)
    return found


def open_intercept(scenario: Scenario, *words: object) -> Program:
    """With these options and no others."""
    command = python("tcpcopy.intercept_cli", *words)
    program = scenario.lab.assistant.start(command, name="intercept", env=scenario.environment)
    program.wait_sockets(RELAY_PORT)
    return program


def answer(scenario: Scenario, family: str, count: int = 10) -> None:
    """The target answers a mapped client, and says what nobody else is to know."""
    flow = f"{address(scenario.lab.target, family)}:{PORT}-{MAPPED[family]}:40001"
    scenario.lab.classic([NETWORK[family]])
    words = ("--answer", flow, "--text", PASSWORD, "--count", count)
    command = python("tests.lab.relay_peer", *words)
    program = scenario.lab.target.start(command, name="answers", env=scenario.environment)
    assert program.wait(10) == 0, program.output()


def flow_of_mapped(scenario: Scenario, family: str) -> str:
    return f"{MAPPED[family]}:40001-{address(scenario.lab.target, family)}:{PORT}"


# --- payload -------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["v4", pytest.param("v6", marks=acceptance)])
def test_no_payload_without_a_secret(scenario: Scenario, family: str) -> None:
    """Any peer may ask for bytes of each answer: it gets headers, and a line in the log."""
    intercept = scenario.start_intercept()
    peer = attack(scenario, "--payload", 128, flow_of_mapped(scenario, family))
    answer(scenario, family)
    found = result(peer, 10)
    assert found["payload"] == ""
    intercept.stop()
    said = intercept.output()
    assert len(re.findall(rf"payload for {scenario.lab.client.v4} refused", said)) == 1, said
    assert "1 connections asked for payload" in said


def test_payload_with_a_secret(scenario: Scenario) -> None:
    """The control: who knows the secret gets what it asks for."""
    scenario.start_intercept("--secret-file", scenario.secret)
    words = ("--secret-file", scenario.secret, "--payload", 128)
    peer = attack(scenario, *words, flow_of_mapped(scenario, "v4"))
    answer(scenario, "v4")
    found = result(peer, 10)
    assert found["payload"] == PASSWORD * 10


def test_classic_payload_is_the_operators_word(scenario: Scenario) -> None:
    """--relay-format batched-payload gives payload to whoever connects, and says so."""
    intercept = scenario.start_intercept("--relay-format", "batched-payload")
    words = ("--kind", "classic", "--record-bytes", 192, flow_of_mapped(scenario, "v4"))
    peer = attack(scenario, *words)
    answer(scenario, "v4")
    assert result(peer, 10)["payload"] == PASSWORD * 10
    assert re.search(r"WARNING .*payload.*--allow", intercept.output())


# --- other services of the assistant -------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "family"),
    [("native", "v4"), ("native", "v6"), pytest.param("classic", "v4", marks=acceptance)],
)
def test_nothing_for_the_assistant_itself(scenario: Scenario, kind: str, family: str) -> None:
    """Without -F: `mapped` is a service of the assistant, `target` is who talks to it."""
    lab = scenario.lab
    intercept = open_intercept(scenario)
    server = lab.assistant.start(["python3", "-c", _SERVICE, str(SERVICE)], name="service")
    server.wait_for("ready")
    own = address(lab.assistant, family)
    flow = f"{own}:{SERVICE}-{address(lab.online, family)}:{VICTIM_PORT}"
    peer = attack(scenario, "--kind", kind, "--payload", 128, flow)
    victim = ["python3", "-c", _VICTIM, own, str(SERVICE), str(VICTIM_PORT), PASSWORD]
    assert lab.online.start(victim, name="victim").wait(20) == 0
    found = result(peer)
    assert found["records"] == 0
    assert found["payload"] == ""
    intercept.stop()
    said = intercept.output()
    assert re.search(r"1 sessions refused: .*address of this host", said), said
    assert re.search(rf"{lab.client.v4} refused: .*address of this host", said), said
    assert re.search(r"unused: .*for this host itself", said), said


def test_an_address_that_comes_later_is_the_assistants_too(scenario: Scenario) -> None:
    """Announced before the device had it: nothing more once it has."""
    lab = scenario.lab
    intercept = open_intercept(scenario, "-i", "eth0")
    peer = attack(scenario, flow_of_mapped(scenario, "v4"))
    answer(scenario, "v4", 3)
    peer.wait_for("^records 3$", 20)
    lab.assistant.ip(f"addr add {MAPPED['v4']}/32 dev eth0")
    assert wait_until(lambda: "addresses of this host" in intercept.output(), 10)
    answer(scenario, "v4", 7)
    assert result(peer)["records"] == 3


# --- live sessions of others ---------------------------------------------------------------------


def live_sessions(scenario: Scenario, family: str) -> list[str]:
    """The connections that the target has, as they are announced."""
    lines = scenario.lab.target.run("ss", "-Htn", "state", "established", f"sport = :{PORT}")
    found = []
    for line in lines.splitlines():
        target, mapped = (text.replace("::ffff:", "") for text in line.split()[2:4])
        found.append(f"{mapped}-{target}")
    return found


@pytest.mark.parametrize(
    "kind",
    [
        "native",
        pytest.param("classic", marks=acceptance),
        pytest.param("IPv6", marks=acceptance),
        pytest.param("tunnel", marks=acceptance),
    ],
)
def test_live_sessions_stay_where_they_are(scenario: Scenario, kind: str) -> None:
    """Another host announces all of them again: all stay exact, it is refused and named once."""
    lab = scenario.lab
    scenario.servers()
    family = "v6" if kind == "IPv6" else "v4"
    words: tuple[object, ...] = ()
    if kind == "classic":
        words = ("--kind", "classic")
    elif kind == "tunnel":
        words = ("--tunnel", "--secret-file", scenario.secret)
    mode = "tunnel" if kind == "tunnel" else "classic"
    ours = ("--relay", "classic") if kind == "classic" else ()
    transfer = f"{PORT}-[{lab.target.v6}]:{PORT}" if family == "v6" else ""
    with scenario.replay(mode, *ours, "-t", 5, "-k", 5, transfer=transfer) as replay:
        load = scenario.start_load(
            "--connections 20 --requests 6 --pause-after 3", to=address(lab.online, family)
        )
        load.wait_for("paused")
        assert wait_until(lambda: len(live_sessions(scenario, family)) == 20, 10)
        peer = attack(scenario, *words, *live_sessions(scenario, family))
        load.send_signal(signal.SIGUSR1)  # go on
        scenario.finish_load(load)
        scenario.wait_for_target(20, 15)
        assert result(peer)["records"] == 0
    check(scenario, replay, 20)
    said = replay.intercepts[0].output()
    assert "20 sessions refused: they are another tcpcopy's" in said, said
    assert len(re.findall(rf"{lab.client.v4} refused: .*another tcpcopy's", said)) == 1, said


# --- what a PROBE tells --------------------------------------------------------------------------


@pytest.mark.parametrize("own", [True, False], ids=["its flow", "another's"])
def test_a_probe_tells_no_details(scenario: Scenario, own: bool) -> None:
    """Neither filter nor devices, and of a flow that it does not have nothing at all."""
    lab = scenario.lab
    scenario.start_intercept()
    lab.classic([NETWORK["v4"]])
    flow = flow_of_mapped(scenario, "v4")
    holder = None if own else attack(scenario, flow, host=lab.online)
    peer = attack(scenario, "--probe", flow)
    answer(scenario, "v4")
    found = result(peer, 10 if own else 0)
    assert len(found["reports"]) == 2
    for text in found["reports"]:
        report = json.loads(text)
        assert report.pop("open") is True
        assert report == ({"forwards_v4": False} if own else {}), text
    if holder is not None:
        result(holder, 10)


def test_a_probe_with_a_secret_tells_all(scenario: Scenario) -> None:
    """The control."""
    scenario.start_intercept("--secret-file", scenario.secret)
    words = ("--secret-file", scenario.secret, "--probe")
    peer = attack(scenario, *words, flow_of_mapped(scenario, "v4"))
    answer(scenario, "v4")
    report = json.loads(result(peer, 10)["reports"][-1])
    assert report["filter"] == f"tcp and src port {PORT}"
    assert report["passed"][0][:3] == ["other", scenario.lab.target.v4, MAPPED["v4"]]


# --- what is said of it --------------------------------------------------------------------------


def test_the_ready_line_warns(scenario: Scenario) -> None:
    """Open: a warning, and how to close it. With a secret, or --allow: none."""
    lab = scenario.lab
    program = scenario.start_intercept()
    assert wait_until(lambda: "the relay is open" in program.output(), 5)
    assert re.search(r"WARNING .*the relay is open", program.output())
    for option in ("--secret-file", "--allow", "-b"):
        assert option in program.output()
    program.stop()
    for words in (("--secret-file", scenario.secret), ("--allow", lab.online.v4)):
        program = scenario.start_intercept(*words)
        assert wait_until(lambda: "listening" in program.output(), 5)  # noqa: B023
        program.stop()
        assert "is open" not in program.output()
