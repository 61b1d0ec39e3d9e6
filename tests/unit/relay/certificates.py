"""A certificate for 127.0.0.1 that signs itself, and its key: for tests, valid for a century."""

from __future__ import annotations

from pathlib import Path

CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBhjCCASygAwIBAgIUPJYc9Msz8mYiViQRRXm82FCBYUMwCgYIKoZIzj0EAwIw
DzENMAsGA1UEAwwEdGVzdDAgFw0yNjExMjIxODI5MzhaGA8yMTI2MTAyOTE4Mjkz
OFowDzENMAsGA1UEAwwEdGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABP7b
7wnK7FcqyEWPh2NrvhcpAuQex0TUXRJgrnq0ijY2LLqh7ZMoNibFXOonrm1BTkd/
Ey4hlK4BkaCLRfpKUuGjZDBiMB0GA1UdDgQWBBTSTyVj2p3bHiy/HrMiBdhMZpQ/
3zAfBgNVHSMEGDAWgBTSTyVj2p3bHiy/HrMiBdhMZpQ/3zAPBgNVHRMBAf8EBTAD
AQH/MA8GA1UdEQQIMAaHBH8AAAEwCgYIKoZIzj0EAwIDSAAwRQIhAM10S4LIZKsA
HGIOZIzYAq6TmNnA073sid8EEFjNINo8AiAXwOCY6ja1wt4ngVJFpSEAYD3QeZ+L
ZVaMsF+SLl2cOg==
-----END CERTIFICATE-----
"""
KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgVr5dBO/7hPfW8qWZ
HOzj3/ckrLuNLya+C5Kt0lR4XrihRANCAAT+2+8JyuxXKshFj4dja74XKQLkHsdE
1F0SYK56tIo2Niy6oe2TKDYmxVzqJ65tQU5HfxMuIZSuAZGgi0X6SlLh
-----END PRIVATE KEY-----
"""


def write(directory: Path, name: str = "intercept") -> tuple[str, str]:
    """Put both into files, NAME.pem and NAME.key; their paths."""
    certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
    certificate.write_text(CERTIFICATE)
    key.write_text(KEY)
    return str(certificate), str(key)


def write_secret(directory: Path, name: str = "tcpcopy.secret") -> str:
    """Put a secret into a file that only its owner can read; its path."""
    path = directory / name
    path.write_text("0123456789abcdef0123456789abcdef\n")
    path.chmod(0o600)
    return str(path)
