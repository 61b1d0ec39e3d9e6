"""Tunnels under any input: only what is sound and allowed passes, all is counted, sums close."""

from __future__ import annotations

import ipaddress
import struct

from hypothesis import given
from hypothesis import strategies as st

from tcpcopy.relay.injection import Injector
from tcpcopy.relay.native import FrameDecoder, FrameType, frame
from tcpcopy.relay.packet_queue import PacketQueue
from tests.unit.relay.test_packet_queue import unpacked
from tests.unit.relay.tunnels import (
    CLIENT,
    TARGET,
    TARGET_V6,
    FakeDevice,
    body,
    request,
    request_v6,
)

RANGES = (ipaddress.ip_network("198.18.0.0/15"), ipaddress.ip_network("fd00:7463:7063::/48"))
PORTS = {80, 8080}


def may_pass(packet: bytes) -> bool:
    """The rules, said once more in another way."""
    if packet[0] == 0x45 and len(packet) >= 28:
        source, target, tcp, protocol = packet[12:16], packet[16:20], packet[20:], packet[9]
        sound = struct.unpack("!H", packet[2:4])[0] == len(packet)
        sound = sound and struct.unpack("!H", packet[6:8])[0] & 0x3FFF == 0
    elif packet[0] >> 4 == 6 and len(packet) >= 48:
        source, target, tcp, protocol = packet[8:24], packet[24:40], packet[40:], packet[6]
        sound = struct.unpack("!H", packet[4:6])[0] == len(tcp)
    else:
        return False
    if protocol == 6:
        sound = sound and len(tcp) >= 20 and 20 <= (tcp[12] >> 4) * 4 <= len(tcp)
    else:
        sound = sound and protocol == 17 and struct.unpack("!H", tcp[4:6])[0] == len(tcp)
    client = ipaddress.ip_address(source)
    port = struct.unpack("!H", tcp[2:4])[0]
    return (
        sound
        and target in (TARGET, TARGET_V6)
        and port in PORTS
        and any(client in network for network in RANGES)
    )


@st.composite
def packets(draw: st.DrawFn) -> bytes:
    """Sound packets, and such with a few bytes changed, cut or added."""
    make = draw(st.sampled_from([request, request_v6]))
    packet = bytearray(
        make(
            payload=draw(st.binary(max_size=40)),
            options=draw(st.binary(max_size=12)),
            client_port=draw(st.sampled_from([80, 8080, 22])),
        )
    )
    for _ in range(draw(st.integers(0, 3))):
        packet[draw(st.integers(0, len(packet) - 1))] = draw(st.integers(0, 255))
    if draw(st.integers(0, 5)) == 0:
        del packet[draw(st.integers(0, len(packet))) :]
    return bytes(packet)


def injector(device: FakeDevice) -> Injector:
    made = Injector(
        device,
        sources=RANGES,
        destinations=[(address, port) for address in (TARGET, TARGET_V6) for port in PORTS],
    )
    made.set_local({TARGET, TARGET_V6})
    return made


@given(st.lists(packets(), max_size=12))
def test_what_passes_is_what_may(sent: list[bytes]) -> None:
    """Exactly those, as they are, in their order; the others counted once each."""
    sent = [packet for packet in sent if packet]
    device = FakeDevice()
    made = injector(device)
    dropped = made.inject(body(*sent))
    assert device.sent == [packet for packet in sent if may_pass(packet)]
    assert made.injected == len(device.sent)
    assert dropped == sum(made.drops) == len(sent) - made.injected


@given(st.lists(st.one_of(st.binary(max_size=200), packets().map(body)), max_size=8).map(b"".join))
def test_any_bytes_as_a_frame(data: bytes) -> None:
    """Never an exception, and never anything into the device that may not."""
    device = FakeDevice()
    made = injector(device)
    dropped = made.inject(data)
    assert all(may_pass(packet) for packet in device.sent)
    assert sum(map(len, device.sent)) <= len(data)
    assert dropped == sum(made.drops)


@given(st.data(), st.lists(st.binary(min_size=1, max_size=3000), max_size=6))
def test_frames_however_they_are_cut(data: st.DataObject, bodies: list[bytes]) -> None:
    stream = b"".join(frame(FrameType.PACKETS, part) for part in bodies)
    decoder = FrameDecoder(tunnel=True)
    found = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        found += list(decoder.feed(stream[:size]))
        stream = stream[size:]
    assert found == [(FrameType.PACKETS, part) for part in bodies] and not decoder.fault


steps = st.one_of(
    st.tuples(st.just("put"), st.integers(1, 700)),
    st.tuples(st.just("grant"), st.integers(0, 9000)),
    st.tuples(st.just("take"), st.just(0)),
)


@given(st.lists(steps, max_size=80))
def test_queue_keeps_order_credit_and_bound(script: list[tuple[str, int]]) -> None:
    queue = PacketQueue(5000)
    accepted: list[bytes] = []
    came: list[bytes] = []
    for number, (what, value) in enumerate(script):
        if what == "put":
            packet = bytes([number]) * value
            if queue.put(packet):
                accepted.append(packet)
        elif what == "grant":
            queue.grant(value)
        elif taken := queue.take():
            came += unpacked(taken)
        assert queue.offset <= max(queue.allowed, 0)
        assert queue.waiting_bytes <= 5000 + 6 * len(accepted)
        assert queue.packets == len(accepted) - len(came)
    queue.grant(1 << 40)
    while taken := queue.take():
        came += unpacked(taken)
    assert came == accepted


def test_the_rules_of_the_test_let_something_pass() -> None:
    assert may_pass(request()) and may_pass(request_v6())
    assert request()[12:16] == CLIENT
