"""PostgreSQL with trust: whoever connects is let in, so a log-in can be replayed."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path
from typing import ClassVar, Self

from tcpcopy.demo.netns import Host
from tcpcopy.demo.processes import LabError
from tests.lab.real.service import Service, as_user, find_program, run
from tests.lab.scenario import PORT

_PACKAGE = "postgresql"
_PROGRAMS = "usr/lib/postgresql/*/bin"
_USER = "postgres"
_SETTINGS = {
    "port": PORT,
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "shared_buffers": "32MB",
    "autovacuum": "off",
    "jit": "off",
    "log_min_messages": "warning",
}


def program(name: str) -> str:
    """Path of one of PostgreSQL's programs: itself, not Debian's wrapper."""
    return find_program(name, _PACKAGE, _PROGRAMS)


def make_template(directory: Path) -> Path:
    """Make a data directory with pgbench's tables below `directory`, and return it.

    All users must be able to enter `directory`. Servers are started on copies of it.
    """
    home = directory / "postgres"
    home.mkdir()
    shutil.chown(home, _USER, _USER)
    data = home / "data"
    run(
        *as_user(_USER, program("initdb"), "-D", str(data), "--auth=trust", "--no-sync"),
        *("--wal-segsize=1", "--encoding=UTF8", "--locale=C", "--no-instructions"),
        timeout=60,
    )
    with (data / "pg_hba.conf").open("a") as rules:
        rules.write("host all all all trust\n")
    with (data / "postgresql.conf").open("a") as settings:
        settings.writelines(f"{key} = '{value}'\n" for key, value in _SETTINGS.items())
    control = as_user(_USER, program("pg_ctl"), "-D", str(data), "-w", "-s")
    sockets = f"-c listen_addresses= -c unix_socket_directories={home}"
    run(*control, "-l", str(home / "log"), "-o", sockets, "start", timeout=60)
    try:
        fill = [program("pgbench"), "-h", str(home), "-p", str(PORT), "-U", _USER]
        run(*fill, "-i", "-q", "-s", "1", _USER, timeout=60)
    finally:
        run(*control, "-m", "fast", "stop", timeout=60)
    return data


class Postgres(Service):
    """A PostgreSQL on a copy of `template`."""

    NAME = "postgres"
    END: ClassVar[int] = signal.SIGQUIT  # at once: the data are not needed any more

    def __init__(self, host: Host, directory: Path, *, template: Path) -> None:
        super().__init__(host, directory)
        self._template = template

    def start(self) -> Self:
        shutil.chown(self.directory, _USER, _USER)
        data = self.directory / "data"
        run("cp", "-a", "--reflink=auto", str(self._template), str(data))
        command = [program("postgres"), "-D", str(data), "-k", str(self.directory)]
        self._launch(as_user(_USER, *command, "-h", self.host.v4, ends_with="QUIT"))
        deadline = time.monotonic() + 10
        while True:  # it listens before it lets anybody in
            try:
                self.ask("SELECT 1")
                return self
            except LabError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def ask(self, query: str) -> str:
        """Answer to a query, asked past the network."""
        psql = [program("psql"), "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1"]
        return run(*psql, "-h", str(self.directory), "-p", str(PORT), "-U", _USER, "-c", query)

    def _tables(self) -> list[str]:
        condition = "schemaname = 'public' ORDER BY tablename"
        return self.ask(f"SELECT tablename FROM pg_tables WHERE {condition}").split()

    def progress(self) -> int:
        """Rows in all tables; pgbench adds one with each transaction."""
        counts = " + ".join(f"(SELECT count(*) FROM {table})" for table in self._tables())
        return int(self.ask(f"SELECT {counts}"))

    def contents(self) -> dict[str, str]:
        """For each table, number of rows and sum of their hashes, times excepted."""
        rows = {"pgbench_history": "(SELECT tid, bid, aid, delta FROM pgbench_history)"}
        digest = "SELECT count(*) || ' ' || sum(hashtextextended(t::text, 0)) FROM {} AS t"
        return {name: self.ask(digest.format(rows.get(name, name))) for name in self._tables()}


def script(number: int) -> str:
    """What one psql does: tables, statements, an error, 1 MB in by COPY and 1 MB out."""
    copied = "".join(f"{n}\t{number}-{n * 7919 % 10007}-{'x' * 80}\n" for n in range(10_000))
    return f"""
        CREATE TABLE lab_{number} (id int PRIMARY KEY, word text);
        COPY lab_{number} FROM STDIN;
{copied}\\.
        PREPARE change (int, text) AS UPDATE lab_{number} SET word = $2 WHERE id = $1;
        EXECUTE change (17, 'seventeen');
        BEGIN; DELETE FROM lab_{number} WHERE id < 100; ROLLBACK;
        BEGIN; DELETE FROM lab_{number} WHERE id >= 9990; COMMIT;
        SELECT 1 / (id - id) FROM lab_{number};
        SELECT * FROM lab_{number} ORDER BY id;
        INSERT INTO lab_{number} SELECT n, md5(n::text) FROM generate_series(10000, 10099) AS n;
        SELECT count(*), sum(length(word)) FROM lab_{number};
    """
