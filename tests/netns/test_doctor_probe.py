"""The end-to-end probe on whole hosts: all well in every mode, and the cause of each mistake."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest

from tcpcopy.demo.netns import Host
from tests.lab.scenario import LOCAL_PORT, PORT, RELAY_PORT, Scenario, python

pytestmark = pytest.mark.netns

RANGE = "62.135.200.0/24"
MAPPED = "62.135.200.0"


class Probe:
    """Runs `tcpcopy doctor` with the options of a run, and keeps what it found."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.findings: list[dict[str, Any]] = []

    def run(self, *arguments: object, transfer: str = "") -> None:
        lab = self.scenario.lab
        words = ["-x", transfer or f"{PORT}-{lab.target.v4}:{PORT}", *map(str, arguments)]
        program = lab.online.start(
            python("tcpcopy.cli", "doctor", *words, "--json"),
            name="doctor",
            env=self.scenario.environment,
        )
        code = program.wait(30)
        found = json.loads(program.output())
        self.findings = found["findings"]
        assert code == (found["level"] == "fault"), program.output()

    def classic(self, *arguments: object, mapped: str = RANGE) -> None:
        self.run("-s", self.scenario.lab.assistant.v4, "-c", mapped, *arguments)

    def known(self, *arguments: object, mapped: str = RANGE) -> None:
        """With the secret of `start_known`, so that intercept says what it sees."""
        self.classic(*secret_of(self.scenario), *arguments, mapped=mapped)

    def faults(self) -> list[dict[str, Any]]:
        """What the probe found to be wrong."""
        return [
            finding
            for finding in self.findings
            if finding["level"] in ("fault", "warning") and finding["check"] in ("probe", "relay")
        ]

    def expect(self, hop: str, *words: str, remedy: str = "") -> None:
        """The first thing that is wrong is at that hop, and is called so."""
        assert self.faults(), self.findings
        first = self.faults()[0]
        assert first["hop"] == hop, self.findings
        for word in words:
            assert word in first["text"], self.findings
        assert remedy in "\n".join(first["remedy"]), self.findings


@pytest.fixture
def probe(scenario: Scenario) -> Probe:
    return Probe(scenario)


def secret_of(scenario: Scenario) -> tuple[object, ...]:
    return "--secret-file", scenario.secret


def start_known(scenario: Scenario, *arguments: object) -> None:
    """An intercept that knows who asks."""
    scenario.start_intercept(*secret_of(scenario), *arguments)


def tunnel_mode(scenario: Scenario) -> tuple[object, ...]:
    return "--via", "tunnel", "-s", scenario.lab.target.v4, "--secret-file", scenario.secret


def route(scenario: Scenario, network: str = RANGE) -> None:
    scenario.lab.classic([network])


def rule(host: Host, hook: str, text: str) -> None:
    """One rule in a firewall of the host."""
    host.nft(f"table ip f {{\n chain c {{\n type filter hook {hook} priority 0\n {text}\n}}\n}}\n")


def accepted(scenario: Scenario) -> int:
    """Connections that the target's application saw."""
    return len(scenario.target[0].snapshot())


# --- all is well ---------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["v4", "v6"])
@pytest.mark.parametrize("mode", ["socket", "classic", "link", "local", "tunnel"])
def test_no_fault_when_all_is_right(
    scenario: Scenario, probe: Probe, mode: str, family: str
) -> None:
    """One OK, no warning, and the target's application has seen nothing."""
    lab = scenario.lab
    scenario.serve(lab.target, *(("--address", "::1") if (mode, family) == ("local", "v6") else ()))
    target = lab.target.v4 if family == "v4" else f"[{lab.target.v6}]"
    transfer = f"{PORT}-{target}:{PORT}"
    if mode == "socket":
        probe.run(transfer=transfer)
    elif mode == "local":
        here = "127.0.0.1" if family == "v4" else "[::1]"
        probe.run("--local", transfer=f"{PORT}-{here}:{LOCAL_PORT}")
    elif mode == "tunnel":
        scenario.start_tunnel_end()
        probe.run(*tunnel_mode(scenario), transfer=transfer)
    else:
        network = RANGE if family == "v4" else "fd00:99::/64"
        route(scenario, network)
        scenario.start_intercept()
        link = ("-o", "eth0") if mode == "link" else ()
        probe.run("-s", lab.assistant.v4, "-c", network, *link, transfer=transfer)
    assert not probe.faults(), probe.findings
    assert [f["level"] for f in probe.findings if f["check"] == "probe"] == ["ok"], probe.findings
    assert accepted(scenario) == 0


