"""A file of any size is replayed in the same memory.

`TCPCOPY_BIG_FILE_MB` sets the size of the file (60 when not set; 1000 was measured by hand).
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.capture_files import ACK, FIN, PSH, SYN, tcp
from tests.lab.recording import start_replay
from tests.lab.scenario import PORT, Scenario, wait_until
from tests.lab.script import sent

pytestmark = pytest.mark.netns

MEGABYTES = int(os.environ.get("TCPCOPY_BIG_FILE_MB", "60"))
WORDS = "--requests 60 --request-bytes 1000-3000 --no-answer"
SEGMENT = 1400
OPEN_AT_ONCE = 50
DIFFERENT = 40  # conversations that differ; they come again from other ports


def session(number: int, stream: bytes) -> Iterator[bytes]:
    """The client's packets of one connection."""
    client = f"10.1.{number >> 8 & 255}.{number & 255}:{20000 + number // 65536}"
    server = f"10.2.0.1:{PORT}"
    yield tcp(client, server, SYN, seq=99, ack=0)
    yield tcp(client, server, ACK, seq=100, ack=500)
    for at in range(0, len(stream), SEGMENT):
        yield tcp(client, server, PSH | ACK, stream[at : at + SEGMENT], seq=100 + at, ack=500)
    yield tcp(client, server, FIN | ACK, seq=100 + len(stream), ack=500)


def write(path: Path, streams: list[bytes]) -> int:
    """Sessions side by side until the file is large enough; how many."""
    count = 0
    time_us = 1_700_000_000_000_000
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 101))
        running: list[Iterator[bytes]] = []
        while True:
            while len(running) < OPEN_AT_ONCE and file.tell() < MEGABYTES * 1_000_000:
                running.append(session(count, streams[count % len(streams)]))
                count += 1
            if not running:
                return count
            for packets in list(running):
                packet = next(packets, None)
                if packet is None:
                    running.remove(packets)
                    continue
                time_us += 37
                seconds, micros = divmod(time_us, 1_000_000)
                size = len(packet)
                file.write(struct.pack("<IIII", seconds, micros, size, size) + packet)


def resident_kib(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    match = re.search(r"VmRSS:\s+(\d+)", text)
    return int(match[1]) if match else 0


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("words", ["--fast", "-a 1000 -m 96"])
def test_memory_does_not_grow_with_the_file(scenario: Scenario, words: str) -> None:
    """After a tenth of the file tcpcopy has all the memory that it will ever need, nearly."""
    streams = [sent(WORDS, number) for number in range(DIFFERENT)]
    path = scenario.lab.directory / "big.pcap"
    count = write(path, streams)
    scenario.servers()
    replay = start_replay(scenario, "socket", "-i", path, *words.split())
    replay.tcpcopy.wait_for(r"\bready\b")
    target = scenario.target[0]
    sizes: list[tuple[int, int]] = []

    def ended() -> bool:
        if not replay.tcpcopy.alive:
            return True
        size = resident_kib(replay.tcpcopy.pid)
        if size:
            sizes.append((target.count(), size))
        return False

    assert wait_until(ended, 60 + 2 * MEGABYTES, 0.1), replay.output
    replay.exit_code = replay.tcpcopy.wait(1)
    early = max(size for done, size in sizes if done <= max(count // 10, sizes[0][0]))
    most = max(size for _, size in sizes)
    print(f"{path.stat().st_size} bytes, {count} sessions: {early} KiB early, {most} KiB at most")
    assert replay.exit_code == 0, replay.output
    assert most < early + 24 * 1024, (early, most)
    wanted = sorted(hashlib.sha256(streams[n % DIFFERENT]).hexdigest() for n in range(count))
    assert wait_until(lambda: target.count() >= count, 10)
    assert sorted(stream.sha256 for stream in target.stop()) == wanted, replay.output
    path.unlink()
