"""The command `intercept`: its options, and the process that runs them."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from tcpcopy import doctor_cli, rights
from tcpcopy.arguments import (
    Option,
    Word,
    file_to_write,
    make_parser,
    namespaces,
    number,
    read_words,
    refuse_same_files,
)
from tcpcopy.doctor.checkup import check_intercept
from tcpcopy.doctor.finding import Finding
from tcpcopy.doctor.host import QUICK_S, HostReader
from tcpcopy.doctor_plan import intercept_plan_of
from tcpcopy.errors import UsageError
from tcpcopy.interceptor import InterceptConfig, Interceptor
from tcpcopy.privileges import User
from tcpcopy.process_options import no_check_option, user, user_option
from tcpcopy.rehearsal import OutputFiles, give_up, rehearse
from tcpcopy.relay.classic import DEFAULT_PORT, MAX_BATCH, Layout
from tcpcopy.relay.peers import Network
from tcpcopy.relay_options import relay_options, relay_terms
from tcpcopy.supervisor import (
    PidFile,
    Startup,
    hold_log,
    open_log,
    raise_open_files,
    run_command,
    say,
    starting,
    stop_signals,
)
from tcpcopy.tunnel_options import END_OPTIONS, tunnel_end
from tcpcopy.version import version_line

_log = logging.getLogger("tcpcopy.intercept")
MIB: Final = 1 << 20

_CAPTURE: Final = "capture"
_RELAY: Final = "tcpcopies"
_PROCESS: Final = "process"
_LAYOUTS: Final = {
    "batched": Layout.BATCHED,
    "bare": Layout.BARE,
    "batched-payload": Layout.BATCHED_PAYLOAD,
}
# More early answers than this are of no use, whatever an old command line asks for.
_MOST_EARLY: Final = 1 << 20

OPTIONS: Final[tuple[Option, ...]] = (
    Option("device", "-i", "--device", _CAPTURE,
           "devices to capture on; all when not given", "DEVICE,...", repeats=True),
    Option("netns", "", "--netns", _CAPTURE,
           "capture in this network namespace, and listen in it: a name of `ip netns`, a path, or "
           "the id of a process in a container", "NAME|PATH|PID"),
    Option("filter", "-F", "--filter", _CAPTURE,
           "the target's answers, in pcap filter syntax, such as 'tcp and src port 8080'; all TCP "
           "but the relay's own when not given", "FILTER"),
    Option("buffer", "-B", "--buffer", _CAPTURE,
           "size of the capture buffer of each device in MiB", "NUM", 1, 2048, 16, MIB),
    Option("replaced", "-D", "--dockered-orig", _CAPTURE,
           "take answers to dockeredIP as sent to origIP (the client address that docker or DNAT "
           "has replaced), as dockeredIP-origIP", "IP-IP"),
    Option("dnat", "", "--dnat", _CAPTURE,
           "find sessions without the target's address, for targets behind one that is translated"),
    Option("port", "-p", "--port", _RELAY,
           "port to listen on for tcpcopies", "NUM", 1, 65535, DEFAULT_PORT),
    Option("bind", "-b", "--bind", _RELAY,
           "address to listen on; all IPv4 addresses when not given", "ADDRESS"),
    Option("listen_netns", "", "--listen-netns", _RELAY,
           "listen in this network namespace; host: the one that intercept was started in; the one "
           "of --netns when not given", "NAME|PATH|PID|host"),
    Option("batch", "-n", "--batch", _RELAY,
           "most answers sent in one piece", "NUM", 1, MAX_BATCH, MAX_BATCH),
    Option("early", "-s", "--hash-size", _RELAY,
           "most sessions of which early answers are kept until tcpcopy announces them", "NUM",
           1, (1 << 31) - 1, 65536),
    Option("sessions", "", "--sessions", _RELAY,
           "most sessions known at a time; the oldest make room", "NUM",
           1024, 16_777_216, 524_288),
    Option("protected", "-c", "--protect", _RELAY,
           "while a tcpcopy is connected, refuse those of other hosts"),
    Option("layout", "", "--relay-format", _RELAY,
           "how tcpcopy takes answers; only for a C tcpcopy built otherwise than by default: "
           "bare for --disable-combined, batched-payload for --with-resp-payload, which gives "
           "payload to every classic tcpcopy that connects: give --allow", "FORMAT"),
    Option("allow", "", "--allow", _RELAY,
           "let only these networks connect, as addresses or in CIDR; all when not given",
           "NETWORK,...", repeats=True),
    Option("max_peers", "", "--max-peers", _RELAY,
           "most tcpcopy hosts connected at a time", "NUM", 1, 512, 64),
    Option("max_sessions", "", "--max-sessions", _RELAY,
           "most sessions of one tcpcopy host; as many as --sessions when not given", "NUM",
           1, 16_777_216),
    *relay_options(
        _RELAY, "tcpcopy",
        "certificates, in PEM form, one of which each tcpcopy's own must be signed by; none is "
        "asked for when not given",
        "the certificate shown to tcpcopy, in PEM form",
        single="hand the answers that nobody has announced to the connections of the tcpcopy that "
        "came last, in turn: for a C tcpcopy built --single; found out when not given, where -F or "
        "--allow says what and who is meant",
        bare="send answers one by one, for a C tcpcopy built --disable-combined, as --relay-format "
        "bare does; found out when not given, a few seconds after its first sessions"),
    *END_OPTIONS,
    Option("log", "-l", "--log", _PROCESS,
           "append the log to this file; else it goes to stderr, or to syslog with -d", "FILE"),
    no_check_option(_PROCESS, "intercept"),
    user_option(_PROCESS),
    Option("daemon", "-d", "--daemon", _PROCESS, "run as a daemon"),
    Option("pid_file", "-P", "--pid-file", _PROCESS, "write the process id to this file", "FILE"),
    Option("version", "-v", "--version", _PROCESS, "print the version and exit"),
    Option("help", "-h", "--help", _PROCESS, "print this help and exit"),
)  # fmt: skip

_PARSER: Final = make_parser(
    "intercept",
    OPTIONS,
    usage="intercept [-i DEVICE,...] [-F FILTER] [options]\n"
    "       intercept --tun --secret-file FILE [options]\n"
    "       intercept doctor OPTIONS... [--help]",
    description=(
        "Runs on the assistant host: picks up the target's answers to mapped clients, which a\n"
        "route on the target sends here, and gives their headers to the tcpcopies that connect.\n"
        "With --tun it runs on the target itself, and takes their packets in as well."
    ),
    epilog="""example:
  intercept -i eth0 -F 'tcp and src port 8080'
      on the target: ip route add 62.135.200.0/24 via ASSISTANT
      here:          sysctl -w net.ipv4.ip_forward=0""",
)


@dataclass(frozen=True, slots=True)
class InterceptOptions:
    """What the command line asks for, checked as far as possible without opening anything."""

    config: InterceptConfig
    log_file: str | None = None  # absolute, as is the other
    pid_file: str | None = None
    user: User | None = None  # to become once all is open
    check: bool = True  # whether the host is checked at the start
    daemon: bool = False
    show: str = ""  # "help" or "version": print that and exit


def parse(argv: Sequence[str]) -> InterceptOptions:
    """The options of an intercept command line. Raises: UsageError."""
    words = read_words(_PARSER, OPTIONS, argv)
    for show in ("help", "version"):
        if show in words:
            return InterceptOptions(InterceptConfig(), show=show)
    numbers = {
        option.name: number(option, words.get(option.name)) or 0
        for option in OPTIONS
        if option.low is not None
    }
    replaced, original = _address_pair(words.get("replaced"))
    refuse_same_files(words, ("log", "pid_file"))
    tunnel = tunnel_end(words)
    relay = relay_terms(words, is_server=True)
    capture, listen = namespaces(words, "listen_netns")
    config = InterceptConfig(
        capture_namespace=capture,
        listen_namespace=listen,
        devices=_devices(words.get("device")),
        filter=words["filter"].value if "filter" in words else "",
        host=_address(words.get("bind")),
        port=numbers["port"],
        batch_records=numbers["batch"],
        layout=_layout(words.get("layout"), relay.bare),
        early_limit=min(numbers["early"], _MOST_EARLY),
        session_limit=numbers["sessions"],
        replaced_address=replaced,
        original_address=original,
        ignore_target="dnat" in words,
        protected="protected" in words,
        relay=replace(relay, tunnel=True) if tunnel is not None else relay,
        allowed=_networks(words.get("allow")),
        peer_limit=numbers["max_peers"],
        peer_session_limit=numbers["max_sessions"] or numbers["sessions"],
        buffer_bytes=numbers["buffer"],
        tunnel=tunnel,
        watches="no_check" not in words,
    )
    return InterceptOptions(
        config,
        log_file=file_to_write(words.get("log")),
        pid_file=file_to_write(words.get("pid_file")),
        user=user(words),
        check="no_check" not in words,
        daemon="daemon" in words,
    )


def main(argv: list[str] | None = None) -> int:
    """Run `intercept`; returns the exit code: 0 after a stop signal, 2 for bad usage."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments[:1] == ["doctor"]:
        return doctor_cli.run("intercept", arguments[1:], examine)
    try:
        options = parse(arguments)
    except UsageError as error:
        say(f"intercept: {error}\n", sys.stderr)
        return 2
    if options.show:
        is_help = options.show == "help"
        say(help_text() if is_help else f"{version_line('intercept')}\n", sys.stdout)
        return 0
    return run_command("intercept", options.daemon, lambda startup: _run(options, startup))


