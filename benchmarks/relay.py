"""What a record of an answer costs to pack and to unpack, classic against native, in one run.

    python -m benchmarks.relay [ROUNDS]

CPU time of this process, the best of alternating rounds, in nanoseconds a record. Batches are as
intercept makes them: what one drain brought, sent in one piece.
"""

from __future__ import annotations

import struct
import sys
import time
from collections.abc import Callable

from tcpcopy.relay.classic import Layout, MessageType, encode_message
from tcpcopy.relay.native_records import NativeDecoder, NativeWriter
from tcpcopy.relay.records import RecordDecoder, RecordWriter
from tcpcopy.relay.router import AnswerRouter
from tcpcopy.version import build_kind

RECORDS = 200_000
BATCH = 32
_TIMESTAMPS = bytes([1, 1, 8, 10]) + bytes(8)
_TARGET, _CLIENT = bytes([10, 0, 0, 3]), bytes([10, 9, 0, 7])


def answer() -> bytes:
    """A data segment of a target with 1,000 bytes of payload, as far as intercept captures it."""
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 1052, 7, 0x4000, 64, 6, 0, _TARGET, _CLIENT)
    tcp = struct.pack("!HHIIBBHHH", 8080, 40001, 1, 2, 0x80, 0x18, 501, 0, 0)
    return ip + tcp + _TIMESTAMPS + bytes(192)


def packing(make: Callable[[], RecordWriter], packet: bytes, records: int) -> tuple[float, bytes]:
    """Seconds of routing and packing `records` answers, and what one batch of them looks like."""
    router = AnswerRouter()
    writer = make()
    router.messages(writer, encode_message(MessageType.ADD, _CLIENT, 40001, _TARGET, 8080))
    stream = b""
    began = time.process_time()
    for _ in range(records // BATCH):
        for _ in range(BATCH):
            router.packet(packet, 0, len(packet), 1052, 5)
        for ready in router.take_ready():
            with ready.pending() as view:
                stream = bytes(view)
            ready.sent(len(stream))
    return time.process_time() - began, stream


def unpacking(make: Callable[[], RecordDecoder], stream: bytes, records: int) -> float:
    """Seconds of unpacking `records` answers that come in batches."""
    decoder = make()
    began = time.process_time()
    for _ in range(records // BATCH):
        decoder.feed(stream, 5)
    spent = time.process_time() - began
    assert decoder.records == records // BATCH * BATCH and not decoder.fault
    return spent


def measure(rounds: int, records: int = RECORDS) -> dict[str, tuple[float, float, float]]:
    """For each relay: ns a record packed, ns a record unpacked, bytes a record."""
    packet = answer()
    handler = AnswerRouter()  # compiled, and looks at each as little as any
    kinds: dict[str, tuple[Callable[[], RecordWriter], Callable[[], RecordDecoder]]] = {
        "classic": (RecordWriter, lambda: RecordDecoder(handler, Layout.BATCHED)),
        "native": (lambda: NativeWriter(window=1 << 50), lambda: NativeDecoder(handler)),
    }
    best: dict[str, tuple[float, float, float]] = {}
    for _ in range(rounds):
        for name, (writer, decoder) in kinds.items():
            packed, stream = packing(writer, packet, records)
            unpacked = unpacking(decoder, stream, records)
            ns = 1e9 / records
            before = best.get(name, (1e9, 1e9, 0.0))
            best[name] = (
                min(before[0], packed * ns),
                min(before[1], unpacked * ns),
                len(stream) / BATCH,
            )
    return best


def main() -> None:
    """Print the table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    print(f"relay records ({build_kind()}), best of {rounds} rounds")
    for name, (packed, unpacked, size) in measure(rounds).items():
        print(f"  {name:8} pack {packed:6.0f} ns  unpack {unpacked:6.0f} ns  {size:5.1f} bytes")


if __name__ == "__main__":
    main()
