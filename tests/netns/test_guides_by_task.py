"""The guides for more hosts than three work word for word: several online servers or targets, and
networks such as clouds have. As tests/netns/test_guides.py, with a host for each name.

For every target: exactly the sessions of the online servers that were copied to it.
"""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from tcpcopy import options
from tcpcopy.demo.netns import Host
from tcpcopy.demo.processes import Program
from tcpcopy.mapping.addresses import format_address
from tests.lab.compare import Stream, compare
from tests.lab.scenario import C_PROGRAMS, RELAY_PORT, Scenario, Server, wait_until
from tests.netns.test_guides import (
    ADDRESSES,
    CLIENT,
    MODULES,
    SAMPLED_STREAMS,
    STREAMS,
    Block,
    Network,
    blocks,
    is_sampled,
)
from tests.unit.relay import certificates

pytestmark = pytest.mark.netns

MIGRATION = "docs/migrate-from-tcpcopy.md"
GUIDES = ("docs/many-to-one.md", "docs/one-to-several.md", "docs/cloud.md", MIGRATION)
# Further hosts of these guides. 10.0.0.4, elsewhere a second address of the assistant, is one.
FURTHER = {"online2": ("10.0.0.5", 7), "target2": ("10.0.0.4", 8)}
# How the migration guide writes the C programs.
C_COMMANDS = {f"/usr/local/{name}/sbin/{name}": name for name in C_PROGRAMS}
MIXED = [
    block
    for block in blocks((MIGRATION,))
    if any(line.split()[0] in C_COMMANDS for _, line in block.commands)
]
BLOCKS = [block for block in blocks(GUIDES) if block.words("tcpcopy") and block not in MIXED]
# Hosts that go by another name in one of the guides.
ALIASES = {"collector": "assistant"}
# What a cloud lets out of each machine, the further addresses given in its console among it.
CLOUD_ADDRESSES = {
    "online": ("10.0.0.1", "10.0.0.11", "10.0.0.12"),
    "target": ("10.0.0.2",),
    "assistant": ("10.0.0.3",),
}
MIRROR_VNI = 7
# The same few ports of one client to every online server: what shared targets have to survive.
PORTS = "20000-20199"


