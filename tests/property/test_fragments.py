"""Whatever bytes come as fragments: no exception, bounded, every one accounted for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tcpcopy.engine.datagram import DatagramConfig, DatagramEngine
from tcpcopy.engine.flow import DatagramCounts
from tcpcopy.mapping.sampling import Sampler
from tcpcopy.packet.reassembly import Reassembler
from tcpcopy.packet.unwrap import Unwrapper
from tests.lab import capture_files, encapsulations
from tests.unit.engine.test_datagram import Recorder, Table
from tests.unit.packet.test_udp_packets import packets

pieces = st.builds(
    lambda head, offset, more, number, data: (
        bytes([0x45, 0])
        + (20 + len(data)).to_bytes(2, "big")
        + number.to_bytes(2, "big")
        + ((0x2000 if more else 0) | offset).to_bytes(2, "big")
        + bytes([64, head, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2])
        + data
    ),
    st.sampled_from([17, 17, 17, 6]),
    st.integers(0, 0x1FFF) | st.integers(0, 4),
    st.booleans(),
    st.integers(1, 3),
    st.binary(max_size=64),
)


@given(st.lists(pieces, max_size=40))
def test_every_fragment_is_accounted_for(parts: list[bytes]) -> None:
    held = Reassembler((17,))
    done = 0
    for part in parts:
        if held.add(part, 0, len(part), 0) is not None:
            done += held.joined
    held.give_up_all()
    assert done + held.incomplete + held.alone == len(parts)
    assert held.held_bytes == 0


@given(
    st.integers(0, 65507),
    st.booleans(),
    st.integers(576, 9000),
    st.randoms(use_true_random=False),
)
def test_cut_and_put_together(size: int, v6: bool, mtu: int, draw: object) -> None:
    data = bytes(index * 7 & 0xFF for index in range(size))
    parts = packets(data, v6=v6, mtu=mtu)
    draw.shuffle(parts)  # type: ignore[attr-defined]
    held = Reassembler((17,))
    found = [held.add(part, 0, len(part), 0) for part in parts] if len(parts) > 1 else parts
    wholes = [whole for whole in found if whole is not None]
    assert len(wholes) == 1 and wholes[0].endswith(data)


@given(st.lists(st.binary(max_size=120) | pieces, max_size=30))
def test_any_packet_is_counted_once(captured: list[bytes]) -> None:
    counts = DatagramCounts()
    engine = DatagramEngine(
        DatagramConfig(), Recorder(counts), counts, transfers=Table(), sampling=Sampler()
    )
    for packet in captured:
        engine.packet(packet, 0, len(packet), len(packet), 0)
    engine.close_all()
    assert counts.packets == len(captured) == sum(counts.packet_drop_counts())
    assert min(counts.packet_drop_counts()) >= 0
    assert counts.datagrams == sum(counts.datagram_drop_counts())
    assert counts.seen == sum(counts.outcome_counts())
    assert counts.live == 0


@given(
    st.integers(1, 9000),
    st.booleans(),
    st.integers(48, 2000),  # no link has smaller packets (RFC 791)
    st.sampled_from(["", "vxlan", "geneve", "erspan 2", "gre ip", "ip in ip"]),
    st.randoms(use_true_random=False),
)
def test_fragments_of_tcp_and_of_tunnels(
    size: int, v6: bool, cut: int, tunnel: str, draw: object
) -> None:
    """Whatever the order, doubled or not: the packet comes once, as it was."""
    ends = ("[2001:db8::7]:40000", "[2001:db8::1]:80") if v6 else ("10.9.0.2:40000", "10.9.0.1:80")
    packet = capture_files.tcp(*ends, 16, bytes(index * 7 & 0xFF for index in range(size)))
    outer = encapsulations.TUNNELS[tunnel][1](packet)[14:] if tunnel else packet
    parts = encapsulations.fragments(outer, cut, number=1)
    is_udp = tunnel in ("vxlan", "geneve")
    later = parts[1:] if is_udp else parts  # of UDP the first one has the port
    draw.shuffle(later)  # type: ignore[attr-defined]
    if is_udp:
        later = [parts[0], *later]
    reader = Unwrapper(True)
    found = []
    for part in later:
        reader.begin(0)
        if reader.take(part, 0, len(part), len(part), 0):
            data = reader.whole or part
            found.append(data[reader.start : reader.end])
    assert found == [packet]
