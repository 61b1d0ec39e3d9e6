"""Real servers and clients: after a replay the target has what online has.

What is compared is each server's own account: nginx's access log and the files sent to it, the data
in Redis, memcached, PostgreSQL and MariaDB.
"""

from __future__ import annotations

import hashlib
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.real import mariadb, postgres
from tests.lab.real.memcached import Memcached, client_command
from tests.lab.real.nginx import MEBIBYTE, Nginx, wrk_script
from tests.lab.real.redis import Redis
from tests.lab.real.service import RealServers, check_report, find_program, real_servers
from tests.lab.scenario import ALL_MODES, PORT, Scenario

pytestmark = [pytest.mark.netns, pytest.mark.parametrize("mode", ALL_MODES)]


@pytest.fixture
def real(scenario: Scenario) -> Iterator[RealServers]:
    """Pairs of real servers in `lab`, each on a host of its own: both want the same port."""
    if scenario.one_host:  # the device of local mode is then on the target
        scenario.one_host = False
        names = ("all", "default", "lo", "eth0")
        scenario.lab.target.sysctl({f"net/ipv4/conf/{name}/rp_filter": "1" for name in names})
    with real_servers(scenario) as real:
        yield real


@pytest.fixture(scope="module")
def template_directory() -> Iterator[Path]:
    """Where data directories are prepared, which other users may enter."""
    with tempfile.TemporaryDirectory(prefix="tcpcopy-lab-templates-", dir="/tmp") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


@pytest.fixture(scope="module")
def postgres_template(template_directory: Path) -> Path:
    """A PostgreSQL data directory with pgbench's tables."""
    return postgres.make_template(template_directory)


@pytest.fixture(scope="module")
def mariadb_template(template_directory: Path) -> Path:
    """A MariaDB data directory."""
    return mariadb.make_template(template_directory)


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
                f'url = "{url}/{number}/{part}"\nupload-file = "{body}"\nheader = "{expect}"\n'
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


def _download(real: RealServers, online: Nginx, connections: int, requests: int) -> None:
    """Answers of 1 MiB, several on a connection, over several connections at once."""
    words = [find_program("curl", "curl"), "-sf"]
    for number in range(requests):
        words += [f"http://{online.host.v4}:{PORT}/big?{number}", "-o/dev/null"]
    clients = [real.start_client(*words) for _ in range(connections)]
    assert [client.wait(15) for client in clients] == [0] * connections


def test_nginx_downloads(real: RealServers, mode: str) -> None:
    """Answers of 1 MiB: the target sends all of each, too."""
    online, target = real.start(Nginx)
    with real.replay(mode) as replay:
        _download(real, online, 8, 4)
    sessions = online.sessions()
    assert [len(session) for session in sessions] == [4] * 8
    assert sessions == target.sessions()
    check_report(replay, 8)


def test_nginx_downloads_with_pauses(real: RealServers, mode: str) -> None:
    """A target that sends 256 KiB four times a second: no answer is cut by what comes next."""
    pauses = "sendfile on; sendfile_max_chunk 256k; limit_rate 1m;"
    online, target = real.start(Nginx, target={"settings": pauses})
    with real.replay(mode, catch_up_s=5) as replay:
        _download(real, online, 4, 2)
    assert online.sessions() == target.sessions()
    check_report(replay, 4)


def test_nginx_http2_uploads(real: RealServers, mode: str) -> None:
    """HTTP/2: uploads of 3 MB, as the servers' window updates let them go.

    Not with curl: 7.88 sends 64 KiB of such a body twice now and then, which nginx refuses.
    """
    online, target = real.start(Nginx, http2=True)
    body = real.directory / "body"
    body.write_bytes(random.Random(2).randbytes(3_000_000))
    put = [find_program("nghttp", "nghttp2-client"), "-n", "-H", ":method: PUT", "-d", str(body)]
    url = f"http://{online.host.v4}:{PORT}/upload"
    with real.replay(mode) as replay:
        clients = [real.start_client(*put, f"{url}/{number}") for number in range(8)]
        assert [client.wait(15) for client in clients] == [0] * 8
    digest = hashlib.sha256(body.read_bytes()).hexdigest()
    assert online.bodies() == target.bodies() == [digest] * 8
    assert online.sessions() == target.sessions()
    check_report(replay, 8)


