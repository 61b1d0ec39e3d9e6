"""The options of tunnel mode: of intercept, where tunnels end, and of tcpcopy, where they begin."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Final

from tcpcopy.arguments import Option, Word
from tcpcopy.errors import UsageError
from tcpcopy.local_options import KEEP
from tcpcopy.mapping.addresses import parse_address, parse_port, split_host_port
from tcpcopy.relay.injection import Network
from tcpcopy.tunnel_end import DEFAULT_CLIENTS, DEFAULT_DEVICE, TunnelConfig

GROUP: Final = "tunnels (--tun)"
VIA_GROUP: Final = "intercept (classic mode)"

_RANGES: Final = ",".join(map(str, DEFAULT_CLIENTS))
_CAPTURING: Final = ("device", "filter", "replaced", "dnat", "layout", "batch")

END_OPTIONS: Final[tuple[Option, ...]] = (
    Option("tun", "", "--tun", GROUP,
           "run on the target: put the packets of tcpcopies (--via tunnel) into this host by a "
           "TUN device, and take the answers out of it; needs --secret-file"),
    Option("tun_device", "", "--tun-device", GROUP,
           f"name of that device; {DEFAULT_DEVICE} when not given", "DEVICE"),
    Option("tun_allow", "", "--tun-allow", GROUP,
           "addresses of this host, and ports, that packets may be for; every address but those "
           "of loopback, and every port, when not given", "ADDRESS[:PORT],...", repeats=True),
    Option("tun_clients", "", "--tun-clients", GROUP,
           "addresses that packets may come from, which lead to the device: the same as -c of "
           f"tcpcopy; {_RANGES} when not given; keep: the clients' own addresses, for which all "
           "that --tun-allow's ports send to other hosts goes into the device",
           "NETWORK,...|keep", repeats=True),
)  # fmt: skip


VIA: Final = Option(
    "via", "", "--via", VIA_GROUP,
    "how packets get to the target: network, as they are, or tunnel, through the relay to "
    "intercept --tun on the target, where -s is then; client addresses are those of -c "
    f"({_RANGES} when not given; -c keep keeps the clients' own)", "network|tunnel",
)  # fmt: skip


def is_tunnel(words: Mapping[str, Word]) -> bool:
    """Whether --via says so."""
    return "via" in words and words["via"].value == "tunnel"


def tunnel_begins(words: MutableMapping[str, Word], targets: Sequence[bytes]) -> bool:
    """Whether tcpcopy's packets go through a tunnel; puts in what -c then is. Raises: UsageError.

    `targets` are the addresses of the targets.
    """
    via = words.get("via")
    if via is None:
        return False
    if via.value not in ("network", "tunnel"):
        via.refuse("is no way to the target", "give network or tunnel")
    if via.value == "network":
        return False
    if "intercept" not in words:
        via.refuse("needs -s", "give -s TARGET, the target on which intercept --tun runs")
    if "secret_file" not in words:
        via.refuse(
            "needs a shared secret: without one anybody could send packets into the target",
            "give --secret-file FILE, the same here and to intercept (see docs/relay.md)",
        )
    if "output_device" in words:
        words["output_device"].refuse("sends frames, and a tunnel has none", "leave it out")
    clients = words.get("clients")
    if clients is not None and clients.value == KEEP:
        del words["clients"]
    elif clients is None:
        families = {len(address) for address in targets}
        networks = [n for n in DEFAULT_CLIENTS if len(n.network_address.packed) in families]
        words["clients"] = Word("-c", ",".join(map(str, networks)))
    return True


def tunnel_end(words: Mapping[str, Word]) -> TunnelConfig | None:
    """What these options of intercept come to; None without --tun. Raises: UsageError."""
    if "tun" not in words:
        for name in ("tun_device", "tun_allow", "tun_clients"):
            if name in words:
                words[name].refuse("is of no use without --tun", "give --tun, too")
        return None
    for name in _CAPTURING:
        if name in words:
            words[name].refuse(
                "is of no use with --tun, which captures nothing", "leave it out, or --tun"
            )
    if "secret_file" not in words:
        raise UsageError(
            "--tun",
            None,
            "needs a shared secret: who connects may send packets into this host",
            "give --secret-file FILE, the same here and to tcpcopy (see docs/relay.md)",
        )
    allowed = _allowed(words.get("tun_allow"))
    clients = _clients(words.get("tun_clients"))
    if not clients:
        for address, port in allowed or ((b"", 0),):
            if not port or not address:
                words["tun_clients"].refuse(
                    "needs the ports whose answers go into the tunnel",
                    "give --tun-allow ADDRESS:PORT,... with a port each",
                )
    device = words["tun_device"].value if "tun_device" in words else DEFAULT_DEVICE
    if not 0 < len(device.encode()) < 16 or "/" in device or device in (".", ".."):
        words["tun_device"].refuse("is no name of a device", "give up to 15 characters without /")
    return TunnelConfig(device, clients, allowed)


def _allowed(word: Word | None) -> tuple[tuple[bytes, int], ...]:
    if word is None:
        return ()
    found = []
    for item in word.value.split(","):
        try:
            host, port = split_host_port(item.strip())
            found.append((parse_address(host), parse_port(port) if port is not None else 0))
        except ValueError as error:
            hint = "write ADDRESS[:PORT],..., for example 10.0.0.2:8080"
            raise UsageError(word.typed, item.strip(), str(error), hint) from None
    return tuple(found)


def _clients(word: Word | None) -> tuple[Network, ...]:
    if word is None:
        return DEFAULT_CLIENTS
    if word.value == KEEP:
        return ()
    found: list[Network] = []
    for item in word.value.split(","):
        text = item.strip()
        if text.endswith(".x"):  # as -c has it
            text = f"{text[:-1]}0/24"
        try:
            found.append(ipaddress.ip_network(text))
        except ValueError:
            raise UsageError(
                word.typed, item.strip(), "is no network", f"write for example {_RANGES}, or {KEEP}"
            ) from None
    return tuple(found)
