"""The native relay's vocabulary: opening, frames, and what both ends agree on before the first.

tcpcopy opens with a classic version message whose number is above 6 and whose target address is a
mark. A classic intercept takes it for a version and stays silent; a native one answers with a
HELLO. From then on both directions are frames: type u8, zero u8, body length u16, body. All
integers are big-endian. docs/design.md ("Native relay") has the layout of each body.

    tcpcopy                                     intercept
    opening (14 bytes)                    ->
                                          <-    HELLO: version, has a secret, nonce
    JOIN: credit, payload, nonce, proof   ->
                                          <-    WELCOME: proof      (or REFUSED: reason, text)
    SESSIONS_*, CREDIT, PING              <->   ANSWERS, PING
    PACKETS (through a tunnel)            <->   CREDIT, DROPPED

The proofs are HMAC-SHA256 under the shared secret over everything said before, under a name for
each end, so that neither can be used as the other's; each end has put a nonce of its own in.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final

from tcpcopy.relay.classic import MESSAGE_BYTES, RelayFault
from tcpcopy.relay.probing import PROBE_BYTES
from tcpcopy.report.described import Described

if TYPE_CHECKING:
    import ssl

#: The number in the opening; classic programs say 6.
OPENING_VERSION: Final = 7
#: What is spoken behind the opening.
PROTOCOL: Final = 1
_MARK: Final = b"TCPN"
OPENING: Final = struct.pack("!4sHH4sH", bytes(4), 0, OPENING_VERSION, _MARK, 0)

FRAME_HEADER: Final = struct.Struct("!BxH")
FRAME_HEADER_BYTES: Final = 4
#: What intercept takes from a tcpcopy in one frame.
MAX_BODY_BYTES: Final = 16384
NONCE_BYTES: Final = 32
PROOF_BYTES: Final = 32
#: Bytes of answers that may be under way to a tcpcopy which does not read.
WINDOW_BYTES: Final = 4 << 20
MAX_PAYLOAD_BYTES: Final = 128
#: Bytes of PACKETS that intercept lets a tcpcopy have under way, and the most of one frame.
PACKET_WINDOW_BYTES: Final = 4 << 20
MAX_PACKETS_BYTES: Final = 65535

#: Target, mapped address, target port, mapped port, type (MessageType).
MESSAGE_V6: Final = struct.Struct("!16s16sHHH")
MESSAGE_V6_BYTES: Final = 38

#: Each end says something at least so often, and gives the other up when it hears nothing so long.
PING_NS: Final = 2_000_000_000
SILENCE_NS: Final = 10_000_000_000
#: An end that looks so much later than it meant to was stopped: it has heard nothing meanwhile.
STANDSTILL_NS: Final = 2_000_000_000

_HELLO: Final = struct.Struct("!HBx32s")
_JOIN: Final = struct.Struct("!HBBQ32s")
_CREDIT: Final = struct.Struct("!Q")
_HAS_SECRET: Final = 1
_TUNNEL: Final = 2  # HELLO: packets are taken; JOIN: they are sent
#: In the flags of a HELLO: this intercept answers PROBEs.
PROBES: Final = 0x10
#: The same: it tells the kinds of answers (said.kinds) to who asks for them in its JOIN.
KINDS: Final = 0x20
_WANTS_KINDS: Final = 4  # JOIN
_MAX_TEXT: Final = 300
_MOST_CREDIT: Final = 1 << 62  # what a counter holds


class RelayMode(IntEnum):
    """Which relay is spoken; both ends have the choice."""

    AUTO = 1  # native with a native peer, else classic
    CLASSIC = 2
    NATIVE = 3  # a classic peer is refused


class FrameType(IntEnum):
    """First byte of a frame; no classic stream begins with one of them."""

    HELLO = 0x81
    JOIN = 0x82
    WELCOME = 0x83
    REFUSED = 0x84
    SESSIONS_V4 = 0x85  # classic messages of 14 bytes
    SESSIONS_V6 = 0x86  # MESSAGE_V6
    ANSWERS = 0x87
    CREDIT = 0x88
    PING = 0x89
    PACKETS = 0x8A  # whole IP packets for intercept to inject, each behind its length (u16)
    DROPPED = 0x8B  # from intercept: packets that it did not inject
    PROBE = 0x90  # probing.py
    REPORT = 0x91


class PacketDrop(Described):
    """Why intercept did not inject a packet that came through a tunnel."""

    BROKEN = (1, "not whole")
    NOT_IP = (2, "neither IPv4 nor IPv6")
    BAD_HEADER = (3, "headers that do not fit its length")
    OPTIONS = (4, "IP options or extension headers")
    FRAGMENT = (5, "a fragment")
    NOT_TCP = (6, "neither TCP nor UDP")
    SOURCE = (7, "from a client address that --tun-clients does not have")
    DESTINATION = (8, "for an address or port that --tun-allow does not have")
    DEVICE = (9, "not taken by the device")


@dataclass(frozen=True, slots=True)
class RelayTerms:
    """What one end of the relay was told: both programs have these options."""

    mode: RelayMode = RelayMode.AUTO
    secret: bytes = b""  # "": none
    tls: ssl.SSLContext | None = None
    tunnel: bool = False  # packets travel in it, from tcpcopy to intercept's device
    single: bool = False  # classic: no sessions are announced (the C programs' --single)
    bare: bool = False  # classic: records without counts (the C programs' --disable-combined)

    @property
    def knows_peers(self) -> bool:
        """At intercept: whether each tcpcopy proves who it is, by the secret or a certificate."""
        if self.secret:
            return True
        return self.tls is not None and self.tls.verify_mode.name == "CERT_REQUIRED"

    @property
    def native_only(self) -> bool:
        """Whether a classic peer is refused: it could have no secret, no TLS and no tunnel."""
        needs_it = bool(self.secret) or self.tls is not None or self.tunnel
        return self.mode is RelayMode.NATIVE or needs_it


def frame(kind: FrameType, body: bytes | bytearray | memoryview = b"") -> bytes:
    """A whole frame; the body has at most 65535 bytes."""
    return FRAME_HEADER.pack(kind, len(body)) + bytes(body)


def frames(kind: FrameType, messages: bytearray, message_bytes: int) -> Iterator[bytes]:
    """Frames of whole messages, as long as intercept takes them."""
    most = MAX_BODY_BYTES // message_bytes * message_bytes
    for start in range(0, len(messages), most):
        yield frame(kind, messages[start : start + most])


def credit(offset: int) -> bytes:
    """The frame that lets intercept send up to this offset of its stream (from WELCOME on)."""
    return frame(FrameType.CREDIT, _CREDIT.pack(offset))


def is_opening(message: bytes) -> bool:
    """Whether the first 14 bytes of a connection are those of a native tcpcopy."""
    client, port, version, mark, _ = struct.unpack("!4sHH4sH", message)
    return bool(client == bytes(4) and port == 0 and version >= OPENING_VERSION and mark == _MARK)


def _flags(has_secret: bool, tunnel: bool) -> int:
    return (_HAS_SECRET if has_secret else 0) | (_TUNNEL if tunnel else 0)


def hello(nonce: bytes, has_secret: bool, tunnel: bool = False) -> bytes:
    """Intercept's first frame."""
    flags = _flags(has_secret, tunnel) | PROBES | KINDS
    return frame(FrameType.HELLO, _HELLO.pack(PROTOCOL, flags, nonce))


