"""tcpcopy's command line: values, defaults, and a clear line for everything that is wrong."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest

from tcpcopy import options
from tcpcopy.arguments import Option
from tcpcopy.errors import UsageError
from tcpcopy.mapping.addresses import format_address, parse_address
from tcpcopy.options import OPTIONS, Intercept, Options

X = ("-x", "80-10.0.0.2:8080")
SECOND = 1_000_000_000
NAMES = {"assistant.example": "10.0.0.3", "target.example": "10.0.0.2", "six.example": "::6"}


def resolve(name: str) -> bytes:
    if name not in NAMES:
        raise ValueError(f"host name {name!r} has no address")
    return parse_address(NAMES[name])


def parse(*argv: str) -> Options:
    return options.parse(argv, resolve=resolve, devices=lambda: ["lo", "eth0", "eth1"])


def refused(*argv: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        parse(*argv)
    line = str(caught.value)
    assert line.isprintable() and len(line) < 600, "one line"
    assert caught.value.problem and caught.value.hint
    return caught.value


def test_defaults() -> None:
    found = parse(*X)
    assert found.socket_mode and len(found.transfers) == 1
    expected = Options(transfers=found.transfers)
    assert found == expected
    assert (found.copies, found.factor, found.percentage) == (1, 0, 100)
    assert (found.buffer_bytes, found.snaplen_bytes) == (32 << 20, 1 << 20)
    assert (found.mtu_bytes, found.mss_bytes, found.round_trip_ns) == (1500, 1460, 0)
    assert (found.session_timeout_ns, found.keepalive_timeout_ns) == (600 * SECOND, 720 * SECOND)
    assert (found.memory_bytes, found.relay_connections) == (1 << 30, 2)
    assert found.wait_for_answers and found.status
    assert found.devices == () and found.filter is None and found.client_pool is None


@pytest.mark.parametrize(
    ("argv", "name", "value"),
    [
        (("-H", "10.0.0.1"), "localhost_replacement", b"\x0a\0\0\1"),
        (("-n", "3"), "copies", 3),
        (("-n3",), "copies", 3),
        (("--copies=1023",), "copies", 1023),
        (("--copies", "2", "-n", "4"), "copies", 4),
        (("-f", "1023"), "factor", 1023),
        (("-r", "30"), "percentage", 30),
        (("-g",), "gradual", True),
        (("-O",), "full_sessions_only", True),
        (("-i", "eth0"), "devices", ("eth0",)),
        (("-i", "eth1, eth0,eth1"), "devices", ("eth1", "eth0")),
        (("-i", "eth1", "--device", "lo"), "devices", ("eth1", "lo")),
        (("-i", "any"), "devices", ()),
        (("-F", "tcp dst port 80"), "filter", "tcp dst port 80"),
        (("-B", "64"), "buffer_bytes", 64 << 20),
        (("-S", "1500"), "snaplen_bytes", 1500),
        (("-M", "9000"), "mtu_bytes", 9000),
        (("-M", "1400"), "mss_bytes", 1360),
        (("-M", "9000", "-D", "8960"), "mss_bytes", 8960),
        (("-D", "500"), "mss_bytes", 500),
        (("-R", "50"), "round_trip_ns", 50_000_000),
        (("-W",), "wait_for_answers", False),
        (("-t", "5"), "session_timeout_ns", 5 * SECOND),
        (("-t", "5"), "keepalive_timeout_ns", 125 * SECOND),
        (("-t", "5", "-k", "7"), "keepalive_timeout_ns", 7 * SECOND),
        (("-m", "64"), "memory_bytes", 64 << 20),
        (("-C", "11"), "relay_connections", 11),
        (("-L",), "lonely", True),
        (("--no-status",), "status", False),
        (("-d",), "daemon", True),
        (("-dgW",), "daemon", True),
        (("-l", "/dev/null"), "log_file", "/dev/null"),
        (("-P", "/dev/null"), "pid_file", "/dev/null"),
        (("--json", "/dev/null"), "json_file", "/dev/null"),
    ],
)
def test_values(argv: tuple[str, ...], name: str, value: Any) -> None:
    found = getattr(parse(*X, *argv), name)
    assert found == value and type(found) is type(value)


def test_output_device_goes_with_intercept() -> None:
    found = parse(*X, "-s", "10.0.0.3", "-o", "eth1")
    assert found.output_device == "eth1"
    assert str(refused(*X, "-o", "eth1")) == (
        "-o eth1: needs -s: in socket mode the kernel sends; give -s HOST, or leave out -o"
    )
    assert str(refused(*X, "-s", "10.0.0.3", "--output-device", "eth1,lo")) == (
        "--output-device eth1,lo: there is no such device; give one of eth0, eth1, lo"
    )


def test_mac_addresses_need_an_output_device() -> None:
    """As in the C program, where only builds with -o knew them."""
    for transfer in ("80@02:00:00:00:00:01-10.0.0.2:80", "80-10.0.0.2:80@02:00:00:00:00:01"):
        for words in ((), ("-s", "10.0.0.3")):
            assert str(refused("-x", transfer, *words)) == (
                "-x 80-10.0.0.2:80: is given with a MAC address, which only frames have; give -o "
                "DEVICE to send frames on it, or leave out @MAC"
            )
        parse("-x", transfer, "-s", "10.0.0.3", "-o", "eth1")


def test_tunnels_are_taken_off_where_mirrors_are() -> None:
    assert not parse(*X).unwraps and not parse(*X, "-i", "eth1").unwraps
    assert parse(*X, "--decapsulate").unwraps
    assert parse(*X, "-i", "eth1", "--promiscuous").unwraps
    line = (
        "--decapsulate: is for live traffic: of files, tunnels are always taken off; leave it out"
    )
    assert str(refused(*X, "-i", "./a.pcap", "--decapsulate")) == line


def test_promiscuous_goes_with_named_devices() -> None:
    assert parse(*X, "-i", "eth1", "--promiscuous").promiscuous
    line = "--promiscuous: needs -i: it is for named devices; give -i DEVICE, the mirror port"
    assert str(refused(*X, "--promiscuous")) == line
    assert str(refused(*X, "--promiscuous", "-i", "any")) == line


def test_session_pool_has_no_effect() -> None:
    assert parse(*X, "-U", "63") == parse(*X)


def test_transfers_add_up() -> None:
    found = parse("-x", "80-10.0.0.2:80,81-target.example:81", "--transfer", "82-[::1]:82")
    assert [str(transfer) for transfer in found.transfers] == [
        "80-10.0.0.2:80",
        "81-10.0.0.2:81",
        "82-[::1]:82",
    ]


def test_intercepts() -> None:
    found = parse(*X, "-s", "10.0.0.3, assistant.example:4000", "-s", "[::5]:1,[::6]", "-p", "9")
    assert found.intercepts == (
        Intercept("10.0.0.3", parse_address("10.0.0.3"), 9),
        Intercept("assistant.example", parse_address("10.0.0.3"), 4000),
        Intercept("::5", parse_address("::5"), 1),
        Intercept("::6", parse_address("::6"), 9),
    )
    assert not found.socket_mode
    assert parse(*X, "-s", "10.0.0.3").intercepts[0].port == 36524


def test_clients_without_the_targets_address() -> None:
    found = parse(*X, "-c", "10.0.0.x")
    assert found.client_pool is not None
    assert len(found.client_pool) == 253
    assert parse_address("10.0.0.2") not in found.client_pool


def test_files_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon changes its directory."""
    monkeypatch.chdir(tmp_path)
    found = parse(*X, "-l", "a.log", "--json", "./b.json", "-P", "c.pid")
    assert (found.log_file, found.json_file, found.pid_file) == (
        str(tmp_path / "a.log"),
        str(tmp_path / "b.json"),
        str(tmp_path / "c.pid"),
    )


