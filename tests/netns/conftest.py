"""Fixtures for tests on whole hosts: they need root and build network namespaces."""

from __future__ import annotations

import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tcpcopy.demo.netns import Lab
from tests.lab.scenario import C_PROGRAMS, Scenario

_LOG_LINES = 25
# Real servers under full load, whole recordings at full speed, faults by the clock.
_ALONE_FILES = frozenset(
    f"test_{name}.py"
    for name in (
        "demo", "processes", "real_servers", "recorded_memory", "replay_faults", "terminal",
        "udp_servers",
    )
)  # fmt: skip
_ALONE_TESTS = frozenset({
    "test_pacing_keeps_think_times", "test_think_times_are_kept",
    "test_waits_are_as_recorded_times_the_speed", "test_rate_of_live_sessions",
    "test_rate_of_live_requests", "test_rate_of_sessions_of_a_file",
    "test_short_connections_as_fast_as_answers_allow",
})  # fmt: skip
# Of tests for each mode, `make test` runs those of these two in these files; the others share
# their engine, have files of tests of their own, and run whole with `make acceptance`.
_MODES = frozenset({"socket", "classic", "packet"})
_FEW_MODES_FILES = frozenset(
    f"test_{name}.py"
    for name in (
        "real_servers", "recorded", "recorded_udp", "replay", "replay_faults", "replay_options",
        "waits",
    )
)  # fmt: skip


def _is_whole_only(item: pytest.Item) -> bool:
    """Whether a test is left to `make acceptance`, as a variant of others."""
    callspec = getattr(item, "callspec", None)
    if callspec is None or item.path.name not in _FEW_MODES_FILES:
        return False
    return callspec.params.get("mode", "socket") not in _MODES


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is not to run beside other tests (two of the rest may), and variants."""
    for item in items:
        name = getattr(item, "originalname", item.name)
        if item.path.name in _ALONE_FILES or name in _ALONE_TESTS:
            item.add_marker(pytest.mark.alone)
        if _is_whole_only(item):
            item.add_marker(pytest.mark.acceptance)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that failed shows the end of the log of each program."""
    report = yield
    lab = getattr(item, "funcargs", {}).get("lab")
    if report.failed and isinstance(lab, Lab):
        for program in lab.programs:
            lines = program.output().splitlines()[-_LOG_LINES:]
            report.sections.append((f"log of {program.name}", "\n".join(lines)))
    return report


@pytest.fixture(scope="session", autouse=True)
def _end_cleanly() -> Iterator[None]:
    """SIGTERM ends the tests as Ctrl-C does: with every host removed."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    yield
    signal.signal(signal.SIGTERM, previous)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """Client, online, target and assistant, fresh for each test; logs in the test's directory."""
    with Lab(tmp_path) as lab:
        yield lab


@pytest.fixture
def scenario(lab: Lab, request: pytest.FixtureRequest) -> Scenario:
    """Servers, load, replay and comparison in `lab`; in the mode `local` on one host."""
    callspec = getattr(request.node, "callspec", None)
    mode = callspec.params.get("mode") if callspec is not None else ""
    return Scenario(lab, one_host=mode == "local")


@pytest.fixture
def c_programs() -> dict[str, Path]:
    """The C tcpcopy and intercept; skips where they are not installed."""
    missing = [str(path) for path in C_PROGRAMS.values() if not path.exists()]
    if missing:
        pytest.skip(f"no C programs: {', '.join(missing)} (set LAB_C_TCPCOPY, LAB_C_INTERCEPT)")
    return C_PROGRAMS
