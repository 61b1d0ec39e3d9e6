"""What intercept finds out about tcpcopies that announce nothing, and whom it gives what."""

from __future__ import annotations

import logging

import pytest

from tcpcopy.relay.builds import Builds
from tcpcopy.relay.peers import Peers
from tcpcopy.relay.records import RecordWriter
from tcpcopy.relay.router import AnswerRouter
from tests.unit.relay.packets import ACK, SYN, answer

SECOND = 1_000_000_000
HOST, OTHER = "10.0.0.1", "10.0.0.9"


class Setting:
    """A router with one kept SYN-ACK, and tcpcopies that come and go."""

    def __init__(self, **options: bool) -> None:
        self.router = AnswerRouter()
        self.builds = Builds(self.router, Peers(), **options)
        self._number = 0

    def connect(self, address: str = HOST, *, is_classic: bool = True) -> RecordWriter:
        self._number += 1
        writer = RecordWriter(self._number)
        self.builds.connected(writer, address, is_classic=is_classic)
        return writer

    def answer(self, flags: int = SYN | ACK, port: int = 40001) -> None:
        packet = answer(client_port=port, flags=flags)
        self.router.packet(packet, 0, len(packet), len(packet), 0)


@pytest.fixture
def guessing() -> Setting:
    return Setting(guesses_single=True, guesses_bare=True)


def test_the_only_one_that_announces_nothing_gets_what_waits(guessing: Setting) -> None:
    writer = guessing.connect()
    guessing.answer()
    guessing.builds.look(SECOND // 10)
    assert guessing.router.kept_since_ns() == 0  # an announcement may be on its way
    guessing.builds.look(SECOND)
    guessing.answer(ACK)
    assert writer.records == 2


def test_without_permission_it_is_only_said(caplog: pytest.LogCaptureFixture) -> None:
    setting = Setting()
    writer = setting.connect()
    setting.answer()
    with caplog.at_level(logging.WARNING):
        setting.builds.look(SECOND)
        setting.builds.look(2 * SECOND)
    assert not writer.records
    (line,) = caplog.messages
    assert "--single" in line and HOST in line


@pytest.mark.parametrize("why", ["it announces", "another host", "a native one"])
def test_nothing_is_guessed_where_it_may_be_another_s(guessing: Setting, why: str) -> None:
    writer = guessing.connect()
    if why == "it announces":
        guessing.builds.announced(writer)
    else:
        guessing.connect(OTHER, is_classic=why == "another host")
    guessing.answer()
    guessing.builds.look(SECOND)
    assert not writer.records


def test_a_guess_ends_with_the_first_announcement(guessing: Setting) -> None:
    writer = guessing.connect()
    guessing.answer()
    guessing.builds.look(SECOND)
    guessing.builds.announced(writer)
    guessing.answer(ACK, 40002)
    assert writer.records == 1


def test_told_so_the_latest_host_gets_all() -> None:
    """And the one before again, when that has gone."""
    setting = Setting(is_single=True)
    first = setting.connect()
    setting.answer()
    assert first.records == 1  # without a wait
    second = setting.connect(OTHER)
    setting.answer(port=40002)
    assert [first.records, second.records] == [1, 1]
    setting.builds.closed(second, 0)
    setting.answer(port=40003)
    assert [first.records, second.records] == [2, 1]
    setting.builds.closed(first, 0)
    setting.answer(port=40004)
    assert setting.router.kept == 1


def test_who_closes_at_bare_records_is_not_asked_again(
    guessing: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    writer = guessing.connect()
    assert writer.unsure
    writer.go_bare()
    with caplog.at_level(logging.INFO):
        guessing.builds.look(SECOND)
    assert any("--disable-combined" in line for line in caplog.messages)
    assert guessing.connect().unsure
    guessing.builds.closed(writer, 2 * SECOND)
    assert not guessing.connect().unsure


def test_a_native_one_and_one_whose_format_was_given_are_not_in_doubt(guessing: Setting) -> None:
    assert not guessing.connect(is_classic=False).unsure
    assert not Setting(guesses_single=True).connect().unsure
