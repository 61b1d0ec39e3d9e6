"""Reads a host: everything that the checks look at, gathered in milliseconds and changing nothing.

Each part that cannot be read is left at its default; only the rules of the packet filter need
another program (`nft`, `iptables-save`), which gets a bounded time.

Source: proc(5), capabilities(7), cgroups(7), packet(7), raw(7), adjtimex(2), libnftables-json(5).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from tcpcopy.capture import rtnetlink
from tcpcopy.capture.ring import open_rings
from tcpcopy.doctor.firewall import Firewall
from tcpcopy.doctor.host_facts import NetworkFacts, ProcessFacts
from tcpcopy.doctor.iptables import read_save
from tcpcopy.doctor.nftables import read_ruleset
from tcpcopy.doctor.plan import Plan
from tcpcopy.errors import UsageError
from tcpcopy.namespaces import Namespace

_PLAIN_SYSCTLS: Final = (
    "net/ipv4/ip_forward",
    "net/ipv4/ip_local_port_range",
    "net/ipv4/ip_local_reserved_ports",
    "net/ipv4/tcp_timestamps",
    "net/ipv4/tcp_tw_reuse",
    "net/core/rmem_max",
)
_DEVICE_SYSCTLS: Final = (
    "net/ipv4/conf/{}/forwarding",
    "net/ipv4/conf/{}/rp_filter",
    "net/ipv6/conf/{}/forwarding",
)
_CONNTRACK: Final = ("nf_conntrack_count", "nf_conntrack_max")
_MOST_DEVICES: Final = 256  # whose settings are read
_SYSTEM_FOLDERS: Final = "/usr/sbin:/sbin:/usr/local/sbin:/usr/bin:/bin"
_LISTEN: Final = "0A"  # in /proc/net/tcp
_TIME_ERROR: Final = 5  # adjtimex: the clock is not synchronised
_TIMEX_BYTES: Final = 256  # struct timex, and room to spare
_UNLIMITED: Final = 1 << 60  # what stands for no limit in a control group is more
QUICK_S: Final = 0.2  # for the programs that are asked, at a start
PATIENT_S: Final = 5.0


class HostReader:
    """Reads this host, and the network namespaces that it is called in."""

    def __init__(self, *, program_seconds: float = PATIENT_S) -> None:
        """`program_seconds`: what the programs that are asked may take together."""
        self._program_seconds = program_seconds
        self._until = 0.0  # they have until then, on the monotonic clock

    def process(self) -> ProcessFacts:
        """This process and its limits."""
        status = _fields(_text("/proc/self/status"))
        memory = _fields(_text("/proc/meminfo"))
        clock = time.get_clock_info("monotonic")
        return ProcessFacts(
            is_root=os.geteuid() == 0,
            capabilities=int(status.get("CapEff", "0"), 16),
            bounding=int(status.get("CapBnd", "0"), 16),
            interpreter=os.path.realpath(sys.executable or "python3"),
            open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            memory_limit=_memory_limit(),
            memory_total=_kibibytes(memory.get("MemTotal", "")),
            memory_available=_kibibytes(memory.get("MemAvailable", "")),
            has_tun=os.path.exists("/dev/net/tun"),
            clock_resolution_ns=max(1, int(clock.resolution * 1e9)),
            clock_source=_text(
                "/sys/devices/system/clocksource/clocksource0/current_clocksource"
            ).strip(),
            is_synchronised=_is_synchronised(),
        )

    def network(
        self, destinations: Iterable[bytes], *, enter: str = "", with_firewall: bool = True
    ) -> NetworkFacts:
        """The network namespace that the caller is in; routes to each of `destinations`.

        `enter` is what runs a command in it. Nothing is raised: what cannot be read is left out.
        """
        links: tuple[rtnetlink.Link, ...] = ()
        addresses: tuple[rtnetlink.InterfaceAddress, ...] = ()
        neighbours: tuple[rtnetlink.Neighbour, ...] = ()
        routes = {}
        with contextlib.suppress(OSError):
            links = tuple(rtnetlink.links())
            addresses = tuple(rtnetlink.interface_addresses())
            neighbours = tuple(rtnetlink.neighbours())
            for address in destinations:
                routes[address] = rtnetlink.route(address)
        firewall, problem = self._firewall() if with_firewall else (None, "")
        return NetworkFacts(
            enter=enter,
            links=links,
            addresses=addresses,
            routes=routes,
            neighbours=neighbours,
            sysctls=_sysctls([link.name for link in links[:_MOST_DEVICES]]),
            conntrack=_conntrack(),
            firewall=firewall,
            firewall_problem=problem,
            listening=_listening(),
            capture_problem=_refusal(socket.AF_PACKET, socket.SOCK_DGRAM, 0),
            raw_problem=_refusal(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW),
        )

    def new_connections(self) -> int:
        """Connections that servers here accept each second, measured for one; -1: not known."""
        return new_connections()

    def _firewall(self) -> tuple[Firewall | None, str]:
        """The rules of nftables and iptables; None, and why, when they cannot be told."""
        self._until = time.monotonic() + self._program_seconds
        nft, iptables = _program("nft"), _program("iptables-save")
        if not nft and not iptables:
            if not _has_netfilter():
                return Firewall(), ""
            return None, "neither nft nor iptables-save is installed here"
        found, has_xt = Firewall(), True
        if nft:
            text, problem = self._ask([nft, "-j", "list", "ruleset"])
            if problem:
                return None, problem
            try:
                found, has_xt = read_ruleset(json.loads(text or "{}"))
            except (ValueError, RecursionError):
                return None, "nft printed what is no JSON"
        legacy = _text("/proc/thread-self/net/ip_tables_names").split()
        legacy += _text("/proc/thread-self/net/ip6_tables_names").split()
        if has_xt or legacy:
            for name, family in (("iptables-save", "ip"), ("ip6tables-save", "ip6")):
                if program := _program(name):
                    text, _ = self._ask([program])
                    read_save(text, family, found)
        return found, ""

    def _ask(self, command: list[str]) -> tuple[str, str]:
        """What a program prints, or why it does not."""
        name = os.path.basename(command[0])
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=max(0.01, self._until - time.monotonic()),
                check=False,
                start_new_session=True,
            )
        except subprocess.TimeoutExpired:
            return "", f"{name} took more than {self._program_seconds:g} s"
        except OSError as error:
            return "", f"{name}: {error.strerror}"
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            return "", f"{name}: {lines[0]}"
        return done.stdout, ""


def new_connections(seconds: float = 1.0) -> int:
    """Connections that servers of this network namespace accept each second; -1: not known.

    Measured for so long. Source: proc(5), /proc/net/snmp (Tcp: PassiveOpens).
    """
    before = _passive_opens()
    began = time.monotonic()
    time.sleep(seconds)
    after = _passive_opens()
    if before < 0 or after < before:
        return -1
    return round((after - before) / (time.monotonic() - began))


def _passive_opens() -> int:
    lines = [line.split() for line in _text("/proc/thread-self/net/snmp").splitlines()]
    names, values = [line for line in lines if line[:1] == ["Tcp:"]] or [[], []]
    return int(values[names.index("PassiveOpens")]) if "PassiveOpens" in names else -1


def ring_problem(plan: Plan) -> str:
    """Why the capture rings of a run cannot be opened here; "" when they can. None is left open."""
    try:
        rings = open_rings(
            plan.devices,
            plan.filter_program,
            buffer_bytes=plan.buffer_bytes,
            snaplen=plan.snaplen,
        )
    except UsageError as error:
        return f"{error.problem}; {error.hint}"
    except OSError as error:
        return error.strerror or str(error)
    for ring in rings:
        ring.close()
    return ""


def bind_problem(host: str, port: int) -> str:
    """Why an address cannot be listened on here; "" when it can. Nothing is left open."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen(1)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def entering(namespace: Namespace | None) -> str:
    """What runs a command in a namespace, as it would be typed; "" for the present one."""
    if namespace is None or namespace.value.startswith("/proc/thread-self/"):
        return ""
    value = namespace.value.removeprefix("pid:")
    if value.isdecimal():
        return f"nsenter -t {value} -n "
    return f"nsenter --net={value} " if "/" in value else f"ip netns exec {value} "


