"""Files merged into one stream: order, rewinding, pipes, counts, how many are open."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tcpcopy.errors import UsageError
from tcpcopy.recorded.stream import open_recorded
from tests.lab import capture_files as make
from tests.unit.recorded.reading import drain, read

SECOND = 10**9


def packet(number: int) -> bytes:
    """An IP packet that can be told from others."""
    return make.tcp("198.51.100.7:40000", "10.0.0.1:80", make.ACK, b"x", seq=number)


def written(folder: Path, name: str, times_s: list[int], *, as_pcapng: bool = False) -> Path:
    """A file with one packet at each time; packets are numbered by their time."""
    packets = [(time_s * SECOND, make.ethernet(packet(time_s))) for time_s in times_s]
    path = folder / name
    path.write_bytes(make.pcapng(packets) if as_pcapng else make.pcap(packets))
    return path


def seconds(paths: list[Path]) -> list[int]:
    """The times in which the packets come."""
    found = read(*paths)
    assert found.frames == [packet(time_ns // SECOND) for time_ns in found.times]
    return [time_ns // SECOND for time_ns in found.times]


def open_descriptors() -> int:
    """How many files this process has open."""
    return len(os.listdir("/proc/self/fd"))


@contextmanager
def pipe(path: Path) -> Iterator[int]:
    """A named pipe; yields the descriptor of its writing end, which the block closes."""
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(path, os.O_WRONLY)
    try:
        yield writer
    finally:
        os.close(reader)


def test_rotated_files_in_any_order(tmp_path: Path) -> None:
    paths = [written(tmp_path, f"{i}.pcap", [10 * i + 1, 10 * i + 5]) for i in range(4)]
    assert seconds([paths[2], paths[0], paths[3], paths[1]]) == [1, 5, 11, 15, 21, 25, 31, 35]


def test_overlapping_files_are_merged(tmp_path: Path) -> None:
    one = written(tmp_path, "one", [1, 4, 7, 20])
    two = written(tmp_path, "two", [2, 5, 8], as_pcapng=True)
    three = written(tmp_path, "three", [7, 9])
    empty = written(tmp_path, "four", [])
    assert seconds([three, empty, two, one]) == [1, 2, 4, 5, 7, 7, 8, 9, 20]


def test_times_that_go_back_stay_as_they_are(tmp_path: Path) -> None:
    """Within one file; another file comes in where its time has come."""
    one = written(tmp_path, "one", [10, 5, 20])
    two = written(tmp_path, "two", [12, 13])
    assert seconds([one, two]) == [10, 5, 12, 13, 20]


def test_thousand_files_need_one_descriptor(tmp_path: Path) -> None:
    paths = [str(written(tmp_path, f"{i:04}", [i + 1])) for i in range(1000)]
    before = open_descriptors()
    stream = open_recorded(paths)
    assert open_descriptors() == before
    most = count = 0
    collector = make.Collector()
    while stream.next_ns() >= 0:
        stream.hand_on(collector)
        most = max(most, open_descriptors() - before)
        count += 1
    stream.close()
    assert (count, most) == (1000, 1)
    assert open_descriptors() == before


def test_rewind_and_progress(tmp_path: Path) -> None:
    paths = [written(tmp_path, "one", [1, 3]), written(tmp_path, "two", [2, 4])]
    stream = open_recorded([str(path) for path in paths])
    assert stream.total_bytes == sum(path.stat().st_size for path in paths)
    first = drain(stream)
    assert stream.bytes_read == stream.total_bytes
    stream.rewind()
    assert stream.bytes_read == 0
    assert stream.next_ns() == 1 * SECOND
    stream.rewind()  # from the middle
    assert drain(stream) == first
    assert stream.bytes_read == stream.total_bytes
    assert stream.counts.handed_on == 9
    stream.close()
    assert stream.next_ns() == -1
    assert stream.counts.handed_on == 9


def test_problems_are_named_once(tmp_path: Path) -> None:
    path = written(tmp_path, "one", [1, 3])
    path.write_bytes(path.read_bytes()[:-1])
    other = written(tmp_path, "two", [2])
    stream = open_recorded([str(path), str(other)])
    for _ in range(2):
        assert [p[0] for p in drain(stream)] == [1 * SECOND, 2 * SECOND]
        assert stream.problems == [f"{path}: cut off in packet 2, 1 packet used"]
        stream.rewind()
    stream.close()


def test_file_that_is_gone_when_its_time_comes(tmp_path: Path) -> None:
    paths = [written(tmp_path, "one", [1]), written(tmp_path, "two", [2])]
    stream = open_recorded([str(path) for path in paths])
    paths[1].unlink()
    assert len(drain(stream)) == 1
    assert stream.problems == [f"{paths[1]}: no such file any more"]
    stream.close()


def test_counts_of_each_file(tmp_path: Path) -> None:
    paths = [written(tmp_path, "one", [1, 3]), written(tmp_path, "two", [2], as_pcapng=True)]
    stream = open_recorded([str(path) for path in paths])
    drain(stream)
    shown = [(c.path, c.format, c.packets, c.first_ns, c.last_ns) for c in stream.file_counts]
    assert shown == [
        (str(paths[0]), "pcap", 2, 1 * SECOND, 3 * SECOND),
        (str(paths[1]), "pcapng", 1, 2 * SECOND, 2 * SECOND),
    ]
    stream.close()


def test_tunnels_are_kept_when_wanted(tmp_path: Path) -> None:
    outer = make.vxlan(make.ethernet(packet(1)))
    path = tmp_path / "a.pcap"
    path.write_bytes(make.pcap(make.timed([outer])))
    for strip, expected in ((True, packet(1)), (False, outer)):
        stream = open_recorded([str(path)], strip_tunnels=strip)
        found = drain(stream)
        assert found[0][1:] == (expected, len(expected))
        assert stream.counts.tunnelled == strip
        stream.close()


def test_packets_of_a_pipe_come_as_they_are_written(tmp_path: Path) -> None:
    content = make.pcap([(i * SECOND, make.ethernet(packet(i))) for i in (1, 2, 3)])
    record = (len(content) - 24) // 3
    with pipe(tmp_path / "pipe") as writer:
        os.write(writer, content[:24])
        stream = open_recorded([str(tmp_path / "pipe")])
        collector = make.Collector()
        assert stream.total_bytes == 0
        assert stream.fileno() >= 0
        assert not stream.is_ready()
        os.write(writer, content[24 : 24 + record])
        assert stream.is_ready()
        assert stream.next_ns() == 1 * SECOND
        assert stream.hand_on(collector) == 1
        assert not stream.is_ready()
        os.write(writer, content[24 + record : 24 + record + 20])  # a part of the second
        assert not stream.is_ready()
        os.write(writer, content[24 + record + 20 :])
        assert [stream.next_ns() // SECOND, stream.hand_on(collector)] == [2, 2]
        assert stream.is_ready()
        assert stream.hand_on(collector) == 3
        assert not stream.is_ready()
        os.close(writer)
        assert stream.is_ready()
        assert stream.next_ns() == -1
        with pytest.raises(UsageError, match="cannot be read twice; save it to a file"):
            stream.rewind()
        stream.close()


def test_next_ns_waits_for_a_pipe(tmp_path: Path) -> None:
    content = make.pcap([(1 * SECOND, make.ethernet(packet(1)))])
    with pipe(tmp_path / "pipe") as writer:
        os.write(writer, content[:24])
        stream = open_recorded([str(tmp_path / "pipe")])
        later = threading.Timer(0.2, lambda: os.write(writer, content[24:]))
        later.start()
        assert stream.next_ns() == 1 * SECOND
        later.join()
        os.close(writer)
        assert [p[1] for p in drain(stream)] == [packet(1)]
        stream.close()


def test_pipe_and_file_are_merged(tmp_path: Path) -> None:
    path = written(tmp_path, "file", [1, 3, 5])
    content = make.pcap([(i * SECOND, make.ethernet(packet(i))) for i in (2, 4)])
    with pipe(tmp_path / "pipe") as writer:
        os.write(writer, content)
        stream = open_recorded([str(tmp_path / "pipe"), str(path)])
        os.close(writer)
        assert [time_ns // SECOND for time_ns, _, _ in drain(stream)] == [1, 2, 3, 4, 5]
        stream.close()


def test_pipe_does_not_hold_back_what_is_earlier(tmp_path: Path) -> None:
    """Until the next packet of the pipe is known, nothing later than it can be."""
    path = written(tmp_path, "file", [1, 9])
    content = make.pcap([(i * SECOND, make.ethernet(packet(i))) for i in (2, 4)])
    record = (len(content) - 24) // 2
    with pipe(tmp_path / "pipe") as writer:
        os.write(writer, content[: 24 + record])
        stream = open_recorded([str(path), str(tmp_path / "pipe")])
        collector = make.Collector()
        assert stream.is_ready()
        stream.hand_on(collector)
        assert stream.is_ready()
        stream.hand_on(collector)
        assert not stream.is_ready()
        os.write(writer, content[24 + record :])
        assert stream.next_ns() == 4 * SECOND
        stream.hand_on(collector)
        os.close(writer)
        assert stream.next_ns() == 9 * SECOND
        stream.close()


def test_hand_on_all(tmp_path: Path) -> None:
    path = written(tmp_path, "one", [1, 2, 3])
    stream = open_recorded([str(path)])
    collector = make.Collector()
    stream.hand_on(collector)
    stream.hand_on_all(collector)
    assert len(collector.packets) == 3
    stream.close()
