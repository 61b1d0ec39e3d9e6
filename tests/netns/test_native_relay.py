"""The native relay on whole hosts: what is spoken, IPv6, secret and TLS, bad peers of all kinds."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tcpcopy.demo.processes import Program
from tests.lab.scenario import PORT, RELAY_PORT, Replay, Scenario, wait_until
from tests.netns.test_replay import LOADS, check

pytestmark = pytest.mark.netns
LOAD = "--connections 40 --requests 10 --request-bytes 10-20000"
STREAMS = 40


def intercept_says(replay: Replay, pattern: str) -> bool:
    return re.search(pattern, replay.intercepts[0].output()) is not None


def secret_file(directory: Path, text: str, name: str = "secret") -> Path:
    path = directory / name
    path.write_text(f"{text}\n")
    path.chmod(0o600)
    return path


def certificate(directory: Path, name: str, address: str, signed_by: str = "") -> Path:
    """A certificate for an IP address and its key (NAME.pem, NAME.key), by itself or by another."""
    path = directory / f"{name}.pem"
    command = [
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
        "-nodes", "-days", "2", "-subj", f"/CN={name}", "-out", str(path),
        "-keyout", str(directory / f"{name}.key"), "-addext", f"subjectAltName=IP:{address}",
    ]  # fmt: skip
    if signed_by:
        issuer = directory / signed_by
        command += ["-CA", f"{issuer}.pem", "-CAkey", f"{issuer}.key"]
    subprocess.run(command, check=True, capture_output=True)
    return path


@pytest.mark.parametrize(
    "name",
    [
        "keep-alive",
        "one request each",
        pytest.param("uploads", marks=pytest.mark.acceptance),
        pytest.param("client resets", marks=pytest.mark.acceptance),
    ],
)
@pytest.mark.parametrize(
    ("tcpcopy", "intercept", "spoken"),
    [
        ("auto", "auto", "native"),
        ("native", "native", "native"),
        ("classic", "auto", "classic"),
        ("auto", "classic", "classic"),
    ],
)
def test_what_is_spoken(
    scenario: Scenario, name: str, tcpcopy: str, intercept: str, spoken: str
) -> None:
    """Both ends find out by themselves, and every stream is exact over either."""
    load, arguments, streams = LOADS[name]
    if "one" in name:
        load, streams = "--connections 500 --concurrency 50", 500
    scenario.servers(arguments)
    with scenario.replay(
        "classic", "--relay", tcpcopy, intercept_arguments=("--relay", intercept)
    ) as replay:
        scenario.load(load)
        scenario.wait_for_target(streams, 30)
    assert intercept_says(replay, f"connected, {spoken} relay")
    check(scenario, replay, streams)


@pytest.mark.parametrize("out", [(), ("-o", "eth0"), ("--workers", 2)], ids=["raw", "-o", "two"])
@pytest.mark.parametrize("mapped", ["", "fd99::/64"], ids=["own addresses", "-c"])
def test_ipv6_in_classic_mode(scenario: Scenario, mapped: str, out: tuple[object, ...]) -> None:
    """IPv6 packets out, the target's answers back over the native relay."""
    scenario.servers()
    lab = scenario.lab
    lab.classic([mapped] if mapped else None)
    intercept = scenario.start_intercept()
    words = [*out, *(["-c", mapped] if mapped else [])]
    # Until its link-local address is no longer tentative, a host asks no neighbour for its MAC.
    addresses = ("ip", "-6", "address", "show", "dev", "eth0")
    assert wait_until(lambda: "tentative" not in lab.online.run(*addresses), 5)
    replay = scenario.start_tcpcopy(
        "-x", f"{PORT}-[{lab.target.v6}]:{PORT}", "-s", lab.assistant.v4, *words
    )
    replay.intercepts = [intercept]
    scenario.load(LOAD, to=lab.online.v6)
    scenario.wait_for_target(STREAMS)
    replay.stop()
    peers = {s.peer[0] for s in scenario.target[0].stop()}
    assert peers == {lab.client.v6} or (mapped and all(p.startswith("fd99::") for p in peers))
    check(scenario, replay, STREAMS)


