"""The fuzzer itself: the same inputs each time, and nothing that breaks gets lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.mutation import made_input
from tests.fuzz.runner import Session
from tests.fuzz.table import CORPUS, TARGETS, corpus
from tests.fuzz.target import cut, exact, joined, pieces
from tests.fuzz.worker import problem_with


def test_what_breaks_a_target_is_kept_and_told(tmp_path: Path) -> None:
    """A process that dies takes nothing along: input, target, seed and number are told."""
    said: list[str] = []
    names = ["kills", "fine", "raises"]
    table = "tests.unit.fuzz.broken"
    session = Session(names, 5, tmp_path, table, lambda text: said.append(str(text)))
    session.run(0.1)
    assert {finding.target for finding in session.findings.values()} == {"kills", "raises"}
    kept = {path.parent.name: path.read_bytes() for path in sorted(tmp_path.glob("*/*"))}
    assert kept == {"kills": b"kill", "raises": b"xyz"}
    (killed,) = [text for text in said if "kills" in text]
    assert "seed 5, input 2" in killed and b"kill".hex() in killed
    assert "not documented" in "".join(said)
    assert session.runs["fine"] > 0


def test_the_same_seed_makes_the_same_inputs() -> None:
    seeds = [b"some valid input", b"and another one"]
    once = [made_input(7, "a", index, seeds, (b"word",), 100) for index in range(300)]
    assert once == [made_input(7, "a", index, seeds, (b"word",), 100) for index in range(300)]
    others = [
        [made_input(8, "a", index, seeds, (b"word",), 100) for index in range(300)],
        [made_input(7, "b", index, seeds, (b"word",), 100) for index in range(300)],
    ]
    assert once not in others
    assert len(set(once)) > 200 and max(map(len, once)) <= 100


def test_events_and_streams_are_cut_as_they_were_joined() -> None:
    events = [(1, b"one"), (255, b""), (0, bytes(300))]
    assert list(pieces(joined(*events))) == events
    assert list(pieces(joined(*events)[:-1]))[-1] == (0, bytes(299))
    assert cut(b"\0stream") == [b"stream"] and cut(b"\3stream") == [b"str", b"eam"]
    assert cut(b"") == [b""]


def test_exact_buffers_hold_what_was_given() -> None:
    for size in (0, 1, 15, 4096):
        data = bytes(index & 0xFF for index in range(size))
        assert bytes(exact(data)) == data


def test_every_kept_input_belongs_to_a_target() -> None:
    folders = {path.name for path in CORPUS.iterdir() if path.is_dir()}
    assert folders - TARGETS.keys() == set()
    files = [path for path in CORPUS.rglob("*") if path.is_file() and path.name != "README.md"]
    assert [path for path in files if path.parent.parent != CORPUS] == []
    assert max((path.stat().st_size for path in files), default=0) <= 1 << 14


@pytest.mark.parametrize("name", TARGETS)
def test_inputs_to_begin_with_are_taken(name: str) -> None:
    """Valid ones, and all that once broke something; and the first few made out of them."""
    target = TARGETS[name]
    whole = corpus(target)
    made = [
        made_input(0, name, index, whole, target.words, target.most_bytes) for index in range(20)
    ]
    problems = [problem for data in [*whole, *made] if (problem := problem_with(target, data))]
    assert problems == []
