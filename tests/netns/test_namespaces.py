"""--netns: one network namespace captured and another one sent from, both exact as ever.

tcpcopy is started on the lab's switch, which has no address, no route and none of the traffic.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tcpcopy.demo.netns import Host, Lab
from tests.lab.compare import load
from tests.lab.scenario import MODES, PORT, Replay, Scenario, environment, python, wait_until
from tests.netns.test_processes import Daemon

pytestmark = pytest.mark.netns
LOAD = "--connections 40 --requests 20"
STREAMS = 40
MODULES = {"tcpcopy": "tcpcopy.cli", "intercept": "tcpcopy.intercept_cli"}


def check(scenario: Scenario, replay: Replay, streams: int = STREAMS) -> None:
    """Every connection at the target, exact, and counted as replayed."""
    result = scenario.compare()
    assert result.clean and result.exact == streams, f"{result}\n{replay.output}"
    assert replay.exit_code == 0, replay.output
    sessions = replay.report["sessions"]
    assert sessions["captured"] == sessions["replayed"] == streams, sessions


def senders(scenario: Scenario) -> set[str]:
    """The addresses that the target's server was connected to from."""
    return {stream.peer[0] for s in scenario.target for stream in load(s.records)}


@pytest.mark.parametrize("form", ["name", "path", "pid", "pid:"])
def test_forms_of_a_namespace(scenario: Scenario, form: str) -> None:
    """Capture and send from there, whatever it is called by."""
    lab = scenario.lab
    inmate = lab.online.start(["sleep", "300"], name="container")
    name = lab.online.namespace
    value = {
        "name": name,
        "path": f"/run/netns/{name}",
        "pid": str(inmate.pid),
        "pid:": f"pid:{inmate.pid}",
    }[form]
    scenario.servers()
    with scenario.replay("socket", "--netns", value, "-i", "eth0", host=lab.bridge) as replay:
        scenario.load(LOAD)
        scenario.wait_for_target()
    check(scenario, replay)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("mode", MODES)
def test_sent_from_the_captured_namespace(scenario: Scenario, mode: str, workers: int) -> None:
    """All devices, both modes, alone and with workers: as if started there."""
    lab = scenario.lab
    scenario.servers()
    arguments = ("--netns", lab.online.namespace, "--workers", workers)
    with scenario.replay(mode, *arguments, host=lab.bridge) as replay:
        scenario.load(LOAD)
        scenario.wait_for_target()
    check(scenario, replay)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("where", ["host", "name"])
@pytest.mark.parametrize("mode", MODES)
def test_sent_from_another_namespace(
    scenario: Scenario, mode: str, where: str, workers: int
) -> None:
    """Captured on online, sent from the assistant; as `host` when tcpcopy is started there."""
    lab = scenario.lab
    scenario.servers()
    assistant = lab.assistant
    start, send = (assistant, "host") if where == "host" else (lab.bridge, assistant.namespace)
    arguments = ("--netns", lab.online.namespace, "--send-netns", send, "--workers", workers)
    with scenario.replay(mode, *arguments, "-i", "eth0", host=start) as replay:
        # No connection of online's own to the target: all comes from the assistant.
        lab.online.nft(
            "table ip own {\n chain out {\n  type filter hook output priority 0;\n"
            f"  ip daddr {lab.target.v4} drop\n }}\n}}\n"
        )
        scenario.load(LOAD)
        scenario.wait_for_target()
    check(scenario, replay)
    assert senders(scenario) == {assistant.v4 if mode == "socket" else lab.client.v4}


def test_frames_on_a_device_of_the_sending_namespace(scenario: Scenario) -> None:
    """-o names a device where is sent from, -i one where is captured."""
    lab = scenario.lab
    scenario.servers()
    lab.online.ip("link set eth0 down", "link set eth0 name inside0", "link set inside0 up")
    for network in ("10.66.1.0/24",):
        lab.online.ip(f"route replace {network} via {lab.client.v4}")
    arguments = ("--netns", lab.online.namespace, "--send-netns", "host")
    devices = ("-i", "inside0", "-o", "eth0")
    with scenario.replay("classic", *arguments, *devices, host=lab.assistant) as replay:
        scenario.load(LOAD)
        scenario.wait_for_target()
    check(scenario, replay)


