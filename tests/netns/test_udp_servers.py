"""Real UDP servers and clients: after a replay the target has been asked what online was asked."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.lab.real.dnsmasq import Dnsmasq
from tests.lab.real.service import RealServers, find_program, real_servers
from tests.lab.scenario import PORT, Scenario, wait_until
from tests.netns.test_udp import check_counts, reach, start

pytestmark = pytest.mark.netns


@pytest.fixture
def real(scenario: Scenario) -> Iterator[RealServers]:
    """Pairs of real servers in `lab`."""
    with real_servers(scenario) as real:
        yield real


@pytest.mark.parametrize("mode", ["socket", "packet"])
def test_dns(real: RealServers, mode: str) -> None:
    """dig and dnsperf against online: the query logs are equal."""
    find_program("dig", "bind9-dnsutils")
    find_program("dnsperf", "dnsperf")
    lab = real.lab
    online, target = real.start(Dnsmasq)
    reach(lab.online, lab.target.v4)
    draw = random.Random(4)
    names = [f"host{draw.randrange(10_000)}.example" for _ in range(3000)]
    questions = real.directory / "questions"
    questions.write_text("".join(f"{name} {draw.choice(('A', 'AAAA'))}\n" for name in names))
    replay = start(real.scenario, mode)
    server = ("-p", str(PORT), f"@{lab.online.v4}")
    for name in ("one.example", "two.example"):
        assert real.client("dig", *server, "+short", name).split() == ["10.1.2.3"]
    # As a resolver asks: every client with a port of its own.
    out = real.client(
        "dnsperf", "-s", lab.online.v4, "-p", PORT, "-d", questions, "-c", 20, "-n", 1, "-Q", 2000
    )
    assert "Queries lost:         0" in out, out
    assert wait_until(lambda: online.progress() == 3002, 10)
    wait_until(lambda: target.progress() >= 3002, 10)
    assert replay.stop() == 0, replay.output
    assert online.queries() == target.queries()
    check_counts(replay.report)
    udp = replay.report["udp"]
    assert udp["datagrams"]["sent"] == 3002
    if mode == "socket":
        assert udp["answers"]["received"] == 3002
        assert udp["flows"]["answered"] == udp["flows"]["captured"]


def test_dns_over_both(real: RealServers) -> None:
    """--transport both: questions over TCP and over UDP, on one port."""
    find_program("dig", "bind9-dnsutils")
    online, target = real.start(Dnsmasq)
    replay = start(real.scenario, "socket", "--transport", "both")
    for number in range(20):
        how = "+tcp" if number % 2 else "+notcp"
        name = f"host{number}.example"
        server = f"@{real.lab.online.v4}"
        assert "10.1.2.3" in real.client("dig", "-p", PORT, server, how, "+short", name)
    assert wait_until(lambda: target.progress() >= 20, 10)
    assert replay.stop() == 0, replay.output
    assert online.queries() == target.queries()
    assert replay.report["sessions"]["captured"] == 10
    assert replay.report["udp"]["flows"]["captured"] == 10
