"""What root keeps once all is open, in every mode, and that the run needs no more than that."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tcpcopy.demo.netns import Lab
from tests.lab.recording import recording
from tests.lab.scenario import PORT, RELAY_PORT, Replay, Scenario, python, wait_until
from tests.netns import test_udp as udp
from tests.netns.test_namespaces import make_device_again
from tests.netns.test_replay import check
from tests.netns.test_tunnel import left_behind
from tests.netns.test_workers import workers_of

pytestmark = pytest.mark.netns
NOBODY = 65534
NOBODYS = ("--user", "nobody")
ADMIN, RAW = 1 << 12, 1 << 13  # CAP_NET_ADMIN, CAP_NET_RAW
LOAD = "--connections 20 --requests 5"
# A module that says what is imported once new privileges are forbidden: its file may be one
# that only root can read.
SPY = """
import os, sys
def hook(event, arguments):
    if event == "import" and "NoNewPrivs:\\t1" in open("/proc/self/status").read():
        os.write(2, f"imported late: {arguments[0]}\\n".encode())
sys.addaudithook(hook)
"""


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A lab whose directory is open to all: the tests' own is its owner's alone."""
    with Lab() as lab:
        lab.directory.chmod(0o777)
        (lab.directory / "spy").mkdir()
        (lab.directory / "spy" / "sitecustomize.py").write_text(SPY)
        yield lab


@pytest.fixture
def scenario(scenario: Scenario) -> Scenario:
    """Each program tells what it imports late."""
    path = scenario.environment["PYTHONPATH"]
    scenario.environment["PYTHONPATH"] = f"{scenario.lab.directory / 'spy'}:{path}"
    return scenario


