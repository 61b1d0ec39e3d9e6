"""What is run and measured: one `Scenario` for each kind of load."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from typing import ClassVar

from benchmarks import account, recorder
from benchmarks.copier import Copier, Variant
from benchmarks.numbers import Run, added_delays_ms, per, percentile, total
from benchmarks.profiling import Profile
from benchmarks.servers import Framed, Nginx, NginxUploads, Redis, Server, find_program
from benchmarks.site import Site, device_packets, end_profiles
from tcpcopy.demo.processes import Program
from tests.lab.scenario import PORT, environment, python

_STILL_S = 1.0  # a target that has not moved for so long has got all it will get
_PAUSE_S = 0.1
_SETTLE_S = 1.0  # after the start, before what idle programs use is measured

#: Columns of a scenario's tables, one after the other.
Tables = Sequence[Sequence[str]]

COSTS = (
    "together_us", "tcpcopy_us", "tcpcopy_user_us", "intercept_us", "intercept_user_us",
    "own_us", "tcpcopy_user_packet_us", "tcpcopy_sleeps", "intercept_sleeps",
    "to_target", "from_target",
)  # fmt: skip
COST_TABLES: Tables = (
    (
        "online_per_s", "slowdown", "packets_per_s", "target_per_s", "exact", "drops",
        "intercept_drops", "tcpcopy_peak_mb", "intercept_peak_mb",
    ),
    COSTS,
)  # fmt: skip
DELAY_TABLES: Tables = (
    (
        "online_per_s",
        "exact",
        "drops",
        "intercept_drops",
        "delay_p50_ms",
        "delay_p99_ms",
        "delay_count",
    ),
    COSTS,
)


class Scenario:
    """One load, and what is measured under it."""

    name: ClassVar[str]
    title: ClassVar[str]
    tables: ClassVar[Tables]
    rounds: ClassVar[int] = 2
    without_copy: ClassVar[bool] = False  # also measured: online alone
    pure: ClassVar[bool] = False  # the uncompiled package can bear it
    modes: ClassVar[tuple[str, ...]] = ()  # variants of a build, instead of the modes it knows
    alone: ClassVar[bool] = False  # `run_alone` is called: needs no hosts, and no root
    own_modes: ClassVar[tuple[str, ...]] = ()  # of the compiled build, instead of the usual ones

    def __init__(self) -> None:
        self.profiles: dict[str, Profile] = {}  # "variant, program": the last run's samples
        self.notes: list[str] = []  # what went wrong where the target got less than online

    def run(self, site: Site, variant: Variant) -> Run:
        """One run of one variant, from starting the servers to what was measured."""
        raise NotImplementedError

    def run_alone(self, variant: Variant) -> Run:
        """The same for a scenario that needs no hosts."""
        raise NotImplementedError


def costs(
    before: dict[str, account.Usage], after: dict[str, account.Usage], requests: int, captured: int
) -> dict[str, float | None]:
    """CPU of each program for each request, and of user mode for each captured packet."""
    result: dict[str, float | None] = {}
    for name, usage in after.items():
        spent = usage.since(before[name])
        result[f"{name}_us"] = per(spent.total_us, requests)
        result[f"{name}_user_us"] = per(spent.user_us, requests)
        result[f"{name}_sleeps"] = per(spent.sleeps, requests)
        if name == "tcpcopy":
            result["tcpcopy_user_packet_us"] = per(spent.user_us, captured)
    result["together_us"] = total(result.get("tcpcopy_us"), result.get("intercept_us"))
    return result


def without_soft_us(run: Run, profiles: dict[str, Profile]) -> float | None:
    """CPU for each request of all programs that were sampled, less their soft interrupts."""
    amounts: list[float] = []
    for program, profile in profiles.items():
        spent_us = run.get(f"{program}_us")
        if spent_us is None or not profile.samples:
            return None
        amounts.append(spent_us * (1 - profile.soft / profile.samples))
    return total(*amounts)


def catch_up(site: Site, copier: Copier, online: Server, target: Server) -> tuple[int, float]:
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
    site.wait_quiet(copier)  # acknowledgements, bodies and ends of the last connections
    return target.requests(), moved


class Throughput(Scenario):
    """A load at full speed; CPU is counted until the target has caught up."""

    server: ClassVar[type[Server]] = Nginx
    tables: ClassVar[Tables] = COST_TABLES

    def command(self, site: Site) -> list[str]:
        """Command line of the client program."""
        raise NotImplementedError

    def run(self, site: Site, variant: Variant) -> Run:
        online, target = site.servers(self.server)
        copier = site.copier(variant)
        recorders = {}
        if copier:
            copier.start()
            site.interrupts.sleep(0.2)
            recorders = site.profile(copier, f"{self.name}-{variant.name.replace(', ', '-')}")
        command = self.command(site)
        packets = device_packets(site.lab.client).sent
        at_target = device_packets(site.lab.target)
        before = copier.usage() if copier else {}
        began = time.monotonic()
        site.wait_end(site.start_load(command), site.seconds * 10 + 30)
        seconds = time.monotonic() - began
        packets = device_packets(site.lab.client).sent - packets
        run: dict[str, float | None] = {
            "seconds": seconds,
            "online_per_s": online.requests() / seconds,
            "packets_per_s": packets / seconds,
        }
        if copier:
            replayed, moved = catch_up(site, copier, online, target)
            used = copier.usage()
            now_at_target = device_packets(site.lab.target)
            run["to_target"] = per(now_at_target.received - at_target.received, replayed)
            run["from_target"] = per(now_at_target.sent - at_target.sent, replayed)
            profiles = end_profiles(recorders)
            for program, profile in profiles.items():
                self.profiles[f"{variant.name}, {program}"] = profile
            run["target_per_s"] = replayed / (moved - began)
            run["exact"] = per(replayed, online.requests())
            for name, size in copier.resident("VmHWM").items():
                run[f"{name}_peak_mb"] = size / 1e6
            run["drops"] = copier.stop()
            run["intercept_drops"] = copier.answers_dropped
            run |= costs(before, used, replayed, copier.captured or packets)
            run["own_us"] = without_soft_us(run, profiles)
            if copier.report and (run["exact"] != 1 or copier.report["exit_code"]):
                self.notes.append(f"{variant.name}: {copier.report['headline']}")
        return run


def wrk(site: Site, *options: str) -> list[str]:
    """Command line of wrk against online's web server."""
    seconds = f"{max(1, round(site.seconds))}s"
    url = f"http://{site.lab.online.v4}:{PORT}/"
    return [find_program("wrk", "wrk"), *options, "-d", seconds, url]


