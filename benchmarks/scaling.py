"""The scenario `scale`: the curve from a hundred open sessions to a million (see `scale.py`)."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from benchmarks.copier import Variant
from benchmarks.numbers import Run
from benchmarks.scenarios import Scenario
from tcpcopy.demo.netns import LabError

SIZES = (100, 1_000, 10_000, 100_000, 1_000_000)
_PROGRAM = Path(__file__).with_name("scale.py")
_PURE_SECONDS = 3600


def mode(sessions: int) -> str:
    """What a variant with so many sessions is called."""
    return f"{sessions:,} open"


def figures(text: str) -> Run:
    """What `scale.py` printed, as metrics. Raises: ValueError."""
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("no JSON object")
    return {f"scale_{name}": float(value) for name, value in found.items() if name != "sessions"}


class Scale(Scenario):
    """One engine without a network; needs no root."""

    name = "scale"
    title = "one engine with made-up clients and a made-up target, sessions held open"
    rounds = 1
    modes = tuple(mode(sessions) for sessions in SIZES)
    alone = True
    tables = (
        (
            "scale_session_bytes", "scale_wave_growth", "scale_open_ns", "scale_close_ns",
            "scale_pause_ms", "scale_idle_timers_ns",
        ),
        (
            "scale_request_ns", "scale_answer_ns", "scale_timer_ns",
            "scale_hot_request_ns", "scale_hot_answer_ns", "scale_hot_timer_ns",
        ),
    )  # fmt: skip

    def run_alone(self, variant: Variant) -> Run:
        assert variant.build is not None
        sessions = variant.mode.split()[0].replace(",", "")
        interpreter = variant.build.tcpcopy[0]
        done = subprocess.run(
            [interpreter, "-P", str(_PROGRAM), "--sessions", sessions, "--waves", "3"],
            env=dict(variant.build.environment),
            capture_output=True,
            text=True,
            check=False,
            timeout=_PURE_SECONDS,
        )
        if done.returncode:
            raise LabError(f"scale.py failed with {variant.name}:\n{done.stderr}")
        return figures(done.stdout)
