"""The command `tcpcopy`: options to a running copier, its summary and its exit code."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import random
import sys
from collections.abc import Callable
from pathlib import Path

from tcpcopy import options as option_table
from tcpcopy.capture.devices import check_privilege, is_local_address
from tcpcopy.copier import EXIT_WAIT_NS, Copier, CopierConfig
from tcpcopy.engine.context import EngineConfig
from tcpcopy.errors import UsageError
from tcpcopy.mapping.addresses import format_address
from tcpcopy.options import Options
from tcpcopy.report import log, summary
from tcpcopy.report.context import CLASSIC, SOCKET, Context, TransferInfo
from tcpcopy.report.status import StatusReporter
from tcpcopy.supervisor import PidFile, Startup, StopSignals, daemonize, open_log, stop_signals
from tcpcopy.version import build_kind, version_line, VERSION

_log = logging.getLogger("tcpcopy.cli")
_NS = 1_000_000_000
_STATUS_NS = _NS
_LOG_NS = 10 * _NS


def main(argv: list[str] | None = None) -> int:
    """Run `tcpcopy`; the exit code: 0 all replayed, 1 losses, 2 bad usage."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments[:1] == ["demo"]:
        from tcpcopy.demo.main import main as demo_main

        return demo_main(arguments[1:])
    try:
        options = option_table.parse(arguments)
        if options.show == "help":
            print(option_table.help_text(), end="")
            return 0
        if options.show == "version":
            print(version_line("tcpcopy"))
            return 0
        option_table.check_host(options, is_local_address)
        check_privilege()
    except UsageError as error:
        print(f"tcpcopy: {error}", file=sys.stderr)
        return 2
    startup = daemonize() if options.daemon else None
    try:
        return _run(options, startup)
    except UsageError as error:
        text = f"tcpcopy: {error}"
        if startup is not None:
            startup.fail(text, 2)
        else:
            print(text, file=sys.stderr)
        return 2


def _run(options: Options, startup: Startup | None) -> int:
    """Copy until a stop signal. Raises: UsageError, with nothing left behind."""
    with contextlib.ExitStack() as stack:
        copier = Copier(copier_config(options))
        stack.callback(copier.close)
        copier.open()
        signals = stack.enter_context(stop_signals())
        if options.pid_file:
            stack.enter_context(PidFile(options.pid_file))
        open_log(options.log_file, daemon=options.daemon)
        _log.info("ready: %s", _describe(options))
        if startup is not None:
            startup.ready()
        # Sessions free themselves without the collector, which would walk over all of them.
        gc.collect()
        gc.disable()
        _copy(options, copier, signals)
        return _report(options, copier)


def _copy(options: Options, copier: Copier, signals: StopSignals) -> None:
    reporters = [StatusReporter(sys.stderr, False, _LOG_NS, write_line=_log.info)]
    live = options.status and not options.daemon and sys.stderr.isatty()
    if live:
        reporter = StatusReporter(sys.stderr, True, _STATUS_NS)
        reporters.append(reporter)
        log.wipe_before(reporter.clear)

    def tick(now_ns: int) -> None:
        for reporter in reporters:
            if reporter.is_due(now_ns):
                reporter.tick(copier.snapshot(), now_ns)

    copier.run(signals.fileno(), signals.requested, tick)
    _log.info("stopping: capture ends, open sessions have %d s", EXIT_WAIT_NS // _NS)
    copier.finish(lambda: signals.requests > 1, tick)
    log.wipe_before(None)
    for reporter in reporters:
        reporter.finish()


def _report(options: Options, copier: Copier) -> int:
    """Print the summary and write --json; the exit code."""
    snapshot = copier.snapshot()
    context = report_context(options)
    text = summary.render(snapshot, context)
    if options.daemon or options.log_file:
        for line in text.splitlines():
            if line:
                _log.info("%s", line)
    if not options.daemon:
        print(text, end="", flush=True)
    if options.json_file:
        data = json.dumps(summary.to_json(snapshot, context), indent=2)
        try:
            Path(options.json_file).write_text(data + "\n", encoding="utf-8")
        except OSError as error:
            _log.error("--json %s: %s", options.json_file, error.strerror)
            return 1
    return summary.exit_code(snapshot)


def copier_config(options: Options, draw: Callable[[int], int] = random.getrandbits) -> CopierConfig:
    """What the options come to for one worker. `draw(bits)` gives random numbers."""
    mss_given = options.mss_bytes if options.mss_bytes != 1460 or options.mtu_bytes != 1500 else 0
    local_addresses: tuple[bytes, ...] = ()
    if options.socket_mode and options.client_pool is not None:
        local_addresses = tuple(options.client_pool)
    return CopierConfig(
        engine=EngineConfig(
            answer_timeout_ns=options.session_timeout_ns,
            idle_timeout_ns=options.keepalive_timeout_ns,
            rtt_ns=options.round_trip_ns,
            mtu=options.mtu_bytes,
            mss=mss_given,
            wait_for_answers=options.wait_for_answers,
            full_sessions_only=options.full_sessions_only,
            max_queued_bytes=options.memory_bytes // 4 * 3,
            seed=draw(31),
        ),
        transfers=options.transfers,
        devices=options.devices,
        filter=options.filter,
        buffer_bytes=options.buffer_bytes,
        snaplen=options.snaplen_bytes,
        intercepts=tuple(
            (format_address(intercept.address), intercept.port) for intercept in options.intercepts
        ),
        relay_connections=options.relay_connections,
        lonely=options.lonely,
        pool=options.client_pool,
        localhost_replacement=options.localhost_replacement,
        copies=options.copies,
        factor=options.factor,
        port_shift=draw(9),
        percentage=options.percentage,
        gradual=options.gradual,
        memory_bytes=options.memory_bytes,
        local_addresses=local_addresses,
    )


def report_context(options: Options) -> Context:
    """The set-up of the run, for the reports."""
    transfers = tuple(
        TransferInfo(
            format_address(transfer.source_address) if transfer.source_address else "",
            transfer.source_port,
            format_address(transfer.target_address),
            transfer.target_port,
        )
        for transfer in options.transfers
    )
    pool = options.client_pool
    return Context(
        mode=SOCKET if options.socket_mode else CLASSIC,
        transfers=transfers,
        intercepts=tuple(
            f"{format_address(intercept.address)}:{intercept.port}"
            for intercept in options.intercepts
        ),
        client_pool_size=len(pool) if pool is not None else 0,
        example_client=format_address(pool[0]) if pool is not None and len(pool) else "",
        devices=options.devices,
        filter_text=options.filter or "",
        buffer_mib=options.buffer_bytes >> 20,
        snaplen=options.snaplen_bytes,
        memory_mib=options.memory_bytes >> 20,
        answer_timeout_s=options.session_timeout_ns // _NS,
        keep_alive_s=options.keepalive_timeout_ns // _NS,
        exit_wait_s=EXIT_WAIT_NS // _NS,
        version=VERSION,
        is_compiled=build_kind() == "compiled",
    )


def _describe(options: Options) -> str:
    mode = "socket mode" if options.socket_mode else "classic mode"
    shown = ", ".join(str(transfer) for transfer in options.transfers)
    devices = ", ".join(options.devices) or "all devices"
    return f"{mode}, copying {shown} from {devices} ({version_line('tcpcopy')})"


if __name__ == "__main__":
    sys.exit(main())
