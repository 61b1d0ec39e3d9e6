"""The capabilities that each process needs after it has opened everything: docs/privileges.md.

Not needed are: to capture a device again that went and came back (the socket is bound anew), to
send by raw sockets that are open, to remove a TUN device and its routes (they go with it).
"""

from __future__ import annotations

from tcpcopy.copier_config import CopierConfig
from tcpcopy.interceptor import InterceptConfig
from tcpcopy.mapping.addresses import IPV4_BYTES, is_loopback
from tcpcopy.privileges import CAP_NET_ADMIN, CAP_NET_RAW
from tcpcopy.relay.native import RelayMode

Rights = frozenset[int]


def of_worker(config: CopierConfig) -> Rights:
    """Of a process that copies, the only one or one of several."""
    needed = set()
    if _probes(config) and config.share[0] == 0:
        needed.add(CAP_NET_RAW)  # a probe opens sockets of its own, at any time
    if _asks_neighbours(config):
        needed.add(CAP_NET_ADMIN)
    if config.local is not None and config.local.keeps:
        needed.add(CAP_NET_ADMIN)  # rules of this host's routing are removed at the end
    return frozenset(needed)


def of_parent(config: CopierConfig) -> Rights:
    """Of the process that starts workers: what a new one takes to open its own."""
    needed = set()
    forges_udp = config.udp is not None and config.udp.forges and not config.relay.tunnel
    sends_raw = bool(config.intercepts) and not config.relay.tunnel
    if config.local is not None:
        needed.add(CAP_NET_ADMIN)  # to make its TUN device
        targets = [address for address, _ in config.transfers.targets()]
        # ::1 is reached by a raw socket.
        sends_raw = any(is_loopback(one) and len(one) != IPV4_BYTES for one in targets)
        forges_udp = False
    if sends_raw or forges_udp or _probes(config):
        needed.add(CAP_NET_RAW)
    if _asks_neighbours(config):
        needed.add(CAP_NET_ADMIN)
    return frozenset(needed)


def of_intercept(config: InterceptConfig) -> Rights:
    """Of intercept."""
    needed = set()
    if config.tunnel is not None:
        needed.add(CAP_NET_ADMIN)  # its device is made again when it was removed; so are rules
    if config.relay.mode is not RelayMode.CLASSIC:
        needed.add(CAP_NET_RAW)  # a tcpcopy that probes lets it look at single flows
    return frozenset(needed)


def _probes(config: CopierConfig) -> bool:
    return config.checks is not None and config.tcp


def _asks_neighbours(config: CopierConfig) -> bool:
    """Whether MAC addresses are looked up, and so asked for."""
    return bool(config.output_device) and any(not one.target_mac for one in config.transfers)
