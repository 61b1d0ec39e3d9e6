"""The engine owns no clock, no randomness, no socket and no log."""

from __future__ import annotations

from tests.repo.tree import PACKAGE, imports, package_declarations, package_sources

BANNED = {
    *("time", "datetime", "random", "secrets", "uuid"),
    *("os", "io", "socket", "select", "selectors", "asyncio", "subprocess", "signal", "mmap"),
    *("threading", "multiprocessing", "concurrent", "logging", "sys"),
    "posix",  # Cython's declarations of the same
}
BANNED_DECLARATIONS = {"libc.time", "libc.stdio", "libc.stdlib.rand", "libc.signal"}


def test_engine_imports_nothing_that_acts_or_varies() -> None:
    found = []
    for path in [*package_sources(), *package_declarations()]:
        if not path.is_relative_to(PACKAGE / "engine"):
            continue
        for name in sorted(imports(path)):
            if name.split(".")[0] in BANNED or name in BANNED_DECLARATIONS:
                found.append(f"{path.relative_to(PACKAGE)} imports {name}")
    assert found == []
