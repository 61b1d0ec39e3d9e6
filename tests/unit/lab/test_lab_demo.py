"""What the demonstration counts: access logs, matching of sessions, latencies, names of hosts."""

from __future__ import annotations

import os
import signal
import struct
import time
from pathlib import Path

import pytest

from tcpcopy.demo import main as demo
from tcpcopy.demo import netns, traffic
from tcpcopy.demo.processes import Interrupted, Interrupts, LabError, Program, end_all
from tcpcopy.demo.tap import Latencies


def test_log_lines_become_sessions() -> None:
    """By connection, in the order of requests, whatever the order of lines."""
    log = "7 1 90 GET /a HTTP/1.1\n9 1 80 GET /x y HTTP/1.1\n7 3 92 GET /c\n7 2 91 GET /b\n"
    assert sorted(traffic.parse_log(log)) == [
        ("80 GET /x y HTTP/1.1",),
        ("90 GET /a HTTP/1.1", "91 GET /b", "92 GET /c"),
    ]


def test_sessions_match_only_when_all_requests_do() -> None:
    online = [("a", "b"), ("c",), ("c",)]
    assert traffic.match(online, [("c",), ("a", "b"), ("c",)]) == (3, 0, 0)
    assert traffic.match(online, [("c",), ("a",), ("b",)]) == (1, 2, 2)
    assert traffic.match(online, []) == (0, 3, 0)


def _packet(source: tuple[str, int], destination: tuple[str, int], payload: int) -> bytes:
    addresses = b"".join(bytes(map(int, end[0].split("."))) for end in (source, destination))
    header = struct.pack(">BBHHHBBH", 0x45, 0, 40 + payload, 0, 0, 64, 6, 0) + addresses
    return header + struct.pack(">HHIIBBHHH", source[1], destination[1], 0, 0, 0x50, 16, 0, 0, 0)


def test_latency_is_from_request_to_first_byte_of_answer() -> None:
    server, client = ("10.0.0.2", 80), ("10.0.0.9", 4000)
    taken = Latencies(server[0], server[1])
    taken.packet(_packet(client, server, 0), 0)  # handshake
    taken.packet(_packet(client, server, 100), 1_000_000)
    taken.packet(_packet(client, server, 50), 1_500_000)  # the rest of the request
    taken.packet(_packet(server, client, 0), 1_600_000)  # acknowledgement
    taken.packet(_packet(server, client, 1400), 3_000_000)
    taken.packet(_packet(server, client, 1400), 9_000_000)
    # A replayed request on its way to another server, with the client's address.
    taken.packet(_packet(client, ("10.0.0.3", 80), 100), 10_000_000)
    taken.packet(_packet(client, server, 100), 20_000_000)
    taken.packet(_packet(server, client, 10), 21_000_000)
    assert taken.values_ns == [2_000_000, 1_000_000]
    assert taken.summary() == {"count": 2, "p50_ms": 1.0, "p99_ms": 1.0}


def test_latency_of_nothing_is_nothing() -> None:
    assert Latencies("10.0.0.2", 80).summary() == {"count": 0, "p50_ms": None, "p99_ms": None}


def _result(**changes: int) -> demo.Result:
    latency: dict[str, float | None] = {"p50_ms": 0.5, "p99_ms": None}
    counts = {"exact": 3, "lost": 0, "extra": 0, "exit_code": 0} | changes
    return demo.Result(
        mode="socket",
        online_requests=12345,
        target_requests=12345,
        online_sessions=3,
        target_sessions=3,
        online_latency=latency,
        target_latency=latency,
        **counts,
    )


def test_result_is_complete_only_without_any_difference() -> None:
    assert _result().complete
    for change in ({"exact": 0}, {"lost": 1}, {"extra": 1}, {"exit_code": 1}):
        assert not _result(**change).complete


def test_table_has_the_figures() -> None:
    table = _result(extra=2).table()
    assert "requests" in table
    assert table.count("12,345") == 2
    assert "sessions not from online" in table
    assert table.count("0.500 ms") == 2


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("--seconds 99", "--seconds 99: out of range; give 2 to 60"),
        ("--seconds x", "--seconds: invalid int value: 'x'; see tcpcopy demo --help"),
        ("--clients -3", "--clients -3: out of range; give 1 to 500"),
        ("--mode tunnel", "--mode: invalid choice: 'tunnel'"),
        ("--nonsense", "unrecognized arguments"),
    ],
)
def test_bad_usage_is_one_line(
    arguments: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert demo.main(arguments.split()) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("tcpcopy demo: ")
    assert line in errors
    assert errors.count("\n") == 1


def test_without_root_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert demo.main([]) == 2
    assert capsys.readouterr().err == (
        "tcpcopy demo: needs root to make network namespaces; run it with sudo\n"
    )


def test_leftovers_are_told_by_pid_and_start_time() -> None:
    """A pid that another process has now does not make it the owner."""
    mine = netns.Lab().name
    assert not netns._owner_is_gone(f"{mine}-online")
    prefix, pid, started, number = mine.rsplit("-", 3)
    assert netns._owner_is_gone(f"{prefix}-{pid}-{int(started) + 1}-{number}-online")
    assert netns._owner_is_gone(f"{prefix}-4194305-{started}-{number}")
    assert not netns._owner_is_gone("somebody-1-2-3-online")
    assert not netns._owner_is_gone("tcpcopy-lab-x-2-3")


def test_interrupt_is_raised_once_and_only_where_asked() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interrupts().installed() as interrupts:
        interrupts.sleep(0)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted, match="SIGINT"):
            interrupts.sleep(10)
        interrupts.check()  # the clean-up may use the same calls
    assert signal.getsignal(signal.SIGINT) is before


def test_program_errors_name_it_and_show_its_words(tmp_path: Path) -> None:
    program = Program(
        ["sh", "-c", "echo one; echo two; exit 4"], name="talker", log_path=tmp_path / "log"
    )
    assert program.wait_for("o.e") == "one"
    with pytest.raises(LabError, match=r"^talker: ended with 4 before 'three'\none\ntwo$"):
        program.wait_for("three", 5)
    with pytest.raises(LabError, match="cannot start"):
        Program(["/no/such/program"], name="none", log_path=tmp_path / "log2")


def test_program_with_children_ends_whole(tmp_path: Path) -> None:
    """Also one that ignores SIGTERM, and what it has started."""
    script = "trap '' TERM; sleep 600 & echo $!; wait"
    program = Program(["sh", "-c", script], name="stubborn", log_path=tmp_path / "log")
    child = int(program.wait_for(r"^\d+$"))
    end_all([program], grace=0.1)
    assert not program.alive
    for _ in range(500):
        if not _runs(child):
            return
        time.sleep(0.01)
    pytest.fail("the child still runs")


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
