"""The probe of `tcpcopy doctor`: every target of -x, one after the other."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from tcpcopy.copier_config import CopierConfig
from tcpcopy.doctor.finding import Finding, Level
from tcpcopy.doctor.probe import probe
from tcpcopy.errors import UsageError
from tcpcopy.local_side import LocalSide
from tcpcopy.namespaces import inside
from tcpcopy.options import Options
from tcpcopy.probe_side import MOST_TARGETS, example_client, local_address, probe_config
from tcpcopy.relay.probing import Flow
from tcpcopy.report.context import SOCKET, Context

_PORTS: Final = (40_000, 60_000)
_TABLES: Final = ("/proc/net/tcp", "/proc/net/tcp6")
_SINGLE: Final = (
    "not tried with --single: the intercept would take a connection of the probe for that of a new"
    " tcpcopy, and leave the one that runs"
)
_NO_CLIENT: Final = (
    "not tried: without -c the handshake needs a client's address, and no client is connected now;"
    " look again while clients are, or see what tcpcopy logs at its start"
)


def probe_targets(options: Options, config: CopierConfig, setup: Context) -> list[Finding]:
    """Probe the targets as a run with these options reaches them. Raises: UsageError.

    `config` and `setup` are what the options come to.
    """
    if not options.copies_tcp:
        return []
    if config.relay.single:
        return [Finding("probe", Level.NOTE, _SINGLE)]
    with inside(options.send_namespace):
        return _probe_targets(options, config, setup)


def _probe_targets(options: Options, config: CopierConfig, setup: Context) -> list[Finding]:
    findings: list[Finding] = []
    targets = options.transfers.targets()
    with ExitStack() as stack:
        local = None
        if config.local is not None:
            local = LocalSide(config.local, config.transfers, (0, 1), config.engine.mtu)
            stack.callback(local.close)
            try:
                local.open()
            except (UsageError, OSError) as error:
                return [Finding("probe", Level.FAULT, f"no TUN device: {error}", (), "this host")]
        for target, port in targets[:MOST_TARGETS]:
            findings += _probe_target(options, config, setup, local, (target, port))
    if len(targets) > MOST_TARGETS:
        text = f"only the first {MOST_TARGETS} of {len(targets)} targets were tried"
        findings.append(Finding("probe", Level.NOTE, text))
    return _without_repeats(findings)


def _probe_target(
    options: Options,
    config: CopierConfig,
    setup: Context,
    local: LocalSide | None,
    target: tuple[bytes, int],
) -> list[Finding]:
    size = len(target[0])
    if setup.mode == SOCKET:
        mapped = local_address(config, size)
    else:
        mapped = example_client(config, size) or _connected_client(options, config, size)
        if not mapped:
            return [Finding("probe", Level.NOTE, _NO_CLIENT)]
    flow = Flow(*target, mapped, random.randint(*_PORTS))
    if local is None:
        return probe(probe_config(config, setup, flow))
    return probe(probe_config(config, setup, flow, local.device.name), local.sender)


def _connected_client(options: Options, config: CopierConfig, size: int) -> bytes:
    """A client that is connected to a captured port now; b"" when there is none."""
    with inside(options.capture_namespace):
        clients = connected_clients({port for _, port in config.transfers.sources()})
    return next((client for client in clients if len(client) == size), b"")


def connected_clients(ports: set[int]) -> list[bytes]:
    """Addresses of the other ends of this host's connections at these local ports.

    Those of IPv4 in IPv6 sockets as IPv4; without loopback. Source: proc(5), /proc/net/tcp.
    """
    found: dict[bytes, None] = {}
    for table in _TABLES:
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            client = client_in(line, ports)
            if client:
                found[client] = None
    return list(found)


def client_in(line: str, ports: set[int]) -> bytes:
    """The client of one line of /proc/net/tcp or tcp6; b"" where it is none of these ports."""
    fields = line.split()
    if len(fields) < 4:
        return b""
    local, _, local_port = fields[1].rpartition(":")
    remote, _, remote_port = fields[2].rpartition(":")
    if not local or int(local_port, 16) not in ports or not int(remote_port, 16):
        return b""
    words = [int(remote[at : at + 8], 16) for at in range(0, len(remote), 8)]
    address = b"".join(socket.htonl(word).to_bytes(4, "big") for word in words)
    if address[:12] == bytes(10) + b"\xff\xff":
        address = address[12:]
    if address[:1] == b"\x7f" or address == bytes(15) + b"\x01":
        return b""
    return address


def _without_repeats(findings: list[Finding]) -> list[Finding]:
    """What holds for all targets (the relay) once; the rest in its order."""
    return list(dict.fromkeys(findings))
