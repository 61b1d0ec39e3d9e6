"""The way to the target is away for a moment: nothing is lost, whatever carries the requests."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.lab.scenario import PORT, Replay, Scenario, wait_until
from tests.netns.test_local_ports import cpu_seconds
from tests.netns.test_replay import check

pytestmark = pytest.mark.netns
# The target on a network of its own, which one route leads to.
FAR = {4: "10.77.0.3", 6: "fd77::3"}
SMALL, FULL = (300, 100, 2.0), (900, 100, 4.0)
KINDS = ("no route", "unreachable", "prohibit", "blackhole", "no ARP", "reject")
ERRORS = {
    "no route": "ENETUNREACH", "unreachable": "EHOSTUNREACH", "prohibit": "EACCES",
    "blackhole": "EINVAL", "no ARP": "EHOSTUNREACH", "reject": "EHOSTUNREACH",
}  # fmt: skip


def put_far(scenario: Scenario, family: int) -> None:
    """Give the target its other address, and online the route."""
    lab = scenario.lab
    address, length = FAR[family], 32 if family == 4 else 128
    lab.target.ip(f"addr add {address}/{length} dev eth0{' nodad' if family == 6 else ''}")
    lab.online.ip(f"route add {address}/{length} dev eth0")


def take_away(scenario: Scenario, kind: str, mode: str, family: int) -> Callable[[], None]:
    """Take the way to the target away; returns what brings it back."""
    lab = scenario.lab
    if mode == "tunnel":  # the way of the relay, which carries the packets
        away = f"unreachable {lab.target.v4}/32"
        lab.online.ip(f"route add {away}")
        return lambda: lab.online.ip(f"route del {away}")
    if mode == "local":  # the way back, into the device
        back = "198.18.0.0/15 dev tcpcopy0"
        lab.online.ip(f"route del {back}")
        return lambda: lab.online.ip(f"route add {back}")
    prefix = f"{FAR[family]}/{32 if family == 4 else 128}"
    if kind == "no ARP":
        lab.bridge.ip("link set target down")
        lab.online.ip("neigh flush dev eth0")
        return lambda: lab.bridge.ip("link set target up")
    if kind == "reject":
        how = "icmp type host-unreachable" if family == 4 else "icmpv6 type addr-unreachable"
        lab.online.nft(
            f"table inet away {{ chain out {{ type filter hook output priority 0;"
            f" {'ip' if family == 4 else 'ip6'} daddr {FAR[family]} reject with {how}; }}; }}"
        )
        return lambda: lab.online.nft("delete table inet away")
    lab.online.ip(f"route del {prefix} dev eth0")
    if kind == "no route":
        return lambda: lab.online.ip(f"route add {prefix} dev eth0")
    lab.online.ip(f"route add {kind} {prefix}")
    return lambda: lab.online.ip(f"route del {kind} {prefix}", f"route add {prefix} dev eth0")


def run(
    scenario: Scenario,
    mode: str,
    kind: str,
    family: int = 4,
    size: tuple[int, int, float] = SMALL,
    arguments: tuple[object, ...] = (),
) -> Replay:
    """A load of new connections, in the middle of which the way is away for a while.

    `size`: connections, of these so many a second, seconds.
    """
    connections, rate, seconds = size
    put_far(scenario, family)
    transfer = f"{PORT}-{FAR[family] if family == 4 else f'[{FAR[family]}]'}:{PORT}"
    if mode in ("tunnel", "local"):
        transfer = ""
    scenario.servers()
    with scenario.replay(mode, "--no-check", *arguments, transfer=transfer) as replay:
        to = scenario.lab.online.v6 if family == 6 else ""
        load = scenario.start_load(f"--connections {connections} --rate {rate}", to=to)
        assert wait_until(lambda: scenario.target[0].count() > rate // 2, 10)
        come_back = take_away(scenario, kind, mode, family)
        time.sleep(seconds)
        come_back()
        scenario.finish_load(load)
        scenario.wait_for_target(connections, 25)
        user, system = cpu_seconds(replay)
    report = replay.report
    print(f"{mode}, {kind}: {user:.2f} s user, {system:.2f} s system time,"
          f" {report['send_errors']}, {report['ports']['waited']} waited")  # fmt: skip
    check(scenario, replay, connections)
    return replay


def check_lines(replay: Replay, kind: str) -> None:
    """What could not begin waited in one line, and the error is told."""
    report = replay.report
    if kind != "no ARP":  # where the kernel may keep what goes out until there is an answer
        assert report["ports"]["waited"] > 100, report["ports"]
        assert ERRORS[kind] in report["send_errors"], report["send_errors"]
        assert f"{ERRORS[kind]} (" in replay.output and "waited for it" in replay.output


@pytest.mark.parametrize(("kind", "family"), [("no route", 4), ("unreachable", 6)])
def test_socket(scenario: Scenario, kind: str, family: int) -> None:
    """Connects wait in one line, and are not tried by each session for itself."""
    replay = run(scenario, "socket", kind, family)
    check_lines(replay, kind)
    assert sum(replay.report["send_errors"].values()) <= 12


@pytest.mark.parametrize("mode", ["classic", "local"])
def test_packets(scenario: Scenario, mode: str) -> None:
    """The engine's TCP sends again what did not leave."""
    run(scenario, mode, "no route")


@pytest.mark.acceptance
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("kind", KINDS)
def test_900_connections_socket(scenario: Scenario, kind: str, family: int) -> None:
    check_lines(run(scenario, "socket", kind, family, FULL), kind)


@pytest.mark.acceptance
@pytest.mark.parametrize("mode", ["classic", "link", "tunnel", "local"])
def test_900_connections_packets(scenario: Scenario, mode: str) -> None:
    if mode == "link":
        run(scenario, "classic", "no route", size=FULL, arguments=("-o", "eth0"))
    else:
        run(scenario, mode, "no route", size=FULL)
