"""The guides work word for word: each shell block of README and docs is run on hosts with the
addresses that it names, and the sessions arrive at every target that it names.

A block begins with `# on online` and the like; what follows is typed on that host.
"""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tcpcopy import options
from tcpcopy.demo.netns import Host, Lab
from tcpcopy.demo.processes import Program
from tcpcopy.mapping.addresses import format_address
from tcpcopy.namespaces import own
from tests.lab.compare import Comparison, compare
from tests.lab.datagrams import differences, sequences
from tests.lab.scenario import RELAY_PORT, ROOT, Scenario, Server, python, wait_until
from tests.netns import test_udp as udp
from tests.unit.relay import certificates

pytestmark = pytest.mark.netns

MODULES = {"tcpcopy": "tcpcopy.cli", "intercept": "tcpcopy.intercept_cli"}
GUIDES = (
    "README.md", "docs/copy-to-a-test-server.md", "docs/classic-mode.md", "docs/relay.md",
    "docs/containers.md", "docs/copy-udp-traffic.md", "docs/one-machine.md",
    "docs/two-machines.md", "docs/check-the-set-up.md",
)  # fmt: skip
ADDRESSES = {"online": "10.0.0.1", "target": "10.0.0.2", "assistant": "10.0.0.3"}
# The machine that containers run on: the switch, and online is a container there.
CONTAINER_HOST = ("host", "10.0.0.9")
# A second test server of the guides runs on the assistant.
MORE_ADDRESSES = {"10.0.0.4": "assistant"}
CLIENT = "192.168.7.9"
STREAMS = 30
SAMPLED_STREAMS = 200  # enough for -r 10 to take some and leave some
RAMP_S = 4


@dataclass(slots=True)
class Block:
    """The commands of one shell block, each with the host that it is typed on."""

    name: str
    commands: list[tuple[str, str]] = field(default_factory=list)
    output: list[str] = field(default_factory=list)  # lines of the text block that follows

    def words(self, command: str) -> list[str]:
        """The words behind `command` where it is typed to run; [] when it is not."""
        for _, line in self.commands:
            if line.split()[0] == command and not is_doctor(line):
                return shlex.split(line)[1:]
        return []


def is_doctor(line: str) -> bool:
    """Whether a line only checks a host."""
    return line.split()[1:2] == ["doctor"]


def blocks(guides: tuple[str, ...] = GUIDES) -> list[Block]:
    """Every block of the guides that is typed on hosts."""
    all_found = []
    for guide in guides:
        text = (ROOT / guide).read_text()
        heading = ""
        found = None
        for part in re.split(r"^(## [^\n]*\n|```\w+\n.*?^```$)", text, flags=re.M | re.S):
            if part.startswith("## "):
                heading = part[3:].strip()
            elif part.startswith("```text\n") and found is not None:
                found.output = part.splitlines()[1:-1]
            elif part.startswith("```sh\n# on"):
                found = Block(f"{Path(guide).stem}: {heading}")
                host = ""
                for line in part.splitlines()[1:-1]:
                    if match := re.match(r"# on (?:the )?(\w+)", line):
                        host = match[1]
                    elif line.strip() and not line.startswith("#"):
                        found.commands.append((host, line))
                all_found.append(found)
    return all_found


def copies_tcp(block: Block) -> bool:
    """Whether TCP is copied by the block."""
    return "--udp" not in block.words("tcpcopy")


def copies_udp(block: Block) -> bool:
    """Whether UDP is copied by the block."""
    return not {"--udp", "both"}.isdisjoint(block.words("tcpcopy"))


WITH_TCPCOPY = [block for block in blocks() if block.words("tcpcopy")]
REPLAYING = [block for block in WITH_TCPCOPY if block.words("tcpdump")]
COPYING = [block for block in WITH_TCPCOPY if block not in REPLAYING]
COPYING_TCP = [block for block in COPYING if copies_tcp(block)]
CHECKING = [b for b in blocks() if all(is_doctor(line) for _, line in b.commands) and b.commands]
COPYING_UDP = [block for block in COPYING if copies_udp(block)]
# Where the guides only say "the laptop", it is a host that is reached from nowhere.
ROLES = {role: role for role in ADDRESSES} | {"laptop": "target"}