def test_a_client_that_is_connected_stands_for_all(scenario: Scenario, probe: Probe) -> None:
    """Without -c: only a real client's address takes the clients' route."""
    lab = scenario.lab
    scenario.servers()
    lab.classic()
    scenario.start_intercept()
    probe.run("-s", lab.assistant.v4)
    assert not probe.faults(), probe.findings
    assert "no client is connected" in probe.findings[-1]["text"]
    load = scenario.start_load("--connections 1 --requests 20 --think-ms 500")
    time.sleep(0.5)
    probe.run("-s", lab.assistant.v4)
    load.stop()
    assert not probe.faults(), probe.findings
    assert f"from {lab.client.v4} complete" in probe.findings[-1]["text"]


# --- the known mistakes ---------------------------------------------------------------------------


def test_no_route_on_the_target(scenario: Scenario, probe: Probe) -> None:
    scenario.serve(scenario.lab.target)
    start_known(scenario)
    probe.known()
    probe.expect("target", "route", "missing", remedy=f"ip route replace {RANGE} via 10.66.0.4")


def test_default_route_back_to_online(scenario: Scenario, probe: Probe) -> None:
    lab = scenario.lab
    scenario.serve(lab.target)
    start_known(scenario)
    lab.target.ip(f"route add default via {lab.online.v4}")
    probe.known()
    probe.expect("target", "sends what is for", "to this host", remedy="ip route replace")


def test_wrong_route_to_another_host(scenario: Scenario, probe: Probe) -> None:
    lab = scenario.lab
    scenario.serve(lab.target)
    start_known(scenario)
    lab.target.ip(f"route add {RANGE} via {lab.client.v4}")
    probe.known()
    probe.expect("target", "leads elsewhere", remedy=f"ip route replace {RANGE} via 10.66.0.4")


def test_assistant_forwards(scenario: Scenario, probe: Probe) -> None:
    lab = scenario.lab
    scenario.serve(lab.target)
    start_known(scenario)
    route(scenario)
    lab.assistant.sysctl({"net/ipv4/ip_forward": "1"})
    lab.assistant.ip(f"route add {RANGE} via {lab.client.v4}")
    probe.known()
    probe.expect("assistant", "forwards", remedy="sysctl -w net.ipv4.ip_forward=0")


def test_assistant_forwards_to_a_real_host(scenario: Scenario, probe: Probe) -> None:
    """A client that has the address resets what it knows nothing of."""
    lab = scenario.lab
    scenario.serve(lab.target)
    start_known(scenario)
    lab.classic(["10.66.1.0/24"])
    lab.assistant.sysctl({"net/ipv4/ip_forward": "1"})
    probe.known(mapped="10.66.1.0/24")
    probe.expect("assistant", "forwards", remedy="sysctl -w net.ipv4.ip_forward=0")
    assert probe.faults()[0]["level"] == "fault"


def second_network(scenario: Scenario) -> str:
    """Target and assistant on a network of their own; the assistant's address there."""
    lab = scenario.lab
    lab.bridge.ip(
        "link add br1 type bridge forward_delay 0 mcast_snooping 0",
        "link set br1 up",
        f"link add t1 type veth peer name eth1 netns {lab.target.namespace}",
        f"link add a1 type veth peer name eth1 netns {lab.assistant.namespace}",
        "link set t1 master br1 up",
        "link set a1 master br1 up",
    )
    lab.target.ip("addr add 10.67.0.3/24 dev eth1", "link set eth1 up")
    lab.assistant.ip("addr add 10.67.0.4/24 dev eth1", "link set eth1 up")
    lab.online.ip(f"route add 10.67.0.0/24 via {lab.assistant.v4}")
    lab.assistant.sysctl({"net/ipv4/conf/all/rp_filter": "0", "net/ipv4/conf/eth1/rp_filter": "0"})
    return "10.67.0.4"


def test_strict_reverse_path_filter_on_the_target(scenario: Scenario, probe: Probe) -> None:
    """The route to the assistant leaves by another device than the SYNs come in by."""
    lab = scenario.lab
    scenario.serve(lab.target)
    start_known(scenario)
    assistant = second_network(scenario)
    lab.target.ip(f"route add {RANGE} via {assistant}")
    probe.run(*secret_of(scenario), "-s", assistant, "-c", RANGE)
    assert not probe.faults(), probe.findings  # the filter is off in the lab
    lab.target.sysctl({"net/ipv4/conf/all/rp_filter": "1"})
    probe.run(*secret_of(scenario), "-s", assistant, "-c", RANGE)
    probe.expect("target", "rp_filter", remedy="sysctl -w net.ipv4.conf.all.rp_filter=0")


