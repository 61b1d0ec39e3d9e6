"""-x: parsing, lookup, loops."""

from __future__ import annotations

import pytest

from tcpcopy.errors import UsageError
from tcpcopy.mapping.addresses import parse_address
from tcpcopy.mapping.transfers import Transfer, TransferTable, check_no_loop, parse_transfers


def resolve(name: str) -> bytes:
    if name == "target.example":
        return parse_address("10.0.0.9")
    raise ValueError(f"host name {name!r} has no address")


def table(text: str) -> TransferTable:
    return TransferTable(parse_transfers(text, resolve=resolve))


def targets(transfers: tuple[Transfer, ...]) -> list[str]:
    return [str(transfer).partition("-")[2] for transfer in transfers]


@pytest.mark.parametrize(
    ("text", "source", "source_mac", "target", "target_mac"),
    [
        ("80-10.0.0.2:8080", (b"", 80), None, ("10.0.0.2", 8080), None),
        ("10.0.0.1:80-10.0.0.2:8080", ("10.0.0.1", 80), None, ("10.0.0.2", 8080), None),
        ("0.0.0.0:80-10.0.0.2:8080", (b"", 80), None, ("10.0.0.2", 8080), None),
        ("[::]:80-[::1]:81", (b"", 80), None, ("::1", 81), None),
        ("[2001:db8::1]:80-[2001:db8::2]:81", ("2001:db8::1", 80), None, ("2001:db8::2", 81), None),
        ("80-target.example:8080", (b"", 80), None, ("10.0.0.9", 8080), None),
        (
            "10.0.0.1:80@0a:00:00:00:00:01-10.0.0.2:8080@0a-00-00-00-00-02",
            ("10.0.0.1", 80),
            "0a0000000001",
            ("10.0.0.2", 8080),
            "0a0000000002",
        ),
        ("80@0a:00:00:00:00:01-[::1]:81", (b"", 80), "0a0000000001", ("::1", 81), None),
    ],
)
def test_parse(
    text: str,
    source: tuple[str | bytes, int],
    source_mac: str | None,
    target: tuple[str, int],
    target_mac: str | None,
) -> None:
    (transfer,) = parse_transfers(text, resolve=resolve)
    address = source[0]
    assert transfer == Transfer(
        0,
        address if isinstance(address, bytes) else parse_address(address),
        source[1],
        None if source_mac is None else bytes.fromhex(source_mac),
        parse_address(target[0]),
        target[1],
        None if target_mac is None else bytes.fromhex(target_mac),
    )


def test_several_transfers_keep_their_order() -> None:
    transfers = parse_transfers("80-10.0.0.2:80, 81-10.0.0.3:80,[::1]:82-[::2]:80")
    assert [transfer.index for transfer in transfers] == [0, 1, 2]
    assert [str(transfer) for transfer in transfers] == [
        "80-10.0.0.2:80",
        "81-10.0.0.3:80",
        "[::1]:82-[::2]:80",
    ]


