"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def cpu_model() -> str:
    """Model name of the first processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def commit() -> str:
    """The commit that is checked out, "-dirty" with changes, "unknown" outside git."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=10"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def load_average() -> float:
    """Runnable programs, average of the last minute: above the number of cores it is crowded."""
    return os.getloadavg()[0]


def describe() -> dict[str, str]:
    """Machine, kernel, date and commit."""
    return {
        "cpu": cpu_model(),
        "cores": str(len(os.sched_getaffinity(0))),
        "kernel": platform.release(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit(),
    }


def line(description: dict[str, str]) -> str:
    """`describe` in one line, to stand with each table."""
    d = description
    return f"{d['cores']} x {d['cpu']}, Linux {d['kernel']}, {d['date']}, commit {d['commit']}"
