"""dnsmasq: a name server that answers out of its own configuration and logs every question."""

from __future__ import annotations

import re
from collections import Counter
from typing import Self

from tests.lab.real.service import Service, find_program
from tests.lab.scenario import PORT


class Dnsmasq(Service):
    """Answers for `*.example`; UDP and TCP."""

    NAME = "dnsmasq"

    def start(self) -> Self:
        self.log = self.directory / "queries.log"
        command = [
            find_program("dnsmasq", "dnsmasq-base"), "--keep-in-foreground", "--no-resolv",
            "--no-hosts", "--conf-file=/dev/null", "--user=root", f"--port={PORT}", "--log-queries",
            f"--log-facility={self.log}", "--address=/example/10.1.2.3", "--pid-file=",
        ]  # fmt: skip
        self._launch(command)
        return self

    def queries(self) -> Counter[str]:
        """Each question, as its type and name, with how often it was asked."""
        text = self.log.read_text() if self.log.exists() else ""
        return Counter(re.findall(r"query(\[\w+\] \S+) from", text))

    def progress(self) -> int:
        """Questions until now."""
        return self.queries().total()
