"""Tunnel mode on whole hosts: packets in the relay connection, injected and answered by TUN."""

from __future__ import annotations

import pytest

from tests.lab.scenario import Scenario
from tests.netns.test_replay import LOADS, check

pytestmark = pytest.mark.netns


@pytest.mark.parametrize("name", LOADS)
def test_replay_is_exact(scenario: Scenario, name: str) -> None:
    """Every kind of session, byte for byte."""
    words, arguments, streams = LOADS[name]
    scenario.servers(arguments)
    with scenario.replay("tunnel") as replay:
        scenario.load(words)
        scenario.wait_for_target(streams, 30)
    check(scenario, replay, streams)
