"""From the options of a run to what the checks look for."""

from __future__ import annotations

import contextlib
from dataclasses import replace

from tcpcopy.capture.devices import ANY_DEVICE
from tcpcopy.capture.filters import compile_filter
from tcpcopy.copier_config import CopierConfig, filter_program
from tcpcopy.doctor.plan import InterceptPlan, Plan
from tcpcopy.errors import UsageError
from tcpcopy.interceptor import InterceptConfig
from tcpcopy.mapping.clients import parse_clients
from tcpcopy.options import Options


def plan_of(
    options: Options, config: CopierConfig, mode: str, clients: tuple[str, ...] = ()
) -> Plan:
    """What a tcpcopy with these options will do; `mode` is of report.context.MODES.

    `clients`: the client addresses of a mode that takes some by itself, written as for -c.
    """
    program, problem = b"", ""
    if options.recorded is None:
        try:
            program = filter_program(config)
        except UsageError as error:
            problem = f"{error.problem}; {error.hint}"
    plan = running_plan_of(options, mode, clients)
    return replace(plan, filter_program=program, filter_problem=problem)


def running_plan_of(options: Options, mode: str, clients: tuple[str, ...] = ()) -> Plan:
    """The same for one that runs: its filter was compiled."""
    pool = options.client_pool
    if pool is None and clients:
        with contextlib.suppress(UsageError):  # a word, such as keep
            pool = parse_clients(",".join(clients))
    return Plan(
        mode=mode,
        transport=options.transport,
        sources=options.transfers.sources(),
        targets=options.transfers.targets(),
        intercepts=tuple((i.address, i.port) for i in options.intercepts),
        pool=pool,
        client_addresses=clients or options.client_addresses,
        devices=options.devices,
        is_recorded=options.recorded is not None,
        output_device=options.output_device,
        filter_text=options.filter,
        mtu=options.mtu_bytes,
        buffer_bytes=options.buffer_bytes // options.workers,
        snaplen=options.snaplen_bytes,
        memory_bytes=options.memory_bytes,
        workers=options.workers,
        capture_namespace=options.capture_namespace,
        send_namespace=options.send_namespace,
    )


def intercept_plan_of(config: InterceptConfig) -> InterceptPlan:
    """What an intercept with this configuration does."""
    problem = ""
    if config.filter:
        try:
            compile_filter(config.filter)
        except UsageError as error:
            problem = f"{error.problem}; {error.hint}"
    return InterceptPlan(
        devices=() if ANY_DEVICE in config.devices else config.devices,
        filter_text=config.filter,
        filter_problem=problem,
        host=config.host,
        port=config.port,
        buffer_bytes=config.buffer_bytes,
        peer_limit=config.peer_limit,
        is_open=config.is_open,
        uses_tun=config.tunnel is not None,
        capture_namespace=config.capture_namespace,
        listen_namespace=config.listen_namespace,
    )
