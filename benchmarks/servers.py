"""Servers of the benchmarks: each counts the requests it has read, at no cost worth naming."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from typing import ClassVar

from tcpcopy.demo.netns import Host, LabError
from tcpcopy.demo.processes import Program
from tests.lab.scenario import PORT, environment, python

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ANSWER = "x" * 200

_NGINX = """
daemon off;
user root;
worker_processes 1;
pid {directory}/pid;
error_log {directory}/error.log warn;
events {{ worker_connections 32768; }}
http {{
  access_log off;
  client_body_temp_path {directory}/bodies;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  client_max_body_size 64m;
  keepalive_requests 1000000000;
  server {{
    listen {address}:{port} backlog=4096;
    location / {{ return 200 "{answer}"; }}
    location /upload {{
      client_body_buffer_size 2m;
      proxy_pass http://unix:{directory}/taken.socket:/;
      proxy_pass_request_body off;
      proxy_set_header Content-Length "";
    }}
  }}
  server {{
    listen unix:{directory}/taken.socket;
    location / {{ return 200 "{answer}"; }}
  }}
  server {{
    listen unix:{directory}/status.socket;
    location / {{ stub_status; }}
  }}
}}
"""


def find_program(name: str, package: str) -> str:
    """Path of a program. Raises `LabError` with the package that brings it."""
    found = shutil.which(name, path=_PATH)
    if found is None:
        raise LabError(f"{name} is not there; install the Debian package {package}")
    return found


class Server:
    """One server on one host; ended with the programs of its lab."""

    NAME: ClassVar[str]
    program: Program

    def __init__(self, host: Host, directory: Path) -> None:
        self.host = host
        self.directory = directory
        directory.mkdir()

    def start(self) -> None:
        """Start it; it takes connections when this returns."""
        raise NotImplementedError

    def requests(self) -> int:
        """Requests read since the start."""
        raise NotImplementedError


class Nginx(Server):
    """A web server that answers 200 bytes to everything and keeps no log."""

    NAME = "nginx"

    def start(self) -> None:
        self._asked = 0
        configuration = self.directory / "nginx.conf"
        configuration.write_text(
            _NGINX.format(directory=self.directory, address=self.host.v4, port=PORT, answer=_ANSWER)
        )
        command = [find_program("nginx", "nginx-light"), "-e", str(self.directory / "error.log")]
        self.program = self.host.start([*command, "-c", str(configuration)], name=self.NAME)
        self.program.wait_sockets(PORT)

    def requests(self) -> int:
        """Requests whose header began to come, those for this number left out."""
        self._asked += 1
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(str(self.directory / "status.socket"))
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = b""
            while part := connection.recv(4096):
                answer += part
        return stub_status_requests(answer.decode()) - self._asked


class NginxUploads(Nginx):
    """The same for uploads: it reads a body to its end before it answers."""

    def requests(self) -> int:
        """Bodies read: each is another request, to a server within (`return` alone reads none)."""
        return super().requests() // 2


def stub_status_requests(answer: str) -> int:
    """The number of requests out of what nginx's stub_status says."""
    lines = iter(answer.splitlines())
    for line in lines:
        if line.startswith("server accepts handled requests"):
            return int(next(lines).split()[2])
    raise LabError(f"nginx gave no status: {answer[:200]!r}")


class Redis(Server):
    """A Redis that keeps nothing on disk."""

    NAME = "redis"

    def start(self) -> None:
        path = self.directory / "redis.socket"
        command = [find_program("redis-server", "redis-server"), "--port", str(PORT)]
        command += ["--bind", self.host.v4, "--protected-mode", "no", "--dir", str(self.directory)]
        command += ["--unixsocket", str(path), "--save", "", "--appendonly", "no"]
        self.program = self.host.start(command, name=self.NAME)
        self.program.wait_sockets(PORT)
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.settimeout(10)
        self._connection.connect(str(path))
        self._asked = 0

    def requests(self) -> int:
        """Commands called, those for this number left out."""
        self._connection.sendall(b"INFO stats\r\n")
        answer = b""
        while b"\r\n" not in answer:
            answer += self._connection.recv(65536)
        head, _, body = answer.partition(b"\r\n")
        while len(body) < int(head[1:]) + 2:
            body += self._connection.recv(65536)
        self._asked += 1
        for line in body.decode().splitlines():
            name, _, value = line.partition(":")
            if name == "total_commands_processed":
                return int(value) - self._asked + 1  # the one that asks is not counted yet
        raise LabError(f"redis gave no statistics: {body[:200]!r}")


class Framed(Server):
    """The tests' own server; keeps connections as long as the client does."""

    NAME = "framed"

    def start(self) -> None:
        records = self.directory / "records.jsonl"
        command = python("tests.lab.server", "--port", PORT, "--records", records)
        self.program = self.host.start(command, name=self.NAME, env=environment())
        self.program.wait_for(r"^ready")

    def requests(self) -> int:
        """Connections that are open: here, each has made one request."""
        network = Path(f"/proc/{self.program.pid}/net")
        tables = (network / name for name in ("tcp", "tcp6"))  # it listens for both
        return sum(established(table.read_text(), PORT) for table in tables if table.exists())


def established(table: str, port: int) -> int:
    """Established connections of a local port out of the text of /proc/net/tcp."""
    wanted = f":{port:04X}"
    lines = (line.split()[1:4] for line in table.splitlines()[1:])
    return sum(local.endswith(wanted) and state == "01" for local, _, state in lines)
