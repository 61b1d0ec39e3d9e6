"""The demonstration's traffic: the web server, the load, and what the access logs say of it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tcpcopy.demo.netns import Host
from tcpcopy.demo.processes import Program

PORT = 8080
SIZES = (200, 2000, 700, 20000, 1400, 100000)  # bytes of the answers, in turn
PAUSE_MS = (10, 40)  # between an answer and the next request of a client
CLOSE_EVERY = 40  # every so many requests, one ends its connection
_IDLE_S = 1  # wrk's connections rest before it cuts them, so that no answer is cut

Session = tuple[str, ...]  # what the server logged of one connection's requests, in order

# One line for each request: connection, number on it, bytes of the request, its first line.
_NGINX = """
daemon off;
user root;
worker_processes 1;
pid {directory}/pid;
error_log {directory}/error.log warn;
events {{ worker_connections 8192; }}
http {{
  log_format sessions '$connection $connection_requests $request_length $request';
  access_log {directory}/access.log sessions;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  server {{ listen {address}:{port} backlog=4096; location / {{ root {directory}/www; }} }}
}}
"""

# wrk's own connections stop sending a little before its time is over: it cuts them otherwise with
# requests under way, which a server may log or not.
_WRK = """
local sizes, count, start = {{ {sizes} }}, 0, os.time()
init = function(args) math.randomseed(1) end
request = function()
  count = count + 1
  local headers = {{}}
  if count % {close_every} == 0 then headers["Connection"] = "close" end
  local size = sizes[count % #sizes + 1]
  return wrk.format("GET", "/" .. size .. ".bin?n=" .. count, headers)
end
delay = function()
  if os.time() - start >= {seconds} then return 3600000 end
  return math.random({low}, {high})
end
"""


@dataclass(slots=True)
class WebServer:
    """A running web server and its access log."""

    program: Program
    log_path: Path
    _offset: int = 0
    _lines: int = 0

    def requests(self) -> int:
        """Requests logged until now."""
        with self.log_path.open("rb") as log:
            log.seek(self._offset)
            new = log.read()
        self._offset += len(new)
        self._lines += new.count(b"\n")
        return self._lines

    def sessions(self) -> list[Session]:
        """All sessions, each as the lines of its requests."""
        return parse_log(self.log_path.read_text())


def parse_log(text: str) -> list[Session]:
    """Sessions of an access log; a line is "connection number bytes first-line-of-request"."""
    sessions: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for line in text.splitlines():
        connection, number, request = line.split(" ", 2)
        sessions[connection].append((int(number), request))
    return [tuple(request for _, request in sorted(lines)) for lines in sessions.values()]


def match(online: Sequence[Session], target: Sequence[Session]) -> tuple[int, int, int]:
    """Count sessions that are (the same at both, online's only, the target's only)."""
    left, right = Counter(online), Counter(target)
    same = (left & right).total()
    return same, left.total() - same, right.total() - same


class Nginx:
    """The web server, where it is installed."""

    @staticmethod
    def describe() -> str:
        """Name and version; empty if it is not installed."""
        if shutil.which("nginx") is None:
            return ""
        done = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=False)
        return done.stderr.strip().removeprefix("nginx version: ").replace("/", " ")

    @staticmethod
    def start(host: Host, directory: Path) -> WebServer:
        """Start it on `host` with all its files in `directory`, which is made."""
        pages = directory / "www"
        pages.mkdir(parents=True)
        for size in SIZES:
            (pages / f"{size}.bin").write_bytes(bytes(size))
        configuration = directory / "nginx.conf"
        configuration.write_text(
            _NGINX.format(directory=directory, address=host.v4, port=PORT), encoding="ascii"
        )
        log_path = directory / "access.log"
        log_path.touch()
        error_log = str(directory / "error.log")
        program = host.start(
            ["nginx", "-e", error_log, "-p", str(directory), "-c", str(configuration)],
            name="nginx",
        )
        return WebServer(program, log_path)


class PythonServer:
    """The web server where there is no nginx."""

    @staticmethod
    def describe() -> str:
        return "Python web server"

    @staticmethod
    def start(host: Host, directory: Path) -> WebServer:
        """Start it on `host` with its log in `directory`, which is made."""
        directory.mkdir(parents=True)
        log_path = directory / "access.log"
        log_path.touch()
        command = [sys.executable, "-m", "tcpcopy.demo.webserver"]
        program = host.start([*command, host.v4, str(PORT), str(log_path)], name="webserver")
        return WebServer(program, log_path)


def start_load(client: Host, address: str, clients: int, seconds: int, *, wrk: bool) -> Program:
    """Start the load from `client`: `clients` connections for `seconds`, then a second of rest."""
    if not wrk:
        command = [sys.executable, "-m", "tcpcopy.demo.load"]
        return client.start([*command, address, str(PORT), str(clients), str(seconds)], name="load")
    script = client.lab.directory / "load.lua"
    script.write_text(
        _WRK.format(
            sizes=", ".join(map(str, SIZES)),
            close_every=CLOSE_EVERY,
            seconds=seconds,
            low=PAUSE_MS[0],
            high=PAUSE_MS[1],
        ),
        encoding="ascii",
    )
    command = ["wrk", "-t", "1", "-c", str(clients), "-d", f"{seconds + _IDLE_S}s"]
    return client.start([*command, "-s", str(script), f"http://{address}:{PORT}/"], name="wrk")
