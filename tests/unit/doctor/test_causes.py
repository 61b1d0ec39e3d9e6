"""Each diagnosis of the probe, from the facts that lead to it."""

from __future__ import annotations

import errno
import socket
from dataclasses import replace

import pytest

from tcpcopy.doctor.causes import diagnose, icmp_text
from tcpcopy.doctor.finding import Finding, Level, worst
from tcpcopy.doctor.observed import Answer, Attempt, ProbeFacts, RelayFacts
from tcpcopy.relay.classic import RelayFault
from tcpcopy.relay.probing import ECHO, RESET, SYN_ACK, UNREACHABLE, Flow, Report, Seen
from tcpcopy.report.context import CLASSIC, LOCAL, SOCKET, Context, TransferInfo

TARGET, MAPPED, ASSISTANT, ONLINE = "10.0.0.2", "62.135.200.7", "10.0.0.3", "10.0.0.1"


def packed(text: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)


FLOW = Flow(packed(TARGET), 8080, packed(MAPPED), 40000)
SETUP = Context(
    mode=CLASSIC,
    transfers=(TransferInfo("", 80, TARGET, 8080),),
    intercepts=(f"{ASSISTANT}:36524",),
    client_addresses=("62.135.200.x",),
)
ANSWERED, NOTHING, RESET_CAME = (
    Attempt(Answer.SYN_ACK),
    Attempt(Answer.NOTHING),
    Attempt(Answer.RESET),
)
REPORT = Report(version="1", filter="tcp and src port 8080", forwards_v4=False, forwards_v6=False)
UP = RelayFacts(f"{ASSISTANT}:36524", ASSISTANT, is_up=True, is_native=True, report=REPORT)


OPEN = replace(UP, is_open=True, report=Report(is_open=True, forwards_v4=False))


def seen(kind: str, to: str = MAPPED, *, leaves: bool = False, device: str = "eth0") -> Seen:
    return Seen(kind, TARGET, to, device, leaves)


def relay(*packets: Seen, passed: tuple[Seen, ...] = (), **report: object) -> RelayFacts:
    changed = replace(REPORT, seen=packets, passed=passed, **report)  # type: ignore[arg-type]
    return replace(UP, report=changed)


def facts(
    forged: Attempt = NOTHING,
    own: Attempt = ANSWERED,
    relays: tuple[RelayFacts, ...] = (UP,),
    **more: object,
) -> ProbeFacts:
    found = ProbeFacts(FLOW, forged=forged, own=own, relays=relays, left=True, is_neighbour=True)
    return found.changed(**more)


ROUTE = f"on target: ip route replace 62.135.200.0/24 via {ASSISTANT}"
FORGED_PASSES = seen(SYN_ACK, ASSISTANT)

