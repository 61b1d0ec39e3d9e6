"""Targets: what the kernel and other programs say, and what stands on the command line."""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Callable, Sequence
from unittest import mock

from tcpcopy import intercept_cli, options
from tcpcopy.arguments import Option
from tcpcopy.capture import rtnetlink
from tcpcopy.capture.filters import compile_filter
from tcpcopy.deliver import tunnet
from tcpcopy.doctor import firewall
from tcpcopy.doctor.iptables import read_save
from tcpcopy.doctor.nftables import read_ruleset
from tcpcopy.errors import UsageError
from tcpcopy.mapping import addresses
from tcpcopy.mapping.clients import parse_clients, parse_localhost_replacement
from tcpcopy.mapping.transfers import TransferTable, parse_transfers
from tcpcopy.namespaces import Namespace
from tests.fuzz.target import Target

# --- netlink ------------------------------------------------------------------------------------

_MESSAGE = struct.Struct("=IHHII")
_DONE = _MESSAGE.pack(20, 3, 0, 1, 0) + bytes(4)
_ADDRESS = bytes([10, 0, 0, 1])


class _Kernel:
    """A netlink socket that answers with what it was given, then says that this was all."""

    def __init__(self, said: bytes) -> None:
        self._said = [said, _DONE]

    def __enter__(self) -> _Kernel:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def bind(self, _: object) -> None:
        pass

    settimeout = send = bind

    def recv(self, _: int) -> bytes:
        return self._said.pop(0) if self._said else _DONE


_ASKED: tuple[Callable[[], object], ...] = (
    rtnetlink.links,
    lambda: rtnetlink.link_named("eth0"),
    rtnetlink.local_addresses,
    rtnetlink.interface_addresses,
    rtnetlink.neighbours,
    lambda: rtnetlink.route(_ADDRESS),
    lambda: rtnetlink.delivers_locally(_ADDRESS),
    lambda: rtnetlink.next_hop(_ADDRESS, 1),
    lambda: rtnetlink.neighbour(_ADDRESS, 1),
    lambda: list(tunnet.routes()),
    lambda: tunnet.dropped_by(1),
    lambda: tunnet.device_towards(_ADDRESS),
    tunnet.remove_leftovers,
)


def _netlink(data: bytes) -> None:
    """The first byte is the question, the rest the kernel's answer to it."""
    question = _ASKED[data[0] % len(_ASKED)] if data else _ASKED[0]
    with mock.patch.object(socket, "socket", lambda *_: _Kernel(data[1:])):
        question()


def _netlink_answers() -> list[bytes]:
    def message(kind: int, body: bytes) -> bytes:
        return _MESSAGE.pack(16 + len(body), kind, 0, 1, 0) + body

    def attribute(kind: int, value: bytes) -> bytes:
        return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)

    index = struct.pack("=i", 2)
    link = struct.pack("=BxHiII", 0, 1, 2, 1, 0)
    link += attribute(3, b"eth0\0") + attribute(1, bytes(6)) + attribute(4, struct.pack("=I", 1500))
    address = (
        struct.pack("=BBBBi", 2, 24, 0, 0, 2) + attribute(1, _ADDRESS) + attribute(2, _ADDRESS)
    )
    route = struct.pack("=BBBBBBBBI", 2, 32, 0, 0, 254, 4, 0, 1, 0)
    route += attribute(1, _ADDRESS) + attribute(5, _ADDRESS) + attribute(4, index)
    neighbour = struct.pack("=BxxxiHBB", 2, 2, 2, 0, 0) + attribute(1, _ADDRESS)
    neighbour += attribute(2, bytes(6))
    answers = (message(16, link), message(20, address), message(24, route), message(28, neighbour))
    error = _MESSAGE.pack(36, 2, 0, 1, 0) + struct.pack("=i", -101) + bytes(16)
    return [
        bytes([place]) + said + _DONE
        for place in range(len(_ASKED))
        for said in (*answers, answers[0] * 2, error)
    ]  # fmt: skip


# --- firewalls ----------------------------------------------------------------------------------