def test_both_families_over_one_relay_that_is_reached_by_ipv6(scenario: Scenario) -> None:
    scenario.servers()
    lab = scenario.lab
    lab.classic()
    intercept = scenario.start_intercept("-b", "::")
    transfers = (
        f"{lab.online.v4}:{PORT}-{lab.target.v4}:{PORT},"
        f"[{lab.online.v6}]:{PORT}-[{lab.target.v6}]:{PORT}"
    )
    replay = scenario.start_tcpcopy("-x", transfers, "-s", f"[{lab.assistant.v6}]")
    replay.intercepts = [intercept]
    scenario.load(LOAD, to=lab.online.v6)
    scenario.load(LOAD, "--seed 5")
    scenario.wait_for_target(2 * STREAMS)
    replay.stop()
    check(scenario, replay, 2 * STREAMS)


def test_ipv6_needs_the_native_relay(scenario: Scenario) -> None:
    """With a classic intercept it is refused at start, in one line."""
    lab = scenario.lab
    scenario.start_intercept("--relay", "classic")
    transfer = f"{PORT}-[{lab.target.v6}]:{PORT}"
    replay = scenario.start_tcpcopy("-x", transfer, "-s", lab.assistant.v4, wait=False)
    assert replay.tcpcopy.wait(15) == 2
    assert "classic relay only, and IPv6 targets need the native one" in replay.output


def test_secret(scenario: Scenario, tmp_path: Path) -> None:
    """Each program has a file of its own with the same secret."""
    scenario.servers()
    ours = secret_file(tmp_path, "correct horse battery staple")
    theirs = secret_file(tmp_path, "correct horse battery staple  ", "theirs")
    with scenario.replay(
        "classic", "--secret-file", ours, intercept_arguments=("--secret-file", theirs)
    ) as replay:
        scenario.load(LOAD)
        scenario.wait_for_target(STREAMS)
    check(scenario, replay, STREAMS)


@pytest.mark.parametrize(
    ("tcpcopy", "intercept", "to_user", "in_log"),
    [
        ("one secret of tcpcopy", "another of intercept", "the secret is wrong", "its secret is"),
        ("", "a secret of intercept", "it wants a secret", "it has no secret"),
        ("a secret of tcpcopy only", "", "it has no secret", ""),
    ],
    ids=["wrong", "missing here", "missing there"],
)
def test_secrets_that_differ(
    scenario: Scenario, tmp_path: Path, tcpcopy: str, intercept: str, to_user: str, in_log: str
) -> None:
    """One line at tcpcopy and exit code 2, one line in intercept's log, whoever lacks it."""
    lab = scenario.lab

    def words(name: str, text: str) -> tuple[object, ...]:
        return ("--secret-file", secret_file(tmp_path, text, name)) if text else ()

    program = scenario.start_intercept(*words("theirs", intercept))
    command = ["-x", f"{PORT}-{lab.target.v4}:{PORT}", "-s", lab.assistant.v4]
    replay = scenario.start_tcpcopy(*command, *words("ours", tcpcopy), wait=False)
    assert replay.tcpcopy.wait(15) == 2
    (line,) = replay.output.splitlines()
    assert line.startswith(f"tcpcopy: -s {lab.assistant.v4}:{RELAY_PORT}:") and to_user in line
    refusals = [entry for entry in program.output().splitlines() if "refused" in entry]
    assert len(refusals) == bool(in_log)
    assert all(in_log in entry and lab.online.v4 in entry for entry in refusals)


def test_secret_refuses_classic_peers(scenario: Scenario, tmp_path: Path) -> None:
    """An intercept with a secret takes no tcpcopy that speaks classic."""
    lab = scenario.lab
    program = scenario.start_intercept("--secret-file", secret_file(tmp_path, "x" * 20))
    transfer = f"{PORT}-{lab.target.v4}:{PORT}"
    command = ("-x", transfer, "-s", lab.assistant.v4, "--relay", "classic")
    replay = scenario.start_tcpcopy(*command)
    assert wait_until(lambda: "it speaks the classic relay" in program.output(), 5)
    time.sleep(1)
    assert program.output().count("it speaks the classic relay") == 1  # however often it comes
    replay.stop()


