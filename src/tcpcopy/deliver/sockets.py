"""Deliver through ordinary kernel sockets: non-blocking, one epoll of their own.

What the target sends is counted and thrown away without being copied (MSG_TRUNC on TCP), but for
the first bytes of an answer, which say what kind of answer it is. What a connect lacks on this host
it waits for in line (`lines`); which local port it has, `ports` says. Of several local addresses
one that has no port left is passed over.

Source: tcp(7) (SIOCOUTQ, MSG_TRUNC, TCP_USER_TIMEOUT), epoll(7), ip(7) (IP_BIND_ADDRESS_NO_PORT,
IP_LOCAL_PORT_RANGE), socket(7) (SO_REUSEADDR).
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import select
import socket
import struct
from collections.abc import Callable, Sequence

from tcpcopy.deliver.lines import MENDED_BY_WAITING, Lines
from tcpcopy.deliver.ports import FULL_NS, LocalPorts, PortUse, read_settings
from tcpcopy.engine.kernel import KernelClient, Transport
from tcpcopy.said.answer import LOOKED_AT

_SIOCOUTQ = 0x5411
_IP_BIND_ADDRESS_NO_PORT = 24
_IP_LOCAL_PORT_RANGE = 51
_PORTS_AT_ONCE = 4  # resting ports that one connect tries
_ADDRESSES_AT_ONCE = 16  # local addresses that one connect tries
_LINGER_RESET = struct.pack("ii", 1, 0)
# EPOLLPRI: a read that stops at an urgent byte is short, though more stands behind it.
_EVENTS = select.EPOLLIN | select.EPOLLPRI | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
_NOT_DATA_ALONE = select.EPOLLPRI | select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_READABLE = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_SCRATCH_BYTES = 1 << 20
_EVENTS_AT_ONCE = 512


class SocketTransport(Transport):
    """Opens and serves the connections of one worker."""

    __slots__ = (
        "_by_fd",  # the socket, its client, the ports that it is one of, whether it was bound to it
        "_on_event",
        "_poll",
        "_range_families",  # of addresses, whose sockets take a range of ports
        "_scratch",
        "_user_timeout_ms",
        "errors",  # errno: failed connects and sends
        "lines",
        "now_ns",
        "ports",
    )

    def __init__(
        self,
        on_event: Callable[[KernelClient], object],
        answer_timeout_ns: int,
        connect_timeout_ns: int = 20_000_000_000,
        local_addresses: Sequence[bytes] = (),
        workers: int = 1,
    ) -> None:
        """`on_event` is called with each client that has been told something.

        A connect waits for what this host lacks as long as for an answer, for a route as long as
        for the target. `workers`: that share this host's ports.
        """
        self._on_event = on_event
        self._poll = select.epoll()
        self._by_fd: dict[int, tuple[socket.socket, KernelClient, PortUse, bool]] = {}
        # Never touched: with MSG_TRUNC the kernel copies nothing into it.
        # Only a kernel that knows no MSG_TRUNC writes into it: no page takes memory before.
        private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self._scratch = mmap.mmap(-1, _SCRATCH_BYTES, flags=private)
        self._user_timeout_ms = min(answer_timeout_ns // 1_000_000, 0x7FFFFFFF)
        self._range_families = {int(socket.AF_INET), int(socket.AF_INET6)}
        self.errors: dict[int, int] = {}
        self.now_ns = 0
        lack_ns = max(answer_timeout_ns, connect_timeout_ns)
        self.lines = Lines(self._begin, lack_ns, connect_timeout_ns)
        self.ports = LocalPorts(local_addresses, workers)
        self.ports.set(read_settings())

    def fileno(self) -> int:
        """Readable when `service` has something to do."""
        return self._poll.fileno()

    def next_deadline_ns(self) -> int:
        """When `service` is wanted at the latest; -1: when there is something to read."""
        return self.lines.next_deadline_ns()

    # --- connecting ------------------------------------------------------------------------

    def connect(self, client: KernelClient) -> int:
        """Begin to connect, or wait for what is lacking; 0, or a negative errno."""
        return self.lines.open(client, self.now_ns)

    def waits_until_ns(self, client: KernelClient) -> int:
        """Until when a connect waits for what this host lacks; 0: it does not."""
        return self.lines.waits_until_ns(client)

    def leave(self, client: KernelClient) -> int:
        """The client has ended without a handle."""
        self.lines.leave(client)
        return 0

    def _begin(self, client: KernelClient, now_ns: int) -> int:
        """Begin to connect from the client's local address, or another; 0 or a negative errno."""
        target, port = client.target_address, client.target_port
        error = 0
        for _ in range(min(max(1, len(self.ports.addresses)), _ADDRESSES_AT_ONCE)):
            use = self.ports.use(client.address, target, port)
            error = self._begin_from(client, use, now_ns)
            if error != errno.EADDRNOTAVAIL or not client.address:
                break
            client.address = self.ports.after(client.address)
        return -error

    def _begin_from(self, client: KernelClient, use: PortUse, now_ns: int) -> int:
        """Begin to connect from one local address; 0 or an errno."""
        for _ in range(_PORTS_AT_ONCE):
            port = use.take(now_ns)
            if not port:
                break
            error = self._open(client, use, port)
            if error == errno.EADDRNOTAVAIL:
                use.refused(now_ns)
            elif error != errno.EADDRINUSE:  # else a socket of another program has it
                return self._count(error)
        if use.is_full(now_ns):
            return errno.EADDRNOTAVAIL
        error = self._open(client, use, 0)
        if error == errno.EADDRNOTAVAIL:
            use.full_until_ns = now_ns + FULL_NS
        return self._count(error)

    def _open(self, client: KernelClient, use: PortUse, port: int) -> int:
        """Begin to connect from that port, or (0) one that the kernel chooses; 0 or an errno."""
        is_v4 = len(client.target_address) == 4
        family = socket.AF_INET if is_v4 else socket.AF_INET6
        try:
            connection = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError as error:
            return error.errno or errno.EIO
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(
                socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, self._user_timeout_ms
            )
            # Or its port could not be bound again while it rests.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if port:
                any_address = "0.0.0.0" if is_v4 else "::"
                own = socket.inet_ntop(family, client.address) if client.address else any_address
                connection.bind((own, port))
            else:
                self._set_range(connection, family)
                if client.address:
                    connection.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
                    connection.bind((socket.inet_ntop(family, client.address), 0))
            host = socket.inet_ntop(family, client.target_address)
            code = connection.connect_ex((host, client.target_port))
            if code not in (0, errno.EINPROGRESS):
                connection.close()
                return code
            fd = connection.fileno()
            self._poll.register(fd, _EVENTS)
        except OSError as error:
            connection.close()
            return error.errno or errno.EIO
        self._by_fd[fd] = (connection, client, use, port != 0)
        client.handle = fd
        use.begun(port)
        return 0

    def _set_range(self, connection: socket.socket, family: int) -> None:
        """Let the kernel look for a port in the whole range, not in its even half first."""
        if family in self._range_families:
            try:
                # The lower end alone: should the range have been moved, the kernel's own holds.
                low = self.ports.settings.low
                connection.setsockopt(socket.IPPROTO_IP, _IP_LOCAL_PORT_RANGE, low)
            except OSError:
                self._range_families.discard(family)

    def _run_lines(self, now_ns: int) -> None:
        """Try those whose turn it is."""
        for client, result in self.lines.run(now_ns):
            if result == 0:
                client.on_connecting(now_ns)
            else:
                client.on_connected(-result, now_ns)
            self._on_event(client)

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
            connection, _, use, was_bound = entry
            port = 0
            if client.closed_first and client.target_closed and not reset:
                port = connection.getsockname()[1]  # it is in TIME_WAIT now
            if reset:
                try:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
                except OSError:
                    pass
            connection.close()
            use.ended(port, was_bound, self.now_ns)
        if not client.established:
            self.lines.leave(client)
        return 0

    def service(self, now_ns: int) -> int:
        """Handle what has happened; the number of events."""
        self.now_ns = now_ns
        if self.lines.lines:
            self._run_lines(now_ns)
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
                if self._waits(client, code):
                    return
            elif self.lines.lines:
                self.lines.answered(client, self.now_ns)
            client.on_connected(code, self.now_ns)
        if client.established and mask & _READABLE:
            self._receive(connection, client, mask & _NOT_DATA_ALONE == 0)
        if mask & select.EPOLLOUT and not client.writable and client.handle >= 0:
            client.on_writable(self.now_ns)
        self._on_event(client)

    def _waits(self, client: KernelClient, code: int) -> bool:
        """A connect has failed after it had begun: whether it is tried again later."""
        if code not in MENDED_BY_WAITING:
            self.lines.failed(client, code, self.now_ns)
            return False
        connection, _, use, was_bound = self._by_fd.pop(client.handle)
        client.handle = -1
        connection.close()
        use.ended(0, was_bound, self.now_ns)
        return self.lines.failed(client, code, self.now_ns)

    def _is_connected(self, connection: socket.socket) -> bool:
        """An event can be left over from another connection that had the same descriptor."""
        try:
            connection.getpeername()
        except OSError:
            return False
        return True

    def _receive(self, connection: socket.socket, client: KernelClient, only_data: bool) -> None:
        """Count what has come until there is no more.

        `only_data`: neither an end nor an urgent byte was told of, so that a read which is not
        filled has emptied the socket (epoll(7)); whatever comes later is a new event.
        """
        total = 0
        ended = False
        failure = 0
        while True:
            try:
                if client.looks and not total:
                    data = connection.recv(LOOKED_AT)
                    count = len(data)
                    if count:
                        client.on_answer(data)
                    wanted = LOOKED_AT
                else:
                    wanted = _SCRATCH_BYTES
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
            if only_data and count < wanted:
                break
        if total:
            client.on_received(total, self.now_ns)
        if ended:
            client.on_end(self.now_ns)
        elif failure:
            client.on_error(failure, self.now_ns)

    def _count(self, code: int) -> int:
        if code:
            self.errors[code] = self.errors.get(code, 0) + 1
        return code

    def close_all(self) -> None:
        """Close what is still open."""
        for connection, *_ in self._by_fd.values():
            connection.close()
        self._by_fd.clear()
        self._poll.close()
