"""Asking intercepts whether their hosts forward, over real connections on loopback."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tcpcopy.doctor.forwarding import still_forwards
from tcpcopy.doctor.probe import ProbeConfig
from tcpcopy.relay.desk import ProbeDesk
from tcpcopy.relay.native import RelayMode, RelayTerms
from tcpcopy.relay.probing import Flow, Report
from tcpcopy.relay.router import AnswerRouter
from tcpcopy.relay.server import RelayServer
from tcpcopy.report.context import CLASSIC, Context

FLOWS = {
    4: Flow(b"\x0a\0\0\2", 8080, b"\xc0\xa8\7\1", 40000),
    6: Flow(b"\xfd" * 16, 80, b"\xfc" * 16, 9),
}


@contextmanager
def intercept(state: Callable[[], Report], *, is_open: bool, mode: RelayMode) -> Iterator[int]:
    """One in a thread; its port."""
    server = RelayServer(AnswerRouter(), host="127.0.0.1", port=0, terms=RelayTerms(mode))
    server.desk = ProbeDesk("tcp", (), state, is_open=is_open)
    server.open()
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            server.service(time.monotonic_ns())
            time.sleep(0.005)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield server.port
    finally:
        over.set()
        thread.join(10)
        server.close()


def config(*ports: int, family: int = 4) -> ProbeConfig:
    intercepts = tuple(("127.0.0.1", port) for port in ports)
    return ProbeConfig(Context(mode=CLASSIC), FLOWS[family], intercepts=intercepts)


@pytest.mark.parametrize("is_open", [False, True])
@pytest.mark.parametrize("family", [4, 6])
def test_what_an_intercept_says(is_open: bool, family: int) -> None:
    """Of the flow's family; an open one tells it, too, because the flow is announced first."""
    forwards = True

    def state() -> Report:
        return Report(forwards_v4=forwards == (family == 4), forwards_v6=forwards == (family == 6))

    with intercept(state, is_open=is_open, mode=RelayMode.AUTO) as port:
        assert still_forwards(config(port, family=family)) is True
        forwards = False
        assert still_forwards(config(port, family=family)) is False


def test_one_that_is_away_and_one_that_says_nothing() -> None:
    """The first may forward still; the second is another program by now."""
    with intercept(Report, is_open=False, mode=RelayMode.AUTO) as port:
        gone = port
    with intercept(Report, is_open=False, mode=RelayMode.CLASSIC) as port:
        assert still_forwards(config(port)) is False
        assert still_forwards(config(port, gone)) is None
    assert still_forwards(config(gone)) is None
