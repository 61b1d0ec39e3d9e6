"""What bounds a run on this host: open files, ports, memory, conntrack, the clock."""

from __future__ import annotations

import itertools

from tcpcopy.deliver.ports import PortSettings, count_reserved
from tcpcopy.doctor.finding import Finding, Level
from tcpcopy.doctor.host_facts import NetworkFacts, ProcessFacts
from tcpcopy.doctor.plan import InterceptPlan, Plan
from tcpcopy.mapping.addresses import format_address
from tcpcopy.report.context import CLASSIC, LOCAL, SOCKET
from tcpcopy.report.remedies import local_ports
from tcpcopy.report.text import byte_size, number

_FILES, _PORTS, _PORT_RATE, _MEMORY = "open_files", "ports", "port_rate", "memory"
_CONNTRACK, _CLOCK = "conntrack", "clock"
_FEW_FILES = 4096
_FEW_PORTS = 8192
_MOST_LOCAL_ADDRESSES = 65536
_COARSE_NS = 1_000_000
_SLOW_CLOCKS = ("hpet", "acpi_pm", "jiffies", "pit", "refined-jiffies")
_FULL_PERCENT = 80
_SECOND_NS = 1_000_000_000
_RINGS_OF_ALL = 2  # IPv4 and IPv6


def check_open_files(plan: Plan, process: ProcessFacts) -> list[Finding]:
    """In socket mode each session is an open file."""
    if plan.mode != SOCKET:
        return []
    text = f"{number(process.open_files)} open files: about as many sessions at a time"
    if process.open_files >= _FEW_FILES:
        return [Finding(_FILES, Level.OK, text)]
    step = "on this host: ulimit -Hn 1048576 (as root), before the start"
    return [Finding(_FILES, Level.WARNING, f"only {text}", (step,))]


def check_intercept_files(plan: InterceptPlan, process: ProcessFacts) -> list[Finding]:
    """Each tcpcopy takes up to eleven connections."""
    needed = plan.peer_limit * 11 + 64
    if process.open_files >= min(needed, 1024):
        return []
    text = f"only {number(process.open_files)} open files for {plan.peer_limit} tcpcopy hosts"
    return [Finding(_FILES, Level.WARNING, text, ("on this host: ulimit -Hn 65536 (as root)",))]


def check_ports(plan: Plan, network: NetworkFacts) -> list[Finding]:
    """In socket mode each session takes a local port towards its target."""
    settings = _port_settings(network)
    if plan.mode != SOCKET or settings is None:
        return []
    count = settings.size * _local_addresses(plan)
    text = (
        f"local ports {settings.low} to {settings.high}: {number(count)} connections to each"
        " target at a time"
    )
    if count >= _FEW_PORTS:
        return [Finding(_PORTS, Level.OK, text)]
    step = network.here("sysctl -w net.ipv4.ip_local_port_range='10000 65535'")
    return [Finding(_PORTS, Level.WARNING, text, (step,))]


def check_port_rate(plan: Plan, network: NetworkFacts, new_connections: int) -> list[Finding]:
    """A port rests for a minute after its connection: so many new ones a second are too many.

    `new_connections`: to servers where is captured, each second; below 0: not measured.
    """
    settings = _port_settings(network)
    if plan.mode != SOCKET or settings is None or new_connections < 0:
        return []
    rests_s = settings.rest_ns(b"\0" * 4) // _SECOND_NS
    enough = settings.size * _local_addresses(plan) // rests_s
    text = (
        f"{number(new_connections)} new connections/s to this host now; the local ports are enough"
        f" for {number(enough)}/s to each target, where each rests for {rests_s} s after its"
        " connection (TIME_WAIT)"
    )
    if new_connections <= enough:
        return [Finding(_PORT_RATE, Level.OK, text)]
    steps = tuple(
        network.here(step.removeprefix("on this host: ")) if "sysctl" in step else step
        for step in local_ports()
    )
    if settings.timestamps:
        text += "; those that have rested for 1 s are used again, if the target has TCP timestamps"
        return [Finding(_PORT_RATE, Level.NOTE, text, steps)]
    return [Finding(_PORT_RATE, Level.WARNING, f"{text}: sessions will wait", steps)]


