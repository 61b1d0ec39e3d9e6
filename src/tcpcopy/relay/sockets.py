"""Small things about the relay's sockets, plain or TLS, that both ends need.

`ssl` takes 1.3 MB in each process: it is imported only by who makes a TLS context (`security`), so
that an error can be one of its own only where it is there.
"""

from __future__ import annotations

import socket
import sys
from typing import Final

_PLAIN: Final = (BlockingIOError, InterruptedError)


def would_block() -> tuple[type[OSError], ...]:
    """What a socket that does not block raises when it would; before OSError, of which all are
    kinds.
    """
    ssl = sys.modules.get("ssl")
    return _PLAIN if ssl is None else (*_PLAIN, ssl.SSLWantReadError, ssl.SSLWantWriteError)


def is_certificate_refused(error: OSError) -> bool:
    """Whether TLS failed because of the peer's certificate."""
    ssl = sys.modules.get("ssl")
    return ssl is not None and isinstance(error, ssl.SSLCertVerificationError)


def problem_of(error: OSError) -> str:
    """What went wrong, for a log line."""
    if "ssl" in sys.modules:
        import ssl

        if isinstance(error, ssl.SSLCertVerificationError):
            return f"its certificate is not accepted: {error.verify_message}"
        if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return "closed by it"
        if isinstance(error, ssl.SSLError):
            return f"TLS: {(error.reason or str(error)).replace('_', ' ').lower()}"
    return error.strerror or str(error) or "broken"


def watch_peer(connection: socket.socket, idle_s: int, interval_s: int, give_up_ms: int) -> None:
    """Send at once, and let the kernel notice when the peer's host is gone."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle_s)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval_s)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, give_up_ms)


def met_itself(attempt: socket.socket) -> bool:
    """Whether a socket is connected to itself, or not at all any more.

    The intercept's port may be among those that the kernel gives to clients: without an intercept
    on this host an attempt can get that very port, and would then keep an intercept from it.
    Source: RFC 9293 (3.5), simultaneous open.
    """
    try:
        return bool(attempt.getsockname() == attempt.getpeername())
    except OSError:
        return True