@pytest.mark.parametrize("with_client", [False, True], ids=["server", "both"])
def test_tls(scenario: Scenario, tmp_path: Path, with_client: bool) -> None:
    scenario.servers()
    lab = scenario.lab
    theirs = certificate(tmp_path, "intercept", lab.assistant.v4)
    words = ["--tls", "--tls-cert", theirs, "--tls-key", tmp_path / "intercept.key"]
    ours: list[object] = ["--tls", "--tls-ca", theirs]
    if with_client:
        mine = certificate(tmp_path, "tcpcopy", lab.online.v4)
        words += ["--tls-ca", mine]
        ours += ["--tls-cert", mine, "--tls-key", tmp_path / "tcpcopy.key"]
    secret = ["--secret-file", secret_file(tmp_path, "0123456789abcdef")]
    with scenario.replay(
        "classic", *ours, *secret, intercept_arguments=(*words, *secret)
    ) as replay:
        scenario.load(LOAD)
        scenario.load("--connections 300 --concurrency 50 --seed 4")
        scenario.wait_for_target(STREAMS + 300)
    check(scenario, replay, STREAMS + 300)


@pytest.mark.parametrize("case", ["unknown", "name", "no client's", "plain there", "plain here"])
def test_tls_that_does_not_fit(scenario: Scenario, tmp_path: Path, case: str) -> None:
    """Certificates are checked, and a side without TLS is told so: one line, exit code 2."""
    lab = scenario.lab
    address = "10.9.9.9" if case == "name" else lab.assistant.v4
    theirs = certificate(tmp_path, "intercept", address)
    mine = certificate(tmp_path, "tcpcopy", lab.online.v4)
    words = ["--tls", "--tls-cert", theirs, "--tls-key", tmp_path / "intercept.key"]
    ours: list[object] = ["--tls", "--tls-ca", mine if case == "unknown" else theirs]
    if case == "no client's":
        words += ["--tls-ca", mine]
    program = scenario.start_intercept(*(() if case == "plain there" else words))
    command: list[object] = ["-x", f"{PORT}-{lab.target.v4}:{PORT}", "-s", lab.assistant.v4]
    command += [] if case == "plain here" else ours
    replay = scenario.start_tcpcopy(*command, wait=False)
    assert replay.tcpcopy.wait(15) == 2
    (line,) = replay.output.splitlines()
    said = {
        "unknown": "its certificate is not accepted",
        "name": "its certificate is not accepted",
        "no client's": "closed by it|TLS",
        "plain there": "TLS",
        "plain here": "it speaks TLS only|its log says why",
    }
    assert re.search(said[case], line), line
    assert "TLS handshake failed" in program.output()


@pytest.mark.parametrize("over", ["native", "TLS", "classic"])
def test_intercept_killed_and_back(scenario: Scenario, tmp_path: Path, over: str) -> None:
    """Live sessions are announced again, and all of them arrive."""
    scenario.servers()
    lab = scenario.lab
    ours: tuple[object, ...] = ("--relay", over)
    words: tuple[object, ...] = ()
    if over == "TLS":
        theirs = certificate(tmp_path, "intercept", lab.assistant.v4)
        ours = ("--tls", "--tls-ca", theirs)
        words = ("--tls", "--tls-cert", theirs, "--tls-key", tmp_path / "intercept.key")
    with scenario.replay("classic", *ours, intercept_arguments=words) as replay:
        load = scenario.start_load("--connections 50 --requests 6 --pause-after 3")
        load.wait_for("paused")
        replay.intercepts[0].stop(signal.SIGKILL)
        replay.intercepts.append(scenario.start_intercept(*words))
        time.sleep(1)
        load.send_signal(signal.SIGUSR1)
        scenario.finish_load(load)
        scenario.load("--connections 20 --seed 8")
        scenario.wait_for_target(70, 30)
    check(scenario, replay, 70)


def resident_kib(program: Program) -> int:
    status = Path(f"/proc/{program.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", status)
    assert found is not None
    return int(found.group(1))


@pytest.mark.parametrize("seconds", [3, 14], ids=["short", "longer than silence"])
def test_stopped_tcpcopy_costs_no_memory_and_the_other_is_served(
    scenario: Scenario, seconds: int
) -> None:
    """One of two tcpcopies is stopped (SIGSTOP) under load; its answers are lost and counted."""
    lab = scenario.lab
    scenario.servers()
    transfer = f"{PORT}-{lab.target.v4}:{PORT}"
    with scenario.replay("classic", "-c", "10.77.0.0/24") as replay:
        lab.classic(["10.77.0.0/24", "10.78.0.0/24"])
        words = ("-x", transfer, "-s", lab.assistant.v4, "-c", "10.78.0.0/24")
        other = scenario.start_tcpcopy(*words)
        intercept = replay.intercepts[0]
        scenario.load(LOAD)
        before = resident_kib(intercept)
        other.tcpcopy.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        scenario.load("--connections 1000 --concurrency 50 --seed 9", timeout=60)
        time.sleep(max(0.0, seconds - (time.monotonic() - began)))
        assert resident_kib(intercept) - before < 16 << 10
        other.tcpcopy.send_signal(signal.SIGCONT)
        scenario.wait_for_target(2 * (STREAMS + 1000), 20)
        other.stop()
    assert replay.report["sessions"]["replayed"] == STREAMS + 1000
    assert other.report["sessions"]["captured"] == STREAMS + 1000
    assert replay.exit_code == 0, replay.output