@pytest.mark.parametrize(
    ("text", "part", "problem"),
    [
        ("", "", "empty"),
        ("80-10.0.0.2:80,", "", "empty"),
        ("80", "80", "no '-'"),
        ("80:10.0.0.2:80", "80:10.0.0.2:80", "no '-'"),
        ("-10.0.0.2:80", "-10.0.0.2:80", "source: port"),
        ("0-10.0.0.2:80", "0-10.0.0.2:80", "source: port 0"),
        ("http-10.0.0.2:80", "http-10.0.0.2:80", "source: port 'http'"),
        ("web:80-10.0.0.2:80", "web:80-10.0.0.2:80", "source: 'web' is not an IP address"),
        ("10.0.0.300:80-10.0.0.2:80", "10.0.0.300:80-10.0.0.2:80", "'10.0.0.300'"),
        ("224.0.0.1:80-10.0.0.2:80", "224.0.0.1:80-10.0.0.2:80", "multicast"),
        ("::1:80-10.0.0.2:80", "::1:80-10.0.0.2:80", "brackets"),
        ("[::1]-10.0.0.2:80", "[::1]-10.0.0.2:80", "port is missing"),
        ("80-10.0.0.2", "80-10.0.0.2", "port is missing"),
        ("80-8080", "80-8080", "address is missing"),
        ("80-:8080", "80-:8080", "target: '' is not an IP address"),
        ("80-10.0.0.2:", "80-10.0.0.2:", "target: port ''"),
        ("80-10.0.0.2:65536", "80-10.0.0.2:65536", "65536"),
        ("80-10.0.0.2:-1", "80-10.0.0.2:-1", "'-1'"),
        ("80-0.0.0.0:80", "80-0.0.0.0:80", "stands for none"),
        ("80-255.255.255.255:80", "80-255.255.255.255:80", "broadcast"),
        ("80-::1:80", "80-::1:80", "brackets"),
        ("80-nowhere.example:80", "80-nowhere.example:80", "'nowhere.example' has no address"),
        ("80@0a:00-10.0.0.2:80", "80@0a:00-10.0.0.2:80", "'0a:00' is not a MAC address"),
        ("80-10.0.0.2:80@xx", "80-10.0.0.2:80@xx", "'xx' is not a MAC address"),
        ("81-10.0.0.2:80,81-10.0.0.2:80", "81-10.0.0.2:80", "twice"),
        ("81-10.0.0.2:80,0.0.0.0:81-10.0.0.2:80", "0.0.0.0:81-10.0.0.2:80", "twice"),
    ],
)
def test_refused(text: str, part: str, problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_transfers(text, resolve=resolve)
    line = str(caught.value)
    assert caught.value.option == "-x" and caught.value.value == part
    assert line.startswith(f"-x {part}:" if part else "-x:")
    assert problem in line and "\n" not in line


def test_lookup_by_address_and_port() -> None:
    found = table("10.0.0.1:80-10.0.0.2:8080,81-10.0.0.3:8080")
    assert targets(found.lookup(parse_address("10.0.0.1"), 80)) == ["10.0.0.2:8080"]
    assert found.lookup(parse_address("10.0.0.7"), 80) == ()
    assert targets(found.lookup(parse_address("10.0.0.7"), 81)) == ["10.0.0.3:8080"]
    assert targets(found.lookup(parse_address("2001:db8::7"), 81)) == ["10.0.0.3:8080"]
    assert found.lookup(parse_address("10.0.0.7"), 82) == ()


def test_one_source_to_several_targets() -> None:
    found = table("80-10.0.0.2:8080,80-10.0.0.3:8080,80-10.0.0.3:8081")
    expected = ["10.0.0.2:8080", "10.0.0.3:8080", "10.0.0.3:8081"]
    assert targets(found.lookup(parse_address("10.0.0.1"), 80)) == expected


def test_rules_with_and_without_address_meet_once_at_each_target() -> None:
    found = table("80-10.0.0.2:8080,10.0.0.1:80-10.0.0.3:8080,10.0.0.1:80-10.0.0.2:8080")
    at_both = found.lookup(parse_address("10.0.0.1"), 80)
    assert [transfer.index for transfer in at_both] == [0, 1]
    assert targets(found.lookup(parse_address("10.0.0.5"), 80)) == ["10.0.0.2:8080"]


def test_connections_to_a_target_are_not_copied() -> None:
    """The replay itself, where the capture sees it, matches "80 of any address"."""
    found = table("80-10.0.0.2:80")
    assert found.lookup(parse_address("10.0.0.2"), 80) == ()
    assert len(found.lookup(parse_address("10.0.0.1"), 80)) == 1


def test_sources_and_targets_are_named_once() -> None:
    found = table("80-10.0.0.2:80,80-10.0.0.3:80,10.0.0.1:81-10.0.0.3:80")
    assert found.sources() == ((b"", 80), (parse_address("10.0.0.1"), 81))
    assert found.targets() == ((parse_address("10.0.0.2"), 80), (parse_address("10.0.0.3"), 80))
    assert len(found) == 3
    assert [transfer.index for transfer in found] == [0, 1, 2]
    assert found[2].source_port == 81


def local(address: bytes) -> bool:
    return address == parse_address("10.0.0.1")


@pytest.mark.parametrize(
    "text",
    [
        "80-10.0.0.1:80",
        "80-127.0.0.1:80",
        "80-[::1]:80",
        "10.0.0.5:80-10.0.0.5:80",
        "80-10.0.0.2:81,81-10.0.0.1:80",  # the second's target is the first's source
        "10.0.0.1:80-10.0.0.2:81,10.0.0.2:81-10.0.0.3:80",  # a chain
    ],
)
def test_loops_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"^-x .*loop"):
        check_no_loop(parse_transfers(text), local)


@pytest.mark.parametrize(
    "text",
    [
        "80-10.0.0.2:80",
        "80-127.0.0.1:81",
        "10.0.0.1:80-127.0.0.1:80",
        "10.0.0.1:80-10.0.0.1:81",
        "80-10.0.0.2:81,81-10.0.0.2:82",
    ],
)
def test_what_is_no_loop_is_accepted(text: str) -> None:
    check_no_loop(parse_transfers(text), local)
