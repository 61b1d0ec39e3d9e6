"""What the target said, told by real servers that answer with errors: never «exactly» alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.real import mariadb
from tests.lab.real.nginx import Nginx
from tests.lab.real.redis import Redis
from tests.lab.real.service import RealServers, find_program, real_servers
from tests.lab.scenario import ALL_MODES, PORT, Replay, Scenario

pytestmark = pytest.mark.netns
REQUESTS = 20


@pytest.fixture
def real(scenario: Scenario) -> Iterator[RealServers]:
    """Room for two servers that want the same port."""
    if scenario.one_host:
        scenario.one_host = False
        names = ("all", "default", "lo", "eth0")
        scenario.lab.target.sysctl({f"net/ipv4/conf/{name}/rp_filter": "1" for name in names})
    with real_servers(scenario) as real:
        yield real


def said_of(replay: Replay) -> dict[str, Any]:
    (said,) = replay.report["said"]
    assert isinstance(said, dict)
    return said


def kinds_of(replay: Replay) -> dict[str, int]:
    return {
        f"{kind['protocol']} {kind['kind']}".strip(): kind["count"]
        for kind in said_of(replay)["kinds"]
    }


def fetch(real: RealServers, online: Nginx) -> None:
    """Each on a connection of its own: nginx closes after a 500."""
    url = f"http://{online.host.v4}:{PORT}/"
    real.client(find_program("curl", "curl"), "-s0", *["-o", "/dev/null", url] * REQUESTS)


@pytest.mark.parametrize("mode", ALL_MODES)
def test_a_target_that_answers_500_to_everything(real: RealServers, mode: str) -> None:
    online, _ = real.start(Nginx, target={"failing": True})
    with real.replay(mode) as replay:
        fetch(real, online)
    assert replay.exit_code == 0, replay.output
    assert kinds_of(replay) == {"HTTP 5xx": REQUESTS}, replay.output
    text = (
        f"but the target answered with errors: {REQUESTS} of {REQUESTS} answers looked at (HTTP 5xx"
    )
    assert text in replay.report["headline"]
    assert "target_errors" in {finding["key"] for finding in replay.report["findings"]}
    answered = said_of(replay)["bytes"]
    assert answered["sessions"] == REQUESTS and answered["online"] > 0 and answered["target"] > 0


@pytest.mark.parametrize("mode", ["socket"])
def test_a_redis_with_another_password(real: RealServers, mode: str) -> None:
    real.start(Redis)
    real.lab.target.run("redis-cli", "-h", real.lab.target.v4, "-p", str(PORT),
                        "config", "set", "requirepass", "other")  # fmt: skip
    with real.scenario.replay(mode) as replay:
        real.client("redis-cli", "-h", real.lab.online.v4, "-p", PORT, "-r", 5, "set", "a", "b")
    assert replay.exit_code == 0, replay.output
    assert kinds_of(replay).get("RESP error NOAUTH", 0) >= 5, replay.output
    assert "RESP error NOAUTH" in replay.report["headline"]


@pytest.mark.parametrize("mode", ["classic"])
def test_a_tls_target_that_ends_every_handshake(real: RealServers, mode: str) -> None:
    """openssl s_server without a cipher that the client has."""
    certificate = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=a"]
    files = ["-out", f"{real.directory}/a.pem", "-keyout", f"{real.directory}/a.key"]
    real.lab.online.run("openssl", "req", *certificate, *files)
    base = ["openssl", "s_server", "-accept", str(PORT), "-cert", f"{real.directory}/a.pem",
            "-key", f"{real.directory}/a.key", "-quiet", "-tls1_2"]  # fmt: skip
    real.lab.online.start([*base, "-www"], name="online")
    real.lab.target.start([*base, "-cipher", "AES128-SHA"], name="target")
    url = f"https://{real.lab.online.v4}:{PORT}/"
    real.client("sh", "-c", f"for i in 1 2 3 4 5 6 7 8 9 10; do curl -sko /dev/null {url} && break;"
                " sleep 0.2; done")  # fmt: skip
    ciphers = ["--tls-max", "1.2", "--ciphers", "ECDHE-RSA-AES256-GCM-SHA384"]
    with real.scenario.replay(mode) as replay:
        for _ in range(3):
            real.client("curl", "-sk", *ciphers, "-o", "/dev/null", url)
    assert kinds_of(replay).get("TLS alert handshake_failure") == 3, replay.output
    assert "TLS alert handshake_failure 3" in replay.report["headline"]


def test_a_mariadb_that_refuses_every_log_in(real: RealServers) -> None:
    """Its greeting says what it speaks; the user of online has a password there."""
    template = mariadb.make_template(real.directory)
    online, target = real.start(mariadb.MariaDB, template=template)
    target.ask(f"ALTER USER '{mariadb.USER}'@'%' IDENTIFIED BY 'other'")
    with real.scenario.replay("socket") as replay:
        for _ in range(3):
            real.client(
                *("mariadb", "--no-defaults", "-h", online.host.v4, "-P", PORT),
                *("-u", mariadb.USER, "-e", "SELECT 1"),
            )
    assert kinds_of(replay) == {"MySQL greeting": 3, "MySQL error 1045 (access denied)": 3}
    assert "MySQL error 1045 (access denied) 3" in replay.report["headline"]