@pytest.mark.parametrize("argv", [("-h",), ("--help",), (*X, "-n", "nonsense", "-h"), ("-hv",)])
def test_help(argv: tuple[str, ...]) -> None:
    assert parse(*argv).show == "help"


@pytest.mark.parametrize("argv", [("-v",), ("--version",), ("-v", "-i", "nonsense")])
def test_version(argv: tuple[str, ...]) -> None:
    assert parse(*argv).show == "version"


def test_help_names_every_option() -> None:
    text = options.help_text()
    for option in OPTIONS:
        for name in option.names:
            assert f" {name}" in text
    assert "(1 to 1023, default 1)" in " ".join(text.split())
    assert "tcpcopy demo" in text


def test_table_is_consistent() -> None:
    names = [name for option in OPTIONS for name in option.names]
    assert len(set(names)) == len(names)
    assert len({option.name for option in OPTIONS}) == len(OPTIONS)
    for option in OPTIONS:
        assert option.help and not option.help.endswith(".")
        assert option.metavar or option.low is None
        if option.default is not None:
            assert option.low is not None and option.low <= option.default <= option.high
    shorts = {option.short[1] for option in OPTIONS if option.short}
    assert shorts == set("xscHnfrgOiFBSoMDRWtkmUaITpCLldPvh")


