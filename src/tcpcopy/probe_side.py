"""The probe of one run, made from what its worker was told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Final, Protocol

from tcpcopy.doctor.finding import Finding
from tcpcopy.doctor.probe import ProbeConfig, probe
from tcpcopy.doctor.start import Candidate, Sessions, StartProbe
from tcpcopy.engine.context import EngineConfig
from tcpcopy.engine.datagram import DatagramEngine
from tcpcopy.engine.engine import Engine
from tcpcopy.engine.opening import Opener
from tcpcopy.engine.ports import Identities
from tcpcopy.local_side import LocalConfig, LocalSide
from tcpcopy.mapping.clients import AddressPool
from tcpcopy.mapping.transfers import TransferTable
from tcpcopy.relay.client import RelayClient
from tcpcopy.relay.native import RelayMode, RelayTerms
from tcpcopy.relay.probing import Flow
from tcpcopy.report.context import SOCKET, Context
from tcpcopy.report.flow_outcome import FlowOutcome
from tcpcopy.report.outcome import Outcome

MOST_TARGETS: Final = 8  # that are probed
_NOT_CONNECTED: Final = (
    Outcome.CONNECT_TIMEOUT,
    Outcome.REFUSED,
    Outcome.RESET,
    Outcome.SEND_FAILED,
)


class SessionStop:
    """Opens no session, of either transport, while real clients would get the answers to it."""

    def __init__(self, engine: Engine, opener: Opener, udp: DatagramEngine | None) -> None:
        """`told` is called with each change that this process has found out itself."""
        self.told: Callable[[bool], object] = lambda _: None
        self._engine = engine
        self._opener = opener
        self._udp = udp

    def set(self, is_shut: bool) -> None:
        """End all sessions and open none, or open new ones again. For the loop's thread."""
        self._opener.shut = int(Outcome.SHED_FORWARDED) if is_shut else 0
        if is_shut:
            self._engine.close_all(Outcome.SHED_FORWARDED)
        if self._udp is not None:
            self._udp.shut = int(FlowOutcome.SHED_FORWARDED) if is_shut else 0
            self._udp.close_all()  # the next datagram of each is judged anew

    def clients(self) -> Mapping[bytes, bytes]:
        """By target: the mapped address of its last session, which may have been reset at once."""
        return self._opener.last_clients

    def found(self, is_shut: bool) -> None:
        """As `set`, and tell the other workers."""
        self.set(is_shut)
        self.told(is_shut)


class Told(Protocol):
    """What a probe needs to know of `copier.CopierConfig`."""

    @property
    def engine(self) -> EngineConfig: ...
    @property
    def transfers(self) -> TransferTable: ...
    @property
    def intercepts(self) -> tuple[tuple[str, int], ...]: ...
    @property
    def output_device(self) -> str: ...
    @property
    def local(self) -> LocalConfig | None: ...
    @property
    def relay(self) -> RelayTerms: ...
    @property
    def relay_names(self) -> Mapping[str, str]: ...
    @property
    def pool(self) -> AddressPool | None: ...
    @property
    def local_addresses(self) -> tuple[bytes, ...]: ...


def probe_config(told: Told, setup: Context, flow: Flow, tun_device: str = "") -> ProbeConfig:
    """The probe of one target in the mode of this run."""
    relay = told.relay
    if len(flow.target) == 16:  # the classic relay cannot carry it
        relay = replace(relay, mode=RelayMode.NATIVE)
    return ProbeConfig(
        setup,
        flow,
        intercepts=told.intercepts,
        relay=relay,
        relay_names=dict(told.relay_names),
        transfers=told.transfers,
        output_device=told.output_device,
        mtu=told.engine.mtu,
        tun_device=tun_device,
    )


def start_probe(
    told: Told,
    setup: Context,
    engine: Engine,
    identities: Identities | None,
    local: LocalSide | None,
    relay: RelayClient | None,
    stop: SessionStop,
) -> StartProbe:
    """The probe that runs by itself; `local` and `relay` are open."""
    counts = engine.context.counts
    sessions = Sessions(
        stop.clients,
        lambda: sum(counts.outcome_counts()[outcome] for outcome in _NOT_CONNECTED),
        lambda: counts.established,
        lambda: relay is None or (relay.servers_up > 0 and not relay.is_single),
        lambda: (counts.sessions, counts.live, counts.established + counts.packets_answered),
    )
    run, tun_device = partial(_probe_beside, relay), ""
    if local is not None:
        tun_device = local.device.name
        run = partial(probe, output=local.sender)
    candidates = []
    for target, port in told.transfers.targets()[:MOST_TARGETS]:
        mapped = b""
        if setup.mode == SOCKET:
            mapped = local_address(told, len(target))
        config = probe_config(told, setup, Flow(target, port, mapped, 0), tun_device)
        candidates.append(Candidate(config, example_client(told, len(target))))
    if setup.mode == SOCKET:
        identities = None
    return StartProbe(candidates, identities, sessions, run=run, stop=stop.found)


def _probe_beside(relay: RelayClient | None, config: ProbeConfig) -> list[Finding]:
    """The probe, unless its answers came by the connections of the replay."""
    findings = probe(config)
    if relay is not None and relay.is_single:
        return []
    return findings


def local_address(told: Told, size: int) -> bytes:
    """The address that socket mode sends from; b"" for any."""
    return next((one for one in told.local_addresses if len(one) == size), b"")


def example_client(told: Told, size: int) -> bytes:
    """An address that a client may be given; b"" where clients keep theirs."""
    pool = told.pool
    if told.local is not None:
        pool = None if told.local.keeps else told.local.pool
    if pool is None:
        return b""
    pool = pool.only(size)
    return pool[0] if len(pool) else b""
