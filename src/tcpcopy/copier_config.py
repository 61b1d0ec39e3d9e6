"""What one tcpcopy worker is to do, and which packets it has the kernel capture for that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tcpcopy.capture.filters import (
    compile_filter,
    expression_for,
    tunnels_expression,
    udp_expression_for,
)
from tcpcopy.engine.context import EngineConfig
from tcpcopy.ledger import Ledger
from tcpcopy.local_side import LocalConfig
from tcpcopy.mapping.clients import AddressPool
from tcpcopy.mapping.rate import RateConfig
from tcpcopy.mapping.transfers import TransferTable
from tcpcopy.namespaces import Namespace
from tcpcopy.privileges import User
from tcpcopy.recorded.player import RecordedConfig
from tcpcopy.relay.native import RelayTerms
from tcpcopy.report.context import Context
from tcpcopy.udp_side import UdpConfig

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class CopierConfig:
    """What one worker is to do; checked already."""

    engine: EngineConfig
    transfers: TransferTable
    devices: tuple[str, ...] = ()
    capture_namespace: Namespace | None = None  # None: the one this process is in
    filter: str | None = None
    buffer_bytes: int = 32 * _MIB
    snaplen: int = 1 << 20
    promiscuous: bool = False
    unwraps: bool = False  # tunnels and tags of switches are taken off what is captured
    intercepts: tuple[tuple[str, int], ...] = ()  # none: socket mode
    output_device: str = ""  # classic mode: send frames on it; "": raw sockets
    relay_connections: int = 2
    lonely: bool = False
    local: LocalConfig | None = None  # local mode
    relay: RelayTerms = field(default_factory=RelayTerms)
    relay_names: Mapping[str, str] = field(default_factory=dict)  # address of -s: name given
    pool: AddressPool | None = None
    localhost_replacement: bytes | None = None
    copies: int = 1
    factor: int = 0
    port_shift: int = 0
    percentage: int = 100
    gradual: bool = False
    memory_bytes: int = 1024 * _MIB
    local_addresses: tuple[bytes, ...] = field(default=())
    share: tuple[int, int] = (0, 1)  # this worker, and how many there are
    recorded: RecordedConfig | None = None  # files instead of devices
    rate: RateConfig | None = None
    tcp: bool = True  # whether TCP is copied
    udp: UdpConfig | None = None  # UDP as well, or alone
    ledger: Ledger | None = None  # this worker's, open; None: there is no place for one
    checks: Context | None = None  # the run, for the probe at the start; None: none is wanted
    user: User | None = None  # what a worker becomes once all is open


def own_expression(config: CopierConfig, pure_acks: bool = True) -> str:
    """The pcap expression for what -x names, of the transports that are copied."""
    sources, targets = config.transfers.sources(), config.transfers.targets()
    if config.recorded is not None and not config.recorded.is_live:
        targets = ()  # what we send gets into no file: a target may be the server recorded
    expressions = [expression_for(sources, targets, pure_acks)] if config.tcp else []
    if config.udp is not None:
        expressions.append(udp_expression_for(sources, targets))
    return " or ".join(expressions)


def filter_program(config: CopierConfig, *, pure_acks: bool = True) -> bytes:
    """The kernel's filter for what is to be captured; -F is taken as it is. Raises: UsageError."""
    # What was typed is checked by itself, so that a complaint is about it and nothing else.
    own = own_expression(config, pure_acks)
    if config.filter is not None:
        return compile_filter(config.filter)
    if config.unwraps:
        own = f"{own} or {tunnels_expression()}"
    return compile_filter(own, option="-x")
