"""`-x`: which online address and port is copied to which target."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from tcpcopy.errors import UsageError
from tcpcopy.mapping.addresses import (
    Resolver,
    format_endpoint,
    is_loopback,
    parse_address,
    parse_host,
    parse_mac,
    parse_port,
    resolve_host,
    split_host_port,
    unusable_as_destination,
    unusable_as_peer,
)

_FORM = "write [sourceIP:]sourcePort-targetIP:targetPort, for example 80-192.168.0.2:8080"


@dataclass(frozen=True, slots=True)
class Transfer:
    """One rule of `-x`; the same source may stand in several."""

    index: int  # position in -x, from 0
    source_address: bytes  # 4 or 16 bytes, or b"" for any address of the online host
    source_port: int  # 1 to 65535
    source_mac: bytes | None  # 6 bytes; used by link-layer output only
    target_address: bytes  # 4 or 16 bytes
    target_port: int  # 1 to 65535
    target_mac: bytes | None  # 6 bytes; used by link-layer output only

    @property
    def source(self) -> tuple[bytes, int]:
        """Address (b"" is any) and port that clients connect to online."""
        return self.source_address, self.source_port

    @property
    def target(self) -> tuple[bytes, int]:
        """Address and port that the sessions are replayed to."""
        return self.target_address, self.target_port

    def __str__(self) -> str:
        source = format_endpoint(self.source_address, self.source_port)
        return f"{source}-{format_endpoint(self.target_address, self.target_port)}"


class TransferTable:
    """All transfers, looked up by the address and port that a client connects to."""

    __slots__ = ("_any", "_exact", "_transfers")

    _transfers: tuple[Transfer, ...]
    # Every source that names its address, with the "any" rules of its port merged in, and every
    # target with nothing (see lookup).
    _exact: dict[tuple[bytes, int], tuple[Transfer, ...]]
    _any: dict[int, tuple[Transfer, ...]]  # rules without an address, by port

    def __init__(self, transfers: Iterable[Transfer], *, excludes_targets: bool = True) -> None:
        """`excludes_targets` is False where our own replay cannot be captured: in files."""
        self._transfers = tuple(transfers)
        self._exact = {}
        self._any = {}
        for transfer in self._transfers if excludes_targets else ():
            self._exact.setdefault(transfer.target, ())
        for address, port in self.sources():
            matching = _once_a_target(
                transfer
                for transfer in self._transfers
                if transfer.source_port == port and transfer.source_address in (b"", address)
            )
            if address:
                self._exact[address, port] = matching
            else:
                self._any[port] = matching

    def lookup(self, address: bytes, port: int) -> tuple[Transfer, ...]:
        """Transfers for a connection to an online address and port, in the order of `-x`.

        A connection that matches a rule with its address and one without is copied once to each
        target. What is addressed to a target is our own replay (or someone's use of the target)
        and is never copied, unless a rule names it as its source.
        """
        found = self._exact.get((address, port))
        if found is None:
            return self._any.get(port, ())
        return found

    def sources(self) -> tuple[tuple[bytes, int], ...]:
        """Each (address or b"", port) copied from, once, in the order of `-x`."""
        return tuple(dict.fromkeys(transfer.source for transfer in self._transfers))

    def targets(self) -> tuple[tuple[bytes, int], ...]:
        """Each (address, port) copied to, once, in the order of `-x`."""
        return tuple(dict.fromkeys(transfer.target for transfer in self._transfers))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TransferTable) and self._transfers == other._transfers

    def __hash__(self) -> int:
        return hash(self._transfers)

    def __iter__(self) -> Iterator[Transfer]:
        return iter(self._transfers)

    def __len__(self) -> int:
        return len(self._transfers)

    def __getitem__(self, index: int) -> Transfer:
        return self._transfers[index]


def _once_a_target(transfers: Iterable[Transfer]) -> tuple[Transfer, ...]:
    by_target: dict[tuple[bytes, int], Transfer] = {}
    for transfer in transfers:
        by_target.setdefault(transfer.target, transfer)
    return tuple(by_target.values())


def parse_transfers(
    text: str, *, option: str = "-x", resolve: Resolver = resolve_host
) -> tuple[Transfer, ...]:
    """Parse the value of `-x`: `[sourceIP:]sourcePort[@sourceMAC]-target:targetPort[@targetMAC],…`.

    Source addresses are numeric (0.0.0.0 and [::] mean any), targets numeric or host names, which
    `resolve` turns into addresses (raising ValueError). Raises UsageError.
    """
    transfers: list[Transfer] = []
    seen: set[tuple[bytes, int, bytes, int]] = set()
    for index, item in enumerate(text.split(",")):
        item = item.strip()
        transfer = _parse_transfer(item, index, option, resolve)
        identity = (*transfer.source, *transfer.target)
        if identity in seen:
            raise UsageError(
                option, item, "the same transfer is given twice", "leave one out; -n makes copies"
            )
        seen.add(identity)
        transfers.append(transfer)
    return tuple(transfers)


def _parse_transfer(item: str, index: int, option: str, resolve: Resolver) -> Transfer:
    source_text, dash, target_text = item.partition("-")
    if not dash:
        problem = "has no '-' between source and target" if item else "a transfer is empty"
        raise UsageError(option, item, problem, _FORM)
    try:
        source_address, source_port, source_mac = _parse_source(source_text)
    except ValueError as error:
        raise UsageError(option, item, f"source: {error}", _FORM) from None
    try:
        target_address, target_port, target_mac = _parse_target(target_text, resolve)
    except ValueError as error:
        raise UsageError(option, item, f"target: {error}", _FORM) from None
    return Transfer(
        index, source_address, source_port, source_mac, target_address, target_port, target_mac
    )


def _parse_source(text: str) -> tuple[bytes, int, bytes | None]:
    endpoint, at, mac_text = text.partition("@")
    mac = parse_mac(mac_text) if at else None
    if ":" not in endpoint:
        return b"", parse_port(endpoint), mac
    host, port_text = split_host_port(endpoint)
    if port_text is None:
        raise ValueError("the port is missing")
    try:
        address = parse_address(host)
    except ValueError as error:
        raise ValueError(f"{host!r} {error}") from None
    if not any(address):  # 0.0.0.0 and :: are any address, as in the C program
        return b"", parse_port(port_text), mac
    if problem := unusable_as_peer(address):
        raise ValueError(f"{host} {problem}")
    return address, parse_port(port_text), mac


def _parse_target(text: str, resolve: Resolver) -> tuple[bytes, int, bytes | None]:
    endpoint, at, mac_text = text.partition("@")
    mac = parse_mac(mac_text) if at else None
    host, port_text = split_host_port(endpoint)
    if port_text is None:
        missing = "address" if host.isdigit() else "port"
        raise ValueError(f"the {missing} is missing")
    port = parse_port(port_text)
    try:
        address = parse_host(host, resolve)
    except ValueError as error:
        raise ValueError(str(error) if repr(host) in str(error) else f"{host!r} {error}") from None
    if problem := unusable_as_destination(address):
        raise ValueError(f"{host} {problem}")
    return address, port, mac


def check_no_loop(
    transfers: Iterable[Transfer],
    is_local: Callable[[bytes], bool],
    *,
    stays_away: Callable[[bytes], bool] | None = None,
    option: str = "-x",
) -> None:
    """Refuse a target that would itself be captured: its replay would be copied without end.

    `is_local` tells whether an address belongs to this host; loopback addresses always do.
    `stays_away` tells of an address whether what is sent to it stays in another network than the
    one that is captured. Raises UsageError naming the transfer whose target is captured.
    """
    rules = tuple(transfers)
    for transfer in rules:
        if stays_away is not None and stays_away(transfer.target_address):
            continue
        for rule in rules:
            if transfer.target_port != rule.source_port:
                continue
            if rule.source_address:
                captured = rule.source_address == transfer.target_address
            else:
                address = transfer.target_address
                captured = is_loopback(address) or is_local(address)
            if captured:
                target = format_endpoint(*transfer.target)
                raise UsageError(
                    option,
                    str(transfer),
                    f"the target {target} would itself be captured (a loop)",
                    "choose another target, or name the source address that is to be copied",
                )
