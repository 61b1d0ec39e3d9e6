"""Bad input as its user meets it: one line with option, value and mend, exit code 2, no traces.

Both commands as real processes in namespaces, so that no device, port or file of the machine
itself has a part in it.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tcpcopy import intercept_cli, options
from tcpcopy.arguments import Option
from tcpcopy.demo.netns import Host, Lab
from tcpcopy.supervisor import PidFile
from tests.lab.scenario import RELAY_PORT, Scenario, environment, python

pytestmark = pytest.mark.netns

X = ("-x", "8080-10.66.0.3:8080")
MODULES = {"tcpcopy": "tcpcopy.cli", "intercept": "tcpcopy.intercept_cli"}
ANSWER_S = 4.0
NO_CAPABILITY = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
RAW_ONLY = ("setpriv", "--bounding-set=-all,+net_raw", "--inh-caps=-all")

# What no option of the name takes; a new option needs a line here.
RELAY_NONSENSE = {
    "relay": ("morse", "--relay morse: is not a relay; give one of auto, classic, native"),
    "secret_file": ("/nowhere", "--secret-file /nowhere: No such file or directory;"),
    "tls_ca": ("/nowhere", "--tls-ca /nowhere: is of no use without --tls;"),
    "tls_cert": ("/nowhere", "--tls-cert /nowhere: is of no use without --tls;"),
    "tls_key": ("/nowhere", "--tls-key /nowhere: is of no use without --tls;"),
}
NONSENSE = {
    "tcpcopy": {
        **RELAY_NONSENSE,
        "transfer": ("80-", "-x 80-: target: the port is missing;"),
        "intercept": ("10.66.0.4:relay", "-s 10.66.0.4:relay: port 'relay' is not a number"),
        "clients": ("62.135.300.x", "-c 62.135.300.x: is not a network;"),
        "localhost": ("here", "-H here: is not an IP address;"),
        "device": ("eth7", "-i eth7: there is no such device or file;"),
        "transport": ("icmp", "--transport icmp: is not a transport;"),
        # Of no use without a file or a rate, and then that is what is said first.
        "acceleration": ("quick", "-a quick: is for files:"),
        "idle_threshold": ("long", "-I long: is for files:"),
        "times": ("often", "-T often: is for files:"),
        "rate": ("500", "--rate 500: says neither sessions nor requests;"),
        "rate_mode": ("wait", "--rate-mode wait: needs --rate;"),
        "ramp": ("slow", "--ramp slow: needs --rate;"),
        "netns": ("away", "--netns away: there is no such network namespace in /run/netns;"),
        "send_netns": ("away", "--send-netns away: there is no such network namespace in"),
        # Without -s, which it needs, the device is not looked at.
        "output_device": ("eth7", "-o eth7: needs -s: in socket mode the kernel sends;"),
        "filter": ("tcp and port", "-F 'tcp and port': can't parse filter expression"),
        # Of no use without the mode they belong to, and then that is what is said first.
        "local_device": ("a/b", "--local-device a/b: is of no use without --local;"),
        "via": ("moon", "--via moon: is no way to the target;"),
        "workers": ("two", "--workers two: is neither a whole number nor auto;"),
        "log": ("/nowhere/log", "-l /nowhere/log: its directory does not exist;"),
        "json": ("/nowhere/json", "--json /nowhere/json: its directory does not exist;"),
        "state": ("/nowhere/state", "--state /nowhere/state: is not a directory;"),
        "pid_file": ("/nowhere/pid", "-P /nowhere/pid: its directory does not exist;"),
        "user": ("no-such-user", "--user no-such-user: there is no such user;"),
    },
    "intercept": {
        **RELAY_NONSENSE,
        "allow": ("10.0.0.1/8", "--allow 10.0.0.1/8: has bits set behind its prefix;"),
        "device": ("eth7", "-i eth7: there is no such device;"),
        "filter": ("port port", "-F 'port port': can't parse filter expression"),
        "replaced": ("10.0.0.1", "-D 10.0.0.1: is not a pair of IPv4 addresses;"),
        "bind": ("eth0", "-b eth0: is not an IP address;"),
        "netns": ("away", "--netns away: there is no such network namespace in /run/netns;"),
        "listen_netns": ("away", "--listen-netns away: there is no such network namespace in"),
        "tun_allow": ("nowhere", "--tun-allow nowhere: is of no use without --tun;"),
        "tun_clients": ("10.0.0.300", "--tun-clients 10.0.0.300: is of no use without --tun;"),
        "tun_device": ("a/b", "--tun-device a/b: is of no use without --tun;"),
        "layout": ("big", "--relay-format big: is not a relay format;"),
        "log": ("/nowhere/log", "-l /nowhere/log: its directory does not exist;"),
        "pid_file": ("/nowhere/pid", "-P /nowhere/pid: its directory does not exist;"),
        "user": ("no-such-user", "--user no-such-user: there is no such user;"),
    },
}
TABLES = {"tcpcopy": options.OPTIONS, "intercept": intercept_cli.OPTIONS}
EACH_OPTION = [(command, option) for command, table in TABLES.items() for option in table]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command that ended left."""

    code: int
    out: str
    err: str
    seconds: float


