"""The steps that mend a fault, with the real addresses filled in; pure text.

Each function returns lines that can be shown one below the other. A line names the host on
which its command is to be typed.
"""

from __future__ import annotations

import errno
import os

from tcpcopy.report.context import SOCKET, TUNNEL, Context, TransferInfo, prefix_of
from tcpcopy.report.counters import Snapshot
from tcpcopy.report.text import plural

#: Online ports on which TLS is usual: its bytes cannot be replayed, each connection has new keys.
TLS_PORTS = frozenset({443, 465, 636, 853, 989, 990, 993, 995, 5671, 6443, 8443})
#: Online ports of servers that log in with a challenge which differs for each connection.
CHALLENGE_PORTS = {3306: "MySQL", 5432: "PostgreSQL", 27017: "MongoDB"}
_LOG_INS = {
    "MySQL": "an empty password",
    "PostgreSQL": "`trust` or `password`, and the same answer to SSLRequest (`ssl`),",
    "MongoDB": "no authorization",
}

#: Where a file lacks a part of the traffic.
RECORD_ANEW = (
    "give all files of the set (-i a.pcap,b.pcap)",
    "record anew, whole packets and with a large buffer: tcpdump -s 0 -B 65536; it says at its end"
    " what the kernel dropped",
)

#: Where a worker died (--workers).
WORKER_DIED = (
    "the log says how it ended, by which signal or with which trace",
    "SIGKILL that nobody sent is the kernel's, for want of memory: dmesg | grep -i 'killed process'"
    " shows it; give a smaller -m or fewer --workers",
)

_WHOLE_PACKETS = 65535  # the default of -S
_NO_TRANSFER = TransferInfo("", 0, "TARGET", 0)


def first_transfer(context: Context) -> TransferInfo:
    """The rule that commands are shown for; placeholders when there is none."""
    return context.transfers[0] if context.transfers else _NO_TRANSFER


def others(context: Context) -> str:
    """A remark that the same holds for the targets that a command does not show."""
    rest = context.targets[1:]
    return f" (likewise {', '.join(rest)})" if rest else ""


def listening(context: Context) -> tuple[str, ...]:
    """For a target that refuses."""
    transfer = first_transfer(context)
    return (
        f"on the target: ss -ltn 'sport = :{transfer.target_port}' must show a server listening"
        f" on {transfer.target_address} or on all addresses{others(context)}",
        f"start it, or correct the target in -x {transfer_text(transfer)}",
    )


def transfer_text(transfer: TransferInfo) -> str:
    """A rule as `-x` writes it."""
    online = f"{transfer.online_address}:" if transfer.online_address else ""
    return f"{online}{transfer.online_port}-{transfer.target}"


def reach_socket(context: Context) -> tuple[str, ...]:
    """For a target that does not answer an ordinary connection."""
    transfer = first_transfer(context)
    return (
        f"on this host: nc -vz -w 3 {transfer.target_address} {transfer.target_port}"
        f" must connect{others(context)}",
        f"on the target: tcpdump -ni any 'tcp dst port {transfer.target_port}' shows whether the"
        " connects arrive; if they do, its firewall drops them (nft list ruleset)",
    )


def forwarding_name(target: str) -> str:
    """The sysctl by which a host passes packets on, of the family of a target's address."""
    return "net.ipv6.conf.all.forwarding" if target.count(":") > 1 else "net.ipv4.ip_forward"


def handshake_local(context: Context) -> tuple[str, ...]:
    """For a server of this host that does not answer through the device."""
    transfer = first_transfer(context)
    device = context.local_device or "tcpcopy*"
    return (
        f"on this host: ss -ltn 'sport = :{transfer.target_port}' must show a server listening on"
        f" {transfer.target_address} or on all addresses{others(context)}; one whose queue"
        " (Recv-Q) is full takes no more",
        f"on this host: the firewall must let packets in from the devices {device}: nft list"
        f" ruleset; for example nft insert rule inet filter input iifname '{device}' accept",
        f"while it runs: tcpdump -ni {device.replace('*', '0')} shows the connects, and whether the"
        " server answers them",
    )


def handshake_classic(context: Context) -> tuple[str, ...]:
    """For classic mode without a single answer: every hop of the handshake, in its order."""
    transfer = first_transfer(context)
    port = transfer.target_port
    is_ipv6 = ":" in transfer.target_address
    forwarding = "net.ipv6.conf.all.forwarding" if is_ipv6 else "net.ipv4.ip_forward"
    steps = [
        f"on the target: tcpdump -ni any 'tcp dst port {port}' must show the copied SYNs;"
        " if not, the network drops packets with the clients' addresses: use -c with addresses"
        " that may be sent from here, or leave out -s (socket mode)",
    ]
    if not is_ipv6:
        steps.append(
            "on the target: sysctl -w net.ipv4.conf.all.rp_filter=0, and the same for the device"
            " that the packets come in by (with rp_filter=1 they are thrown away there)"
        )
    steps += routes(context)
    steps += [
        f"on the assistant: intercept -i DEVICE -F 'tcp and src port {port}' must run on the"
        " device that the answers come in by; tcpdump with the same filter must show them",
        f"on the assistant: sysctl -w {forwarding}=0, or the answers travel on to the real"
        " clients, which reset the connections",
        "on the target: the firewall must not drop them as invalid (nft list ruleset)",
    ]
    return tuple(steps)


