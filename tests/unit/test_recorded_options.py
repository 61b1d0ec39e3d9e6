"""The options of recorded traffic and of --rate: what they come to, what is refused in one line."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from tcpcopy.errors import UsageError
from tcpcopy.mapping.rate import RateConfig
from tcpcopy.options import Options, check_host
from tcpcopy.recorded.player import FAST_SPEED, RecordedConfig
from tests.unit.test_options import X, refused
from tests.unit.test_options import parse as parse_options

SECOND = 1_000_000_000


def recorded(*argv: str) -> RecordedConfig:
    found = parse_options(*X, "-i", "a.pcap", *argv).recorded
    assert found is not None
    return found


def test_files_in_many_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ends like one, has a slash, or is there; absolute, for a daemon runs in `/`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd").touch()
    found = parse_options(*X, "-i", "a.pcap,b/c", "--device", "odd", "-i", "x.pcap.GZ,../y.zst,-")
    here, above = tmp_path, tmp_path.parent
    assert found.devices == () and found.recorded == RecordedConfig(
        paths=(
            *(str(here / name) for name in ("a.pcap", "b/c", "odd", "x.pcap.GZ")),
            str(above / "y.zst"),
            "-",
        )
    )


def test_device_or_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is both is the device, unless it is written as a path."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "eth0").touch()
    device = parse_options(*X, "-i", "eth0")
    assert device.devices == ("eth0",) and device.recorded is None
    file = parse_options(*X, "-i", "./eth0")
    assert file.devices == () and file.recorded is not None
    assert file.recorded.paths == (str(tmp_path / "eth0"),)


def test_pace_of_files() -> None:
    assert recorded() == RecordedConfig(paths=(str(Path("a.pcap").absolute()),))
    found = recorded("-a", "0.25", "-I", "1.5", "-T", "3")
    assert (found.speed, found.longest_gap_ns, found.passes) == (Fraction(1, 4), 1_500_000, 3)
    assert found.engine_speed == Fraction(1, 4) and not found.fast
    assert recorded("--acceleration=2.5").speed == Fraction(5, 2)
    assert recorded("-I", "0").longest_gap_ns == 0
    fast = recorded("--fast", "--times", "2")
    assert fast.fast and fast.engine_speed == FAST_SPEED and fast.passes == 2


def test_rates() -> None:
    assert parse_options(*X).rate is None
    assert parse_options(*X, "--rate", "500sessions").rate == RateConfig(Fraction(500))
    live = parse_options(*X, "--rate", "0.5sessions/s", "--rate-mode", "drop", "--ramp", "2.5")
    assert live.rate == RateConfig(Fraction(1, 2), False, "drop", 2_500_000_000)
    paced = parse_options(*X, "-i", "-", "--rate", "2000requests", "--rate-mode=pace")
    assert paced.rate == RateConfig(Fraction(2000), True, "pace")


def test_files_can_be_replayed_where_they_were_recorded() -> None:
    """Nothing that is sent gets into a file: no loop, and any server of the file is meant."""
    argv = ("-x", "80-127.0.0.1:80")
    check_host(parse_options(*argv, "-i", "a.pcap"), lambda _: True)
    with pytest.raises(UsageError, match="a loop"):
        check_host(parse_options(*argv), lambda _: True)
    with pytest.raises(UsageError, match="a loop"):  # tcpdump may be at the other end
        check_host(parse_options(*argv, "-i", "-"), lambda _: True)
    address = bytes((127, 0, 0, 1))
    assert parse_options(*argv, "-i", "a.pcap").transfers.lookup(address, 80)
    assert not parse_options(*argv).transfers.lookup(address, 80)


def test_one_worker_for_files() -> None:
    assert parse_options(*X, "-i", "a.pcap", "--workers", "auto").workers == 1
    assert parse_options(*X, "-i", "a.pcap", "--workers", "1").workers == 1


FILE = ("-i", "a.pcap")


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (("-i", "eth0,a.pcap"), "-i eth0,a.pcap: names devices and files; give either"),
        (("-i", "any,-"), "-i any,-: names devices and files; give either"),
        (("-a", "2"), "-a 2: is for files: live traffic comes when it comes; give -i FILE"),
        (("-I", "2"), "-I 2: is for files: live"),
        (("-T", "2"), "-T 2: is for files: live"),
        (("--fast",), "--fast: is for files: live"),
        ((*FILE, "-a", "0"), "-a 0: is out of range; give a factor from 0.001 to 1000000"),
        ((*FILE, "-a", "-1"), "-a -1: is not a factor"),
        ((*FILE, "-a", "1e3"), "-a 1e3: is not a factor"),
        ((*FILE, "-a", "1.2.3"), "-a 1.2.3: is not a factor"),
        ((*FILE, "-a", "."), "-a .: is not a factor"),
        ((*FILE, "-a", "9" * 30), f"-a {'9' * 30}: is not a factor"),
        ((*FILE, "-I", "x"), "-I x: is not a number of milliseconds"),
        ((*FILE, "-T", "0"), "-T 0: is not a number of times; give a whole number from 1"),
        ((*FILE, "-T", "1.5"), "-T 1.5: is not a number of times"),
        ((*FILE, "--fast", "-a", "2"), "-a 2: does nothing with --fast"),
        ((*FILE, "--fast", "-I", "2"), "-I 2: does nothing with --fast"),
        (("-i", "-", "-T", "2"), "-T 2: standard input cannot be read twice; save it to a file"),
        (("-i", "-", "-d"), "-i -: a daemon has no standard input; leave out -d"),
        ((*FILE, "--workers", "2"), "--workers 2: files are replayed by one process; leave it out"),
        ((*FILE, "--udp"), "--udp: UDP is copied live only, not from files; leave it out"),
        (
            (*FILE, "--transport", "both"),
            "--transport both: UDP is copied live only, not from files; leave it out",
        ),
        (("--rate", "500"), "--rate 500: says neither sessions nor requests; write a number and"),
        (("--rate", "sessions"), "--rate: is not a number of sessions; write a number and"),
        (("--rate", "0sessions"), "--rate 0: is out of range; write a number and"),
        (("--ramp", "5"), "--ramp 5: needs --rate; give --rate, or leave it out"),
        (("--rate-mode", "drop"), "--rate-mode drop: needs --rate"),
        (("--rate", "5sessions", "--ramp", "x"), "--ramp x: is not a number of seconds"),
        (
            ("--rate", "5sessions", "--rate-mode", "wait"),
            "--rate-mode wait: is no such way; give one of queue, pace, drop",
        ),
        (
            ("--rate", "5sessions", "--rate-mode", "pace"),
            "--rate-mode pace: live traffic cannot be read more slowly; give queue or drop",
        ),
        (
            (*FILE, "--rate", "5requests", "--rate-mode", "drop"),
            "--rate-mode drop: requests cannot be left out of a session; give queue, or a rate of",
        ),
    ],
)
def test_refused(argv: tuple[str, ...], line: str) -> None:
    assert str(refused(*X, *argv)).startswith(line)


def test_defaults_are_live() -> None:
    assert Options().recorded is None and Options().rate is None
