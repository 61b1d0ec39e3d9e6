"""Namespaces by name, path and pid. Entering others takes root: tests/netns/test_namespaces.py."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tcpcopy import arguments, intercept_cli, namespaces, options
from tcpcopy.arguments import Word
from tcpcopy.errors import UsageError
from tcpcopy.namespaces import Namespace, inside, own, same

OWN = "/proc/self/ns/net"
X = ("-x", "80-10.0.0.2:8080")


@pytest.fixture
def opened() -> Iterator[Callable[[str], Namespace]]:
    """Opens namespaces that are closed after the test."""
    found = []

    def open_one(value: str) -> Namespace:
        found.append(Namespace("--netns", value))
        return found[-1]

    yield open_one
    for namespace in found:
        namespace.close()


def refusal(value: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        Namespace("--netns", value)
    assert caught.value.option == "--netns" and caught.value.value == value
    return caught.value


@pytest.mark.parametrize(
    "value", [OWN, str(os.getpid()), f"pid:{os.getpid()}"], ids=["path", "number", "pid"]
)
def test_own_namespace_by_each_form(opened: Callable[[str], Namespace], value: str) -> None:
    """It is known as one's own, and to enter it takes no privilege."""
    namespace = opened(value)
    assert same(namespace, None)
    namespace.enter()
    with inside(namespace):
        assert same(own("--netns"), namespace)


def test_name_stands_for_a_file_of_ip_netns() -> None:
    assert "in /run/netns" in refusal("no-such-name-here").problem


@pytest.mark.parametrize("value", ["pid:", "pid:x", "pid:-1", "0", "pid:0", ".", "..", "٣"])
def test_what_names_nothing(value: str) -> None:
    assert refusal(value).problem == "names no network namespace"


@pytest.mark.parametrize("value", ["4194305", "pid:9999999999"])
def test_numbers_above_all_process_ids(value: str) -> None:
    assert refusal(value).problem == "is no process id"


def test_numbers_too_long_for_one() -> None:
    """Not read as a number at all, which would take time without bound."""
    assert refusal("9" * 5000).problem == "names no network namespace"


def test_process_that_has_ended() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    assert refusal(str(child.pid)).problem == "there is no such process"


def test_paths_to_something_else(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (file, pipe, tmp_path, Path("/dev/null")):
        assert refusal(str(path)).problem == "is not a network namespace"
    for path in (tmp_path / "away", file / "below"):
        assert refusal(str(path)).problem == "there is no such network namespace"
    other_kind = refusal("/proc/self/ns/uts")
    assert other_kind.problem == "is a namespace, but not of the network"


def test_refusals_leave_nothing_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for value in (str(tmp_path), "/proc/self/ns/uts", "away"):
        refusal(value)
    assert len(os.listdir("/proc/self/fd")) == before


def test_closing_twice(opened: Callable[[str], Namespace]) -> None:
    namespace = opened(OWN)
    namespace.close()
    namespace.close()


def test_nothing_is_asked_for_without_a_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the options all goes on where there is no /proc, as in a bare chroot."""
    monkeypatch.setattr(namespaces, "_OWN", "/nowhere")
    with inside(None):
        assert same(None, None)
    with pytest.raises(UsageError) as caught:
        own("--send-netns")
    assert caught.value.option == "--send-netns"


def test_one_that_was_opened_is_not_taken_for_an_unknown_own(
    opened: Callable[[str], Namespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    namespace = opened(OWN)
    monkeypatch.setattr(namespaces, "_OWN", "/nowhere")
    assert not same(namespace, None)


# --- what the two options come to ----------------------------------------------------------------


def places(**given: str) -> tuple[Namespace | None, Namespace | None]:
    words = {name: Word(f"--{name}", value) for name, value in given.items()}
    return arguments.namespaces(words, "other")


def test_neither_option() -> None:
    assert places() == (None, None)


def test_one_for_both() -> None:
    capture, other = places(netns=OWN)
    assert capture is other and capture is not None


def test_each_has_its_own() -> None:
    """None never stands beside a namespace: the process does not stay where it was started."""
    for given in ({"netns": OWN, "other": "host"}, {"other": OWN}, {"other": "host"}):
        capture, other = places(**given)
        assert capture is not None and other is not None
        assert capture is not other


def test_fault_names_the_option_at_fault() -> None:
    with pytest.raises(UsageError) as caught:
        places(netns=OWN, other="away")
    assert caught.value.option == "--other"


def test_both_command_lines_have_them() -> None:
    found = options.parse([*X, "--netns", OWN, "--send-netns", "host"], devices=lambda: ["eth0"])
    assert found.capture_namespace is not None and found.send_namespace is not None
    assert found.capture_namespace.option == "--netns"
    assert found.send_namespace.option == "--send-netns"
    config = intercept_cli.parse(["--netns", OWN]).config
    assert config.capture_namespace is config.listen_namespace is not None
    nothing = intercept_cli.parse([]).config
    assert nothing.capture_namespace is nothing.listen_namespace is None


def test_host_is_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A namespace of that name can still be given by its path."""
    monkeypatch.setattr(namespaces, "_FOLDER", "/nowhere")
    capture, _ = places(netns="host")
    assert same(capture, None)