class Field(Network):
    """Two online servers, two targets, an assistant, a client that reaches both servers."""

    def __init__(self, scenario: Scenario) -> None:
        super().__init__(scenario)
        self.lab.assistant.ip("addr del 10.0.0.4/24 dev eth0")
        self.further = {role: self._add(role, *place) for role, place in FURTHER.items()}
        self.started: list[tuple[str, Program]] = []

    def _add(self, role: str, address: str, number: int) -> Host:
        lab = self.lab
        host = Host(lab, role, number)
        subprocess.run(["ip", "netns", "add", host.namespace], check=True)
        lab.hosts = (*lab.hosts, host)  # type: ignore[assignment]  # so that it is removed
        lab.bridge.ip(
            f"link add {role} type veth peer name eth0 netns {host.namespace}",
            f"link set {role} master br0 up",
        )
        host.sysctl({f"net/ipv4/conf/{name}/rp_filter": "1" for name in ("all", "eth0")})
        host.ip(
            "link set lo up",
            "link set eth0 up",
            f"addr add {address}/24 dev eth0",
            "route add 192.168.7.0/24 dev eth0",
        )
        return host

    def _type_c(self, role: str, words: list[str], directory: Path) -> None:
        """Start a C program, its log in `directory`, not below the place it was built for."""
        name = C_COMMANDS[words[0]]
        log = directory / f"c-{name}.log"
        command = [str(C_PROGRAMS[name]), *words[1:], "-l", str(log)]
        program = self.named(role).start(command, name=f"c-{name}")
        if name == "intercept":
            program.wait_sockets(RELAY_PORT)
        else:
            program.wait_sockets(RELAY_PORT, "01")
            time.sleep(0.3)  # it says nothing when capture is on
        self.programs[f"c-{name}"] = program

    def become_cloud(self) -> None:
        """From now on the switch drops IPv4 packets with a foreign source, in silence, and what
        comes to online is mirrored to 10.0.0.3 in VXLAN, as clouds do.
        """
        lines = ["table netdev cloud {"]
        for role, addresses in CLOUD_ADDRESSES.items():
            lines += [
                f" chain from_{role} {{",
                f'  type filter hook ingress device "{role}" priority 0;',
                f"  ip saddr != {{ {', '.join(addresses)} }} counter drop",
                " }",
            ]
        self.lab.bridge.nft("\n".join([*lines, "}", ""]))
        online = self.lab.online
        online.ip(
            f"link add mirror type vxlan id {MIRROR_VNI} remote {ADDRESSES['assistant']} "
            "dstport 4789 nolearning dev eth0",
            "link set mirror up",
        )
        online.nft(
            'table netdev mirror {\n chain arrive {\n  type filter hook ingress device "eth0" '
            'priority 0;\n  ip protocol tcp dup to "mirror"\n }\n}\n'
        )

    def dropped(self) -> int:
        """Packets of online with a foreign source that the switch has dropped."""
        chain = ("list", "chain", "netdev", "cloud", "from_online")
        found = re.search(r"counter packets (\d+)", self.lab.bridge.run("nft", *chain))
        assert found is not None
        return int(found[1])

    def named(self, role: str) -> Host:
        return self.further.get(role) or super().named(ALIASES.get(role, role))

    def host_of(self, address: str) -> Host:
        for role, (own, _) in FURTHER.items():
            if address == own:
                return self.further[role]
        return self.lab.online if address == ADDRESSES["online"] else super().host_of(address)

    def type(self, role: str, line: str, directory: Path) -> None:
        """As `Network.type`; every program is kept, also two of one kind. C programs too."""
        command = line.split(maxsplit=1)[0]
        if command in C_COMMANDS:
            self._type_c(role, shlex.split(line), directory)
            return
        super().type(role, line, directory)
        if command in MODULES:
            self.started.append((command, self.programs[command]))


@dataclass(slots=True)
class Copying:
    """One tcpcopy of a block."""

    online: str  # address of the online server that it copies
    found: options.Options

    @property
    def takes_a_part(self) -> bool:
        """Whether some sessions are left out on purpose."""
        return is_sampled(self.found) or self.found.filter is not None


def copyings(block: Block) -> list[Copying]:
    """The tcpcopies of a block, in the order in which they are typed."""
    result = []
    for role, line in block.commands:
        if line.split()[0] != "tcpcopy":
            continue
        found = options.parse(shlex.split(line)[1:], devices=lambda: ["lo", "eth0", "mirror0"])
        assert len({t.source_port for t in found.transfers}) == 1
        own = {**ADDRESSES, **{name: address for name, (address, _) in FURTHER.items()}}
        source = found.transfers[0].source_address
        result.append(Copying(format_address(source) if source else own[role], found))
    return result


@dataclass(slots=True)
class Played:
    """What the servers have recorded after a block was typed and load had run."""

    online: dict[str, list[Stream]]  # by address
    target: dict[str, list[Stream]]


def play(field: Field, block: Block, directory: Path) -> Played:
    """Servers wherever the block copies from or to; the block as it stands; load; the end."""
    scenario = field.scenario
    copying = copyings(block)
    port = copying[0].found.transfers[0].source_port
    online = {
        address: scenario.serve(field.host_of(address), port=port)
        for address in dict.fromkeys(one.online for one in copying)
    }
    targets: dict[str, Server] = {}
    for one in copying:
        for transfer in one.found.transfers:
            address = format_address(transfer.target_address)
            if address not in targets:
                host = field.host_of(address)
                targets[address] = scenario.serve(host, port=transfer.target_port)
    for role, line in block.commands:
        field.type(role, line, directory)
    streams = streams_of(copying)
    loads = []
    for seed, address in enumerate(online):  # at the same time: one client's ports in use at both
        words = f"--connections {streams} --requests 4 --seed {seed} --source {CLIENT}"
        words += f" --source-ports {PORTS} --think-ms 5-20"
        loads.append(scenario.start_load(words, to=address, port=port))
    for load in loads:
        scenario.finish_load(load)
    if any(one.takes_a_part for one in copying):
        time.sleep(3)
    else:
        wanted = {
            address: streams * sum(one.found.copies for one in copying if goes_to(one, address))
            for address in targets
        }
        wait_until(lambda: all(targets[a].count() >= n for a, n in wanted.items()), 10)
    for command, program in reversed(field.started):
        if command == "tcpcopy":
            assert program.stop(signal.SIGINT) == 0, program.output()
    return Played(
        {address: server.stop() for address, server in online.items()},
        {address: server.stop() for address, server in targets.items()},
    )


