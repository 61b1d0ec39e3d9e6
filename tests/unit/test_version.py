"""`--version` tells the truth about what runs."""

from __future__ import annotations

import importlib.util
import platform
import re
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from pathlib import Path

import pytest

from tcpcopy import version


def pretend_compiled(monkeypatch: pytest.MonkeyPatch, compiled: set[str]) -> None:
    """Let exactly the named modules look like extension modules."""

    def find_spec(name: str) -> ModuleSpec:
        suffix = EXTENSION_SUFFIXES[0] if name in compiled else ".py"
        return ModuleSpec(name, None, origin=f"/somewhere/{name}{suffix}")

    monkeypatch.setattr(version, "find_spec", find_spec)


def test_hot_modules_are_those_with_a_declaration() -> None:
    assert "tcpcopy.packet.handler" in version.hot_modules()
    assert "tcpcopy.errors" not in version.hot_modules()
    assert not [name for name in version.hot_modules() if "__init__" in name]


def test_all_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_compiled(monkeypatch, set(version.hot_modules()))
    assert version.build_kind() == "compiled"


def test_none_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_compiled(monkeypatch, set())
    assert version.build_kind() == "pure"


def test_some_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version, "hot_modules", lambda: ["tcpcopy.a", "tcpcopy.b", "tcpcopy.c"])
    pretend_compiled(monkeypatch, {"tcpcopy.b"})
    assert version.build_kind() == "mixed (1 of 3 modules)"


def test_what_is_said_is_what_is_loaded() -> None:
    spec = importlib.util.find_spec("tcpcopy.packet.handler")
    assert spec is not None and spec.origin is not None
    is_extension = Path(spec.origin).suffix == ".so"
    assert ("tcpcopy.packet.handler" in version.compiled_modules()) is is_extension


def test_line() -> None:
    line = version.version_line("intercept")
    assert line.startswith(f"intercept {version.VERSION} (")
    assert line.endswith(f", Python {platform.python_version()})")
    assert re.fullmatch(r"intercept \d+\.\d+\.\d+ \((compiled|pure|mixed .*), Python .*\)", line)
