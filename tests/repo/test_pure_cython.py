"""The uncompiled package works where Cython is not installed."""

from __future__ import annotations

import ast
import os
import subprocess
import sys

import pytest

from tcpcopy import pure_cython
from tests.repo.tree import PACKAGE, ROOT, module_name, package_sources

IMPORT_ALL = """
import importlib, sys

def without_cython(finder):
    class Finder:
        @staticmethod
        def find_spec(name, path=None, target=None):
            hidden = name.split(".")[0] in ("cython", "Cython")
            return None if hidden else finder.find_spec(name, path, target)
    return Finder

sys.meta_path[:] = [without_cython(finder) for finder in sys.meta_path]
for name in sys.argv[1:]:
    importlib.import_module(name)
assert sys.modules["cython"].__name__ == "tcpcopy.pure_cython", sys.modules["cython"]
print(len(sys.argv) - 1, "modules imported")
"""


def test_all_modules_import_without_cython() -> None:
    names = [module_name(path) for path in package_sources() if path.stem != "__main__"]
    result = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, *names],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout == f"{len(names)} modules imported\n", result.stderr


def test_stand_in_has_the_names_that_are_used() -> None:
    missing = []
    for path in package_sources():
        for node in ast.walk(ast.parse(path.read_text(), str(path))):
            if not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Name):
                continue
            if node.value.id == "cython" and not hasattr(pure_cython, node.attr):
                missing.append(f"{path.relative_to(PACKAGE)}:{node.lineno} cython.{node.attr}")
    assert missing == []


def test_stand_in_agrees_with_cython() -> None:
    shadow = pytest.importorskip("Cython.Shadow")
    for kind in ("uchar", "ushort", "uint", "longlong", "Py_ssize_t"):
        for value in (0, 1, -1, 300, 2**40):
            expected = shadow.cast(getattr(shadow, kind), value)
            assert pure_cython.cast(getattr(pure_cython, kind), value) == expected
    assert pure_cython.cast("const char*", b"x") == shadow.cast("const char*", b"x")
    assert pure_cython.cast(bytes, bytearray(b"x")) == shadow.cast(bytes, bytearray(b"x"))
    assert pure_cython.compiled is shadow.compiled is False


def test_address_is_refused() -> None:
    with pytest.raises(NotImplementedError):
        pure_cython.address(0)
