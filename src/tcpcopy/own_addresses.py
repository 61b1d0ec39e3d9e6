"""What is intercept's host itself, kept current: by the kernel's word, else by looking again."""

from __future__ import annotations

import logging
from typing import Final

from tcpcopy.capture import rtnetlink
from tcpcopy.namespaces import Namespace, inside
from tcpcopy.relay.own import OwnAddresses

_log = logging.getLogger("tcpcopy.intercept")
_SECOND_NS: Final = 1_000_000_000


class OwnAddressWatch:
    """The addresses of the namespace that answers arrive in. Not thread-safe."""

    def __init__(self, namespace: Namespace | None) -> None:
        """Reads them. Raises OSError."""
        self._namespace = namespace
        self._changes: rtnetlink.Changes | None = None
        self._due_ns = 0
        self._has_changed = False
        self._problem = ""
        with inside(namespace):
            try:
                self._changes = rtnetlink.Changes()
            except OSError as error:
                _log.debug("no word of changed addresses: %s", error)
            self._found = self._read()

    @property
    def current(self) -> OwnAddresses:
        """As read last."""
        addresses, networks = self._found
        return OwnAddresses(addresses, networks)

    def look(self, now_ns: int) -> bool:
        """Read them again, once a second at most and only after a change; whether they differ."""
        if self._changes is None or self._changes.take():
            self._has_changed = True
        if not self._has_changed or now_ns < self._due_ns:
            return False
        self._due_ns = now_ns + _SECOND_NS
        try:
            with inside(self._namespace):
                found = self._read()
        except OSError as error:
            if str(error) != self._problem:
                self._problem = str(error)
                _log.warning("cannot read this host's addresses: %s", error.strerror)
            return False
        self._has_changed = False
        self._problem = ""
        if found == self._found:
            return False
        self._found = found
        return True

    def close(self) -> None:
        """Look no more; may be called twice."""
        if self._changes is not None:
            self._changes.close()
            self._changes = None

    @staticmethod
    def _read() -> tuple[frozenset[bytes], frozenset[tuple[bytes, int]]]:
        """Single addresses, and networks of more than one."""
        addresses = rtnetlink.local_addresses()
        networks = set()
        for address, prefix in rtnetlink.local_networks():
            if prefix == 8 * len(address):
                addresses.add(address)
            else:
                networks.add((address, prefix))
        return frozenset(addresses), frozenset(networks)
