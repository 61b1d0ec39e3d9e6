"""How both ends of a relay connection find out what they speak, and whether they may.

Bytes in, bytes out: no sockets and no clocks. Either ends in `kind`: classic or native, with `rest`
the bytes that belong to what follows, or with a `fault` and then nothing more.
"""

from __future__ import annotations

from enum import IntEnum

from tcpcopy.relay import native
from tcpcopy.relay.classic import MESSAGE_BYTES, RelayFault, encode_version
from tcpcopy.relay.native import FRAME_HEADER_BYTES, FrameType, RelayMode, RelayTerms

_TLS_ALERT, _TLS_HANDSHAKE = 0x15, 0x16  # RFC 8446 (5.1): what a TLS record begins with


class Kind(IntEnum):
    """What a connection turned out to speak."""

    UNDECIDED = 0
    CLASSIC = 1
    NATIVE = 2


class _Handshake:
    """What both ends have in common."""

    __slots__ = (
        "_held",  # bytes that are no whole message yet
        "_nonce",
        "_said",  # all that the proofs are about
        "_terms",
        "fault",  # RelayFault; not NONE: the connection has to be closed
        "kind",
        "rest",  # once decided: bytes that came behind the handshake
    )

    def __init__(self, terms: RelayTerms, nonce: bytes) -> None:
        self._held = b""
        self._nonce = nonce
        self._said = b""
        self._terms = terms
        self.fault = RelayFault.NONE
        self.kind = Kind.UNDECIDED
        self.rest = b""

    @property
    def over(self) -> bool:
        """Whether it is decided, one way or the other."""
        return bool(self.kind or self.fault)

    def _decide(self, kind: Kind) -> None:
        self.kind = kind
        self.rest = self._held
        self._held = b""

    def _next_frame(self, expected: tuple[int, ...], most: int = 512) -> tuple[int, bytes] | None:
        """The next whole frame, taken off; None when more must arrive, or with a fault."""
        if len(self._held) < FRAME_HEADER_BYTES:
            return None
        kind, length = native.FRAME_HEADER.unpack_from(self._held)
        if kind not in expected or length > most:
            self.fault = RelayFault.FRAME
            return None
        end = FRAME_HEADER_BYTES + length
        if len(self._held) < end:
            return None
        body = self._held[FRAME_HEADER_BYTES:end]
        self._held = self._held[end:]
        return kind, body


class ClientHandshake(_Handshake):
    """tcpcopy's end. `nonce` are 32 random bytes, never used before."""

    __slots__ = (
        "_joined",  # JOIN was sent: WELCOME is awaited
        "_payload_bytes",
        "problem",  # with a fault: what it says to a user of tcpcopy
        "takes_probes",  # the intercept answers PROBEs
    )

    def __init__(self, terms: RelayTerms, nonce: bytes, payload_bytes: int = 0) -> None:
        super().__init__(terms, nonce)
        self._joined = False
        self._payload_bytes = payload_bytes
        self.problem = ""
        self.takes_probes = False

    def opening(self) -> bytes:
        """What to send first; in mode CLASSIC all is decided by that."""
        if self._terms.mode is RelayMode.CLASSIC:
            self._decide(Kind.CLASSIC)
            return encode_version()
        return native.OPENING

    @property
    def heard_native(self) -> bool:
        """Whether the other end has said that it is native."""
        return self._joined

    def silent(self) -> None:
        """Nothing came for so long that it is a classic intercept."""
        if self._joined:
            self._fail(RelayFault.SILENT, "it fell silent in the handshake")
        elif self._terms.native_only:
            self._fail(RelayFault.CLASSIC, self._needs_native())
        else:
            self._decide(Kind.CLASSIC)

    def feed(self, data: bytes) -> bytes:
        """Take bytes as they came; return what to send."""
        if self.over or not data:
            return b""
        self._held += data
        if not self._joined:
            return self._take_hello()
        self._take_welcome()
        return b""

    def _take_hello(self) -> bytes:
        first = self._held[0]
        if first == _TLS_ALERT:
            self._fail(RelayFault.TLS, "it speaks TLS only: give --tls")
            return b""
        if first != FrameType.HELLO:
            # Records of a classic intercept, of sessions that it still knows.
            if self._terms.native_only:
                self._fail(RelayFault.CLASSIC, self._needs_native())
            else:
                self._decide(Kind.CLASSIC)
            return b""
        found = self._next_frame((FrameType.HELLO,))
        if found is None:
            self._note_fault()
            return b""
        body = found[1]
        hello = native.read_hello(body)
        if hello is None or hello[0] < native.PROTOCOL:
            self._fail(RelayFault.PROTOCOL, "it speaks a native relay of another version")
            return b""
        if self._terms.secret and not hello[1]:
            self._fail(
                RelayFault.SECRET_MISSING, "it has no secret, and this tcpcopy has (--secret-file)"
            )
            return b""
        if self._terms.tunnel != hello[2]:
            fault = RelayFault.NO_TUNNEL if self._terms.tunnel else RelayFault.TUNNEL_ONLY
            self._fail(fault, _REFUSALS[fault])
            return b""
        self._joined = True
        self.takes_probes = native.takes_probes(body)
        self._said = native.OPENING + native.frame(FrameType.HELLO, body)
        answer = native.join(
            self._nonce,
            self._terms.secret,
            self._said,
            payload_bytes=self._payload_bytes,
            window=native.WINDOW_BYTES,
            tunnel=self._terms.tunnel,
        )
        self._said += answer
        return answer

    def _take_welcome(self) -> None:
        found = self._next_frame((FrameType.WELCOME, FrameType.REFUSED))
        if found is None:
            self._note_fault()
            return
        kind, body = found
        if kind == FrameType.REFUSED:
            fault = native.read_refused(body)
            self._fail(fault, _REFUSALS.get(fault, f"it refuses: {fault.description}"))
        elif native.is_proof(body, self._terms.secret, b"intercept", self._said):
            self._decide(Kind.NATIVE)
        else:
            self._fail(RelayFault.SECRET_WRONG, _REFUSALS[RelayFault.SECRET_WRONG])

    def _note_fault(self) -> None:
        if self.fault:
            self.problem = f"it is not an intercept: {self.fault.description}"

    def _fail(self, fault: RelayFault, problem: str) -> None:
        self.fault = fault
        self.problem = problem
        self._held = b""

    def _needs_native(self) -> str:
        return "it speaks the classic relay only"


