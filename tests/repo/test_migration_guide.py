"""docs/migrate-from-tcpcopy.md against the C programs' options and what ours make of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tcpcopy import intercept_cli, options
from tcpcopy.arguments import Option
from tcpcopy.errors import UsageError
from tests.repo.tree import ROOT

GUIDE = (ROOT / "docs" / "migrate-from-tcpcopy.md").read_text()

# The strings given to getopt by TCPCopy 1.3.0 (src/tcpcopy/main.c) and intercept 1.0.0
# (src/intercept/main.c), with those of all their builds.
GETOPT = {
    "tcpcopy": "x:c:H:i:a:I:T:F:B:o:n:f:m:C:p:r:M:S:U:R:D:t:k:s:l:P:LWOghvd",
    "intercept": "x:i:F:n:p:t:s:b:D:q:hl:cP:vd",
}
NOT_TAKEN = {"intercept": {"-t", "-x", "-q"}}  # nothing here has their meaning
TABLES = {"tcpcopy": options.OPTIONS, "intercept": intercept_cli.OPTIONS}

# The cases of `auto/options` of both, less those that every configure script has.
SWITCHES = {
    "tcpcopy": (
        "--set-protocol-module --single --offline --pcap-capture --pcap-send --million --select "
        "--dnat --disable-combined --udp --with-debug --with-tcmalloc --with-pfring "
        "--with-detect-memory"
    ),
    "intercept": (
        "--single --pcap-capture --million --dnat --traditional --nfqueue --select "
        "--disable-combined --with-resp-payload --with-pfring --with-debug"
    ),
}
SWITCHES_OF_BOTH = (
    "--prefix --sbin-path --conf-path --pid-path --error-log-path --builddir --with-cc "
    "--with-cc-opt --with-ld-opt"
)

# What an old option says, and where our parser has to have it. Lines of one command line are
# joined by what they need to be taken at all.
CLASSIC = ["-s", "10.0.0.3"]
FILE = ["-i", "./traffic.pcap"]
TCPCOPY_MEANINGS: dict[str, tuple[list[str], str, Any]] = {
    "-x": ([], "transfers.0.target_port", 8080),
    "-s": (["10.0.0.3:36600"], "intercepts.0.port", 36600),
    "-c": ([*CLASSIC, "62.135.200.x"], "client_addresses.0", "62.135.200.x"),
    "-H": ([*CLASSIC, "10.9.9.9"], "localhost_replacement", bytes((10, 9, 9, 9))),
    "-i": (["eth0"], "devices.0", "eth0"),
    "-a": ([*FILE, "4"], "recorded.speed", 4.0),
    "-I": ([*FILE, "50"], "recorded.longest_gap_ns", 50_000_000),
    "-T": ([*FILE, "3"], "recorded.passes", 3),
    "-F": (["tcp dst port 80"], "filter", "tcp dst port 80"),
    "-B": (["64"], "buffer_bytes", 64 << 20),
    "-S": (["1500"], "snaplen_bytes", 1500),
    "-o": ([*CLASSIC, "eth0"], "output_device", "eth0"),
    "-n": (["3"], "copies", 3),
    "-f": ([*CLASSIC, "2"], "factor", 2),
    "-m": (["512"], "memory_bytes", 512 << 20),
    "-C": ([*CLASSIC, "4"], "relay_connections", 4),
    "-p": ([*CLASSIC, "36601"], "intercepts.0.port", 36601),
    "-r": (["25"], "percentage", 25),
    "-M": ([*CLASSIC, "1400"], "mtu_bytes", 1400),
    "-U": (["2"], "", None),  # taken, and changes nothing
    "-R": (["30"], "round_trip_ns", 30_000_000),
    "-D": ([*CLASSIC, "700"], "mss_bytes", 700),
    "-t": (["60"], "session_timeout_ns", 60_000_000_000),
    "-k": (["30"], "keepalive_timeout_ns", 30_000_000_000),
    "-l": (["old.log"], "log_file", "old.log"),
    "-P": (["old.pid"], "pid_file", "old.pid"),
    "-L": ([*CLASSIC], "lonely", True),
    "-W": ([], "wait_for_answers", False),
    "-O": ([], "full_sessions_only", True),
    "-g": ([], "gradual", True),
    "-h": ([], "show", "help"),
    "-v": ([], "show", "version"),
    "-d": ([], "daemon", True),
}
INTERCEPT_MEANINGS: dict[str, tuple[list[str], str, Any]] = {
    "-i": (["eth0"], "config.devices.0", "eth0"),
    "-F": (["tcp and src port 8080"], "config.filter", "tcp and src port 8080"),
    "-n": (["8"], "config.batch_records", 8),
    "-p": (["36601"], "config.port", 36601),
    "-s": (["1024"], "config.early_limit", 1024),
    "-b": (["127.0.0.1"], "config.host", "127.0.0.1"),
    "-D": (["172.17.0.1-10.9.9.9"], "config.original_address", bytes((10, 9, 9, 9))),
    "-c": ([], "config.protected", True),
    "-l": (["old.log"], "log_file", "old.log"),
    "-P": (["old.pid"], "pid_file", "old.pid"),
    "-d": ([], "daemon", True),
    "-h": ([], "show", "help"),
    "-v": ([], "show", "version"),
}
MEANINGS = {"tcpcopy": TCPCOPY_MEANINGS, "intercept": INTERCEPT_MEANINGS}
CASES = [(command, short) for command, table in MEANINGS.items() for short in table]


def getopt_options(command: str) -> dict[str, bool]:
    """Each short option of the C program, and whether it takes a value."""
    return {f"-{name}": bool(colon) for name, colon in re.findall(r"(\w)(:?)", GETOPT[command])}


def rows(command: str) -> dict[str, str]:
    """The guide's table of a command: short option to long name ("" for none)."""
    section = re.search(rf"^## Options of {command}\n(.*?)(?=^## )", GUIDE, re.M | re.S)
    assert section is not None
    found = re.findall(r"^\| `(-\w)` \| (?:`(--[a-z-]+)`|none) \|", section[1], re.M)
    assert len(found) == len(dict(found)), "an option stands there twice"
    return dict(found)