def _port_settings(network: NetworkFacts) -> PortSettings | None:
    """The kernel's choice of local ports; None where it was not read."""
    words = network.sysctls.get("net/ipv4/ip_local_port_range", "").split()
    if len(words) != 2:
        return None
    low, high = int(words[0]), int(words[1])
    reserved = network.sysctls.get("net/ipv4/ip_local_reserved_ports", "")
    return PortSettings(
        low,
        high,
        count_reserved(reserved, low, high),
        network.number("net/ipv4/tcp_tw_reuse"),
        network.number("net/ipv4/tcp_timestamps", 1) != 0,
    )


def _local_addresses(plan: Plan) -> int:
    if plan.pool is None:
        return 1
    return max(1, sum(1 for _ in itertools.islice(plan.pool, _MOST_LOCAL_ADDRESSES)))


def check_memory(plan: Plan, process: ProcessFacts) -> list[Finding]:
    """-m, which counts the capture buffers too, against what the host and its groups give."""
    rings = 0 if plan.is_recorded else max(1, len(plan.devices) or _RINGS_OF_ALL)
    buffers = rings * plan.buffer_bytes * plan.workers
    wanted = max(plan.memory_bytes, buffers)
    shown = f"-m {plan.memory_bytes >> 20} ({byte_size(wanted)})"
    limit, total = process.memory_limit, process.memory_total
    if limit and wanted > limit:
        least = max(64, (limit >> 20) * 3 // 4)
        text = f"{shown} is more than the {byte_size(limit)} of the control group: the kernel"
        steps = (
            f"on this host: tcpcopy ... -m {least}",
            f"on this host: docker run --memory={(wanted >> 20) * 4 // 3}m ..., or as much in"
            " resources.limits.memory in Kubernetes",
        )
        return [Finding(_MEMORY, Level.WARNING, f"{text} kills it before it sheds load", steps)]
    if total and wanted > total:
        text = f"{shown} is more than this host has ({byte_size(total)})"
        least = max(64, (total >> 20) // 2)
        return [Finding(_MEMORY, Level.WARNING, text, (f"on this host: tcpcopy ... -m {least}",))]
    if process.memory_available and wanted > process.memory_available:
        text = f"{shown}, and {byte_size(process.memory_available)} are free now"
        return [Finding(_MEMORY, Level.NOTE, text)]
    return [Finding(_MEMORY, Level.OK, shown)]


def check_conntrack(plan: Plan, network: NetworkFacts) -> list[Finding]:
    """A full table drops what begins a connection; in classic mode each session has an entry."""
    if network.conntrack is None or plan.mode not in (SOCKET, CLASSIC, LOCAL):
        return []
    entries, most = network.conntrack
    text = f"{number(entries)} of {number(most)} entries taken"
    if not most or entries * 100 < most * _FULL_PERCENT:
        return [Finding(_CONNTRACK, Level.OK, text)]
    steps = [network.here(f"sysctl -w net.netfilter.nf_conntrack_max={most * 4}")]
    if plan.mode == CLASSIC:
        for address, port in plan.targets[:1]:
            steps.append(network.here(untracked(address, port)))
    return [Finding(_CONNTRACK, Level.WARNING, f"{text}: new ones are dropped", tuple(steps))]


def untracked(address: bytes, port: int) -> str:
    """The command that keeps conntrack from copied packets."""
    program = "ip6tables" if len(address) == 16 else "iptables"
    return (
        f"{program} -t raw -I OUTPUT -d {format_address(address)} -p tcp --dport {port}"
        " -j CT --notrack"
    )


def check_clock(needs_relay: bool, process: ProcessFacts) -> list[Finding]:
    """Pacing needs a fine clock; answers of the relay carry the time of another host."""
    source = process.clock_source or "unknown"
    if process.clock_resolution_ns > _COARSE_NS:
        text = f"the clock moves in steps of {process.clock_resolution_ns / 1e6:g} ms only"
        step = "on this host: boot with the kernel parameter highres=on"
        return [Finding(_CLOCK, Level.WARNING, text, (step,))]
    if source in _SLOW_CLOCKS:
        text = f"the clock source is {source}: to read it costs a system call"
        where = "/sys/devices/system/clocksource/clocksource0"
        steps = (
            f"on this host: cat {where}/available_clocksource",
            f"on this host: echo tsc > {where}/current_clocksource",
        )
        return [Finding(_CLOCK, Level.NOTE, text, steps)]
    if needs_relay and process.is_synchronised is False:
        text = "NTP does not keep this host's clock: times of several hosts cannot be compared"
        return [Finding(_CLOCK, Level.NOTE, text, ("on this host: timedatectl set-ntp true",))]
    return [Finding(_CLOCK, Level.OK, f"{source}, steps of {process.clock_resolution_ns} ns")]
