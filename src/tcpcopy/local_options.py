"""The options of local mode: their values checked, and what they exclude."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from tcpcopy.arguments import Option, Word
from tcpcopy.deliver.tunnet import Network
from tcpcopy.errors import UsageError
from tcpcopy.local_side import DEVICE, RANGES, LocalConfig
from tcpcopy.mapping.addresses import IPV4_BYTES, format_endpoint
from tcpcopy.mapping.clients import parse_clients
from tcpcopy.mapping.transfers import TransferTable

KEEP: Final = "keep"
_MOST_NETWORKS: Final = 256  # a route each
_MOST_NAME: Final = 15  # characters of a device's name
_PROTOCOLS: Final = {"tcp": (6,), "udp": (17,), "both": (6, 17)}
# Options of other ways to the target: which word says so, and what to do without.
_EXCLUDED: Final = {
    "intercept": "is of classic mode",
    "output_device": "sends frames to another host",
    "lonely": "is about intercept",
    "via": "is of tunnel mode",
}
# Accepted, and said to have no effect.
WITHOUT_EFFECT: Final = (
    "localhost", "relay_port", "relay_connections", "relay", "secret_file", "tls", "tls_ca",
    "tls_cert", "tls_key",
)  # fmt: skip


def local_options(group: str) -> tuple[Option, ...]:
    """The options, under a heading."""
    return (
        Option("local", "", "--local", group,
               "the target is a server of this host, on any of its addresses: replay through a TUN "
               "device that owns the addresses of -c (198.18.0.0/15 and fd00:7463:7063::/48 when "
               "not given), or, with -c keep, those of the clients; needs CAP_NET_ADMIN"),
        Option("local_device", "", "--local-device", group,
               "name of the device of --local; tcpcopy and the first number that is free when not "
               "given", "NAME"),
    )  # fmt: skip


def local_config(
    words: Mapping[str, Word], transfers: TransferTable, transport: str
) -> LocalConfig | None:
    """What the options come to; None without --local. Raises: UsageError."""
    word = words.get("local")
    clients = words.get("clients")
    if word is None:
        if "local_device" in words:
            words["local_device"].refuse("is of no use without --local", "give --local, too")
        if clients is not None and KEEP in _items(clients):
            clients.refuse("`keep` is of --local", "without -c clients keep their addresses, too")
        return None
    for name, why in _EXCLUDED.items():
        if name in words:
            words[name].refuse(f"{why}, and --local has the target here", "leave out one of them")
    lengths = {len(address) for address, _ in transfers.targets()}
    items = _items(clients) if clients is not None else []
    keeps = KEEP in items
    items = [item for item in items if item != KEEP]
    several = "workers" in words and words["workers"].value != "1"
    if keeps and several:
        words["workers"].refuse(
            "-c keep needs one device for all answers", "leave out --workers, or `keep`"
        )
    networks = [_network(item, clients) for item in items]
    if clients is not None and len(networks) > _MOST_NETWORKS:
        clients.refuse("are too many for a route each", "give a network, as 10.254.0.0/16")
    _check_families(networks, lengths, clients)
    for length, text in zip((4, 16), RANGES, strict=True):
        if length in lengths and length not in {n.max_prefixlen // 8 for n in networks}:
            networks.append(ipaddress.ip_network(text))
            items.append(text)
    device = words["local_device"].value if "local_device" in words else DEVICE
    if "local_device" in words:
        _check_name(words["local_device"], several)
    option = clients.typed if clients is not None else "-c"
    pool = parse_clients(",".join(items), option=option)
    return LocalConfig(tuple(networks), pool, device, keeps, _PROTOCOLS[transport])


def check_targets(
    config: LocalConfig,
    transfers: TransferTable,
    is_local: Callable[[bytes], bool],
    online_is_here: bool,
) -> None:
    """Refuse targets of other hosts, and those of which answers cannot be told from online's.

    `is_local` tells whether an address is of this host, `online_is_here` whether the captured
    servers are on it, too. Raises: UsageError.
    """
    online = {port for _, port in transfers.sources()} if online_is_here else set()
    for address, port in transfers.targets():
        if not is_local(address):
            raise UsageError(
                "-x",
                format_endpoint(address, port),
                "is not an address of this host, which --local is for",
                "leave out --local (socket mode), or give -s HOST (classic mode)",
            )
        if config.keeps and socket.IPPROTO_UDP in config.protocols and port in online:
            raise UsageError(
                "-c",
                KEEP,
                f"takes the answers of every UDP server of this host on port {port}, where online "
                "is one",
                f"let the target {format_endpoint(address, port)} use another port, or leave out "
                "`keep`",
            )


def _items(word: Word) -> list[str]:
    return [item.strip() for item in word.value.split(",")]


def _network(item: str, word: Word | None) -> Network:
    """The network to route for an item of -c. Raises: UsageError."""
    option = word.typed if word is not None else "-c"
    parse_clients(item, option=option)  # has its own words for what is wrong
    return ipaddress.ip_network(item[:-1] + "0/24" if item.endswith(".x") else item)


def _check_families(networks: Sequence[Network], lengths: set[int], word: Word | None) -> None:
    for network in networks:
        if word is not None and network.max_prefixlen // 8 not in lengths:
            family = "IPv4" if network.max_prefixlen // 8 == IPV4_BYTES else "IPv6"
            word.refuse(
                f"an address is {family}, but no target is",
                "give clients and targets of the same families",
            )


def _check_name(word: Word, several: bool) -> None:
    name = word.value
    if not name.isascii() or any(c in "/:%" or c.isspace() for c in name) or name in (".", ".."):
        word.refuse("is not a name that a device can have", "give letters and digits")
    if len(name) > _MOST_NAME:
        word.refuse(f"is longer than {_MOST_NAME} characters", "give a shorter name")
    if several:
        word.refuse("each of the workers has a device of its own", "leave it out")
