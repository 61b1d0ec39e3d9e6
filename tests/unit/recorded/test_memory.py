"""Memory does not grow with the files that are read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.lab import capture_files as make

INSPECT = """
import resource, sys
from tcpcopy.recorded.inspect import inspect
from tcpcopy.recorded.stream import open_recorded

findings = inspect(open_recorded(sys.argv[1:]), sys.argv[1:])
print(findings.counts.packets, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def resident_kib(path: Path, packets: int) -> int:
    """The most memory that a process needed to inspect the file."""
    done = subprocess.run(
        [sys.executable, "-c", INSPECT, str(path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    read, resident = done.stdout.split()
    assert int(read) == packets
    return int(resident)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """100 MB against 1 MB, of a hundred connections."""
    flows = [f"198.51.100.{number}:40000" for number in range(1, 101)]
    packets = [make.tcp(flow, "10.0.0.1:80", make.ACK, bytes(10_000)) for flow in flows]
    content = make.pcap(make.timed(packets))
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(content)
    with large.open("wb") as file:
        file.write(content)
        for _ in range(99):
            file.write(content[24:])
    assert large.stat().st_size > 100_000_000
    assert resident_kib(large, 10_000) < resident_kib(small, 100) + 4096