def handshake_tunnel(context: Context) -> tuple[str, ...]:
    """For tunnel mode without a single answer: every hop behind the relay."""
    transfer = first_transfer(context)
    port = transfer.target_port
    return (
        *not_injected(context),
        f"on the target: tcpdump -ni tcpcopy-t0 'tcp port {port}' must show the copied SYNs and"
        " their answers",
        f"on the target: ss -ltn 'sport = :{port}' must show a server listening on"
        f" {transfer.target_address} or on all addresses{others(context)}",
        "on the target: the firewall must let packets of the device tcpcopy-t0 in (nft list"
        " ruleset)",
    )


def not_injected(context: Context) -> tuple[str, ...]:
    """For packets that intercept may have dropped before they were injected."""
    clients = ",".join(dict.fromkeys(prefix_of(item) for item in context.client_addresses))
    return (
        "on the target: the log of intercept says what it dropped, and why",
        f"on the target: intercept --tun-clients {clients or 'keep'} must be what -c is here,"
        f" and --tun-allow, if given, must have {', '.join(context.targets) or 'the target'}",
    )


def routes(context: Context) -> list[str]:
    """The route that turns the target's answers to the assistant, and how to see it."""
    assistant = context.assistants[0] if context.assistants else "ASSISTANT"
    steps = []
    if context.client_addresses:
        networks = dict.fromkeys(prefix_of(item) for item in context.client_addresses)
        commands = "; ".join(f"ip route replace {net} via {assistant}" for net in networks)
        steps.append(f"on the target: {commands}")
    else:
        client = context.example_client or "CLIENT_NETWORK"
        steps.append(
            f"on the target: ip route replace {client} via {assistant}, for every network that"
            " clients come from; -c 62.135.200.x (an unused range) makes one route enough"
        )
    shown = context.example_client or (
        _first_address(context.client_addresses[0]) if context.client_addresses else "CLIENT"
    )
    steps.append(f"on the target: ip route get {shown} must say via {assistant}")
    return steps


def _first_address(client_addresses: str) -> str:
    """An address out of one item of `-c`."""
    if client_addresses.endswith(".x"):
        return client_addresses[:-1] + "1"
    return client_addresses.partition("/")[0]


def relay_down(context: Context, peers: list[str]) -> tuple[str, ...]:
    """For intercepts that no connection could be made to."""
    peer = peers[0] if peers else "ASSISTANT:36524"
    rest = f" (likewise {', '.join(peers[1:])})" if len(peers) > 1 else ""
    address, _, port = peer.rpartition(":")
    where = "target: start intercept --tun" if context.mode == TUNNEL else ""
    return (
        f"on the {where or 'assistant: start intercept'}; ss -ltn 'sport = :{port}' must show"
        f" it{rest}",
        f"on this host: nc -vz -w 3 {address.strip('[]')} {port} must connect; else open the port"
        " in the firewall, or correct -s and -p",
    )


def overload(context: Context) -> tuple[str, ...]:
    """For a target that answers some connects only."""
    port = first_transfer(context).target_port
    return (
        "on the target: nstat -az TcpExtListenOverflows TcpExtListenDrops; when they grow, its"
        " backlog is full: raise net.core.somaxconn and the server's own backlog",
        f"on the target: ss -ltn 'sport = :{port}' shows the queue (Recv-Q) and its limit (Send-Q)",
        "on every host on the way: conntrack tables may be full (dmesg | grep conntrack)",
    )


def protocol_hints(context: Context) -> tuple[str, ...]:
    """What the options and the captured ports say about why a server would end sessions."""
    hints = []
    if not context.waits_for_answers:
        hints.append(
            "with -W requests come before the answers they build on: PostgreSQL and LDAP refuse"
            " that at log-in; without -W each waits"
        )
    tls = [str(port) for port in context.online_ports if port in TLS_PORTS]
    if tls:
        hints.append(
            f"port {', '.join(tls)} is usually TLS, whose recorded bytes no other server can read:"
            " capture behind what ends TLS, where the traffic is plain"
        )
    for port in context.online_ports:
        if port in CHALLENGE_PORTS:
            hints.append(
                f"port {port} is usually {CHALLENGE_PORTS[port]}: a log-in with a challenge cannot"
                f" be replayed; {_LOG_INS[CHALLENGE_PORTS[port]]} at both servers can"
            )
    return tuple(hints)


