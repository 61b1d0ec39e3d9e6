"""What the options of tunnels come to, at both ends."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from tcpcopy import options
from tcpcopy.errors import UsageError
from tcpcopy.intercept_cli import parse
from tcpcopy.mapping.addresses import parse_address
from tcpcopy.tunnel_end import DEFAULT_CLIENTS, TunnelConfig, servers_of
from tests.unit.relay.certificates import write_secret


@pytest.fixture
def secret(tmp_path: Path) -> str:
    return write_secret(tmp_path)


def end(secret: str, *words: str) -> TunnelConfig:
    config = parse(["--tun", "--secret-file", secret, *words]).config
    assert config.tunnel is not None and config.relay.tunnel and config.relay.native_only
    return config.tunnel


def begin(secret: str, *words: str, target: str = "10.0.0.2:80") -> options.Options:
    given = ["-x", f"80-{target}", "--via", "tunnel", "-s", "10.0.0.2", "--secret-file", secret]
    return options.parse([*given, *words], devices=lambda: ["eth0"])


def test_intercept_without_and_with_defaults(secret: str) -> None:
    assert parse([]).config.tunnel is None
    assert end(secret) == TunnelConfig("tcpcopy-t0", DEFAULT_CLIENTS, ())


def test_intercept_with_everything(secret: str) -> None:
    config = end(
        secret, "--tun-device", "t9", "--tun-allow", "10.0.0.2,[fd00::2]:80",
        "--tun-clients", "62.135.200.x,fd99::/64",
    )  # fmt: skip
    assert config.device == "t9"
    assert config.allowed == ((parse_address("10.0.0.2"), 0), (parse_address("fd00::2"), 80))
    assert config.clients == tuple(
        ipaddress.ip_network(text) for text in ("62.135.200.0/24", "fd99::/64")
    )


def test_intercept_that_keeps_the_clients_addresses(secret: str) -> None:
    config = end(secret, "--tun-clients", "keep", "--tun-allow", "10.0.0.2:80,10.0.0.2:81")
    assert config.clients == () and len(config.allowed) == 2


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--tun-allow", "10.0.0.2:80,x"), "--tun-allow x: "),
        (("--tun-allow", "10.0.0.2:0"), "--tun-allow 10.0.0.2:0: port 0 is not in"),
        (("--tun-allow", ""), "--tun-allow"),
        (("--tun-clients", "10.0.0.1/8"), "--tun-clients 10.0.0.1/8: is no network"),
        (("--tun-clients", "keep,10.0.0.0/8"), "--tun-clients keep: is no network"),
        (("--tun-clients", "keep"), "--tun-clients keep: needs the ports"),
        (
            ("--tun-clients", "keep", "--tun-allow", "10.0.0.2:80,10.0.0.3"),
            "--tun-clients keep: needs the ports",
        ),
        (("--tun-device", "a" * 16), "is no name of a device"),
        (("--tun-device", "a/b"), "is no name of a device"),
        (("-F", "tcp"), "-F tcp: is of no use with --tun"),
        (("--relay", "classic"), "the classic relay has neither secret nor TLS"),
    ],
)
def test_intercept_refuses(secret: str, words: tuple[str, ...], problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(["--tun", "--secret-file", secret, *words])
    assert problem in str(caught.value)


def test_tcpcopy_without_a_tunnel(secret: str) -> None:
    found = options.parse(["-x", "80-10.0.0.2:80", "--via", "network"])
    assert found.socket_mode and not found.relay.tunnel
    assert found.client_pool is None


@pytest.mark.parametrize(
    ("target", "clients"),
    [
        ("10.0.0.2:80", ("198.18.0.0/15",)),
        ("[fd00::2]:80", ("fd00:7463:7063::/48",)),
        ("10.0.0.2:80,80-[fd00::2]:80", ("198.18.0.0/15", "fd00:7463:7063::/48")),
    ],
)
def test_tcpcopy_takes_the_range_of_its_targets(
    secret: str, target: str, clients: tuple[str, ...]
) -> None:
    found = begin(secret, target=target)
    assert found.relay.tunnel and not found.socket_mode and not found.without_effect
    assert found.client_addresses == clients
    assert found.client_pool is not None
    lengths = {16 if ":" in network else 4 for network in clients}
    assert found.client_pool.families == lengths


def test_tcpcopy_with_clients_given(secret: str) -> None:
    assert begin(secret, "-c", "10.9.0.x").client_addresses == ("10.9.0.x",)
    kept = begin(secret, "-c", "keep")
    assert kept.client_pool is None and kept.client_addresses == ()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--via", "air"), "--via air: is no way to the target"),
        (("--udp", "-o", "eth0"), "-o eth0: sends frames"),
        (("-o", "eth0"), "-o eth0: sends frames"),
        (("--relay", "classic"), "the classic relay has neither secret nor TLS"),
        (("--local",), "--local has the target here"),
    ],
)
def test_tcpcopy_refuses(secret: str, words: tuple[str, ...], problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        begin(secret, *words)
    assert problem in str(caught.value)


@pytest.mark.parametrize("words", [("--udp",), ("--transport", "both")])
def test_tcpcopy_of_udp(secret: str, words: tuple[str, ...]) -> None:
    found = begin(secret, *words)
    assert found.relay.tunnel and not found.without_effect and found.client_pool is not None


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("-s", "10.0.0.2"), "--via tunnel: needs a shared secret"),
        (("--secret-file", "SECRET"), "--via tunnel: needs -s"),
    ],
)
def test_tcpcopy_needs_both(secret: str, words: tuple[str, ...], problem: str) -> None:
    given = [secret if word == "SECRET" else word for word in words]
    with pytest.raises(UsageError) as caught:
        options.parse(["-x", "80-10.0.0.2:80", "--via", "tunnel", *given])
    assert problem in str(caught.value)


def test_intercept_needs_a_secret() -> None:
    with pytest.raises(UsageError, match="--tun: needs a shared secret"):
        parse(["--tun"])


@pytest.mark.parametrize("word", ["--tun-device", "--tun-allow", "--tun-clients"])
def test_options_of_a_tunnel_without_one(word: str) -> None:
    with pytest.raises(UsageError, match="is of no use without --tun"):
        parse([word, "10.0.0.1"])


def test_one_rule_for_each_port_of_udp() -> None:
    """An address of its own is looked at for TCP alone: the rules of UDP would be the same."""
    v4, other, v6 = (parse_address(text) for text in ("10.0.0.2", "10.0.0.3", "fd00::2"))
    found = servers_of([(v4, 80), (other, 80), (v4, 81), (v6, 80), (v4, 80)])
    tcp = [(server.address, server.port) for server in found if server.protocol == 6]
    udp = [(len(server.address), server.port) for server in found if server.protocol == 17]
    assert tcp == [(v4, 80), (other, 80), (v4, 81), (v6, 80)]
    assert udp == [(4, 80), (4, 81), (16, 80)]
