"""PROBE and REPORT: what is said comes back, and what is damaged does no harm."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcpcopy.relay.probing import (
    MOST_REPORT_BYTES,
    PROBE_BYTES,
    Flow,
    Report,
    Seen,
    encode_probe,
    encode_report,
    read_probe,
    read_report,
)

FLOW = Flow(b"\x0a\0\0\2", 8080, b"\x3e\x87\xc8\1", 40000)
FLOW_V6 = Flow(bytes(15) + b"\2", 8080, bytes(15) + b"\1", 40000)


@pytest.mark.parametrize("flow", [FLOW, FLOW_V6])
@pytest.mark.parametrize("watch", [True, False])
def test_probe_comes_back(flow: Flow, watch: bool) -> None:
    assert read_probe(encode_probe(flow, watch=watch)) == (flow, watch)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        bytes(PROBE_BYTES),
        encode_probe(FLOW, watch=True)[:-1],
        b"\5" + encode_probe(FLOW, watch=True)[1:],
        encode_probe(Flow(FLOW.target, 0, FLOW.mapped, 1), watch=True),
    ],
)
def test_no_probe(body: bytes) -> None:
    assert read_probe(body) is None


def test_report_comes_back() -> None:
    seen = Seen("syn-ack", "10.0.0.2", "62.135.200.1", "eth0", True, 3)
    report = Report("0.1", "tcp", ("eth0",), 7, 1, True, False, (seen,), (seen, seen), "why")
    assert read_report(encode_report(report)) == report


def test_report_is_bounded() -> None:
    seen = Seen("syn-ack", "s" * 50, "d" * 50, "e" * 50, True)
    report = Report(filter="x" * 100_000, seen=(seen,) * 10_000, devices=("d" * 5000,) * 5000)
    assert len(encode_report(report)) <= MOST_REPORT_BYTES


def test_report_does_not_command_the_terminal() -> None:
    body = json.dumps({"filter": "\x1b[2Jx\n"}).encode()
    assert read_report(body).filter == "?[2Jx?"


@given(st.binary(max_size=300))
def test_any_bytes_are_a_report_of_sorts(body: bytes) -> None:
    read_report(body)
    read_probe(body)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=8),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(Report.__slots__), _JSON))
def test_any_json_is_a_report_of_sorts(said: dict[str, object]) -> None:
    report = read_report(json.dumps(said).encode())
    assert isinstance(report.filter, str) and report.received >= 0
    assert read_report(encode_report(report)) == report
