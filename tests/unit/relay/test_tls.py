"""TLS on the relay, both ends on loopback, and the files that it takes."""

from __future__ import annotations

import socket
from functools import partial
from pathlib import Path

import pytest

from tcpcopy.errors import UsageError
from tcpcopy.relay.classic import RelayFault
from tcpcopy.relay.handshake import Kind
from tcpcopy.relay.native import RelayTerms
from tcpcopy.relay.security import client_tls, server_tls
from tcpcopy.relay_options import relay_terms
from tests.unit.relay import certificates
from tests.unit.relay.packets import answer
from tests.unit.relay.test_native_ends import Pair, Start, session, start

__all__ = ["start"]  # the fixture


def ends(directory: Path, *, with_client: bool = False) -> tuple[RelayTerms, RelayTerms]:
    """Terms of tcpcopy and of intercept."""
    certificate, key = certificates.write(directory)
    ours = client_tls(certificate, *((certificate, key) if with_client else ()))
    theirs = server_tls(certificate, key, certificate if with_client else "")
    return RelayTerms(tls=ours), RelayTerms(tls=theirs)


@pytest.mark.parametrize("with_client", [False, True])
def test_answers_in_thousands(start: Start, tmp_path: Path, with_client: bool) -> None:
    """More than TLS records and socket buffers hold, in both directions."""
    ours, theirs = ends(tmp_path, with_client=with_client)
    pair = start(theirs)
    client = pair.client(ours)
    pair.up(client)
    assert client.kinds() == {pair.name: Kind.NATIVE}
    for port in range(1, 10_001):
        client.announce(*session(port))
    pair.until(lambda: pair.router.announced == 10_000)
    for _ in range(3):
        for port in range(1, 10_001):
            pair.answer(answer(client_port=port, options=bytes([1] * 12)))
        pair.server.flush()
    pair.until(lambda: len(pair.collector.packets) == 30_000, 20)
    assert pair.router.lost == 0 and client.faults == [0] * len(RelayFault)


def test_intercept_closes_and_comes_back(start: Start, tmp_path: Path) -> None:
    ours, theirs = ends(tmp_path)
    pair = start(theirs)
    client = pair.client(ours)
    pair.up(client)
    for connection in list(pair.server._connections.values()):
        pair.server._drop(connection)
    pair.until(lambda: client.counts()[pair.name].reconnects == 2)


def test_certificate_is_checked(start: Start, tmp_path: Path) -> None:
    """One that no known authority has signed."""
    _, theirs = ends(tmp_path)
    pair = start(theirs)
    client = pair.client(RelayTerms(tls=client_tls()))
    pair.until(lambda: pair.server.faults[RelayFault.TLS] >= 2)
    connection = client._servers[0].connections[0]
    pair.until(lambda: "certificate is not accepted" in connection.problem)
    assert client.servers_up == 0


def test_tcpcopy_without_certificate_is_refused(start: Start, tmp_path: Path) -> None:
    """In TLS 1.3 a client learns of that after its own part is over."""
    ours, _ = ends(tmp_path)
    _, theirs = ends(tmp_path, with_client=True)
    pair = start(theirs)
    client = pair.client(ours)
    pair.until(lambda: pair.server.faults[RelayFault.TLS] >= 2)
    assert client.servers_up == 0 and pair.server.accepted == 0


@pytest.mark.parametrize("which", ["ours", "theirs"])
def test_one_side_without(start: Start, tmp_path: Path, which: str) -> None:
    ours, theirs = ends(tmp_path)
    pair = start(theirs if which == "theirs" else RelayTerms())
    client = pair.client(ours if which == "ours" else RelayTerms())
    pair.until(lambda: pair.server.faults[RelayFault.TLS] >= 2)
    assert client.servers_up == 0 and pair.server.accepted == 0


def test_half_a_handshake_is_given_up(tmp_path: Path) -> None:
    _, theirs = ends(tmp_path)
    pair = Pair(theirs)
    with socket.create_connection(("127.0.0.1", pair.server.port)) as peer:
        peer.sendall(b"\x16\x03\x01\x02\x00")
        pair.until(lambda: bool(pair.server._in_handshake))
        pair.step()
        pair.ahead_ns += 11_000_000_000
        pair.server.run_timers(pair.now())
        assert pair.server.faults[RelayFault.SILENT] == 1
    pair.close()


def test_files_that_do_not_do(tmp_path: Path) -> None:
    certificate, key = certificates.write(tmp_path)
    junk = tmp_path / "junk.pem"
    junk.write_text("nothing of the kind")
    missing = str(tmp_path / "missing.pem")
    cases = [
        (partial(client_tls, missing), f"--tls-ca {missing}: No such file"),
        (partial(client_tls, str(junk)), f"--tls-ca {junk}: holds no certificate"),
        (partial(server_tls, certificate, missing), f"--tls-key {missing}: No such file"),
        (partial(server_tls, missing, key), f"--tls-cert {missing}: No such file"),
        (partial(server_tls, key, certificate), f"--tls-cert {key}: with the key"),
        (partial(server_tls, str(junk), key), f"--tls-cert {junk}: with the key"),
    ]
    for make, said in cases:
        with pytest.raises(UsageError) as caught:
            make()
        assert str(caught.value).startswith(said)
    assert relay_terms({}, is_server=True) == RelayTerms()
