"""What a run is going to do, as far as the checks need to know; made from its options."""

from __future__ import annotations

from dataclasses import dataclass

from tcpcopy.mapping.clients import AddressPool
from tcpcopy.namespaces import Namespace
from tcpcopy.report.context import CLASSIC, LINK, SOCKET, TUNNEL

Endpoint = tuple[bytes, int]  # address of 4 or 16 bytes, b"" for any; port

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Plan:
    """What a tcpcopy is going to do."""

    mode: str = SOCKET  # of report.context.MODES
    transport: str = "tcp"  # tcp, udp or both
    sources: tuple[Endpoint, ...] = ()
    targets: tuple[Endpoint, ...] = ()
    intercepts: tuple[Endpoint, ...] = ()
    pool: AddressPool | None = None  # -c
    client_addresses: tuple[str, ...] = ()  # -c as given
    devices: tuple[str, ...] = ()  # -i; empty: all
    is_recorded: bool = False  # -i names files: nothing is captured
    output_device: str = ""  # -o
    filter_text: str | None = None  # -F
    filter_program: bytes = b""  # that the kernel runs; b"" when it does not compile
    filter_problem: str = ""  # why it does not compile
    mtu: int = 1500
    buffer_bytes: int = 32 * _MIB  # of each ring
    snaplen: int = 65535
    memory_bytes: int = 1024 * _MIB
    workers: int = 1
    capture_namespace: Namespace | None = None
    send_namespace: Namespace | None = None

    @property
    def captures(self) -> bool:
        """Whether packets are captured on devices of this host."""
        return not self.is_recorded

    @property
    def forges(self) -> bool:
        """Whether packets leave this host's IP layer or a device with other hosts' addresses."""
        return self.mode in (CLASSIC, LINK)

    @property
    def sends_packets(self) -> bool:
        """Whether forged packets go through this host's routing, firewall and conntrack."""
        return self.mode == CLASSIC

    @property
    def needs_intercept(self) -> bool:
        """Whether answers come back from an intercept."""
        return self.mode in (CLASSIC, LINK, TUNNEL) and self.transport != "udp"

    @property
    def protocols(self) -> tuple[str, ...]:
        """The transports that are copied."""
        return ("tcp", "udp") if self.transport == "both" else (self.transport,)


@dataclass(frozen=True, slots=True)
class InterceptPlan:
    """What an intercept is going to do."""

    devices: tuple[str, ...] = ()  # -i; empty: all
    filter_text: str = ""  # -F; "": all TCP but the relay's own
    filter_problem: str = ""  # why it does not compile
    host: str = ""  # -b; "": all IPv4 addresses
    port: int = 36524
    buffer_bytes: int = 16 * _MIB  # of each ring
    peer_limit: int = 64
    is_open: bool = False  # whoever reaches the port may connect, and is not known
    uses_tun: bool = False  # --tun: answers are taken from a TUN device
    capture_namespace: Namespace | None = None
    listen_namespace: Namespace | None = None
