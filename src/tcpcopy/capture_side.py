"""The capture half of a worker: which packets the kernel lets through, and what is in tunnels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from tcpcopy.capture.filters import (
    compile_filter,
    expression_for,
    matcher,
    tunnels_expression,
    udp_expression_for,
)
from tcpcopy.capture.ring import Ring
from tcpcopy.capture.unwrapping import Unwrapping
from tcpcopy.mapping.transfers import TransferTable
from tcpcopy.packet.handler import PacketHandler
from tcpcopy.recorded.player import Player, RecordedConfig
from tcpcopy.report.counters import Snapshot


class CaptureConfig(Protocol):
    """What of a worker's settings is about the capture."""

    @property
    def transfers(self) -> TransferTable: ...
    @property
    def filter(self) -> str | None: ...  # -F
    @property
    def unwraps(self) -> bool: ...  # --decapsulate, or implied
    @property
    def recorded(self) -> RecordedConfig | None: ...
    @property
    def tcp(self) -> bool: ...
    @property
    def udp(self) -> object | None: ...


def own_expression(config: CaptureConfig, pure_acks: bool = True) -> str:
    """The pcap expression for what -x names, of the transports that are copied."""
    sources, targets = config.transfers.sources(), config.transfers.targets()
    if config.recorded is not None and not config.recorded.is_live:
        targets = ()  # what we send gets into no file: a target may be the server recorded
    expressions = [expression_for(sources, targets, pure_acks)] if config.tcp else []
    if config.udp is not None:
        expressions.append(udp_expression_for(sources, targets))
    return " or ".join(expressions)


def filter_program(config: CaptureConfig, *, pure_acks: bool = True) -> bytes:
    """The kernel's filter for what is to be captured; -F is taken as it is. Raises: UsageError."""
    # What was typed is checked by itself, so that a complaint is about it and nothing else.
    own = own_expression(config, pure_acks)
    if config.filter is not None:
        return compile_filter(config.filter)
    if config.unwraps:
        own = f"{own} or {tunnels_expression()}"
    return compile_filter(own, option="-x")


def unwrapping(config: CaptureConfig, handler: PacketHandler) -> Unwrapping:
    """What stands before `handler` where packets come in tunnels."""
    ports = {port for _, port in config.transfers.sources()}
    return Unwrapping(handler, ports, matcher(own_expression(config)))


def fill(
    snapshot: Snapshot, rings: Iterable[Ring], within: Unwrapping | None, player: Player | None
) -> None:
    """Put what is known of encapsulations into a snapshot."""
    for ring in rings:
        _add(snapshot, ring.unread_counts())
    if within is not None:
        snapshot.unwrapped += within.unwrapper.tunnelled
        snapshot.unwrapped_left_out += within.left_out
        _add(snapshot, within.unwrapper.unread_counts())
    if player is not None:
        counts = player.stream.counts
        snapshot.unwrapped += counts.tunnelled
        _add(snapshot, counts.unread)


def _add(snapshot: Snapshot, unread: dict[str, int]) -> None:
    for name, count in unread.items():
        snapshot.unread[name] = snapshot.unread.get(name, 0) + count
