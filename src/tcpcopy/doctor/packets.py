"""The few packets that a probe sends, and how it hears what ordinary ones bring."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from typing import Any, Final, Protocol

from tcpcopy.capture import rtnetlink
from tcpcopy.capture.tap import attach_filter
from tcpcopy.deliver.raw import RawSender
from tcpcopy.packet.batch import PacketBatch, PacketSink
from tcpcopy.packet.flags import RST, SYN

_MSS: Final = bytes((2, 4, 5, 0xB4))  # 1460
_WINDOW: Final = 64240
_IPPROTO_RAW: Final = 255
_INSTRUCTION: Final = struct.Struct("=HBBI")
_MOST: Final = 64


class Output(Protocol):
    """A way to send whole packets: `deliver` has them."""

    errors: dict[int, int]  # errno -> packets not sent

    def send_batch(self, batch: PacketBatch) -> None:
        """Send every packet of the batch."""


class PacketWriter:
    """Writes single segments to an output, and says what became of each."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._batch = PacketBatch(_Adapter(output), capacity=1)

    def syn(self, source: bytes, port: int, target: bytes, target_port: int, seq: int) -> int:
        """Send a SYN; 0, or the errno with which it was refused."""
        return self._send(source, port, target, target_port, seq, SYN, _MSS)

    def reset(self, source: bytes, port: int, target: bytes, target_port: int, seq: int) -> int:
        """Send a RST; 0, or the errno with which it was refused."""
        return self._send(source, port, target, target_port, seq, RST, b"")

    def _send(
        self,
        source: bytes,
        port: int,
        target: bytes,
        target_port: int,
        seq: int,
        flags: int,
        options: bytes,
    ) -> int:
        before = dict(self._output.errors)
        window = _WINDOW if flags == SYN else 0
        self._batch.tcp(
            source, port, target, target_port, seq & 0xFFFFFFFF, 0, flags, window,
            0, 0, 0, options, b"", 0, 0,
        )  # fmt: skip
        self._batch.flush()
        for code, count in self._output.errors.items():
            if count > before.get(code, 0):
                return code
        return 0


class _Adapter(PacketSink):
    """A batch wants a sink of its own class."""

    __slots__ = ("_output",)

    def __init__(self, output: Output) -> None:
        self._output = output

    def send_batch(self, batch: PacketBatch) -> None:
        self._output.send_batch(batch)


def send_whole(packet: bytes, target: bytes) -> int:
    """Send one packet as it is, by the kernel's routes; 0 or the errno."""
    family = socket.AF_INET if len(target) == 4 else socket.AF_INET6
    host = socket.inet_ntop(family, target)
    try:
        with socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _IPPROTO_RAW) as raw:
            where: Any = (host, 0) if len(target) == 4 else (host, 0, 0, 0)
            raw.sendto(packet, where)
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def own_address(target: bytes) -> bytes:
    """The address that this host would reach the target from. Raises: OSError."""
    family = socket.AF_INET if len(target) == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as datagrams:
        datagrams.connect((socket.inet_ntop(family, target), 9))
        return socket.inet_pton(family, datagrams.getsockname()[0].partition("%")[0])


def is_neighbour(target: bytes) -> bool:
    """Whether no gateway is between this host and the target."""
    try:
        way = rtnetlink.route(target)
    except OSError:
        return False
    return not (way.gateway or way.error)


class OwnAttempt:
    """An ordinary handshake that is never completed: no application hears of it.

    The SYN goes out by a raw socket, from a port that is bound and so nobody else's. Its SYN-ACK
    is heard behind this host's firewall; the kernel, which knows no such connection, resets it.
    """

    def __init__(self, source: bytes, target: bytes, target_port: int) -> None:
        """Take a port and listen. Raises: OSError."""
        family = socket.AF_INET if len(source) == 4 else socket.AF_INET6
        self.source = source
        self._target = (target, target_port)
        self._sender: RawSender | None = None
        self._bound = socket.socket(family, socket.SOCK_STREAM)
        self._hears: socket.socket | None = None
        try:
            self._bound.bind((socket.inet_ntop(family, source), 0))
            self.port = int(self._bound.getsockname()[1])
            self._sender = RawSender()
            hears = socket.socket(
                family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_TCP
            )
            self._hears = hears
            attach_filter(hears, _answers_program(len(source), target_port, self.port))
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """Readable when `take` has something."""
        assert self._hears is not None
        return self._hears.fileno()

    def send(self, seq: int) -> int:
        """Send the SYN, again if need be; 0 or the errno."""
        assert self._sender is not None
        return PacketWriter(self._sender).syn(self.source, self.port, *self._target, seq)

    def take(self) -> int:
        """TCP flags of an answer that came through, 0 for none."""
        assert self._hears is not None
        for _ in range(_MOST):
            try:
                data, peer = self._hears.recvfrom(256)
            except OSError:
                return 0
            family = socket.AF_INET if len(self.source) == 4 else socket.AF_INET6
            at = (data[0] & 15) * 4 if family == socket.AF_INET else 0
            if len(data) < at + 20:
                continue
            ports = struct.unpack_from("!HH", data, at)
            sender = socket.inet_pton(family, str(peer[0]).partition("%")[0])
            if (sender, ports[0]) == self._target and ports[1] == self.port:
                return data[at + 13]
        return 0

    def close(self) -> None:
        """Let go of the port; may be called twice."""
        self._bound.close()
        if self._hears is not None:
            self._hears.close()
        if self._sender is not None:
            self._sender.close()


def connect_in_full(source: bytes, target: bytes, target_port: int) -> socket.socket:
    """Begin an ordinary connection, for where raw sockets are not allowed. Raises: OSError."""
    family = socket.AF_INET if len(target) == 4 else socket.AF_INET6
    attempt = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if source:
            attempt.bind((socket.inet_ntop(family, source), 0))
        with contextlib.suppress(BlockingIOError):
            attempt.connect((socket.inet_ntop(family, target), target_port))
    except BaseException:
        attempt.close()
        raise
    return attempt


def _answers_program(size: int, target_port: int, own_port: int) -> bytes:
    """A socket filter for TCP from one port to another.

    A raw IPv4 socket sees packets from their IP header on, one of IPv6 from the TCP header on.
    """
    steps = []
    load = 0x28  # half word at k
    if size == 4:
        steps.append((0xB1, 0, 0, 0))  # X = length of the IP header
        load = 0x48  # half word at X + k
    steps += [
        (load, 0, 0, 0),
        (0x15, 0, 3, target_port),
        (load, 0, 0, 2),
        (0x15, 0, 1, own_port),
        (0x06, 0, 0, 256),
        (0x06, 0, 0, 0),
    ]
    return b"".join(_INSTRUCTION.pack(*step) for step in steps)
