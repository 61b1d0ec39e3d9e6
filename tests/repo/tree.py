"""The project's own files, as the repository tests read them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "tcpcopy"


def module_name(path: Path) -> str:
    """Return the dotted name of a source file of the package (`.py` or `.pxd`)."""
    parts = ("tcpcopy", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def package_sources() -> list[Path]:
    """Return all `.py` files of the package."""
    return sorted(PACKAGE.rglob("*.py"))


def package_declarations() -> list[Path]:
    """Return all `.pxd` files of the package."""
    return sorted(PACKAGE.rglob("*.pxd"))


def imports(path: Path) -> set[str]:
    """Return the dotted names that a `.py` or `.pxd` file imports, at any depth of its code.

    `from a.b import c` gives "a.b.c" and "a.b" both: c may be a module.
    """
    found = _python_imports(path) if path.suffix == ".py" else _declared_imports(path)
    # `cython.cimports.x` is the C view of x.
    return {name.removeprefix("cython.cimports.") for name in found}


def _python_imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.update(_from_names(path, node.level, node.module or "", node.names))
    return found


def _from_names(path: Path, level: int, module: str, names: list[ast.alias]) -> Iterator[str]:
    base = module
    if level:
        package = ("tcpcopy", *path.relative_to(PACKAGE).parent.parts)
        base = ".".join([*package[: len(package) - level + 1], *([module] if module else [])])
    yield base
    for alias in names:
        yield f"{base}.{alias.name}"


def _declared_imports(path: Path) -> set[str]:
    found: set[str] = set()
    text = path.read_text()
    from_import = r"^\s*from\s+([\w.]+)\s+c?import\s+\(?([^()#]*?)(?:\)|#|$)"
    for match in re.finditer(from_import, text, re.MULTILINE):
        names = [name.split()[0] for name in match[2].split(",") if name.strip()]
        found.update([match[1], *(f"{match[1]}.{name}" for name in names)])
    for match in re.finditer(r"^\s*c?import\s+([\w.]+)", text, re.MULTILINE):
        found.add(match[1])
    return found
