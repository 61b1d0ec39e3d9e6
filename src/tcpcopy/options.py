"""tcpcopy's command line: one table of options, and the checked values that it gives.

The table feeds the parser, `--help` and the documentation.
"""

from __future__ import annotations

import argparse
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from tcpcopy import (
    local_options,
    process_options,
    recorded_options,
    state_options,
    tunnel_options,
)
from tcpcopy.arguments import (
    Option,
    Word,
    make_parser,
    namespaces,
    number,
    read_words,
)
from tcpcopy.errors import UsageError
from tcpcopy.local_side import LocalConfig
from tcpcopy.mapping.addresses import (
    IPV4_BYTES,
    Resolver,
    format_address,
    format_endpoint,
    parse_host,
    parse_port,
    resolve_host,
    split_host_port,
    unusable_as_destination,
)
from tcpcopy.mapping.clients import AddressPool, parse_clients, parse_localhost_replacement
from tcpcopy.mapping.rate import RateConfig
from tcpcopy.mapping.transfers import TransferTable, check_no_loop, parse_transfers
from tcpcopy.namespaces import Namespace, inside
from tcpcopy.privileges import User
from tcpcopy.recorded.player import RecordedConfig
from tcpcopy.relay.native import RelayMode, RelayTerms
from tcpcopy.relay_options import relay_options, relay_terms

NS_PER_SECOND: Final = 1_000_000_000
NS_PER_MS: Final = 1_000_000
MIB: Final = 1 << 20
_MONTH_SECONDS: Final = 30 * 86400
_KEEPALIVE_MORE_NS: Final = 120 * NS_PER_SECOND  # SESS_KEEPLIVE_ADD of TCPCopy 1.3.0
_MAX_INTERCEPTS: Final = 32  # MAX_REAL_SERVERS of TCPCopy 1.3.0
_HEADERS_BYTES: Final = 40  # IPv4 and TCP without options
_RELAYED: Final = (
    "relay_port", "relay_connections", "lonely", "relay", "secret_file", "tls", "tls_ca",
    "tls_cert", "tls_key", "single", "disable_combined",
)  # fmt: skip
# Without -s the target gets connections of this host's kernel: there is nothing for these to do.
_CLASSIC_ONLY: Final = ("localhost", "factor", "mtu", "mss", *_RELAYED)

# TCP has them alone: a datagram is sent when it was captured, whatever the target does.
_TCP_ONLY: Final = (
    "full_sessions_only", "mss", "round_trip", "no_wait", "session_timeout", "keepalive_timeout",
    "retry", *_RELAYED,
)  # fmt: skip
TRANSPORTS: Final = ("tcp", "udp", "both")

_TRAFFIC: Final = "what is copied, and where to"
_CAPTURE: Final = "capture"
_REPLAY: Final = "replay"
_RELAY: Final = "intercept (classic mode)"
_PROCESS: Final = "process and reports"

