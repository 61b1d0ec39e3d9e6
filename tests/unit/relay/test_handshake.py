"""Both ends' handshakes, byte by byte: what they agree on, and whom they refuse."""

from __future__ import annotations

import ssl
from dataclasses import replace

import pytest

from tcpcopy.relay import native
from tcpcopy.relay.classic import RelayFault, encode_version
from tcpcopy.relay.handshake import ClientHandshake, Kind, ServerHandshake
from tcpcopy.relay.native import FrameType, RelayMode, RelayTerms, frame

PLAIN = RelayTerms()
CLASSIC = RelayTerms(RelayMode.CLASSIC)
NATIVE = RelayTerms(RelayMode.NATIVE)
SECRET = RelayTerms(secret=b"a secret that is shared")
OTHER = RelayTerms(secret=b"another that is not so")
OURS, THEIRS = bytes(range(32)), bytes(range(100, 132))


def talk(client: ClientHandshake, server: ServerHandshake, step: int = 1000) -> tuple[bytes, bytes]:
    """Let them talk in pieces of `step` bytes, until nothing is said; returns what each said."""
    said = [b"", b""]
    waiting = [client.opening(), b""]
    while any(waiting):
        for end, other in ((0, server), (1, client)):
            data, waiting[end] = waiting[end], b""
            said[end] += data
            for at in range(0, len(data), step):
                waiting[1 - end] += other.feed(data[at : at + step])
    return said[0], said[1]


def pair(ours: RelayTerms, theirs: RelayTerms) -> tuple[ClientHandshake, ServerHandshake]:
    return ClientHandshake(ours, OURS), ServerHandshake(theirs, THEIRS)


@pytest.mark.parametrize("step", [1, 7, 1000])
@pytest.mark.parametrize(
    ("ours", "theirs"), [(PLAIN, PLAIN), (NATIVE, PLAIN), (PLAIN, NATIVE), (SECRET, SECRET)]
)
def test_both_find_the_native_relay(ours: RelayTerms, theirs: RelayTerms, step: int) -> None:
    client, server = pair(ours, theirs)
    talk(client, server, step)
    assert (client.kind, server.kind) == (Kind.NATIVE, Kind.NATIVE)
    assert (client.rest, server.rest) == (b"", b"")
    assert (server.window, server.payload_bytes) == (native.WINDOW_BYTES, 0)


def test_classic_tcpcopy_is_taken_as_it_is() -> None:
    server = ServerHandshake(PLAIN, THEIRS)
    said = encode_version() + bytes(5)
    assert server.feed(said[:13]) == b"" and not server.over
    assert server.feed(said[13:]) == b""
    assert (server.kind, server.rest) == (Kind.CLASSIC, said)


def test_intercept_told_to_speak_classic_stays_silent() -> None:
    client, server = pair(PLAIN, CLASSIC)
    assert talk(client, server) == (native.OPENING, b"")
    assert server.kind == Kind.CLASSIC and not client.over
    client.silent()
    assert (client.kind, client.fault) == (Kind.CLASSIC, 0)


def test_tcpcopy_told_to_speak_classic_opens_so() -> None:
    client = ClientHandshake(CLASSIC, OURS)
    assert client.opening() == encode_version()
    assert client.kind == Kind.CLASSIC


@pytest.mark.parametrize("first", [b"\0\1", b"E\0"])
def test_records_instead_of_a_hello_are_classic(first: bytes) -> None:
    """An intercept that still knows sessions, and is quick with answers."""
    client = ClientHandshake(PLAIN, OURS)
    client.opening()
    assert client.feed(first) == b""
    assert (client.kind, client.rest) == (Kind.CLASSIC, first)


@pytest.mark.parametrize("terms", [NATIVE, SECRET])
def test_classic_is_not_fallen_back_on_where_native_is_needed(terms: RelayTerms) -> None:
    for end in ("silent", "records"):
        client = ClientHandshake(terms, OURS)
        client.opening()
        if end == "silent":
            client.silent()
        else:
            client.feed(b"\0\1")
        assert client.fault is RelayFault.CLASSIC
        assert "classic relay only" in client.problem
    server = ServerHandshake(terms, THEIRS)
    assert server.feed(encode_version()) == b""
    assert server.fault is RelayFault.CLASSIC


@pytest.mark.parametrize(
    ("ours", "theirs", "at_client", "at_server"),
    [
        (SECRET, OTHER, RelayFault.SECRET_WRONG, RelayFault.SECRET_WRONG),
        (PLAIN, SECRET, RelayFault.SECRET_MISSING, RelayFault.SECRET_MISSING),
        (SECRET, PLAIN, RelayFault.SECRET_MISSING, RelayFault.NONE),
    ],
)
def test_secrets_that_differ(
    ours: RelayTerms, theirs: RelayTerms, at_client: RelayFault, at_server: RelayFault
) -> None:
    client, server = pair(ours, theirs)
    talk(client, server)
    assert (client.fault, server.fault) == (at_client, at_server)
    assert (client.kind, server.kind) == (0, 0)
    assert "secret" in client.problem