def status(pid: int) -> list[dict[str, str]]:
    """`/proc/PID/status` of each thread of a process."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        pairs = (line.partition(":") for line in (task / "status").read_text().splitlines())
        found.append({name: value.strip() for name, _, value in pairs})
    return found


def holds(pid: int, capabilities: int, uid: int = 0, bounding: int | None = None) -> None:
    """All threads of the process have just these, no way to more, and this user.

    `bounding`: a set that could not be made smaller, as that takes a capability, too.
    """
    bounding = capabilities if bounding is None else bounding
    threads = status(pid)
    assert threads
    for fields in threads:
        sets = {name: int(fields[f"Cap{name}"], 16) for name in ("Prm", "Eff", "Bnd", "Inh", "Amb")}
        wanted = {"Prm": capabilities, "Eff": capabilities, "Bnd": bounding, "Inh": 0, "Amb": 0}
        assert sets == wanted
        assert fields["NoNewPrivs"] == "1"
        assert set(fields["Uid"].split()) == {str(uid)}
        if uid:
            assert set(fields["Gid"].split()) == {str(NOBODY)}
            assert set(fields["Groups"].split()) <= {str(NOBODY)}


def imports_nothing_late(replay: Replay) -> None:
    for program in (replay.tcpcopy, *replay.intercepts):
        assert "imported late" not in program.output(), program.output()


@pytest.mark.parametrize(
    ("mode", "user"),
    [
        ("classic", ()),
        ("link", NOBODYS),
        ("kept", NOBODYS),
        ("tunnel", NOBODYS),
        *(
            pytest.param(mode, user, marks=pytest.mark.acceptance)
            for mode, user in (
                ("socket", ()),
                ("socket", NOBODYS),
                ("classic", NOBODYS),
                ("link", ()),
                ("local", ()),
                ("local", NOBODYS),
                ("kept", ()),
                ("tunnel", ()),
            )
        ),
    ],
)
def test_what_is_kept(scenario: Scenario, mode: str, user: tuple[str, ...]) -> None:
    """After «ready», before a session and while they run; every stream exact."""
    named, words, kept = mode, [*user], RAW  # of the probe
    if mode == "link":
        named, words, kept = "classic", [*words, "-o", "eth0"], RAW | ADMIN
    if mode == "kept":
        scenario = Scenario(scenario.lab, one_host=True)
        named, words, kept = "local", [*words, "-c", "keep"], RAW | ADMIN
    uid = NOBODY if user else 0
    scenario.servers()
    with scenario.replay(named, *words, intercept_arguments=user) as replay:
        holds(replay.tcpcopy.pid, kept, uid)
        for intercept in replay.intercepts:
            intercept.wait_for("listening")
            holds(intercept.pid, RAW | (ADMIN if mode == "tunnel" else 0), uid)
        scenario.load(LOAD)
        scenario.wait_for_target(20)
        holds(replay.tcpcopy.pid, kept, uid)
    check(scenario, replay, 20)
    if mode != "kept":
        assert not left_behind(scenario.lab)
    else:
        rules = scenario.lab.online.run("ip", "rule")
        assert "sport" not in rules, rules
    imports_nothing_late(replay)


@pytest.mark.parametrize(
    ("user", "promiscuous"),
    [
        (NOBODYS, ("--promiscuous",)),
        pytest.param((), (), marks=pytest.mark.acceptance),
        pytest.param((), ("--promiscuous",), marks=pytest.mark.acceptance),
        pytest.param(NOBODYS, (), marks=pytest.mark.acceptance),
    ],
)
def test_device_that_goes_and_comes_back(
    scenario: Scenario, user: tuple[str, ...], promiscuous: tuple[str, ...]
) -> None:
    """Without any capability: the socket is the same one."""
    lab = scenario.lab
    scenario.servers()
    with scenario.replay("socket", "-i", "eth0", "--no-check", *promiscuous, *user) as replay:
        holds(replay.tcpcopy.pid, 0, NOBODY if user else 0)
        scenario.load(LOAD)
        assert scenario.wait_for_target(20)
        make_device_again(lab, lab.online)
        assert wait_until(lambda: "device eth0 is back" in replay.output, 5), replay.output
        scenario.load(LOAD, timeout=20.0)
        scenario.wait_for_target(40)
    check(scenario, replay, 40)


def test_device_of_intercept_that_goes_and_comes_back(scenario: Scenario) -> None:
    """In a namespace that it may no longer enter, as it is there already."""
    lab = scenario.lab
    scenario.servers()
    lab.classic()
    words = ("-i", "eth0", "-F", f"tcp and src port {PORT}", "--netns", lab.assistant.namespace)
    intercept = lab.bridge.start(
        python("tcpcopy.intercept_cli", *words, "--relay", "classic", *NOBODYS),
        name="intercept", env=scenario.environment,
    )  # fmt: skip
    intercept.wait_for("listening")
    holds(intercept.pid, 0, NOBODY)
    replay = scenario.start_tcpcopy(
        "-x", f"{PORT}-{lab.target.v4}:{PORT}", "-s", lab.assistant.v4, "--no-check", *NOBODYS
    )
    holds(replay.tcpcopy.pid, 0, NOBODY)
    scenario.load(LOAD)
    assert scenario.wait_for_target(20)
    make_device_again(lab, lab.assistant)
    assert wait_until(lambda: "device eth0 is back" in intercept.output(), 5), intercept.output()
    lab.classic()  # the route that went with it
    scenario.load(LOAD, timeout=20.0)
    scenario.wait_for_target(40)
    replay.stop()
    check(scenario, replay, 40)


def test_probe_in_a_namespace_that_may_not_be_entered_again(scenario: Scenario) -> None:
    """Intercept looks at a flow for tcpcopy's probe with sockets that it opens then."""
    lab = scenario.lab
    scenario.servers()
    lab.classic()
    words = ("-i", "eth0", "-F", f"tcp and src port {PORT}", "--netns", lab.assistant.namespace)
    intercept = lab.bridge.start(
        python("tcpcopy.intercept_cli", *words, *NOBODYS), name="intercept",
        env=scenario.environment,
    )  # fmt: skip
    intercept.wait_for("listening")
    holds(intercept.pid, RAW, NOBODY)
    replay = scenario.start_tcpcopy(
        "-x", f"{PORT}-{lab.target.v4}:{PORT}", "-s", lab.assistant.v4, *NOBODYS
    )
    scenario.load(LOAD)
    assert wait_until(lambda: "probe: " in replay.output, 10), replay.output
    assert scenario.wait_for_target(20)
    holds(replay.tcpcopy.pid, RAW, NOBODY)
    replay.stop()
    check(scenario, replay, 20)
    assert "CAP_" not in replay.output.partition("ready")[2]
    imports_nothing_late(replay)