def test_intercept_in_another_namespace(scenario: Scenario) -> None:
    """Answers are captured, and tcpcopies served, in a namespace that intercept is not started in;
    with --listen-netns host they are served where it is started."""
    lab = scenario.lab
    scenario.servers()
    lab.classic()
    command = python(MODULES["intercept"], "-i", "eth0", "-F", f"tcp and src port {PORT}")
    lab.bridge.start(
        [*command, "--netns", lab.assistant.namespace], name="intercept", env=environment()
    ).wait_for("listening")
    lab.online.start(
        [*command, "--netns", lab.assistant.namespace, "--listen-netns", "host"],
        name="intercept",
        env=environment(),
    ).wait_for("listening")
    for intercept in (lab.assistant.v4, "127.0.0.1"):
        replay = scenario.start_tcpcopy(
            "-x", f"{PORT}-{lab.target.v4}:{PORT}", "-s", intercept, "-i", "eth0"
        )
        scenario.load(LOAD)
        assert scenario.wait_for_target()
        assert replay.stop() == 0, replay.output
    result = scenario.compare()
    assert result.clean and result.exact == 2 * STREAMS, result


def make_device_again(lab: Lab, host: Host) -> None:
    """Remove a host's device with its cable, as a container runtime does, and make it anew."""
    mac = host.run("cat", "/sys/class/net/eth0/address").strip()
    host.ip("link del eth0")
    lab.bridge.ip(
        f"link add {host.role} type veth peer name eth0 address {mac} netns {host.namespace}",
        f"link set {host.role} master br0 up",
    )
    host.ip(f"addr add {host.v4}/16 dev eth0", "link set eth0 up")


# Rings of several workers cannot be bound to a device again; those of all devices never lose one.
@pytest.mark.parametrize("workers, named", [(1, True), (1, False), (2, False)])
def test_device_made_again_in_the_captured_namespace(
    scenario: Scenario, workers: int, named: bool
) -> None:
    """It is found there, not where tcpcopy has moved to, which has a device of the same name."""
    lab = scenario.lab
    scenario.servers()
    arguments = ("--netns", lab.online.namespace, "--send-netns", "host", "--workers", workers)
    devices = ("-i", "eth0") if named else ()
    with scenario.replay("socket", *arguments, *devices, host=lab.assistant) as replay:
        scenario.load(LOAD)
        assert scenario.wait_for_target()
        make_device_again(lab, lab.online)
        if named:
            assert wait_until(lambda: "device eth0 is back" in replay.output, 5), replay.output
        scenario.load(LOAD, timeout=20.0)
        scenario.wait_for_target()
    check(scenario, replay, 2 * STREAMS)


def test_worker_that_died_comes_back_in_the_right_namespaces(scenario: Scenario) -> None:
    lab = scenario.lab
    scenario.servers()
    arguments = ("--netns", lab.online.namespace, "--send-netns", "host", "--workers", 2)
    with scenario.replay("socket", *arguments, host=lab.assistant) as replay:
        first, second = re.findall(r"\bprocess (\d+)", replay.output)
        subprocess.run(["kill", "-9", first, second], check=True)
        assert wait_until(lambda: len(re.findall(r"\bprocess \d", replay.output)) == 4, 5)
        scenario.load(LOAD)
        scenario.wait_for_target()
    result = scenario.compare()
    assert result.clean and result.exact == STREAMS, f"{result}\n{replay.output}"
    assert senders(scenario) == {lab.assistant.v4}


def test_namespace_may_end_before_the_copy(scenario: Scenario, tmp_path: Path) -> None:
    """A container that ends takes its devices along; tcpcopy goes on, and ends when told to."""
    lab = scenario.lab
    target = scenario.serve(lab.target)
    name = f"{lab.name}-brief"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        transfer = f"{PORT}-{lab.target.v4}:{PORT}"
        replay = scenario.start_tcpcopy(
            "-x", transfer, "--netns", name, "--send-netns", "host", host=lab.assistant
        )
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)
    assert replay.stop() == 1, replay.output  # nothing captured
    assert target.stop() == []


def test_daemon(scenario: Scenario, tmp_path: Path) -> None:
    """The namespace is found before the daemon is on its own: the process may end by then."""
    lab = scenario.lab
    scenario.servers()
    inmate = lab.online.start(["sleep", "300"], name="container")
    words = ("-x", f"{PORT}-{lab.target.v4}:{PORT}", "--netns", inmate.pid)
    daemon = Daemon(lab.bridge, MODULES["tcpcopy"], tmp_path / "daemon", *words)
    inmate.kill()
    scenario.load(LOAD)
    assert scenario.wait_for_target()
    daemon.stop()
    result = scenario.compare()
    assert result.clean and result.exact == STREAMS, result


# --- what is refused -----------------------------------------------------------------------------


