"""UDP in packets whose answers come back: they find their flows by mapped client and target.

Where a device owns the mapped addresses (local mode), all that the target sends to them can be
read: datagrams, of which the lengths are counted (of DNS the rcodes, too), and the ICMP errors that
say it took none.

Source: RFC 768, RFC 792, RFC 4443 (3.1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from tcpcopy.engine.flow import DatagramCounts, Leg
from tcpcopy.engine.forged import PacketOutput
from tcpcopy.engine.ports import Identities
from tcpcopy.packet.batch import PacketBatch
from tcpcopy.packet.handler import PacketHandler

_ICMP: Final = 1
_UDP: Final = 17
_FRAGMENT_V6: Final = 44
_ICMP_V6: Final = 58
_UNREACHABLE: Final = 3  # RFC 792
_UNREACHABLE_V6: Final = 1  # RFC 4443
_HEADER_BYTES: Final = 8  # of UDP, of ICMP before the packet that it is about, of a v6 fragment
_DNS_HEADER: Final = 12  # RFC 1035 (4.1.1)
_USED, _OTHER = 0, 1


class AnsweredOutput(PacketOutput):
    """A `PacketOutput` that knows its live legs by what the target's packets carry."""

    __slots__ = (
        "legs",  # mapped address and port, target's address and port -> leg
        "by_port",  # the same without the target's address
    )

    def __init__(
        self, batch: PacketBatch, counts: DatagramCounts, identities: Identities, mtu: int
    ) -> None:
        super().__init__(batch, counts, identities, mtu)
        self.legs: dict[bytes, Leg] = {}
        self.by_port: dict[bytes, Leg] = {}

    def open(self, leg: Leg, client_address: bytes, client_port: int, copy: int) -> int:
        """As `PacketOutput.open`; answers to the leg are known from now on."""
        outcome = super().open(leg, client_address, client_port, copy)
        if outcome == 0:
            self.legs[_key_of(leg, leg.target_address)] = leg
            self.by_port.setdefault(_key_of(leg), leg)
        return outcome

    def close(self, leg: Leg) -> None:
        """As `PacketOutput.close`."""
        self.legs.pop(_key_of(leg, leg.target_address), None)
        if self.by_port.get(_key_of(leg)) is leg:
            del self.by_port[_key_of(leg)]
        super().close(leg)


class DatagramAnswers(PacketHandler):
    """Takes what the targets send to mapped clients."""

    __slots__ = ("_by_port", "_counts", "_legs", "_on_answer")

    def __init__(
        self, output: AnsweredOutput, counts: DatagramCounts, on_answer: Callable[[Leg, int], None]
    ) -> None:
        """`on_answer`: called with the leg and the payload's length of each datagram."""
        self._legs = output.legs
        self._by_port = output.by_port
        self._counts = counts
        self._on_answer = on_answer

    def packet(self, data: Any, start: int, end: int, wire_length: int, timestamp_ns: int) -> int:
        """Take one packet; 0 when it was about a live flow. Of fragments the first counts."""
        packet = bytes(data[start:end])
        found = _transport(packet)
        if found is None:
            return _OTHER
        protocol, at = found
        half = 4 if packet[0] >> 4 == 4 else 16
        addresses = packet[12:20] if half == 4 else packet[8:40]
        if protocol == _UDP:
            if len(packet) < at + _HEADER_BYTES:
                return _OTHER
            ports = packet[at : at + 4]
            mapped = addresses[half:] + ports[2:]
            leg = self._legs.get(mapped + addresses[:half] + ports[:2])
            if leg is None:
                # A server on all addresses answers from the one that the kernel thinks best.
                leg = self._by_port.get(mapped + ports[:2])
            if leg is None:
                return _OTHER
            length = int.from_bytes(packet[at + 4 : at + 6], "big") - _HEADER_BYTES
            if leg.is_dns:
                payload = at + _HEADER_BYTES
                self._counts.note_dns(leg, packet[payload : payload + _DNS_HEADER])
            self._on_answer(leg, max(0, length))
            return _USED
        if protocol in (_ICMP, _ICMP_V6):
            return self._take_error(packet, at, protocol)
        return _OTHER

    def _take_error(self, packet: bytes, at: int, protocol: int) -> int:
        """An ICMP error; what it is about begins with a header of ours."""
        wanted = _UNREACHABLE if protocol == _ICMP else _UNREACHABLE_V6
        ours = packet[at + _HEADER_BYTES :]
        if packet[at : at + 1] != bytes([wanted]):
            return _OTHER
        found = _transport(ours)
        if found is None or found[0] != _UDP:
            return _OTHER
        half = 4 if ours[0] >> 4 == 4 else 16
        addresses = ours[12:20] if half == 4 else ours[8:40]
        ports = ours[found[1] : found[1] + 4]
        leg = self._legs.get(addresses[:half] + ports[:2] + addresses[half:] + ports[2:])
        if leg is None:
            return _OTHER
        self._counts.refused(leg)
        return _USED


def _key_of(leg: Leg, target: bytes = b"") -> bytes:
    """As the target's packets have it, the other way round."""
    return leg.address + leg.port.to_bytes(2, "big") + target + leg.target_port.to_bytes(2, "big")


def _transport(packet: bytes) -> tuple[int, int] | None:
    """The protocol above IP and where its header begins; None for later fragments and junk."""
    if len(packet) >= 20 and packet[0] >> 4 == 4:
        if packet[6] & 0x1F or packet[7]:
            return None
        return packet[9], (packet[0] & 15) * 4
    if len(packet) < 40 or packet[0] >> 4 != 6:
        return None
    if packet[6] != _FRAGMENT_V6:
        return packet[6], 40
    if len(packet) < 48 or packet[42] or packet[43] & 0xF8:
        return None
    return packet[40], 48
