"""`doctor` on real hosts with one thing wrong: it names it, and what it says mends it."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import Any

import pytest

from tcpcopy.demo.netns import Host
from tests.lab.scenario import PORT, RELAY_PORT, Scenario, environment, python, wait_until

pytestmark = pytest.mark.netns
MAPPED = "10.99.0.0/24"
NO_RIGHTS = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all")
HERE = "on this host: "


@dataclass(frozen=True)
class Told:
    """What doctor said."""

    code: int
    findings: list[dict[str, Any]]

    def of(self, check: str, *levels: str) -> list[dict[str, Any]]:
        wanted = levels or ("warning", "fault")
        return [f for f in self.findings if f["check"] == check and f["level"] in wanted]

    @property
    def serious(self) -> set[str]:
        """The checks that found something."""
        return {f["check"] for f in self.findings if f["level"] in ("warning", "fault")}

    def only(self, check: str, level: str) -> dict[str, Any]:
        """The one thing that is wrong."""
        assert self.serious == {check}, self.findings
        assert self.code == (1 if level == "fault" else 0)
        (found,) = self.of(check, level)
        return found


def doctor(host: Host, program: str, *words: object, prefix: tuple[str, ...] = ()) -> Told:
    module = "tcpcopy.cli" if program == "tcpcopy" else "tcpcopy.intercept_cli"
    # What is between the hosts is the probe's affair: see test_doctor_probe.py.
    alone = ("--no-probe",) if program == "tcpcopy" else ()
    command = [*prefix, *python(module, "doctor", "--json"), *alone, *map(str, words)]
    done = subprocess.run(
        host.command(command), capture_output=True, text=True, timeout=30, check=False,
        env=environment(),
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    return Told(done.returncode, json.loads(done.stdout)["findings"])


def classic(scenario: Scenario, *words: object) -> list[object]:
    lab = scenario.lab
    return ["-x", f"{PORT}-{lab.target.v4}:{PORT}", "-s", lab.assistant.v4, "-c", MAPPED, *words]


def socket_mode(scenario: Scenario, *words: object) -> list[object]:
    return ["-x", f"{PORT}-{scenario.lab.target.v4}:{PORT}", *words]


def online(scenario: Scenario, words: list[object], **how: Any) -> Told:
    return doctor(scenario.lab.online, "tcpcopy", *words, **how)


def assistant(scenario: Scenario, *words: object, **how: Any) -> Told:
    return doctor(scenario.lab.assistant, "intercept", *words, **how)


def mend(host: Host, finding: dict[str, Any], step: int = 0) -> None:
    """Type the command as it stands."""
    command = finding["remedy"][step]
    assert command.startswith(HERE)
    host.run("sh", "-c", command.removeprefix(HERE))


def wall(host: Host, table: str, chain: str, *rules: str) -> None:
    """A table of one chain."""
    host.nft("\n".join([f"table {table} {{", "chain c {", f"{chain};", *rules, "}", "}"]))


KNOWN = ("--allow", "10.66.0.2")  # intercept lets in only online


def answers(*words: object) -> list[object]:
    return [*KNOWN, "-F", f"tcp and src port {PORT}", *words]


def test_nothing_is_wrong(scenario: Scenario) -> None:
    """Neither with a sound set-up nor while it runs."""
    for words in (socket_mode(scenario), classic(scenario), classic(scenario, "-o", "eth0")):
        told = online(scenario, words)
        assert told.code == 0 and told.serious == set(), told
    told = assistant(scenario, *answers("-i", "eth0"))
    assert told.code == 0 and told.serious == set(), told
    scenario.servers()
    with scenario.replay("classic", mapped=MAPPED) as replay:
        scenario.load("--connections 30 --requests 4")
        assert scenario.wait_for_target()
        told = online(scenario, classic(scenario))
        assert told.serious == set(), told
    for program in (replay.tcpcopy, *replay.intercepts):
        assert "check:" not in program.output(), program.output()
    assert "WARNING" not in replay.output, replay.output


def test_nothing_is_wrong_in_local_mode(scenario: Scenario) -> None:
    """Also while its device has the range of clients; a firewall that does not know it is told."""
    host = scenario.lab.online
    words: list[object] = ["--local", "-x", f"{PORT}-127.0.0.1:9090"]
    assert online(scenario, words).serious == set()
    replay = scenario.start_tcpcopy(*words)
    assert online(scenario, words).serious == set()
    replay.stop(timeout=30)
    assert "check:" not in replay.output, replay.output
    barred = online(scenario, words, prefix=("setpriv", "--bounding-set=-net_admin"))
    assert "CAP_NET_ADMIN" in barred.of("privilege", "fault")[0]["text"]
    wall(host, "inet wall", "type filter hook input priority 0; policy drop", 'iifname "lo" accept')
    found = online(scenario, words).only("firewall", "fault")
    mend(host, found)
    assert online(scenario, words).serious == set()


def test_an_open_relay(scenario: Scenario) -> None:
    """Without a secret and --allow it is the only thing to say of a sound set-up."""
    open_words = ["-i", "eth0", "-F", f"tcp and src port {PORT}"]
    found = assistant(scenario, *open_words).only("open_relay", "warning")
    assert "whoever reaches port 36524" in found["text"] and "--allow" in found["remedy"][1]
    told = assistant(scenario, *open_words, "--secret-file", scenario.secret)
    assert told.serious == set(), told


def test_no_privilege(scenario: Scenario) -> None:
    found = online(scenario, socket_mode(scenario), prefix=NO_RIGHTS).only("privilege", "fault")
    assert "CAP_NET_RAW is missing" in found["text"]
    assert "--cap-add=NET_RAW" in found["remedy"][0], "it cannot be given to a file here"
    found = assistant(scenario, *answers(), prefix=NO_RIGHTS).only("privilege", "fault")
    assert "the target's answers" in found["text"]


def test_wrong_device(scenario: Scenario) -> None:
    host = scenario.lab.online
    command = python("tcpcopy.cli", "doctor", *socket_mode(scenario, "-i", "eth7"))
    done = subprocess.run(
        host.command(command), capture_output=True, text=True, check=False, env=environment()
    )
    assert done.returncode == 2 and "eth7: there is no such device or file" in done.stderr
    host.ip("link add spare type bridge")
    told = online(scenario, socket_mode(scenario, "-i", "spare"))
    found = told.only("devices", "fault")
    mend(host, found)
    assert not online(scenario, socket_mode(scenario, "-i", "spare")).of("devices", "fault")


@pytest.mark.parametrize("kind", ["blackhole", "unreachable", "prohibit", "none"])
def test_no_route(scenario: Scenario, kind: str) -> None:
    host = scenario.lab.online
    if kind == "none":
        words: list[object] = ["-x", f"{PORT}-192.0.2.9:{PORT}"]
        text = "there is no route"
    else:
        host.ip(f"route add {kind} {scenario.lab.target.v4}")
        words = socket_mode(scenario)
        text = {"blackhole": "swallows", "unreachable": "unreachable", "prohibit": "prohibits"}[
            kind
        ]
    found = online(scenario, words).only("route", "fault")
    assert text in found["text"]
    for step in found["remedy"][1:]:
        assert step.startswith(f"{HERE}ip route get")


def test_no_route_to_intercept(scenario: Scenario) -> None:
    words = classic(scenario)
    words[words.index("-s") + 1] = "192.0.2.7"
    assert "intercept 192.0.2.7" in online(scenario, words).only("relay_route", "fault")["text"]


def test_assistant_forwards(scenario: Scenario) -> None:
    host = scenario.lab.assistant
    host.sysctl({"net/ipv4/ip_forward": "1"})
    found = assistant(scenario, *answers("-i", "eth0")).only("ip_forward", "fault")
    mend(host, found)
    assert assistant(scenario, *answers("-i", "eth0")).serious == set()


def test_strict_reverse_path_on_a_target(scenario: Scenario) -> None:
    """On the target the same command looks at what a target needs."""
    target = scenario.lab.target
    scenario.servers()
    target.ip("link add other type bridge", "addr add 10.67.0.1/24 dev other", "link set other up")
    target.sysctl({"net/ipv4/conf/all/rp_filter": "1"})
    found = doctor(target, "intercept", *answers()).only("rp_filter", "warning")
    for step in range(len(found["remedy"])):
        mend(target, found, step)
    assert doctor(target, "intercept", *answers()).serious == set()


RULES = {
    "drop": "ip daddr {target} tcp dport {port} counter drop",
    "reject": "tcp dport {port} reject with tcp reset",
    "invalid": "ct state invalid drop",
    "policy": "ct state established,related accept",
}


@pytest.mark.parametrize("rule", RULES)
def test_rules_that_drop_copies(scenario: Scenario, rule: str) -> None:
    """Named, and after the command that is given sessions are replayed."""
    host = scenario.lab.online
    text = RULES[rule].format(target=scenario.lab.target.v4, port=PORT)
    relay = [f"ip daddr {scenario.lab.assistant.v4} accept"] if rule == "policy" else []
    hook = "type filter hook output priority 0" + ("; policy drop" if relay else "")
    wall(host, "inet wall", hook, *relay, f"tcp sport {PORT} accept", text)
    told = online(scenario, classic(scenario))
    found = told.of("firewall", "fault")[0]
    assert told.serious == {"firewall"} and "inet wall c" in found["text"]
    if rule == "invalid":
        assert "conntrack takes it for invalid" in found["text"]
    scenario.servers()
    with scenario.replay("classic", mapped=MAPPED) as replay:
        assert "ERROR doctor: check: firewall: inet wall c" in replay.output
        scenario.load("--connections 10 --requests 4")
        assert not scenario.wait_for_target(timeout=2), "the rule does nothing"
        mend(host, found)
        assert online(scenario, classic(scenario)).serious == set()
        assert scenario.wait_for_target(), replay.output
    result = scenario.compare()
    assert result.clean and result.exact == 10, result


def test_masquerading(scenario: Scenario) -> None:
    host = scenario.lab.online
    wall(host, "ip nat", "type nat hook postrouting priority 100", 'oifname "eth0" masquerade')
    found = online(scenario, classic(scenario)).only("firewall", "fault")
    assert "changes the client addresses" in found["text"]
    assert online(scenario, socket_mode(scenario)).serious == set()
    mend(host, found)
    assert online(scenario, classic(scenario)).serious == set()


def test_rules_of_iptables(scenario: Scenario) -> None:
    host = scenario.lab.online
    host.run("iptables", "-A", "OUTPUT", "-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP")
    found = online(scenario, classic(scenario)).only("firewall", "fault")
    assert "-m conntrack --ctstate INVALID -j DROP" in found["text"]
    mend(host, found)
    assert online(scenario, classic(scenario)).serious == set()


def test_relay_port_is_barred(scenario: Scenario) -> None:
    host = scenario.lab.assistant
    wall(host, "inet wall", "type filter hook input priority 0", f"tcp dport {RELAY_PORT} drop")
    found = assistant(scenario, *answers()).only("firewall", "fault")
    mend(host, found)
    assert assistant(scenario, *answers()).serious == set()


def test_range_of_real_hosts(scenario: Scenario) -> None:
    """The neighbours are known once there was traffic with them."""
    lab = scenario.lab
    lab.online.run("sh", "-c", f"ping -c 1 -W 1 {lab.client.v4} || :")
    words = classic(scenario)
    words[words.index(MAPPED)] = "10.66.0.0/24"
    found = online(scenario, words).only("overlap", "warning")
    for address in (lab.online.v4, lab.assistant.v4):
        assert address in found["text"]
    words[words.index("10.66.0.0/24")] = f"{lab.assistant.v4}"
    assert online(scenario, words).only("overlap", "fault")


def test_filters(scenario: Scenario) -> None:
    found = assistant(scenario, *KNOWN, "-F", f"tcp and dst port {PORT}").only("filter", "fault")
    assert f"src port {PORT}" in found["remedy"][0]
    found = assistant(scenario, *KNOWN, "-F", "tcp and src prt 1").only("filter", "fault")
    assert "does not compile" in found["text"]
    words = socket_mode(scenario, "-F", f"src port {PORT}")
    assert "lets no client's packet" in online(scenario, words).only("filter", "fault")["text"]


def test_limits(scenario: Scenario) -> None:
    few = ("prlimit", "--nofile=512:512", "setpriv", "--bounding-set=-sys_resource")
    told = online(scenario, socket_mode(scenario), prefix=few)
    assert "only 512 open files" in told.of("open_files")[0]["text"]
    scenario.lab.online.sysctl({"net/ipv4/ip_local_port_range": "60000 60999"})
    found = online(scenario, socket_mode(scenario)).only("ports", "warning")
    mend(scenario.lab.online, found)
    assert online(scenario, socket_mode(scenario)).serious == set()


def test_small_packets(scenario: Scenario) -> None:
    scenario.lab.online.ip("link set eth0 mtu 1400")
    found = online(scenario, classic(scenario)).only("mtu", "warning")
    assert found["remedy"] == [f"{HERE}tcpcopy ... -M 1400"]
    assert online(scenario, classic(scenario, "-M", 1400)).serious == set()


def test_port_is_taken(scenario: Scenario) -> None:
    scenario.start_intercept()
    found = assistant(scenario, *answers()).only("listen", "fault")
    assert "taken by another program" in found["text"]
    told = assistant(scenario, *answers("-p", 36525, "-b", "10.9.9.9"))
    assert "Cannot assign" in told.only("listen", "fault")["text"]


def test_each_check_is_made_where_it_applies(scenario: Scenario) -> None:
    """From another network namespace: the commands enter it."""
    lab = scenario.lab
    lab.online.ip(f"route add blackhole {lab.target.v4}")
    words = ["--netns", lab.online.namespace, *socket_mode(scenario)]
    found = doctor(lab.bridge, "tcpcopy", *words).only("route", "fault")
    assert f"{HERE}ip netns exec {lab.online.namespace} ip route" in found["remedy"][0]
    sent = ["--netns", lab.online.namespace, "--send-netns", lab.client.namespace]
    assert doctor(lab.bridge, "tcpcopy", *sent, *socket_mode(scenario)).serious == set()
    lab.assistant.sysctl({"net/ipv4/ip_forward": "1"})
    told = doctor(lab.bridge, "intercept", "--netns", lab.assistant.namespace, *answers())
    mend(lab.bridge, told.only("ip_forward", "fault"))
    assert doctor(lab.assistant, "intercept", *answers()).serious == set()


def test_at_the_start_it_is_said_and_the_run_goes_on(scenario: Scenario) -> None:
    """In the log, with the command; on the terminal, too, where the log is a file; or not at all.

    Nothing that is wrong keeps a run from starting.
    """
    lab = scenario.lab
    lab.assistant.sysctl({"net/ipv4/ip_forward": "1"})
    intercept = scenario.start_intercept()
    intercept.wait_for("listening")
    assert "ERROR doctor: check: ip_forward: net.ipv4.ip_forward is 1" in intercept.output()
    assert "check:     on this host: sysctl -w net.ipv4.ip_forward=0" in intercept.output()
    quiet = lab.assistant.start(
        python("tcpcopy.intercept_cli", "-p", 36525, "--no-check"),
        name="intercept", env=environment(),
    )  # fmt: skip
    quiet.wait_for("listening")
    assert "check:" not in quiet.output()
    lab.online.sysctl({"net/ipv4/ip_local_port_range": "60000 60999"})
    log = lab.directory / "tcpcopy.log"
    scenario.servers()
    replay = scenario.start_tcpcopy(*socket_mode(scenario, "-l", log), wait=False)
    assert wait_until(lambda: log.exists() and "ready: " in log.read_text(), 20), replay.output
    assert "tcpcopy: warning: ports: local ports 60000 to 60999" in replay.output
    assert "WARNING doctor: check: ports: local ports 60000 to 60999" in log.read_text()
    scenario.load("--connections 20 --requests 4")
    assert scenario.wait_for_target()
    assert replay.stop() == 0
    with scenario.replay("socket", "--no-check") as replay:
        assert "check:" not in replay.output


@pytest.mark.parametrize("workers", [1, 2])
def test_sessions_that_fail_alike(scenario: Scenario, workers: int) -> None:
    """Once, while it runs: what the summary would say, and what is wrong with this host by then."""
    lab = scenario.lab
    scenario.serve(lab.online)
    with scenario.replay("socket", "--workers", workers) as replay:
        lab.online.sysctl({"net/ipv4/ip_local_port_range": "60000 60999"})
        for _ in range(3):
            scenario.load("--connections 30 --requests 1")
        told = "sessions failed alike: refused by the target"
        assert wait_until(lambda: told in replay.output, 10), replay.output
        listens = f"nothing listens on {lab.target.v4}:{PORT}"
        assert wait_until(lambda: listens in replay.output, 10), replay.output
        assert wait_until(lambda: "check: ports: local ports 60000" in replay.output, 10)
        scenario.load("--connections 30 --requests 1")
        wait_until(lambda: False, 5)
        assert replay.output.count(told) == 1, replay.output


def test_nothing_ever_answers(scenario: Scenario) -> None:
    """Told after seconds: sessions themselves wait for an answer for minutes."""
    lab = scenario.lab
    scenario.serve(lab.online)
    wall(lab.target, "inet wall", "type filter hook input priority 0", f"tcp dport {PORT} drop")
    with scenario.replay("classic", mapped=MAPPED) as replay:
        scenario.load("--connections 30 --requests 1")
        told = "30 of the last 30 sessions failed alike: the target did not answer the connect"
        assert wait_until(lambda: told in replay.output, 20), replay.output
        assert "tcpdump -ni any" in replay.output
        replay.stop(timeout=30)


def test_no_answer_comes_to_intercept(scenario: Scenario) -> None:
    """Its filter is wrong: it says so at the start, and what it does not see later on."""
    lab = scenario.lab
    scenario.servers()
    lab.classic([MAPPED])
    command = python("tcpcopy.intercept_cli", "-F", f"tcp and dst port {PORT}")
    intercept = lab.assistant.start(command, name="intercept", env=environment())
    intercept.wait_for("listening")
    assert "ERROR doctor: check: filter: -F 'tcp and dst port 8080' matches what is sent" in (
        intercept.output()
    )
    replay = scenario.start_tcpcopy(*classic(scenario), "--no-check")  # else its probe counts
    scenario.load("--connections 30 --requests 1")
    told = "30 sessions announced, and no answer seen on device any that passes"
    assert wait_until(lambda: told in intercept.output(), 20), intercept.output()
    replay.stop(timeout=30)


def test_no_check_is_no_alarm(scenario: Scenario) -> None:
    scenario.serve(scenario.lab.online)
    with scenario.replay("socket", "--no-check") as replay:
        scenario.load("--connections 60 --requests 1")
        assert not wait_until(lambda: "failed alike" in replay.output, 6)
