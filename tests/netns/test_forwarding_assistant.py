"""An assistant that forwards passes the target's answers on to the real clients: sessions stop."""

from __future__ import annotations

import re
import time

import pytest

from tcpcopy.demo.netns import Host
from tests.lab.scenario import PORT, Scenario, wait_until

pytestmark = pytest.mark.netns
acceptance = pytest.mark.acceptance

STOPPED = "no session is opened any more"
AGAIN = "sessions are opened again"
RATE = 20  # connections a second
SYSCTL = {"v4": "net/ipv4/ip_forward", "v6": "net/ipv6/conf/all/forwarding"}


def address(host: Host, family: str) -> str:
    return host.v4 if family == "v4" else host.v6


def count_packets_of_target(scenario: Scenario, family: str) -> None:
    what = f"{'ip' if family == 'v4' else 'ip6'} saddr {address(scenario.lab.target, family)}"
    scenario.lab.client.nft(
        f"table inet seen {{\n chain c {{\n type filter hook prerouting priority -300\n"
        f" {what} counter\n}}\n}}\n"
    )


def seen(scenario: Scenario) -> int:
    """Packets of the target that the real client got until now."""
    text = scenario.lab.client.run("nft", "list", "table", "inet", "seen")
    found = re.search(r"packets (\d+)", text)
    assert found is not None, text
    return int(found.group(1))


def forward(scenario: Scenario, family: str, on: bool) -> None:
    scenario.lab.assistant.sysctl({SYSCTL[family]: str(int(on))})


@pytest.mark.parametrize(
    ("family", "secret", "words"),
    [
        pytest.param("v4", False, (), id="open"),
        pytest.param("v6", True, (), id="IPv6 with a secret", marks=acceptance),
        pytest.param(
            "v4", True, ("-o", "eth0", "--workers", "2"), id="link, two workers", marks=acceptance
        ),
    ],
)
def test_sessions_stop_until_it_is_mended(
    scenario: Scenario, family: str, secret: bool, words: tuple[object, ...]
) -> None:
    """Found by the probe of the first session; then nothing of the target comes to the client."""
    lab = scenario.lab
    scenario.servers()
    count_packets_of_target(scenario, family)
    protected = ("--secret-file", scenario.secret) if secret else ()
    target, online = address(lab.target, family), address(lab.online, family)
    transfer = f"{PORT}-[{target}]:{PORT}" if family == "v6" else ""
    with scenario.replay(
        "classic", *protected, *words, transfer=transfer, intercept_arguments=protected
    ) as replay:
        forward(scenario, family, True)
        began = time.monotonic()
        load = scenario.start_load(
            f"--connections {RATE * 60} --rate {RATE} --requests 2", to=online
        )
        assert wait_until(lambda: STOPPED in replay.output, 20), replay.output
        after_s = time.monotonic() - began
        time.sleep(1)  # what was under way
        before = seen(scenario)
        time.sleep(2)
        assert seen(scenario) == before
        forward(scenario, family, False)
        assert wait_until(lambda: AGAIN in replay.output, 25), replay.output
        load.stop()
        late = scenario.load("--connections 20 --requests 2 --seed 9", to=online)
        assert late["failed"] == 0
        assert seen(scenario) <= before + 2  # one that was opened before the sysctl, at most
        print(f"told after {after_s:.1f} s; the client got {before} packets, then none")
    assert replay.output.count(STOPPED) == 1
    assert "=0" in replay.output and "passed the answer on" in replay.output
    outcomes = replay.report["sessions"]["outcomes"]
    assert outcomes["shed_forwarded"] >= RATE, outcomes
    assert outcomes["replayed"] >= 20, outcomes
    assert replay.report["violations"] == []
    found = [f for f in replay.report["findings"] if f["key"] == "shed_forwarded"]
    assert "sysctl -w net." in found[0]["remedy"][0] and lab.assistant.v4 in found[0]["remedy"][0]


@acceptance
def test_forwarding_that_begins_later(scenario: Scenario) -> None:
    """Found by the probe that comes when sessions fail."""
    scenario.servers()
    count_packets_of_target(scenario, "v4")
    with scenario.replay("classic") as replay:
        load = scenario.start_load(f"--connections {RATE * 90} --rate {RATE} --requests 2")
        assert wait_until(lambda: "probe: handshake" in replay.output, 20), replay.output
        assert seen(scenario) == 0
        forward(scenario, "v4", True)
        assert wait_until(lambda: STOPPED in replay.output, 70), replay.output
        time.sleep(1)
        before = seen(scenario)
        time.sleep(2)
        assert seen(scenario) == before
        load.stop()


def test_mapped_addresses_are_nobodys(scenario: Scenario) -> None:
    """With -c what is passed on reaches no client: it is said, and sessions go on."""
    lab = scenario.lab
    scenario.servers()
    lab.assistant.sysctl({SYSCTL["v4"]: "1"})
    lab.assistant.ip(f"route add 10.77.0.0/24 via {lab.client.v4}")
    with scenario.replay("classic", mapped="10.77.0.0/24") as replay:
        assert wait_until(lambda: "forwards" in replay.output, 20), replay.output
        scenario.load("--connections 20 --requests 2")
        scenario.wait_for_target(20)
    assert STOPPED not in replay.output
    assert replay.report["sessions"]["outcomes"]["shed_forwarded"] == 0
