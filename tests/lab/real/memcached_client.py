"""A client for memcached that knows what every answer has to be.

Run as `python -m tests.lab.real.memcached_client HOST PORT load --connections 20 --requests 300`,
or with `dump`, which prints all items as JSON, or `count`, which prints the commands done.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import socket
import sys
import threading

SHARED = "shared-counter"
BIG = 300_000
_END = b"END\r\n"


class Client:
    """One connection. Raises `ValueError` on an answer that is not the one expected."""

    def __init__(self, address: str, port: int) -> None:
        self._socket = socket.create_connection((address, port), timeout=20)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile("rb")

    def send(self, data: bytes) -> None:
        """Send commands without waiting for an answer."""
        self._socket.sendall(data)

    def ask(self, data: bytes, expected: bytes) -> None:
        """Send a command; its answer must be the line `expected`."""
        self.send(data)
        self.expect(expected)

    def expect(self, expected: bytes) -> None:
        """Read a line, which must be `expected`."""
        line = self.line()
        if line != expected:
            raise ValueError(f"{line[:80]!r} instead of {expected!r}")

    def line(self) -> bytes:
        """Read a line; b"" at the end of the stream."""
        return self._file.readline().removesuffix(b"\r\n")

    def lines(self, command: bytes) -> list[list[str]]:
        """All lines of an answer that ends with END, split into words."""
        self.send(command + b"\r\n")
        lines = []
        while (line := self._file.readline()) != _END:
            if not line.endswith(b"\n"):  # metadump ends its lines with that alone
                raise ValueError(f"{command!r}: the answer ends with {line[:80]!r}")
            lines.append(line.decode().split())
        return lines

    def get(self, *keys: str) -> dict[str, tuple[int, bytes]]:
        """Flags and values of those keys that are there, asked for in one command."""
        self.send(f"get {' '.join(keys)}\r\n".encode())
        found = {}
        while (line := self._file.readline()) != _END:
            _, key, flags, length = line.split()
            found[key.decode()] = int(flags), self._file.read(int(length))
            self.expect(b"")
        return found

    def close(self) -> None:
        """Close the connection."""
        self._file.close()
        self._socket.close()


def _set(key: str, flags: int, value: bytes, end: str = "", verb: str = "set") -> bytes:
    return f"{verb} {key} {flags} 0 {len(value)}{end}\r\n".encode() + value + b"\r\n"


def _converse(client: Client, number: int, requests: int) -> None:
    """One connection's commands: on keys of its own, and on a counter that all share."""
    draw = random.Random(number)
    mine: dict[str, tuple[int, bytes]] = {}
    client.send(_set(SHARED, 0, b"0", verb="add"))
    if client.line() not in (b"STORED", b"NOT_STORED"):  # stored for the first connection
        raise ValueError("add: neither stored nor not")
    for _ in range(requests):
        key, flags = f"{number}-{draw.randrange(40)}", draw.randrange(1 << 16)
        value = draw.randbytes(draw.randrange(3000))
        action = draw.choice(("set", "get", "get", "append", "delete", "burst", "incr", "big"))
        if action == "set" or (action == "append" and key not in mine):
            client.ask(_set(key, flags, value), b"STORED")
            mine[key] = flags, value
        elif action == "append":
            client.ask(_set(key, 0, b"+more", verb="append"), b"STORED")
            mine[key] = mine[key][0], mine[key][1] + b"+more"
        elif action == "get":
            keys = [f"{number}-{draw.randrange(40)}" for _ in range(draw.randrange(1, 8))]
            if client.get(*keys) != {key: mine[key] for key in keys if key in mine}:
                raise ValueError(f"get {keys}: not what was set")
        elif action == "delete":
            answer = b"DELETED" if mine.pop(key, None) else b"NOT_FOUND"
            client.ask(f"delete {key}\r\n".encode(), answer)
        elif action == "burst":  # without answers, and a command behind that has one
            client.send(b"".join(_set(key, n, value[:n], " noreply") for n in range(20)))
            client.ask(_set(key, flags, value), b"STORED")
            mine[key] = flags, value
        elif action == "incr":
            client.send(f"incr {SHARED} {1 + number}\r\n".encode())
            if not client.line().isdigit():
                raise ValueError("incr: not a number")
        elif draw.random() < 0.1:
            value = draw.randbytes(BIG)
            client.ask(_set(key, flags, value), b"STORED")
            mine[key] = flags, value
    if number % 2:
        client.send(b"quit\r\n")
        client.expect(b"")
    client.close()


def _load(address: str, port: int, connections: int, requests: int) -> int:
    """Talk over several connections at once; 1 if any of them failed, which is printed."""
    failures: list[str] = []

    def converse(number: int) -> None:
        try:
            _converse(Client(address, port), number, requests)
        except (OSError, ValueError) as error:
            failures.append(f"connection {number}: {error}")

    threads = [threading.Thread(target=converse, args=(n,)) for n in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("\n".join(failures), file=sys.stderr)
    return 1 if failures else 0


def _dump(client: Client) -> list[tuple[str, int, str]]:
    """Key, flags and SHA-256 of the value of all items."""
    keys = [line[0].removeprefix("key=") for line in client.lines(b"lru_crawler metadump all")]
    found = client.get(*keys) if keys else {}
    return [
        (key, flags, hashlib.sha256(value).hexdigest()) for key, (flags, value) in found.items()
    ]


def _count(client: Client) -> int:
    """Commands that the server counts, each kind by itself."""
    wanted = ("cmd_", "incr_", "decr_", "delete_")
    return sum(
        int(value)
        for _, name, value in client.lines(b"stats")
        if name.startswith(wanted) and name != "cmd_meta"
    )


def main() -> int:
    """Command line; the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("action", choices=("load", "dump", "count"))
    parser.add_argument("--connections", type=int, default=20)
    parser.add_argument("--requests", type=int, default=300)
    options = parser.parse_args()
    if options.action == "load":
        return _load(options.address, options.port, options.connections, options.requests)
    client = Client(options.address, options.port)
    print(json.dumps(_dump(client)) if options.action == "dump" else _count(client))
    client.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
