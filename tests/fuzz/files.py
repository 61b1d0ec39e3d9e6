"""Targets: capture files as they are replayed and inspected."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Sequence

import zstandard

from tcpcopy.errors import UsageError
from tcpcopy.recorded import inspect as report
from tcpcopy.recorded.stream import open_recorded
from tests.fuzz import packets
from tests.fuzz.target import Target
from tests.lab import capture_files as make
from tests.unit.recorded.reading import drain


def _plain() -> list[bytes]:
    """Both formats, both orders, several links; times and lengths as they should be."""
    timed = make.timed([*make.conversation(), *packets.tunnels()])
    odd = make.section(">") + make.interface(1, make.option(9, b"\xa0", ">"), ">")
    odd += make.enhanced(make.ethernet(make.conversation()[3]), 7 << 32, order=">")
    resolved = make.section() + make.interface(
        101, make.option(9, b"\x09") + make.option(14, bytes(8))
    )
    resolved += make.enhanced(make.conversation()[0], 1_700_000_000_000_000_000)
    return [
        make.pcap(timed[:5]),
        make.pcap(timed[5:], order=">", nano=True),
        make.pcap([(make.START_NS, packet) for _, packet in timed[:2]], link=101, snaplen=60),
        make.pcapng(timed[:4]),
        make.pcapng(timed[:2], order=">") + make.block(11, bytes(20)) + odd,
        resolved + make.block(3, (20).to_bytes(4, "little") + make.conversation()[0][:20]),
    ]  # fmt: skip


def _compressed() -> list[bytes]:
    """Names what is damaged: the file, before it was compressed or after."""
    first = _plain()[0]
    zst = zstandard.ZstdCompressor(write_checksum=True).compress(first)
    return [gzip.compress(first, mtime=0), zst, gzip.compress(first, mtime=0)[:80], zst[:60]]


def _read(content: bytes) -> None:
    """Read twice and inspected: the counts add up, times are times, the page can be made."""
    descriptor = os.memfd_create("capture")
    path = f"/proc/self/fd/{descriptor}"
    try:
        os.write(descriptor, content)
        stream = open_recorded([path])
        try:
            for _ in range(2):
                for time_ns, packet, wire_length in drain(stream):
                    assert time_ns >= 0
                    assert 20 <= len(packet) <= wire_length
                stream.rewind()
            findings = report.inspect(stream, [path])
            counts = stream.counts
            assert counts.packets == counts.handed_on + sum(counts.skipped.values())
            assert report.render(findings).endswith("\n")
            json.dumps(report.to_json(findings))
        finally:
            stream.close()
    except UsageError as error:
        assert "\n" not in str(error)
        raise
    finally:
        os.close(descriptor)


def _all() -> Sequence[bytes]:
    return _plain() + _compressed()


TARGETS = (
    Target(
        "capture_file",
        _read,
        _all,
        documented=(UsageError,),
        words=(make.interface(1), make.section(">"), make.block(5, bytes(12)), b"\x1f\x8b\x08"),
    ),
)