@pytest.mark.parametrize(
    "mode",
    [
        "classic",
        pytest.param("socket", marks=pytest.mark.acceptance),
        pytest.param("local", marks=pytest.mark.acceptance),
    ],
)
def test_worker_that_died_comes_back(scenario: Scenario, mode: str) -> None:
    """The parent keeps what a new worker takes to open its own, and is the same user.

    Only root may open /dev/net/tun on some hosts; it has no capability that is for files.
    """
    scenario.servers()
    user = () if mode == "local" else NOBODYS
    uid = NOBODY if user else 0
    with scenario.replay(mode, "--workers", 2, *user, intercept_arguments=user) as replay:
        parent = RAW | (ADMIN if mode == "local" else 0)
        holds(replay.tcpcopy.pid, parent, uid)
        first, second = workers_of(replay)
        holds(first, RAW, uid)
        holds(second, 0, uid)
        os.kill(first, signal.SIGKILL)
        os.kill(second, signal.SIGKILL)
        assert wait_until(lambda: len(workers_of(replay)) == 4, 10), replay.output
        told = [f": process {pid}\n" for pid in workers_of(replay)[2:]]
        assert wait_until(lambda: all(line in replay.output for line in told), 10), replay.output
        for pid in workers_of(replay)[2:]:
            is_first = f"worker 1/2: process {pid}\n" in replay.output
            holds(pid, RAW if is_first else 0, uid, bounding=parent)
        scenario.load("--connections 60")
        scenario.wait_for_target(60, 20)
        pids = workers_of(replay)[2:]
    result = scenario.compare()
    assert result.clean and result.exact == 60, f"{result}\n{replay.output}"
    assert replay.report["workers_lost"] == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    imports_nothing_late(replay)


def test_workers_of_nobody_do_not_outlive_their_parent(scenario: Scenario) -> None:
    """A change of the user takes the kernel's promise away, so it is asked for again."""
    scenario.servers()
    target = scenario.lab.target.v4
    replay = scenario.start_tcpcopy("-x", f"{PORT}-{target}:{PORT}", "--workers", 2, *NOBODYS)
    pids = workers_of(replay)
    assert len(pids) == 2
    replay.tcpcopy.send_signal(signal.SIGKILL)
    assert wait_until(lambda: not any(map(is_running, pids)), 5)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_tun_device_of_a_tunnel_is_made_again(scenario: Scenario) -> None:
    scenario.servers()
    lab = scenario.lab
    with scenario.replay("tunnel", *NOBODYS) as replay:
        (intercept,) = replay.intercepts
        scenario.load(LOAD)
        assert scenario.wait_for_target(20)
        lab.target.ip("link del tcpcopy-t0")
        assert wait_until(lambda: "tcpcopy-t0 is back" in intercept.output(), 5)
        scenario.load(LOAD)
        scenario.wait_for_target(40)
    check(scenario, replay, 40)
    assert not left_behind(lab)


@pytest.mark.parametrize("mode", [pytest.param("socket", marks=pytest.mark.acceptance), "packet"])
def test_udp_keeps_nothing(scenario: Scenario, mode: str) -> None:
    """No probe, and sockets that are open."""
    online = udp.UdpServer(scenario, scenario.lab.online)
    target = udp.UdpServer(scenario, scenario.lab.target)
    replay = udp.start(scenario, mode, *NOBODYS)
    holds(replay.tcpcopy.pid, 0, NOBODY)
    udp.load(scenario, "--flows 20 --datagrams 5")
    time.sleep(0.5)
    assert replay.stop() == 0, replay.output
    udp.check(replay, online.stop(), target.stop(), 1)