# Answers of random length, so that each server's are now longer and now shorter.
_RANDOM_LENGTH = """
  map $request_id $more { default ""; ~^[0-3] "m"; ~^[4-7] "mmmmmmmm"; ~^[8-b] "mmmmmmmmmmmmmmm"; }
  add_header X-More "more$more";
"""


@pytest.mark.parametrize("protocol", ["http1", "http2"])
@pytest.mark.parametrize("online_header", ["", f'add_header X-More "{"m" * 40}";', _RANDOM_LENGTH])
def test_nginx_answers_of_another_length(
    real: RealServers, mode: str, protocol: str, online_header: str
) -> None:
    """One request after another: the sessions hardly wait to see that an answer has ended."""
    http2 = protocol == "http2"
    online, target = real.start(
        Nginx, {"settings": _RANDOM_LENGTH}, http2=http2, settings=online_header
    )
    load = [find_program("h2load", "nghttp2-client"), "-c", 4, "-m", 1, "-n", 2000]
    if not http2:
        load.append("--h1")
    with real.replay(mode, catch_up_s=12) as replay:
        real.client(*load, f"http://{online.host.v4}:{PORT}/small")
    assert online.sessions() == target.sessions()
    check_report(replay, 4)


# -- Redis and memcached ----------------------------------------------------------------------

# The data that these leave do not depend on the order in which connections come to the target;
# the answers to some do.
_REDIS_COMMANDS = "set,get,incr,lpush,sadd,hset,lrange_100,mset"


@pytest.mark.parametrize("pipeline", [1, 16])
def test_redis_benchmark(real: RealServers, mode: str, pipeline: int) -> None:
    """redis-benchmark with random keys: the same commands, the same data."""
    online, target = real.start(Redis)
    benchmark = [find_program("redis-benchmark", "redis-tools"), "-h", online.host.v4, "-p", PORT]
    requests = 5000 if pipeline == 1 else 30000
    with real.replay(mode) as replay:
        real.client(
            *benchmark,
            "-q",
            "-c",
            20,
            "-n",
            requests,
            "-r",
            1000,
            "-P",
            pipeline,
            "-t",
            _REDIS_COMMANDS,
        )
    assert online.calls()["set"] >= requests
    assert online.calls() == target.calls()
    assert online.keys() == target.keys() > 1000
    assert online.digest() == target.digest()
    check_report(replay)


def test_memcached(real: RealServers, mode: str) -> None:
    """Items set, read, changed and counted over 20 connections, some with `quit` at the end."""
    online, target = real.start(Memcached)
    with real.replay(mode) as replay:
        real.client(*client_command(online.host.v4, PORT, "load"))
    assert online.progress() == target.progress()
    items = online.items()
    assert len(items) > 400
    assert items == target.items()
    check_report(replay, 20)


# -- databases --------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["simple", "extended", "prepared"])
def test_pgbench(real: RealServers, mode: str, protocol: str, postgres_template: Path) -> None:
    """8 clients with 50 transactions each, all of them updating the same row."""
    online, target = real.start(postgres.Postgres, template=postgres_template)
    before = online.contents()
    assert before == target.contents()
    words = ["-h", online.host.v4, "-p", PORT, "-U", "postgres", "-M", protocol, "-n"]
    with real.replay(mode) as replay:
        real.client(postgres.program("pgbench"), *words, "-c", 8, "-j", 2, "-t", 50, "postgres")
    # Each transaction adds its delta to an account, a teller and the branch. The branch may end
    # with what it began with; what all deltas come to, its balance must be.
    assert online.ask("SELECT count(*), sum(delta) FROM pgbench_history") == "400|" + online.ask(
        "SELECT bbalance FROM pgbench_branches"
    )
    after = online.contents()
    unchanged = [table for table in before if after[table] == before[table]]
    assert set(unchanged) <= {"pgbench_branches"}
    assert after == target.contents()
    check_report(replay)


