"""MariaDB with a user who has an empty password: its log-in is the same whatever the salt is."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import ClassVar, Self

from tcpcopy.demo.netns import Host
from tests.lab.real.service import Service, find_program, run
from tests.lab.scenario import PORT

DATABASE = USER = "lab"
_OPTIONS = (
    "--skip-name-resolve",
    "--innodb-log-file-size=4M",
    "--innodb-buffer-pool-size=16M",
    "--innodb-flush-log-at-trx-commit=0",
    "--skip-log-bin",
    # Sessions overlap more where the target is slower than online: it must not run out of room.
    "--max-connections=2000",
    "--back-log=2000",
)
_INIT = f"""
CREATE USER '{USER}'@'%' IDENTIFIED VIA mysql_native_password USING '';
GRANT ALL ON *.* TO '{USER}'@'%';
CREATE DATABASE {DATABASE};
"""


def make_template(directory: Path) -> Path:
    """Make a data directory below `directory`, and return it. Servers are started on copies."""
    data = directory / "mariadb"
    data.mkdir()
    shutil.chown(data, "mysql", "mysql")
    run(
        find_program("mariadb-install-db", "mariadb-server"),
        *("--no-defaults", f"--datadir={data}", "--user=mysql", "--skip-test-db"),
        *("--auth-root-authentication-method=normal", *_OPTIONS),
        timeout=60,
    )
    return data


class MariaDB(Service):
    """A MariaDB on a copy of `template`."""

    NAME = "mariadb"
    END: ClassVar[int] = signal.SIGKILL  # the data are not needed any more

    def __init__(self, host: Host, directory: Path, *, template: Path) -> None:
        super().__init__(host, directory)
        self._template = template
        self._socket = str(directory / "socket")

    def start(self) -> Self:
        shutil.chown(self.directory, "mysql", "mysql")
        data, init = self.directory / "data", self.directory / "init.sql"
        run("cp", "-a", "--reflink=auto", str(self._template), str(data))
        init.write_text(_INIT)
        command = [find_program("mariadbd", "mariadb-server"), "--no-defaults", "--user=mysql"]
        command += [f"--datadir={data}", f"--socket={self._socket}", f"--init-file={init}"]
        command += [f"--tmpdir={self.directory}", f"--pid-file={self.directory}/pid"]
        command += [f"--bind-address={self.host.v4}", f"--port={PORT}", *_OPTIONS]
        self._launch(command)
        return self

    def _client(self, program: str, *arguments: str) -> str:
        command = [find_program(program, "mariadb-client"), "--no-defaults"]
        return run(*command, f"--socket={self._socket}", f"--user={USER}", *arguments)

    def ask(self, query: str) -> str:
        """Answer to a query, asked past the network."""
        return self._client("mariadb", "--batch", "--skip-column-names", "-e", query)

    def _tables(self) -> list[str]:
        return self.ask(f"SHOW TABLES FROM {DATABASE}").split()

    def progress(self) -> int:
        """Rows in all tables."""
        counts = " + ".join(f"(SELECT count(*) FROM {DATABASE}.{t})" for t in self._tables())
        return int(self.ask(f"SELECT {counts or 0}"))

    def contents(self) -> str:
        """All tables and rows, as statements that make them."""
        options = ("--skip-comments", "--order-by-primary", "--skip-extended-insert")
        return self._client("mariadb-dump", *options, DATABASE)


def script(number: int, rows: int) -> str:
    """What one client does on a table of its own and on one that all share."""
    values = [f"({n}, '{number}-{n * 7919 % 10007}-{'x' * 60}')" for n in range(rows)]
    inserts = "".join(f"INSERT INTO lab_{number} VALUES {value};\n" for value in values)
    many = ",".join(f"({n + 100_000}, '{'y' * 200}')" for n in range(1000))
    return f"""
        CREATE TABLE IF NOT EXISTS shared (id int PRIMARY KEY, client int);
        CREATE TABLE lab_{number} (id int PRIMARY KEY, word varchar(250));
        {inserts}
        INSERT INTO lab_{number} VALUES {many};
        SELECT * FROM lab_{number} ORDER BY id;
        PREPARE change FROM 'UPDATE lab_{number} SET word = ? WHERE id = ?';
        SET @word = 'seventeen', @id = 17;
        EXECUTE change USING @word, @id;
        SELECT no_such_column FROM lab_{number};
        BEGIN; DELETE FROM lab_{number} WHERE id < 100; ROLLBACK;
        BEGIN; DELETE FROM lab_{number} WHERE id >= 100990; COMMIT;
        INSERT INTO shared VALUES ({number}, {number});
        SELECT count(*), sum(length(word)) FROM lab_{number};
    """
