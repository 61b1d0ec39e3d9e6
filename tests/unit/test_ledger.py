"""The file of open sessions: what is written is read, by the same process and by the next."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from tcpcopy.ledger import Header, Ledger, OpenSession, read_header, read_sessions

V4, V6 = (bytes((10, 9, 0, 3)), 8080), (bytes.fromhex("fd66" + "00" * 13 + "03"), 443)
OTHER = (bytes((10, 9, 0, 4)), 8081)
CLIENT, CLIENT_V6 = bytes((10, 1, 0, 7)), bytes.fromhex("20010db8" + "ff" * 12)
NARROW = Header(b"r" * 16, b"j" * 32, (V4, OTHER), 123, 456_000, 789, 1)
WIDE = replace(NARROW, targets=(V4, V6))


def new(path: Path, header: Header = NARROW) -> Ledger:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    return Ledger(fd, str(path), header)


def sessions_in(path: Path) -> list[OpenSession]:
    data = path.read_bytes()
    header = read_header(data)
    assert header is not None
    return list(read_sessions(data, header))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "1.run"


@pytest.mark.parametrize("header", [NARROW, WIDE], ids=["IPv4", "IPv6"])
def test_header_is_read_as_it_was_written(path: Path, header: Header) -> None:
    ledger = new(path, header)
    assert read_header(path.read_bytes()) == header
    assert sessions_in(path) == []
    ledger.close()
    ledger.close()


def test_sessions_are_written_and_crossed_out(path: Path) -> None:
    ledger = new(path, WIDE)
    one, two = (CLIENT, 40001, *V4), (CLIENT_V6, 65535, *V6)
    places = [ledger.add(*one), ledger.add(*two)]
    assert places == [1, 2]
    assert [ledger.session(place) for place in places] == [one, two] == sessions_in(path)
    ledger.remove(1)
    assert ledger.session(1) is None and not ledger.is_taken(1)
    assert sessions_in(path) == [two]
    assert ledger.add(CLIENT, 1, *V4) == 1, "a free place is taken again"
    assert ledger.count == 2
    ledger.close()


def test_free_places_are_used_before_new_ones(path: Path) -> None:
    ledger = new(path)
    for port in range(1, 101):
        assert ledger.add(CLIENT, port, *(V4 if port % 2 else OTHER)) == port
    for place in (7, 50, 3):
        ledger.remove(place)
    assert sorted(ledger.add(CLIENT, 500, *V4) for _ in range(3)) == [3, 7, 50]
    assert ledger.add(CLIENT, 500, *V4) == 101
    ledger.close()


@pytest.mark.parametrize("header", [NARROW, WIDE], ids=["IPv4", "IPv6"])
def test_it_grows_and_keeps_what_it_has(path: Path, header: Header) -> None:
    ledger = new(path, header)
    wanted = [(bytes((10, 1, n >> 8, n & 255)), n + 1, *V4) for n in range(5000)]
    assert [ledger.add(*session) for session in wanted] == list(range(1, 5001))
    assert sessions_in(path) == wanted
    assert path.stat().st_blocks * 512 >= path.stat().st_size, "a hole would be a SIGBUS"
    ledger.close()


def test_what_finds_no_room_is_counted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk costs the record of a session, and nothing else."""
    ledger = new(path)

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    places = [ledger.add(CLIENT, port, *V4) for port in range(1, 600)]
    assert places == [*range(1, 513), *[0] * 87]
    assert ledger.unrecorded == 87 and ledger.count == 512
    ledger.remove(9)
    assert ledger.add(CLIENT, 600, *V4) == 9
    ledger.close()


def test_another_process_goes_on_with_it(path: Path) -> None:
    """A fork writes, also beyond what was mapped, and is killed: the next finds its sessions."""
    ledger = new(path)
    child = os.fork()
    if not child:
        for port in range(1, 2001):
            ledger.add(CLIENT, port, *V4)
        for place in range(1, 1991):
            ledger.remove(place)
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    assert list(ledger.resume()) == list(range(1991, 2001))
    assert ledger.count == 10
    assert [ledger.session(place) for place in (1991, 2000)] == [
        (CLIENT, 1991, *V4),
        (CLIENT, 2000, *V4),
    ]
    assert ledger.add(CLIENT, 5, *OTHER) == 1, "what was crossed out is free"
    ledger.close()


def test_finish_removes_it_unless_sessions_are_left(path: Path) -> None:
    ledger = new(path)
    for port in (1, 2, 3):
        ledger.add(CLIENT, port, *V4)
    ledger.keep_only({2})
    ledger.finish()
    data = path.read_bytes()
    header = read_header(data)
    assert header is not None and header.ended
    assert list(read_sessions(data, header)) == [(CLIENT, 2, *V4)]
    ledger.remove(2)
    ledger.finish()
    assert not path.exists()
    ledger.close()


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:127],
        lambda data: b"x" + data[1:],
        lambda data: data[:12] + bytes([data[12] ^ 1]) + data[13:],  # the number of targets
        lambda data: data[:130] + b"\0\0" + data[132:],  # a target's port
        lambda data: data[:145] + bytes([data[145] ^ 1]) + data[146:],  # a target's address
    ],
)
def test_a_header_that_is_damaged_is_none(path: Path, damage: object) -> None:
    new(path).close()
    assert read_header(damage(path.read_bytes())) is None  # type: ignore[operator]
