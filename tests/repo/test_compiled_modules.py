"""The build's list, the `.pxd` files and what `--version` counts are one and the same."""

from __future__ import annotations

from build_ext import COMPILED_MODULES, source_of
from tcpcopy.version import hot_modules
from tests.repo.tree import ROOT, module_name, package_declarations


def test_each_module_with_a_pxd_is_compiled_and_no_other() -> None:
    declared = [module_name(path) for path in package_declarations() if path.stem != "__init__"]
    assert sorted(COMPILED_MODULES) == sorted(declared)


def test_each_compiled_module_is_plain_python_too() -> None:
    assert [name for name in COMPILED_MODULES if not (ROOT / source_of(name)).is_file()] == []


def test_no_module_is_listed_twice() -> None:
    assert len(COMPILED_MODULES) == len(set(COMPILED_MODULES))


def test_version_counts_the_same_modules() -> None:
    assert hot_modules() == sorted(COMPILED_MODULES)
