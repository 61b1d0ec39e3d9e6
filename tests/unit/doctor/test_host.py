"""This host is read, whatever it is like; and quickly."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import stat
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tcpcopy.doctor import host
from tcpcopy.doctor.host import HostReader, bind_problem, entering, ring_problem
from tcpcopy.namespaces import Namespace, own
from tests.unit.doctor.made import address, plan


def test_the_process() -> None:
    facts = HostReader().process()
    status = Path("/proc/self/status").read_text()
    assert f"CapEff:\t{facts.capabilities:016x}" in status
    assert facts.open_files == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert facts.memory_total > facts.memory_available > 0
    assert facts.clock_resolution_ns >= 1 and facts.clock_source
    assert facts.is_root == (os.geteuid() == 0)
    assert os.access(facts.interpreter, os.X_OK)
    assert facts.is_synchronised in (True, False)


def test_the_network() -> None:
    loopback = address("127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as server:
        facts = HostReader().network([loopback], with_firewall=False)
        assert server.getsockname()[1] in facts.listening
    lo = facts.named("lo")
    assert lo is not None and lo.mtu > 1500 and facts.link(lo.index) == lo
    assert facts.routes[loopback].is_local
    assert loopback in facts.own()
    assert facts.sysctls["net/ipv4/ip_forward"] in "01"
    assert facts.number("net/ipv4/conf/lo/rp_filter", -1) in (0, 1, 2)
    assert facts.firewall is None and facts.firewall_problem == ""


def test_it_is_quick() -> None:
    reader = HostReader()
    before = time.process_time()
    reader.process()
    reader.network([address("127.0.0.1")], with_firewall=False)
    assert time.process_time() - before < 0.2


def program(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(shutil, "which", lambda name, path: _in(tmp_path, name))
    return tmp_path


def _in(folder: Path, name: str) -> str | None:
    return str(folder / name) if (folder / name).exists() else None


CHAIN = '{"chain":{"family":"ip","table":"t","name":"c","type":"filter","hook":"output",'
CHAIN += '"prio":0,"policy":"drop"}}'


def test_rules_are_read(folder: Path) -> None:
    program(folder, "nft", f"echo '{{\"nftables\":[{CHAIN}]}}'")
    firewall = HostReader().network(()).firewall
    assert firewall is not None
    assert [chain.policy for chain in firewall.chains.values()] == ["drop"]


def test_rules_of_iptables_nft_are_read_from_iptables_save(folder: Path) -> None:
    rule = '{"rule":{"family":"ip","table":"t","chain":"c","expr":[{"xt":null},{"drop":null}]}}'
    program(folder, "nft", f"echo '{{\"nftables\":[{CHAIN},{rule}]}}'")
    program(
        folder, "iptables-save", "printf '*filter\\n:OUTPUT ACCEPT [0:0]\\n-A OUTPUT -j DROP\\n'"
    )
    firewall = HostReader().network(()).firewall
    assert firewall is not None and len(firewall.chains["iptables filter", "OUTPUT"].rules) == 1


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("echo 'Operation not permitted' >&2; exit 1", "nft: Operation not permitted"),
        ("sleep 5", "nft took more than 0.2 s"),
        ("echo nonsense", "nft printed what is no JSON"),
        ("exit 3", "nft: exit code 3"),
    ],
)
def test_rules_that_cannot_be_read(folder: Path, script: str, problem: str) -> None:
    program(folder, "nft", script)
    before = time.monotonic()
    facts = HostReader(program_seconds=0.2).network(())
    assert facts.firewall is None and facts.firewall_problem == problem
    assert time.monotonic() - before < 3


def test_no_program_to_read_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_has_netfilter", lambda: True)
    facts = HostReader().network(())
    assert facts.firewall is None and "neither nft nor iptables-save" in facts.firewall_problem
    monkeypatch.setattr(host, "_has_netfilter", lambda: False)
    assert HostReader().network(()).firewall is not None, "this kernel has no rules"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"/proc/self/cgroup": "0::/a/b\n", "/sys/fs/cgroup/a/memory.max": "4096\n",
          "/sys/fs/cgroup/a/b/memory.max": "max\n"}, 4096),
        ({"/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/memory.max": "8192"}, 8192),
        ({"/proc/self/cgroup": "5:cpu,memory:/x\n",
          "/sys/fs/cgroup/memory/x/memory.limit_in_bytes": "9223372036854771712\n",
          "/sys/fs/cgroup/memory/memory.limit_in_bytes": "123456"}, 123456),
        ({"/proc/self/cgroup": "0::/../y\n", "/sys/fs/cgroup/y/memory.max": "77"}, 77),
        ({}, 0),
    ],
)  # fmt: skip
def test_memory_limit(
    files: dict[str, str], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "_text", lambda path: files.get(path, ""))
    assert host._memory_limit() == expected


def test_addresses_that_can_and_cannot_be_listened_on() -> None:
    assert bind_problem("127.0.0.1", 0) == ""
    assert bind_problem("203.0.113.1", 0) == "Cannot assign requested address"
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert bind_problem("127.0.0.1", server.getsockname()[1]) == "Address already in use"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs CAP_NET_RAW")
def test_rings_are_opened_and_closed() -> None:
    before = len(os.listdir("/proc/self/fd"))
    reject = plan(filter_program=bytes([6, 0, 0, 0, 0, 0, 0, 0]), buffer_bytes=1 << 20)
    assert ring_problem(reject) == ""
    nowhere = replace(reject, devices=("nosuch0",))
    assert "there is no such device" in ring_problem(nowhere)
    assert len(os.listdir("/proc/self/fd")) == before


def test_how_a_namespace_is_entered() -> None:
    assert entering(None) == ""
    assert entering(own("--netns")) == ""
    by_path = Namespace("--netns", "/proc/self/ns/net")
    assert entering(by_path) == "nsenter --net=/proc/self/ns/net "
    by_pid = Namespace("--netns", str(os.getpid()))
    assert entering(by_pid) == f"nsenter -t {os.getpid()} -n "
    by_path.value = "web"
    assert entering(by_path) == "ip netns exec web "
