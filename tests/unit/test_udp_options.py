"""--udp, --transport and what other options mean with them."""

from __future__ import annotations

import pytest

from tcpcopy.cli import copier_config, udp_config
from tcpcopy.engine.datagram import MAX_ENTRIES
from tcpcopy.options import check_host
from tests.unit.test_options import SECOND, X, parse, refused

S = ("-s", "10.0.0.9")


@pytest.mark.parametrize(
    ("argv", "transport"),
    [
        ((), "tcp"),
        (("--udp",), "udp"),
        (("--transport", "udp"), "udp"),
        (("--transport", "udp", "--udp"), "udp"),
        (("--transport", "both"), "both"),
        (("--transport", "tcp"), "tcp"),
    ],
)
def test_transport(argv: tuple[str, ...], transport: str) -> None:
    found = parse(*X, *argv)
    assert found.transport == transport
    assert found.copies_udp == (transport != "tcp")
    assert found.copies_tcp == (transport != "udp")
    config = copier_config(found)
    assert (config.udp is not None, config.tcp) == (found.copies_udp, found.copies_tcp)


def test_what_is_no_transport() -> None:
    error = refused(*X, "--transport", "sctp")
    assert (error.option, error.value, error.problem) == (
        "--transport", "sctp", "is not a transport",
    )  # fmt: skip
    assert refused(*X, "--transport", "both", "--udp").problem == "contradicts --udp"


@pytest.mark.parametrize(
    ("argv", "forges"),
    [
        (("--udp",), False),
        (("--udp", *S), True),
        (("--udp", "-c", "10.7.0.0/24"), True),
        (("--udp", "-o", "eth0"), True),
        (("--transport", "both"), False),
        (("--transport", "both", *S), True),
        (("--transport", "both", "-c", "10.7.0.0/24"), False),
    ],
)
def test_who_is_shown_to_the_target(argv: tuple[str, ...], forges: bool) -> None:
    found = parse(*X, *argv)
    assert found.socket_mode is not forges
    config = copier_config(found)
    assert config.udp is not None and config.udp.forges is forges


def test_c_names_foreign_addresses_with_udp_alone() -> None:
    check_host(parse(*X, "--udp", "-c", "10.7.0.0/24"), lambda address: False)


def test_no_intercept_is_connected_for_udp_alone() -> None:
    assert copier_config(parse(*X, "--udp", *S)).intercepts == ()
    assert copier_config(parse(*X, "--transport", "both", *S)).intercepts != ()


def test_ipv6_targets() -> None:
    """Packets carry IPv6 where no classic relay has to carry the answers."""
    six = ("-x", "53-[fd00::2]:53")
    assert parse(*six, "--udp", *S).transfers
    assert parse(*six, "--transport", "both", *S).transfers
    classic = ("--relay", "classic")
    assert "IPv6" in refused(*six, "--transport", "both", *S, *classic).problem


def test_flow_timeout() -> None:
    def idle_ns(*argv: str) -> int:
        config = udp_config(parse(*X, "--udp", *argv), 0)
        assert config is not None
        return config.engine.idle_ns

    assert idle_ns() == 30 * SECOND
    assert idle_ns("--flow-timeout", "5") == 5 * SECOND
    assert refused(*X, "--flow-timeout", "0").option == "--flow-timeout"


def test_limits_of_flows() -> None:
    """Sockets take files and ports; packets memory only. With both, TCP gets half the files."""

    def limit(*argv: str, **given: int) -> int:
        config = udp_config(parse(*X, *argv), 0, **given)
        assert config is not None
        return config.engine.max_flows

    assert limit("--udp", *S, open_files=1000) == MAX_ENTRIES
    assert limit("--udp", open_files=1064) == 1000
    assert limit("--transport", "both", open_files=1064) == 500
    assert (
        copier_config(parse(*X, "--transport", "both"), open_files=1064).engine.max_sessions == 500
    )
    by_ports = limit("--udp", open_files=1 << 20)
    assert 0 < by_ports < 65536
    more = limit("--udp", open_files=1 << 20, local_addresses=4)
    assert more > 3 * by_ports


@pytest.mark.parametrize(
    ("argv", "names"),
    [
        (("--udp", "-R", "5", "-W", "-t", "5", "-O"), ("-O", "-R", "-W", "-t")),
        (("--udp", "-f", "5"), ("-f",)),
        (("--udp", *S, "-f", "5", "-M", "1400", "-p", "7", "-L"), ("-p", "-L")),
        (("--udp", "-c", "10.7.0.1", "-H", "10.7.0.2"), ()),
        (("--flow-timeout", "5"), ("--flow-timeout",)),
        (("--transport", "both", "-R", "5", "--flow-timeout", "5"), ()),
    ],
)
def test_what_has_no_effect(argv: tuple[str, ...], names: tuple[str, ...]) -> None:
    assert set(parse(*X, *argv).without_effect) == set(names)