def test_nft_drops_on_online(scenario: Scenario, probe: Probe) -> None:
    scenario.serve(scenario.lab.target)
    scenario.start_intercept()
    route(scenario)
    rule(scenario.lab.online, "output", f"ip saddr {RANGE} drop")
    probe.classic()
    probe.expect("this host", "EPERM", remedy="nft list ruleset")


DROPS = (f"ip saddr {RANGE}", f"tcp dport {PORT}", f"ip saddr {RANGE} tcp dport {PORT}")


@pytest.mark.parametrize(
    "match", [f"ip saddr {RANGE}", f"tcp dport {PORT}", f"ip saddr {RANGE} tcp dport {PORT}"]
)
def test_nft_drops_on_the_target(scenario: Scenario, probe: Probe, match: str) -> None:
    lab = scenario.lab
    scenario.serve(lab.target)
    start_known(scenario)
    route(scenario)
    rule(lab.target, "input", f"{match} drop")
    probe.known()
    probe.expect("target", "firewall" if "tcp" in match else "route", remedy="nft list ruleset")


def test_nft_rejects_on_the_target(scenario: Scenario, probe: Probe) -> None:
    lab = scenario.lab
    scenario.serve(lab.target)
    start_known(scenario)
    route(scenario)
    rule(lab.target, "input", f"ip saddr {RANGE} tcp dport {PORT} reject")
    probe.known()
    probe.expect("target", "firewall rejects", remedy="nft list ruleset")


def test_range_of_real_hosts(scenario: Scenario, probe: Probe) -> None:
    """The client's own address in -c, and the target reaches it directly."""
    scenario.serve(scenario.lab.target)
    start_known(scenario)
    probe.known(mapped="10.66.0.5")
    probe.expect("network", "a real host has the address 10.66.0.5", remedy="-c")


def test_filter_of_intercept_is_wrong(scenario: Scenario, probe: Probe) -> None:
    scenario.serve(scenario.lab.target)
    route(scenario)
    start_known(scenario, "-F", "tcp and src port 9999")
    probe.known()
    probe.expect("assistant", "-F 'tcp and src port 9999'", remedy=f"src port {PORT}")
    assert not [f for f in probe.findings if "cannot look" in f["text"]], probe.findings


def test_device_of_intercept_is_wrong(scenario: Scenario, probe: Probe) -> None:
    scenario.serve(scenario.lab.target)
    route(scenario)
    words = ("-i", "lo", "-F", f"tcp and src port {PORT}", *secret_of(scenario))
    command = python("tcpcopy.intercept_cli", *words)
    program = scenario.lab.assistant.start(command, name="intercept", env=scenario.environment)
    program.wait_sockets(RELAY_PORT)
    probe.known()
    probe.expect("assistant", "on eth0", "captures on lo", remedy="-i eth0")


@pytest.mark.parametrize("case", ["well", "no route", "filter", "forwards"])
def test_an_open_intercept_gives_no_details(scenario: Scenario, probe: Probe, case: str) -> None:
    """What is told without: that it is open, every cause that looks alike, and how to hear more."""
    lab = scenario.lab
    scenario.serve(lab.target)
    scenario.start_intercept(*(("-F", "tcp and src port 9999") if case == "filter" else ()))
    if case != "no route":
        route(scenario)
    if case == "forwards":
        lab.assistant.sysctl({"net/ipv4/ip_forward": "1"})
        lab.assistant.ip(f"route add {RANGE} via {lab.client.v4}")
    probe.classic()
    [told] = [f for f in probe.findings if "is open" in f["text"] and f["check"] == "relay"]
    assert "gives no details" in told["text"] and "--secret-file" in told["remedy"][0]
    if case == "well":
        assert not probe.faults(), probe.findings
        assert "complete" in probe.findings[-1]["text"]
    elif case == "forwards":
        probe.expect("assistant", "forwards", "passed the answer on", remedy="ip_forward=0")
    else:
        probe.expect("target", "route", "rp_filter", "-F or -i", remedy=f"ip route replace {RANGE}")
        remedy = "\n".join(probe.faults()[0]["remedy"])
        assert f"-F 'tcp and src port {PORT}'" in remedy and "--secret-file" in remedy
    of_intercept = [f["text"] for f in probe.findings if f["check"] in ("probe", "relay")]
    assert not [text for text in of_intercept if "9999" in text or "eth0" in text]


