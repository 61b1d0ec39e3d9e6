"""Stream comparison: each kind of difference is called what it is, and counted once."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.lab import frames
from tests.lab.compare import Pacing, Stream, compare, load, main

_CONTENT = frames.Content(1)


def stream(
    connection: int,
    *,
    data: bytes | None = None,
    ended: str = "fin",
    arrivals_ms: tuple[float, ...] = (),
    number: int = 1,
) -> Stream:
    """What a server records of one request of connection `connection`, or of `data`."""
    data = frames.request(_CONTENT.payload(connection, 0, 50), 10) if data is None else data
    return Stream(
        id=number,
        peer=("10.0.0.1", 1000 + connection),
        sha256=hashlib.sha256(data).hexdigest(),
        bytes=len(data),
        requests=1,
        ended=ended,
        server_first=False,
        garbage=False,
        head=data[:32].hex(),
        opened_ns=0,
        closed_ns=1,
        arrivals_ns=tuple(int(ms * 1e6) for ms in arrivals_ms),
    )


def test_same_streams_in_another_order_are_exact() -> None:
    online = [stream(n) for n in range(5)]
    result = compare(online, reversed(online))
    assert (result.exact, result.online, result.target, result.clean) == (5, 5, 5, True)
    assert str(result).startswith("5 streams online, 5 at the target: 5 exact, 0 ended differently")


def test_address_at_the_target_does_not_matter() -> None:
    data = b"x" * 40
    result = compare([stream(1, data=data)], [stream(2, data=data)])
    assert result.clean


def test_lost_and_extra() -> None:
    result = compare([stream(1), stream(2)], [stream(2), stream(3)])
    assert [s.peer[1] for s in result.lost] == [1001]
    assert [s.peer[1] for s in result.extra] == [1003]
    assert result.exact == 1
    assert not result.clean
    assert "lost: 10.0.0.1:1001 60 bytes" in str(result)
    assert "extra: 10.0.0.1:1003 60 bytes" in str(result)


def test_same_bytes_twice_is_one_extra() -> None:
    """A multiset: a stream replayed twice does not hide behind the first."""
    result = compare([stream(1)], [stream(1), stream(1)])
    assert (result.exact, len(result.extra)) == (1, 1)


@pytest.mark.parametrize("change", ["short", "long", "flipped", "doubled"])
def test_corrupt_is_neither_lost_nor_extra(change: str) -> None:
    """The beginning names the stream when the rest of it is wrong."""
    data = frames.request(_CONTENT.payload(7, 0, 500), 10)
    wrong = {
        "short": data[:-1],
        "long": data + b"!",
        "flipped": data[:-1] + bytes([data[-1] ^ 1]),
        "doubled": data[:200] + data[100:],
    }[change]
    result = compare([stream(7, data=data), stream(8)], [stream(7, data=wrong), stream(8)])
    assert (result.exact, len(result.corrupt), len(result.lost), len(result.extra)) == (1, 1, 0, 0)
    assert "corrupt: online" in str(result)


def test_other_ending_is_counted_apart() -> None:
    result = compare([stream(1, ended="rst")], [stream(1, ended="fin")])
    assert (result.exact, len(result.ended_differently), result.clean) == (0, 1, False)
    assert len(result.pairs) == 1


def test_equal_streams_are_paired_by_ending_first() -> None:
    """Of two streams with the same bytes, the one that ended the same way is taken."""
    online = [stream(1, ended="rst"), stream(1, ended="fin")]
    assert compare(online, [stream(1, ended="fin"), stream(1, ended="rst")]).clean


def test_copies_are_all_expected() -> None:
    online = [stream(1), stream(2)]
    assert compare(online, online * 3, copies=3).exact == 6
    result = compare(online, [*online * 3][:-1], copies=3)
    assert (result.exact, len(result.lost)) == (5, 1)


def test_empty_connections_count_only_when_asked_for() -> None:
    nothing = stream(1, data=b"")
    assert compare([nothing], []).clean
    assert len(compare([nothing], [], empty=True).lost) == 1


def test_pacing_compares_gaps_not_times() -> None:
    """The target may be behind as a whole; only the distances between requests count."""
    online = stream(1, arrivals_ms=(0, 10, 30))
    target = stream(1, arrivals_ms=(500, 510.5, 529.5))
    pacing = compare([online], [target]).pacing_ms()
    assert (pacing.gaps, pacing.greatest) == (2, 1.0)
    assert pacing.p50 == pytest.approx(0.5)
    assert pacing.median_signed == pytest.approx(-1.0)
    assert str(pacing).startswith("2 gaps: off by 0.500 ms p50")


def test_pacing_percentiles() -> None:
    pacing = Pacing.of([n / 100 for n in range(101)])
    assert (pacing.p50, pacing.p99, pacing.greatest) == (0.5, 0.99, 1.0)


def test_pacing_without_gaps_is_an_error_not_a_zero() -> None:
    with pytest.raises(ValueError, match="no gaps"):
        compare([stream(1)], [stream(1)]).pacing_ms()


def _line(number: int, ended: str) -> str:
    one = stream(number, ended=ended, number=number)
    return json.dumps({name: getattr(one, name) for name in Stream.__slots__})


def test_load_takes_the_last_word_on_each_connection(tmp_path: Path) -> None:
    """A snapshot's line is replaced by the final one; a half-written line is not read."""
    path = tmp_path / "records"
    path.write_text("\n".join([_line(2, "open"), _line(1, "fin"), _line(2, "rst"), '{"id": 3']))
    assert [(s.id, s.ended) for s in load(path)] == [(1, "fin"), (2, "rst")]
    assert load(tmp_path / "none") == []


def test_command_says_it_and_exits_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [tmp_path / "online", tmp_path / "target"]
    paths[0].write_text(_line(1, "fin") + "\n" + _line(2, "fin") + "\n")
    paths[1].write_text(_line(1, "fin") + "\n")
    assert main([str(paths[0]), str(paths[0])]) == 0
    assert main([str(paths[0]), str(paths[1])]) == 1
    assert "1 exact, 0 ended differently, 0 corrupt, 1 lost, 0 extra" in capsys.readouterr().out