def refused(host: Host, *arguments: object, prefix: tuple[str, ...] = ()) -> str:
    """The one line that tcpcopy is refused with."""
    command = [*prefix, *python(MODULES["tcpcopy"], *arguments)]
    done = subprocess.run(
        host.command(command), capture_output=True, text=True, timeout=20, check=False,
        env=environment(),
    )  # fmt: skip
    assert done.returncode == 2, done
    assert done.stdout == "" and done.stderr.count("\n") == 1, done
    return done.stderr


def test_what_is_no_namespace(lab: Lab, tmp_path: Path) -> None:
    transfer = ("-x", f"{PORT}-{lab.target.v4}:{PORT}")
    file = tmp_path / "file"
    file.touch()
    ended = subprocess.Popen(["true"])
    ended.wait()
    for value, problem in {
        "nothing": "there is no such network namespace in /run/netns",
        str(tmp_path / "away"): "there is no such network namespace",
        str(ended.pid): "there is no such process",
        "4194305": "is no process id",
        "pid:x": "names no network namespace",
        str(file): "is not a network namespace",
        str(tmp_path): "is not a network namespace",
        "/dev/null": "is not a network namespace",
        "/proc/self/ns/mnt": "is a namespace, but not of the network",
    }.items():
        for option in ("--netns", "--send-netns"):
            line = refused(lab.online, *transfer, option, value)
            assert line.startswith(f"tcpcopy: {option} {value}: {problem}"), line


def test_devices_are_those_of_the_namespaces(lab: Lab) -> None:
    """-i where is captured, -o where is sent from."""
    transfer = ("-x", f"{PORT}-{lab.target.v4}:{PORT}")
    elsewhere = ("--netns", lab.online.namespace)
    line = refused(lab.bridge, *transfer, *elsewhere, "-i", "br0")
    assert "-i br0: there is no such device or file; give a capture file, or one" in line
    assert line.endswith(" of eth0, lo\n")
    classic = (*transfer, "-s", lab.assistant.v4, *elsewhere, "--send-netns", "host", "-o", "eth0")
    assert "-o eth0: there is no such device; give one of" in refused(lab.bridge, *classic)


def test_loops_are_seen_in_the_captured_namespace(scenario: Scenario) -> None:
    """A target there is a loop, wherever tcpcopy is started; the same address elsewhere is none."""
    lab = scenario.lab
    online = ("--netns", lab.online.namespace)
    back = f"{PORT}-{lab.online.v4}:{PORT}"
    assert "would itself be captured" in refused(lab.bridge, "-x", back, *online)
    assert "would itself be captured" in refused(
        lab.assistant, "-x", back, *online, "--send-netns", "host"
    )
    # 127.0.0.1 of the sending namespace never passes through the captured one.
    scenario.serve(lab.online)
    scenario.serve(lab.assistant)
    local = f"{PORT}-127.0.0.1:{PORT}"
    assert "would itself be captured" in refused(lab.assistant, "-x", local, *online)
    replay = scenario.start_tcpcopy(
        "-x", local, *online, "--send-netns", "host", host=lab.assistant
    )
    scenario.load(LOAD)
    scenario.wait_for_target()
    replay.stop()
    check(scenario, replay)


def test_client_addresses_are_those_of_the_sending_namespace(scenario: Scenario) -> None:
    """-c in socket mode: the addresses that are connected from."""
    lab = scenario.lab
    scenario.servers()
    online = ("--netns", lab.online.namespace, "--send-netns", "host")
    transfer = f"{PORT}-{lab.target.v4}:{PORT}"
    line = refused(lab.assistant, "-x", transfer, *online, "-c", lab.online.v4)
    assert f"-c {lab.online.v4}: is not an address of this host" in line
    with scenario.replay("socket", *online, "-c", lab.assistant.v4, host=lab.assistant) as replay:
        scenario.load(LOAD)
        scenario.wait_for_target()
    check(scenario, replay)


def test_missing_privileges_are_named(lab: Lab) -> None:
    """CAP_NET_RAW alone captures, but enters no other namespace, and sees no other's process."""
    transfer = ("-x", f"{PORT}-{lab.target.v4}:{PORT}")
    raw = ("setpriv", "--bounding-set=-all,+net_raw", "--inh-caps=-all")
    line = refused(lab.bridge, *transfer, "--netns", lab.online.namespace, prefix=raw)
    assert "may not be entered: CAP_SYS_ADMIN is missing" in line
    inmate = lab.online.start(["sleep", "300"], name="container")
    line = refused(lab.bridge, *transfer, "--netns", inmate.pid, prefix=raw)
    assert "may not be looked at by this user" in line