_PACKET: dict[str, object] = {
    firewall.PROTOCOL: "tcp",
    firewall.SOURCE_PORT: 40000,
    firewall.DESTINATION_PORT: 8080,
    firewall.DEVICE_OUT: "eth0",
}


def _walk(found: firewall.Firewall) -> None:
    for hook in (firewall.OUTPUT, firewall.INPUT, firewall.FORWARD):
        firewall.hits(found, hook, _PACKET)


def _nftables(data: bytes) -> None:
    try:
        said = json.loads(data)
    except (ValueError, RecursionError):
        return
    found, _ = read_ruleset(said)
    _walk(found)


def _rulesets() -> list[bytes]:
    match = {
        "match": {
            "op": "==",
            "left": {"payload": {"protocol": "tcp", "field": "dport"}},
            "right": {"set": [22, {"range": [80, 90]}]},
        }
    }
    source = {
        "match": {
            "op": "!=",
            "left": {"payload": {"protocol": "ip", "field": "saddr"}},
            "right": {"prefix": {"addr": "10.0.0.0", "len": 8}},
        }
    }
    vmap = {
        "vmap": {
            "key": {"ct": {"key": "state"}},
            "data": {
                "set": [
                    ["established", {"accept": None}],
                    ["invalid", {"jump": {"target": "next"}}],
                ]
            },
        }
    }
    chain = {
        "family": "inet",
        "table": "t",
        "name": "c",
        "hook": "output",
        "prio": 0,
        "policy": "drop",
        "type": "filter",
    }
    rules = [
        {"rule": {"family": "inet", "table": "t", "chain": "c", "handle": n, "expr": expression}}
        for n, expression in enumerate(
            [[match, {"accept": None}], [source, vmap], [{"drop": None}]]
        )
    ]
    named = {"set": {"family": "inet", "table": "t", "name": "s", "elem": ["10.0.0.1"]}}
    other = {"chain": {"family": "inet", "table": "t", "name": "next"}}
    deep: object = 80
    for _ in range(480):
        deep = [deep]
    rules.append(
        {
            "rule": {
                "family": "inet",
                "table": "t",
                "chain": "c",
                "expr": [{"match": {"op": "==", "left": match["match"]["left"], "right": deep}}],
            }
        }
    )
    return [
        json.dumps({"nftables": [{"chain": chain}, other, named, *some]}).encode()
        for some in (rules, rules[:1], rules[-1:])
    ]  # fmt: skip


def _iptables(data: bytes) -> None:
    _walk(read_save(data.decode("utf-8", "replace"), "ip"))


_SAVED = b"""*filter
:INPUT ACCEPT [0:0]
:OUTPUT DROP [12:800]
:mine - [0:0]
-A OUTPUT -s 10.0.0.0/8 ! -o lo -p tcp -m tcp --dport 80:90 -m comment --comment "a \\"b\\"" -j mine
-A OUTPUT -m multiport --sports 22,8080:9000 -m conntrack --ctstate NEW,RELATED -j REJECT
-A mine -m owner --uid-owner 0 -g mine
COMMIT
"""


# --- the command line ---------------------------------------------------------------------------


def _resolve(name: str) -> bytes:
    if name.startswith("host"):
        return bytes([10, 9, 0, 3])
    return addresses.parse_address(name)


def _no_namespace(option: str, value: str) -> Namespace:
    raise UsageError(option, value, "no such namespace", "name another")


def _words(data: bytes) -> list[str]:
    return [os.fsdecode(word) for word in data.split(b"\0")]


def _tcpcopy_options(data: bytes) -> None:
    """Words between zero bytes, as the kernel hands them over."""
    options.parse(
        _words(data), resolve=_resolve, devices=lambda: ["eth0"], open_namespace=_no_namespace
    )


def _intercept_options(data: bytes) -> None:
    intercept_cli.parse(_words(data))


def _lines(*commands: str) -> Callable[[], Sequence[bytes]]:
    return lambda: [command.replace(" ", "\0").encode() for command in commands]


