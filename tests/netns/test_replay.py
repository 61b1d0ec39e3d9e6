"""Replay on whole hosts: what online's application read, the target's application reads."""

from __future__ import annotations

import pytest

from tests.lab.scenario import Scenario

pytestmark = pytest.mark.netns
MODES = ("socket", "classic")


@pytest.mark.parametrize("mode", MODES)
def test_keep_alive(scenario: Scenario, mode: str) -> None:
    """Keep-alive connections, one request after the other."""
    scenario.servers()
    with scenario.replay(mode) as replay:
        scenario.load("--connections", 20, "--requests", 20)
        scenario.wait_for_target(20)
    print(replay.output)
    print(scenario.compare())
    assert scenario.compare().exact
