"""The relay's options that both commands have: what is spoken, the secret, TLS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from tcpcopy.arguments import Option, Word
from tcpcopy.errors import UsageError
from tcpcopy.relay.native import RelayMode, RelayTerms
from tcpcopy.relay.security import client_tls, read_secret, server_tls

if TYPE_CHECKING:
    import ssl

_MODES: Final = {mode.name.lower(): mode for mode in RelayMode}
_OF_CLASSIC: Final = "is about the classic relay, which is spoken with C programs alone"
_FILES: Final = ("tls_ca", "tls_cert", "tls_key")


def relay_options(
    group: str, other: str, ca: str, certificate: str, *, single: str, bare: str
) -> tuple[Option, ...]:
    """The options under a heading; `other` is the program at the other end, `ca` and
    `certificate` say what these files are for, `single` and `bare` what the C switches do here.
    """
    return (
        Option("single", "", "--single", group, single),
        Option("disable_combined", "", "--disable-combined", group, bare),
        Option("relay", "", "--relay", group,
               f"the relay to {other}: native, classic (that of the C programs), or auto: native "
               "where both ends have it; auto when not given", "RELAY"),
        Option("secret_file", "", "--secret-file", group,
               f"file with a secret of 16 characters or more that {other} must know, and this end "
               "proves to know, before anything is said; only its owner may read it", "FILE"),
        Option("tls", "", "--tls", group, f"encrypt the relay to {other} with TLS 1.3"),
        Option("tls_ca", "", "--tls-ca", group, ca, "FILE"),
        Option("tls_cert", "", "--tls-cert", group, certificate, "FILE"),
        Option("tls_key", "", "--tls-key", group, "the key of --tls-cert, in PEM form", "FILE"),
    )  # fmt: skip


def relay_terms(words: Mapping[str, Word], *, is_server: bool) -> RelayTerms:
    """What these options come to; files are read. Raises: UsageError."""
    mode = RelayMode.AUTO
    if "relay" in words:
        word = words["relay"]
        if word.value not in _MODES:
            word.refuse("is not a relay", f"give one of {', '.join(_MODES)}")
        mode = _MODES[word.value]
    secret = b""
    if "secret_file" in words:
        word = words["secret_file"]
        secret = read_secret(word.typed, word.value)
    is_single, is_bare = "single" in words, "disable_combined" in words
    for name in ("single", "disable_combined"):
        if name in words and mode is RelayMode.NATIVE:
            words[name].refuse(_OF_CLASSIC, "leave out --relay native, or this")
    if is_single and not is_server:
        mode = RelayMode.CLASSIC
    terms = RelayTerms(mode, secret, _tls(words, is_server), single=is_single, bare=is_bare)
    if (is_single or is_bare) and (secret or terms.tls is not None):
        name = "single" if is_single else "disable_combined"
        words[name].refuse(_OF_CLASSIC, "leave out --secret-file and --tls, or this")
    if mode is RelayMode.CLASSIC and (terms.secret or terms.tls is not None):
        protected = words["secret_file" if terms.secret else "tls"]
        raise UsageError(
            protected.typed,
            protected.value,
            "the classic relay has neither secret nor TLS",
            "leave out --relay classic",
        )
    return terms


def _tls(words: Mapping[str, Word], is_server: bool) -> ssl.SSLContext | None:
    paths = {name: words[name].value for name in _FILES if name in words}
    if "tls" not in words:
        for name in paths:
            words[name].refuse("is of no use without --tls", "give --tls, too")
        return None
    certificate, key = paths.get("tls_cert", ""), paths.get("tls_key", "")
    if is_server and not certificate:
        words["tls"].refuse("needs a certificate", "give --tls-cert FILE --tls-key FILE")
    if bool(certificate) != bool(key):
        given = words["tls_cert" if certificate else "tls_key"]
        given.refuse(
            "certificate and key belong together", "give both --tls-cert FILE and --tls-key FILE"
        )
    if is_server:
        return server_tls(certificate, key, paths.get("tls_ca", ""))
    return client_tls(paths.get("tls_ca", ""), certificate, key)
