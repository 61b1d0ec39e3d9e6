"""The summary at exit and the verdict: nothing lost goes unsaid, nothing unproved looks good."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tcpcopy.report.context import Context, TransferInfo, endpoint, prefix_of, split_endpoint
from tcpcopy.report.counters import RingCounts, Snapshot
from tcpcopy.report.diagnosis import diagnose
from tcpcopy.report.outcome import Drop, Outcome
from tcpcopy.report.summary import exit_code, headline, render, to_json
from tests.unit.report.samples import (
    CLASSIC_CONTEXT,
    SOCKET_CONTEXT,
    clean,
    relay_up,
    unreachable,
    with_outcome,
)

CLEAN = """\
tcpcopy: all 100 sessions replayed exactly

  mode          socket, 80 -> 10.0.0.3:8080
  time          1:05
  turns         500 replayed of 500 captured (100 %), 7.7/s
  client bytes  39.1 KiB delivered of 39.1 KiB captured (100 %)
  answer bytes  8.58 MiB
  captured      1,000 packets: 990 used, 10 nothing new (retransmission, keep-alive)
  sent          1,200 packets, 0 of them again
  answers       2,000 packets: 2,000 used
  kernel        0 packets dropped

   97   97.00 %  replayed in full
    3    3.00 %  replayed, ended by the client's reset
  100     100 %  sessions captured
