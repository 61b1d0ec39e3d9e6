"""--local: what its options come to, and what they exclude."""

from __future__ import annotations

import ipaddress

import pytest

from tcpcopy.cli import copier_config, report_context, udp_config
from tcpcopy.errors import UsageError
from tcpcopy.local_options import check_targets
from tcpcopy.local_side import LocalConfig
from tcpcopy.mapping.addresses import is_loopback, parse_address
from tcpcopy.options import Options
from tests.unit.test_options import parse, refused

X = ("-x", "80-127.0.0.1:8080")
LOCAL = (*X, "--local")
SIX = ("-x", "80-[::1]:8080", "--local")


def local(found: Options) -> LocalConfig:
    assert found.local is not None
    return found.local


def networks(found: Options) -> list[str]:
    return [str(network) for network in local(found).networks]


def test_defaults() -> None:
    found = parse(*LOCAL)
    assert not found.socket_mode and found.client_pool is None and not found.without_effect
    assert networks(found) == ["198.18.0.0/15"]
    assert local(found).device == "tcpcopy%d" and not local(found).keeps
    assert len(local(found).pool) == 2 * 256 * 254
    assert copier_config(found).local is found.local
    context = report_context(found)
    assert context.mode == "local" and context.client_addresses == ("198.18.0.0/15",)
    assert context.local_device == "tcpcopy*" and not context.needs_intercept


def test_without_it_nothing_is_local() -> None:
    assert parse(*X).local is None and parse(*X).socket_mode
    assert report_context(parse(*X)).client_addresses == ()


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ((*LOCAL, "-c", "10.254.0.0/16"), ["10.254.0.0/16"]),
        ((*LOCAL, "-c", "10.254.1.x,10.254.2.5"), ["10.254.1.0/24", "10.254.2.5/32"]),
        (SIX, ["fd00:7463:7063::/48"]),
        ((*SIX, "-c", "fd01::/64"), ["fd01::/64"]),
        (
            ("-x", "80-[::1]:8080,80-127.0.0.1:8080", "--local"),
            ["198.18.0.0/15", "fd00:7463:7063::/48"],
        ),
        ((*LOCAL, "-c", "keep"), ["198.18.0.0/15"]),
        ((*LOCAL, "-c", "keep,10.254.0.0/16"), ["10.254.0.0/16"]),
    ],
)
def test_ranges(argv: tuple[str, ...], expected: list[str]) -> None:
    """Every family of the targets has a range; `keep` has one for clients of this host."""
    found = parse(*argv)
    assert networks(found) == expected
    assert local(found).keeps == any("keep" in word for word in argv)
    for length in local(found).pool.families:
        assert any(network.max_prefixlen == length * 8 for network in local(found).networks)


@pytest.mark.parametrize(
    ("argv", "protocols"),
    [((), (6,)), (("--udp",), (17,)), (("--transport", "both"), (6, 17))],
)
def test_protocols(argv: tuple[str, ...], protocols: tuple[int, ...]) -> None:
    found = parse(*LOCAL, *argv)
    assert local(found).protocols == protocols
    udp = udp_config(found, 0)
    assert udp is None if protocols == (6,) else udp is not None and udp.forges


@pytest.mark.parametrize(
    ("argv", "option", "problem"),
    [
        ((*LOCAL, "-s", "10.0.0.9"), "-s", "is of classic mode, and --local has the target here"),
        ((*LOCAL, "-s", "10.0.0.9", "-o", "eth0"), "-s", "is of classic mode"),
        ((*LOCAL, "-L"), "-L", "is about intercept"),
        ((*LOCAL, "--udp", "-o", "eth0"), "-o", "sends frames to another host"),
        ((*X, "--local-device", "t0"), "--local-device", "is of no use without --local"),
        ((*X, "-c", "keep"), "-c", "`keep` is of --local"),
        ((*LOCAL, "-c", "fd01::/64"), "-c", "an address is IPv6, but no target is"),
        ((*LOCAL, "-c", "10.300.0.0/16"), "-c", "is not a network"),
        ((*LOCAL, "-c", "keep,nonsense"), "-c", "is not an IP address"),
        ((*LOCAL, "-c", ",".join(f"10.1.{n}.{m}" for n in range(2) for m in range(1, 201))),
         "-c", "are too many for a route each"),
        ((*LOCAL, "--workers", "2", "-c", "keep"), "--workers", "-c keep needs one device"),
        ((*LOCAL, "--workers", "2", "--local-device", "t0"), "--local-device", "each of the work"),
        ((*LOCAL, "--local-device", "a" * 16), "--local-device", "is longer than 15 characters"),
        ((*LOCAL, "--local-device", "t%d"), "--local-device", "is not a name"),
        ((*LOCAL, "--local-device", "a/b"), "--local-device", "is not a name"),
        ((*LOCAL, "--local-device", ".."), "--local-device", "is not a name"),
    ],
)  # fmt: skip
def test_refused(argv: tuple[str, ...], option: str, problem: str) -> None:
    error = refused(*argv)
    assert error.option == option
    assert problem in error.problem


def test_what_has_no_effect_is_said() -> None:
    found = parse(*LOCAL, "-H", "10.0.0.1", "-p", "4000", "-C", "3", "-f", "2")
    assert found.without_effect == ("-H", "-p", "-C")


def test_targets_are_of_this_host() -> None:
    found = parse("-x", "80-10.0.0.2:8080", "--local")
    with pytest.raises(UsageError, match=r"10\.0\.0\.2:8080.* is not an address of this host"):
        check_targets(local(found), found.transfers, is_loopback, True)
    own = parse_address("10.0.0.2")
    check_targets(local(found), found.transfers, lambda address: address == own, True)


def test_udp_answers_of_online_are_not_taken() -> None:
    """The rule of `keep` cannot tell two UDP servers of one port from each other."""
    found = parse("-x", "53-127.0.0.1:53,54-127.0.0.1:5353", "--local", "--udp", "-c", "keep")
    with pytest.raises(UsageError, match="port 53, where online is one"):
        check_targets(local(found), found.transfers, is_loopback, True)
    check_targets(local(found), found.transfers, is_loopback, False)
    for argv in (("-c", "keep"), ("--udp",)):
        found = parse("-x", "53-127.0.0.1:53", "--local", *argv)
        check_targets(local(found), found.transfers, is_loopback, True)


def test_default_ranges_are_of_nobody() -> None:
    """Benchmarks (RFC 2544) and unique local addresses (RFC 4193): not on the internet."""
    for text in networks(parse(*LOCAL)) + networks(parse(*SIX)):
        assert not ipaddress.ip_network(text).is_global
