"""memcached: how many commands it has done, and all that is in it."""

from __future__ import annotations

import json
import sys
from typing import Self

from tests.lab.real.service import Service, find_program
from tests.lab.scenario import PORT, ROOT

_OWN_PORT = 11211  # on loopback: what the tests ask there is not replayed


class Memcached(Service):
    """A memcached with plenty of memory: nothing is evicted."""

    NAME = "memcached"

    def start(self) -> Self:
        addresses = f"{self.host.v4}:{PORT},127.0.0.1:{_OWN_PORT}"
        command = [find_program("memcached", "memcached"), "-u", "nobody", "-l", addresses]
        self._launch([*command, "-p", str(PORT), "-U", "0", "-m", "256", "-t", "2"])
        return self

    def _ask(self, what: str) -> str:
        return self.host.run(*client_command("127.0.0.1", _OWN_PORT, what))

    def progress(self) -> int:
        """Commands done until now."""
        return int(self._ask("count"))

    def items(self) -> dict[str, tuple[int, str]]:
        """Flags and SHA-256 of the value of each key."""
        return {key: (flags, digest) for key, flags, digest in json.loads(self._ask("dump"))}


def client_command(*arguments: object) -> list[str]:
    """Command line of `memcached_client`."""
    python = ["env", f"PYTHONPATH={ROOT}", sys.executable]
    return [*python, "-m", "tests.lab.real.memcached_client", *map(str, arguments)]
