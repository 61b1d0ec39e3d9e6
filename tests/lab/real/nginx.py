"""nginx: an access log of whole sessions, files to fetch, a place to send files to."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Self

from tcpcopy.demo.netns import Host
from tcpcopy.demo.traffic import Session, parse_log
from tests.lab.real.service import Service, find_program
from tests.lab.scenario import PORT

MEBIBYTE = 1 << 20

# One line for each request, as `parse_log` has it: connection, number on it, then what is compared.
# Bodies are PUT: a sink that made nginx read what was POSTed answered 502 at times.
_CONFIGURATION = """
daemon off;
user root;
worker_processes 1;
pid {directory}/pid;
error_log {directory}/error.log warn;
events {{ worker_connections 8192; }}
http {{
  log_format sessions '$connection $connection_requests $request_length {logged}';
  access_log {directory}/access.log sessions;
  client_body_temp_path {directory}/bodies;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  client_max_body_size 16m;
  keepalive_requests {keepalive_requests};
  {settings}
  server {{
    listen {address}:{port} {protocol} backlog=4096;
    location / {{ {serves} }}
    location /upload {{ root {directory}/put; dav_methods PUT; create_full_put_path on; }}
  }}
}}
"""


class Nginx(Service):
    """A web server. `answers`: compare also status and length of what was answered.

    `settings`: more of nginx's own, for all it serves. `failing`: every page is a 500.
    """

    NAME = "nginx"

    def __init__(
        self,
        host: Host,
        directory: Path,
        *,
        keepalive_requests: int = 1_000_000,
        answers: bool = True,
        http2: bool = False,
        settings: str = "",
        failing: bool = False,
    ) -> None:
        super().__init__(host, directory)
        self.log_path = directory / "access.log"
        self._configuration = _CONFIGURATION.format(
            directory=directory,
            address=host.v4,
            port=PORT,
            keepalive_requests=keepalive_requests,
            protocol="http2" if http2 else "",
            settings=settings,
            serves="return 500;" if failing else f"root {directory}/www;",
            logged="$request $status $body_bytes_sent" if answers else "$request",
        )
        self._offset = self._lines = 0

    def start(self) -> Self:
        pages = self.directory / "www"
        pages.mkdir()
        (self.directory / "put").mkdir()
        (pages / "small").write_bytes(bytes(range(200)))
        (pages / "big").write_bytes(random.Random(1).randbytes(MEBIBYTE))
        configuration = self.directory / "nginx.conf"
        configuration.write_text(self._configuration)
        self.log_path.touch()
        command = [find_program("nginx", "nginx-light"), "-e", str(self.directory / "error.log")]
        self._launch([*command, "-p", str(self.directory), "-c", str(configuration)])
        return self

    def progress(self) -> int:
        """Requests logged until now."""
        with self.log_path.open("rb") as log:
            log.seek(self._offset)
            new = log.read()
        self._offset += len(new)
        self._lines += new.count(b"\n")
        return self._lines

    def sessions(self) -> list[Session]:
        """What was logged of each connection, sorted. Ends the server: its log is complete."""
        self.stop()
        return sorted(parse_log(self.log_path.read_text()))

    def bodies(self) -> list[str]:
        """SHA-256 of each uploaded body, sorted."""
        files = (path for path in (self.directory / "put").rglob("*") if path.is_file())
        return sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in files)


def wrk_script(directory: Path, *, close: bool = False) -> Path:
    """A script for wrk: every request has its own number, so that each is known at the target."""
    path = directory / "load.lua"
    headers = "Host: lab\\r\\n" + ("Connection: close\\r\\n" if close else "")
    path.write_text(
        "local threads = 0\n"
        "function setup(thread) threads = threads + 1 thread:set('thread', threads) end\n"
        "local count = 0\n"
        "request = function() count = count + 1\n"
        f" return 'GET /small?' .. thread .. '-' .. count .. ' HTTP/1.1\\r\\n{headers}\\r\\n' end\n"
    )
    return path