_TCPCOPY = _lines(
    "-x 80-10.0.0.2:8080 -s host3:36525,10.0.0.4 -c 62.135.200.x,10.7.0.0/24 -n 3 -f 2 -t 100",
    "-x 10.0.0.1:80@02:00:00:00:00:01-[2001:db8::2]:80@02-00-00-00-00-02,81-host:81 -r 20 -g -O",
    "-i traffic.pcap -x 80-127.0.0.1:80 -a 2.5 --fast --rate 200sessions -T 3 -I 100",
    "--udp -x 53-10.0.0.2:53 --transport both --flow-timeout 10 -H 10.0.0.9 -M 1400 -D 1300",
    "-x 80-10.0.0.2:80 --local 10.7.0.0/16 --local-device tc0 -m 100 -W -L -C 3 -p 1 -R 20 -k 9",
    "--help -x",
)
_INTERCEPT = _lines(
    "-i eth0,lo -F tcp -n 8 -p 36524 -b 10.0.0.1 --allow 10.0.0.0/8,::1 -D 1.2.3.4-5.6.7.8",
    "--tun --tun-clients 198.18.0.0/15 --tun-allow 10.0.0.1:80 --max-peers 3 --max-sessions 9 -c",
)  # fmt: skip


def _option_words(table: Sequence[Option]) -> tuple[bytes, ...]:
    return tuple(b"\0" + name.encode() + b"\0" for option in table for name in option.names)


def _parsed(data: bytes) -> None:
    """-x, -c, -H and what they have in common: each says what is wrong, in its own way."""
    text = data.decode("utf-8", "surrogateescape")
    for parse in (
        addresses.parse_address,
        addresses.parse_port,
        addresses.parse_mac,
        addresses.split_host_port,
    ):
        try:
            parse(text)
        except ValueError as error:
            assert "\n" not in str(error) or "\n" in text
    for read in (
        lambda: TransferTable(parse_transfers(text, resolve=_resolve)).targets(),
        lambda: list(zip(range(10), parse_clients(text), strict=False)),
        lambda: parse_localhost_replacement(text),
    ):
        try:
            read()
        except UsageError:
            pass


def _filter(data: bytes) -> None:
    """-F: what libpcap takes or refuses. Short, because its optimizer may take minutes."""
    compile_filter(data.decode("utf-8", "replace"))


TARGETS = (
    Target("netlink", _netlink, _netlink_answers, documented=(OSError,)),
    Target("nftables", _nftables, _rulesets, most_bytes=4096, words=(
        b"[[[[[[", b'{"set":[', b'"range":[', b'"prefix":{', b"null", b'"vmap":',
    )),
    Target("iptables", _iptables, lambda: [_SAVED], words=(
        b"-A OUTPUT ", b" ! ", b" -j ", b":", b"\n", b'"', "\u00b2".encode(), b" --dport ", b",",
    )),
    Target("tcpcopy_options", _tcpcopy_options, _TCPCOPY, documented=(UsageError,),
           words=_option_words(options.OPTIONS)),
    Target("intercept_options", _intercept_options, _INTERCEPT, documented=(UsageError,),
           words=_option_words(intercept_cli.OPTIONS)),
    Target("addresses", _parsed, lambda: [
        b"80-10.0.0.2:8080", b"10.0.0.1:80@02:00:00:00:00:01-[2001:db8::2]:80,81-host:81",
        b"62.135.200.x", b"10.7.0.0/24,2001:db8::/64", b"[::1]:80", b"02-00-00-00-00-01",
    ], words=(b"-", b":", b"[", b"]", b"/", b"%", b"@", b",", b".x", "\u0661".encode(), b"0" * 40)),
    Target("filter", _filter, lambda: [
        b"tcp and dst port 80", b"net 10.0.0.0/8 or (ip6 and not vlan 3)", b"tcp[13] & 2 != 0",
    ], documented=(UsageError,), most_bytes=100, words=(
        b" and ", b" or ", b" not ", b"(", b")", b"port ", b"portrange ", b"ip6 protochain 6",
        b"ether[", b"]", b"len > ", b"vlan", b"mpls", b"pppoes",
    )),
)  # fmt: skip
