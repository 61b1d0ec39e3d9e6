"""A peer of intercept that no tcpcopy is behind: announces whatever it likes, keeps what it gets.

    python -m tests.lab.relay_peer ADDRESS PORT --kind native|classic [--secret-file FILE]
        [--payload BYTES] [--probe] [--seconds N] [--tunnel] MAPPED:PORT-TARGET:PORT ...

Prints `announced` once all is said, then `records N` as they come, until SIGUSR1 or for so long at
most; at last one line of JSON: `records` and `payload` (text) of what came, `reports` of the PROBEs
for the first session.

    python -m tests.lab.relay_peer --answer SOURCE:PORT-MAPPED:PORT --text TEXT --count N

sends segments with that text, as a target answers a mapped client.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tcpcopy.relay import native
from tcpcopy.relay.classic import MessageType, encode_message, encode_version
from tcpcopy.relay.native import FrameType
from tcpcopy.relay.probing import Flow, encode_probe

Session = tuple[bytes, int, bytes, int]  # mapped address and port, target address and port


def endpoint(text: str) -> tuple[bytes, int]:
    address, _, port = text.rpartition(":")
    return ipaddress.ip_address(address.strip("[]")).packed, int(port)


def session(text: str) -> Session:
    mapped, _, target = text.partition("-")
    return (*endpoint(mapped), *endpoint(target))


class Peer:
    """One connection, blocking."""

    def __init__(self, address: str, port: int) -> None:
        self.socket = socket.create_connection((address, port), timeout=10)
        self.held = b""
        self.records = 0
        self.payload = b""
        self.reports: list[str] = []

    def read(self, count: int) -> bytes:
        while len(self.held) < count:
            data = self.socket.recv(65536)
            if not data:
                raise ConnectionError("closed by intercept")
            self.held += data
        found, self.held = self.held[:count], self.held[count:]
        return found

    def frame(self) -> tuple[int, bytes]:
        kind, length = native.FRAME_HEADER.unpack(self.read(native.FRAME_HEADER_BYTES))
        return kind, self.read(length)

    # --- native -------------------------------------------------------------------------------

    def join(self, secret: bytes, payload_bytes: int, tunnel: bool) -> None:
        self.socket.sendall(native.OPENING)
        kind, hello = self.frame()
        assert kind == FrameType.HELLO, kind
        said = native.OPENING + native.frame(FrameType.HELLO, hello)
        self.socket.sendall(
            native.join(
                bytes(32), secret, said, payload_bytes=payload_bytes, window=1 << 40, tunnel=tunnel
            )
        )
        kind, body = self.frame()
        assert kind == FrameType.WELCOME, (kind, body)

    def announce(self, sessions: list[Session]) -> None:
        v4, v6 = bytearray(), bytearray()
        for mapped, port, target, target_port in sessions:
            if len(mapped) == 4:
                v4 += encode_message(MessageType.ADD, mapped, port, target, target_port)
            else:
                v6 += native.MESSAGE_V6.pack(target, mapped, target_port, port, MessageType.ADD)
        for frame in native.frames(FrameType.SESSIONS_V4, v4, 14):
            self.socket.sendall(frame)
        for frame in native.frames(FrameType.SESSIONS_V6, v6, native.MESSAGE_V6_BYTES):
            self.socket.sendall(frame)

    def probe(self, first: Session, *, watch: bool) -> None:
        mapped, port, target, target_port = first
        body = encode_probe(Flow(target, target_port, mapped, port), watch=watch)
        self.socket.sendall(native.frame(FrameType.PROBE, body))

    def take_frames(self) -> None:
        """Whole frames that came; PINGs are answered, records kept."""
        while len(self.held) >= native.FRAME_HEADER_BYTES:
            kind, length = native.FRAME_HEADER.unpack_from(self.held)
            if len(self.held) < native.FRAME_HEADER_BYTES + length:
                return
            kind, body = self.frame()
            if kind == FrameType.PING:
                self.socket.sendall(native.frame(FrameType.PING))
            elif kind == FrameType.REPORT:
                self.reports.append(body.decode())
            elif kind == FrameType.ANSWERS:
                self.take_answers(body[8:])

    def take_answers(self, body: bytes) -> None:
        at = 0
        while at < len(body):
            version, header, payload = struct.unpack_from("!BBH", body, at)
            at += 12 + (8 if version == 4 else 32) + header
            self.payload += body[at : at + payload]
            self.records += 1
            at += payload

    # --- classic ------------------------------------------------------------------------------

    def take_batches(self, record_bytes: int) -> None:
        while len(self.held) >= 2:
            (count,) = struct.unpack_from("!H", self.held)
            if len(self.held) < 2 + count * record_bytes:
                return
            self.read(2)
            for _ in range(count):
                record = self.read(record_bytes)
                header = 20 + ((record[32] >> 4) << 2)
                self.payload += record[header:].rstrip(b"\0")
                self.records += 1


def collect(peer: Peer, seconds: float, record_bytes: int, done: Callable[[], bool]) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and not done():
        peer.socket.settimeout(0.1)
        try:
            data = peer.socket.recv(65536)
        except TimeoutError:
            continue
        if not data:
            break
        peer.held += data
        peer.socket.settimeout(10)
        before = peer.records
        if record_bytes:
            peer.take_batches(record_bytes)
        else:
            peer.take_frames()
        if peer.records != before:
            print(f"records {peer.records}", flush=True)


def answer(flow: str, text: bytes, count: int) -> None:
    """Segments of a target; their checksums are not filled in, and nobody here looks at them."""
    source, port, mapped, mapped_port = session(flow)
    family = socket.AF_INET if len(source) == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
        raw.bind((str(ipaddress.ip_address(source)), 0))
        for number in range(count):
            header = struct.pack(
                "!HHIIBBHHH", port, mapped_port, 1 + number * len(text), 1, 0x50, 0x18, 9, 0, 0
            )
            raw.sendto(header + text, (str(ipaddress.ip_address(mapped)), 0))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("address", nargs="?")
    parser.add_argument("port", nargs="?", type=int)
    parser.add_argument("sessions", nargs="*")
    parser.add_argument("--kind", default="native")
    parser.add_argument("--secret-file", type=Path)
    parser.add_argument("--tunnel", action="store_true")
    parser.add_argument("--payload", type=int, default=0)
    parser.add_argument("--probe", action="store_true")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--record-bytes", type=int, default=64)
    parser.add_argument("--answer")
    parser.add_argument("--text", default="")
    parser.add_argument("--count", type=int, default=1)
    words = parser.parse_intermixed_args()
    if words.answer:
        answer(words.answer, words.text.encode(), words.count)
        return
    secret = words.secret_file.read_bytes().strip() if words.secret_file else b""
    sessions = [session(text) for text in words.sessions]
    peer = Peer(words.address, words.port)
    if words.kind == "native":
        peer.join(secret, words.payload, words.tunnel)
        peer.announce(sessions)
    else:
        messages = [encode_message(MessageType.ADD, *one) for one in sessions]
        peer.socket.sendall(encode_version() + b"".join(messages))
    if words.probe:
        peer.probe(sessions[0], watch=True)
    over = threading.Event()
    signal.signal(signal.SIGUSR1, lambda *_: over.set())
    time.sleep(0.3)  # classic says nothing when it has read them
    print("announced", flush=True)
    collect(peer, words.seconds, 0 if words.kind == "native" else words.record_bytes, over.is_set)
    if words.probe:
        had = len(peer.reports)
        peer.probe(sessions[0], watch=False)
        collect(peer, 10, 0, lambda: len(peer.reports) > had)
    found = {"records": peer.records, "payload": peer.payload.decode("latin-1")}
    print(json.dumps({**found, "reports": peer.reports}), flush=True)


if __name__ == "__main__":
    main()
