"""Where tcpcopy and intercept spend their CPU time: samples taken by `perf` during a run.

A sample is a call chain, innermost function first. Each counts once in each table: by function
(its innermost), by the file it is in, by way into the kernel (the system call it is in; or user
mode), and whether it is in a soft interrupt: there, on hosts joined by virtual cables, the kernel
does the work of the network and of the other hosts' receiving, on the account of whoever sent.
Samples are taken by a timer interrupt: what runs with interrupts off counts for the function that
turns them on again (`_raw_spin_unlock_irqrestore` and the like).
"""

from __future__ import annotations

import signal
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import account
from benchmarks.servers import find_program
from tcpcopy.demo.netns import LabError
from tcpcopy.demo.processes import Program

_HERTZ = 1999
_SYSTEM_CALL = ("__x64_sys_", "__arm64_sys_", "__do_sys_")
_SOFT_INTERRUPT = ("handle_softirqs", "__do_softirq")
_KERNEL = "[kernel"


@dataclass
class Profile:
    """Counted samples of one program: by function, file and way into the kernel."""

    samples: int = 0
    soft: int = 0  # in a soft interrupt
    functions: Counter[str] = field(default_factory=Counter)
    ways: Counter[str] = field(default_factory=Counter)
    objects: Counter[str] = field(default_factory=Counter)

    def add(self, chain: list[tuple[str, str]]) -> None:
        """Count one chain of (function, object it is in), innermost first."""
        name, where = chain[0]
        self.samples += 1
        in_kernel = where.startswith(_KERNEL)
        self.functions[name + (" [k]" if in_kernel else "")] += 1
        self.objects["kernel" if in_kernel else where.rpartition("/")[2]] += 1
        self.soft += any(function in _SOFT_INTERRUPT for function, _ in chain)
        if not in_kernel:
            self.ways["user mode"] += 1
            return
        for function, _ in chain:
            for prefix in _SYSTEM_CALL:
                if function.startswith(prefix):
                    self.ways[function.removeprefix(prefix)] += 1
                    return
        self.ways["other kernel"] += 1

    def text(self, lines: int = 15) -> str:
        """Shares by way into the kernel and by file, then the functions with most samples."""
        if not self.samples:
            return "no samples"

        def shares(counter: Counter[str], most: int) -> Iterator[str]:
            for name, count in counter.most_common(most):
                yield f"{100 * count / self.samples:5.1f} %  {name}"

        head = f"{self.samples} samples; {100 * self.soft / self.samples:.0f} % in soft interrupts"
        parts = [head]
        for title, counter, most in (
            ("user mode and system calls", self.ways, 7),
            ("program files", self.objects, 7),
            ("functions", self.functions, lines),
        ):
            parts += [f"{title}:", *shares(counter, most)]
        return "\n".join(parts)


def chains(lines: Iterable[str]) -> Iterator[list[tuple[str, str]]]:
    """Call chains out of the text of `perf script -F ip,sym,dso`: one block of lines for each."""
    chain: list[tuple[str, str]] = []
    for line in lines:
        words = line.split(maxsplit=1)
        if len(words) == 2:
            name, _, where = words[1].strip().rpartition(" (")
            chain.append((name.partition("+")[0] or "?", where.rstrip(")")))
        elif chain:
            yield chain
            chain = []
    if chain:
        yield chain


class Recorder:
    """`perf record` on the processes of one program, from here to `stop`."""

    def __init__(self, program: Program, path: Path) -> None:
        pids = ",".join(map(str, account.members(program.pid)))
        command = [find_program("perf", "linux-perf"), "record", "-q", "-e", "cpu-clock"]
        command += ["-F", str(_HERTZ), "-g", "-p", pids, "-o", str(path)]
        self.path = path
        self.log_path = path.with_suffix(".log")
        self.perf = Program(command, name="perf", log_path=self.log_path)

    def stop(self) -> Profile:
        """End the recording and count it. Raises `LabError`."""
        self.perf.stop(signal.SIGINT)
        done = subprocess.run(
            [self.perf.argv[0], "script", "-i", str(self.path), "-F", "ip,sym,dso"],
            capture_output=True,
            text=True,
            check=False,
            start_new_session=True,
        )
        if done.returncode:
            raise LabError(f"perf script: {done.stderr.strip()[-300:]}")
        profile = Profile()
        for chain in chains(done.stdout.splitlines()):
            profile.add(chain)
        return profile