class Shell:
    """A user on one of the hosts, in a directory of their own."""

    def __init__(self, host: Host, directory: Path) -> None:
        self.host = host
        self.directory = directory
        directory.mkdir()

    def type(self, command: str, *words: str, before: Sequence[str] = ()) -> Answer:
        """Run a command to its end, as `before` lets it."""
        started = time.monotonic()
        done = subprocess.run(
            self.host.command([*before, *python(MODULES[command]), *words]),
            capture_output=True, text=True, timeout=30, check=False,
            cwd=self.directory, env=environment(),
        )  # fmt: skip
        return Answer(done.returncode, done.stdout, done.stderr, time.monotonic() - started)

    def refused(self, command: str, *words: str, before: Sequence[str] = ()) -> str:
        """Run a command that must refuse; the line without the command's name."""
        files = sorted(self.directory.iterdir())
        answer = self.type(command, *words, before=before)
        assert answer.code == 2, answer
        assert answer.out == "", answer
        assert answer.err.endswith("\n") and answer.err[:-1].isprintable(), answer
        name, _, line = answer.err[:-1].partition(": ")
        assert name == command
        assert ": " in line and "; " in line, "option, problem; mend"
        assert answer.seconds < ANSWER_S, answer
        assert sorted(self.directory.iterdir()) == files, "a file was left behind"
        assert self.processes() == [], "a process was left behind"
        return line

    def processes(self) -> list[str]:
        """Ids of all processes on the host."""
        return subprocess.run(
            ["ip", "netns", "pids", self.host.namespace], capture_output=True, text=True, check=True
        ).stdout.split()


@pytest.fixture
def online(lab: Lab, tmp_path: Path) -> Shell:
    return Shell(lab.online, tmp_path / "online-user")


@pytest.fixture
def assistant(lab: Lab, tmp_path: Path) -> Shell:
    return Shell(lab.assistant, tmp_path / "assistant-user")


@pytest.fixture
def shells(online: Shell, assistant: Shell) -> dict[str, Shell]:
    """Where each command is typed."""
    return {"tcpcopy": online, "intercept": assistant}


def sensible(command: str, name: str = "") -> tuple[str, ...]:
    """A command line without fault, but for the option that is to be tried."""
    return X if command == "tcpcopy" and name != "transfer" else ()


# --- each option -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "option"), EACH_OPTION, ids=[f"{c} {o.long}" for c, o in EACH_OPTION]
)
def test_each_option_given_nonsense(shells: dict[str, Shell], command: str, option: Option) -> None:
    """Numbers that are none, and words, files, devices and addresses that there are not."""
    words = sensible(command, option.name)
    if not option.metavar:
        line = shells[command].refused(command, *words, f"{option.long}=yes")
        assert line.startswith(f"{option.long} yes: takes no value; ")
    elif option.low is not None:
        line = shells[command].refused(command, *words, option.names[0], "many")
        assert line.startswith(f"{option.names[0]} many: is not a whole number; ")
        assert f"from {option.low} to {option.high}" in line
    else:
        value, expected = NONSENSE[command][option.name]
        line = shells[command].refused(command, *words, option.names[0], value)
        assert line.startswith(expected)


@pytest.mark.parametrize("command", MODULES)
def test_what_is_no_option(shells: dict[str, Shell], command: str) -> None:
    shell = shells[command]
    words = sensible(command)
    assert shell.refused(command, *words, "-Q").startswith("-Q: is not an option; see ")
    assert shell.refused(command, *words, "--queue=3").startswith("--queue 3: is not an option; ")
    assert shell.refused(command, *words, "more").startswith("more: belongs to no option; ")