# name: (facts, hop, words of the text, a part of a remedy)
FAULTS: dict[str, tuple[ProbeFacts, str, str, str]] = {
    "output drops": (
        facts(Attempt(Answer.FAILED, errno=errno.EPERM), Attempt()),
        "this host",
        "EPERM",
        "nft list ruleset",
    ),
    "no route to the target": (
        facts(Attempt(Answer.FAILED, errno=errno.ENETUNREACH), Attempt()),
        "this host",
        "ENETUNREACH",
        f"ip route get {TARGET}",
    ),
    "closed": (facts(RESET_CAME, RESET_CAME), "target", "nothing listens", "ss -ltn"),
    "closed, and no route back": (facts(own=RESET_CAME), "target", "nothing listens", "ss -ltn"),
    "resets forged ones only": (facts(RESET_CAME), "target", "resets those from", "nft list"),
    "down": (facts(own=NOTHING), "target", "does not answer at all", f"ip neigh show {TARGET}"),
    "down, behind a router": (
        facts(own=NOTHING, is_neighbour=False),
        "target",
        "does not answer at all",
        f"traceroute -n {TARGET}",
    ),
    "up, port dropped": (
        facts(own=NOTHING, target_is_alive=True),
        "target",
        "its firewall drops the SYN",
        "--dport 8080 -j ACCEPT",
    ),
    "rejected on the way": (
        facts(own=Attempt(Answer.UNREACHABLE, said_by="10.9.9.9", code=0x030D)),
        "network",
        "prohibited by a filter",
        "on 10.9.9.9: nft",
    ),
    "rejected by the target": (
        facts(relays=(relay(seen(UNREACHABLE)),)),
        "target",
        "rejects packets from",
        "on target: nft",
    ),
    "filter of intercept": (
        facts(relays=(relay(seen(SYN_ACK), filter="tcp and src port 1"),)),
        "assistant",
        "-F 'tcp and src port 1' leaves them out",
        "-F 'tcp and src port 8080'",
    ),
    "device of intercept": (
        facts(relays=(relay(seen(SYN_ACK, device="eth1"), devices=("eth0",)),)),
        "assistant",
        "on eth1, but its intercept captures on eth0 only",
        "-i eth1",
    ),
    "captured, not relayed": (
        facts(relays=(relay(seen(SYN_ACK), passed=(seen(SYN_ACK),)),)),
        "relay",
        "did not bring it back",
        "--dnat",
    ),
    "reset seen by intercept only": (
        facts(relays=(relay(seen(RESET), filter="x"),)),
        "target",
        "nothing listens",
        "ss -ltn",
    ),
    "came here": (facts(here=(seen(SYN_ACK),)), "target", "to this host (seen on eth0)", ROUTE),
    "translated": (facts(left=None, left_as=ONLINE), "this host", ONLINE, "POSTROUTING"),
    "kept here": (facts(left=False), "this host", "left by no device", "tc filter"),
    "no route": (facts(relays=(relay(FORGED_PASSES),)), "target", "is missing", ROUTE),
    "no route, on the link": (
        facts(relays=(relay(FORGED_PASSES),), asked_for=(MAPPED,)),
        "target",
        "looks for the address itself",
        ROUTE,
    ),
    "wrong gateway": (
        facts(relays=(relay(FORGED_PASSES),), asked_for=(ASSISTANT, "10.0.0.9")),
        "target",
        "looks for 10.0.0.9",
        ROUTE,
    ),
    "classic relay, no route": (
        facts(relays=(replace(UP, is_native=False, report=None, own_syn_ack=True),)),
        "target",
        "is missing",
        ROUTE,
    ),
    "target's firewall": (
        facts(relays=(relay(FORGED_PASSES, seen(ECHO)),)),
        "target",
        "its firewall drops TCP",
        f"-s {MAPPED}",
    ),
    "range overlaps": (
        facts(relays=(relay(FORGED_PASSES),), real_host=True),
        "network",
        f"a real host has the address {MAPPED}",
        "-c 62.135.200.x",
    ),
    "reverse path filter": (facts(), "target", "rp_filter", "net.ipv4.conf.all.rp_filter=0"),
    "classic relay, nothing known": (
        facts(relays=(replace(UP, is_native=False, report=None),)),
        "target",
        "says nothing of what it sees",
        ROUTE,
    ),
    "open, nothing told": (
        facts(relays=(OPEN,)),
        "target",
        "or intercept's -F or -i leaves the answers out",
        "give both programs --secret-file FILE",
    ),
    "open, and the target looks for the mapped address": (
        facts(relays=(OPEN,), asked_for=(MAPPED,)),
        "target",
        "no route via the assistant",
        ROUTE,
    ),
    "open, and a real host": (
        facts(relays=(OPEN,), real_host=True),
        "network",
        "a real host has the address",
        "-c",
    ),
    "forwards, and reset": (
        facts(
            ANSWERED,
            Attempt(),
            (relay(seen(SYN_ACK), seen(SYN_ACK, leaves=True), forwards_v4=True),),
            reset_between=True,
        ),
        "assistant",
        "has passed the answer on",
        f"on assistant {ASSISTANT}: sysctl -w net.ipv4.ip_forward=0",
    ),
    "reset by a real host": (
        facts(ANSWERED, Attempt(), reset_between=True, real_host=True),
        "network",
        "resets the connections",
        "-c 62.135.200.x",
    ),
    "reset by somebody": (
        facts(ANSWERED, Attempt(), reset_between=True),
        "network",
        "somebody",
        "tcpdump -ni any",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_has_its_cause(name: str) -> None:
    """One fault, at its hop, with the command that mends it."""
    observed, hop, text, remedy = FAULTS[name]
    found = [f for f in diagnose(observed, SETUP) if f.level >= Level.WARNING]
    assert [(f.level, f.hop) for f in found] == [(Level.FAULT, hop)], found
    assert text in found[0].text
    assert remedy in "\n".join(found[0].remedy)


# --- the relay -----------------------------------------------------------------------------------


def down(problem: str, fault: RelayFault = RelayFault.NONE, *, reached: bool = True) -> RelayFacts:
    return RelayFacts(
        f"{ASSISTANT}:36524", ASSISTANT, problem=problem, fault=fault, was_reached=reached
    )


DOWN: dict[str, tuple[RelayFacts, str]] = {
    "not there": (down("Connection refused", reached=False), "ss -ltn 'sport = :36524'"),
    "wrong secret": (down("the secret is wrong", RelayFault.SECRET_WRONG), "sha256sum FILE"),
    "wants one": (
        down("it wants a secret (--secret-file)", RelayFault.SECRET_MISSING),
        "give tcpcopy --secret-file",
    ),
    "has none": (
        down("it has no secret, and this tcpcopy has", RelayFault.SECRET_MISSING),
        "start intercept with --secret-file",
    ),
    "classic": (
        down("it speaks the classic relay only", RelayFault.CLASSIC),
        "without --relay classic",
    ),
    "other version": (down("another version", RelayFault.PROTOCOL), "intercept -v"),
    "tls": (down("TLS handshake: wrong", RelayFault.TLS), "--tls"),
    "turned away": (down("closed by it"), "--allow"),
}


@pytest.mark.parametrize("name", DOWN)
def test_relay_that_is_down(name: str) -> None:
    """It is the finding, whatever else was seen; and one of several is a warning."""
    failed, remedy = DOWN[name]
    found = diagnose(facts(Attempt(), Attempt(), (failed,)), SETUP)
    assert [(f.check, f.level, f.hop) for f in found] == [("relay", Level.FAULT, "relay")]
    assert failed.problem in found[0].text
    assert remedy in "\n".join(found[0].remedy)
    both = diagnose(facts(ANSWERED, Attempt(), (UP, failed)), SETUP)
    assert worst(both) is Level.WARNING


def test_relay_down_and_target_down() -> None:
    """Two things to mend are both told."""
    found = diagnose(facts(Attempt(), NOTHING, (down("no answer", reached=False),)), SETUP)
    assert [f.hop for f in found] == ["relay", "target"]


# --- all is well, or nearly -----------------------------------------------------------------------


def probe_lines(found: list[Finding]) -> list[Level]:
    return [f.level for f in found if f.check == "probe"]


def test_all_is_well() -> None:
    found = diagnose(facts(ANSWERED, Attempt(), milliseconds=1.25), SETUP)
    assert worst(found) is Level.OK
    assert found[-1].text == (
        f"handshake with {TARGET}:8080 from {MAPPED} complete by the relay (1.2 ms)"
    )


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({"relays": (relay(seen(SYN_ACK), forwards_v4=True),)}, "forwards"),
        ({"real_host": True}, "a real host has the address"),
    ],
)
def test_works_but_will_not_for_long(more: dict[str, object], word: str) -> None:
    """The handshake is complete; what may end sessions is a warning."""
    found = diagnose(facts(ANSWERED, Attempt()).changed(**more), SETUP)
    assert probe_lines(found) == [Level.OK, Level.WARNING]
    assert word in found[-1].text