class KeepAlive(Throughput):
    """Long connections, one request after the other."""

    name = "keep-alive"
    title = "nginx, wrk -c50, connections kept alive"
    rounds = 3
    without_copy = True

    def command(self, site: Site) -> list[str]:
        return wrk(site, "-t1", "-c50")


class Short(Throughput):
    """A connection for each request, closed by the server."""

    name = "short"
    title = "nginx, wrk -c50, one request for each connection"
    rounds = 3
    without_copy = True

    def command(self, site: Site) -> list[str]:
        return wrk(site, "-t1", "-c50", "-H", "Connection: close")


class Pipelined(Throughput):
    """Small commands, sixteen to a segment."""

    name = "redis"
    title = "redis-benchmark -P 16 -c 50, SET and GET"
    server = Redis

    def command(self, site: Site) -> list[str]:
        command = [find_program("redis-benchmark", "redis-tools"), "-h", site.lab.online.v4]
        command += ["-p", str(PORT), "-q", "-P", "16", "-c", "50", "-r", "100000"]
        # It knows no duration: as many as take about so long on a small machine, for each of two.
        return [*command, "-t", "set,get", "-n", str(round(site.seconds * 75_000))]


class Upload(Throughput):
    """Large segments towards the server, no more than a small machine can also replay."""

    name = "upload"
    title = "nginx, bodies of 1 MiB, some 50 a second on 8 connections"
    server = NginxUploads

    def command(self, site: Site) -> list[str]:
        script = site.path("upload.lua")
        script.write_text(
            'wrk.method, wrk.path = "POST", "/upload"\n'
            'wrk.body = string.rep("0123456789abcdef", 65536)\n'
            "function delay() return math.random(100, 200) end\n"
        )
        return wrk(site, "-t1", "-c8", "-s", str(script))


# Each request has its own number; one of so many is marked. The pauses are spread, so that
# connections do not stay in step.
_PACED = """
local thread_number, count = 0, 0
function setup(thread) thread_number = thread_number + 1 thread:set("number", thread_number) end
function init() math.randomseed(number) end
function request()
  count = count + 1
  local mark = count % {every} == 0 and "s" or "n"
  return "GET /" .. mark .. number .. "-" .. count .. " HTTP/1.1\\r\\nHost: lab\\r\\n\\r\\n"
end
function delay() return math.random({low}, {high}) end
"""