def test_nothing_typed(online: Shell) -> None:
    assert online.refused("tcpcopy") == (
        "-x: is missing; say what to copy, for example -x 80-192.168.0.2:8080"
    )


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("-i", "lo,eth7"), "-i eth7: there is no such device or file; give a capture file, or"),
        (("-i", "lo,"), "-i: a device is empty;"),
        (("-i", "/nowhere/a.pcap"), "-i /nowhere/a.pcap: no such file; check the path"),
        (("-i", "traffic.pcap", "-a", "0"), "-a 0: "),
        (("-i", "traffic.pcap", "--rate", "0sessions"), "--rate 0: is out of range;"),
        (("--rate", "5sessions", "--ramp", "slow"), "--ramp slow: "),
        (("--rate", "5sessions", "--rate-mode", "wait"), "--rate-mode wait: is no such way;"),
        (("-F", "arp"), "-F 'arp': expression rejects all packets;"),
        (("-F", "ether host 2:0:0:0:0:1"), "-F 'ether host 2:0:0:0:0:1': "),
        (("-F", "ip or ip6 or vlan"), "-F 'ip or ip6 or vlan': "),
        (("-s", "assistant.invalid"), "-s assistant.invalid: host name 'assistant.invalid' has no"),
        (("-c", "10.66.0.77"), "-c 10.66.0.77: is not an address of this host; without -s, -c "),
        (("-c", "10.66.0.3"), "-c 10.66.0.3: leaves no address besides the target's own;"),
        (("-D", "1500"), "-D 1500: does not fit into packets of 1500 bytes (-M); give 1460"),
        (("-l", "a", "-P", "./a"), "-P ./a: is the file of -l already; name another file"),
        (("-l", "a", "--json", "a"), "--json a: is the file of -l already; name another file"),
        (("-o", "eth0"), "-o eth0: needs -s: in socket mode the kernel sends; give -s HOST, or"),
        (("-o", "eth7", "-s", "10.66.0.4"), "-o eth7: there is no such device; give one of eth0,"),
        (("-o", "lo", "-s", "10.66.0.4"), "-o lo: is the loopback device: frames sent on it do "),
    ],
)
def test_more_nonsense(online: Shell, words: tuple[str, ...], expected: str) -> None:
    assert online.refused("tcpcopy", *X, *words).startswith(expected)


def test_memory_that_is_used_up_at_the_start(online: Shell) -> None:
    """A limit under which every session would be shed is refused, not run into."""
    line = online.refused("tcpcopy", *X, "-m", "64", "-B", "100", "-i", "lo,eth0")
    found = re.fullmatch(
        r"-m 64: is nearly used up at the start: (\d+) MiB, with capture buffers of 2 x 100 MiB"
        r" \(-B\); give (\d+) or more, or a smaller -B",
        line,
    )
    assert found is not None and 200 < int(found[1]) < int(found[2])


@pytest.mark.parametrize("target", ["10.66.0.2", "127.0.0.1", "[fd66::2]", "[::1]"])
def test_target_that_would_be_captured(online: Shell, target: str) -> None:
    line = online.refused("tcpcopy", "-x", f"8080-{target}:8080")
    assert line.startswith(f"-x 8080-{target}:8080: the target {target}:8080 would itself be ")


def test_targets_that_capture_each_other(online: Shell) -> None:
    line = online.refused("tcpcopy", "-x", "8080-10.66.0.2:81,81-10.66.0.2:8080")
    assert "would itself be captured (a loop); choose another target" in line


# --- files -------------------------------------------------------------------------------------

COMMAND_FILES = [("tcpcopy", "-l"), ("tcpcopy", "-P"), ("tcpcopy", "--json"),
                 ("intercept", "-l"), ("intercept", "-P")]  # fmt: skip


@pytest.mark.parametrize(("command", "option"), COMMAND_FILES)
@pytest.mark.parametrize("daemon", [(), ("-d",)], ids=["", "daemon"])
def test_files_that_cannot_be_written(
    shells: dict[str, Shell], command: str, option: str, daemon: tuple[str, ...]
) -> None:
    """No directory, a directory, a file system that takes none, a pipe without reader, a link."""
    shell = shells[command]
    (shell.directory / "link").symlink_to("victim")
    os.mkfifo(shell.directory / "pipe")
    words = (*sensible(command), *daemon, option)
    for value, expected in [
        ("missing/file", "its directory does not exist; create "),
        ("/", "is a directory; name a file"),
        ("/proc/file", "No such file or directory; give a file that can be written"),
        ("pipe", "is a pipe that nobody reads; start its reader first, or name a file"),
        ("link", "is a symbolic link; name the file that it leads to"),
    ]:
        line = shell.refused(command, *words, value)
        assert line.startswith(f"{option} {value}: {expected}")
    assert not (shell.directory / "victim").exists()