def test_classic_relay_says_so() -> None:
    classic = replace(UP, is_native=False, report=None)
    found = diagnose(facts(ANSWERED, Attempt(), (classic,)), SETUP)
    assert [f.level for f in found] == [Level.NOTE, Level.OK]


def test_intercept_that_cannot_look() -> None:
    report = replace(REPORT, problem="Operation not permitted")
    found = diagnose(facts(ANSWERED, Attempt(), (replace(UP, report=report),)), SETUP)
    assert any("Operation not permitted" in f.text for f in found)


def test_route_of_the_clients_themselves() -> None:
    """Without -c the route that is shown is for them."""
    setup = replace(SETUP, client_addresses=(), example_client=MAPPED)
    found = diagnose(facts(relays=(relay(FORGED_PASSES),)), setup)
    assert f"ip route replace {MAPPED} via {ASSISTANT}" in "\n".join(found[-1].remedy)


def test_ipv6_has_its_own_commands() -> None:
    """The relay may be of the other family: its address is no gateway then."""
    flow = Flow(packed("fd00::2"), 8080, packed("fd00:99::1"), 40000)
    setup = replace(SETUP, client_addresses=("fd00:99::/64",))
    passes = Seen(SYN_ACK, "fd00::2", ASSISTANT, "eth0", False)
    observed = replace(facts(relays=(relay(passes),)), flow=flow)
    steps = "\n".join(diagnose(observed, setup)[-1].remedy)
    assert f"ip -6 route replace fd00:99::/64 via IPV6_ADDRESS_OF_{ASSISTANT}" in steps


