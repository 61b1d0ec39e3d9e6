"""The classic relay's vocabulary: its messages, record layouts and what may be wrong with them.

All integers are big-endian, addresses and ports as they stand in packets. tcpcopy sends 14-byte
messages; intercept sends records, which `records.py` packs and unpacks.

Source: TCPCopy 1.3.0 (`src/communication/tc_msg.h` of both programs), internal version 6.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

from tcpcopy.report.described import Described

DEFAULT_PORT: Final = 36524
#: What the first message on a connection announces.
VERSION: Final = 6
MESSAGE_BYTES: Final = 14
#: IPv4 header without options, TCP header, 24 bytes of TCP options.
RECORD_BYTES: Final = 64
#: The same with up to 128 bytes of payload, for programs built with response payload.
PAYLOAD_RECORD_BYTES: Final = 192
MAX_BATCH: Final = 16
MAX_PAYLOAD_BATCH: Final = 6
#: TCP header with the options that a record has room for.
MAX_TRANSPORT_BYTES: Final = 44
MAX_PAYLOAD_BYTES: Final = 128

_MESSAGE: Final = struct.Struct("!4sHH4sH")
_NO_ADDRESS: Final = bytes(4)
_TYPES: Final = b"\x01\x02"  # of MessageType


class MessageType(IntEnum):
    """The `type` field of a message from tcpcopy."""

    ADD = 1
    REMOVE = 2


class Layout(IntEnum):
    """How records stand in the stream; the C programs fix it when they are built.

    They cannot be built for bare records with payload (intercept 1.0.0 does not compile so).
    """

    AUTO = 1  # told from the first bytes that arrive; receiving only
    BATCHED = 2  # u16 count, then count records of 64 bytes: the default build
    BARE = 3  # records of 64 bytes, no count
    BATCHED_PAYLOAD = 4  # u16 count (at most 6), then count records of 192 bytes

    @property
    def is_batched(self) -> bool:
        return self is not Layout.BARE

    @property
    def record_bytes(self) -> int:
        return PAYLOAD_RECORD_BYTES if self is Layout.BATCHED_PAYLOAD else RECORD_BYTES

    @property
    def max_batch(self) -> int:
        """The most records a receiver of this layout takes in one batch."""
        if self is Layout.BARE:
            return 1
        return MAX_PAYLOAD_BATCH if self is Layout.BATCHED_PAYLOAD else MAX_BATCH


class RelayFault(Described):
    """Why a relay connection cannot go on and has to be closed; NONE while it is sound."""

    NONE = (0, "sound")
    NOT_A_TCPCOPY = (1, "the first message is not a version message")
    OLD_VERSION = (2, "the other end speaks a version below 6")
    MESSAGE_TYPE = (3, "a message of unknown type")
    BATCH_COUNT = (4, "a batch of no records, or of more than allowed")
    NOT_A_RECORD = (5, "no IPv4 header where a record should start")
    # Of the native relay, and of the terms on which either is spoken.
    FRAME = (6, "a frame that is none of the native relay")
    PROTOCOL = (7, "a native relay of another version")
    SECRET_MISSING = (8, "it has no secret (--secret-file), and this intercept has one")
    SECRET_WRONG = (9, "its secret is not the one of this intercept (--secret-file)")
    CLASSIC = (10, "it speaks the classic relay, which is refused here")
    TLS = (11, "the TLS handshake failed")
    SILENT = (12, "nothing was heard of it for too long")
    NOT_ADMITTED = (13, "not admitted")
    NO_TUNNEL = (14, "it wants a tunnel (--via tunnel), and this intercept has none (--tun)")
    TUNNEL_ONLY = (15, "it wants no tunnel (--via tunnel), and this intercept is for one (--tun)")
    CREDIT = (16, "packets that there was no credit for")


def encode_version(version: int = VERSION) -> bytes:
    """The message that opens a connection."""
    return _MESSAGE.pack(_NO_ADDRESS, 0, version, _NO_ADDRESS, 0)


def encode_message(
    kind: MessageType, client: bytes, client_port: int, target: bytes, target_port: int
) -> bytes:
    """The 14 bytes that add or remove a session; addresses are 4 bytes each."""
    return _MESSAGE.pack(client, client_port, kind, target, target_port)


class MessageDecoder:
    """Intercept's end: cuts what a tcpcopy sends into messages, however the bytes arrive.

    Holds back at most 13 bytes. After a fault it takes nothing more.
    """

    __slots__ = (
        "_held",  # the start of a message whose end has not arrived
        "fault",  # RelayFault; NONE while the connection may go on
        "version",  # 0 until the version message has arrived
    )

    def __init__(self) -> None:
        self._held = b""
        self.fault = RelayFault.NONE
        self.version = 0

    def feed(self, data: bytes) -> bytes:
        """Take bytes as they came; return the messages that they complete, ADD and REMOVE only.

        Versions above 6 are taken as well: their tcpcopy goes on in classic when nothing answers.
        Messages before a fault are returned, what follows it is discarded.
        """
        if self.fault:
            return b""
        data = self._held + data
        whole = len(data) - len(data) % MESSAGE_BYTES
        self._held = data[whole:]
        start = 0
        if self.version == 0 and whole:
            self._take_version(data)
            start = MESSAGE_BYTES
            if self.fault:
                self._held = b""
                return b""
        messages = data[start:whole]
        # The type is the second of two bytes; every message has them at the same place.
        if messages[6::MESSAGE_BYTES].strip(b"\0") or messages[7::MESSAGE_BYTES].strip(_TYPES):
            messages = messages[: _first_unknown(messages)]
            self.fault = RelayFault.MESSAGE_TYPE
            self._held = b""
        return messages

    def _take_version(self, data: bytes) -> None:
        client, client_port, version, _, _ = _MESSAGE.unpack_from(data)
        if client != _NO_ADDRESS or client_port != 0:
            self.fault = RelayFault.NOT_A_TCPCOPY
        elif version < VERSION:
            self.fault = RelayFault.OLD_VERSION
        else:
            self.version = version


def _first_unknown(messages: bytes) -> int:
    """Where the first message of an unknown type starts."""
    for start in range(0, len(messages), MESSAGE_BYTES):
        if messages[start + 6] or messages[start + 7] not in _TYPES:
            return start
    return len(messages)