OPTIONS: Final[tuple[Option, ...]] = (
    Option("transfer", "-x", "--transfer", _TRAFFIC,
           "copy connections to sourcePort (of sourceIP, else of any address of this host) to "
           "targetIP:targetPort, as [sourceIP:]sourcePort-targetIP:targetPort; IPv6 addresses in "
           "brackets; one source may have several targets; with -o each side may end in @MAC, the "
           "sender's and the receiver's MAC address of the frames",
           "TRANSFER,...", repeats=True),
    Option("transport", "", "--transport", _TRAFFIC,
           "copy tcp, udp or both (default tcp)", "tcp|udp|both"),
    Option("udp", "", "--udp", _TRAFFIC,
           "copy UDP instead of TCP: short for --transport udp"),
    Option("intercept", "-s", "--intercept", _TRAFFIC,
           "the assistant hosts where intercept runs, as host[:port]; without it tcpcopy connects "
           "to the target itself (socket mode); with UDP alone nothing has to run there",
           "HOST,...", repeats=True),
    *local_options.local_options(_TRAFFIC),
    Option("clients", "-c", "--client-addresses", _TRAFFIC,
           "client addresses shown to the target: addresses, a network as 62.135.200.x or in CIDR; "
           "in socket mode addresses of this host to connect from (with UDP alone, -c turns "
           "socket mode off); with --local a range that nobody has, or keep: the clients' own",
           "ADDRESS,...", repeats=True),
    Option("localhost", "-H", "--localhost-address", _TRAFFIC,
           "address shown to the target for clients on 127.0.0.0/8 and ::1", "ADDRESS"),
    Option("copies", "-n", "--copies", _TRAFFIC,
           "replay every session this many times", "NUM", 1, 1023, 1),
    Option("factor", "-f", "--port-factor", _TRAFFIC,
           "shift client ports; give each tcpcopy that shares a target a number of its own",
           "NUM", 0, 1023, 0),
    Option("percentage", "-r", "--percentage", _TRAFFIC,
           "replay this percentage of the sessions", "NUM", 1, 100, 100),
    Option("gradual", "-g", "--gradual", _TRAFFIC,
           "begin with 1 percent of the sessions and replay 1 percent more each second, up to -r"),
    Option("full_sessions_only", "-O", "--full-sessions-only", _TRAFFIC,
           "leave out connections that were open before tcpcopy started"),
    Option("device", "-i", "--device", _CAPTURE,
           "devices to capture on; all when not given; or files to replay instead: pcap or pcapng, "
           "also .gz and .zst, - for standard input; a name that is both is the device, unless it "
           "has a slash", "DEVICE|FILE,...", repeats=True),
    Option("netns", "", "--netns", _CAPTURE,
           "capture in this network namespace, and send from it: a name of `ip netns`, a path, or "
           "the id of a process in a container", "NAME|PATH|PID"),
    Option("send_netns", "", "--send-netns", _REPLAY,
           "send from this network namespace and reach intercept from it; host: the one that "
           "tcpcopy was started in; the one of --netns when not given", "NAME|PATH|PID|host"),
    Option("filter", "-F", "--filter", _CAPTURE,
           "what to capture, in pcap filter syntax, instead of the filter made from -x", "FILTER"),
    Option("buffer", "-B", "--buffer", _CAPTURE,
           "size of each capture buffer in MiB; there is one for each device of -i, else one for "
           "IPv4 and one for IPv6", "NUM", 1, 2048, 32, MIB),
    Option("snaplen", "-S", "--snaplen", _CAPTURE,
           "bytes captured of a packet; sessions with longer packets cannot be replayed exactly",
           "NUM", 128, 1 << 20, 1 << 20),
    Option("promiscuous", "", "--promiscuous", _CAPTURE,
           "also take frames addressed to other hosts, on the devices of -i: for a switch's mirror "
           "port; takes tunnels off as well"),
    Option("decapsulate", "", "--decapsulate", _CAPTURE,
           "capture tunnels, too, and copy what is in them: VXLAN, GENEVE, GRE, ERSPAN, GTP-U and "
           "others, as mirrors bring them"),
    Option("output_device", "-o", "--output-device", _REPLAY,
           "in classic mode, and with UDP alone, send Ethernet frames on this device, past "
           "routing, firewall and "
           "conntrack of this host; to the @MAC of -x, else to the next hop that the route and "
           "the neighbour table give; large segments go whole to a device that cuts them",
           "DEVICE"),
    Option("mtu", "-M", "--mtu", _REPLAY,
           "largest packet sent to the target, in bytes", "NUM", 576, 65535, 1500),
    Option("mss", "-D", "--mss", _REPLAY,
           "maximum segment size told to the target where the client's was not seen, or is larger "
           "than given here; no more than the MTU less 40", "NUM", 64, 65495, 1460),
    Option("round_trip", "-R", "--round-trip", _REPLAY,
           "round-trip time of the clients in milliseconds; 0: take it from the capture",
           "NUM", 0, 600_000, 0, NS_PER_MS),
    Option("no_wait", "-W", "--no-wait", _REPLAY,
           "send requests when they were captured, without waiting for the target's answers"),
    Option("session_timeout", "-t", "--session-timeout", _REPLAY,
           "seconds to wait for an answer of the target, or for a free local port", "NUM",
           1, _MONTH_SECONDS, 600, NS_PER_SECOND),
    Option("keepalive_timeout", "-k", "--keepalive-timeout", _REPLAY,
           "seconds that a session may be idle; 120 more than -t when not given", "NUM",
           1, _MONTH_SECONDS, None, NS_PER_SECOND),
    Option("retry", "", "--retry", _REPLAY,
           "seconds for which a connection that the target refuses is tried again; a session that "
           "the target cuts goes on with its next turn on another connection, unless -O; 0: "
           "neither", "NUM", 0, _MONTH_SECONDS, 10, NS_PER_SECOND),
    Option("flow_timeout", "", "--flow-timeout", _REPLAY,
           "seconds without a datagram after which a UDP flow ends", "NUM",
           1, _MONTH_SECONDS, 30, NS_PER_SECOND),
    Option("memory", "-m", "--memory", _REPLAY,
           "memory limit in MiB; new sessions are left out before it is reached", "NUM",
           64, 1 << 20, 1024, MIB),
    Option("session_pool", "-U", "--session-pool", _REPLAY,
           "accepted for old command lines, without effect", "NUM", 1, 63),
    *recorded_options.OPTIONS,
    tunnel_options.VIA,
    Option("relay_port", "-p", "--relay-port", _RELAY,
           "port of the intercepts that -s gives without one", "NUM", 1, 65535, 36524),
    Option("relay_connections", "-C", "--relay-connections", _RELAY,
           "connections to each intercept", "NUM", 1, 11, 2),
    Option("lonely", "-L", "--lonely", _RELAY,
           "go on when no intercept can be reached, and connect to it when it is there"),
    *relay_options(
        _RELAY, "intercept",
        "certificates, in PEM form, by which intercept's is checked; those of this host when not "
        "given",
        "this tcpcopy's certificate, in PEM form, for an intercept that asks for one",
        single="announce no sessions: for an intercept that hands every answer to the connections "
        "in turn, as a C intercept built --single does, which is found out when not given",
        bare="take answers one by one, as a C intercept built --disable-combined sends them, which "
        "is found out when not given"),
    process_options.workers_option(_PROCESS),
    Option("log", "-l", "--log", _PROCESS,
           "append the log to this file; else it goes to stderr, or to syslog with -d", "FILE"),
    Option("json", "", "--json", _PROCESS, "write the summary as JSON to this file, and "
           "every ten seconds how things stand", "FILE"),
    state_options.state_option(_PROCESS),
    Option("no_status", "", "--no-status", _PROCESS, "show no live status on the terminal"),
    process_options.no_check_option(_PROCESS, "tcpcopy"),
    process_options.user_option(_PROCESS),
    Option("daemon", "-d", "--daemon", _PROCESS, "run as a daemon"),
    Option("pid_file", "-P", "--pid-file", _PROCESS, "write the process id to this file", "FILE"),
    Option("version", "-v", "--version", _PROCESS, "print the version and exit"),
    Option("help", "-h", "--help", _PROCESS, "print this help and exit"),
)  # fmt: skip

