"""UDP in packets: whole datagrams with the mapped clients' addresses, written into a batch.

A datagram longer than the MTU becomes fragments. What the sender could not send it names by its
place in the batch (`failures`), so that the datagram is counted as not sent.
"""

from __future__ import annotations

from array import array
from typing import Any

import cython

from tcpcopy.engine.flow import DatagramCounts, DatagramOutput, Leg
from tcpcopy.engine.ports import Identities
from tcpcopy.packet.batch import PacketBatch, datagram_packets
from tcpcopy.report.flow_outcome import FlowOutcome

#: Slots that a batch needs for the longest datagram at the smallest MTU (65,535 by 544).
LEAST_CAPACITY = 128

_NO_ADDRESS = int(FlowOutcome.NO_ADDRESS)


class PacketOutput(DatagramOutput):
    """Sends through a `PacketBatch`, which nobody else uses."""

    __slots__ = (
        "_legs",  # by place in the batch, of the datagrams in it
        "_lengths",  # of their payloads; as many are in use as there are legs
        "_starts",  # the place of each one's first packet, likewise
        "batch",
        "counts",
        "failures",  # (place, errno) of packets that the sender could not send, for `flush`
        "identities",
        "mtu",
        "now_ns",  # set by the owner
        "packets",  # sent, or tried
    )

    def __init__(
        self, batch: PacketBatch, counts: DatagramCounts, identities: Identities, mtu: int
    ) -> None:
        if batch.capacity < LEAST_CAPACITY:
            raise ValueError(f"a batch of {batch.capacity} packets is too small")
        self.batch = batch
        self.counts = counts
        self.identities = identities
        self.mtu = mtu
        self.now_ns = 0
        self.packets = 0
        self.failures: list[tuple[int, int]] = []
        self._legs: list[Leg] = []
        self._starts = array("i", bytes(4 * batch.capacity))
        self._lengths = array("i", bytes(4 * batch.capacity))

    def open(self, leg: Leg, client_address: bytes, client_port: int, copy: int) -> int:
        """Give the leg the address and port that it shows to its target."""
        identity = self.identities.acquire(
            client_address=client_address,
            client_port=client_port,
            target_address=leg.target_address,
            target_port=leg.target_port,
            copy=copy,
            now_ns=self.now_ns,
        )
        if identity is None:
            return _NO_ADDRESS
        leg.address, leg.port = identity
        return 0

    def send(self, leg: Leg, data: Any, at: int, length: int) -> int:
        """Write the datagram; it leaves with `flush`, or earlier."""
        batch = self.batch
        needed = datagram_packets(len(leg.address), length, self.mtu)
        if batch.count + needed > batch.capacity:
            self.flush()
        number = len(self._legs)
        self._starts[number] = cython.cast(cython.int, batch.count)
        self._lengths[number] = cython.cast(cython.int, length)
        self._legs.append(leg)
        leg.queued += 1
        self.packets += batch.udp(
            leg.address,
            leg.port,
            leg.target_address,
            leg.target_port,
            data,
            at,
            length,
            self.mtu,
        )
        return 0

    def flush(self) -> None:
        """Send the batch and count what became of each datagram."""
        if not self._legs:
            return
        self.batch.flush()
        failed: dict[int, int] = {}
        if self.failures:
            failed = self._failed_datagrams()
        counts = self.counts
        for number in range(len(self._legs)):
            leg: Leg = self._legs[number]
            leg.queued = 0
            if failed and number in failed:
                counts.failed(leg, failed[number])
            else:
                counts.sent(leg, self._lengths[number], self.now_ns)
        self._legs.clear()

    def _failed_datagrams(self) -> dict[int, int]:
        """The datagrams with a packet that was not sent, with the errno."""
        failed: dict[int, int] = {}
        number = 0
        for place, error in self.failures:
            while number + 1 < len(self._legs) and self._starts[number + 1] <= place:
                number += 1
            failed[number] = error
        self.failures.clear()
        return failed

    def close(self, leg: Leg) -> None:
        """Give the address and port back."""
        self.identities.release(
            leg.address, leg.port, leg.target_address, leg.target_port, now_ns=self.now_ns
        )
