"""Replay of recorded traffic on whole hosts: tcpdump on online, then the file, byte for byte.

Socket mode runs without any capability: nothing may be captured or forged there.
"""

from __future__ import annotations

import hashlib
import signal
from pathlib import Path

import pytest

from tests.lab.recording import recording, replay_files, start_replay, start_tcpdump
from tests.lab.scenario import PORT, Replay, Scenario, python, wait_until
from tests.lab.script import sent
from tests.netns.test_replay import LOADS, MODES, check

pytestmark = pytest.mark.netns


def record(scenario: Scenario, load: str, servers: str = "", timeout: float = 60.0) -> Path:
    """Run a load against online alone; the file with its traffic."""
    scenario.servers(servers)
    with recording(scenario) as path:
        scenario.load(load, timeout=timeout)
    return path


@pytest.mark.parametrize("speed", ["-a 1", "-a 10", "--fast"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", LOADS)
def test_every_stream_arrives(scenario: Scenario, mode: str, name: str, speed: str) -> None:
    """The scenarios of live replay, out of a file."""
    load, servers, streams = LOADS[name]
    path = record(scenario, load, servers)
    replay = replay_files(scenario, mode, "-i", path, *speed.split())
    assert scenario.wait_for_target(streams, 10), replay.output
    check(scenario, replay, streams)
    files = replay.report["files"]
    assert files["bytes_read"] == files["bytes_total"] == path.stat().st_size
    assert files["packets"] == files["left_out"] + replay.report["packets"]["captured"]


@pytest.mark.parametrize("mode", MODES)
def test_short_connections_as_fast_as_answers_allow(scenario: Scenario, mode: str) -> None:
    """20,000 connections of one request each."""
    path = record(scenario, "--connections 20000 --concurrency 100", timeout=120)
    replay = replay_files(scenario, mode, "-i", path, "--fast", timeout=120)
    scenario.wait_for_target(20000, 10)
    check(scenario, replay, 20000)