def test_files(scenario: Scenario) -> None:
    """Read again for each pass, by the user that it has become; else refused before it starts."""
    lab = scenario.lab
    path = lab.directory / "traffic.pcap"
    scenario.servers()
    with recording(scenario):
        scenario.load("--connections 5 --requests 3")
    path.chmod(0o600)
    words = ("-i", path, "-x", f"{PORT}-{lab.target.v4}:{PORT}", "--fast", "-T", 2, "--no-check")
    replay = scenario.start_tcpcopy(*words, *NOBODYS, wait=False)
    assert replay.tcpcopy.wait(10) == 2
    assert replay.output.count("\n") == 1 and f"-i {path}: cannot be opened again" in replay.output
    path.chmod(0o644)
    replay = scenario.start_tcpcopy(*words, *NOBODYS)
    assert replay.tcpcopy.wait(30) == 0, replay.output
    assert replay.report["sessions"]["replayed"] == 10
    assert "privileges: user 65534, capabilities kept: none" in replay.output


def test_what_fails_is_still_told(scenario: Scenario) -> None:
    """Checks made again say which part takes a privilege that is gone, and no more than that."""
    scenario.serve(scenario.lab.online)  # and none on the target
    with scenario.replay("socket", *NOBODYS) as replay:
        scenario.load("--connections 60 --concurrency 10")
        told = "check: firewall: the rules of this host cannot be read"
        assert wait_until(lambda: told in replay.output, 12), replay.output
    assert "failed alike" in replay.output
    assert "CAP_NET_RAW is missing" not in replay.output
    assert "Traceback" not in replay.output


def test_log_that_is_rotated_by_root(scenario: Scenario) -> None:
    """A new log is the user's; where the directory is not, lines go on in the old one."""
    lab = scenario.lab
    folder = lab.directory / "logs"
    folder.mkdir(mode=0o755)
    path = folder / "log"
    replay = scenario.start_tcpcopy(
        "-x", f"{PORT}-{lab.target.v4}:{PORT}", "-l", path, "-P", folder / "pid", *NOBODYS,
        wait=False,
    )  # fmt: skip
    assert wait_until(lambda: path.exists() and "ready" in path.read_text(), 10)
    assert path.stat().st_uid == NOBODY and (folder / "pid").stat().st_uid == 0
    assert "may not remove it" in path.read_text()
    path.rename(folder / "log.1")
    replay.stop()
    assert not path.exists()
    assert "going on in the old one" in (folder / "log.1").read_text()
    assert "stopping" in (folder / "log.1").read_text()
    assert (folder / "pid").read_text() == ""


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ("--user", "nobody", "--json", "/root/none.json"),
            "--json /root/none.json: Permission denied",
        ),
        (("--user", "no-such-user"), "--user no-such-user: there is no such user; see"),
        (("--user", "root"), "--user root: is root, "),
    ],
)
def test_refusals(scenario: Scenario, words: tuple[str, ...], told: str) -> None:
    """One line and exit code 2, before anything starts."""
    target = scenario.lab.target.v4
    command = python("tcpcopy.cli", "-x", f"{PORT}-{target}:{PORT}", *words)
    program = scenario.lab.online.start(command, name="tcpcopy", env=scenario.environment)
    assert program.wait(10) == 2
    assert program.output().count("\n") == 1 and told in program.output()


def test_intercept_refuses_links(scenario: Scenario) -> None:
    """The same files, the same rule."""
    host, folder = scenario.lab.assistant, scenario.lab.directory
    (folder / "victim").write_text("precious")
    (folder / "link").symlink_to("victim")
    for option in ("-l", "-P"):
        command = python("tcpcopy.intercept_cli", option, folder / "link")
        program = host.start(command, name="intercept", env=scenario.environment)
        assert program.wait(10) == 2
        assert program.output() == (
            f"intercept: {option} {folder / 'link'}: is a symbolic link; name the file that it "
            "leads to\n"
        )
    assert (folder / "victim").read_text() == "precious"
    assert f":{RELAY_PORT} " not in host.run("ss", "-ltn")
