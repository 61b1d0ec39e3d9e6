"""What all rings of tests share: profiles, the build under test, and who may use namespaces.

A ring's folder says what it needs: `unit`, `sim`, `property`, `vectors` need nothing, `repo` needs
a checkout, `netns` needs root and network namespaces.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tcpcopy.version import build_kind, version_line

TESTS = Path(__file__).parent

settings.register_profile("fast", max_examples=100, deadline=None, derandomize=True, database=None)
settings.register_profile(
    "deep",
    max_examples=5_000,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("TCPCOPY_HYPOTHESIS", "fast"))


def pytest_report_header() -> str:
    return f"tested: {version_line()}; hypothesis profile: {settings.get_current_profile_name()}"


def pytest_sessionstart() -> None:
    """Refuse to test another build than the one that was asked for."""
    expected, actual = os.environ.get("TCPCOPY_EXPECT_BUILD", ""), build_kind()
    if expected and actual != expected:
        pytest.exit(f"TCPCOPY_EXPECT_BUILD={expected}, but the build is {actual}", returncode=3)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark by folder: everything in tests/netns needs root."""
    for item in items:
        if item.path.is_relative_to(TESTS / "netns"):
            item.add_marker(pytest.mark.netns)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip namespace tests where there are none to be had; fail where they are demanded."""
    if item.get_closest_marker("netns") is None:
        return
    lack = lack_for_namespaces()
    if not lack:
        return
    if os.environ.get("CI") == "true" or os.environ.get("TCPCOPY_REQUIRE_NETNS") == "1":
        pytest.fail(f"namespace tests are required here, but {lack}", pytrace=False)
    pytest.skip(f"namespace tests: {lack}")


@functools.cache
def lack_for_namespaces() -> str:
    """Return what keeps this process from making network namespaces, or nothing."""
    if os.geteuid() != 0:
        return "this is not root"
    if shutil.which("ip") is None:
        return "the command ip is missing (Debian package iproute2)"
    probe = subprocess.run(
        ["unshare", "--net", "true"], capture_output=True, text=True, check=False
    )
    return f"namespaces cannot be made: {probe.stderr.strip()}" if probe.returncode else ""
