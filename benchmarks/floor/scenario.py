"""The floor as a scenario: what a packet costs at the least, by each way, at two rates."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import ClassVar

from benchmarks import account
from benchmarks.copier import Variant
from benchmarks.floor.build import build
from benchmarks.numbers import Run, per
from benchmarks.scenarios import Scenario
from benchmarks.site import Site
from tcpcopy.demo.processes import Program
from tests.lab.scenario import PORT, environment, python

_WAYS = {"capture only": "none", "raw socket": "raw", "frames": "frames"}
_RATES = {"flat out": 0, "20,000/s": 20_000}
_PACKET_BYTES = 200
_SETTLE_S = 0.3

# Dropped where they arrive, behind the capture: nobody answers, so that only the copy is counted.
_DEAF = (
    "table netdev floor {\n chain arrive {\n"
    '  type filter hook ingress device "eth0" priority 0;\n'
    f"  tcp dport {PORT} drop\n }}\n}}\n"
)


class Floor(Scenario):
    """Packets of 200 bytes on a thousand connections, captured and sent on."""

    name = "floor"
    title = "capture and send alone, packets of 200 bytes on 1,000 connections"
    rounds = 3
    tables = (
        (
            "packets_per_s", "packet_us", "packet_user_us", "packet_sleeps", "drops",
            "send_errors",
        ),
    )  # fmt: skip
    own_modes: ClassVar[tuple[str, ...]] = tuple(
        f"{way}, {rate}" for rate in _RATES for way in _WAYS
    )

    def __init__(self) -> None:
        super().__init__()
        self.module: Path | None = None

    def run(self, site: Site, variant: Variant) -> Run:
        if self.module is None:
            self.module = build()
        way, _, rate = variant.mode.partition(", ")
        lab = site.lab
        for host in (lab.online, lab.target):
            host.nft(f"table netdev floor\ndelete table netdev floor\n{_DEAF}")
        report = site.path("floor.json")
        copier = self._start(site, variant, _WAYS[way], report)
        before = account.usage(copier.pid)
        command = python(
            "benchmarks.floor.blast",
            *(lab.online.v4, PORT, _PACKET_BYTES, _RATES[rate], site.seconds),
        )
        blast = lab.client.start(command, name="blast", env=environment())
        site.wait_end(blast, site.seconds + 20)
        site.interrupts.sleep(_SETTLE_S)
        spent = account.usage(copier.pid).since(before)
        copier.stop(signal.SIGTERM)
        for host in (lab.online, lab.target):
            host.nft("delete table netdev floor")
        figures = json.loads(report.read_text())
        copied = figures["copied"]
        return {
            "packets_per_s": copied / site.seconds,
            "packet_us": per(spent.total_us, copied),
            "packet_user_us": per(spent.user_us, copied),
            "packet_sleeps": per(spent.sleeps, copied),
            "drops": figures["dropped"],
            "send_errors": figures["errors"],
        }

    def _start(self, site: Site, variant: Variant, way: str, report: Path) -> Program:
        lab = site.lab
        assert variant.build is not None
        command = [
            variant.build.tcpcopy[0], "-P", "-c", "import copying; copying.main()", way, "eth0",
            f"{lab.online.v4}:{PORT}", f"{lab.target.v4}:{PORT}", str(report),
        ]  # fmt: skip
        paths = {**variant.build.environment, "PYTHONPATH": str(self.module)}
        program = lab.online.start(command, name="floor", env=paths)
        site.wait_for(program, "ready", 20)
        return program