_DESCRIPTION: Final = (
    "Copies the live TCP or UDP traffic of this host to a test server: every session, byte for "
    "byte.\n"
    "The service and its clients are not touched."
)
_EXAMPLES: Final = """examples:
  tcpcopy -x 80-192.168.0.2:8080
      copy connections to port 80 of this host to port 8080 of 192.168.0.2 (socket mode)
  tcpcopy -x 80-192.168.0.2:8080 -s 192.168.0.3 -c 62.135.200.x
      the same through raw packets, with answers routed to intercept on 192.168.0.3
  tcpcopy --udp -x 53-192.168.0.2:53
      copy the datagrams that clients send to port 53
  tcpcopy doctor -x 80-192.168.0.2:8080
      say whether this host has what that command needs, and what mends it
  tcpcopy inspect traffic.pcap
      say what is in a capture file, and which -x would fit
  tcpcopy -i traffic.pcap -x 80-127.0.0.1:8080
      replay recorded connections to any port 80 to port 8080 of this host; needs no privilege
  tcpcopy demo
      show both on hosts made of network namespaces"""


@dataclass(frozen=True, slots=True)
class Intercept:
    """One intercept of `-s`."""

    host: str  # as given, to be looked up again when it is connected again
    address: bytes  # 4 or 16 bytes, as found at start
    port: int


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks for; checked, but for what needs the host (`check_host`)."""

    show: str = ""  # "help" or "version": print that and exit; nothing else is set
    transfers: TransferTable = field(default_factory=lambda: TransferTable(()))
    intercepts: tuple[Intercept, ...] = ()  # empty: socket mode
    local: LocalConfig | None = None  # the target is on this host
    client_pool: AddressPool | None = None
    client_addresses: tuple[str, ...] = ()  # -c as given, for reports
    localhost_replacement: bytes | None = None
    copies: int = 1
    factor: int = 0
    percentage: int = 100
    gradual: bool = False
    full_sessions_only: bool = False
    devices: tuple[str, ...] = ()  # empty: all
    recorded: RecordedConfig | None = None  # files to replay instead of devices
    rate: RateConfig | None = None
    capture_namespace: Namespace | None = None  # None, as is the next: where tcpcopy was started
    send_namespace: Namespace | None = None
    filter: str | None = None  # pcap syntax, not compiled yet; None: made from the transfers
    buffer_bytes: int = 32 * MIB
    snaplen_bytes: int = 1 << 20  # captured of one packet
    promiscuous: bool = False
    unwraps: bool = False  # tunnels are taken off
    mtu_bytes: int = 1500
    mss_bytes: int = 1460
    round_trip_ns: int = 0  # 0: taken from the capture
    wait_for_answers: bool = True
    session_timeout_ns: int = 600 * NS_PER_SECOND
    keepalive_timeout_ns: int = 720 * NS_PER_SECOND
    retry_ns: int = 10 * NS_PER_SECOND
    memory_bytes: int = 1024 * MIB
    output_device: str = ""  # frames are sent on it; "": packets through the IP layer
    relay_connections: int = 2  # to each intercept
    lonely: bool = False
    relay: RelayTerms = field(default_factory=RelayTerms)
    workers: int = 1
    log_file: str | None = None  # absolute, as are the other files
    json_file: str | None = None
    pid_file: str | None = None
    user: User | None = None  # to become once all is open
    state: str | None = None  # directory, or state_options.NONE; None: where it usually is
    status: bool = True  # whether a terminal gets a live status
    check: bool = True  # whether the host is checked at the start
    daemon: bool = False
    transport: str = "tcp"  # one of TRANSPORTS
    flow_timeout_ns: int = 30 * NS_PER_SECOND  # UDP
    without_effect: tuple[str, ...] = ()  # options as typed that do nothing here

    @property
    def socket_mode(self) -> bool:
        """Whether replay goes over kernel sockets rather than raw packets.

        What turns it off is -s; with UDP alone, which needs no intercept, -c and -o as well.
        """
        if self.local is not None:
            return False
        if self.transport == "udp":
            return not (self.intercepts or self.client_pool is not None or self.output_device)
        return not self.intercepts

    @property
    def copies_tcp(self) -> bool:
        """Whether TCP is copied."""
        return self.transport != "udp"

    @property
    def copies_udp(self) -> bool:
        """Whether UDP is copied."""
        return self.transport != "tcp"


def list_devices() -> list[str]:
    """Names of this host's network devices."""
    return [name for _, name in socket.if_nameindex()]