_REFUSALS = {
    RelayFault.SECRET_MISSING: "it wants a secret (--secret-file)",
    RelayFault.SECRET_WRONG: "the secret is wrong: --secret-file differs from intercept's",
    RelayFault.NO_TUNNEL: "it has no tunnel: run intercept --tun on the target, or leave out"
    " --via tunnel",
    RelayFault.TUNNEL_ONLY: "it runs with --tun: give --via tunnel",
}


class ServerHandshake(_Handshake):
    """Intercept's end. `nonce` are 32 random bytes, never used before."""

    __slots__ = (
        "_greeted",  # HELLO was sent: JOIN is awaited
        "payload_bytes",  # native: what tcpcopy gets of each answer's payload
        "payload_refused",  # native: what it wants, but does not get, not being known
        "window",  # native: offset up to which answers may be sent at first
    )

    def __init__(self, terms: RelayTerms, nonce: bytes) -> None:
        super().__init__(terms, nonce)
        self._greeted = False
        self.payload_bytes = 0
        self.payload_refused = 0
        self.window = 0

    def feed(self, data: bytes) -> bytes:
        """Take bytes as they came; return what to send, also before a fault."""
        if self.over or not data:
            return b""
        self._held += data
        if self._greeted:
            return self._take_join()
        if self._held[0] == _TLS_HANDSHAKE and self._terms.tls is None:
            self.fault = RelayFault.TLS
            return b""
        if len(self._held) < MESSAGE_BYTES:
            return b""
        opening = self._held[:MESSAGE_BYTES]
        if native.is_opening(opening) and self._terms.mode is not RelayMode.CLASSIC:
            self._held = self._held[MESSAGE_BYTES:]
            self._greeted = True
            hello = native.hello(self._nonce, bool(self._terms.secret), self._terms.tunnel)
            self._said = opening + hello
            return hello + (self._take_join() if self._held else b"")
        if self._terms.native_only:
            is_version = opening[:6] == bytes(6)
            self.fault = RelayFault.CLASSIC if is_version else RelayFault.NOT_A_TCPCOPY
            return b""
        self._decide(Kind.CLASSIC)
        return b""

    def _take_join(self) -> bytes:
        found = self._next_frame((FrameType.JOIN,))
        if found is None:
            return b""
        join = native.read_join(found[1])
        if join is None:
            self.fault = RelayFault.FRAME
            return b""
        if join.version != native.PROTOCOL:
            self.fault = RelayFault.PROTOCOL
        elif self._terms.secret and not join.has_secret:
            self.fault = RelayFault.SECRET_MISSING
        elif not native.is_proof(
            join.proof, self._terms.secret, b"tcpcopy", self._said + join.head
        ):
            self.fault = RelayFault.SECRET_WRONG
        elif self._terms.tunnel != join.tunnel:
            self.fault = RelayFault.NO_TUNNEL if join.tunnel else RelayFault.TUNNEL_ONLY
        if self.fault:
            return native.refused(self.fault)
        wanted = min(join.payload_bytes, native.MAX_PAYLOAD_BYTES)
        self.payload_bytes = wanted if self._terms.knows_peers else 0
        self.payload_refused = wanted - self.payload_bytes
        self.window = join.window
        self._said += native.frame(FrameType.JOIN, found[1])
        self._decide(Kind.NATIVE)
        proof = native.prove(self._terms.secret, b"intercept", self._said)
        return native.frame(FrameType.WELCOME, proof)