@pytest.mark.parametrize("mode", ["socket", "classic", "link", "local", "tunnel"])
def test_port_is_closed(scenario: Scenario, probe: Probe, mode: str) -> None:
    if mode == "socket":
        probe.run()
    elif mode == "local":
        probe.run("--local", transfer=f"{PORT}-127.0.0.1:{LOCAL_PORT}")
    elif mode == "tunnel":
        scenario.start_tunnel_end()
        probe.run(*tunnel_mode(scenario))
    else:
        route(scenario)
        scenario.start_intercept()
        probe.classic(*(("-o", "eth0") if mode == "link" else ()))
    probe.expect("target", "nothing listens", remedy="ss -ltn")


@pytest.mark.parametrize("mode", ["socket", "classic"])
def test_target_is_down(scenario: Scenario, probe: Probe, mode: str) -> None:
    scenario.lab.target.ip("link set eth0 down")
    if mode == "socket":
        probe.run()
    else:
        scenario.start_intercept()
        probe.classic()
    probe.expect("target", "does not answer at all", remedy="ip neigh")


def test_no_route_to_the_target(scenario: Scenario, probe: Probe) -> None:
    probe.run(transfer=f"{PORT}-192.0.2.7:{PORT}")
    probe.expect("this host", "ENETUNREACH", remedy="ip route get 192.0.2.7")


def secret(scenario: Scenario, name: str, text: str) -> str:
    path = scenario.lab.directory / name
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


def test_secret_is_wrong(scenario: Scenario, probe: Probe) -> None:
    scenario.serve(scenario.lab.target)
    route(scenario)
    scenario.start_intercept("--secret-file", secret(scenario, "a", "a" * 32))
    probe.classic("--secret-file", secret(scenario, "b", "b" * 32))
    probe.expect("relay", "the secret is wrong", remedy="sha256sum")
    probe.classic()
    probe.expect("relay", "it wants a secret", remedy="give tcpcopy --secret-file")


def test_versions_mixed(scenario: Scenario, probe: Probe) -> None:
    """An intercept that speaks classic only, and what that cannot carry."""
    lab = scenario.lab
    scenario.serve(lab.target)
    route(scenario)
    scenario.start_intercept("--relay", "classic")
    probe.classic("--secret-file", secret(scenario, "b", "b" * 32))
    probe.expect("relay", "it speaks the classic relay only", remedy="--relay classic")
    target = f"{PORT}-[{lab.target.v6}]:{PORT}"
    probe.run("-s", lab.assistant.v4, "-c", "fd00:99::/64", transfer=target)
    probe.expect("relay", "it speaks the classic relay only", remedy="--relay classic")
    probe.classic()  # without either all is well, if less is told
    assert not probe.faults(), probe.findings
    assert any("classic relay" in finding["text"] for finding in probe.findings)


def test_no_intercept(scenario: Scenario, probe: Probe) -> None:
    scenario.serve(scenario.lab.target)
    probe.classic()
    probe.expect("relay", "Connection refused", remedy="ss -ltn 'sport = :36524'")


def test_firewall_of_online_drops_answers(scenario: Scenario, probe: Probe) -> None:
    """Socket mode: what reached the device and went no further."""
    lab = scenario.lab
    scenario.serve(lab.target)
    rule(lab.online, "input", f"ip saddr {lab.target.v4} drop")
    probe.run()
    probe.expect("this host", "was dropped here", remedy="nft")


def test_port_dropped_in_socket_mode(scenario: Scenario, probe: Probe) -> None:
    lab = scenario.lab
    scenario.serve(lab.target)
    rule(lab.target, "input", f"tcp dport {PORT} drop")
    probe.run()
    probe.expect("target", "is up", "firewall drops")


# --- local and tunnel -----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["local", "tunnel"])
def test_nft_drops_what_comes_by_the_device(scenario: Scenario, probe: Probe, mode: str) -> None:
    lab = scenario.lab
    scenario.serve(lab.target)  # in local mode on online
    rule(lab.online if mode == "local" else lab.target, "input", 'iifname "tcpcopy*" drop')
    if mode == "local":
        probe.run("--local", transfer=f"{PORT}-127.0.0.1:{LOCAL_PORT}")
        probe.expect("this host", "comes in by the TUN device", remedy="-i tcpcopy+")
    else:
        scenario.start_tunnel_end()
        probe.run(*tunnel_mode(scenario))
        probe.expect("target", "comes in by the TUN device", remedy="-i tcpcopy+")