def help_text() -> str:
    """What `tcpcopy --help` prints."""
    return _parser().format_help()


def _parser() -> argparse.ArgumentParser:
    return make_parser(
        "tcpcopy",
        OPTIONS,
        usage="tcpcopy -x TRANSFER,... [-s HOST,...] [options]\n"
        "       tcpcopy doctor OPTIONS... [--help]\n"
        "       tcpcopy inspect FILE... [--help]\n       tcpcopy demo [--help]",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
    )


def parse(
    argv: Sequence[str],
    *,
    resolve: Resolver = resolve_host,
    devices: Callable[[], Iterable[str]] = list_devices,
    open_namespace: Callable[[str, str], Namespace] = Namespace,
) -> Options:
    """Options of a tcpcopy command line (without the program's name).

    With -h or -v only `show` is set. Host names are looked up by `resolve` (ValueError for none).
    Raises UsageError for everything that can be told without asking the host; see `check_host`.
    """
    words = read_words(_parser(), OPTIONS, argv)
    for show in ("help", "version"):
        if show in words:
            return Options(show=show)
    numbers = {o.name: number(o, words.get(o.name)) for o in OPTIONS if o.low is not None}
    places = _places(words, devices, open_namespace)
    transfers = _transfers(words.get("transfer"), resolve, places["recorded"])
    targets = [address for address, _ in transfers.targets()]
    timeout_ns = _given(numbers, "session_timeout")
    transport = _transport(words)
    tunnel = tunnel_options.tunnel_begins(words, targets)
    return Options(
        transfers=transfers,
        intercepts=_intercepts(words.get("intercept"), _given(numbers, "relay_port"), resolve),
        local=local_options.local_config(words, transfers, transport),
        client_pool=None if "local" in words else _clients(words.get("clients"), targets),
        client_addresses=_items(words.get("clients")),
        localhost_replacement=_localhost(words.get("localhost"), targets),
        copies=_given(numbers, "copies"),
        factor=_given(numbers, "factor"),
        percentage=_given(numbers, "percentage"),
        gradual="gradual" in words,
        full_sessions_only="full_sessions_only" in words,
        rate=recorded_options.rate(words, places["recorded"] is not None),
        **places,
        **process_options.files(words),
        user=process_options.user(words),
        state=state_options.state(words),
        filter=words["filter"].value if "filter" in words else None,
        buffer_bytes=_given(numbers, "buffer"),
        snaplen_bytes=_given(numbers, "snaplen"),
        mtu_bytes=_given(numbers, "mtu"),
        mss_bytes=_mss(words.get("mss"), _given(numbers, "mss"), _given(numbers, "mtu")),
        round_trip_ns=_given(numbers, "round_trip"),
        wait_for_answers="no_wait" not in words,
        session_timeout_ns=timeout_ns,
        keepalive_timeout_ns=numbers["keepalive_timeout"] or timeout_ns + _KEEPALIVE_MORE_NS,
        retry_ns=_given(numbers, "retry"),
        memory_bytes=_given(numbers, "memory"),
        relay_connections=_given(numbers, "relay_connections"),
        lonely="lonely" in words,
        relay=replace(_relay(words, transfers, transport), tunnel=tunnel),
        workers=process_options.workers(words, _given(numbers, "memory"), places["recorded"]),
        status="no_status" not in words,
        check="no_check" not in words,
        daemon="daemon" in words,
        transport=transport,
        flow_timeout_ns=_given(numbers, "flow_timeout"),
        without_effect=_without_effect(words, transport),
    )


