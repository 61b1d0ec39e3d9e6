"""`tcpcopy demo`: nothing lost in either mode, nothing left behind, whenever it is interrupted."""

from __future__ import annotations

import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.lab.scenario import ROOT, environment

COMMAND = [sys.executable, "-m", "tcpcopy.demo.main"]


def start(*arguments: str) -> subprocess.Popen[str]:
    """The demonstration, in a process group of its own as a shell would start it."""
    return subprocess.Popen(
        [*COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
        cwd=ROOT,
        start_new_session=True,
    )


def left_behind(pid: int) -> list[str]:
    """Namespaces, directories and processes of a demonstration that had this pid."""
    mark = f"tcpcopy-lab-{pid}-"
    names = subprocess.check_output(["ip", "netns", "list"], text=True).split()
    found = [name for name in names if name.startswith(mark)]
    found += [str(path) for path in Path(tempfile.gettempdir()).glob(f"{mark}*")]
    for stat in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark.encode() in stat.read_bytes():
                found.append(str(stat))
        except OSError:
            pass
    return found


@pytest.mark.parametrize("programs", ["installed", "python"])
def test_demo_replays_all_in_both_modes(programs: str) -> None:
    """Exit code 0, a table for each mode, and the figures of both servers agree."""
    arguments = ["--seconds", "3"] + (["--python"] if programs == "python" else [])
    process = start(*arguments)
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 0, output
    for row in ("sessions", "requests"):
        counts = re.findall(rf"^    {row} +([\d,]+) +([\d,]+)$", output, re.MULTILINE)
        assert len(counts) == 2, output
        assert all(online == target != "0" for online, target in counts), output
    assert re.findall(r"sessions lost +(\d+)", output) == ["0", "0"]
    assert len(re.findall(r"latency, median +\d+\.\d+ ms +\d+\.\d+ ms", output)) == 2, output
    assert left_behind(process.pid) == []


@pytest.mark.parametrize(
    "turn",
    [pytest.param(n, marks=[pytest.mark.acceptance] if n % 3 else []) for n in range(12)],
)
def test_interrupted_demo_leaves_nothing_behind(turn: int) -> None:
    """SIGINT or SIGTERM at a random moment, the second time at once: gone in seconds."""
    generator = random.Random(turn)
    process = start("--seconds", "2")
    time.sleep(generator.uniform(0, 1.5 if turn % 2 else 6))
    number = generator.choice([signal.SIGINT, signal.SIGTERM])
    for _ in range(1 + turn % 2):
        process.send_signal(number)
    output, _ = process.communicate(timeout=15)
    early = "hosts:" not in output  # Python itself may not have come up far enough to catch it
    assert process.returncode in (128 + number, -number if early else 0), output
    assert left_behind(process.pid) == []
