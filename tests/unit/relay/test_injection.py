"""What intercept puts into its device, and what it does not: each for its reason."""

from __future__ import annotations

import errno
import ipaddress

import pytest

from tcpcopy.relay.injection import Injector
from tcpcopy.relay.native import PacketDrop
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
LOOPBACK = bytes([127, 0, 0, 1])


def injector(device: FakeDevice, **options: object) -> Injector:
    made = Injector(device, **{"sources": RANGES, **options})  # type: ignore[arg-type]
    made.set_local({TARGET, TARGET_V6, LOOPBACK})
    return made


def changed(packet: bytes, at: int, value: int) -> bytes:
    return packet[:at] + bytes([value]) + packet[at + 1 :]


def datagram(payload: bytes) -> bytes:
    packet = bytearray(request(payload=payload)[:28] + payload)
    packet[2:4] = len(packet).to_bytes(2, "big")
    packet[9] = 17
    packet[24:26] = (8 + len(payload)).to_bytes(2, "big")
    return bytes(packet)


@pytest.mark.parametrize("payload", [b"", b"a question"])
def test_datagrams_pass_whole(payload: bytes) -> None:
    device = FakeDevice()
    made = injector(device)
    packet = datagram(payload)
    assert made.inject(body(packet, changed(packet, 25, packet[25] + 1))) == 1
    assert device.sent == [packet] and made.drops[PacketDrop.BAD_HEADER] == 1


def test_sound_packets_reach_the_device_as_they_are() -> None:
    device = FakeDevice()
    made = injector(device)
    packets = [request(payload=b"abc"), request_v6(), request(options=b"\x01" * 12)]
    assert made.inject(body(*packets)) == 0
    assert device.sent == packets
    assert made.injected == 3 and not any(made.drops)


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (request()[:27], PacketDrop.BROKEN),
        (request_v6()[:47], PacketDrop.BROKEN),
        (request()[:39], PacketDrop.BAD_HEADER),
        (changed(request()[:39], 3, 39), PacketDrop.BAD_HEADER),
        (changed(request_v6()[:59], 5, 19), PacketDrop.BAD_HEADER),
        (changed(request(), 0, 0x55), PacketDrop.NOT_IP),
        (request() + b"x", PacketDrop.BAD_HEADER),
        (request(payload=b"xyz")[:-1], PacketDrop.BAD_HEADER),
        (request_v6() + b"x", PacketDrop.BAD_HEADER),
        (changed(request(), 0, 0x44), PacketDrop.BAD_HEADER),
        (changed(request(), 32, 0x40), PacketDrop.BAD_HEADER),
        (changed(request(), 32, 0x60), PacketDrop.BAD_HEADER),
        (request(network_options=b"\x83\x03\x04"), PacketDrop.OPTIONS),
        (changed(request_v6(), 6, 0), PacketDrop.OPTIONS),
        (changed(request_v6(), 6, 43), PacketDrop.OPTIONS),
        (changed(request(), 6, 0x20), PacketDrop.FRAGMENT),
        (changed(request(), 7, 1), PacketDrop.FRAGMENT),
        (changed(request_v6(), 6, 44), PacketDrop.FRAGMENT),
        (changed(request(), 9, 17), PacketDrop.BAD_HEADER),
        (changed(request(), 9, 1), PacketDrop.NOT_TCP),
        (changed(request_v6(), 6, 58), PacketDrop.NOT_TCP),
        (request(source=bytes([10, 0, 0, 8])), PacketDrop.SOURCE),
        (request(source=TARGET), PacketDrop.SOURCE),
        (request_v6(source=bytes(15) + b"\x01"), PacketDrop.SOURCE),
        (request(target=bytes([10, 0, 0, 4])), PacketDrop.DESTINATION),
        (request(target=LOOPBACK), PacketDrop.DESTINATION),
        (request_v6(target=bytes(15) + b"\x01"), PacketDrop.DESTINATION),
    ],
)
def test_others_are_dropped_for_their_reason(packet: bytes, reason: PacketDrop) -> None:
    """One bad packet between two good ones: these pass."""
    device = FakeDevice()
    made = injector(device)
    good = request()
    assert made.inject(body(good, packet, good)) == 1
    assert device.sent == [good, good]
    assert made.drops[reason] == sum(made.drops) == 1
    assert made.reason == reason


@pytest.mark.parametrize(
    "tail", [b"\x00", b"\x00\x00", b"\x00\x29" + request()[:40], b"\xff\xff" + request()]
)
def test_frame_that_ends_in_the_middle(tail: bytes) -> None:
    device = FakeDevice()
    made = injector(device)
    assert made.inject(body(request()) + tail) == 1
    assert len(device.sent) == 1 and made.drops[PacketDrop.BROKEN] == 1


def test_given_destinations_are_the_only_ones() -> None:
    """A port, or all of an address; also one that this host does not have yet, and loopback."""
    device = FakeDevice()
    other = bytes([10, 0, 0, 9])
    made = injector(
        device, destinations=[(TARGET, 80), (TARGET, 81), (other, 0), (other, 5), (LOOPBACK, 80)]
    )
    may = [
        request(client_port=80),
        request(client_port=81),
        request(target=other, client_port=999),
        request(target=LOOPBACK, client_port=80),
    ]
    may_not = [request(), request(target=LOOPBACK), request_v6()]
    assert made.inject(body(*may, *may_not)) == 3
    assert device.sent == may and made.drops[PacketDrop.DESTINATION] == 3
    made.set_local({bytes([10, 0, 0, 77])})
    assert made.inject(body(request(target=bytes([10, 0, 0, 77])))) == 1


def test_any_client_but_those_that_none_is() -> None:
    """-c keep: real clients, but neither this host, nor loopback, nor a group."""
    device = FakeDevice()
    made = injector(device, sources=())
    may = [request(source=bytes([8, 8, 8, 8])), request(), request_v6()]
    impossible = [TARGET, LOOPBACK, bytes(4), bytes([224, 0, 0, 1]), b"\xff\xff\xff\xff"]
    assert made.inject(body(*may, *(request(source=address) for address in impossible))) == 5
    assert device.sent == may and made.drops[PacketDrop.SOURCE] == 5


def test_addresses_that_come_and_go() -> None:
    """What is known of a client is thought over when this host's addresses change."""
    device = FakeDevice()
    made = injector(device)
    assert made.inject(body(request())) == 0
    made.set_local({CLIENT, bytes([10, 0, 0, 4])})
    assert made.inject(body(request())) == 1  # the target's address is gone
    assert made.inject(body(request(target=bytes([10, 0, 0, 4])))) == 1
    assert made.reason == PacketDrop.SOURCE  # it is this host's own now


def test_device_that_does_not_take_it() -> None:
    device = FakeDevice()
    device.answer = errno.EIO
    made = injector(device)
    assert made.inject(body(request(), request())) == 2
    assert made.drops[PacketDrop.DEVICE] == 2 and made.injected == 0
