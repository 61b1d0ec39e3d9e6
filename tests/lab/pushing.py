"""Two ends that do not take turns: a server that speaks unasked, and clients that react to it.

    python -m tests.lab.pushing serve --port 8080 --records FILE --lines 100 --every-ms 10
    python -m tests.lab.pushing react HOST PORT --acks --pings 5
    python -m tests.lab.pushing upload HOST PORT --bytes 1000000

The server prints `ready`, and writes one JSON line for each connection that has ended: what it read
(bytes, lines by their first word) and how the connection ended.
"""

from __future__ import annotations

import argparse
import collections
import json
import selectors
import signal
import socket
import struct
import sys
import threading
import time
from pathlib import Path

_NO_LINGER = struct.pack("ii", 1, 0)
_LINE = b"line 12\n"
_ANSWER = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n"


def _serve_one(connection: socket.socket, options: argparse.Namespace) -> dict[str, object]:
    """Push, answer and read to the client's end; the account."""
    read, answered = bytearray(), False
    pushed, due = 0, time.monotonic()
    ended = "open"
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        while ended == "open":
            wait = None
            if pushed < options.lines:
                wait = max(0.0, due - time.monotonic())
            if selector.select(wait):
                try:
                    data = connection.recv(1 << 16)
                except ConnectionResetError:
                    ended = "rst"
                    break
                read += data
                if not data:
                    ended = "fin"
            while pushed < options.lines and time.monotonic() >= due:
                connection.sendall(_LINE)
                pushed += 1
                due += options.every_ms / 1000
            if options.answer_after and not answered and len(read) >= options.answer_after:
                connection.sendall(_ANSWER)
                answered = True
    if options.end == "reset":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    connection.close()
    words = collections.Counter(line.split()[0].decode() for line in read.splitlines() if line)
    return {"bytes": len(read), "ended": ended, "pushed": pushed,
            "words": dict(words) if options.lines else {}}  # fmt: skip


def serve(options: argparse.Namespace) -> int:
    """Serve until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    lock = threading.Lock()

    def handle(connection: socket.socket) -> None:
        record = _serve_one(connection, options)
        with lock, options.records.open("a") as file:
            file.write(json.dumps(record) + "\n")

    listener = socket.create_server(("", options.port), backlog=256)
    print("ready", flush=True)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=handle, args=(connection,), daemon=True).start()


def react(options: argparse.Namespace) -> int:
    """Acknowledge each line that comes with one of our own; then send pings by the clock."""
    with socket.create_connection((options.host, options.port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        waiting = b""
        for _ in range(options.lines):
            while b"\n" not in waiting:
                waiting += connection.recv(4096)
            _, _, waiting = waiting.partition(b"\n")
            connection.sendall(b"ack\n")
        for _ in range(options.pings):
            time.sleep(options.every_ms / 1000)
            connection.sendall(b"ping\n")
        time.sleep(options.every_ms / 1000)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):
            pass
    return 0


def upload(options: argparse.Namespace) -> int:
    """Send a body whatever the server says meanwhile, as curl does: 64 KiB a write."""
    body = bytes(options.bytes)
    with socket.create_connection((options.host, options.port)) as connection:
        for start in range(0, len(body), 1 << 16):
            connection.sendall(body[start : start + (1 << 16)])
            time.sleep(options.every_ms / 1000)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):
            pass
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Ends that do not take turns")
    commands = parser.add_subparsers(required=True)
    server = commands.add_parser("serve")
    server.add_argument("--port", type=int, required=True)
    server.add_argument("--records", type=Path, required=True)
    server.add_argument("--lines", type=int, default=0, help="pushed, one by one")
    server.add_argument("--every-ms", type=float, default=10)
    server.add_argument("--answer-after", type=int, default=0, help="bytes read; 0: never")
    server.add_argument("--end", choices=("close", "reset"), default="close")
    server.set_defaults(run=serve)
    for run in (react, upload):
        client = commands.add_parser(run.__name__)
        client.add_argument("host")
        client.add_argument("port", type=int)
        client.add_argument("--lines", type=int, default=0, help="expected, each acknowledged")
        client.add_argument("--pings", type=int, default=0)
        client.add_argument("--every-ms", type=float, default=0)
        client.add_argument("--bytes", type=int, default=0)
        client.set_defaults(run=run)
    return parser


def main() -> int:
    options = _parser().parse_args()
    code: int = options.run(options)
    return code


if __name__ == "__main__":
    sys.exit(main())
