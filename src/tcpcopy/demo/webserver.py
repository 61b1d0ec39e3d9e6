"""A small HTTP/1.1 server for machines without nginx; the same access log.

Run as `python -m tcpcopy.demo.webserver ADDRESS PORT LOG`. Answers GET /N.bin with N bytes, keeps
connections open unless the client asks for their end. Prints `ready`.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import sys
from collections.abc import Sequence
from typing import TextIO

_HEAD_END = b"\r\n\r\n"
_LONGEST_HEAD = 16384
_SIZE = re.compile(rb"GET /(\d{1,7})\.bin[? ]")
_BODY = bytes(range(256)) * 4096  # a mebibyte
_numbers = itertools.count(1)


class Connection(asyncio.Protocol):
    """Requests of one connection, one after the other."""

    def __init__(self, log: TextIO) -> None:
        self.log = log
        self.number = next(_numbers)
        self.requests = 0
        self.received = b""
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        while _HEAD_END in self.received:
            head, _, self.received = self.received.partition(_HEAD_END)
            self._answer(head)
        if len(self.received) > _LONGEST_HEAD and self.transport is not None:
            self.transport.close()

    def _answer(self, head: bytes) -> None:
        assert self.transport is not None
        self.requests += 1
        line = head.split(b"\r\n", 1)[0]
        found = _SIZE.match(line)
        body = _BODY[: int(found.group(1))] if found else b"not here\n"
        status = b"200 OK" if found else b"404 Not Found"
        closing = b"connection: close" in head.lower()
        self.transport.write(
            b"HTTP/1.1 %s\r\nServer: tcpcopy-demo\r\nContent-Length: %d\r\n%s\r\n"
            % (status, len(body), b"Connection: close\r\n" if closing else b"")
            + body
        )
        shown = line.decode("ascii", "backslashreplace")
        self.log.write(f"{self.number} {self.requests} {len(head) + 4} {shown}\n")
        if closing:
            self.transport.close()


async def serve(address: str, port: int, log: TextIO) -> None:
    """Serve until the program is ended."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(log), address, port, backlog=4096)
    print("ready", flush=True)
    async with server:
        await server.serve_forever()


def main(argv: Sequence[str]) -> int:
    address, port, path = argv
    with open(path, "a", buffering=1) as log:
        asyncio.run(serve(address, int(port), log))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
