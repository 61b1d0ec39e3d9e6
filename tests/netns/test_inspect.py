"""`tcpcopy inspect` on what tcpdump records, and on what Wireshark's tools make of that."""

from __future__ import annotations

import gzip
import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tcpcopy.demo.processes import Program
from tests.lab.scenario import Scenario, environment, python

CONNECTIONS = 40
LOAD = f"--connections {CONNECTIONS} --requests 10"
FILTER = "tcp port 8080"
TCPDUMP = ["tcpdump", "-Z", "root", "-B", "32768", "-U", "-n", "-i"]


def inspect(*paths: Path) -> dict[str, Any]:
    """Of a process of its own, as JSON."""
    done = subprocess.run(
        python("tcpcopy", "inspect", "--json", *paths),
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def tool(*argv: str | Path) -> str:
    """Run one of Wireshark's tools."""
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def packets_in(path: Path) -> int:
    """As capinfos counts them."""
    return int(tool("capinfos", "-T", "-r", "-c", path).split("\t")[-1])


def start_dump(scenario: Scenario, *arguments: object, device: str = "eth0") -> Program:
    """tcpdump on online, running as root for its files."""
    command = [*TCPDUMP, device, *map(str, arguments), FILTER]
    program = scenario.lab.online.start(command, name="tcpdump", env=scenario.environment)
    program.wait_for("listening on")
    return program


def settle(folder: Path) -> None:
    """Wait until nothing more is written there.

    What is in the kernel's buffer when tcpdump is ended is lost; it is handed on once a second.
    """
    sizes = [-1]
    while sizes[-1] != (size := sum(path.stat().st_size for path in folder.glob("*.pcap*"))):
        sizes.append(size)
        time.sleep(1.5)


def recorded(scenario: Scenario, path: Path, *arguments: object, device: str = "eth0") -> Path:
    """The load of CONNECTIONS whole sessions in one file."""
    dump = start_dump(scenario, "-w", path, *arguments, device=device)
    scenario.load(LOAD)
    settle(path.parent)
    dump.stop()
    return path


def check_whole(scenario: Scenario, found: dict[str, Any]) -> None:
    """All sessions of the load are there from begin to end."""
    sessions = found["sessions"]
    assert (sessions["total"], sessions["whole"]) == (CONNECTIONS, CONNECTIONS), found
    (server,) = found["tcp_servers"]
    assert server["endpoint"] == f"{scenario.lab.online.v4}:8080"
    assert server["by_syn"]
    assert found["warnings"] == []
    assert found["commands"][0].endswith(" -x 8080-127.0.0.1:8080")


@pytest.mark.parametrize(
    ("arguments", "device", "link"),
    [
        ("", "eth0", "Ethernet"),
        ("--time-stamp-precision=nano", "eth0", "Ethernet"),
        ("-y LINUX_SLL", "any", "Linux cooked v1"),
        ("-y LINUX_SLL2", "any", "Linux cooked v2"),
    ],
)
def test_recorded_by_tcpdump(
    scenario: Scenario, tmp_path: Path, arguments: str, device: str, link: str
) -> None:
    scenario.servers()
    path = recorded(scenario, tmp_path / "a.pcap", *arguments.split(), device=device)
    found = inspect(path)
    check_whole(scenario, found)
    assert found["packets"]["link_types"] == {link: packets_in(path)}
    assert found["packets"]["tcp"] == packets_in(path)


def test_rotated_by_tcpdump(scenario: Scenario, tmp_path: Path) -> None:
    """A set of files, given in an order that is not theirs."""
    scenario.servers()
    dump = start_dump(scenario, "-w", tmp_path / "a.pcap", "-C", 1)
    scenario.load(f"--connections {CONNECTIONS} --requests 2 --request-bytes 60000")
    settle(tmp_path)
    dump.stop()
    paths = sorted(tmp_path.glob("a.pcap*"), reverse=True)
    assert len(paths) >= 4
    found = inspect(*paths)
    check_whole(scenario, found)
    assert found["packets"]["packets"] == sum(packets_in(path) for path in paths)
    assert found["tcp_servers"][0]["client_bytes"] >= CONNECTIONS * 2 * 60000


def test_through_a_pipe(scenario: Scenario, tmp_path: Path) -> None:
    """`tcpdump -w - | tcpcopy inspect -`, ended by ending tcpdump."""
    scenario.servers()
    out = tmp_path / "found.json"
    ours = shlex.join([sys.executable, "-m", "tcpcopy", "inspect", "--json", "-"])
    dump = shlex.join([*TCPDUMP, "eth0", "-w", "-", FILTER])
    script = f"{dump} | tee {tmp_path}/copy.pcap | {ours} > {out}"
    program = scenario.lab.online.start(["sh", "-c", script], name="pipe", env=environment())
    program.wait_for("listening on")
    scenario.load(LOAD)
    settle(tmp_path)
    found_pid = subprocess.run(
        ["pgrep", "-g", str(program.pid), "-x", "tcpdump"],
        capture_output=True,
        text=True,
        check=True,
    )
    scenario.lab.online.run("kill", "-INT", found_pid.stdout.strip())
    assert program.wait(20) == 0, program.output()
    check_whole(scenario, json.loads(out.read_text()))


def test_converted_by_wiresharks_tools(scenario: Scenario, tmp_path: Path) -> None:
    """Each format says the same; two interfaces in one file; compressed; cut."""
    scenario.servers()
    original = recorded(scenario, tmp_path / "a.pcap")
    expected = inspect(original)
    check_whole(scenario, expected)
    made: dict[str, Path] = {}
    for name in ("pcapng", "nsecpcap", "modpcap"):
        made[name] = tmp_path / name
        tool("editcap", "-F", name, original, made[name])
    made["gz"] = tmp_path / "gz"
    made["gz"].write_bytes(gzip.compress(made["pcapng"].read_bytes()))
    made["zst"] = tmp_path / "zst"
    made["zst"].write_bytes(zstandard.ZstdCompressor().compress(original.read_bytes()))
    for name, path in made.items():
        found = inspect(path)
        for key in ("sessions", "tcp_servers"):
            assert found[key] == expected[key], name
        check_whole(scenario, found)

    half = packets_in(original) // 2
    parts = [tmp_path / "first.pcap", tmp_path / "second.pcap"]
    tool("editcap", "-r", original, parts[0], f"1-{half}")
    tool("editcap", original, parts[1], f"1-{half}")
    merged = tmp_path / "merged.pcapng"
    tool("mergecap", "-I", "none", "-w", merged, *reversed(parts))  # an interface for each
    assert tool("capinfos", "-I", merged).count("Interface #") == 2
    for paths in ([merged], parts, parts[::-1]):
        assert inspect(*paths)["sessions"] == expected["sessions"]

    cut = tmp_path / "cut.pcap"
    tool("editcap", "-s", "60", original, cut)
    found = inspect(cut)
    assert found["packets"]["cut"] > 0
    assert found["sessions"]["client_bytes_cut"] == CONNECTIONS
    assert "cut off when this was recorded" in found["warnings"][0]


def test_session_open_at_both_ends_of_the_file(scenario: Scenario, tmp_path: Path) -> None:
    """Begun before tcpdump, and not ended with it."""
    scenario.servers()
    long = scenario.start_load("--connections 3 --requests 120 --think-ms 40")
    time.sleep(0.7)
    dump = start_dump(scenario, "-w", tmp_path / "a.pcap")
    time.sleep(2.5)
    dump.stop(signal.SIGINT)
    scenario.finish_load(long)
    found = inspect(tmp_path / "a.pcap")
    assert (found["sessions"]["total"], found["sessions"]["middle"]) == (3, 3)
    assert found["tcp_servers"][0]["endpoint"] == f"{scenario.lab.online.v4}:8080"
    assert any("began before the first packet" in text for text in found["warnings"])