@pytest.mark.parametrize("command", MODULES)
def test_pid_file_that_is_none_is_left_alone(shells: dict[str, Shell], command: str) -> None:
    """A slip of the finger costs no file."""
    shell = shells[command]
    precious = shell.directory / "precious.conf"
    precious.write_text("listen 80\n")
    words = (*sensible(command), "-P")
    line = shell.refused(command, *words, "precious.conf")
    path = str(precious)
    assert line == f"-P {path}: holds something else than a process id; name a file of its own"
    assert precious.read_text() == "listen 80\n"
    line = shell.refused(command, *words, "/dev/null")
    assert line == "-P /dev/null: is not a file; name a file of its own"
    assert not Path("/dev/null").is_file()


@pytest.mark.parametrize("command", MODULES)
@pytest.mark.parametrize("daemon", [(), ("-d",)], ids=["", "daemon"])
def test_pid_file_of_a_running_process(
    shells: dict[str, Shell], command: str, daemon: tuple[str, ...]
) -> None:
    shell = shells[command]
    path = shell.directory / "pid"
    with PidFile(str(path)):
        line = shell.refused(command, *sensible(command), *daemon, "-l", "log", "-P", "pid")
        assert line.startswith(f"-P {path}: process {os.getpid()} runs with this file; ")
        assert path.read_text() == f"{os.getpid()}\n"


# --- privilege ---------------------------------------------------------------------------------


@pytest.mark.parametrize("command", MODULES)
@pytest.mark.parametrize("daemon", [(), ("-d", "-l", "log", "-P", "pid")], ids=["", "daemon"])
def test_no_privilege(shells: dict[str, Shell], command: str, daemon: tuple[str, ...]) -> None:
    line = shells[command].refused(command, *sensible(command), *daemon, before=NO_CAPABILITY)
    assert line == (
        "capture: CAP_NET_RAW is missing; run as root, or `setcap cap_net_raw,cap_net_admin+ep` on"
        " the interpreter"
    )


NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all")


def needs_nobody(shell: Shell) -> None:
    """Skip where the interpreter or the package is out of another user's reach."""
    command = shell.host.command([*NOBODY, *python("tcpcopy", "-v")])
    done = subprocess.run(command, capture_output=True, check=False, cwd="/", env=environment())
    if done.returncode:
        pytest.skip("the user nobody may not read the interpreter or the package")


@pytest.mark.parametrize("command", MODULES)
def test_user_nobody(shells: dict[str, Shell], command: str) -> None:
    """No right to capture, none to write where root may; each is said, none is a trace."""
    shell = shells[command]
    needs_nobody(shell)
    words = sensible(command)
    assert shell.refused(command, *words, before=NOBODY).startswith("capture: CAP_NET_RAW is miss")
    for value in ("/root/file", str(shell.directory / "file")):
        line = shell.refused(command, *words, "-l", value, before=NOBODY)
        assert line.startswith(f"-l {value}: ")
        assert line.endswith("; name another file, or run as a user who may")


@pytest.mark.parametrize("mode", ["socket", "classic"])
def test_cap_net_raw_alone_is_enough(scenario: Scenario, mode: str) -> None:
    """Without any other capability both commands run, and everything arrives."""
    scenario.servers()
    words = [*python("tcpcopy.cli", "--json", scenario.lab.directory / "report.json"), *X]
    if mode == "classic":
        scenario.lab.classic()
        intercept = python("tcpcopy.intercept_cli", "-F", "tcp and src port 8080")
        relay = scenario.lab.assistant.start(
            [*RAW_ONLY, *intercept], name="intercept", env=scenario.environment
        )
        relay.wait_sockets(RELAY_PORT)
        words += ["-s", scenario.lab.assistant.v4]
    tcpcopy = scenario.lab.online.start(
        [*RAW_ONLY, *words], name="tcpcopy", env=scenario.environment
    )
    tcpcopy.wait_for(r"\bready\b")
    scenario.load("--connections 20 --requests 5")
    scenario.wait_for_target(20)
    assert tcpcopy.stop(signal.SIGTERM) == 0, tcpcopy.output()
    assert scenario.compare().clean


# Root without the right to raise its limits.
NO_RESOURCE = ("setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource")


def test_few_open_files(online: Shell) -> None:
    """A limit that leaves no room for the first sockets is said like all else."""
    for limit in (5, 6, 7, 8, 9, 10):
        before = ("prlimit", f"--nofile={limit}:{limit}", *NO_RESOURCE)
        assert "Too many open files" in online.refused("tcpcopy", *X, before=before)


# --- the network -------------------------------------------------------------------------------


