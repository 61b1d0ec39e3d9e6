"""Redis: the data set as its own digest, and how often each command was called."""

from __future__ import annotations

import re
from typing import Self

from tests.lab.real.service import Service, find_program, run
from tests.lab.scenario import PORT

# Asked for by the tests themselves.
_OWN_COMMANDS = ("info", "debug")


class Redis(Service):
    """A Redis that keeps nothing on disk."""

    NAME = "redis"

    def start(self) -> Self:
        self._socket = str(self.directory / "redis.socket")
        command = [find_program("redis-server", "redis-server"), "--port", str(PORT)]
        command += ["--bind", self.host.v4, "--protected-mode", "no", "--dir", str(self.directory)]
        command += ["--unixsocket", self._socket, "--save", "", "--appendonly", "no"]
        command += ["--enable-debug-command", "local"]
        self._launch(command)
        return self

    def ask(self, *command: str) -> str:
        """Answer to a command, asked past the network."""
        return run(find_program("redis-cli", "redis-tools"), "-s", self._socket, *command)

    def calls(self) -> dict[str, int]:
        """How often each command was called over the network."""
        found = re.findall(r"^cmdstat_(\S+?):calls=(\d+)", self.ask("INFO", "commandstats"), re.M)
        return {name: int(count) for name, count in found if name not in _OWN_COMMANDS}

    def progress(self) -> int:
        """Commands called until now."""
        return sum(self.calls().values())

    def digest(self) -> str:
        """Hash of all keys and values; does not depend on the order in which they were set."""
        return self.ask("DEBUG", "DIGEST").strip()

    def keys(self) -> int:
        """How many keys there are."""
        return int(self.ask("DBSIZE"))