def test_intercept_has_to_prove_its_secret_too() -> None:
    """One that only echoes, or takes anybody, is not believed."""
    for proof in (bytes(32), None):
        client = ClientHandshake(SECRET, OURS)
        client.opening()
        joined = client.feed(native.hello(THEIRS, True))
        echoed = joined[-native.PROOF_BYTES :]
        client.feed(frame(FrameType.WELCOME, echoed if proof is None else proof))
        assert client.fault is RelayFault.SECRET_WRONG


def test_proofs_are_of_no_use_again() -> None:
    """A conversation recorded, and played to the same intercept: its nonce is another."""
    client, server = pair(SECRET, SECRET)
    said, _ = talk(client, server)
    assert server.kind == Kind.NATIVE
    again = ServerHandshake(SECRET, bytes(32))
    again.feed(said)
    assert again.fault is RelayFault.SECRET_WRONG


@pytest.mark.parametrize("place", range(44))
def test_every_bit_of_join_is_under_the_proof(place: int) -> None:
    """Credit, payload, nonce: none can be changed on the way (the version is told first)."""
    client, server = pair(SECRET, SECRET)
    joined = bytearray(client.feed(server.feed(client.opening())))
    joined[4 + place] ^= 0x40
    answer = server.feed(bytes(joined))
    assert server.fault and answer[0] == FrameType.REFUSED
    client.feed(answer)
    assert client.fault is server.fault


@pytest.mark.parametrize(
    "said",
    [
        b"\x81\x00\x00\x05hello",
        b"\x81\x00\xff\xff",
        native.hello(THEIRS, False)[:4] + bytes(36),
        native.hello(THEIRS, False) + b"\x87\0\0\1",
        native.hello(THEIRS, False) + frame(FrameType.REFUSED, b"\xff what?"),
        native.hello(THEIRS, False) + frame(FrameType.REFUSED),
    ],
)
def test_intercept_that_talks_nonsense(said: bytes) -> None:
    client = ClientHandshake(PLAIN, OURS)
    client.opening()
    for at in range(len(said)):
        client.feed(said[at : at + 1])
    assert client.fault and client.problem and not client.kind
    assert client.feed(b"more") == b""


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", RelayFault.NOT_A_TCPCOPY),
        (native.OPENING + b"\x85\0\0\x0e", RelayFault.FRAME),
        (native.OPENING + b"\x82\0\xff\0", RelayFault.FRAME),
        (native.OPENING + frame(FrameType.JOIN, b"short"), RelayFault.FRAME),
        (native.OPENING + frame(FrameType.JOIN, b"\0\x09" + bytes(74)), RelayFault.PROTOCOL),
        (b"\x16\x03\x01\x02\x00\x01", RelayFault.TLS),
    ],
)
def test_tcpcopy_that_talks_nonsense(said: bytes, fault: RelayFault) -> None:
    server = ServerHandshake(NATIVE, THEIRS)
    for at in range(len(said)):
        server.feed(said[at : at + 1])
    assert server.fault is fault


def test_tls_instead_of_a_hello_is_told() -> None:
    client = ClientHandshake(PLAIN, OURS)
    client.opening()
    client.feed(b"\x15\x03\x03\x00\x02\x02\x46")
    assert client.fault is RelayFault.TLS and "--tls" in client.problem


def test_later_versions_are_talked_to() -> None:
    """A tcpcopy whose number is higher still; what follows the handshake is kept."""
    server = ServerHandshake(PLAIN, THEIRS)
    opening = native.OPENING[:7] + b"\x09" + native.OPENING[8:]
    hello = server.feed(opening)
    joined = native.join(OURS, b"", opening + hello, payload_bytes=250, window=77)
    assert server.feed(joined + b"what follows")[0] == FrameType.WELCOME
    assert (server.kind, server.rest) == (Kind.NATIVE, b"what follows")
    assert (server.payload_bytes, server.window) == (0, 77)
    assert server.payload_refused == native.MAX_PAYLOAD_BYTES


@pytest.mark.parametrize("wanted", [0, 90, 250])
def test_payload_is_for_tcpcopies_that_are_known(wanted: int) -> None:
    """By the secret, or by certificates that intercept asks for; else there is none."""
    asks = server_context()
    asks.verify_mode = ssl.CERT_REQUIRED
    given = min(wanted, native.MAX_PAYLOAD_BYTES)
    for terms, known in (
        (PLAIN, False),
        (SECRET, True),
        (replace(PLAIN, tls=server_context()), False),
        (replace(PLAIN, tls=asks), True),
    ):
        server = ServerHandshake(terms, THEIRS)
        hello = server.feed(native.OPENING)
        said = native.OPENING + hello
        words = native.join(OURS, terms.secret, said, payload_bytes=wanted, window=7)
        assert server.feed(words)[0] == FrameType.WELCOME
        assert server.payload_bytes == (given if known else 0)
        assert server.payload_refused == (0 if known else given)


def server_context() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)


def test_terms() -> None:
    assert not PLAIN.native_only and not CLASSIC.native_only
    assert NATIVE.native_only and SECRET.native_only
    assert replace(PLAIN, secret=b"x").native_only
