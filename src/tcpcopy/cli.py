"""The command `tcpcopy`: options to a running copier, its summary and its exit code."""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import logging
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from tcpcopy import doctor_cli, rights
from tcpcopy import options as option_table
from tcpcopy.capture.devices import check_privilege, is_local_address, overlapping, short_queue
from tcpcopy.capture.ring import Ring
from tcpcopy.copier import Copier
from tcpcopy.copier_config import CopierConfig
from tcpcopy.doctor.alarm import Alarm
from tcpcopy.doctor.checkup import check_tcpcopy
from tcpcopy.doctor.finding import Finding
from tcpcopy.doctor.host import QUICK_S, HostReader
from tcpcopy.doctor_plan import plan_of, running_plan_of
from tcpcopy.doctor_probe import probe_targets
from tcpcopy.ending import EXIT_WAIT_NS
from tcpcopy.engine.context import EngineConfig
from tcpcopy.engine.datagram import MAX_ENTRIES, DatagramConfig
from tcpcopy.errors import UsageError
from tcpcopy.local_options import check_targets
from tcpcopy.mapping.addresses import format_address
from tcpcopy.mapping.rate import REQUESTS, SESSIONS
from tcpcopy.namespaces import Namespace, inside, same
from tcpcopy.options import Options
from tcpcopy.output_files import write_whole
from tcpcopy.rehearsal import OutputFiles, give_up, rehearse
from tcpcopy.report import log, summary
from tcpcopy.report.context import CLASSIC, LINK, LOCAL, SOCKET, TUNNEL, Context, TransferInfo
from tcpcopy.report.counters import Snapshot
from tcpcopy.report.status import StatusReporter
from tcpcopy.report_file import ReportFile
from tcpcopy.run_files import Job, RunFiles
from tcpcopy.state_options import run_files
from tcpcopy.supervisor import (
    PidFile,
    Startup,
    StopSignals,
    check_replaceable,
    hold_log,
    open_log,
    raise_open_files,
    run_command,
    say,
    starting,
    stop_signals,
)
from tcpcopy.udp_side import UdpConfig, ports_to_send_from
from tcpcopy.version import VERSION, build_kind, version_line
from tcpcopy.workers import Workers

_log = logging.getLogger("tcpcopy.cli")
_NS = 1_000_000_000
_STATUS_NS = _NS
_LOG_NS = 10 * _NS
_OTHER_FILES = 64  # kept for rings, log, terminal and what libraries open
_MOST_LOCAL_ADDRESSES = 65536
# Name servers that are silent would else be waited for 10 seconds each. Source: resolv.conf(5).
_RESOLVER_OPTIONS = "timeout:1 attempts:2"