def read_hello(body: bytes) -> tuple[int, bool, bool] | None:
    """Protocol version, whether intercept has a secret, and a tunnel; None when it is no HELLO."""
    if len(body) != _HELLO.size:
        return None
    version, flags, _ = _HELLO.unpack(body)
    return version, bool(flags & _HAS_SECRET), bool(flags & _TUNNEL)


def takes_probes(body: bytes) -> bool:
    """Whether the intercept of this HELLO answers PROBEs."""
    return len(body) == _HELLO.size and bool(_HELLO.unpack(body)[1] & PROBES)


def tells_kinds(body: bytes) -> bool:
    """Whether the intercept of this HELLO tells the kinds of answers."""
    return len(body) == _HELLO.size and bool(_HELLO.unpack(body)[1] & KINDS)


def join(
    nonce: bytes,
    secret: bytes,
    said: bytes,
    *,
    payload_bytes: int,
    window: int,
    tunnel: bool = False,
    kinds: bool = False,
) -> bytes:
    """tcpcopy's answer to `said`, which is its opening and intercept's HELLO frame."""
    flags = _flags(bool(secret), tunnel) | (_WANTS_KINDS if kinds else 0)
    head = _JOIN.pack(PROTOCOL, flags, payload_bytes, window, nonce)
    return frame(FrameType.JOIN, head + prove(secret, b"tcpcopy", said + head))