# --- other modes ----------------------------------------------------------------------------------

SOCKET_CASES = {
    "well": (ANSWERED, Level.OK, "", "takes connections"),
    "refused": (RESET_CAME, Level.FAULT, "target", "nothing listens"),
    "silent": (NOTHING, Level.FAULT, "target", "does not answer at all"),
    "dropped here": (
        Attempt(Answer.NOTHING, reached_device=True),
        Level.FAULT,
        "this host",
        "was dropped here",
    ),
    "not sent": (Attempt(Answer.FAILED, errno=errno.EPERM), Level.FAULT, "this host", "EPERM"),
}


@pytest.mark.parametrize("name", SOCKET_CASES)
def test_socket_mode(name: str) -> None:
    own, level, hop, text = SOCKET_CASES[name]
    (found,) = diagnose(ProbeFacts(FLOW, own=own), replace(SETUP, mode=SOCKET, intercepts=()))
    assert (found.level, found.hop) == (level, hop)
    assert text in found.text


def test_local_mode_needs_no_relay() -> None:
    setup = replace(SETUP, mode=LOCAL, intercepts=())
    (found,) = diagnose(facts(ANSWERED, Attempt(), ()), setup)
    assert found.level is Level.OK and "the TUN device" in found.text
    (found,) = diagnose(facts(relays=()), setup)
    assert found.level is Level.FAULT and "-i tcpcopy+" in found.remedy[0]


def test_icmp_is_told_by_family() -> None:
    assert icmp_text(0x0301, "10.0.0.2") == "host unreachable"
    assert icmp_text(0x0104, "fd00::2") == "port unreachable"
    assert icmp_text(0x0305, "10.0.0.2") == "ICMP type 3, code 5"


@pytest.mark.parametrize("is_open", [False, True])
@pytest.mark.parametrize(
    ("left", "was_reset", "clients", "harms"),
    [
        (True, True, (), True),
        (True, False, (), True),
        (False, True, (), True),
        (False, False, (), False),
        (True, True, ("62.135.200.x",), False),
    ],
)
def test_when_real_clients_are_harmed(
    is_open: bool, left: bool, was_reset: bool, clients: tuple[str, ...], harms: bool
) -> None:
    """An answer went on, or came back as a reset, and the client is a real one."""
    packets = (seen(SYN_ACK, leaves=True),) if left else ()
    theirs = relay(*packets, forwards_v4=True, is_open=is_open)
    observed = facts(ANSWERED, Attempt(), (theirs,), reset_between=was_reset)
    found = diagnose(observed, replace(SETUP, client_addresses=clients))
    [said] = [finding for finding in found if "forwards" in finding.text]
    assert said.harms_clients is harms
    assert (said.level is Level.FAULT) == (left or was_reset)


def test_an_open_intercept_is_a_note() -> None:
    """Nothing that keeps replay from working; where it knows who asks there is none."""
    for relays, expected in (((OPEN,), 1), ((UP,), 0)):
        found = diagnose(facts(ANSWERED, Attempt(), relays), SETUP)
        notes = [finding for finding in found if "is open" in finding.text]
        assert len(notes) == expected
        assert worst(found) < Level.WARNING
        assert all("--secret-file" in note.remedy[0] for note in notes)
