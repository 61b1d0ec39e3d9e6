"""What a report needs to know about the run besides its counts: who replays what to whom.

Plain text and numbers, as the user gave them, so that a remedy can show real commands.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, replace

#: How the answers come back decides what can go wrong.
SOCKET, CLASSIC, LINK, LOCAL, TUNNEL = "socket", "classic", "link", "local", "tunnel"
MODES = (SOCKET, CLASSIC, LINK, LOCAL, TUNNEL)


@dataclass(frozen=True, slots=True)
class TransferInfo:
    """One rule of `-x`, addresses as text."""

    online_address: str  # "" when the rule names none
    online_port: int
    target_address: str
    target_port: int

    @property
    def target(self) -> str:
        return endpoint(self.target_address, self.target_port)


@dataclass(frozen=True, slots=True)
class Context:
    """The set-up of a run, for diagnosis and reports. Every field may be left at its default."""

    mode: str = SOCKET
    transfers: tuple[TransferInfo, ...] = ()
    intercepts: tuple[str, ...] = ()  # "address:port", as in Snapshot.relays
    client_addresses: tuple[str, ...] = ()  # -c as given: "62.135.200.x", addresses, CIDR
    client_pool_size: int = 0  # addresses in -c; 0: the clients' own
    ports_per_address: int = 64512  # that a mapped address has to give
    example_client: str = ""  # an address that the target sees as a client
    local_device: str = ""  # of --local; tcpcopy* when it is the first that is free
    devices: tuple[str, ...] = ()  # -i; empty: all
    files: tuple[str, ...] = ()  # -i, when it names files
    passes: int = 1  # -T
    pacing: str = ""  # of files: "as recorded", "10 times faster", "as fast as answers allow"
    rate: str = ""  # --rate as asked for: "500 sessions/s", with its mode and ramp
    filter_text: str = ""  # -F; empty: made from -x
    buffer_mib: int = 0  # -B in force
    snaplen: int = 0  # -S in force
    memory_mib: int = 0  # -m in force
    session_limit: int = 0  # most live sessions; 0: none
    answer_timeout_s: int = 0  # -t in force
    keep_alive_s: int = 0  # -k in force
    exit_wait_s: int = 0  # how long open sessions were waited for at exit
    waits_for_answers: bool = True  # not with -W
    version: str = ""
    is_compiled: bool = False
    transport: str = "tcp"  # tcp, udp or both
    is_final: bool = True  # the run has ended
    earlier_process: int = 0  # of the run before, when it ended without a summary
    earlier_started_ns: int = 0  # CLOCK_REALTIME

    @property
    def hears_answers(self) -> bool:
        """Whether answers to UDP datagrams come to tcpcopy."""
        return self.mode in (SOCKET, LOCAL)

    @property
    def needs_intercept(self) -> bool:
        """Whether answers come back by a route to an assistant."""
        return self.mode in (CLASSIC, LINK) and self.transport != "udp"

    @property
    def uses_relay(self) -> bool:
        """Whether answers come through a relay."""
        return self.needs_intercept or self.mode == TUNNEL

    @property
    def targets(self) -> tuple[str, ...]:
        """Each target once, "address:port"."""
        return tuple(dict.fromkeys(transfer.target for transfer in self.transfers))

    def only(self, target: str) -> Context:
        """The part of the run that has this target, "address:port"."""
        theirs = tuple(transfer for transfer in self.transfers if transfer.target == target)
        return replace(self, transfers=theirs)

    @property
    def online_ports(self) -> tuple[int, ...]:
        """Each captured port once."""
        return tuple(dict.fromkeys(transfer.online_port for transfer in self.transfers))

    @property
    def assistants(self) -> tuple[str, ...]:
        """Each address of an intercept once, without its port."""
        return tuple(dict.fromkeys(split_endpoint(text)[0] for text in self.intercepts))


def endpoint(address: str, port: int) -> str:
    """`address:port`, with brackets around an IPv6 address."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def split_endpoint(text: str) -> tuple[str, str]:
    """The address and the port ("" when there is none) of what `endpoint` gave."""
    if text.startswith("["):
        address, _, rest = text[1:].partition("]")
        return address, rest.removeprefix(":")
    if text.count(":") == 1:
        address, _, port = text.partition(":")
        return address, port
    return text, ""


def prefix_of(client_addresses: str) -> str:
    """The network of one item of `-c`, as the `ip route` command wants it.

    `62.135.200.x` gives `62.135.200.0/24`; what is no address comes back as it is.
    """
    try:
        if client_addresses.endswith(".x"):
            return str(ipaddress.ip_network(client_addresses[:-1] + "0/24", strict=False))
        return str(ipaddress.ip_network(client_addresses, strict=False))
    except ValueError:
        return client_addresses
