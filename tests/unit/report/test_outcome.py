"""The closed lists: contiguous from 1, described, and told apart as loss, skip or success."""

from __future__ import annotations

import pytest

from tcpcopy.engine import outcome as engine_outcome
from tcpcopy.packet import flags
from tcpcopy.report.outcome import DROP_SLOTS, OUTCOME_SLOTS, Drop, Outcome

NO_LOSS = {
    Outcome.REPLAYED,
    Outcome.CLIENT_RESET,
    Outcome.IDLE_COMPLETE,
    Outcome.RESET_AT_END,
    Outcome.OPEN_COMPLETE,
    Outcome.SKIPPED_SAMPLING,
    Outcome.SKIPPED_PARTIAL,
    Outcome.SKIPPED_RATE,
    Outcome.HANDSHAKE_INCOMPLETE,
}


@pytest.mark.parametrize(("members", "slots"), [(Outcome, OUTCOME_SLOTS), (Drop, DROP_SLOTS)])
def test_numbers_are_contiguous_from_one(members: type[Outcome] | type[Drop], slots: int) -> None:
    """An array of `slots` counts has a place for each member, and slot 0 for none."""
    assert [int(member) for member in members] == list(range(1, slots))


def test_numbers_never_change() -> None:
    """C constants and stored reports carry them: members are appended, not moved."""
    assert [member.name for member in Outcome][:21] == [
        "REPLAYED", "CLIENT_RESET", "REFUSED", "RESET", "CLOSED_EARLY", "CONNECT_TIMEOUT",
        "ANSWER_TIMEOUT", "IDLE_TIMEOUT", "IDLE_COMPLETE", "CAPTURE_HOLE", "SKIPPED_SAMPLING",
        "SKIPPED_PARTIAL", "SHED_MEMORY", "SHED_SESSIONS", "NO_ADDRESS", "SEND_FAILED",
        "INTERNAL_ERROR", "OPEN_COMPLETE", "OPEN_AT_EXIT",
        "SHED_RATE", "SKIPPED_RATE",
    ]  # fmt: skip
    assert [member.name for member in Drop][:20] == [
        "NOT_IP", "SHORT", "BAD_HEADER", "FRAGMENT", "NOT_TCP", "CUT", "BAD_OPTION",
        "NO_TRANSFER", "NO_SESSION", "PURE_ACK_NO_SESSION", "CLOSED_SESSION", "SKIPPED_SESSION",
        "SHED_SESSION", "DUPLICATE", "OUT_OF_WINDOW", "EARLY_LIMIT", "FOREIGN", "BAD_ACK",
        "BAD_STATE", "INTERNAL_ERROR",
    ]  # fmt: skip


def test_parser_numbers_are_the_same() -> None:
    """`packet.flags` repeats the first reasons, so that parsing needs no import of the lists."""
    for reason in (Drop.NOT_IP, Drop.SHORT, Drop.BAD_HEADER, Drop.FRAGMENT, Drop.NOT_TCP):
        assert getattr(flags, reason.name) == reason


def test_which_outcomes_are_losses() -> None:
    assert {outcome for outcome in Outcome if not outcome.is_loss} == NO_LOSS


def test_skips_are_what_the_user_asked_for() -> None:
    skips = {outcome for outcome in Outcome if outcome.is_skip}
    assert skips == {Outcome.SKIPPED_SAMPLING, Outcome.SKIPPED_PARTIAL, Outcome.SKIPPED_RATE}


def test_what_never_became_a_connection() -> None:
    attempts = {outcome for outcome in Outcome if outcome.is_attempt}
    assert attempts == {Outcome.HANDSHAKE_INCOMPLETE}


def test_each_has_one_line_of_its_own() -> None:
    for members in (Outcome, Drop):
        lines = [member.description for member in members]
        assert all(line and "\n" not in line and len(line) < 60 for line in lines)
        assert len(set(lines)) == len(lines)


def test_engine_names_the_same_lists() -> None:
    assert engine_outcome.Outcome is Outcome
    assert engine_outcome.Drop is Drop
    assert (engine_outcome.OUTCOME_SLOTS, engine_outcome.DROP_SLOTS) == (OUTCOME_SLOTS, DROP_SLOTS)
