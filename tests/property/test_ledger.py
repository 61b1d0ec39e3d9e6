"""Files of open sessions, in any order of writing and with any bytes: what was open, or less."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tcpcopy.ledger import Header, Ledger, read_header, read_sessions
from tcpcopy.mapping.clients import parse_clients
from tcpcopy.run_files import Job, Possible, RunFiles

TARGETS = (
    (bytes((10, 9, 0, 3)), 8080),
    (bytes.fromhex("fd66" + "00" * 13 + "03"), 443),
    (bytes((10, 9, 0, 4)), 1),
)
POOL = parse_clients("10.254.7.0/24,fd66:7::/64")
JOB = Job("classic", ("80-10.9.0.3:8080",))


def targets_of(wide: bool) -> tuple[tuple[bytes, int], ...]:
    return tuple(target for target in TARGETS if wide or len(target[0]) == 4)


def new(directory: str, wide: bool) -> tuple[Ledger, Path]:
    path = Path(directory) / "1.run"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    header = Header(b"r" * 16, JOB.digest(), targets_of(wide), 1, 1)
    return Ledger(fd, str(path), header), path


@given(
    wide=st.booleans(),
    steps=st.lists(st.tuples(st.booleans(), st.integers(0, 1 << 60)), max_size=300),
)
def test_what_is_open_is_in_the_file(wide: bool, steps: list[tuple[bool, int]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        ledger, path = new(directory, wide)
        model: dict[int, tuple[bytes, int, bytes, int]] = {}
        for opens, number in steps:
            if opens or not model:
                target = targets_of(wide)[number % len(targets_of(wide))]
                mapped = (number * 0x9E3779B97F4A7C15 % (1 << 128)).to_bytes(16, "big")
                session = (mapped[-len(target[0]) :], number % 65535 + 1, *target)
                place = ledger.add(*session)
                assert place and place not in model
                model[place] = session
            else:
                place = sorted(model)[number % len(model)]
                del model[place]
                ledger.remove(place)
        data = path.read_bytes()
        header = read_header(data)
        assert header is not None
        assert sorted(read_sessions(data, header)) == sorted(model.values())
        assert list(ledger.resume()) == sorted(model)
        ledger.close()


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """Anything; or a file of ours of which some bytes are others, or missing."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=300))
    with tempfile.TemporaryDirectory() as directory:
        ledger, path = new(directory, draw(st.booleans()))
        for port in draw(st.lists(st.integers(1, 65535), max_size=20)):
            ledger.add(draw(st.sampled_from([POOL[0], bytes((8, 8, 8, 8))])), port, *TARGETS[0])
        ledger.close()
        data = bytearray(path.read_bytes())
    for at, byte in draw(st.lists(st.tuples(st.integers(0, 4300), st.integers(0, 255)))):
        data[at] = byte
    return bytes(data[: draw(st.sampled_from([len(data), 4000, 4100, 4096, 130]))])


@given(data=files())
def test_any_bytes_give_only_sessions_of_this_run(data: bytes) -> None:
    """Nothing raises, and what a forged file makes of it goes to targets of -x, from -c."""
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "9-dead.run").write_bytes(data)
        os.chmod(directory, 0o700)
        owner = Possible(TARGETS[:2], pool=POOL, workers=3)
        run = RunFiles(directory, True, JOB, owner)
        run.open(TARGETS[:2], 3)
        for worker, ledger in enumerate(run.ledgers):
            for place in ledger.resume():
                mapped, port, target, target_port = ledger.session(place)  # type: ignore[misc]
                assert mapped in POOL and (target, target_port) in TARGETS[:2] and port
                assert owner(mapped, port, target, target_port) == worker
        for earlier in run.earlier:
            assert earlier.describe()
        run.begin()
        run.finish()
        run.close()
