"""What is read from /proc about running programs."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from benchmarks.account import (
    CpuTime,
    Usage,
    device_packets,
    members,
    resident_bytes,
    stat_fields,
    status_number,
    table_drops,
    usage,
)


def test_usage_divides_the_exact_total_by_the_ticks() -> None:
    spent = Usage(900_000_000, 30, 90, 12).since(Usage(500_000_000, 20, 60, 5))
    assert spent == CpuTime(400_000.0, 100_000.0, 7)
    assert spent.system_us == 300_000.0


def test_usage_without_a_tick_knows_no_division() -> None:
    assert Usage(5_000, 7, 7).since(Usage(2_000, 7, 7)) == CpuTime(3.0, 0.0)


def test_usage_that_seems_to_fall_is_zero() -> None:
    """A process has ended in between."""
    assert Usage(1, 1, 1).since(Usage(2, 2, 2)) == CpuTime(0.0, 0.0)


def test_stat_fields_of_a_name_with_brackets_and_spaces() -> None:
    assert stat_fields("17 (a) b (c) S 1 17 16 0") == ["S", "1", "17", "16", "0"]


def test_status_number() -> None:
    text = "Name:\tVmRSS\nVmHWM:\t   900 kB\nVmRSS:\t   777 kB\n"
    assert status_number(text, "VmRSS") == 777
    assert status_number(text, "VmSwap") == 0


DEVICES = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop
    lo:     100       1    0    0    0     0          0         0      100       1    0    0
  eth0: 9999999   12345    0    0    0     0          0         0  8888888   54321    0    0
"""


def test_device_packets() -> None:
    assert device_packets(DEVICES, "eth0") == (12345, 54321)
    with pytest.raises(ValueError, match="eth1"):
        device_packets(DEVICES, "eth1")


RAW = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
   6: 00000000:0006 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 77 2 0000000000000000 40
 255: 00000000:00FF 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 78 2 0000000000000000 2
"""  # noqa: E501


def test_table_drops() -> None:
    assert table_drops(RAW) == 42
    assert table_drops(RAW.splitlines()[0]) == 0


def test_a_program_with_a_child_is_counted_whole() -> None:
    """Both burn CPU; the child as well, which is no member of the tests' own session."""
    # By CPU time: on a crowded machine it takes longer, and is no less.
    burn = "import time\nwhile time.process_time() < 0.5: pass\n"
    code = f"import subprocess, sys\nchild=subprocess.Popen([sys.executable, '-c', {burn!r}])\n"
    code += burn + "child.wait()\nprint('done', flush=True)\nsys.stdin.read()\n"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as program:
        time.sleep(0.15)
        assert len(members(program.pid)) == 2
        early = usage(program.pid)
        assert program.stdout is not None and program.stdin is not None
        program.stdout.readline()
        late = usage(program.pid)
        assert resident_bytes(program.pid) > 2_000_000
        program.stdin.close()
    assert 50_000 < late.since(early).total_us < 2_000_000
    assert usage(program.pid) == Usage(0, 0, 0)