class Paced(Throughput):
    """A load well below what the machine bears: what counts is how late requests are replayed."""

    tables = DELAY_TABLES
    pure = True
    connections: ClassVar[int] = 40
    rate: ClassVar[int]  # requests a second
    every: ClassVar[int] = 1  # one of so many requests is timed

    def command(self, site: Site) -> list[str]:
        pause_ms = 1000 * self.connections / self.rate
        script = site.path("paced.lua")
        script.write_text(
            _PACED.format(every=self.every, low=round(pause_ms / 2), high=round(pause_ms * 3 / 2))
        )
        return wrk(site, "-t1", f"-c{self.connections}", "-s", str(script))

    def run(self, site: Site, variant: Variant) -> Run:
        taps: list[Program] = []
        paths = []
        for host in (site.lab.online, site.lab.target):
            paths.append(site.path(f"{host.role}-arrivals.json"))
            command = python("benchmarks.recorder", "eth0", host.v4, PORT, paths[-1])
            taps.append(host.start(command, name="recorder", env=environment()))
        for tap in taps:
            tap.wait_for("^ready")
        run = dict(super().run(site, variant))
        for tap in taps:
            tap.stop(signal.SIGTERM)
        delays = added_delays_ms(*map(recorder.arrivals, paths))
        run["delay_p50_ms"] = percentile(delays, 0.5)
        run["delay_p99_ms"] = percentile(delays, 0.99)
        run["delay_count"] = len(delays)
        return run


class Paced400(Paced):
    name = "paced-400"
    title = "nginx, 400 requests/s on 40 connections"
    rate = 400


class Paced1000(Paced):
    name = "paced-1000"
    title = "nginx, 1,000 requests/s on 40 connections"
    rate = 1000


class Paced20000(Paced):
    name = "paced-20000"
    title = "nginx, 20,000 requests/s on 230 connections"
    rate = 20_000
    connections = 230
    every = 20
    pure = False


class Open(Scenario):
    """Connections that have had one answer and stay: memory of each, and work without traffic."""

    name = "open"
    title = "connections held open after one request each"
    rounds = 1
    tables = (
        (
            "sessions", "exact", "tcpcopy_session_bytes", "intercept_session_bytes",
            "tcpcopy_mb", "tcpcopy_own_mb", "intercept_mb", "intercept_own_mb",
            "tcpcopy_idle_us", "intercept_idle_us", "drops", "intercept_drops",
        ),
    )  # fmt: skip

    def run(self, site: Site, variant: Variant) -> Run:
        online, target = site.servers(Framed)
        copier = site.copier(variant)
        assert copier is not None
        copier.start()
        site.interrupts.sleep(_SETTLE_S)
        before = copier.resident()
        words = ("--connections", site.sessions, "--rate", 2500, "--end", "hold")
        command = python("tests.lab.client", site.lab.online.v4, PORT, *words)
        client = site.lab.client.start(command, name="load", env=environment())
        site.wait_for(client, "holding", 30 + site.sessions / 500)
        sessions, _ = catch_up(site, copier, online, target)
        run: dict[str, float | None] = {
            "sessions": sessions,
            "exact": per(sessions, online.requests()),
        }
        run |= memory(copier)
        for name, size in copier.resident().items():
            run[f"{name}_session_bytes"] = per(size - before[name], sessions)
        run |= idle_costs(site, copier)
        run["drops"] = copier.stop()
        run["intercept_drops"] = copier.answers_dropped
        return run


def idle_costs(site: Site, copier: Copier) -> dict[str, float | None]:
    """CPU microseconds in a second in which nothing happens."""
    before, began = copier.usage(), time.monotonic()
    site.interrupts.sleep(site.seconds)
    seconds = time.monotonic() - began
    return {
        f"{name}_idle_us": usage.since(before[name]).total_us / seconds
        for name, usage in copier.usage().items()
    }


def memory(copier: Copier) -> dict[str, float | None]:
    """Resident memory of each program: all, and what it has filled itself."""
    result: dict[str, float | None] = {}
    for suffix, kind in (("mb", "VmRSS"), ("own_mb", "RssAnon")):
        for name, size in copier.resident(kind).items():
            result[f"{name}_{suffix}"] = size / 1e6
    return result


class Idle(Scenario):
    """No traffic at all."""

    name = "idle"
    title = "no traffic"
    rounds = 1
    pure = True
    tables = (
        (
            "tcpcopy_idle_us", "intercept_idle_us",
            "tcpcopy_mb", "tcpcopy_own_mb", "intercept_mb", "intercept_own_mb",
        ),
    )  # fmt: skip

    def run(self, site: Site, variant: Variant) -> Run:
        site.servers(Nginx)
        copier = site.copier(variant)
        assert copier is not None
        copier.start()
        site.interrupts.sleep(_SETTLE_S)
        run = idle_costs(site, copier) | memory(copier)
        copier.stop()
        return run


ALL: tuple[type[Scenario], ...] = (
    KeepAlive, Short, Pipelined, Upload, Paced400, Paced1000, Paced20000, Open, Idle,
)  # fmt: skip
