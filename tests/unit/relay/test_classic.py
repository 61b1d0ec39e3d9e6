"""The classic relay's messages from tcpcopy to intercept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcpcopy.relay.classic import (
    MESSAGE_BYTES,
    Layout,
    MessageDecoder,
    MessageType,
    RelayFault,
    encode_message,
    encode_version,
)

CLIENT = bytes([10, 99, 0, 5])
TARGET = bytes([10, 99, 0, 3])
# Seen on the wire between the C programs: 10.99.0.5:40282 to 10.99.0.3:8080.
ADD = bytes.fromhex("0a630005 9d5a 0001 0a630003 1f90")
VERSION = bytes.fromhex("00000000 0000 0006 00000000 0000")


def test_messages_are_the_c_programs_bytes() -> None:
    assert encode_version() == VERSION
    assert encode_message(MessageType.ADD, CLIENT, 40282, TARGET, 8080) == ADD
    removed = encode_message(MessageType.REMOVE, CLIENT, 40282, TARGET, 8080)
    assert removed == ADD[:7] + b"\x02" + ADD[8:]


def test_decoder_takes_version_then_messages() -> None:
    decoder = MessageDecoder()
    assert decoder.feed(VERSION) == b""
    assert decoder.version == 6
    assert decoder.feed(ADD + ADD[:7]) == ADD
    assert decoder.feed(b"\x02" + ADD[8:]) == ADD[:7] + b"\x02" + ADD[8:]
    assert decoder.fault is RelayFault.NONE


def test_bytes_may_come_one_at_a_time() -> None:
    decoder = MessageDecoder()
    assert b"".join(decoder.feed((VERSION + ADD + ADD)[i : i + 1]) for i in range(42)) == ADD + ADD
    assert decoder.version == 6


def test_a_newer_version_is_answered_in_classic() -> None:
    """A native client falls back when its hello is not answered; its mark is no fault."""
    decoder = MessageDecoder()
    hello = VERSION[:7] + b"\x07" + b"MARK!!"
    assert decoder.feed(hello + ADD) == ADD
    assert decoder.version == 7


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"GET / HTTP/1.1\r\n", RelayFault.NOT_A_TCPCOPY),
        (ADD, RelayFault.NOT_A_TCPCOPY),
        (VERSION[:7] + b"\x05" + VERSION[8:], RelayFault.OLD_VERSION),
        (bytes(MESSAGE_BYTES), RelayFault.OLD_VERSION),
        (VERSION + VERSION, RelayFault.MESSAGE_TYPE),
        (VERSION + ADD[:7] + b"\x03" + ADD[8:], RelayFault.MESSAGE_TYPE),
        (VERSION + bytes(MESSAGE_BYTES), RelayFault.MESSAGE_TYPE),
    ],
)
def test_garbage_is_a_fault_and_nothing_follows_it(data: bytes, fault: RelayFault) -> None:
    decoder = MessageDecoder()
    assert decoder.feed(data) == b""
    assert decoder.fault is fault
    assert decoder.fault.description
    assert decoder.feed(VERSION + ADD) == b""


def test_messages_before_a_fault_count() -> None:
    decoder = MessageDecoder()
    assert decoder.feed(VERSION + ADD + b"\xff" * 14 + ADD) == ADD
    assert decoder.fault is RelayFault.MESSAGE_TYPE


@given(st.lists(st.sampled_from([b"\x00\x01", b"\x00\x02", b"\x00\x03", b"\x01\x01"]), max_size=9))
def test_everything_before_the_first_unknown_type_counts(types: list[bytes]) -> None:
    messages = [ADD[:6] + kind + ADD[8:] for kind in types]
    good = [int.from_bytes(kind, "big") in (1, 2) for kind in types]
    first = good.index(False) if False in good else len(good)
    decoder = MessageDecoder()
    assert decoder.feed(VERSION + b"".join(messages)) == b"".join(messages[:first])
    assert (decoder.fault is RelayFault.MESSAGE_TYPE) == (first < len(good))


def test_layouts_know_their_sizes() -> None:
    """DESIGN's figures: 64 or 192 bytes, at most 16 or 6 in a batch."""
    assert [
        (x.record_bytes, x.max_batch, x.is_batched) for x in Layout if x is not Layout.AUTO
    ] == [
        (64, 16, True),
        (64, 1, False),
        (192, 6, True),
    ]