# Opens ten thousand connections and says something odd on each, for as long as it is left alone.
_ATTACK = """
import os, random, resource, socket, struct, sys, time
resource.setrlimit(resource.RLIMIT_NOFILE, (20000, 20000))
kind, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
opening = bytes(6) + struct.pack("!H", 7) + b"TCPN" + bytes(2)
version = bytes(6) + struct.pack("!H", 6) + bytes(6)
seed = random.Random(3)
held, opened, failed = [], 0, 0
while opened + failed < 10000:
    peer = socket.socket()
    peer.settimeout(5)
    try:
        peer.connect((address, port))
        if kind == "random":
            peer.sendall(seed.randbytes(seed.randrange(1, 400)))
        elif kind == "half":
            peer.sendall((opening + bytes([0x82, 0, 0, 76]) + bytes(76))[: seed.randrange(1, 94)])
        elif kind == "floods":
            body = b"".join(
                struct.pack("!4sHH4sH", seed.randbytes(4), 9, 1, seed.randbytes(4), 80)
                for _ in range(100)
            )
            peer.sendall(version + body)
        opened += 1
        held.append(peer)
    except OSError:
        failed += 1
        peer.close()
    if len(held) > 8000:
        held.pop(0).close()
print("done", opened, failed, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("kind", ["silent", "random", "half", "floods"])
def test_ten_thousand_connections(scenario: Scenario, kind: str) -> None:
    """Whatever a host does to intercept, the tcpcopy of another is served on, in bounded memory."""
    lab = scenario.lab
    scenario.servers()
    with scenario.replay("classic") as replay:
        intercept = replay.intercepts[0]
        scenario.load("--connections 10")
        before = resident_kib(intercept)
        python = scenario.environment, ["python3", "-c", _ATTACK, kind, lab.assistant.v4]
        attack = lab.target.start([*python[1], str(RELAY_PORT)], name="attack", env=python[0])
        scenario.load("--connections 400 --rate 80 --requests 4 --seed 2", timeout=60)
        attack.wait_for("done", 120)
        scenario.load("--connections 50 --requests 4 --seed 5")
        scenario.wait_for_target(460, 30)
        assert resident_kib(intercept) - before < 64 << 10
        # A tcpcopy that comes now gets in.
        late = scenario.start_tcpcopy("-x", f"9-{lab.target.v4}:9", "-s", lab.assistant.v4)
        late.stop()
        assert "native relay" in late.output and "ready" in late.output
    check(scenario, replay, 460)


def test_only_those_allowed(scenario: Scenario) -> None:
    """--allow: others are refused before they say a word, and named once."""
    lab = scenario.lab
    program = scenario.start_intercept("--allow", f"{lab.target.v4},10.99.0.0/16")
    command = ["-x", f"{PORT}-{lab.target.v4}:{PORT}", "-s", lab.assistant.v4]
    replay = scenario.start_tcpcopy(*command, wait=False)
    assert replay.tcpcopy.wait(15) == 2
    assert len(re.findall("refused: its address is not in --allow", program.output())) == 1


def test_sessions_of_one_tcpcopy_are_limited(scenario: Scenario) -> None:
    """--max-sessions: more are refused and counted; those within it are exact."""
    scenario.servers()
    limit = ("--max-sessions", 20)  # of which the probe would be one
    with scenario.replay("classic", "-t", 3, "--no-check", intercept_arguments=limit) as replay:
        load = scenario.start_load("--connections 30 --requests 4 --pause-after 2")
        load.wait_for("paused")
        load.send_signal(signal.SIGUSR1)
        scenario.finish_load(load)
        scenario.wait_for_target(30, 6)
    outcomes = replay.report["sessions"]["outcomes"]
    assert outcomes["replayed"] == 20, outcomes
    assert intercept_says(replay, r"10 sessions refused: their tcpcopy had --max-sessions")
