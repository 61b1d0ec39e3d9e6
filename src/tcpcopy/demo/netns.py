"""Client, online, target and assistant hosts as network namespaces of this machine.

A fifth namespace holds the bridge that joins them, so nothing is named, routed or configured on
the machine's own network. Namespaces and directories carry the owner's pid and start time; those
of owners that are gone (killed before they could clean up) are removed by the next `Lab.build`.

Addresses: online .2, target .3, assistant .4, client .5 of 10.66.0.0/16 and fd66::/64. The client
also owns the whole of 10.66.1.0/24 and fd66:1::/64, for load from many addresses.
"""

from __future__ import annotations

import atexit
import ipaddress
import itertools
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tcpcopy.demo.processes import LabError, Program, end_all

__all__ = ["CLIENT_RANGES", "Host", "Lab", "LabError", "missing_requirement", "remove_leftovers"]

PREFIX = "tcpcopy-lab"
HOST_NUMBERS = {"online": 2, "target": 3, "assistant": 4, "client": 5}
CLIENT_RANGES = ("10.66.1.0/24", "fd66:1::/64")
_NETNS_DIRECTORY = Path("/run/netns")
_NAME = re.compile(re.escape(PREFIX) + r"-(\d+)-(\d+)-\d+(?:-.*)?")
_lab_numbers = itertools.count(1)

# What every host gets. Ephemeral ports start above the servers' own; TIME_WAIT is reused so that
# tens of thousands of short connections fit; nothing learnt from one run leaks into the next.
_SYSCTLS = {
    "net/core/somaxconn": "65535",
    "net/ipv4/tcp_max_syn_backlog": "65535",
    "net/ipv4/ip_local_port_range": "10000 65535",
    "net/ipv4/tcp_tw_reuse": "1",
    "net/ipv4/tcp_no_metrics_save": "1",
    "net/ipv4/tcp_congestion_control": "cubic",
    "net/ipv4/ip_forward": "0",
    "net/ipv4/icmp_ratelimit": "0",
    "net/ipv4/conf/all/accept_redirects": "0",
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv6/conf/all/forwarding": "0",
    "net/ipv6/conf/all/accept_ra": "0",
    "net/ipv6/conf/all/accept_redirects": "0",
    "net/ipv6/conf/default/accept_dad": "0",
    "net/ipv6/conf/all/accept_dad": "0",
    "net/ipv6/conf/eth0/accept_dad": "0",
}

# With br_netfilter loaded each frame on the bridge would pass by iptables. A switch has none.
_SWITCH_SYSCTLS = {
    f"net/bridge/bridge-nf-call-{table}": "0" for table in ("iptables", "ip6tables", "arptables")
}


def missing_requirement() -> str | None:
    """What keeps this machine from having a lab, in one line with the mend; None if nothing."""
    if os.geteuid() != 0:
        return "needs root to make network namespaces; run it with sudo"
    if shutil.which("ip") is None:
        return "needs the ip command; install the package iproute2"
    if not Path("/proc/self/ns/net").exists():
        return "needs network namespaces; this kernel has none"
    return None


def _run(argv: Sequence[str], *, stdin: str | None = None, timeout: float = 30.0) -> str:
    """Run a set-up command away from the terminal's Ctrl-C; return what it printed."""
    try:
        done = subprocess.run(
            argv,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            start_new_session=True,
        )
    except OSError as error:
        raise LabError(f"cannot run {argv[0]}: {error.strerror}") from error
    if done.returncode:
        detail = done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}"
        raise LabError(f"{' '.join(argv)}: {detail}")
    return done.stdout


def _start_time(pid: int | str) -> str:
    """Start time of a process in clock ticks after boot, as /proc/PID/stat has it; "" if gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]


def _owner_is_gone(name: str) -> bool:
    """Whether `name` is one of a lab's names and the process that made it runs no more."""
    found = _NAME.fullmatch(name)
    return found is not None and _start_time(found.group(1)) != found.group(2)


def _remove_namespace(namespace: str) -> None:
    """End what runs in the namespace and remove it; nothing happens if it is not there."""
    path = _NETNS_DIRECTORY / namespace
    if not path.exists():
        return
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        try:
            pids = _run(["ip", "netns", "pids", namespace]).split()
        except LabError:
            break  # a name that was made but never mounted: no process can be in it
        if not pids:
            break
        for pid in pids:
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.01)
    try:
        _run(["ip", "netns", "delete", namespace])
    except LabError:
        path.unlink(missing_ok=True)