def test_tunnel_does_not_allow_the_target(scenario: Scenario, probe: Probe) -> None:
    lab = scenario.lab
    scenario.serve(lab.target)
    scenario.start_tunnel_end("--tun-allow", f"{lab.target.v4}:9999")
    probe.run(*tunnel_mode(scenario))
    probe.expect("assistant", "does not inject", "--tun-allow", remedy=f"{lab.target.v4}:{PORT}")


def test_tunnel_without_its_other_end(scenario: Scenario, probe: Probe) -> None:
    scenario.serve(scenario.lab.target)
    probe.run(*tunnel_mode(scenario))
    probe.expect("relay", "Connection refused", remedy="start intercept")


# --- by itself, at the start ----------------------------------------------------------------------


def wait_for_log(check: Callable[[], bool]) -> bool:
    until = time.monotonic() + 15
    while time.monotonic() < until:
        if check():
            return True
        time.sleep(0.1)
    return False


def test_the_start_says_what_is_wrong(scenario: Scenario) -> None:
    """Replay begins at once; the diagnosis is logged when it is there."""
    lab = scenario.lab
    scenario.servers()
    scenario.start_intercept()
    replay = scenario.start_tcpcopy(
        "-x", f"{PORT}-{lab.target.v4}:{PORT}", "-s", lab.assistant.v4, "-c", RANGE
    )
    assert wait_for_log(lambda: f"ip route replace {RANGE}" in replay.output), replay.output
    assert "its route for them is missing" in replay.output
    replay.stop()


@pytest.mark.parametrize("mode", ["socket", "classic", "local"])
def test_the_start_probes_every_target(scenario: Scenario, mode: str) -> None:
    """The second one's port is closed: the first is well, and no session has to fail for it."""
    scenario.servers()
    host, well = scenario.lab.target.v4, PORT
    if mode == "local":
        host, well = "127.0.0.1", LOCAL_PORT
    transfer = f"{PORT}-{host}:{well},{PORT}-{host}:8099"
    mapped = RANGE if mode == "classic" else ""
    with scenario.replay(mode, transfer=transfer, mapped=mapped) as replay:
        assert wait_for_log(lambda: "nothing listens" in replay.output), replay.output
        assert re.search(rf"INFO doctor: probe: .*{re.escape(host)}:{well} ", replay.output)
        assert "sport = :8099" in replay.output and "sport = :8080" not in replay.output
        assert f"{host}:8099 is up and refuses: nothing listens on the port" in replay.output


def test_without_c_the_first_client_is_probed_for(scenario: Scenario) -> None:
    """No address of nobody's: the first session's, as soon as there is one."""
    lab = scenario.lab
    scenario.servers()
    scenario.start_intercept()
    replay = scenario.start_tcpcopy("-x", f"{PORT}-{lab.target.v4}:{PORT}", "-s", lab.assistant.v4)
    load = scenario.start_load("--connections 2 --requests 2 --think-ms 1000")
    assert wait_for_log(lambda: "doctor: " in replay.output), replay.output
    load.stop()
    replay.stop()


@pytest.mark.parametrize("mode", ["socket", "classic", "local", "tunnel"])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_counts_stay_exact(scenario: Scenario, mode: str, workers: str) -> None:
    """The probe is no session, and the target's application sees nothing of it."""
    scenario.servers()
    mapped = RANGE if mode == "classic" else ""
    with scenario.replay(mode, "--workers", workers, mapped=mapped) as replay:
        assert wait_for_log(lambda: "probe: " in replay.output), replay.output
        scenario.load("--connections 20 --requests 2")
        scenario.wait_for_target(20)
    result = scenario.compare()
    assert result.clean and result.exact == 20, result
    assert replay.exit_code == 0, replay.output
    report = replay.report
    assert report["sessions"]["captured"] == 20
    assert "doctor" not in replay.output or "ERROR" not in replay.output


def test_no_check_leaves_it_out(scenario: Scenario) -> None:
    lab = scenario.lab
    scenario.servers()
    replay = scenario.start_tcpcopy("-x", f"{PORT}-{lab.target.v4}:{PORT}", "--no-check")
    time.sleep(2.5)
    replay.stop()
    assert "doctor: " not in replay.output