def check_host(
    options: Options,
    is_local: Callable[[bytes], bool],
    is_local_to_sender: Callable[[bytes], bool] | None = None,
) -> None:
    """Refuse what does not fit this host: loops, and in socket mode foreign -c addresses.

    `is_local` tells whether an address can be bound where is captured, `is_local_to_sender` whether
    it can be bound where is sent from; None: that is the same network. Raises UsageError.
    """
    if options.recorded is None or options.recorded.is_live:
        check_no_loop(options.transfers, is_local, stays_away=is_local_to_sender)
    is_local = is_local_to_sender or is_local
    if options.socket_mode and options.client_pool is not None:
        foreign = options.client_pool.first_foreign(is_local)
        if foreign is not None:
            raise UsageError(
                "-c",
                format_address(foreign),
                "is not an address of this host",
                "without -s, -c names local addresses to connect from; add it to a device, or "
                "give -s to send packets from other addresses",
            )


def _given(numbers: Mapping[str, int | None], name: str) -> int:
    value = numbers[name]
    assert value is not None
    return value


def _transfers(
    word: Word | None, resolve: Resolver, recorded: RecordedConfig | None
) -> TransferTable:
    if word is None:
        hint = "say what to copy, for example -x 80-192.168.0.2:8080"
        raise UsageError("-x", "", "is missing", hint)
    return TransferTable(
        parse_transfers(word.value, option=word.typed, resolve=resolve),
        excludes_targets=recorded is None or recorded.is_live,
    )


def _intercepts(word: Word | None, default_port: int, resolve: Resolver) -> tuple[Intercept, ...]:
    if word is None:
        return ()
    found: dict[tuple[bytes, int], Intercept] = {}
    for item in word.value.split(","):
        item = item.strip()
        hint = "write host[:port],..., for example 192.168.0.3"
        try:
            host, port_text = split_host_port(item)
            port = default_port if port_text is None else parse_port(port_text)
            address = parse_host(host, resolve)
        except ValueError as error:
            raise UsageError(word.typed, item, str(error) if item else "is empty", hint) from None
        if problem := unusable_as_destination(address):
            raise UsageError(word.typed, item, problem, hint)
        if (address, port) in found:
            raise UsageError(word.typed, item, "the same intercept is given twice", "leave one out")
        found[address, port] = Intercept(host, address, port)
    if len(found) > _MAX_INTERCEPTS:
        hint = f"give {_MAX_INTERCEPTS} at most"
        raise UsageError(word.typed, len(found), "intercepts are too many", hint)
    return tuple(found.values())


def _relay(words: Mapping[str, Word], transfers: TransferTable, transport: str) -> RelayTerms:
    relay = relay_terms(words, is_server=False)
    if "intercept" in words and transport != "udp" and relay.mode is RelayMode.CLASSIC:
        _check_classic(words["transfer"], transfers)
    if "output_device" not in words:
        _check_no_mac(words["transfer"], transfers)
    return relay


def _check_classic(word: Word, transfers: TransferTable) -> None:
    for transfer in transfers:
        if len(transfer.target_address) != IPV4_BYTES:
            raise UsageError(
                word.typed,
                transfer,
                f"the target {format_endpoint(*transfer.target)} is IPv6, which the classic relay "
                "cannot carry",
                "leave out --relay classic and --single, or give an IPv4 target",
            )