def remove_leftovers() -> list[str]:
    """Remove namespaces, programs and directories of labs whose owner is gone; return the names."""
    removed = []
    if _NETNS_DIRECTORY.is_dir():
        for name in sorted(os.listdir(_NETNS_DIRECTORY)):
            if _owner_is_gone(name):
                _remove_namespace(name)
                removed.append(name)
    for directory in Path(tempfile.gettempdir()).glob(f"{PREFIX}-*"):
        # Anybody may make a directory of that name in /tmp; only our own is ours to remove.
        if _owner_is_gone(directory.name) and directory.lstat().st_uid == os.geteuid():
            shutil.rmtree(directory, ignore_errors=True)
            removed.append(directory.name)
    return removed


class Host:
    """One namespace: run and start programs in it, change its network."""

    def __init__(self, lab: Lab, role: str, number: int) -> None:
        self.lab = lab
        self.role = role  # "online", "target", "assistant", "client"; "bridge" is the switch
        self.namespace = f"{lab.name}-{role}"
        self.v4 = f"10.66.0.{number}" if number else ""
        self.v6 = f"fd66::{number}" if number else ""

    def command(self, argv: Sequence[str]) -> list[str]:
        """`argv` as a command line that runs in this host."""
        # `ip netns exec` replaces itself by the program, so its pid is the program's.
        return ["ip", "netns", "exec", self.namespace, *argv]

    def run(self, *argv: str, stdin: str | None = None, timeout: float = 30.0) -> str:
        """Run a short command here; return its standard output. Raises `LabError` if it fails."""
        return _run(self.command(argv), stdin=stdin, timeout=timeout)

    def start(
        self, argv: Sequence[str], *, name: str, env: Mapping[str, str] | None = None
    ) -> Program:
        """Start a program here; the lab ends it at the latest when it closes."""
        log_path = self.lab.directory / f"{len(self.lab.programs):02d}-{self.role}-{name}.log"
        program = Program(
            self.command(argv), name=f"{name} ({self.role})", log_path=log_path, env=env
        )
        self.lab.programs.append(program)
        return program

    def ip(self, *commands: str) -> None:
        """Run `ip` commands here in one batch: `host.ip("link set eth0 down", ...)`."""
        _run(["ip", "-n", self.namespace, "-batch", "-"], stdin="\n".join(commands) + "\n")

    def sysctl(self, settings: Mapping[str, str]) -> None:
        """Write settings under /proc/sys, named with slashes; those not there are passed over."""
        script = "\n".join(
            f"[ ! -w /proc/sys/{key} ] || echo '{value}' > /proc/sys/{key} 2>/dev/null || :"
            for key, value in settings.items()
        )
        self.run("sh", "-c", script)

    def nft(self, rules: str) -> None:
        """Load an nftables ruleset here."""
        self.run("nft", "-f", "-", stdin=rules)

    def offload(self, on: bool, device: str = "eth0") -> None:
        """Segmentation, receive merging and checksums by the (virtual) card: on or off.

        Off, each packet is on the wire as a real network would carry it, checksum filled in.
        """
        state = "on" if on else "off"
        features = ("tx", "sg", "tso", "gso", "gro")
        pairs = [word for feature in features for word in (feature, state)]
        self.run("ethtool", "-K", device, *pairs)