def option(command: str, short: str) -> Option:
    """Ours with this short name."""
    (found,) = [each for each in TABLES[command] if each.short == short]
    return found


@pytest.mark.parametrize("command", GETOPT)
def test_every_option_of_the_c_program_has_its_row(command: str) -> None:
    assert rows(command).keys() == getopt_options(command).keys()


@pytest.mark.parametrize("command", GETOPT)
def test_rows_have_our_names(command: str) -> None:
    """The long name is that of our option with the same letter; a value is taken as in C."""
    for short, long in rows(command).items():
        if short in NOT_TAKEN.get(command, ()):
            assert not long
            assert all(each.short != short for each in TABLES[command])
            continue
        ours = option(command, short)
        assert ours.long == long
        assert bool(ours.metavar) == getopt_options(command)[short], short


@pytest.mark.parametrize("command", GETOPT)
def test_every_option_has_a_meaning_below(command: str) -> None:
    missing = getopt_options(command).keys() - MEANINGS[command].keys()
    assert missing == NOT_TAKEN.get(command, set())


@pytest.mark.parametrize(("command", "short"), CASES, ids=str)
def test_old_option_means_what_it_meant(
    command: str, short: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Short as in an old command line, and long as the guide has it: one meaning, that of C."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "traffic.pcap").write_bytes(b"")
    words, attribute, expected = MEANINGS[command][short]
    takes_value = bool(option(command, short).metavar)
    before, value = (words[:-1], words[-1:]) if takes_value else (words, [])
    if short == "-x":
        value = ["80-10.0.0.2:8080"]
    elif command == "tcpcopy":
        before = ["-x", "80-10.0.0.2:8080", *before]
    long = rows(command)[short]
    for name in (short, long):
        found: Any = parse(command, [*before, name, *value])
        if not attribute:
            assert found == parse(command, before)
            continue
        for part in attribute.split("."):
            found = found[int(part)] if part.isdigit() else getattr(found, part)
        if attribute.endswith("_file"):
            found = Path(found).name
        assert found == expected


def parse(command: str, words: list[str]) -> Any:
    if command == "intercept":
        return intercept_cli.parse(words)
    return options.parse(words, devices=lambda: ["lo", "eth0"])


@pytest.mark.parametrize("short", sorted(NOT_TAKEN["intercept"]))
def test_what_the_guide_calls_refused_is_refused(short: str) -> None:
    row = re.search(rf"^\| `{short}` \| none \|.*\| refused: [^|]+ \|$", GUIDE, re.M)
    assert row is not None
    with pytest.raises(UsageError):
        intercept_cli.parse([short, "10"])


@pytest.mark.parametrize("command", SWITCHES)
def test_every_switch_of_configure_has_its_row(command: str) -> None:
    table = re.search(rf"^\| {command}: configure \| here \|\n(.*?)^$", GUIDE, re.M | re.S)
    assert table is not None
    named = re.findall(r"^\| ((?:`--[\w-]+` )+)\|", table[1], re.M)
    switches = [word.strip("`") for cell in named for word in cell.split()]
    assert len(switches) == len(set(switches))
    assert set(switches) == set(f"{SWITCHES[command]} {SWITCHES_OF_BOTH}".split())