@pytest.mark.parametrize("daemon", [(), ("-d", "-P", "pid", "-l", "log")], ids=["", "daemon"])
def test_port_in_use(assistant: Shell, daemon: tuple[str, ...]) -> None:
    first = assistant.host.start(
        python("tcpcopy.intercept_cli"), name="intercept", env=environment()
    )
    first.wait_sockets(RELAY_PORT)
    answer = assistant.type("intercept", *daemon)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == (
        "intercept: -p 36524: the port is in use; stop what listens there (`ss -ltnp`)\n"
    )
    assert assistant.processes() == [str(first.pid)]
    assert list(assistant.directory.iterdir()) == []
    assert first.stop() == 0


def test_foreign_address_to_listen_on(assistant: Shell) -> None:
    line = assistant.refused("intercept", "-b", "10.66.0.77")
    assert line.startswith("-b 10.66.0.77: not an address of this host; ")


UNREACHABLE = "intercept cannot be reached"
MEND = "start intercept there first, or give -L to wait for it"


@pytest.mark.parametrize("daemon", [(), ("-d", "-P", "pid", "-l", "log")], ids=["", "daemon"])
def test_no_intercept(online: Shell, daemon: tuple[str, ...]) -> None:
    """Nobody listens there; there is no such host; another port is meant."""
    for server, shown, problem in [
        ("10.66.0.4", "10.66.0.4:36524", "Connection refused"),
        ("10.66.0.4:9", "10.66.0.4:9", "Connection refused"),
        ("10.99.0.4", "10.99.0.4:36524", "Network is unreachable"),
    ]:
        line = online.refused("tcpcopy", *X, "-s", server, *daemon)
        assert line == f"-s {shown}: {UNREACHABLE} ({problem}); {MEND}"


def test_intercept_behind_a_firewall(online: Shell) -> None:
    """Packets that vanish: the answer comes in the same time."""
    online.host.lab.assistant.nft(
        "table inet firewall {\n chain input {\n  type filter hook input priority 0;\n"
        f"  tcp dport {RELAY_PORT} drop\n }}\n}}\n"
    )
    line = online.refused("tcpcopy", *X, "-s", "10.66.0.4")
    assert line == f"-s 10.66.0.4:36524: {UNREACHABLE} (no answer); {MEND}"


def test_silent_name_server(online: Shell, tmp_path: Path) -> None:
    """A host name that nobody answers for is told in the same time."""
    online.host.ip(f"route add default via {online.host.lab.target.v4}")
    online.host.lab.target.nft(
        "table inet firewall {\n chain input {\n  type filter hook input priority 0;\n"
        "  udp dport 53 drop\n }\n}\n"
    )
    (tmp_path / "resolv.conf").write_text(f"nameserver {online.host.lab.target.v4}\n")
    mount = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'  # seen by this one process only
    before = ("unshare", "-m", "sh", "-c", mount, str(tmp_path / "resolv.conf"))
    line = online.refused("tcpcopy", *X, "-s", "assistant.example", before=before)
    assert line.startswith("-s assistant.example: host name 'assistant.example' has no address; ")


def test_one_of_two_intercepts(online: Shell, assistant: Shell) -> None:
    there = assistant.host.start(
        python("tcpcopy.intercept_cli"), name="intercept", env=environment()
    )
    there.wait_sockets(RELAY_PORT)
    line = online.refused("tcpcopy", *X, "-s", "10.66.0.4,10.66.0.4:9")
    assert line.startswith(f"-s 10.66.0.4:9: {UNREACHABLE} (Connection refused); ")


def test_lonely_goes_on_and_finds_intercept(scenario: Scenario, tmp_path: Path) -> None:
    """-L: tcpcopy is up without intercept, says so in its log, and replays once it is there."""
    scenario.servers()
    scenario.lab.classic()
    log = tmp_path / "log"
    replay = scenario.start_tcpcopy(*X, "-s", "10.66.0.4", "-L", "-l", log, wait=False)
    deadline = time.monotonic() + ANSWER_S + 1
    while not (log.exists() and "ready: classic mode" in log.read_text()):
        assert replay.tcpcopy.alive and time.monotonic() < deadline, replay.output
        time.sleep(0.02)
    assert "WARNING copier: intercept 10.66.0.4:36524: Connection refused; trying on (-L)" in (
        log.read_text()
    )
    assert replay.output == ""
    replay.intercepts.append(scenario.start_intercept())
    replay.tcpcopy.wait_sockets(RELAY_PORT, "01")
    scenario.load("--connections 20 --requests 5")
    scenario.wait_for_target(20)
    assert replay.stop() == 0, replay.output
    assert scenario.compare().clean