def _check_no_mac(word: Word, transfers: TransferTable) -> None:
    for transfer in transfers:
        if transfer.source_mac or transfer.target_mac:
            raise UsageError(
                word.typed,
                transfer,
                "is given with a MAC address, which only frames have",
                "give -o DEVICE to send frames on it, or leave out @MAC",
            )


def _promiscuous(words: Mapping[str, Word], captured: tuple[str, ...]) -> bool:
    word = words.get("promiscuous")
    if word is not None and not captured:
        word.refuse("needs -i: it is for named devices", "give -i DEVICE, the mirror port")
    return word is not None


def _transport(words: Mapping[str, Word]) -> str:
    word = words.get("transport")
    transport = "udp" if "udp" in words else "tcp"
    if word is not None:
        if word.value not in TRANSPORTS:
            word.refuse("is not a transport", f"give one of {', '.join(TRANSPORTS)}")
        if "udp" in words and word.value != "udp":
            word.refuse("contradicts --udp", "give one of them")
        transport = word.value
    recorded_options.refuse_rate_of_udp(words, transport)
    return transport


def _without_effect(words: Mapping[str, Word], transport: str) -> tuple[str, ...]:
    if "local" in words:
        names = dict.fromkeys(local_options.WITHOUT_EFFECT)
    else:
        forges = ("intercept",) if transport != "udp" else ("intercept", "clients", "output_device")
        names = {} if any(name in words for name in forges) else dict.fromkeys(_CLASSIC_ONLY)
    if transport == "udp" and not tunnel_options.is_tunnel(words):
        names |= dict.fromkeys(_TCP_ONLY)
    if transport == "tcp":
        names["flow_timeout"] = None
    return tuple(words[name].typed for name in names if name in words)


def _items(word: Word | None) -> tuple[str, ...]:
    return () if word is None else tuple(item.strip() for item in word.value.split(","))


def _clients(word: Word | None, targets: Sequence[bytes]) -> AddressPool | None:
    if word is None:
        return None
    pool = parse_clients(word.value, option=word.typed, exclude=targets)
    needed = {len(address) for address in targets}
    if pool.families != needed:
        needless = pool.families - needed
        family = _family(min(needless or needed - pool.families))
        word.refuse(
            f"an address is {family}, but no target is"
            if needless
            else f"no address is {family}, but a target is",
            "give clients and targets of the same families",
        )
    return pool


def _localhost(word: Word | None, targets: Sequence[bytes]) -> bytes | None:
    if word is None:
        return None
    address = parse_localhost_replacement(word.value, option=word.typed)
    if len(address) not in {len(target) for target in targets}:
        word.refuse(
            f"is {_family(len(address))}, but no target is",
            "give an address of the target's family",
        )
    return address


def _family(length: int) -> str:
    return "IPv4" if length == IPV4_BYTES else "IPv6"


def _places(
    words: Mapping[str, Word],
    devices: Callable[[], Iterable[str]],
    open_namespace: Callable[[str, str], Namespace],
) -> dict[str, Any]:
    """Namespaces, and the devices or files in them. Host names are looked up where it started."""
    capture, send = namespaces(words, "send_netns", open_namespace)
    with inside(capture):
        captured, files = recorded_options.inputs(words.get("device"), devices())
    with inside(send):
        output_device = _output_device(words, devices)
    return {
        "capture_namespace": capture,
        "send_namespace": send,
        "devices": captured,
        "recorded": recorded_options.recorded(words, files),
        "promiscuous": _promiscuous(words, captured),
        "unwraps": recorded_options.unwraps(words, files),
        "output_device": output_device,
    }


def _output_device(words: Mapping[str, Word], devices: Callable[[], Iterable[str]]) -> str:
    word = words.get("output_device")
    if word is None:
        return ""
    if "intercept" not in words and _transport(words) != "udp":
        word.refuse("needs -s: in socket mode the kernel sends", "give -s HOST, or leave out -o")
    known = list(devices())
    if word.value not in known:
        word.refuse("there is no such device", f"give one of {', '.join(sorted(known))}")
    return word.value


def _mss(word: Word | None, mss: int, mtu: int) -> int:
    limit = mtu - _HEADERS_BYTES
    if word is not None and mss > limit:
        word.refuse(f"does not fit into packets of {mtu} bytes (-M)", f"give {limit} at most")
    return min(mss, limit)
