"""The version, and which build of the package is running."""

from __future__ import annotations

import platform
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path

VERSION = "0.1.0"


def hot_modules() -> list[str]:
    """The dotted names of all modules meant to be compiled: those with a `.pxd` beside them.

    The `.pxd` files ship with the package, so this is the list that the build used
    (`build_ext.py: COMPILED_MODULES`; a test holds the two equal).
    """
    package = Path(__file__).parent
    return sorted(
        ".".join((package.name, *path.relative_to(package).with_suffix("").parts))
        for path in package.rglob("*.pxd")
        if path.stem != "__init__"
    )


def compiled_modules() -> list[str]:
    """Those of `hot_modules` that are extension modules here."""
    found = []
    for name in hot_modules():
        spec = find_spec(name)
        if spec is not None and spec.origin and spec.origin.endswith(tuple(EXTENSION_SUFFIXES)):
            found.append(name)
    return found


def build_kind() -> str:
    """Say which build runs: "compiled", "pure", or "mixed (N of M modules)" compiled."""
    meant, compiled = len(hot_modules()), len(compiled_modules())
    if compiled == 0:
        return "pure"
    if compiled == meant:
        return "compiled"
    return f"mixed ({compiled} of {meant} modules)"


def version_line(command: str = "tcpcopy") -> str:
    """The line that `--version` prints, such as "tcpcopy 0.1.0 (compiled, Python 3.11.7)"."""
    return f"{command} {VERSION} ({build_kind()}, Python {platform.python_version()})"
