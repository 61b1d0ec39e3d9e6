"""--single and --disable-combined on both command lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from tcpcopy import intercept_cli, options
from tcpcopy.errors import UsageError
from tcpcopy.relay.classic import Layout
from tcpcopy.relay.native import RelayMode

CLASSIC = ["-x", "80-10.0.0.2:8080", "-s", "10.0.0.3"]


def tcpcopy(*words: str) -> options.Options:
    return options.parse([*CLASSIC, *words])


def test_tcpcopy_announces_nothing_and_so_speaks_classic() -> None:
    relay = tcpcopy("--single").relay
    assert (relay.single, relay.mode) == (True, RelayMode.CLASSIC)
    assert tcpcopy("--disable-combined").relay.bare
    assert not tcpcopy().relay.single


def test_intercept_takes_what_it_is_told() -> None:
    config = intercept_cli.parse(["--single", "--disable-combined"]).config
    assert config.relay.single and config.layout is Layout.BARE
    assert config.relay.mode is RelayMode.AUTO  # a native tcpcopy may connect as well
    assert intercept_cli.parse([]).config.layout is None  # found out


@pytest.mark.parametrize("switch", ["--single", "--disable-combined"])
@pytest.mark.parametrize("other", [["--relay", "native"], ["--secret-file", "SECRET"], ["--tls"]])
def test_they_are_about_the_classic_relay(switch: str, other: list[str], tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.touch(0o600)
    secret.write_text("what both of them know\n")
    words = [str(secret) if word == "SECRET" else word for word in other]
    with pytest.raises(UsageError, match="classic"):
        tcpcopy(switch, *words)


def test_workers_would_get_each_other_s_answers() -> None:
    with pytest.raises(UsageError, match="--workers"):
        tcpcopy("--single", "--workers", "2")
    assert tcpcopy("--single", "--workers", "1").workers == 1


def test_two_formats_are_refused() -> None:
    with pytest.raises(UsageError, match="--disable-combined"):
        intercept_cli.parse(["--disable-combined", "--relay-format", "batched"])
    same = intercept_cli.parse(["--disable-combined", "--relay-format", "bare"])
    assert same.config.layout is Layout.BARE
