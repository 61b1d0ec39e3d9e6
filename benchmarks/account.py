"""What running programs have used: CPU time, resident memory, packets, kernel drops.

Source: proc_pid_stat(5), proc_pid_status(5), Documentation/scheduler/sched-stats.rst.

CPU time is the scheduler's own count of nanoseconds run (schedstat, field 1), which is exact. How
it divides into user and system is sampled at each clock tick on kernels built with
TICK_CPU_ACCOUNTING; `stat` scales those samples to the exact sum and prints hundredths of seconds.
So totals are precise, and their division is indicative: to a few percent of some seconds.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_NS_PER_TICK = 1_000_000_000 // _TICKS_PER_SECOND


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU time of all processes of one program, since each was started."""

    run_ns: int  # exact
    user_ticks: int  # scaled samples: good for the share of user mode only
    system_ticks: int
    sleeps: int = 0  # times that a process gave the core away by itself

    def since(self, before: Usage) -> CpuTime:
        """What was used between `before` and this."""
        run_ns = max(0, self.run_ns - before.run_ns)
        user = max(0, self.user_ticks - before.user_ticks)
        system = max(0, self.system_ticks - before.system_ticks)
        share = user / (user + system) if user + system else 0.0
        sleeps = max(0, self.sleeps - before.sleeps)
        return CpuTime(run_ns / 1e3, run_ns / 1e3 * share, sleeps)


@dataclass(frozen=True, slots=True)
class CpuTime:
    """CPU microseconds of a period: all of them, and the share in user mode; times it slept."""

    total_us: float
    user_us: float
    sleeps: int = 0

    @property
    def system_us(self) -> float:
        return self.total_us - self.user_us


def stat_fields(text: str) -> list[str]:
    """Fields of /proc/PID/stat from the state on (field 3); the name before may hold anything."""
    return text.rpartition(")")[2].split()


def members(session: int) -> list[int]:
    """Processes of a program that was started as leader of a session of its own."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = stat_fields(Path("/proc", entry, "stat").read_text())
            except OSError:
                continue  # it has just ended
            if int(fields[3]) == session:
                found.append(int(entry))
    return found


def usage(session: int) -> Usage:
    """CPU time of the program whose session leader has this pid, with all its processes.

    Children that have ended and were waited for count with what `stat` has of them. Threads that
    have ended while their process lives do not count (the programs measured have one each).
    """
    run_ns = user = system = sleeps = 0
    for pid in members(session):
        process = Path("/proc", str(pid))
        try:
            fields = stat_fields((process / "stat").read_text())
            tasks = [(task / "schedstat").read_text() for task in (process / "task").iterdir()]
            sleeps += status_number((process / "status").read_text(), "voluntary_ctxt_switches")
        except OSError:
            continue
        own_user, own_system, child_user, child_system = map(int, fields[11:15])
        user += own_user + child_user
        system += own_system + child_system
        exact_ns = sum(int(task.split()[0]) for task in tasks)
        # A kernel without scheduler statistics says 0: ticks are all there is.
        run_ns += exact_ns or (own_user + own_system) * _NS_PER_TICK
        run_ns += (child_user + child_system) * _NS_PER_TICK
    return Usage(run_ns, user, system, sleeps)


def resident_bytes(session: int, kind: str = "VmRSS") -> int:
    """Resident memory of all processes of a program; what they share counts for each.

    `kind` as in /proc/PID/status: VmRSS is all that is mapped, capture rings and program files
    too; VmHWM the most that this has been; RssAnon only what the program has filled itself.
    """
    total = 0
    for pid in members(session):
        try:
            status = Path("/proc", str(pid), "status").read_text()
        except OSError:
            continue
        total += status_number(status, kind) * 1024
    return total


def status_number(status: str, field: str) -> int:
    """A number out of the text of /proc/PID/status, sizes in KiB; 0 if it is not there."""
    for line in status.splitlines():
        name, _, rest = line.partition(":")
        if name == field:
            return int(rest.split()[0])
    return 0


class Packets(NamedTuple):
    """Packets of a network device."""

    received: int
    sent: int


def device_packets(table: str, device: str) -> Packets:
    """Packets of a device out of the text of /proc/net/dev."""
    for line in table.splitlines():
        name, _, rest = line.partition(":")
        if name.strip() == device:
            fields = rest.split()
            return Packets(int(fields[1]), int(fields[9]))
    raise ValueError(f"no device {device}")


def raw_socket_drops(pid: int) -> int:
    """Packets that raw IP sockets in the namespace of a process had no room for."""
    return table_drops(Path(f"/proc/{pid}/net/raw").read_text())


def table_drops(table: str) -> int:
    """Sum of the last column, drops, of the text of /proc/net/raw."""
    return sum(int(line.split()[-1]) for line in table.splitlines()[1:] if line.strip())
