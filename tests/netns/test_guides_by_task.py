"""The guides for more hosts than three work word for word: several online servers or targets, and
networks such as clouds have. As tests/netns/test_guides.py, with a host for each name.

For every target: exactly the sessions of the online servers that were copied to it.
"""

from __future__ import annotations

import shlex
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tcpcopy import options
from tcpcopy.demo.netns import Host
from tcpcopy.demo.processes import Program
from tcpcopy.mapping.addresses import format_address
from tests.lab.compare import Stream, compare
from tests.lab.scenario import Scenario, Server, wait_until
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

pytestmark = pytest.mark.netns

GUIDES = ("docs/many-to-one.md", "docs/one-to-several.md")
# Further hosts of these guides. 10.0.0.4, elsewhere a second address of the assistant, is one.
FURTHER = {"online2": ("10.0.0.5", 7), "target2": ("10.0.0.4", 8)}
BLOCKS = [block for block in blocks(GUIDES) if block.words("tcpcopy")]
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

    def named(self, role: str) -> Host:
        return self.further.get(role) or super().named(role)

    def host_of(self, address: str) -> Host:
        for role, (own, _) in FURTHER.items():
            if address == own:
                return self.further[role]
        return self.lab.online if address == ADDRESSES["online"] else super().host_of(address)

    def type(self, role: str, line: str, directory: Path) -> None:
        """As `Network.type`; every program is kept, also two of one kind."""
        super().type(role, line, directory)
        command = line.split(maxsplit=1)[0]
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
        found = options.parse(shlex.split(line)[1:], devices=lambda: ["lo", "eth0"])
        assert len({t.source_port for t in found.transfers}) == 1
        own = {**ADDRESSES, **{name: address for name, (address, _) in FURTHER.items()}}
        result.append(Copying(own[role], found))
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
def test_guide(scenario: Scenario, tmp_path: Path, block: Block) -> None:
    """Each target has every session of each online server that is copied to it, and no other;
    of a tcpcopy that takes a part, some, and of these everything."""
    played = play(Field(scenario), block, tmp_path)
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
    parts = [one for one in copying if one.found.filter is not None]
    if parts:  # filters that share sessions out: together everything, once
        arrived = [stream for streams in played.target.values() for stream in streams]
        result = compare(played.online[parts[0].online], arrived)
        assert result.clean and result.exact == SAMPLED_STREAMS, result
