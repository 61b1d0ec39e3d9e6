"""Deliver through ordinary kernel sockets: non-blocking, one epoll of their own.

What the target sends is counted and thrown away without being copied (MSG_TRUNC on TCP).

Source: tcp(7) (SIOCOUTQ, MSG_TRUNC, TCP_USER_TIMEOUT), epoll(7), ip(7) (IP_BIND_ADDRESS_NO_PORT).
"""

from __future__ import annotations

import errno
import fcntl
import select
import socket
import struct
from collections.abc import Callable

from tcpcopy.engine.kernel import KernelClient, Transport

_SIOCOUTQ = 0x5411
_IP_BIND_ADDRESS_NO_PORT = 24
_LINGER_RESET = struct.pack("ii", 1, 0)
_EVENTS = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
_READABLE = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_SCRATCH_BYTES = 1 << 20
_EVENTS_AT_ONCE = 512


class SocketTransport(Transport):
    """Opens and serves the connections of one worker."""

    __slots__ = ("_by_fd", "_on_event", "_poll", "_scratch", "_user_timeout_ms", "errors", "now_ns")

    def __init__(self, on_event: Callable[[KernelClient], object], answer_timeout_ns: int) -> None:
        """`on_event` is called with each client that has been told something."""
        self._on_event = on_event
        self._poll = select.epoll()
        self._by_fd: dict[int, tuple[socket.socket, KernelClient]] = {}
        # Never touched: with MSG_TRUNC the kernel copies nothing into it.
        self._scratch = bytearray(_SCRATCH_BYTES)
        self._user_timeout_ms = min(answer_timeout_ns // 1_000_000, 0x7FFFFFFF)
        self.errors: dict[int, int] = {}  # errno -> failed connects and sends
        self.now_ns = 0

    def fileno(self) -> int:
        """Readable when `service` has something to do."""
        return self._poll.fileno()

    def connect(self, client: KernelClient) -> int:
        """Begin to connect; 0 or a negative errno."""
        try:
            return self._connect(client)
        except OSError as error:
            return -self._count(error.errno or errno.EIO)

    def _connect(self, client: KernelClient) -> int:
        family = socket.AF_INET if len(client.target_address) == 4 else socket.AF_INET6
        connection = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(
                socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, self._user_timeout_ms
            )
            if client.address:
                connection.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
                connection.bind((socket.inet_ntop(family, client.address), 0))
            host = socket.inet_ntop(family, client.target_address)
            code = connection.connect_ex((host, client.target_port))
            if code not in (0, errno.EINPROGRESS):
                connection.close()
                return -self._count(code)
            fd = connection.fileno()
            self._poll.register(fd, _EVENTS)
        except OSError:
            connection.close()
            raise
        self._by_fd[fd] = (connection, client)
        client.handle = fd
        return 0

    def send(self, client: KernelClient, data: bytes, at: int) -> int:
        """Send `data[at:]`; the bytes taken or a negative errno."""
        connection = self._by_fd[client.handle][0]
        try:
            return connection.send(memoryview(data)[at:] if at else data)
        except BlockingIOError:
            return -errno.EAGAIN
        except OSError as error:
            return -self._count(error.errno or errno.EIO)

    def shutdown(self, client: KernelClient) -> int:
        """Half-close; 0 or a negative errno."""
        try:
            self._by_fd[client.handle][0].shutdown(socket.SHUT_WR)
        except OSError as error:
            return -self._count(error.errno or errno.EIO)
        return 0

    def unacknowledged(self, client: KernelClient) -> int:
        """Bytes and FIN that the target has not acknowledged."""
        try:
            answer = fcntl.ioctl(client.handle, _SIOCOUTQ, b"\0\0\0\0")
        except OSError:
            return 0
        count: int = struct.unpack("i", answer)[0]
        return count

    def close(self, client: KernelClient, reset: bool) -> int:
        """Close, with a RST when asked for."""
        entry = self._by_fd.pop(client.handle, None)
        if entry is not None:
            connection = entry[0]
            if reset:
                try:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
                except OSError:
                    pass
            connection.close()
        return 0

    def service(self, now_ns: int) -> int:
        """Handle what has happened; the number of events."""
        self.now_ns = now_ns
        try:
            events = self._poll.poll(0, _EVENTS_AT_ONCE)
        except InterruptedError:
            return 0
        for fd, mask in events:
            entry = self._by_fd.get(fd)
            if entry is not None:
                self._handle(entry[0], entry[1], mask)
        return len(events)

    def _handle(self, connection: socket.socket, client: KernelClient, mask: int) -> None:
        if not client.established:
            code = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code == 0 and not self._is_connected(connection):
                return
            if code:
                self._count(code)
            client.on_connected(code, self.now_ns)
        if client.established and mask & _READABLE:
            self._receive(connection, client)
        if mask & select.EPOLLOUT and not client.writable and client.handle >= 0:
            client.on_writable(self.now_ns)
        self._on_event(client)

    def _is_connected(self, connection: socket.socket) -> bool:
        """An event can be left over from another connection that had the same descriptor."""
        try:
            connection.getpeername()
        except OSError:
            return False
        return True

    def _receive(self, connection: socket.socket, client: KernelClient) -> None:
        """Count what has come until there is no more."""
        total = 0
        ended = False
        failure = 0
        while True:
            try:
                count = connection.recv_into(self._scratch, _SCRATCH_BYTES, socket.MSG_TRUNC)
            except BlockingIOError:
                break
            except OSError as error:
                failure = error.errno or errno.EIO
                break
            if count == 0:
                ended = True
                break
            total += count
        if total:
            client.on_received(total, self.now_ns)
        if ended:
            client.on_end(self.now_ns)
        elif failure:
            client.on_error(failure, self.now_ns)

    def _count(self, code: int) -> int:
        self.errors[code] = self.errors.get(code, 0) + 1
        return code

    def close_all(self) -> None:
        """Close what is still open."""
        for connection, _ in self._by_fd.values():
            connection.close()
        self._by_fd.clear()
        self._poll.close()
