"""What is run and measured: one `Scenario` for each kind of load."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from benchmarks import account
from benchmarks.copier import Copier, Variant
from benchmarks.numbers import Run, per, total
from benchmarks.servers import Nginx, Server, find_program
from tcpcopy.demo.netns import Host, Lab, LabError
from tcpcopy.demo.processes import Interrupts, Program, end_all
from tests.lab.scenario import PORT

_STILL_S = 1.0  # a target that has not moved for so long has got all it will get
_PAUSE_S = 0.1

COST_COLUMNS = (
    "online_per_s", "slowdown", "packets_per_s", "target_per_s", "exact",
    "tcpcopy_us", "tcpcopy_user_us", "intercept_us", "intercept_user_us", "together_us",
    "tcpcopy_user_packet_us", "tcpcopy_mb", "intercept_mb", "drops",
)  # fmt: skip


@dataclass
class Site:
    """Where a scenario runs: a lab, and how one asks it to stop."""

    lab: Lab
    interrupts: Interrupts
    seconds: float
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def copier(self, variant: Variant) -> Copier | None:
        """The variant's programs, not started; None for the one that copies nothing."""
        if variant.build is None:
            return None
        directory = self.lab.directory / f"copier-{next(self.numbers)}"
        return Copier(self.lab, variant.build, variant.mode, directory, self.interrupts)

    def servers(self, kind: type[Server]) -> tuple[Server, Server]:
        """A server on online and one on target, started."""
        pair = []
        for host in (self.lab.online, self.lab.target):
            server = kind(host, self.lab.directory / f"server-{next(self.numbers)}")
            server.start()
            pair.append(server)
        return pair[0], pair[1]

    def wait_end(self, program: Program, timeout: float) -> None:
        """Wait until a load has ended. Raises `LabError` if it fails or takes too long."""
        deadline = time.monotonic() + timeout
        while program.alive:
            if time.monotonic() > deadline:
                raise LabError(program.describe(f"still runs after {timeout:g} s"))
            self.interrupts.sleep(0.02)
        if program.returncode:
            raise LabError(program.describe(f"ended with {program.returncode}"))

    def clear(self) -> None:
        """End all programs of a run."""
        end_all(self.lab.programs)
        self.lab.programs.clear()
        self.lab.classic_off()


class Scenario:
    """One load, and what is measured under it."""

    name: ClassVar[str]
    title: ClassVar[str]
    columns: ClassVar[Sequence[str]]
    rounds: ClassVar[int] = 3
    without_copy: ClassVar[bool] = False  # also measured: online alone
    pure: ClassVar[bool] = False  # the uncompiled package can bear it

    def run(self, site: Site, variant: Variant) -> Run:
        """One run of one variant, from starting the servers to what was measured."""
        raise NotImplementedError


def costs(
    before: dict[str, account.Usage], after: dict[str, account.Usage], requests: int, packets: int
) -> dict[str, float | None]:
    """CPU of each program for each request, and of user mode for each captured packet."""
    result: dict[str, float | None] = {}
    for name, usage in after.items():
        spent = usage.since(before[name])
        result[f"{name}_us"] = per(spent.total_us, requests)
        result[f"{name}_user_us"] = per(spent.user_us, requests)
        if name == "tcpcopy":
            result["tcpcopy_user_packet_us"] = per(spent.user_us, packets)
    result["together_us"] = total(result.get("tcpcopy_us"), result.get("intercept_us"))
    return result


class Throughput(Scenario):
    """A load at full speed; CPU is counted until the target has caught up."""

    server: ClassVar[type[Server]] = Nginx
    columns = COST_COLUMNS

    def command(self, site: Site) -> list[str]:
        """Command line of the client program."""
        raise NotImplementedError

    def run(self, site: Site, variant: Variant) -> Run:
        online, target = site.servers(self.server)
        copier = site.copier(variant)
        if copier:
            copier.start()
            site.interrupts.sleep(0.2)
        command = self.command(site)
        packets = sent_packets(site.lab.client)
        before = copier.usage() if copier else {}
        began = time.monotonic()
        client = site.lab.client.start(command, name="load")
        site.wait_end(client, site.seconds * 10 + 30)
        seconds = time.monotonic() - began
        packets = sent_packets(site.lab.client) - packets
        run: dict[str, float | None] = {
            "seconds": seconds,
            "online_per_s": online.requests() / seconds,
            "packets_per_s": packets / seconds,
        }
        if copier:
            replayed, moved = self._catch_up(site, copier, online, target)
            after = copier.usage()
            run |= costs(before, after, replayed, packets)
            run["target_per_s"] = replayed / (moved - began)
            run["exact"] = per(replayed, online.requests())
            for name, size in copier.resident().items():
                run[f"{name}_mb"] = size / 1e6
            run["drops"] = copier.stop()
        return run

    @staticmethod
    def _catch_up(site: Site, copier: Copier, online: Server, target: Server) -> tuple[int, float]:
        """Wait until the target has got as many requests as online, or stands still.

        Returns (requests at the target, time of the last one).
        """
        replayed, moved = target.requests(), time.monotonic()
        while True:
            wanted = online.requests()
            now, count = time.monotonic(), target.requests()
            if count > replayed:
                replayed, moved = count, now
            if replayed >= wanted or now - moved > _STILL_S:
                break
            copier.check()
            site.interrupts.sleep(_PAUSE_S)
        site.interrupts.sleep(0.3)  # acknowledgements and ends of the last connections
        return replayed, moved


class KeepAlive(Throughput):
    """Long connections, one request after the other."""

    name = "keep-alive"
    title = "nginx, wrk -c50, connections kept alive"
    without_copy = True

    def command(self, site: Site) -> list[str]:
        return wrk(site, "-t1", "-c50")


class Short(Throughput):
    """A connection for each request, closed by the server."""

    name = "short"
    title = "nginx, wrk -c50, one request for each connection"
    without_copy = True

    def command(self, site: Site) -> list[str]:
        return wrk(site, "-t1", "-c50", "-H", "Connection: close")


def wrk(site: Site, *options: str) -> list[str]:
    """Command line of wrk against online's web server."""
    seconds = f"{max(1, round(site.seconds))}s"
    url = f"http://{site.lab.online.v4}:{PORT}/"
    return [find_program("wrk", "wrk"), *options, "-d", seconds, url]


def sent_packets(host: Host) -> int:
    """Packets that a host has sent."""
    return account.device_packets(host.run("cat", "/proc/net/dev"), "eth0")[1]


ALL: tuple[type[Scenario], ...] = (KeepAlive, Short)
