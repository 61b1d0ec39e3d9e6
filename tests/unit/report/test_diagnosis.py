"""From counts to causes: each loss has one finding, with what mends it in this set-up."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest

from tcpcopy.report.context import LINK, LOCAL, MODES, TUNNEL, Context, TransferInfo
from tcpcopy.report.counters import PortCounts, RelayCounts, RingCounts, Snapshot
from tcpcopy.report.diagnosis import BUG, LEVELS, LOSS, NOTE, WARNING, Finding, diagnose, is_loss
from tcpcopy.report.outcome import Drop, Outcome
from tcpcopy.report.verdict import exit_code
from tests.unit.report.samples import (
    CLASSIC_CONTEXT,
    SOCKET_CONTEXT,
    clean,
    relay_up,
    unreachable,
    with_outcome,
)

LOSSES = [outcome for outcome in Outcome if outcome.is_loss]


def only(snapshot: Snapshot, context: Context, key: str) -> Finding:
    """The one finding with this key."""
    (found,) = (finding for finding in diagnose(snapshot, context) if finding.key == key)
    return found


def steps(finding: Finding) -> str:
    return "\n".join(finding.remedy)


def test_local_ports_that_nearly_ran_out() -> None:
    snapshot = clean()
    snapshot.ports = PortCounts(available=1000, most_used=799)
    assert diagnose(snapshot, SOCKET_CONTEXT) == []
    snapshot.ports.most_used = 800
    (found,) = diagnose(snapshot, SOCKET_CONTEXT)
    assert (found.key, found.level, found.count) == ("ports", "warning", 800)
    assert found.text == "800 of 1,000 local ports towards the target were in use (80 %)"
    assert "tcp_tw_reuse=1" in steps(found) and "-c" in steps(found)


def test_connects_that_waited() -> None:
    snapshot = clean()
    snapshot.send_errors = {errno.ENETUNREACH: 5}
    snapshot.ports.waited = 400
    found = only(snapshot, SOCKET_CONTEXT, "send_errors")
    assert found.text.endswith("5 times; 400 connects waited for it")
    lost = with_outcome(Outcome.OPEN_AT_EXIT)
    lost.send_errors = {errno.EADDRNOTAVAIL: 3}
    lost.ports.waiting = 6
    found = only(lost, SOCKET_CONTEXT, "open_at_exit")
    assert "6 waited to be sent from this host: EADDRNOTAVAIL" in found.text
    assert "tcp_tw_reuse=1" in steps(found)


def test_clean_run_has_nothing_to_tell() -> None:
    assert diagnose(clean(), SOCKET_CONTEXT) == []
    assert diagnose(relay_up(clean()), CLASSIC_CONTEXT) == []


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("outcome", LOSSES)
def test_each_loss_has_one_finding_with_a_remedy(outcome: Outcome, mode: str) -> None:
    context = replace(CLASSIC_CONTEXT, mode=mode)
    found = only(with_outcome(outcome), context, outcome.name.lower())
    assert (found.level, found.count) == (LOSS, 7)
    assert found.text.startswith("7 sessions ")
    assert found.remedy
    assert all(line and "\n" not in line for line in (found.text, *found.remedy))


@pytest.mark.parametrize("outcome", LOSSES)
def test_each_loss_is_explained_without_any_context(outcome: Outcome) -> None:
    """Nothing in a remedy depends on a field that may be left out."""
    found = only(with_outcome(outcome, 1), Context(), outcome.name.lower())
    assert found.text.startswith("1 session ")
    assert found.remedy
    assert " 0 s" not in found.text + steps(found)
    assert "now 0" not in steps(found)


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if not outcome.is_loss])
def test_no_other_outcome_is_a_finding(outcome: Outcome) -> None:
    assert diagnose(with_outcome(outcome, 7), SOCKET_CONTEXT) == []


def test_a_flood_is_a_warning_and_no_loss() -> None:
    snapshot = with_outcome(Outcome.HANDSHAKE_INCOMPLETE, 20)
    snapshot.syn_flood_attempts, snapshot.syn_flood_peak = 20, 15
    found = only(snapshot, SOCKET_CONTEXT, "syn_flood")
    assert (found.level, found.count, is_loss(found)) == (WARNING, 20, False)
    assert "SYN flood: 20 connection attempts at up to 15/s" in found.text


def test_attempts_alone_are_no_success() -> None:
    found = only(unreachable(Outcome.HANDSHAKE_INCOMPLETE), SOCKET_CONTEXT, "nothing_replayed")
    assert found.level == LOSS
    assert "none of which completed its handshake" in found.text


def test_most_serious_first_then_by_count() -> None:
    snapshot = with_outcome(Outcome.RESET, 2)
    snapshot.outcomes[Outcome.REPLAYED] -= 30
    snapshot.outcomes[Outcome.REFUSED] = 30
    snapshot.waits_expired = 400
    snapshot.packets_captured += 1
    snapshot.send_errors = {errno.ENOBUFS: 90}
    found = [(finding.level, finding.key) for finding in diagnose(snapshot, SOCKET_CONTEXT)]
    assert found == [
        (BUG, "counts"), (LOSS, "refused"), (LOSS, "reset"),
        (WARNING, "send_errors"), (NOTE, "waits_expired"),
    ]  # fmt: skip
    assert list(LEVELS) == [BUG, LOSS, WARNING, NOTE]


# --- the target -------------------------------------------------------------------------------


def test_refused_names_where_nothing_listens() -> None:
    found = only(unreachable(Outcome.REFUSED), SOCKET_CONTEXT, "refused")
    assert "nothing listens on 10.0.0.3:8080" in found.text
    assert "ss -ltn 'sport = :8080'" in steps(found)
    assert "-x 80-10.0.0.3:8080" in steps(found)


def test_refused_for_a_part_of_the_run_is_another_cause() -> None:
    found = only(with_outcome(Outcome.REFUSED), SOCKET_CONTEXT, "refused")
    assert "for a part of the run" in found.text


def test_refusals_are_answers_but_no_connection() -> None:
    """In classic mode each refusal is a packet of the target; it still listens nowhere."""
    snapshot = relay_up(unreachable(Outcome.REFUSED))
    snapshot.answers_received = snapshot.answer_drops[0] = 7
    assert "nothing listens on" in only(snapshot, CLASSIC_CONTEXT, "refused").text


def test_reset_in_classic_mode_may_come_from_the_real_clients() -> None:
    snapshot = relay_up(with_outcome(Outcome.RESET))
    found = only(snapshot, CLASSIC_CONTEXT, "reset")
    assert "real clients" in found.text
    assert "ip route replace 62.135.200.0/24 via 10.0.0.4" in steps(found)
    assert "ip_forward=0" in steps(found)
    assert "real client" not in only(snapshot, SOCKET_CONTEXT, "reset").text


@pytest.mark.parametrize("outcome", [Outcome.RESET, Outcome.CLOSED_EARLY])
def test_ports_that_cannot_be_copied_raw_are_named(outcome: Outcome) -> None:
    snapshot = with_outcome(outcome)
    for port, word in ((443, "TLS"), (3306, "MySQL"), (5432, "PostgreSQL")):
        context = replace(SOCKET_CONTEXT, transfers=(TransferInfo("", port, "10.0.0.3", port),))
        assert word in steps(only(snapshot, context, outcome.name.lower()))
    assert "TLS" not in steps(only(snapshot, SOCKET_CONTEXT, outcome.name.lower()))


def test_no_waits_explain_resets() -> None:
    """-W: what builds on an answer comes before it."""
    snapshot = with_outcome(Outcome.RESET)
    assert "-W" not in steps(only(snapshot, SOCKET_CONTEXT, "reset"))
    assert "without -W" in steps(
        only(snapshot, replace(SOCKET_CONTEXT, waits_for_answers=False), "reset")
    )


def test_sessions_picked_up_in_the_middle_explain_resets() -> None:
    snapshot = with_outcome(Outcome.CLOSED_EARLY)
    snapshot.sessions_midstream = 9
    assert "9 sessions picked up" in steps(only(snapshot, SOCKET_CONTEXT, "closed_early"))


def test_answer_timeout_offers_more_time_and_looks_at_the_relay() -> None:
    snapshot = relay_up(with_outcome(Outcome.ANSWER_TIMEOUT))
    assert "for 600 s (-t)" in only(snapshot, CLASSIC_CONTEXT, "answer_timeout").text
    assert "-t 1200" in steps(only(snapshot, CLASSIC_CONTEXT, "answer_timeout"))
    assert "relay" not in steps(only(snapshot, CLASSIC_CONTEXT, "answer_timeout"))
    snapshot.relays["10.0.0.4:36524"].lost = 31
    assert "31 answers lost" in only(snapshot, CLASSIC_CONTEXT, "answer_timeout").remedy[0]


# --- the handshake ----------------------------------------------------------------------------


def test_classic_without_any_answer_walks_every_hop_with_real_addresses() -> None:
    found = only(relay_up(unreachable()), CLASSIC_CONTEXT, "connect_timeout")
    assert "no answer of 10.0.0.3:8080 reached tcpcopy at all" in found.text
    for command in (
        "tcpdump -ni any 'tcp dst port 8080'",
        "sysctl -w net.ipv4.conf.all.rp_filter=0",
        "ip route replace 62.135.200.0/24 via 10.0.0.4",
        "ip route get 62.135.200.1 must say via 10.0.0.4",
        "-F 'tcp and src port 8080'",
        "sysctl -w net.ipv4.ip_forward=0",
        "leave out -s",
    ):
        assert command in steps(found)


def test_classic_without_client_addresses_shows_a_client_that_was_seen() -> None:
    context = replace(CLASSIC_CONTEXT, client_addresses=(), example_client="203.0.113.9")
    found = only(relay_up(unreachable()), context, "connect_timeout")
    assert "ip route replace 203.0.113.9 via 10.0.0.4" in steps(found)
    assert "ip route get 203.0.113.9" in steps(found)


def test_classic_over_ipv6_has_its_own_settings() -> None:
    context = replace(
        CLASSIC_CONTEXT,
        transfers=(TransferInfo("", 80, "2001:db8::3", 8080),),
        intercepts=("[2001:db8::4]:36524",),
        client_addresses=("2001:db8:1::/64",),
    )
    snapshot = relay_up(unreachable(), "[2001:db8::4]:36524")
    found = only(snapshot, context, "connect_timeout")
    assert "[2001:db8::3]:8080" in found.text
    assert "rp_filter" not in steps(found)
    assert "net.ipv6.conf.all.forwarding=0" in steps(found)
    assert "ip route replace 2001:db8:1::/64 via 2001:db8::4" in steps(found)


def test_classic_without_relay_says_so_instead() -> None:
    snapshot = unreachable()
    found = only(snapshot, CLASSIC_CONTEXT, "connect_timeout")
    assert "no connection to intercept" in found.text
    assert "nc -vz -w 3 10.0.0.4 36524" in steps(found)
    down = only(snapshot, CLASSIC_CONTEXT, "relay_down")
    assert (down.level, down.count) == (WARNING, 1)
    assert "10.0.0.4:36524" in down.text


def test_link_layer_mode_needs_the_same_route() -> None:
    context = replace(CLASSIC_CONTEXT, mode=LINK)
    assert "ip route replace" in steps(only(relay_up(unreachable()), context, "connect_timeout"))


@pytest.mark.parametrize("context", [SOCKET_CONTEXT, CLASSIC_CONTEXT])
def test_target_that_answers_some_connects_is_overloaded(context: Context) -> None:
    found = only(relay_up(with_outcome(Outcome.CONNECT_TIMEOUT)), context, "connect_timeout")
    assert "overloaded" in found.text
    assert "TcpExtListenOverflows" in steps(found)


def gone_after(accepted: int, since: int, timeouts: int) -> Snapshot:
    snapshot = relay_up(with_outcome(Outcome.CONNECT_TIMEOUT, timeouts))
    snapshot.sessions_established = accepted
    snapshot.sessions_since_accept = since
    return snapshot


def test_route_that_goes_missing_is_named_before_overload() -> None:
    """Answers came, and then none any more: the hops come first."""
    found = only(gone_after(50, 40, 45), CLASSIC_CONTEXT, "connect_timeout")
    assert "none since" in found.text and "overloaded" not in found.text
    text = steps(found)
    assert text.index("ip route replace") < text.index("TcpExtListenOverflows")
    found = only(gone_after(50, 40, 45), SOCKET_CONTEXT, "connect_timeout")
    assert "none since" in found.text and steps(found).startswith("on this host: nc -vz")


@pytest.mark.parametrize("since, timeouts", [(19, 19), (0, 45), (30, 45)])
def test_target_that_answers_in_between_is_not_called_gone(since: int, timeouts: int) -> None:
    found = only(gone_after(50, since, timeouts), CLASSIC_CONTEXT, "connect_timeout")
    assert "overloaded" in found.text


def test_socket_mode_talks_of_no_route_and_no_intercept() -> None:
    found = only(unreachable(), SOCKET_CONTEXT, "connect_timeout")
    assert "nc -vz -w 3 10.0.0.3 8080" in steps(found)
    assert "intercept" not in found.text + steps(found)
    assert "ip route" not in steps(found)


@pytest.mark.parametrize("mode", [LOCAL, TUNNEL])
def test_modes_without_route_do_not_ask_for_one(mode: str) -> None:
    found = only(unreachable(), replace(SOCKET_CONTEXT, mode=mode), "connect_timeout")
    assert "ip route" not in steps(found)


def test_further_targets_are_named() -> None:
    context = replace(
        SOCKET_CONTEXT,
        transfers=(*SOCKET_CONTEXT.transfers, TransferInfo("10.0.0.1", 81, "10.0.0.5", 81)),
    )
    found = only(unreachable(Outcome.REFUSED), context, "refused")
    assert "10.0.0.3:8080, 10.0.0.5:81" in found.text
    assert "likewise 10.0.0.5:81" in steps(found)


# --- capture ----------------------------------------------------------------------------------


def test_kernel_drops_are_a_loss_with_share_devices_and_buffer() -> None:
    snapshot = clean()
    snapshot.rings = {"eth0": RingCounts(1_000, 50), "lo": RingCounts(0, 0)}
    found = only(snapshot, SOCKET_CONTEXT, "kernel_dropped")
    assert (found.level, found.count) == (LOSS, 50)
    assert "50 packets (5 %)" in found.text
    assert "(eth0 50)" in found.text
    assert "-B 64 (now 16)" in steps(found)


def test_hole_is_put_down_to_what_the_counts_show() -> None:
    snapshot = with_outcome(Outcome.CAPTURE_HOLE)
    unexplained = only(snapshot, replace(SOCKET_CONTEXT, filter_text="tcp"), "capture_hole")
    assert "the kernel dropped nothing" in unexplained.text
    assert "-F 'tcp'" in steps(unexplained)
    snapshot.packet_drops[Drop.FRAGMENT] = 3
    assert "3 IP fragments" in only(snapshot, SOCKET_CONTEXT, "capture_hole").text
    snapshot.fragments_lost = 2  # before the engine had them
    assert "5 IP fragments" in only(snapshot, SOCKET_CONTEXT, "capture_hole").text
    snapshot.packet_drops[Drop.CUT] = 4
    cut = only(snapshot, replace(SOCKET_CONTEXT, snaplen=96), "capture_hole")
    assert "4 packets cut" in cut.text
    assert "-S 65535 (now 96)" in steps(cut)
    snapshot.rings["eth0"].dropped = 5
    dropped = only(snapshot, SOCKET_CONTEXT, "capture_hole")
    assert "the kernel dropped 5 packets" in dropped.text
    assert "-B 64" in steps(dropped)


def test_nothing_seen_at_all() -> None:
    context = replace(SOCKET_CONTEXT, devices=("eth1",), filter_text="host 10.9.9.9")
    found = only(Snapshot(), context, "nothing_captured")
    assert found.level == LOSS
    assert "no packet to port 80 seen on eth1" in found.text
    assert "tcpdump -ni any -c 5 'tcp dst port 80'" in steps(found)
    assert "-F 'host 10.9.9.9'" in steps(found)
    assert "all devices" in only(Snapshot(), SOCKET_CONTEXT, "nothing_captured").text


def test_packets_seen_but_no_session() -> None:
    snapshot = Snapshot(packets_captured=9)
    snapshot.packet_drops[Drop.NO_TRANSFER] = 9
    found = only(snapshot, SOCKET_CONTEXT, "nothing_captured")
    assert "9 packets captured" in found.text
    assert Drop.NO_TRANSFER.description in found.text
    assert "compare the address and port in -x" in steps(found)


def test_nothing_captured_because_all_was_dropped() -> None:
    snapshot = Snapshot(rings={"eth0": RingCounts(5, 5)})
    assert "-B 64" in steps(only(snapshot, SOCKET_CONTEXT, "nothing_captured"))


def test_everything_left_out_is_a_loss() -> None:
    snapshot = unreachable(Outcome.SKIPPED_SAMPLING)
    found = only(snapshot, SOCKET_CONTEXT, "nothing_replayed")
    assert (found.level, found.count) == (LOSS, 7)


def test_stopped_before_any_answer_came() -> None:
    """Stopped by an impatient user: what keeps answers away is told, not that work was open."""
    snapshot = relay_up(unreachable(Outcome.OPEN_AT_EXIT))
    found = only(snapshot, CLASSIC_CONTEXT, "open_at_exit")
    assert found.text == (
        "7 sessions without an answer to the connect until the exit: no answer of 10.0.0.3:8080"
        " reached tcpcopy at all"
    )
    assert "ip route replace 62.135.200.0/24 via 10.0.0.4" in steps(found)
    snapshot.answers_received = 1
    assert "lags behind" in steps(only(snapshot, CLASSIC_CONTEXT, "open_at_exit"))
    found = only(unreachable(Outcome.OPEN_AT_EXIT), SOCKET_CONTEXT, "open_at_exit")
    assert "cannot be reached" in found.text


# --- this host --------------------------------------------------------------------------------


def test_memory_and_session_limits() -> None:
    assert "-m 1024 (now 512)" in steps(
        only(with_outcome(Outcome.SHED_MEMORY), SOCKET_CONTEXT, "shed_memory")
    )
    sessions = only(
        with_outcome(Outcome.SHED_SESSIONS),
        replace(SOCKET_CONTEXT, session_limit=1000),
        "shed_sessions",
    )
    assert "the limit of live sessions (1,000)" in sessions.text
    assert "ulimit -n" in steps(sessions)
    classic = only(with_outcome(Outcome.SHED_SESSIONS), CLASSIC_CONTEXT, "shed_sessions")
    assert "ulimit" not in steps(classic)


def test_no_address_says_how_many_are_enough() -> None:
    """At worst the peak and all that found none were live at once: 129,027 of 64,512 each."""
    snapshot = with_outcome(Outcome.NO_ADDRESS)
    snapshot.sessions_captured += 130_000
    snapshot.sessions_peak = 129_020
    snapshot.outcomes[Outcome.REPLAYED] += 130_000
    context = replace(CLASSIC_CONTEXT, client_addresses=("10.1.1.1",), client_pool_size=1)
    found = only(snapshot, context, "no_address")
    assert "-c 10.1.1.1: it has 1 address, 3 are surely enough" in steps(found)
    without = only(snapshot, SOCKET_CONTEXT, "no_address")
    assert "-c a.b.c.x" in steps(without)


def test_send_errors_are_named_most_frequent_first() -> None:
    snapshot = with_outcome(Outcome.SEND_FAILED)
    snapshot.send_errors = {errno.EPERM: 2, errno.ENETUNREACH: 50}
    found = only(snapshot, CLASSIC_CONTEXT, "send_failed")
    assert found.text.index("ENETUNREACH") < found.text.index("EPERM")
    assert "50 times" in found.text
    assert found.remedy[0].startswith("ENETUNREACH: there is no route")
    assert "ip route get 10.0.0.3" in found.remedy[0]
    assert "-d 10.0.0.3 -p tcp --dport 8080 -j NOTRACK" in found.remedy[1]
    assert not [f for f in diagnose(snapshot, CLASSIC_CONTEXT) if f.key == "send_errors"]


def test_send_errors_that_cost_no_session_are_a_warning() -> None:
    snapshot = clean()
    snapshot.send_errors = {errno.ENOBUFS: 4}
    found = only(snapshot, SOCKET_CONTEXT, "send_errors")
    assert (found.level, found.count) == (WARNING, 4)
    assert exit_code(snapshot) == 0


@pytest.mark.parametrize(
    "number", [errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE, errno.ETIMEDOUT]
)
def test_what_the_target_says_is_no_send_error(number: int) -> None:
    """Its outcome tells it; a second line about it would only confuse."""
    snapshot = unreachable(Outcome.REFUSED)
    snapshot.send_errors = {number: 7}
    assert [found.key for found in diagnose(snapshot, SOCKET_CONTEXT)] == ["refused"]
    snapshot.send_errors[errno.ENOBUFS] = 2
    warning = only(snapshot, SOCKET_CONTEXT, "send_errors")
    assert warning.count == 2
    assert errno.errorcode[number] not in warning.text + steps(warning)


def test_used_up_local_ports_have_a_mend_of_each_mode() -> None:
    snapshot = with_outcome(Outcome.SEND_FAILED)
    snapshot.send_errors = {errno.EADDRNOTAVAIL: 7}
    assert "tcp_tw_reuse" in steps(only(snapshot, SOCKET_CONTEXT, "send_failed"))
    assert "tcp_tw_reuse" not in steps(only(snapshot, CLASSIC_CONTEXT, "send_failed"))


def test_unknown_errno_is_still_named() -> None:
    snapshot = with_outcome(Outcome.SEND_FAILED)
    snapshot.send_errors = {9999: 1}
    assert "9999" in only(snapshot, SOCKET_CONTEXT, "send_failed").text


# --- relay and the rest -----------------------------------------------------------------------


def test_relay_troubles_are_warnings() -> None:
    snapshot = clean()
    snapshot.relays["10.0.0.4:36524"] = RelayCounts(2, 5, 3, 100, 4, 6)
    found = {f.key: (f.level, f.count) for f in diagnose(snapshot, CLASSIC_CONTEXT)}
    assert found == {
        "relay_reconnects": (WARNING, 3),
        "relay_malformed": (WARNING, 4),
        "relay_lost": (WARNING, 6),
    }


def test_relay_that_was_up_and_is_closed_at_exit_is_not_down() -> None:
    snapshot = clean()
    snapshot.relays["10.0.0.4:36524"] = RelayCounts(connected=0, connects=2)
    assert diagnose(snapshot, CLASSIC_CONTEXT) == []


def test_notes() -> None:
    snapshot = clean()
    snapshot.sessions_midstream, snapshot.waits_expired = 3, 5
    snapshot.packet_drops[Drop.DUPLICATE] -= 2
    snapshot.packet_drops[Drop.BAD_HEADER] += 2
    found = {f.key: (f.level, f.count) for f in diagnose(snapshot, SOCKET_CONTEXT)}
    assert found == {
        "midstream": (NOTE, 3), "waits_expired": (NOTE, 5), "packets_unreadable": (NOTE, 2),
    }  # fmt: skip
    assert exit_code(snapshot) == 0


def test_counts_that_do_not_add_up_are_our_bug_and_fail_the_run() -> None:
    snapshot = clean()
    snapshot.packets_captured += 1
    found = only(snapshot, SOCKET_CONTEXT, "counts")
    assert found.level == BUG
    assert is_loss(found)
    assert exit_code(snapshot) == 1


def test_encapsulations_that_were_not_read() -> None:
    """Named with their counts, and the reason where nothing was captured besides."""
    snapshot = Snapshot(not_read={"ESP (encrypted)": 3, "GENEVE": 12_030})
    named = "12,030 packets of GENEVE, 3 packets of ESP (encrypted)"
    keys = {finding.key: finding for finding in diagnose(snapshot, Context())}
    assert keys["encapsulations_unread"].text.startswith(f"{named} not read")
    assert keys["encapsulations_unread"].count == 12_033
    text = keys["nothing_captured"].text
    assert text == f"no session captured: what came is in {named}, which is not read"