class Network:
    """Hosts with the guides' addresses, and servers wherever a block copies from or to."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.lab: Lab = scenario.lab
        lab = self.lab
        for role, address in ADDRESSES.items():
            host: Host = getattr(lab, role)
            host.ip(f"addr add {address}/24 dev eth0")
            host.sysctl({"net/ipv4/conf/all/rp_filter": "1", "net/ipv4/conf/eth0/rp_filter": "1"})
        for address, role in MORE_ADDRESSES.items():
            getattr(lab, role).ip(f"addr add {address}/24 dev eth0")
        lab.client.ip(f"addr add {CLIENT}/24 dev eth0", "route add 10.0.0.0/24 dev eth0")
        lab.online.ip("route add 192.168.7.0/24 dev eth0")
        if lab.ipv6:
            lab.online.ip("addr add fd00::1/64 dev eth0 nodad")
            lab.target.ip("addr add fd00::2/64 dev eth0 nodad")
        # A block that leaves out what it needs must fail.
        lab.assistant.sysctl({"net/ipv4/ip_forward": "1"})
        self.programs: dict[str, Program] = {}

    def contain(self, directory: Path) -> None:
        """Make online a container of the host: a process in it has its id in a file."""
        self.lab.bridge.ip(f"addr add {CONTAINER_HOST[1]}/24 dev br0")
        inmate = self.lab.online.start(["sleep", "600"], name="container")
        (directory / "container.pid").write_text(f"{inmate.pid}\n")

    def host_of(self, address: str) -> Host:
        """The host with a target's address."""
        by_address = {a: r for r, a in ADDRESSES.items()} | MORE_ADDRESSES
        by_address |= {"fd00::2": "target", "127.0.0.1": "online", "::1": "online"}
        host = getattr(self.lab, by_address[address])
        assert isinstance(host, Host)
        return host

    def named(self, role: str) -> Host:
        """The host that a block calls so."""
        host = self.lab.bridge if role == CONTAINER_HOST[0] else getattr(self.lab, role)
        assert isinstance(host, Host)
        return host

    def check(self, role: str, line: str) -> tuple[int, str]:
        """Type a line that checks a host; its exit code and what it prints."""
        command, *words = shlex.split(line)
        host = getattr(self.lab, role)
        program = host.start(
            python(MODULES[command], *words), name="doctor", env=self.scenario.environment
        )
        return program.wait(20), program.output()

    def type(self, role: str, line: str, directory: Path) -> None:
        """Type one line on a host: our commands stay, or return when they are daemons."""
        host = self.named(role)
        command, *words = line.split(maxsplit=1)
        if command not in MODULES:
            host.run("sh", "-c", f"cd {shlex.quote(str(directory))} && {line}")
            return
        if is_doctor(line):
            code, text = self.check(role, line)
            assert code == 0, text
            return
        ours = shlex.join(python(MODULES[command]))
        shell = f"cd {shlex.quote(str(directory))} && exec {ours} {' '.join(words)}"
        program = host.start(["sh", "-c", shell], name=command, env=self.scenario.environment)
        if " -d " in line:
            assert program.wait(10) == 0, program.output()
        elif command == "intercept":
            program.wait_sockets(RELAY_PORT)
        else:
            program.wait_for(r"\bready\b")
        self.programs[command] = program


def is_sampled(found: options.Options) -> bool:
    return found.percentage < 100 or found.gradual


def fault(result: Comparison, found: options.Options) -> str:
    """What is wrong with the streams of one target, or nothing."""
    if is_sampled(found):
        # A part of the sessions, and of these everything.
        share = result.exact and not (result.corrupt or result.extra or result.ended_differently)
        return "" if share and result.lost else str(result)
    return "" if result.clean and result.exact == STREAMS * found.copies else str(result)