def test_defaults_of_table_and_values_agree() -> None:
    """`Options()` is what an empty command line would give."""
    plain = parse(*X)
    for field in dataclasses.fields(Options):
        if field.name not in ("transfers", "show"):
            assert getattr(plain, field.name) == getattr(Options(), field.name), field.name


WITH_VALUE = [option for option in OPTIONS if option.metavar]
NUMBERS = [option for option in OPTIONS if option.low is not None]
SWITCHES = [option for option in OPTIONS if not option.metavar]
# Values that are sensible for some options that take text.
SENSIBLE = {
    **dict.fromkeys([("filter", "-1"), ("filter", "nonsense"), ("filter", "9" * 30)]),
    **{(name, text): None for name in ("log", "json", "pid_file") for text in ("-1", "nonsense")},
    **{(name, "9" * 30): None for name in ("log", "json", "pid_file")},
}


def names_of(options_: list[Option]) -> list[str]:
    return [option.name for option in options_]


def with_x(option: Option) -> tuple[str, ...]:
    return () if option.name == "transfer" else X


@pytest.mark.parametrize("nonsense", ["nonsense", "-1", "9" * 30, "1e3", "٣", "0x10", "1,,", "3 4"])
@pytest.mark.parametrize("option", WITH_VALUE, ids=names_of(WITH_VALUE))
def test_nonsense_is_refused_by_option_and_value(
    option: Option, nonsense: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # Those of the relay are read at once.
    is_read = option.name in ("secret_file", "tls_ca", "tls_cert", "tls_key")
    text_option = option.metavar in ("FILE", "FILTER") and not is_read
    for name in option.names:
        argv = (*with_x(option), f"{name}={nonsense}" if name[1] == "-" else name, nonsense)
        argv = argv[:-1] if name[1] == "-" else argv
        if text_option:
            parse(*argv)  # any word is a file name or, until it is compiled, a filter
            continue
        error = refused(*argv)
        assert error.option == name
        # Of a list the bad item is named.
        assert str(error.value) in nonsense or nonsense in str(error.value)
        assert str(error).startswith(f"{name} {error.value}:" if error.value else f"{name}:")


@pytest.mark.parametrize("empty", ["", " ", "\n", "a\nb", "\x1b[1m", "\0"])
@pytest.mark.parametrize("option", WITH_VALUE, ids=names_of(WITH_VALUE))
def test_empty_and_unprintable_values(option: Option, empty: str) -> None:
    error = refused(*with_x(option), option.names[0], empty)
    assert error.option == option.names[0]
    assert ("empty" in str(error)) == (not empty.strip())


@pytest.mark.parametrize("option", WITH_VALUE, ids=names_of(WITH_VALUE))
def test_missing_value(option: Option) -> None:
    for name in option.names:
        error = refused(*with_x(option), name)
        assert (error.option, error.problem) == (name, "needs a value")
        error = refused(name, "-d")
        assert (error.option, error.value) == (name, "-d")


@pytest.mark.parametrize("option", NUMBERS, ids=names_of(NUMBERS))
def test_range_of_numbers(option: Option) -> None:
    assert option.low is not None
    sides = ("-M", "65535") if option.name == "mss" else ()
    for value in (option.low, option.high):
        parse(*X, *sides, option.names[0], str(value))
    for value in (option.low - 1, option.high + 1):
        error = refused(*X, *sides, option.names[0], str(value))
        assert (error.option, error.value) == (option.names[0], str(value))
        assert f"{option.low} to {option.high}" in error.hint


@pytest.mark.parametrize("option", SWITCHES, ids=names_of(SWITCHES))
def test_switches_take_no_value(option: Option) -> None:
    error = refused(*X, f"{option.long}=3")
    assert (error.option, error.value, error.problem) == (option.long, "3", "takes no value")
    error = refused(*X, option.names[0], "3")
    assert (error.option, error.problem) == ("3", "belongs to no option")


@pytest.mark.parametrize(
    ("argv", "option", "value"),
    [
        (("-Q",), "-Q", ""),
        (("--udq",), "--udq", ""),
        (("--cop", "3"), "--cop", ""),
        (("--unknown=5",), "--unknown", "5"),
        (("-dQ",), "-dQ", ""),
        (("stray",), "stray", ""),
        (("--", "stray"), "stray", ""),
        (("demo",), "demo", ""),
    ],
)
def test_what_is_no_option(argv: tuple[str, ...], option: str, value: str) -> None:
    error = refused(*X, *argv)
    assert (error.option, error.value) == (option, value)


def test_transfer_is_needed() -> None:
    assert str(refused()).startswith("-x: is missing;")
    assert str(refused("-n", "3")).startswith("-x: is missing;")


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (("-x", "80-nowhere:80"), "-x 80-nowhere:80: target: host name 'nowhere' has no address"),
        (("--transfer", "80"), "--transfer 80: has no '-' between source and target"),
        ((*X, "-s", "nowhere"), "-s nowhere: host name 'nowhere' has no address"),
        ((*X, "-s", "10.0.0.3:0"), "-s 10.0.0.3:0: port 0 is not in 1 to 65535"),
        ((*X, "-s", "10.0.0.3,"), "-s: is empty"),
        ((*X, "-s", "::1"), "-s ::1: an IPv6 address needs brackets"),
        ((*X, "-s", "0.0.0.0"), "-s 0.0.0.0: is the address that stands for none"),
        ((*X, "-s", "10.0.0.3,assistant.example"), "-s assistant.example: the same intercept"),
        ((*X, "-s", ",".join(f"10.1.0.{n}" for n in range(1, 34))), "-s 33: intercepts are too"),
        (
            ("-x", "80-[::2]:80", "-s", "10.0.0.3", "--relay", "classic"),
            "-x 80-[::2]:80: the target [::2]:80 is IPv6",
        ),
        ((*X, "--relay", "morse"), "--relay morse: is not a relay; give one of auto, classic"),
        ((*X, "--tls-cert", "c.pem"), "--tls-cert c.pem: is of no use without --tls"),
        ((*X, "--tls", "--tls-key", "k.pem"), "--tls-key k.pem: certificate and key belong"),
        ((*X, "--tls", "--relay", "classic"), "--tls: the classic relay has neither secret nor"),
        ((*X, "-c", "::9"), "-c ::9: an address is IPv6, but no target is"),
        ((*X, "-c", "10.0.1.x,::9"), "-c 10.0.1.x,::9: an address is IPv6, but no target is"),
        (("-x", "80-[::2]:80", "-c", "10.0.0.1"), "-c 10.0.0.1: an address is IPv4, but no target"),
        (
            ("-x", "80-[::2]:80,80-10.0.0.2:80", "-c", "10.0.0.1"),
            "-c 10.0.0.1: no address is IPv6, but a target is",
        ),
        ((*X, "-c", "10.0.0.2"), "-c 10.0.0.2: leaves no address besides the target's own"),
        ((*X, "-c", "10.0.0.*"), "-c 10.0.0.*: '*' is not understood"),
        ((*X, "-H", "::9"), "-H ::9: is IPv6, but no target is"),
        ((*X, "-H", "127.0.0.1"), "-H 127.0.0.1: is a loopback address itself"),
        (
            (*X, "-i", "eth7"),
            "-i eth7: there is no such device or file; give a capture file, or one",
        ),
        ((*X, "-i", "eth0,"), "-i: a device is empty"),
        ((*X, "-D", "1461"), "-D 1461: does not fit into packets of 1500 bytes (-M); give 1460"),
        ((*X, "-M", "1000", "-D", "961"), "-D 961: does not fit into packets of 1000 bytes"),
        ((*X, "-l", "/"), "-l /: is a directory"),
        ((*X, "-l", "/nowhere/a"), "-l /nowhere/a: its directory does not exist; create /nowhere"),
        ((*X, "--json", "/dev/null/a"), "--json /dev/null/a: its directory does not exist"),
    ],
)
def test_lines(argv: tuple[str, ...], line: str) -> None:
    assert str(refused(*argv)).startswith(line)


