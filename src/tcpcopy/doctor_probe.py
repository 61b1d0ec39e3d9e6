"""The probe of `tcpcopy doctor`: every target of -x, one after the other."""

from __future__ import annotations

import random
import socket
from pathlib import Path
from typing import Final

from tcpcopy.copier import CopierConfig, probe_config
from tcpcopy.doctor.finding import Finding, Level
from tcpcopy.doctor.probe import probe
from tcpcopy.mapping.clients import AddressPool
from tcpcopy.namespaces import inside
from tcpcopy.options import Options
from tcpcopy.relay.probing import Flow
from tcpcopy.report.context import SOCKET, Context

_MOST_TARGETS: Final = 8
_PORTS: Final = (40_000, 60_000)
_TABLES: Final = ("/proc/net/tcp", "/proc/net/tcp6")
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
    with inside(options.send_namespace):
        return _probe_targets(options, config, setup)


def _probe_targets(options: Options, config: CopierConfig, setup: Context) -> list[Finding]:
    findings: list[Finding] = []
    targets = options.transfers.targets()
    for target, port in targets[:_MOST_TARGETS]:
        mapped = b""
        if setup.mode == SOCKET:
            local = [a for a in config.local_addresses if len(a) == len(target)]
            mapped = local[0] if local else b""
        else:
            mapped = _mapped_address(options, len(target))
            if not mapped:
                findings.append(Finding("probe", Level.NOTE, _NO_CLIENT))
                continue
        flow = Flow(target, port, mapped, random.randint(*_PORTS))
        findings += probe(probe_config(config, setup, flow))
    if len(targets) > _MOST_TARGETS:
        text = f"only the first {_MOST_TARGETS} of {len(targets)} targets were tried"
        findings.append(Finding("probe", Level.NOTE, text))
    return _without_repeats(findings)


def _mapped_address(options: Options, size: int) -> bytes:
    """An address out of -c, or a client's that is connected now; b"" when there is none."""
    pool = options.client_pool
    if pool is not None:
        return _first(pool.only(size))
    with inside(options.capture_namespace):
        ports = {port for _, port in options.transfers.sources()}
        clients = connected_clients(ports)
    return next((client for client in clients if len(client) == size), b"")


def _first(pool: AddressPool) -> bytes:
    return pool[0] if len(pool) else b""


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