@pytest.mark.parametrize("block", COPYING_TCP, ids=[block.name for block in COPYING_TCP])
def test_guide(
    scenario: Scenario, tmp_path: Path, block: Block, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The block as it stands; then load; then every target has what online has."""
    network = Network(scenario)
    certificates.write(tmp_path)  # files that the block makes before it names them
    certificates.write_secret(tmp_path)
    monkeypatch.chdir(tmp_path)
    found = options.parse(
        block.words("tcpcopy"),
        devices=lambda: ["lo", "eth0"],
        open_namespace=lambda option, _: own(option),  # what it names is there when it is typed
    )
    if any(role == CONTAINER_HOST[0] for role, _ in block.commands):
        network.contain(tmp_path)
    if not network.lab.ipv6 and any(len(t.target_address) > 4 for t in found.transfers):
        pytest.skip("no IPv6 here")
    online: dict[int, Server] = {}
    targets: list[tuple[Server, int]] = []
    for transfer in found.transfers:
        port = transfer.source_port
        if port not in online:
            online[port] = scenario.serve(scenario.lab.online, port=port)
        host = network.host_of(format_address(transfer.target_address))
        targets.append((scenario.serve(host, port=transfer.target_port), port))
    for role, line in block.commands:
        network.type(role, line, tmp_path)
    streams = SAMPLED_STREAMS if is_sampled(found) else STREAMS
    if found.gradual:
        time.sleep(RAMP_S)
    for port in online:
        load = f"--connections {streams} --requests 4 --seed {port} --source {CLIENT}"
        scenario.load(load, to=ADDRESSES["online"], port=port)
    wanted = 1 if is_sampled(found) else STREAMS * found.copies
    wait_until(lambda: all(server.count() >= wanted for server, _ in targets), 8)
    if found.daemon:
        stop_daemons(network, tmp_path)
        assert "sessions replayed exactly" in (tmp_path / "tcpcopy.log").read_text()
    else:
        tcpcopy = network.programs["tcpcopy"]
        assert tcpcopy.stop(signal.SIGINT) == 0, tcpcopy.output()
    captured = {port: server.stop() for port, server in online.items()}
    for server, port in targets:
        result = compare(captured[port], server.stop(), copies=found.copies)
        assert not fault(result, found), result


@pytest.mark.parametrize("block", REPLAYING, ids=[block.name for block in REPLAYING])
def test_guide_of_recorded_traffic(scenario: Scenario, tmp_path: Path, block: Block) -> None:
    """Record with the first command; each other command replays all of it, to its own end."""
    network = Network(scenario)
    online = scenario.serve(scenario.lab.online, port=80)
    target = scenario.serve(scenario.lab.target, port=8080)
    network.lab.target.ip("link set eth0 down")
    (host, record), *commands = block.commands
    shell = f"cd {shlex.quote(str(tmp_path))} && exec {record}"
    recorder = getattr(network.lab, host).start(["sh", "-c", shell], name="tcpdump")
    recorder.wait_for("listening on")
    scenario.load(f"--connections {STREAMS} --source {CLIENT}", to=ADDRESSES["online"], port=80)
    time.sleep(2)  # it sees what has come once a second
    recorder.stop(signal.SIGINT)
    copies = 0
    for role, line in commands:
        words = shlex.split(line)
        command = (
            f"cd {shlex.quote(str(tmp_path))} && exec {shlex.join(python(MODULES['tcpcopy']))}"
        )
        program = getattr(network.lab, ROLES[role]).start(
            ["sh", "-c", f"{command} {shlex.join(words[1:])}"],
            name="tcpcopy",
            env=scenario.environment,
        )
        assert program.wait(30) == 0, program.output()
        if words[1] != "inspect":
            found = options.parse(words[1:])
            assert found.recorded is not None
            copies += found.recorded.passes
            wanted = STREAMS * copies
            assert wait_until(lambda n=wanted: target.count() >= n, 5), program.output()
    result = compare(online.stop(), target.stop(), copies=copies)
    assert result.clean and result.exact == STREAMS * copies, result


@pytest.mark.parametrize("block", COPYING_UDP, ids=[block.name for block in COPYING_UDP])
def test_guide_of_udp(scenario: Scenario, tmp_path: Path, block: Block) -> None:
    """The block as it stands; then datagrams; then the target has what online has."""
    network = Network(scenario)
    found = options.parse(block.words("tcpcopy"), devices=lambda: ["lo", "eth0"])
    (transfer,) = found.transfers
    port = transfer.source_port
    target_host = network.host_of(format_address(transfer.target_address))
    online = udp.UdpServer(scenario, scenario.lab.online, port)
    target = udp.UdpServer(scenario, target_host, transfer.target_port)
    for role, line in block.commands:
        network.type(role, line, tmp_path)
    flows = SAMPLED_STREAMS if is_sampled(found) else STREAMS
    words = f"--flows {flows} --datagrams {flows * 10} --source {CLIENT} --rate 1000"
    udp.load(scenario, words, to=ADDRESSES["online"], port=port)
    tcpcopy = network.programs["tcpcopy"]
    assert tcpcopy.stop(signal.SIGINT) == 0, tcpcopy.output()
    time.sleep(0.2)
    sent, arrived = online.stop(), target.stop()
    if is_sampled(found):
        assert not sequences(arrived) - sequences(sent) - sequences(sent), "copies of what was sent"
        assert 0 < len(arrived) < flows * found.copies
    else:
        assert not differences(sent, arrived, found.copies), tcpcopy.output()
    if not found.socket_mode and found.client_pool is None and found.local is None:
        assert arrived.keys() == sent.keys()


@pytest.mark.parametrize("block", CHECKING, ids=[block.name for block in CHECKING])
def test_guide_that_only_checks(scenario: Scenario, block: Block) -> None:
    """It says what the guide shows, and its exit code tells whether there is a fault."""
    network = Network(scenario)
    scenario.serve(scenario.lab.online, port=80)
    scenario.serve(scenario.lab.target, port=8080)
    assert block.output, "the guide shows what it says"
    for role, line in block.commands:
        code, text = network.check(role, line)
        assert code == any(line.startswith("fault") for line in block.output), text
        assert [line for line in block.output if line not in text.splitlines()] == []


def stop_daemons(network: Network, directory: Path) -> None:
    """As the guides say."""
    stops = [block for block in blocks() if not block.words("tcpcopy") and block.words("kill")]
    assert stops, "a guide shows how a daemon is stopped"
    for role, line in stops[0].commands:
        network.type(role, line, directory)
    assert wait_until(lambda: not (directory / "tcpcopy.pid").exists(), 15)
    other = directory / "intercept.pid"
    if other.exists():
        subprocess.run(["kill", other.read_text().strip()], check=True)
        assert wait_until(lambda: not other.exists(), 5)
    time.sleep(0.05)


def test_guides_have_blocks_to_run() -> None:
    """A change of their form would leave nothing to run."""
    assert len(COPYING) >= 15
    assert {block.name.partition(":")[0] for block in COPYING} == {Path(g).stem for g in GUIDES}
    assert len(CHECKING) >= 2
    for block in blocks():
        roles = {role for role, _ in block.commands}
        assert roles <= {*ROLES, CONTAINER_HOST[0]}, block
    assert len(REPLAYING) >= 2
