"""UDP load, a UDP server that keeps a record of every datagram, and two records compared.

python -m tests.lab.datagrams serve --port 8080 --records FILE      until SIGTERM: writes FILE
python -m tests.lab.datagrams send 10.66.0.2 8080 --flows 100 --datagrams 2000

A record is JSON: the peer as "address port" -> its datagrams in order of arrival, each as
[length, digest of the payload, time of arrival in ns].
"""

from __future__ import annotations

import argparse
import hashlib
import ipaddress
import json
import random
import select
import signal
import socket
import time
from collections import Counter
from pathlib import Path
from types import FrameType

_BUFFER_BYTES = 64 << 20
_SO_RCVBUFFORCE = 33
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _DONT = 10, 23, 0

Record = dict[str, list[tuple[int, str, int]]]
Sequence_ = tuple[tuple[int, str], ...]


def serve(port: int, records: Path, answer: int) -> None:
    """Take datagrams until SIGTERM, answer each with `answer` bytes (-1: not at all)."""
    server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    server.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    server.bind(("::", port))
    server.settimeout(0.05)
    ended = False

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal ended
        ended = True

    signal.signal(signal.SIGTERM, end)
    print("ready", flush=True)
    seen: dict[tuple[str, int], list[tuple[int, str, int]]] = {}
    reply = b"a" * max(0, answer)
    while not ended:
        try:
            data, peer = server.recvfrom(65536)
        except TimeoutError:
            continue
        digest = hashlib.blake2b(data, digest_size=8).hexdigest()
        seen.setdefault(peer[:2], []).append((len(data), digest, time.time_ns()))
        if answer >= 0:
            try:
                server.sendto(reply, peer)
            except OSError:
                pass  # an ICMP error of an earlier answer
    named = {f"{host.removeprefix('::ffff:')} {number}": d for (host, number), d in seen.items()}
    records.write_text(json.dumps(named))


def load(records: Path) -> Record:
    """What a server has recorded."""
    return {
        peer: [(length, digest, when) for length, digest, when in datagrams]
        for peer, datagrams in json.loads(records.read_text()).items()
    }


def sequences(record: Record) -> Counter[Sequence_]:
    """Every flow as the lengths and digests of its datagrams in order, with how often it stands."""
    return Counter(tuple((size, digest) for size, digest, _ in d) for d in record.values())


def differences(online: Record, target: Record, copies: int = 1) -> str:
    """What the target got otherwise than online, flow by flow; "" when it is the same exactly."""
    wanted = Counter({flow: count * copies for flow, count in sequences(online).items()})
    got = sequences(target)
    missing, extra = wanted - got, got - wanted
    if not missing and not extra:
        return ""
    first = next(iter(extra), ())
    return (
        f"{missing.total()} of {wanted.total()} flows not as sent, {extra.total()} not as wanted;"
        f" datagrams online {sum(map(len, online.values()))} (times {copies}),"
        f" target {sum(map(len, target.values()))}; first that is extra: {first[:3]}"
    )


def _sources(text: str) -> list[str]:
    """`10.66.1.1-10.66.1.5`, or one address, or "" for the host's own."""
    if not text:
        return [""]
    first, _, last = text.partition("-")
    low, high = ipaddress.ip_address(first), ipaddress.ip_address(last or first)
    return [str(low + step) for step in range(int(high) - int(low) + 1)]


def _open_flows(options: argparse.Namespace) -> list[socket.socket]:
    sources = _sources(options.source)
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    flows = []
    for index in range(options.flows):
        flow = socket.socket(family, socket.SOCK_DGRAM)
        if family == socket.AF_INET:
            flow.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _DONT)
        else:
            flow.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _DONT)
        if options.first_port:
            port = options.first_port + index // len(sources)
        else:
            port = 0
        flow.bind((sources[index % len(sources)], port))
        flow.connect((options.host, options.port))
        flow.setblocking(False)
        flows.append(flow)
    return flows


def send(options: argparse.Namespace) -> None:
    """Send, and print how many datagrams went and how many answers came."""
    draw = random.Random(options.seed)
    flows = _open_flows(options)
    poll = select.epoll()
    for flow in flows:
        poll.register(flow.fileno(), select.EPOLLIN)
    by_fd = {flow.fileno(): flow for flow in flows}
    sizes = [int(size) for size in options.sizes.split(",")]
    answers = 0

    def take(timeout: float) -> int:
        count = 0
        for fd, _ in poll.poll(timeout):
            try:
                by_fd[fd].recv(65536)
                count += 1
            except OSError:
                pass
        return count

    began = time.monotonic()
    for number in range(options.datagrams):
        # Each flow once first, so that none stays without a datagram.
        flow = flows[number] if number < len(flows) else draw.choice(flows)
        data = draw.randbytes(sizes[number % len(sizes)])
        while True:
            try:
                flow.send(data)
                break
            except BlockingIOError:
                select.select([], [flow], [], 1)
            except ConnectionRefusedError:
                continue  # an ICMP error of an earlier one: nothing was sent
        answers += take(0)
        wait = began + (number + 1) / options.rate - time.monotonic()
        if wait > 0:
            time.sleep(wait)
    until = time.monotonic() + options.linger
    while time.monotonic() < until and answers < options.datagrams:
        answers += take(0.05)
    print(json.dumps({"sent": options.datagrams, "answers": answers}), flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="datagrams")
    commands = parser.add_subparsers(dest="command", required=True)
    server = commands.add_parser("serve")
    server.add_argument("--port", type=int, required=True)
    server.add_argument("--records", type=Path, required=True)
    server.add_argument("--answer", type=int, default=32)
    client = commands.add_parser("send")
    client.add_argument("host")
    client.add_argument("port", type=int)
    client.add_argument("--flows", type=int, default=10)
    client.add_argument("--datagrams", type=int, default=100)
    client.add_argument("--sizes", default="100,20,700,1200")
    client.add_argument("--rate", type=float, default=5000)
    client.add_argument("--source", default="")
    client.add_argument("--first-port", type=int, default=0)
    client.add_argument("--seed", type=int, default=1)
    client.add_argument("--linger", type=float, default=0.3)
    return parser


def main() -> None:
    options = _parser().parse_args()
    if options.command == "serve":
        serve(options.port, options.records, options.answer)
    else:
        send(options)


if __name__ == "__main__":
    main()