def goes_to(one: Copying, target: str) -> bool:
    """Whether a tcpcopy copies to the target with this address."""
    return any(format_address(t.target_address) == target for t in one.found.transfers)


def streams_of(copying: list[Copying]) -> int:
    """Connections that each online server gets."""
    return SAMPLED_STREAMS if any(one.takes_a_part for one in copying) else STREAMS


@pytest.mark.parametrize("block", BLOCKS, ids=[block.name for block in BLOCKS])
def test_guide(
    scenario: Scenario, tmp_path: Path, block: Block, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each target has every session of each online server that is copied to it, and no other;
    of a tcpcopy that takes a part, some, and of these everything."""
    monkeypatch.chdir(tmp_path)
    certificates.write_secret(tmp_path)  # a file that a block makes before it names it
    field = Field(scenario)
    if block.name.startswith("cloud:"):
        field.become_cloud()
    played = play(field, block, tmp_path)
    copying = copyings(block)
    for address, arrived in played.target.items():
        ones = [one for one in copying if goes_to(one, address)]
        expected = [stream for one in ones for stream in played.online[one.online]]
        result = compare(expected, arrived)
        if any(one.takes_a_part for one in ones):
            assert result.exact and result.lost, result
            assert not (result.corrupt or result.extra or result.ended_differently), result
        else:
            assert result.clean and result.exact == streams_of(copying) * len(ones), result
        shown = {stream.peer[0].removeprefix("::ffff:") for stream in arrived}
        for one in ones:
            if one.found.socket_mode and one.found.client_addresses:
                assert shown == set(one.found.client_addresses)
    parts = [one for one in copying if one.found.filter is not None]
    if parts:  # filters that share sessions out: together everything, once
        arrived = [stream for streams in played.target.values() for stream in streams]
        result = compare(played.online[parts[0].online], arrived)
        assert result.clean and result.exact == SAMPLED_STREAMS, result


def test_cloud_has_no_way_for_forged_addresses(scenario: Scenario, tmp_path: Path) -> None:
    """Classic mode word for word in the cloud of the tests above: nothing arrives, and the summary
    says what the guide says."""
    field = Field(scenario)
    field.become_cloud()
    target = scenario.serve(scenario.lab.target, port=8080)
    scenario.serve(scenario.lab.online, port=80)
    (block,) = [b for b in blocks(("docs/classic-mode.md",)) if "of your choice" in b.name]
    for role, line in block.commands:
        field.type(role, line, tmp_path)
    scenario.load(f"--connections 5 --source {CLIENT}", to=ADDRESSES["online"], port=80)
    tcpcopy = field.programs["tcpcopy"]
    assert wait_until(lambda: field.dropped() >= 5, 10)
    assert tcpcopy.stop(signal.SIGINT, 30) == 1
    assert target.stop() == []
    said = " ".join(tcpcopy.output().split())
    assert "no answer of 10.0.0.2:8080 reached tcpcopy at all" in said, tcpcopy.output()


@pytest.mark.parametrize("title", ["Every session to both", "Two targets in classic mode"])
def test_target_that_is_down_does_not_hold_up_the_other(
    scenario: Scenario, tmp_path: Path, title: str
) -> None:
    """One tcpcopy, two targets, nothing listens on one of them: the other has every session."""
    field = Field(scenario)
    online = scenario.serve(scenario.lab.online, port=80)
    target = scenario.serve(scenario.lab.target, port=8080)
    (block,) = [b for b in blocks(("docs/one-to-several.md",)) if b.name.endswith(title)]
    for role, line in block.commands:
        field.type(role, line, tmp_path)
    words = f"--connections {STREAMS} --requests 4 --source {CLIENT}"
    scenario.load(words, to=ADDRESSES["online"], port=80)
    assert wait_until(lambda: target.count() >= STREAMS, 5)
    tcpcopy = field.programs["tcpcopy"]
    assert tcpcopy.stop(signal.SIGINT) == 1
    result = compare(online.stop(), target.stop())
    assert result.clean and result.exact == STREAMS, result
    refused = (
        f"LOSS {STREAMS} sessions refused by the target, others not: 10.0.0.2:8080, 10.0.0.4:8080"
    )
    assert refused in " ".join(tcpcopy.output().split()), tcpcopy.output()


@pytest.mark.parametrize("block", MIXED, ids=[str(number) for number in range(len(MIXED))])
def test_migration(scenario: Scenario, tmp_path: Path, block: Block, c_programs: object) -> None:
    """Each step with C programs at one end, or at both: the target gets sessions of online and
    nothing else; from our tcpcopy all of them, exactly.
    """
    field = Field(scenario)
    online = scenario.serve(scenario.lab.online, port=80)
    target = scenario.serve(scenario.lab.target, port=8080)
    for role, line in block.commands:
        field.type(role, line, tmp_path)
    words = f"--connections {STREAMS} --requests 4 --source {CLIENT}"
    scenario.load(words, to=ADDRESSES["online"], port=80)
    wait_until(lambda: target.count() >= STREAMS, 10)
    if "tcpcopy" in field.programs:
        tcpcopy = field.programs["tcpcopy"]
        assert tcpcopy.stop(signal.SIGINT) == 0, tcpcopy.output()
        assert "classic relay" in tcpcopy.output()
    result = compare(online.stop(), target.stop())
    if "tcpcopy" in field.programs:
        assert result.clean and result.exact == STREAMS, result
    else:
        assert not (result.corrupt or result.extra), result
        assert result.exact > STREAMS / 2, result


def test_intercept_is_replaced_while_tcpcopy_runs(
    scenario: Scenario, tmp_path: Path, c_programs: object
) -> None:
    """Step 3 of the migration guide: the C intercept ends, ours starts with the same options;
    tcpcopy runs on, the two speak the native relay, and sessions before and after are exact.
    """
    field = Field(scenario)
    online = scenario.serve(scenario.lab.online, port=80)
    target = scenario.serve(scenario.lab.target, port=8080)
    step_2 = next(b for b in MIXED if b.words("tcpcopy"))
    for role, line in step_2.commands:
        field.type(role, line, tmp_path)
    load = f"--connections {STREAMS} --requests 4 --source {CLIENT}"
    scenario.load(load, to=ADDRESSES["online"], port=80)
    assert wait_until(lambda: target.count() >= STREAMS, 10)
    field.programs["c-intercept"].stop(signal.SIGTERM)
    step_3 = next(b for b in blocks((MIGRATION,)) if b.words("tcpcopy") and b.words("intercept"))
    for role, line in step_3.commands:
        if line.startswith("intercept"):
            field.type(role, line, tmp_path)
    field.programs["intercept"].wait_for("connected, native relay")
    tcpcopy = field.programs["tcpcopy"]
    scenario.load(f"{load} --seed 7", to=ADDRESSES["online"], port=80)
    wait_until(lambda: target.count() >= 2 * STREAMS, 10)
    assert tcpcopy.stop(signal.SIGINT) == 0, tcpcopy.output()
    result = compare(online.stop(), target.stop())
    assert result.clean and result.exact == 2 * STREAMS, result


def test_guides_have_blocks_to_run() -> None:
    """A change of their form would leave nothing to run."""
    found = Counter(block.name.partition(":")[0] for block in BLOCKS)
    assert found == {
        "many-to-one": 3,
        "one-to-several": 5,
        "cloud": 5,
        "migrate-from-tcpcopy": 2,
    }
    assert len(MIXED) == 3
