"""What `tcpcopy inspect` says: figures, warnings, and a command that can be pasted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tcpcopy import options
from tcpcopy.recorded import inspect as report
from tcpcopy.recorded.inspect import Findings
from tcpcopy.recorded.stream import open_recorded
from tests.lab import capture_files as make
from tests.lab.capture_files import ACK, SYN, tcp


def found(*paths: Path, most_flows: int = 1000) -> Findings:
    """Of files that are there."""
    names = [str(path) for path in paths]
    stream = open_recorded(names)
    try:
        return report.inspect(stream, names, most_flows=most_flows)
    finally:
        stream.close()


def of(folder: Path, packets: list[bytes], *, snaplen: int = 262144) -> Findings:
    """Of a file with these IP packets."""
    path = folder / "a.pcap"
    path.write_bytes(make.pcap(make.timed(packets), snaplen=snaplen))
    return found(path)


def test_text(tmp_path: Path) -> None:
    packets = make.conversation()
    for number in range(8, 12):
        packets += make.conversation(f"198.51.100.{number}:40000")
    packets += [
        make.udp("198.51.100.7:40000", "10.0.0.1:53", bytes.fromhex("123401000001000000000000"))
    ]
    frames = [*make.timed(packets), (make.START_NS + 10**9, make.ethernet(bytes(28), kind=0x806))]
    path = tmp_path / "web traffic.pcap"
    path.write_bytes(make.pcap(frames))
    findings = found(path)
    assert report.warnings(findings) == []
    assert (
        report.render(findings)
        == f"""\
tcpcopy inspect: {path}: 42 packets, 5 TCP sessions, 1 UDP flow

  format      pcap
  link type   Ethernet
  time        2023-11-14 22:13:20.000 to 2023-11-14 22:13:21.000 UTC (0:01)
  packets     42: 41 IP, 1 not IP
  IP carries  40 TCP, 1 UDP

  5  100 %  whole
  5  100 %  TCP sessions

  TCP servers  sessions  whole  client packets  client bytes  server bytes  protocol
  10.0.0.1:80         5      5              25          90 B          95 B  HTTP/1

  UDP servers  flows  client packets  client bytes  server bytes  protocol
  10.0.0.1:53      1               1          12 B           0 B  DNS

  to replay it to a test server of your own, without root or a second host:
    tcpcopy -i '{path}' -x 80-127.0.0.1:8080  # 5 sessions, HTTP/1