def send_error(number: int, context: Context) -> str:
    """What mends a failed send or connect with this errno."""
    transfer = first_transfer(context)
    address, port = transfer.target_address, transfer.target_port
    is_socket = context.mode == SOCKET
    mends = {
        errno.EPERM: "the firewall or conntrack of this host drops the packets:"
        f" iptables -t raw -I OUTPUT -d {address} -p tcp --dport {port} -j NOTRACK,"
        " and look for DROP rules on OUTPUT (nft list ruleset)",
        errno.EACCES: f"a route or a rule prohibits it: ip route get {address}; nft list ruleset"
        if is_socket
        else f"not allowed to send to {address}: is it a broadcast address, or does a"
        " security module forbid it?",
        errno.ENETUNREACH: f"there is no route to the target: ip route get {address}",
        errno.EHOSTUNREACH: f"the target does not answer on its network: ip route get {address};"
        f" ip neigh show {address}",
        errno.EADDRNOTAVAIL: "local ports towards the target are used up, or the address of -c is"
        " away (ip addr): give more addresses with -c, or"
        " sysctl -w net.ipv4.tcp_tw_reuse=1 net.ipv4.ip_local_port_range='10000 65535'"
        if is_socket
        else "a client address could not be used as sender: check -c",
        errno.EMSGSIZE: "packets are larger than the way to the target takes: lower -M"
        f" (ip route get {address} shows the device, ip link its mtu)",
        errno.ENOBUFS: "the kernel has no memory for more sockets: replay less (-r)"
        if is_socket
        else "the output queue of the device is full: ip link set dev DEVICE"
        " txqueuelen 10000, or replay less (-r)",
        errno.EMFILE: "too many open files for one process: ulimit -n 1048576 before the start",
        errno.ENFILE: "too many open files on this host: sysctl -w fs.file-max=2097152",
        errno.EINVAL: f"a route swallows what goes to the target: ip route get {address}"
        if is_socket
        else "the kernel refuses the packets as built; please report it with the log",
        errno.EHOSTDOWN: f"the target does not answer on its network: ip neigh show {address}",
        errno.ENETDOWN: "the output device is down: ip link set dev DEVICE up",
        errno.EIO: "the device of --local is down: start tcpcopy again, which makes a new one",
        errno.EBADFD: "the device of --local is gone: start tcpcopy again, which makes a new one",
        errno.ENODEV: "the output device is gone: ip link",
        errno.ENOMEM: "the kernel has no memory for the packets: replay less (-r)",
    }
    return mends.get(number, "see the log for the first one")


def ports_text(used: int, available: int, target: str = "the target") -> str:
    """How many local ports towards a target are in use."""
    percent = 100 * used // max(1, available)
    return f"{used:,} of {available:,} local ports towards {target} are in use ({percent} %)"


def local_ports() -> tuple[str, ...]:
    """What gives connections of socket mode more local ports."""
    return (
        "on this host: sysctl -w net.ipv4.ip_local_port_range='10000 65535' gives 55,536 to each"
        " address and target (net.ipv4.ip_local_reserved_ports leaves out those of your servers)",
        "give more addresses of this host with -c: each has ports of its own",
        "on this host: sysctl -w net.ipv4.tcp_tw_reuse=1, with net.ipv4.tcp_timestamps=1 here and"
        " on the target: a port rests for 1 s instead of 60 s (TIME_WAIT)",
    )


def errno_text(number: int) -> str:
    """`EPERM (Operation not permitted)`."""
    return f"{errno_name(number)} ({os.strerror(number)})"


def errno_name(number: int) -> str:
    """`EPERM`, or the number where it has no name."""
    return errno.errorcode.get(number, str(number))


def bigger_buffer(context: Context) -> tuple[str, ...]:
    """What helps against packets that the kernel had no room for."""
    now = context.buffer_mib
    larger = f"-B {max(64, now * 4)} (now {now})" if now else "a larger -B"
    return (f"give the capture a larger buffer: {larger}", "or replay less: -r, a narrower -F")


def cut_packets(context: Context) -> tuple[str, ...]:
    """What helps against packets that were captured in part."""
    if 0 < context.snaplen < _WHOLE_PACKETS:
        return (f"capture whole packets: -S {_WHOLE_PACKETS} (now {context.snaplen})",)
    # The kernel queues what is larger than a frame of the ring, and had no room there.
    larger, _ = bigger_buffer(context)
    return (larger, "without CAP_NET_ADMIN the sysctl net.core.rmem_max bounds it, too: raise that")


def named_encapsulations(snapshot: Snapshot) -> str:
    """`12,030 packets of GENEVE`: what was recognised and could not be read."""
    most = sorted(snapshot.not_read.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{plural(count, 'packet')} of {name}" for name, count in most)