"""


def test_clean_run() -> None:
    assert render(clean(), SOCKET_CONTEXT) == CLEAN
    assert exit_code(clean()) == 0


def test_losses_show_count_share_cause_and_mend() -> None:
    text = render(with_outcome(Outcome.REFUSED), SOCKET_CONTEXT)
    assert text.startswith("tcpcopy: 7 of 100 sessions LOST (7.00 %)\n")
    assert "    7    7.00 %  refused by the target\n" in text
    assert "\nLOSS  7 sessions refused by the target" in text
    assert "\n      - on the target: ss -ltn" in text


@pytest.mark.parametrize("outcome", Outcome)
def test_each_outcome_that_occurred_is_listed(outcome: Outcome) -> None:
    snapshot = with_outcome(outcome, 5)
    text = render(snapshot, SOCKET_CONTEXT)
    count = snapshot.outcomes[outcome]
    assert f"  {count:>3}  {count:>3}.00 %  {outcome.description}\n" in text
    assert exit_code(snapshot) == (1 if outcome.is_loss else 0)


@pytest.mark.parametrize("outcome", Outcome)
def test_outcomes_that_did_not_occur_are_not_listed(outcome: Outcome) -> None:
    snapshot = unreachable(Outcome.REPLAYED if outcome is not Outcome.REPLAYED else Outcome.RESET)
    assert f"%  {outcome.description}\n" not in render(snapshot, SOCKET_CONTEXT)


def test_percentages_are_of_all_captured_but_lost_of_those_wanted() -> None:
    snapshot = with_outcome(Outcome.SKIPPED_SAMPLING, 50)
    snapshot.outcomes[Outcome.REPLAYED] -= 5
    snapshot.outcomes[Outcome.RESET] = 5
    assert headline(snapshot) == "5 of 50 sessions LOST (10.00 %) (50 more left out as asked)"


@pytest.mark.parametrize(
    ("snapshot", "expected", "code"),
    [
        (Snapshot(), "NOTHING CAPTURED: no session was seen, none was replayed", 1),
        (unreachable(Outcome.SKIPPED_PARTIAL), "NOTHING REPLAYED: all 7 sessions left out", 1),
        (unreachable(Outcome.REPLAYED, 1), "the 1 session replayed exactly", 0),
        (unreachable(Outcome.OPEN_COMPLETE), "all 7 sessions replayed exactly", 0),
        (with_outcome(Outcome.SKIPPED_SAMPLING, 20),
         "all 80 sessions replayed exactly (20 more left out as asked)", 0),
        (with_outcome(Outcome.HANDSHAKE_INCOMPLETE, 20),
         "all 80 sessions replayed exactly (20 handshakes never completed)", 0),
        (unreachable(Outcome.HANDSHAKE_INCOMPLETE),
         "NOTHING REPLAYED: 7 handshakes never completed", 1),
        (with_outcome(Outcome.OPEN_AT_EXIT, 1), "1 of 100 sessions LOST (1.00 %)", 1),
    ],
)  # fmt: skip
def test_headline_and_exit_code(snapshot: Snapshot, expected: str, code: int) -> None:
    assert headline(snapshot) == expected
    assert exit_code(snapshot) == code


def test_kernel_drops_are_never_exact() -> None:
    snapshot = clean()
    snapshot.rings = {"eth0": RingCounts(1_000, 2)}
    expected = "all 100 sessions seen replayed, but the kernel DROPPED 2 packets unseen"
    assert headline(snapshot) == expected
    assert exit_code(snapshot) == 1


def unread(packets: int, sessions: int) -> Snapshot:
    """100 sessions replayed, and more captured than there was time to look at."""
    snapshot = clean()
    snapshot.is_over = True
    snapshot.packets_unread, snapshot.sessions_unread = packets, sessions
    snapshot.rings = {"eth0": RingCounts(1_000 + packets)}
    return snapshot


def test_packets_left_unread_are_a_loss_that_is_told() -> None:
    snapshot = unread(31_016, 7_754)
    assert headline(snapshot) == (
        "all 100 sessions looked at replayed, but 7,754 sessions in 31,016 captured packets left"
        " UNREAD"
    )
    assert exit_code(snapshot) == 1
    text = " ".join(render(snapshot, replace(SOCKET_CONTEXT, exit_wait_s=10)).split())
    assert "unread 31,016 captured packets at exit, 7,754 sessions in them" in text
    assert (
        "LOSS 31,016 captured packets left unread 10 s after the stop, and with them 7,754"
        " sessions of which nothing was replayed: tcpcopy was behind the traffic" in text
    )
    report = to_json(snapshot, SOCKET_CONTEXT)
    assert report["packets"]["unread"] == 31_016 and report["sessions"]["unread"] == 7_754
    assert report["violations"] == []
    (found,) = report["findings"]
    assert (found["key"], found["level"], found["count"]) == ("packets_unread", "loss", 31_016)
    assert "stop it once only" in found["remedy"][0]


def test_without_sessions_in_them_packets_left_unread_are_a_loss_as_well() -> None:
    snapshot = unread(3, 0)
    assert headline(snapshot) == (
        "all 100 sessions looked at replayed, but 3 captured packets left UNREAD"
    )
    assert exit_code(snapshot) == 1
    snapshot = clean()
    snapshot.udp_packets_unread = 1
    assert exit_code(snapshot) == 1
    assert "1 captured packet left UNREAD" in headline(snapshot)


def test_losses_do_not_hide_what_was_left_unread() -> None:
    snapshot = with_outcome(Outcome.REFUSED, 2)
    snapshot.packets_unread = snapshot.sessions_unread = 9
    assert headline(snapshot) == (
        "2 of 100 sessions LOST (2.00 %), and 9 sessions in 9 captured packets left UNREAD"
    )


def test_a_run_that_only_left_packets_unread_has_captured_something() -> None:
    snapshot = Snapshot(packets_unread=9, sessions_unread=9)
    assert headline(snapshot) == "NOTHING REPLAYED: 9 sessions in 9 captured packets left UNREAD"
    assert exit_code(snapshot) == 1
    found = to_json(snapshot, SOCKET_CONTEXT)["findings"]
    assert [finding["key"] for finding in found] == ["packets_unread"]


def test_broken_counts_are_never_exact() -> None:
    snapshot = clean()
    snapshot.bytes_delivered -= 1
    assert headline(snapshot) == "THE COUNTS DO NOT ADD UP, 100 sessions captured"
    assert exit_code(snapshot) == 1
    assert "\nBUG   the counts do not add up" in render(snapshot, SOCKET_CONTEXT)


def test_while_it_runs() -> None:
    snapshot = clean()
    snapshot.sessions_live, snapshot.sessions_captured = 10, 110
    assert headline(snapshot) == "100 of 110 sessions replayed, none lost, 10 still live"
    assert "   10    9.09 %  still live\n" in render(snapshot, SOCKET_CONTEXT)


def test_nothing_captured_has_no_table_but_a_cause() -> None:
    text = render(Snapshot(), SOCKET_CONTEXT)
    assert "sessions captured\n" not in text
    assert "LOSS  no session captured: no packet to port 80 seen on all devices" in text
    assert "0 replayed of 0 captured\n" in text


def test_every_figure_beside_the_sessions_shows() -> None:
    snapshot = relay_up(clean())
    relay = snapshot.relays["10.0.0.4:36524"]
    relay.records, relay.lost, relay.malformed, relay.reconnects = 2_000, 3, 4, 1
    snapshot.packets_retransmitted = 17
    snapshot.answer_drops[Drop.FOREIGN], snapshot.answers_received = 6, 2_006
    snapshot.answer_time.record(1_500_000)
    snapshot.capture_lag.record(300_000)
    text = render(snapshot, CLASSIC_CONTEXT)
    assert "sent          1,200 packets, 17 of them again\n" in text
    assert "answers       2,006 packets: 2,000 used, 6 an answer for no session\n" in text
    relay.native = relay.encrypted = relay.connects
    assert "relay         native, TLS: 2,000 answers" in render(snapshot, CLASSIC_CONTEXT)
    assert "relay         classic: 2,000 answers, 3 lost, 4 malformed, 1 reconnect\n" in text
    assert "answer time   p50 1.5 ms, p99 1.5 ms, most 1.5 ms\n" in text
    assert "capture lag   p50 300 us, p99 300 us, most 300 us\n" in text


@pytest.mark.parametrize("width", [40, 72, 100])
def test_causes_are_wrapped_and_commands_are_not(width: int) -> None:
    snapshot = relay_up(unreachable())
    text = render(snapshot, CLASSIC_CONTEXT, width)
    (found,) = [f for f in diagnose(snapshot, CLASSIC_CONTEXT) if f.key == "connect_timeout"]
    for step in found.remedy:
        assert f"      - {step}\n" in text
    block = text.partition("\nLOSS")[2].partition("\n      - ")[0]
    assert all(len(line) <= width for line in ("LOSS" + block).splitlines())
    assert " ".join(block.split()) == found.text


def test_plain_ascii() -> None:
    """Any terminal and any log file shows it."""
    for outcome in Outcome:
        assert render(with_outcome(outcome, 3), CLASSIC_CONTEXT).isascii()


def test_several_targets() -> None:
    context = replace(
        SOCKET_CONTEXT,
        transfers=(*SOCKET_CONTEXT.transfers, TransferInfo("", 81, "2001:db8::1", 82)),
    )
    assert "socket, 80 -> 10.0.0.3:8080, 81 -> [2001:db8::1]:82\n" in render(clean(), context)
    assert "  mode          socket\n" in render(clean(), Context())


@pytest.mark.parametrize(
    ("address", "port", "text"),
    [("10.0.0.3", 80, "10.0.0.3:80"), ("2001:db8::3", 80, "[2001:db8::3]:80")],
)
def test_endpoints_go_both_ways(address: str, port: int, text: str) -> None:
    assert endpoint(address, port) == text
    assert split_endpoint(text) == (address, str(port))


def test_endpoint_without_port() -> None:
    assert split_endpoint("10.0.0.3") == ("10.0.0.3", "")
    assert split_endpoint("2001:db8::3") == ("2001:db8::3", "")


@pytest.mark.parametrize(
    ("item", "network"),
    [
        ("62.135.200.x", "62.135.200.0/24"), ("10.1.2.3", "10.1.2.3/32"),
        ("10.1.2.3/16", "10.1.0.0/16"), ("2001:db8::/64", "2001:db8::/64"), ("what", "what"),
    ],
)  # fmt: skip
def test_prefix_of_client_addresses(item: str, network: str) -> None:
    assert prefix_of(item) == network
