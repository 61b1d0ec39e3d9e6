"""Runs the targets in a process of its own, and keeps what ends it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.worker import MOST_FAILURES, Shown

HANG_S = 30.0  # of its own time a process may go on without a word: the machine may be busy
STUCK_S = 600.0  # of anybody's time
MOST_MEMORY_BYTES = 3 << 30  # of the process, the sanitizer's own included
_FRAME = re.compile(r'File "[^"]*", line \d+|#\d+ 0x[0-9a-f]+ in \S+')


@dataclass
class Finding:
    """What went wrong with one input."""

    target: str
    index: int
    data: bytes
    problem: str  # the trace, or what the sanitizer said

    @property
    def kind(self) -> str:
        """The same for inputs that fail in the same place."""
        last = self.problem.strip().rpartition("\n")[2].partition(":")[0]
        frames = _FRAME.findall(self.problem)
        where = frames[:3] if "#0" in self.problem else frames[-2:]
        return f"{self.target} {last} {[re.sub('0x[0-9a-f]+', '', frame) for frame in where]}"


@dataclass
class Session:
    """One run of the fuzzer."""

    names: list[str]
    seed: int
    found_folder: Path
    table: str = "tests.fuzz.table"  # module with the targets
    say: Callable[[str], object] = print
    findings: dict[str, Finding] = field(default_factory=dict)  # by kind, the first of each
    runs: dict[str, int] = field(default_factory=dict)  # inputs run, by target

    def run(self, seconds: float) -> None:
        """Run for so long; a process that dies is replaced by another, which goes on behind it."""
        until = time.monotonic() + seconds
        firsts = dict.fromkeys(self.names, 0)
        deaths = dict.fromkeys(self.names, 0)
        self.runs = dict.fromkeys(self.names, 0)
        while True:
            names = [name for name in self.names if deaths[name] < MOST_FAILURES]
            dead = self._run_once(names, firsts, until) if names else ""
            if not dead:
                return
            deaths[dead] += 1

    def _run_once(self, names: list[str], firsts: dict[str, int], until: float) -> str:
        """Run one process to its end; the target that it died of, "" when it came to its end."""
        with tempfile.TemporaryFile() as shared, tempfile.TemporaryFile() as errors:
            order = {
                "table": self.table,
                "names": names,
                "seed": self.seed,
                "firsts": [firsts[name] for name in names],
                "until": until,
                "shared": shared.fileno(),
            }
            shown = Shown(shared.fileno())
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.fuzz.worker", json.dumps(order)],
                stdout=subprocess.PIPE,
                stderr=errors,
                pass_fds=[shared.fileno()],
            )
            killed = self._listen(process, names, firsts)
            code = process.wait()
            if code == 0:
                return ""
            errors.seek(0)
            said = errors.read().decode("utf-8", "replace")
        place, index, data = shown.seen()
        self._note(Finding(names[place], index, data, killed or f"{said}\nexit code {code}"))
        firsts[names[place]] = index + 1
        return names[place]

    def _listen(
        self, process: subprocess.Popen[bytes], names: list[str], firsts: dict[str, int]
    ) -> str:
        """Take what the process says until it ends; why it was killed, if it was."""
        assert process.stdout is not None
        killed, held = "", b""
        heard, busy = time.monotonic(), 0.0
        with process.stdout as stream, selectors.DefaultSelector() as selector:
            selector.register(stream, selectors.EVENT_READ)
            while True:
                if selector.select(1.0):
                    part = os.read(stream.fileno(), 1 << 16)
                    if not part:
                        return killed
                    heard, busy = time.monotonic(), _cpu_s(process.pid)
                    *lines, held = (held + part).split(b"\n")
                    for line in lines:
                        self._take(json.loads(line), names, firsts)
                if _cpu_s(process.pid) - busy > HANG_S or time.monotonic() - heard > STUCK_S:
                    killed = f"no end within {HANG_S:g} s"
                elif _memory_bytes(process.pid) > MOST_MEMORY_BYTES:
                    killed = f"more than {MOST_MEMORY_BYTES >> 20} MiB of memory"
                if killed:
                    process.kill()

    def _take(self, said: dict[str, object], names: list[str], firsts: dict[str, int]) -> None:
        name = names[int(str(said["target"]))]
        if "problem" in said:
            data = bytes.fromhex(str(said["input"]))
            self._note(Finding(name, int(str(said["index"])), data, str(said["problem"])))
        else:
            self.runs[name] += int(str(said["count"]))
            firsts[name] = int(str(said["done"]))

    def _note(self, finding: Finding) -> None:
        """Save the first input of each kind, and say how to run it again."""
        if finding.kind in self.findings:
            return
        self.findings[finding.kind] = finding
        folder = self.found_folder / finding.target
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / hashlib.sha256(finding.data).hexdigest()[:12]
        path.write_bytes(finding.data)
        self.say(
            f"\nFOUND by {finding.target}, seed {self.seed}, input {finding.index}: {path}\n"
            f"{finding.problem.strip()}\n"
            f"input ({len(finding.data)} bytes): {finding.data[:200].hex()}\n"
            f"again: python -m tests.fuzz --run {finding.target} {path}"
        )


def _cpu_s(process: int) -> float:
    """Seconds that a process has run."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory_bytes(process: int) -> int:
    try:
        pages = Path(f"/proc/{process}/statm").read_text().split()[1]
    except (OSError, IndexError):
        return 0  # it has just ended
    return int(pages) * os.sysconf("SC_PAGESIZE")