def test_mixed_families_that_meet_are_accepted() -> None:
    found = parse("-x", "80-[::2]:80,80-10.0.0.2:80", "-c", "10.0.0.1,::9", "-H", "::8")
    assert found.client_pool is not None
    assert found.client_pool.families == {4, 16}


def test_long_values_are_shortened() -> None:
    error = refused(*X, "-n", "9" * 5000)
    assert len(str(error)) < 300 and "999..." in str(error)


def test_files_that_may_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may write everywhere, so the question to the system is answered here."""
    monkeypatch.setattr(os, "access", lambda path, mode: path != str(tmp_path))
    error = refused(*X, "-P", str(tmp_path / "a.pid"))
    assert (error.option, error.problem) == ("-P", "may not be written")


def test_real_devices() -> None:
    assert "lo" in options.list_devices()


def local(address: bytes) -> bool:
    return format_address(address) in ("10.0.0.1", "10.0.0.5")


def test_check_host_refuses_loops() -> None:
    options.check_host(parse(*X), local)
    with pytest.raises(UsageError, match=r"^-x 80-10\.0\.0\.1:80: .*loop"):
        options.check_host(parse("-x", "80-10.0.0.1:80"), local)


def test_check_host_refuses_foreign_clients_in_socket_mode_only() -> None:
    options.check_host(parse(*X, "-c", "10.0.0.1,10.0.0.5"), local)
    options.check_host(parse(*X, "-c", "10.0.0.7", "-s", "10.0.0.3"), local)
    with pytest.raises(UsageError, match=r"^-c 10\.0\.0\.7: is not an address of this host; "):
        options.check_host(parse(*X, "-c", "10.0.0.1,10.0.0.7"), local)


def test_workers() -> None:
    assert parse(*X).workers == 1
    assert parse(*X, "--workers", "4").workers == 4
    assert 1 <= parse(*X, "--workers", "auto").workers <= 8  # that many have 128 MiB each of -m
    assert parse(*X, "--workers", "auto", "-m", "64").workers == 1


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("0", "is out of range"),
        ("65", "is out of range"),
        ("9" * 5000, "is out of range"),
        ("two", "is neither a whole number nor auto"),
        ("-1", "is neither a whole number nor auto"),
        ("9", "workers share 1024 MiB of memory (-m), which is too little; give -m 1152"),
    ],
)
def test_bad_workers(value: str, problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(*X, f"--workers={value}")
    assert problem in str(caught.value) and "\n" not in str(caught.value)
