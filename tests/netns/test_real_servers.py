"""Real servers and clients: after a replay the target has what online has.

What is compared is each server's own account: nginx's access log and the files sent to it, the data
in Redis, memcached, PostgreSQL and MariaDB.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.real.nginx import MEBIBYTE, Nginx, wrk_script
from tests.lab.real.service import RealServers, check_report, find_program, real_servers
from tests.lab.scenario import MODES, PORT, Scenario

pytestmark = [pytest.mark.netns, pytest.mark.parametrize("mode", MODES)]


@pytest.fixture
def real(scenario: Scenario) -> Iterator[RealServers]:
    """Pairs of real servers in `lab`."""
    with real_servers(scenario) as real:
        yield real


# -- nginx ------------------------------------------------------------------------------------


def _wrk(real: RealServers, online: Nginx, seconds: int, *, close: bool = False) -> None:
    """50 connections at full speed. wrk ends by cutting them, with requests under way."""
    script = wrk_script(real.directory, close=close)
    wrk = find_program("wrk", "wrk")
    url = f"http://{online.host.v4}:{PORT}/"
    real.client(wrk, "-t", 1, "-c", 50, "-d", f"{seconds}s", "-s", script, url)


def test_nginx_keep_alive_at_full_speed(real: RealServers, mode: str) -> None:
    """50 connections kept alive: each has the same requests in the same order at the target.

    A request that wrk cut off was sent whole; both servers read and log it, whether or not they
    get rid of its answer. So the answers are not compared, and nothing is left out.
    """
    online, target = real.start(Nginx, answers=False)
    with real.replay(mode) as replay:
        _wrk(real, online, 3)
    assert online.progress() > 5000
    assert online.sessions() == target.sessions()
    check_report(replay)


def test_nginx_connection_close(real: RealServers, mode: str) -> None:
    """Thousands of connections of one request, ended by the server."""
    online, target = real.start(Nginx, answers=False)
    with real.replay(mode) as replay:
        _wrk(real, online, 2, close=True)
    assert online.progress() > 2000
    assert online.sessions() == target.sessions()
    check_report(replay)


def test_nginx_closes_after_some_requests(real: RealServers, mode: str) -> None:
    """keepalive_requests 7: the server says close with the seventh answer, and closes first."""
    online, target = real.start(Nginx, answers=False, keepalive_requests=7)
    with real.replay(mode) as replay:
        _wrk(real, online, 2)
    sessions = online.sessions()
    assert max(map(len, sessions)) == 7 and len(sessions) > 500
    assert sessions == target.sessions()
    check_report(replay)


def test_nginx_uploads(real: RealServers, mode: str) -> None:
    """Bodies of 1 MiB and more, several on a connection, with and without "100 Continue"."""
    online, target = real.start(Nginx)
    curl = find_program("curl", "curl")
    url = f"http://{online.host.v4}:{PORT}/upload"
    sent: list[str] = []
    configurations: list[Path] = []
    for number in range(6):
        transfers = []
        for part in range(3):
            body = real.directory / f"body-{number}-{part}"
            content = random.Random(len(sent)).randbytes(MEBIBYTE + 1000 * len(sent))
            body.write_bytes(content)
            sent.append(hashlib.sha256(content).hexdigest())
            expect = "Expect: 100-continue" if part % 2 else "Expect:"
            transfers.append(
                f'url = "{url}/{number}/{part}"\ndata-binary = "@{body}"\nheader = "{expect}"\n'
                'output = "/dev/null"\nsilent\nfail\n'
            )
        configurations.append(real.directory / f"curl-{number}")
        configurations[-1].write_text("next\n".join(transfers))
    with real.replay(mode) as replay:
        clients = [real.start_client(curl, "-K", path) for path in configurations]
        assert [client.wait(15) for client in clients] == [0] * 6
    assert online.bodies() == target.bodies() == sorted(sent)
    assert online.sessions() == target.sessions()
    check_report(replay, 6)


def test_nginx_downloads(real: RealServers, mode: str) -> None:
    """Answers of 1 MiB: the target sends all of each, too."""
    online, target = real.start(Nginx)
    curl = find_program("curl", "curl")
    urls = [f"http://{online.host.v4}:{PORT}/big?{number}" for number in range(4)]
    with real.replay(mode) as replay:
        clients = [
            real.start_client(curl, "-sf", *(word for url in urls for word in (url, "-o/dev/null")))
            for _ in range(8)
        ]
        assert [client.wait(15) for client in clients] == [0] * 8
    sessions = online.sessions()
    assert [len(session) for session in sessions] == [4] * 8
    assert sessions == target.sessions()
    check_report(replay, 8)