def main(argv: list[str] | None = None) -> int:
    """Run `tcpcopy`; the exit code: 0 all replayed, 1 losses, 2 bad usage."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments[:1] == ["demo"]:
        from tcpcopy.demo.main import main as demo_main

        return demo_main(arguments[1:])
    if arguments[:1] == ["inspect"]:
        from tcpcopy.inspect_cli import main as inspect_main

        return inspect_main(arguments[1:])
    if arguments[:1] == ["doctor"]:
        return doctor_cli.run("tcpcopy", arguments[1:], examine)
    try:
        os.environ.setdefault("RES_OPTIONS", _RESOLVER_OPTIONS)
        options = option_table.parse(arguments)
        if options.show:
            is_help = options.show == "help"
            say(option_table.help_text() if is_help else f"{version_line('tcpcopy')}\n", sys.stdout)
            return 0
        check_networks(options)
    except UsageError as error:
        say(f"tcpcopy: {error}\n", sys.stderr)
        return 2
    return run_command("tcpcopy", options.daemon, lambda startup: _run(options, startup))


def examine(arguments: Sequence[str]) -> list[Finding]:
    """What `tcpcopy doctor` finds for the options of a run. Raises: UsageError."""
    os.environ.setdefault("RES_OPTIONS", _RESOLVER_OPTIONS)
    probes = doctor_cli.NO_PROBE not in arguments
    options = option_table.parse([word for word in arguments if word != doctor_cli.NO_PROBE])
    if options.show:
        raise UsageError("doctor", None, f"--{options.show} is of no use", "leave it out")
    check_networks(options, privileged=False)
    config, setup = copier_config(options), report_context(options)
    findings = check_tcpcopy(plan_of(options, config, setup.mode, setup.client_addresses))
    return findings + (probe_targets(options, config, setup) if probes else [])


def check_again(options: Options) -> list[Finding]:
    """What is wrong with this host for a tcpcopy that runs. Raises: UsageError."""
    setup = report_context(options)
    plan = running_plan_of(options, setup.mode, setup.client_addresses)
    return check_tcpcopy(plan, HostReader(program_seconds=QUICK_S), is_running=True)


def check_networks(options: Options, *, privileged: bool = True) -> None:
    """Refuse what does not fit the networks that are captured and sent from. Raises: UsageError.

    `privileged`: the right to capture is looked for, too.
    """

    def is_local_in(namespace: Namespace | None) -> Callable[[bytes], bool]:
        def is_local(address: bytes) -> bool:
            with inside(namespace):
                return is_local_address(address)

        return is_local

    capture, send = options.capture_namespace, options.send_namespace
    sender = None if same(capture, send) else is_local_in(send)
    option_table.check_host(options, is_local_in(capture), sender)
    if options.local is not None:
        online_is_here = sender is None and (options.recorded is None or options.recorded.is_live)
        check_targets(
            options.local, options.transfers, sender or is_local_in(capture), online_is_here
        )
    if privileged and (
        options.recorded is None or not (options.socket_mode or options.local is not None)
    ):
        with inside(capture):
            check_privilege()


def _run(options: Options, startup: Startup | None) -> int:
    """Copy until a stop signal. Raises: UsageError, with nothing left behind."""
    with contextlib.ExitStack() as stack:
        hold_log()
        if options.send_namespace is not None:
            options.send_namespace.enter()  # and stays: connections are opened at any time
        open_files = raise_open_files()
        with starting():
            config = copier_config(options, open_files=open_files)
            if options.check:
                config = replace(config, checks=report_context(options))
            keep = rights.of_parent(config) if options.workers > 1 else rights.of_worker(config)
            if options.json_file:
                check_replaceable("--json", options.json_file)
            rehearsed = rehearse(output_files(options), keep, options.user)
            files = files_of_run(options, config)
            if files is not None:
                stack.callback(files.close)
                files.open(config.transfers.targets(), options.workers)
            ledgers = files.ledgers if files is not None else []
            copier: Copier | Workers
            if options.workers > 1:
                copier = Workers(
                    config, options.workers, lambda: random.getrandbits(31), ledgers=ledgers
                )
            else:
                copier = Copier(replace(config, ledger=ledgers[0] if ledgers else None))
            stack.callback(copier.close)
            copier.open()
            signals = stack.enter_context(stop_signals())
        _check_memory(options, len(copier.rings), copier.resident_bytes)
        # What leaves traces comes last: the pid file, then the log.
        if options.pid_file:
            stack.enter_context(PidFile(options.pid_file))
        open_log(options.log_file, daemon=options.daemon, program="tcpcopy", user=options.user)
        if options.check:
            doctor_cli.check_at_start("tcpcopy", lambda: check_again(options), options.log_file)
        _log_start(options, copier.rings)
        if files is not None:
            files.begin()
        earlier = files.found if files is not None else None
        give_up(keep, options.user, rehearsed)
        _log.info("ready: %s", _describe(options))
        if startup is not None:
            startup.ready()
        # Sessions free themselves without the collector, which would walk over all of them.
        gc.collect()
        gc.disable()
        limit = session_limit(options, open_files) * options.workers
        setup = report_context(options, limit)
        if earlier is not None:
            setup = replace(
                setup, earlier_process=earlier.process, earlier_started_ns=earlier.started_ns
            )
        waited_ns = _copy(options, copier, signals, setup)
        code = _report(options, copier, replace(setup, exit_wait_s=waited_ns // _NS))
        if files is not None:
            files.finish()
        return code


def _check_memory(options: Options, rings: int, used: int) -> None:
    """Refuse a limit that would shed every session: the capture buffers count, too.

    `used`: bytes of memory that the limit is for, of all workers.
    """
    if used > options.memory_bytes // 4 * 3:
        raise UsageError(
            "-m",
            options.memory_bytes >> 20,
            f"is nearly used up at the start: {used >> 20} MiB, with capture buffers of {rings} x "
            f"{options.buffer_bytes >> 20} MiB (-B)",
            f"give {2 * used >> 20} or more, or a smaller -B",
        )


def _log_start(options: Options, rings: Sequence[Ring]) -> None:
    asked_bytes = options.buffer_bytes // options.workers
    granted_bytes = min((ring.queue_bytes for ring in rings), default=asked_bytes)
    if warning := short_queue(granted_bytes, asked_bytes):
        _log.warning("capture: %s", warning)
    if options.without_effect:
        why = "classic mode only, which -s turns on" if options.transport == "tcp" else "with UDP"
        if options.local is not None:
            why = "with --local"
        _log.warning("no effect: %s (%s)", ", ".join(options.without_effect), why)
    with inside(options.capture_namespace):
        pairs = overlapping(options.devices)
    for lower, upper in pairs:
        told = "costs twice the capture; each counts once"
        if options.transport != "tcp":
            told = "sends each UDP datagram twice; name one of them"
        _log.warning("-i %s,%s: packets are seen on both, which %s", lower, upper, told)


def _copy(options: Options, copier: Copier | Workers, signals: StopSignals, setup: Context) -> int:
    """Copy until a stop signal; how long open work was then waited for, in nanoseconds."""
    reporters = []
    terminal = sys.stderr if options.status and not options.daemon else None
    live = terminal is not None and terminal.isatty()
    if not live or options.log_file:  # else the live line says it already
        reporters.append(StatusReporter(sys.stderr, False, _LOG_NS, write_line=_log.info))
    if live:
        reporter = StatusReporter(sys.stderr, True, _STATUS_NS)
        reporters.append(reporter)
        log.wipe_before(reporter.clear)

    alarm = None
    if options.check:
        alarm = Alarm(report_context(options), lambda: check_again(options))

    report = ReportFile(options.json_file) if options.json_file else None
    unfinished = replace(setup, is_final=False)

    def tick(now_ns: int) -> None:
        if report is not None:
            report.tick(now_ns, lambda: _json(copier.snapshot(), unfinished))
        for reporter in reporters:
            if reporter.is_due(now_ns):
                reporter.tick(copier.snapshot(), now_ns)
        if alarm is not None and alarm.is_due(now_ns) and not signals.requested():
            alarm.look(copier.snapshot(), now_ns)

    copier.run(signals.fileno(), signals.requested, tick)
    if signals.requested():
        _log.info("stopping: capture ends, open sessions have %d s", EXIT_WAIT_NS // _NS)
    stopped_ns = time.monotonic_ns()
    copier.finish(lambda: signals.requests > 1, tick)
    log.wipe_before(None)
    for reporter in reporters:
        reporter.finish()
    return time.monotonic_ns() - stopped_ns


def _report(options: Options, copier: Copier | Workers, context: Context) -> int:
    """Write --json, log and print the summary; the exit code."""
    snapshot = copier.snapshot()
    code = summary.exit_code(snapshot)
    text = summary.render(snapshot, context)
    if options.json_file:
        try:
            write_whole(options.json_file, _json(snapshot, context), {0, os.geteuid()})
        except OSError as error:
            _log.error(
                "--json %s: %s; nothing was changed there", options.json_file, error.strerror
            )
            code = code or 1
    if options.daemon or options.log_file:
        for line in text.splitlines():
            if line:
                _log.info("%s", line)
    if not options.daemon:
        say(text, sys.stdout)
    return code


def _json(snapshot: Snapshot, context: Context) -> bytes:
    return f"{json.dumps(summary.to_json(snapshot, context), indent=2)}\n".encode()


def files_of_run(options: Options, config: CopierConfig) -> RunFiles | None:
    """The files by which the next run knows of this one, not open yet; None: as --state says."""
    setup = report_context(options)
    job = Job(setup.mode, tuple(str(transfer) for transfer in options.transfers), setup.files)
    packets = options.copies_tcp and not options.socket_mode
    return run_files(options.state, job, config, options.workers, packets)


def output_files(options: Options) -> OutputFiles:
    """The files of a run, and those that it opens again."""
    recorded = options.recorded
    read_again: tuple[str, ...] = ()
    if recorded is not None and (recorded.passes > 1 or len(recorded.paths) > 1):
        read_again = recorded.paths
    return OutputFiles(
        options.log_file,
        options.json_file,
        options.pid_file,
        read_again,
        makes_tun=options.local is not None and options.workers > 1,
    )


def session_limit(options: Options, open_files: int) -> int:
    """Most live sessions for a limit of open files: in socket mode each is one. 0: no limit."""
    if not options.socket_mode or not open_files:
        return 0
    return max(1, open_files - _OTHER_FILES - len(options.devices) * options.workers)


def udp_config(
    options: Options, port_shift: int, *, open_files: int = 0, local_addresses: int = 0
) -> UdpConfig | None:
    """What the options come to for the UDP half of one worker; None without UDP.

    In socket mode each flow has an open file, and a local port: of those one in ten is left alone.
    """
    if not options.copies_udp:
        return None
    limit = MAX_ENTRIES
    if options.socket_mode:
        ports = ports_to_send_from() * max(1, local_addresses) // options.workers
        limit = max(1, ports // 10 * 9)
        if open_files:
            # TCP sessions have theirs: with both, each gets a half.
            files = session_limit(options, open_files)
            limit = max(1, min(limit, files // 2 if options.copies_tcp else files))
    idle_ns = options.flow_timeout_ns
    if options.recorded is not None and options.recorded.speed < 1 and not options.recorded.fast:
        idle_ns = int(idle_ns / options.recorded.speed)  # slow motion is not taken for silence
    engine = DatagramConfig(idle_ns, options.copies, limit)
    return UdpConfig(engine, not options.socket_mode, port_shift)


def intercepts_of(options: Options) -> tuple[tuple[str, int], ...]:
    """Address and port of the intercepts that are connected to: UDP alone needs none."""
    if not (options.copies_tcp or options.relay.tunnel):
        return ()
    return tuple((format_address(i.address), i.port) for i in options.intercepts)


def copier_config(
    options: Options, draw: Callable[[int], int] = random.getrandbits, *, open_files: int = 0
) -> CopierConfig:
    """What the options come to for one worker.

    `draw(bits)` gives random numbers, `open_files` is the limit of them (0: none).
    """
    mss_given = options.mss_bytes if options.mss_bytes != 1460 or options.mtu_bytes != 1500 else 0
    recorded = options.recorded
    local_addresses: tuple[bytes, ...] = ()
    if options.socket_mode and options.client_pool is not None:
        local_addresses = tuple(itertools.islice(options.client_pool, _MOST_LOCAL_ADDRESSES))
    max_sessions = session_limit(options, open_files)
    if options.copies_tcp and options.copies_udp:
        max_sessions = (max_sessions + 1) // 2
    seed, port_shift = draw(31), draw(9)
    return CopierConfig(
        engine=EngineConfig(
            answer_timeout_ns=options.session_timeout_ns,
            idle_timeout_ns=options.keepalive_timeout_ns,
            rtt_ns=options.round_trip_ns,
            mtu=options.mtu_bytes,
            mss=mss_given,
            wait_for_answers=options.wait_for_answers,
            full_sessions_only=options.full_sessions_only,
            retry_ns=options.retry_ns,
            max_sessions=max_sessions,
            seed=seed,
            recorded=recorded is not None,
            speed=float(recorded.engine_speed) if recorded is not None else 1.0,
            paced=recorded is None or not recorded.fast,
        ),
        transfers=options.transfers,
        devices=options.devices,
        capture_namespace=options.capture_namespace,
        filter=options.filter,
        buffer_bytes=options.buffer_bytes,
        snaplen=options.snaplen_bytes,
        promiscuous=options.promiscuous,
        unwraps=options.unwraps,
        intercepts=intercepts_of(options),
        output_device=options.output_device,
        relay_connections=options.relay_connections,
        lonely=options.lonely,
        local=options.local,
        relay=options.relay,
        relay_names={format_address(i.address): i.host for i in options.intercepts},
        pool=options.client_pool,
        localhost_replacement=options.localhost_replacement,
        copies=options.copies,
        factor=options.factor,
        port_shift=port_shift,
        percentage=options.percentage,
        gradual=options.gradual,
        memory_bytes=options.memory_bytes,
        local_addresses=local_addresses,
        recorded=recorded,
        rate=options.rate,
        tcp=options.copies_tcp,
        user=options.user,
        udp=udp_config(
            options, port_shift, open_files=open_files, local_addresses=len(local_addresses)
        ),
    )


def report_context(options: Options, limit: int = 0, waited_s: int = 0) -> Context:
    """The set-up of the run, for the reports.

    `limit` is the most live sessions (0: none), `waited_s` how long open ones were waited for.
    """
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
    if options.local is not None and not options.local.keeps:
        pool = options.local.pool
    classic = LINK if options.output_device else CLASSIC
    if options.relay.tunnel:
        classic = TUNNEL
    forging = classic if options.local is None else LOCAL
    return Context(
        mode=SOCKET if options.socket_mode else forging,
        transfers=transfers,
        intercepts=tuple(
            f"{format_address(intercept.address)}:{intercept.port}"
            for intercept in options.intercepts
        ),
        client_addresses=options.client_addresses or local_ranges(options),
        local_device=options.local.device.replace("%d", "*") if options.local is not None else "",
        client_pool_size=len(pool) if pool is not None else 0,
        example_client=format_address(pool[0]) if pool is not None and len(pool) else "",
        devices=options.devices,
        files=options.recorded.paths if options.recorded is not None else (),
        passes=options.recorded.passes if options.recorded is not None else 1,
        pacing=pacing_text(options),
        rate=rate_text(options),
        filter_text=options.filter or "",
        buffer_mib=options.buffer_bytes >> 20,
        snaplen=options.snaplen_bytes,
        memory_mib=options.memory_bytes >> 20,
        session_limit=limit,
        answer_timeout_s=options.session_timeout_ns // _NS,
        waits_for_answers=options.wait_for_answers,
        keep_alive_s=options.keepalive_timeout_ns // _NS,
        exit_wait_s=waited_s,
        version=VERSION,
        is_compiled=build_kind() == "compiled",
        transport=options.transport,
    )


def local_ranges(options: Options) -> tuple[str, ...]:
    """The ranges that --local takes by itself; none in other modes."""
    return tuple(map(str, options.local.networks)) if options.local is not None else ()


def pacing_text(options: Options) -> str:
    """How fast files are replayed; "" for live traffic."""
    recorded = options.recorded
    if recorded is None:
        return ""
    if recorded.fast:
        return "as fast as answers allow"
    text = "as recorded" if recorded.speed == 1 else f"{float(recorded.speed):g} times as fast"
    if recorded.longest_gap_ns is not None:
        text += f", gaps cut to {recorded.longest_gap_ns / 1e6:g} ms"
    return text


def rate_text(options: Options) -> str:
    """`--rate` as asked for; "" without one."""
    rate = options.rate
    if rate is None:
        return ""
    unit = REQUESTS if rate.is_requests else SESSIONS
    ramp = f", ramp of {rate.ramp_ns / 1e9:g} s" if rate.ramp_ns else ""
    return f"at most {float(rate.per_second):g} {unit}/s ({rate.mode}{ramp})"


def _describe(options: Options) -> str:
    mode = "socket mode" if options.socket_mode else "classic mode"
    if options.transport == "udp" and not options.socket_mode:
        mode = "packets with client addresses"
    if options.local is not None:
        mode = "local mode"
    if options.output_device:
        mode += f", frames sent on {options.output_device}"
    if options.relay.tunnel:
        mode = "tunnel mode"
    shown = ", ".join(str(transfer) for transfer in options.transfers)
    devices = ", ".join(options.devices) or "all devices"
    if options.recorded is not None:
        devices = f"{', '.join(options.recorded.paths)}, {pacing_text(options)}"
        if options.recorded.passes > 1:
            devices += f", {options.recorded.passes} times"
    if options.rate is not None:
        devices += f", {rate_text(options)}"
    workers = f", {options.workers} workers" if options.workers > 1 else ""
    what = {"tcp": "", "udp": "UDP ", "both": "TCP and UDP "}[options.transport]
    return f"{mode}, copying {what}{shown} from {devices}{workers} ({version_line('tcpcopy')})"


if __name__ == "__main__":
    sys.exit(main())
