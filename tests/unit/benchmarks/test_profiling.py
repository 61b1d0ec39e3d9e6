"""Counting what `perf script` prints."""

from __future__ import annotations

from benchmarks.profiling import Profile, chains
from benchmarks.scenarios import without_soft_us

SCRIPT = """
\tffffffff81a0 tcp_ack+0x1f ([kernel.kallsyms])
\tffffffff81a1 handle_softirqs+0xd1 ([kernel.kallsyms])
\tffffffff81a2 __x64_sys_sendmmsg+0x17 ([kernel.kallsyms])
\t    7f0000 sendmmsg+0x10 (/usr/lib/x86_64-linux-gnu/libc.so.6)

\t    7f1000 __pyx_f_7tcpcopy_step (/opt/venv/tcpcopy/engine/engine.cpython-311.so)

\tffffffff81a3 __x64_sys_recvfrom ([kernel.kallsyms])

\tffffffff81a4 exc_page_fault ([kernel.kallsyms])
\t    7f2000 [unknown] ([unknown])
"""


def test_chains_are_blocks() -> None:
    found = list(chains(SCRIPT.splitlines()))
    assert [len(chain) for chain in found] == [4, 1, 1, 2]
    assert found[0][0] == ("tcp_ack", "[kernel.kallsyms]")
    assert found[3][1] == ("[unknown]", "[unknown]")


def test_each_sample_counts_once_in_each_table() -> None:
    profile = Profile()
    for chain in chains(SCRIPT.splitlines()):
        profile.add(chain)
    assert profile.samples == 4
    assert profile.soft == 1
    assert dict(profile.ways) == {
        "sendmmsg": 1,
        "user mode": 1,
        "recvfrom": 1,
        "other kernel": 1,
    }
    assert dict(profile.objects) == {"kernel": 3, "engine.cpython-311.so": 1}
    assert profile.functions["tcp_ack [k]"] == profile.functions["__pyx_f_7tcpcopy_step"] == 1
    assert "4 samples; 25 % in soft interrupts" in profile.text()
    assert Profile().text() == "no samples"


def test_cost_without_soft_interrupts() -> None:
    run = {"tcpcopy_us": 10.0, "intercept_us": 4.0}
    half, none = Profile(samples=4, soft=2), Profile(samples=5)
    assert without_soft_us(run, {"tcpcopy": half, "intercept": none}) == 9.0
    assert without_soft_us(run, {"tcpcopy": half, "intercept": Profile()}) is None
    assert without_soft_us(run, {}) is None
