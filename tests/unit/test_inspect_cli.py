"""The command `tcpcopy inspect`: arguments, exit codes, standard input."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tcpcopy import cli
from tests.lab import capture_files as make


def run(*arguments: str | Path, content: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    """As a user does, in a process of its own; `content` on standard input."""
    return subprocess.run(
        [sys.executable, "-m", "tcpcopy", "inspect", *map(str, arguments)],
        input=content,
        stdin=subprocess.DEVNULL if content is None else None,
        capture_output=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


CONTENT = make.pcap(make.timed(make.conversation()))


def test_text_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.pcap"
    path.write_bytes(CONTENT)
    assert cli.main(["inspect", str(path)]) == 0
    text = capsys.readouterr()
    assert text.out.startswith(f"tcpcopy inspect: {path}: 8 packets, 1 TCP session, 0 UDP flows\n")
    assert text.err == ""
    assert cli.main(["inspect", "--json", str(path)]) == 0
    assert json.loads(capsys.readouterr().out)["sessions"]["whole"] == 1


def test_refusals_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, expected in [
        ([], "tcpcopy: inspect: the following arguments are required: FILE"),
        ([str(tmp_path)], f"tcpcopy: inspect {tmp_path}: is a directory"),
        ([str(tmp_path / "x")], f"tcpcopy: inspect {tmp_path}/x: no such file"),
        (["--jso", "x"], "tcpcopy: inspect: unrecognized arguments: --jso"),
        (["/dev/null"], "tcpcopy: inspect /dev/null: is empty"),
    ]:
        assert cli.main(["inspect", *arguments]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith(expected)
        assert said.err.count("\n") == 1


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["inspect", "--help"])
    assert ended.value.code == 0
    assert "tcpdump -w - | tcpcopy inspect -" in capsys.readouterr().out


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_standard_input(compress) -> None:  # type: ignore[no-untyped-def]
    result = run("-", content=compress(CONTENT))
    assert result.stderr == b""
    assert result.returncode == 0
    assert result.stdout.startswith(b"tcpcopy inspect: -: 8 packets, 1 TCP session")
    assert b"tcpcopy -i FILE -x 80-127.0.0.1:8080" in result.stdout


def test_nothing_on_standard_input() -> None:
    result = run("-")
    assert (result.returncode, result.stdout) == (2, b"")
    assert result.stderr.startswith(b"tcpcopy: inspect -: is empty; ")


def test_tunnels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.pcap"
    packets = [make.vxlan(make.ethernet(packet)) for packet in make.conversation()]
    path.write_bytes(make.pcap(make.timed(packets)))
    assert cli.main(["inspect", str(path)]) == 0
    text = capsys.readouterr().out
    assert "1 TCP session, 0 UDP flows" in text
    assert "8 packets, shown without them" in text
    assert cli.main(["inspect", "--keep-tunnels", str(path)]) == 0
    text = capsys.readouterr().out
    assert "0 TCP sessions, 1 UDP flow" in text
    assert "192.0.2.2:4789" in text