def test_pgbench_log_ins(real: RealServers, mode: str, postgres_template: Path) -> None:
    """A connection for each transaction."""
    online, target = real.start(postgres.Postgres, template=postgres_template)
    words = ["-h", online.host.v4, "-p", PORT, "-U", "postgres", "-C", "-n", "-N"]
    with real.replay(mode) as replay:
        real.client(postgres.program("pgbench"), *words, "-c", 8, "-t", 25, "postgres")
    assert online.ask("SELECT count(*) FROM pgbench_history").split() == ["200"]
    assert online.contents() == target.contents()
    check_report(replay, 201)


def test_psql(real: RealServers, mode: str, postgres_template: Path) -> None:
    """Statements, an error, COPY and a big answer, in several sessions at once."""
    online, target = real.start(postgres.Postgres, template=postgres_template)
    words = ["-X", "-q", "-h", online.host.v4, "-p", PORT, "-U", "postgres", "-o", "/dev/null"]
    scripts = [real.directory / f"{number}.sql" for number in range(4)]
    for number, path in enumerate(scripts):
        path.write_text(postgres.script(number))
    with real.replay(mode) as replay:
        clients = [
            real.start_client(postgres.program("psql"), *words, "-f", path) for path in scripts
        ]
        assert [client.wait(20) for client in clients] == [0] * 4
    contents = online.contents()
    assert [contents[f"lab_{number}"].split()[0] for number in range(4)] == ["10090"] * 4
    assert contents == target.contents()
    check_report(replay, 4)


def test_mariadb(real: RealServers, mode: str, mariadb_template: Path) -> None:
    """Log-ins, statements, an error and a big answer, in several sessions at once."""
    online, target = real.start(mariadb.MariaDB, template=mariadb_template)
    client = [find_program("mariadb", "mariadb-client"), "--no-defaults", "--force", "--batch"]
    client += ["-h", online.host.v4, "-P", str(PORT), "-u", mariadb.USER, mariadb.DATABASE]
    with real.replay(mode) as replay:
        programs = []
        for number in range(6):
            path = real.directory / f"{number}.sql"
            path.write_text(mariadb.script(number, 100 + number))
            programs.append(real.start_client(*client, "-e", f"source {path}"))
        assert [program.wait(20) for program in programs] == [0] * 6
    contents = online.contents()
    assert contents.count("INSERT INTO `shared`") == 6
    assert contents.count("INSERT INTO `lab_5`") == 105 + 990
    assert contents == target.contents()
    check_report(replay, 6)


def test_mariadb_log_ins(real: RealServers, mode: str, mariadb_template: Path) -> None:
    """A connection for each statement, 10 at once."""
    online, target = real.start(mariadb.MariaDB, template=mariadb_template)
    for server in (online, target):
        server.ask("CREATE TABLE lab.entries (id int AUTO_INCREMENT PRIMARY KEY, word text)")
    slap = [find_program("mariadb-slap", "mariadb-client"), "--no-defaults", "-u", mariadb.USER]
    slap += ["-h", online.host.v4, "-P", str(PORT), f"--create-schema={mariadb.DATABASE}"]
    slap += ["--no-drop", "--concurrency=10", "--number-of-queries=400", "--detach=1"]
    with real.replay(mode) as replay:
        real.client(*slap, "--query=INSERT INTO entries (word) VALUES ('an entry')")
    entries = online.contents().count("an entry")
    assert entries == 400
    assert online.contents() == target.contents()
    check_report(replay)
    assert replay.report["sessions"]["captured"] > 400