def _text(path: str) -> str:
    """What a small file holds; "" when it cannot be read."""
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _fields(text: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in text.splitlines())
    return {name: value.strip() for name, _, value in pairs}


def _kibibytes(text: str) -> int:
    number = text.partition(" ")[0]
    return int(number) << 10 if number.isdecimal() else 0


def _sysctls(devices: list[str]) -> dict[str, str]:
    names = [*_PLAIN_SYSCTLS]
    names += [name.format(device) for device in ("all", *devices) for name in _DEVICE_SYSCTLS]
    return {name: text for name in names if (text := _text(f"/proc/sys/{name}").strip())}


def _conntrack() -> tuple[int, int] | None:
    texts = [_text(f"/proc/sys/net/netfilter/{name}").strip() for name in _CONNTRACK]
    return (int(texts[0]), int(texts[1])) if all(text.isdecimal() for text in texts) else None


def _listening() -> frozenset[int]:
    """Source: proc(5), /proc/net/tcp: the second field is address:port, the fourth the state."""
    found = set()
    for name in ("tcp", "tcp6"):
        for line in _text(f"/proc/thread-self/net/{name}").splitlines()[1:]:
            fields = line.split()
            if len(fields) > 3 and fields[3] == _LISTEN:
                found.add(int(fields[1].rpartition(":")[2], 16))
    return frozenset(found)


def _refusal(family: int, kind: int, protocol: int) -> str:
    """Why such a socket cannot be opened; "" when it can."""
    try:
        socket.socket(family, kind, protocol).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _program(name: str) -> str:
    folders = f"{os.environ.get('PATH', '')}:{_SYSTEM_FOLDERS}"
    return shutil.which(name, path=folders) or ""


def _has_netfilter() -> bool:
    """Whether there may be rules: a kernel without the tables has none."""
    loaded = ("nf_tables", "ip_tables")
    return any(os.path.exists(f"/sys/module/{name}") for name in loaded)


def _memory_limit() -> int:
    """The least memory limit of this process's control groups; 0: none."""
    limits = []
    for line in _text("/proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            root, name = "/sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            root, name = "/sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        parts = [part for part in path.split("/") if part and part != ".."]
        # Those above bind as well; in a container only the root may be seen.
        for depth in range(len(parts) + 1):
            limits.append(_text("/".join([root, *parts[:depth], name])).strip())
    numbers = [int(text) for text in limits if text.isdecimal()]
    return min((number for number in numbers if number < _UNLIMITED), default=0)


def _is_synchronised() -> bool | None:
    """Whether NTP keeps this host's clock right, as the kernel was told. Source: adjtimex(2)."""
    try:
        adjtimex: Callable[..., int] = ctypes.CDLL(None, use_errno=True).adjtimex
    except (OSError, AttributeError):
        return None
    timex = ctypes.create_string_buffer(_TIMEX_BYTES)  # modes 0: only asks
    state = adjtimex(timex)
    return None if state < 0 else state != _TIME_ERROR
