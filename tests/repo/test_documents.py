"""README, changelog, Makefile and metadata agree with the code."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest

from tcpcopy.version import VERSION
from tests.repo.tree import ROOT

RINGS = ["unit", "sim", "property", "vectors", "repo", "netns"]


def project() -> dict[str, Any]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        found: dict[str, Any] = tomllib.load(file)
    return found


def make_targets() -> set[str]:
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    return set(phony[1].split())


def test_changelog_opens_with_this_version() -> None:
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert next(heading for heading in headings if heading != "Unreleased") == VERSION


def test_readme_explains_each_make_target() -> None:
    readme = (ROOT / "README.md").read_text()
    missing = [t for t in sorted(make_targets() - {"help"}) if f"make {t}" not in readme]
    assert missing == []


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", ".ci/run"])
def test_documents_name_only_targets_that_exist(document: str) -> None:
    text = (ROOT / document).read_text()
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", text, re.MULTILINE))
    assert named
    assert named - make_targets() == set()


def test_both_commands_are_installed() -> None:
    assert set(project()["project"]["scripts"]) == {"tcpcopy", "intercept"}


def test_dev_tools_are_pinned_from_above() -> None:
    metadata = project()["project"]
    requirements = [*metadata["dependencies"], *metadata["optional-dependencies"]["dev"]]
    requirements += project()["build-system"]["requires"]
    assert [text for text in requirements if "<" not in text or ">=" not in text] == []


@pytest.mark.parametrize("ring", RINGS)
def test_each_ring_holds_tests(ring: str) -> None:
    """An empty ring would pass unnoticed."""
    assert list((ROOT / "tests" / ring).rglob("test_*.py"))
