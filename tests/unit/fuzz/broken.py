"""Targets that break: what a fuzzer is for must be found and told."""

from __future__ import annotations

import os

from tests.fuzz.target import Target


def _kill(data: bytes) -> None:
    if data[:1] == b"k" and len(data) != 2:
        os.abort()


def _raise(data: bytes) -> None:
    if data[:1] == b"r":
        raise KeyError("documented")
    assert data[:1] != b"x", "not documented"


TARGETS = {
    "kills": Target("kills", _kill, lambda: [b"ok", b"k!", b"kill"]),
    "raises": Target("raises", _raise, lambda: [b"ok", b"r", b"xyz"], documented=(KeyError,)),
    "fine": Target("fine", lambda data: None, lambda: [b"any"]),
}