@dataclass(frozen=True, slots=True)
class Join:
    """What a JOIN says."""

    version: int
    has_secret: bool
    tunnel: bool  # packets will come
    kinds: bool  # each record is to tell the kind of its answer
    payload_bytes: int
    window: int
    proof: bytes
    head: bytes  # the body without the proof


def read_join(body: bytes) -> Join | None:
    """What is in the body of a JOIN; None when it is none."""
    if len(body) != _JOIN.size + PROOF_BYTES:
        return None
    head = body[: _JOIN.size]
    version, flags, payload_bytes, window, _ = _JOIN.unpack(head)
    return Join(
        version,
        bool(flags & _HAS_SECRET),
        bool(flags & _TUNNEL),
        bool(flags & _WANTS_KINDS),
        payload_bytes,
        min(window, _MOST_CREDIT),
        body[_JOIN.size :],
        head,
    )


def prove(secret: bytes, role: bytes, said: bytes) -> bytes:
    """The proof that this end knows the secret; zeros without one. Source: RFC 2104."""
    if not secret:
        return bytes(PROOF_BYTES)
    return hmac.digest(secret, b"tcpcopy native relay 1, " + role + b"\0" + said, hashlib.sha256)


def is_proof(proof: bytes, secret: bytes, role: bytes, said: bytes) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(proof, prove(secret, role, said))


def refused(fault: RelayFault) -> bytes:
    """Intercept's last word to a native tcpcopy."""
    return frame(FrameType.REFUSED, bytes([fault]) + fault.description.encode()[:_MAX_TEXT])


def read_refused(body: bytes) -> RelayFault:
    """Why intercept refuses; NOT_ADMITTED for a reason that is not known here."""
    if body and body[0] in set(RelayFault) and body[0]:
        return RelayFault(body[0])
    return RelayFault.NOT_ADMITTED


class FrameDecoder:
    """Intercept's end: cuts what a native tcpcopy sends into frames, however the bytes arrive.

    Holds back less than one frame, of MAX_BODY_BYTES or, with `tunnel`, MAX_PACKETS_BYTES. After
    a fault it takes nothing more.
    """

    __slots__ = (
        "_held",  # the start of a frame whose end has not arrived
        "_tunnel",  # packets are taken
        "fault",  # RelayFault; NONE while the connection may go on
    )

    def __init__(self, tunnel: bool = False) -> None:
        self._held = b""
        self._tunnel = tunnel
        self.fault = RelayFault.NONE

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Take bytes as they came; the frames that they complete, as type and body.

        All of them have to be taken. What follows a fault is discarded.
        """
        if self.fault:
            return
        data = self._held + data
        start = 0
        while len(data) - start >= FRAME_HEADER_BYTES:
            kind, length = FRAME_HEADER.unpack_from(data, start)
            if not (_is_sound(kind, length) or (self._tunnel and kind == FrameType.PACKETS)):
                self.fault = RelayFault.FRAME
                self._held = b""
                return
            end = start + FRAME_HEADER_BYTES + length
            if end > len(data):
                break
            body = data[start + FRAME_HEADER_BYTES : end]
            start = end
            if not _types_are_known(kind, body):
                self.fault = RelayFault.MESSAGE_TYPE
                self._held = b""
                return
            yield kind, body
        self._held = data[start:]


def read_credit(body: bytes) -> int:
    """The offset in the body of a CREDIT."""
    offset: int = _CREDIT.unpack(body)[0]
    return min(offset, _MOST_CREDIT)


def _is_sound(kind: int, length: int) -> bool:
    """Whether tcpcopy may send a frame of this type with so long a body."""
    if kind == FrameType.SESSIONS_V4:
        return 0 < length <= MAX_BODY_BYTES and length % MESSAGE_BYTES == 0
    if kind == FrameType.SESSIONS_V6:
        return 0 < length <= MAX_BODY_BYTES and length % MESSAGE_V6_BYTES == 0
    if kind == FrameType.CREDIT:
        return length == _CREDIT.size
    if kind == FrameType.PROBE:
        return length == PROBE_BYTES
    return kind == FrameType.PING and length == 0


def _types_are_known(kind: int, body: bytes) -> bool:
    """Whether every message in the body adds or removes."""
    if kind == FrameType.SESSIONS_V4:
        high, low = body[6::MESSAGE_BYTES], body[7::MESSAGE_BYTES]
    elif kind == FrameType.SESSIONS_V6:
        high, low = body[36::MESSAGE_V6_BYTES], body[37::MESSAGE_V6_BYTES]
    else:
        return True
    return not high.strip(b"\0") and not low.strip(b"\x01\x02")