class Lab:
    """The hosts, joined and addressed, from `build` to `close`; also a context manager.

    `directory` holds logs and whatever the user puts there; made in the temporary directory and
    removed by `close` unless the caller gave one. `close` may be called at any time and again.
    Not thread-safe; start programs from the main thread.
    """

    def __init__(self, directory: Path | None = None, *, mtu: int = 1500) -> None:
        self.name = f"{PREFIX}-{os.getpid()}-{_start_time('self')}-{next(_lab_numbers)}"
        self.mtu = mtu
        self.ipv6 = Path("/proc/net/if_inet6").exists()
        self.programs: list[Program] = []
        self._given_directory = directory
        self.directory = directory or Path(tempfile.gettempdir())
        self.bridge = Host(self, "bridge", 0)
        self.online, self.target, self.assistant, self.client = (
            Host(self, role, number) for role, number in HOST_NUMBERS.items()
        )
        self.hosts = (self.online, self.target, self.assistant, self.client)
        self._classic_routes: list[str] = []

    def __enter__(self) -> Lab:
        try:
            self.build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def build(self) -> None:
        """Make the hosts. Raises `LabError`; `close` then removes what was made."""
        problem = missing_requirement()
        if problem:
            raise LabError(problem)
        remove_leftovers()
        atexit.register(self.close)
        if self._given_directory is None:
            self.directory = Path(tempfile.mkdtemp(prefix=f"{self.name}-"))
        everyone = (self.bridge, *self.hosts)
        _run(
            ["ip", "-batch", "-"],
            stdin="".join(f"netns add {host.namespace}\n" for host in everyone),
        )
        self.bridge.sysctl({"net/ipv6/conf/all/disable_ipv6": "1"} | _SWITCH_SYSCTLS)
        commands = [
            "link set lo up",
            "link add br0 type bridge forward_delay 0 mcast_snooping 0",
            f"link set br0 mtu {self.mtu} up",
        ]
        for host in self.hosts:
            commands += [
                f"link add {host.role} mtu {self.mtu} type veth "
                f"peer name eth0 mtu {self.mtu} netns {host.namespace}",
                f"link set {host.role} master br0 up",
            ]
        self.bridge.ip(*commands)
        for host in self.hosts:
            self._address(host)

    def _address(self, host: Host) -> None:
        reverse_path = {f"net/ipv4/conf/{name}/rp_filter": "0" for name in ("all", "eth0")}
        host.sysctl(_SYSCTLS | reverse_path)
        if host is self.client:  # so that programs may bind to any address of the range
            host.sysctl({"net/ipv6/ip_nonlocal_bind": "1"})
        commands = [
            "link set lo up",
            f"addr add {host.v4}/16 dev eth0",
            "link set eth0 up",
        ]
        if self.ipv6:
            commands.append(f"addr add {host.v6}/64 dev eth0 nodad")
        for network in CLIENT_RANGES:
            if ":" in network and not self.ipv6:
                continue
            if host is self.client:
                commands.append(f"route add local {network} dev lo")
            else:
                commands.append(f"route add {network} via {self._via(self.client, network)}")
        host.ip(*commands)

    @staticmethod
    def _via(host: Host, network: str) -> str:
        return host.v6 if ":" in network else host.v4

    def classic(self, networks: Sequence[str] | None = None) -> None:
        """Route the target's answers for `networks` to the assistant (None: the client's own).

        `networks` are the mapped addresses: the client's, or those of `-c`. Until `classic_off`
        the target cannot be reached by the real client, as in a real set-up.
        """
        if networks is None:
            networks = [f"{self.client.v4}/32", CLIENT_RANGES[0]]
            if self.ipv6:
                networks += [f"{self.client.v6}/128", CLIENT_RANGES[1]]
        routes = [str(ipaddress.ip_network(network, strict=False)) for network in networks]
        self.target.ip(*(f"route replace {r} via {self._via(self.assistant, r)}" for r in routes))
        self._classic_routes += [route for route in routes if route not in self._classic_routes]

    def classic_off(self) -> None:
        """Undo `classic`: the target answers the client directly again."""
        for route in self._classic_routes:
            if route in CLIENT_RANGES:
                self.target.ip(f"route replace {route} via {self._via(self.client, route)}")
            else:
                self.target.ip(f"route delete {route}")
        self._classic_routes = []

    def lose(self, to_target: float = 0.0, from_target: float = 0.0) -> None:
        """Drop these percentages of the TCP packets on the target's link (0, 0: none again).

        Dropped where they arrive (the target's device; the switch's port), so that no sender is
        told, as on a real wire. Needs nft.
        """
        for host, device, percent in (
            (self.target, "eth0", to_target),
            (self.bridge, self.target.role, from_target),
        ):
            rule = f"meta l4proto tcp numgen random mod 10000 < {round(percent * 100)} counter drop"
            host.nft(
                f"table netdev loss\ndelete table netdev loss\ntable netdev loss {{\n"
                f' chain arrive {{\n  type filter hook ingress device "{device}" priority 0;\n'
                f"  {rule if percent else ''}\n }}\n}}\n"
            )

    def lost(self) -> tuple[int, int]:
        """Packets that `lose` has dropped: (to the target, from the target)."""
        counts = []
        for host in (self.target, self.bridge):
            found = re.search(r"counter packets (\d+)", host.run("nft", "list", "ruleset"))
            counts.append(int(found.group(1)) if found else 0)
        return counts[0], counts[1]

    def cut_link(self, host: Host) -> tuple[str, str]:
        """Cut a host's cable; return the two loose ends, devices of the bridge host. Once a lab.

        A program there has to carry frames between them (switch side, host side). Offloads are
        turned off around it: every frame fits the MTU and has its checksum.
        """
        self.bridge.ip(
            f"link set {host.role} nomaster",
            f"link add wire0 mtu {self.mtu} type veth peer name wire1 mtu {self.mtu}",
            "link set wire0 master br0 up",
            "link set wire1 up",
        )
        self.bridge.offload(False, "wire0")
        host.offload(False)
        return "wire1", host.role

    def close(self) -> None:
        """End every program, remove every namespace and the directory. Never raises `LabError`."""
        end_all(self.programs)
        self.programs.clear()
        for host in (*self.hosts, self.bridge):
            try:
                _remove_namespace(host.namespace)
            except (LabError, subprocess.TimeoutExpired):
                pass  # the next lab tries again, by the owner's pid in the name
        if self._given_directory is None and self.directory.name.startswith(f"{self.name}-"):
            shutil.rmtree(self.directory, ignore_errors=True)
        atexit.unregister(self.close)
