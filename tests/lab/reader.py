"""A server on loopback that keeps what it read, connection by connection."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator


class Server:
    """Reads each connection to its end, answers `ok` to each read, and keeps what it read."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.streams: list[bytes] = []  # of the connections that have ended
        self.threads: list[threading.Thread] = []
        self.accepting = threading.Thread(target=self._accept)
        self.accepting.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:  # `stop` has shut it down
                return
            thread = threading.Thread(target=self._serve, args=(connection,))
            thread.start()
            self.threads.append(thread)

    def _serve(self, connection: socket.socket) -> None:
        received = b""
        connection.settimeout(30)
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(65536):
                received += data
                connection.sendall(b"ok\n")
        self.streams.append(received)

    def stop(self) -> list[bytes]:
        """What was read, once all connections have ended. May be called twice."""
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.accepting.join(30)
        self.listener.close()
        for thread in self.threads:
            thread.join(30)
        return sorted(self.streams)


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """A server that is stopped whatever comes."""
    server = Server()
    try:
        yield server
    finally:
        server.stop()