"""
    )


def test_several_files(tmp_path: Path) -> None:
    paths = []
    for number in range(12):
        path = tmp_path / f"{number}.pcap"
        start_ns = make.START_NS + number * 10**9
        path.write_bytes(make.pcap(make.timed(make.conversation(isn=number), start_ns=start_ns)))
        paths.append(path)
    text = report.render(found(*reversed(paths)))
    assert text.startswith("tcpcopy inspect: 12 files: 96 packets, 12 TCP sessions, 0 UDP flows\n")
    listed = [line.split()[0] for line in text.splitlines() if ".pcap  pcap" in line]
    assert listed == [str(path) for path in paths[:10]]
    assert "and 2 more files" in text
    assert f"tcpcopy -i {paths[11]},{paths[10]}" in text or f"-i {paths[11]},... -x" in text


@pytest.mark.parametrize(
    ("port", "target"),
    [(80, 8080), (443, 8443), (25, 8025), (3306, 3306), (8080, 8080), (65535, 65535)],
)
def test_command_is_accepted(tmp_path: Path, port: int, target: int) -> None:
    """As the option table reads it."""
    findings = of(tmp_path, make.conversation(server=f"10.0.0.1:{port}"))
    (suggestion,) = report.suggestions(findings)
    assert report.command(findings, suggestion) == (
        f"tcpcopy -i {tmp_path}/a.pcap -x {port}-127.0.0.1:{target}"
    )
    (transfer,) = options.parse(["-x", suggestion.transfer]).transfers
    assert (transfer.source_port, transfer.target_port) == (port, target)


def test_ports_with_most_sessions_first(tmp_path: Path) -> None:
    packets = []
    for number, port in enumerate((3306, 80, 80, 81, 80, 81, 82, 90)):
        client = f"198.51.100.{number + 1}:40000"
        packets += make.conversation(client, f"10.0.0.{number % 3 + 1}:{port}")
    packets += [tcp("198.51.100.7:1", "10.0.0.1:9", SYN)]  # sent no data: nothing to replay
    findings = of(tmp_path, packets)
    assert [(s.port, s.sessions, s.servers) for s in report.suggestions(findings)] == [
        (80, 3, 2), (81, 2, 2), (82, 1, 1), (90, 1, 1), (3306, 1, 1)
    ]  # fmt: skip
    text = report.render(findings)
    assert text.count("tcpcopy -i") == 3
    assert "# 3 sessions of 2 servers, HTTP/1" in text


def test_what_cannot_be_replayed_comes_last(tmp_path: Path) -> None:
    hello = bytes.fromhex("1603010200010001fc0303") + bytes(99)
    packets = make.conversation(server="10.0.0.1:80")
    for number in range(5):
        client = f"198.51.100.{number + 1}:40000"
        packets += make.conversation(client, "10.0.0.1:443", request=hello)
    assert [s.port for s in report.suggestions(of(tmp_path, packets))] == [80, 443]


def warned(findings: Findings) -> str:
    """All warnings; the text has them, too."""
    text = " ".join(report.render(findings).split())
    warnings = report.warnings(findings)
    for warning in warnings:
        assert warning.split(":")[0] in text
    return "\n".join(warnings)


def test_warnings(tmp_path: Path) -> None:
    whole = make.conversation()
    large = make.conversation(request=b"POST / HTTP/1.1\r\n\r\n" + bytes(500))
    assert "2 packets" not in warned(of(tmp_path, whole))
    text = warned(of(tmp_path, large, snaplen=96))
    assert "477 B of what clients sent in 1 session were cut off when this was recorded" in text
    assert "(snap length 96)" in text
    assert "record with -s 0" in text
    assert "are missing" not in text
    text = warned(of(tmp_path, [*whole[:3], *whole[4:]]))
    assert "bytes of the client are missing in 1 session: packets were lost" in text
    text = warned(of(tmp_path, [whole[1], whole[4], whole[6]]))
    assert "of 1 session only the server's side was recorded" in text
    text = warned(of(tmp_path, whole[2:]))
    assert "1 session began before the first packet" in text
    tls = make.conversation(request=bytes.fromhex("1603010200010001fc0303") + bytes(99))
    assert "1 session of TLS: keys are agreed upon anew" in warned(of(tmp_path, tls))
    fragment = make.ip("198.51.100.7", "10.0.0.1", 6, bytes(30), fragment=0x2000)
    assert "1 IP fragment of packets that are not there whole" in warned(
        of(tmp_path, [*whole, fragment])
    )
    unread = [make.udp("192.0.2.1:5", "192.0.2.2:6081", b"\x40" + bytes(40))] * 3
    assert "3 packets of GENEVE: what is in them is not in these figures" in warned(
        of(tmp_path, [*whole, *unread])
    )
    assert "nothing that could be replayed" in warned(of(tmp_path, [fragment]))
    assert "not a single packet in it" in warned(of(tmp_path, []))


def test_warnings_about_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    content = make.pcap(make.timed(make.conversation()))
    path.write_bytes(content[:-3])
    assert f"{path}: cut off in packet 8, 7 packets used" in warned(found(path))
    path.write_bytes(make.pcap(make.timed(make.conversation()), link=147))
    assert "8 packets of a link type that cannot be read (link type 147)" in warned(found(path))


def test_more_connections_than_are_followed(tmp_path: Path) -> None:
    packets = [tcp(f"198.51.100.{n}:1", "10.0.0.1:80", SYN) for n in range(1, 21)]
    path = tmp_path / "a.pcap"
    path.write_bytes(make.pcap(make.timed(packets)))
    text = warned(found(path, most_flows=15))
    assert "more than 15 connections at once: 5 packets of further ones are not in" in text


def test_many_servers(tmp_path: Path) -> None:
    packets = [tcp("198.51.100.7:1", f"10.0.0.{n}:80", SYN) for n in range(1, 101)]
    findings = of(tmp_path, packets)
    assert "and 85 more (--json has all)" in report.render(findings)
    assert len(report.to_json(findings)["tcp_servers"]) == 100


def test_json_has_the_same_figures(tmp_path: Path) -> None:
    packets = [
        *make.conversation(),
        make.udp("198.51.100.7:40000", "10.0.0.1:53", b"x"),
        make.vxlan(make.ethernet(tcp("198.51.100.8:40000", "10.0.0.1:80", ACK, b"GET /"))),
    ]  # fmt: skip
    data = json.loads(json.dumps(report.to_json(of(tmp_path, packets))))
    assert data["packets"]["packets"] == 10
    assert data["packets"]["in_tunnels"] == 1
    assert data["packets"]["link_types"] == {"Ethernet": 10}
    assert data["sessions"]["total"] == 2
    assert (data["sessions"]["whole"], data["sessions"]["middle"]) == (1, 1)
    assert data["udp_flows"] == 1
    (server,) = data["tcp_servers"]
    assert server["endpoint"] == "10.0.0.1:80"
    assert (server["sessions"], server["whole"], server["by_syn"]) == (2, 1, True)
    assert server["protocols"] == {"HTTP/1": 2}
    assert data["files"][0]["problems"] == []
    assert data["commands"] == [f"tcpcopy -i {tmp_path}/a.pcap -x 80-127.0.0.1:8080"]


def test_times_beyond_the_calendar(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    frame = make.ethernet(make.conversation()[0])
    path.write_bytes(make.section() + make.interface(1, make.option(9, b"\0"))
                     + make.enhanced(frame, (1 << 64) - 1))  # fmt: skip
    assert "9000000000 s" in report.render(found(path)) or "2255-" in report.render(found(path))


def test_interrupted(tmp_path: Path) -> None:
    """Ctrl-C on a pipe: what was read until then is shown."""
    path = tmp_path / "a.pcap"
    path.write_bytes(make.pcap(make.timed(make.conversation())))
    stream = open_recorded([str(path)])

    def interrupt(_buffer: memoryview) -> int:
        raise KeyboardInterrupt

    stream.next_ns()
    stream.files[0].reader.source = type("Interrupted", (), {"readinto": staticmethod(interrupt)})
    stream.files[0].reader.filled -= 100
    findings = report.inspect(stream, [str(path)])
    stream.close()
    assert findings.is_interrupted
    assert report.warnings(findings)[0] == "interrupted: this is what was read until then"
    assert 0 < findings.counts.packets < 8