def examine(arguments: Sequence[str]) -> list[Finding]:
    """What `intercept doctor` finds for the options of a run. Raises: UsageError."""
    options = parse(arguments)
    if options.show:
        raise UsageError("doctor", None, f"--{options.show} is of no use", "leave it out")
    return check_intercept(intercept_plan_of(options.config))


def _check_again(config: InterceptConfig) -> list[Finding]:
    reader = HostReader(program_seconds=QUICK_S)
    return check_intercept(intercept_plan_of(config), reader, is_running=True)


def help_text() -> str:
    """What `intercept --help` prints."""
    return _PARSER.format_help()


def _run(options: InterceptOptions, startup: Startup | None) -> int:
    """Serve until a stop signal. Raises: UsageError, with nothing left behind."""
    with contextlib.ExitStack() as stack:
        hold_log()
        keep = rights.of_intercept(options.config)
        makes_tun = options.config.tunnel is not None
        files = OutputFiles(options.log_file, pid=options.pid_file, makes_tun=makes_tun)
        rehearsed = rehearse(files, keep, options.user)
        raise_open_files()
        # What may fail comes before what leaves traces: sockets, then the pid file, then the log.
        with starting():
            interceptor = Interceptor(options.config)
            stack.callback(interceptor.close)
            interceptor.open()
            signals = stack.enter_context(stop_signals())
        if options.pid_file:
            stack.enter_context(PidFile(options.pid_file))
        open_log(options.log_file, daemon=options.daemon, program="intercept", user=options.user)
        if options.check:
            doctor_cli.check_at_start(
                "intercept", lambda: _check_again(options.config), options.log_file
            )
        interceptor.stay_where_captured()
        give_up(keep, options.user, rehearsed)
        interceptor.log_start()
        if startup is not None:
            startup.ready()
        interceptor.run(signals.fileno(), signals.requested)
        interceptor.report()
        _log.info("stopped")
        return 0


