"""The files that protect the relay: shared secret, certificates and keys; read once, at start."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Final, NoReturn

from tcpcopy.errors import UsageError

if TYPE_CHECKING:
    import ssl

MIN_SECRET_BYTES: Final = 16
_MAX_SECRET_BYTES: Final = 4096
_MAKE_ONE: Final = "make one with `openssl rand -hex 32`"


def read_secret(option: str, path: str) -> bytes:
    """The secret in a file, white space around it left out.

    Raises: UsageError when it cannot be read, it belongs to another user than root or the one who
    runs this, others than its owner can read it, or it is too short to withstand guessing.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise UsageError(option, path, "is not a file", "name the file of the secret")
            data = file.read(_MAX_SECRET_BYTES + 1)
    except OSError as error:
        _refuse_file(option, path, error)
    user = os.geteuid()
    if status.st_uid not in (0, user):
        problem = f"belongs to user {status.st_uid}, who could put another secret there"
        raise UsageError(option, path, problem, f"chown {user} {path}; chmod 600 {path}")
    if status.st_mode & _forbidden(status, user):
        raise UsageError(
            option, path, "others than its owner may read or write it", f"chmod 600 {path}"
        )
    secret = data.strip()
    if len(data) > _MAX_SECRET_BYTES:
        raise UsageError(option, path, "is too long for a secret", _MAKE_ONE)
    if len(secret) < MIN_SECRET_BYTES:
        problem = f"the secret has {len(secret)} characters, {MIN_SECRET_BYTES} are the least"
        raise UsageError(option, path, problem, _MAKE_ONE)
    return secret


def _forbidden(status: os.stat_result, user: int) -> int:
    """The mode bits that a secret must not have.

    What root hands to a service that is not root may be readable by that service's group: systemd
    (LoadCredential=, by an access list whose mask stands there) and Kubernetes (fsGroup) do it so.
    """
    everyone = stat.S_IRWXG | stat.S_IRWXO
    if user != 0 and status.st_uid == 0 and status.st_gid in (0, os.getegid()):
        return everyone & ~stat.S_IRGRP
    return everyone


def client_tls(ca: str = "", certificate: str = "", key: str = "") -> ssl.SSLContext:
    """TLS 1.3 to an intercept, whose certificate is checked: by `ca`, else by the system's.

    `certificate` and `key` are what this tcpcopy shows. Raises: UsageError.
    """
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    _load_ca(context, ca)
    if certificate:
        _load_certificate(context, certificate, key)
    return context


def server_tls(certificate: str, key: str, ca: str = "") -> ssl.SSLContext:
    """TLS 1.3 for tcpcopies; with `ca`, each has to show a certificate. Raises: UsageError."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0  # connections are few and last
    _load_certificate(context, certificate, key)
    if ca:
        _load_ca(context, ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _load_ca(context: ssl.SSLContext, ca: str) -> None:
    import ssl

    if not ca:
        context.load_default_certs()
        return
    try:
        context.load_verify_locations(ca)
    except ssl.SSLError:
        raise UsageError(
            "--tls-ca", ca, "holds no certificate", "give certificates in PEM form"
        ) from None
    except OSError as error:
        _refuse_file("--tls-ca", ca, error)


def _load_certificate(context: ssl.SSLContext, certificate: str, key: str) -> None:
    import ssl

    for option, path in (("--tls-cert", certificate), ("--tls-key", key)):
        try:
            with open(path, "rb"):
                pass
        except OSError as error:
            _refuse_file(option, path, error)
    try:
        # Without a password of ours it would ask on the terminal.
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except (ssl.SSLError, ValueError) as error:
        problem = f"with the key {key} it cannot be used ({_reason(error)})"
        hint = "give a certificate and its key, both in PEM form and without a password"
        raise UsageError("--tls-cert", certificate, problem, hint) from None


def _reason(error: Exception) -> str:
    text = getattr(error, "reason", None) or str(error) or "unreadable"
    return str(text).replace("_", " ").lower()


def _refuse_file(option: str, path: str, error: OSError) -> NoReturn:
    hint = "name another file"
    if error.errno in (errno.EACCES, errno.EPERM):
        hint = "run as a user who may read it"
    raise UsageError(option, path, error.strerror or str(error), hint) from None