def _devices(word: Word | None) -> tuple[str, ...]:
    if word is None:
        return ()
    names = tuple(name.strip() for name in word.value.split(","))
    if "" in names:
        word.refuse("a device is empty", "write DEVICE,..., for example eth0")
    return names


def _address(word: Word | None) -> str:
    if word is None:
        return ""
    try:
        return str(ipaddress.ip_address(word.value.strip("[]")))
    except ValueError:
        word.refuse("is not an IP address", "give an address of this host, see `ip address`")


def _networks(word: Word | None) -> tuple[Network, ...]:
    if word is None:
        return ()
    found = []
    for item in word.value.split(","):
        try:
            found.append(ipaddress.ip_network(item.strip()))
        except ValueError as error:
            problem = "has bits set behind its prefix" if "host bits" in str(error) else ""
            raise UsageError(
                word.typed,
                item.strip(),
                problem or "is neither an address nor a network",
                "write for example 10.0.0.0/24,fd00::5",
            ) from None
    return tuple(found)


def _address_pair(word: Word | None) -> tuple[bytes, bytes]:
    if word is None:
        return b"", b""
    try:
        replaced, original = (ipaddress.IPv4Address(part) for part in word.value.split("-"))
    except ValueError:
        word.refuse("is not a pair of IPv4 addresses", "write dockeredIP-origIP")
    return replaced.packed, original.packed


def _layout(word: Word | None, is_bare: bool) -> Layout | None:
    if word is None:
        return Layout.BARE if is_bare else None
    if is_bare and word.value != "bare":
        word.refuse("is not what --disable-combined says", "leave one of the two out")
    if word.value not in _LAYOUTS:
        word.refuse("is not a relay format", f"give one of {', '.join(_LAYOUTS)}")
    return _LAYOUTS[word.value]


if __name__ == "__main__":
    sys.exit(main())
