"""The build compiles everything, or nothing and says so, or fails: as TCPCOPY_COMPILE asks.

Run on a copy of the project with one hot module, to be quick.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.repo.tree import ROOT

pytest.importorskip("Cython", reason="the build needs Cython")

HOT_SOURCE = "def twice(value: int) -> int:\n    return value * 2\n"
HOT_DECLARATION = "cpdef long twice(long value)\n"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A copy of the build with a package of a single hot module."""
    shutil.copy(ROOT / "setup.py", tmp_path)
    text = (ROOT / "build_ext.py").read_text()
    start = text.index("COMPILED_MODULES = [")
    end = text.index("]", start) + 1
    text = text[:start] + 'COMPILED_MODULES = ["tcpcopy.hot"]' + text[end:]
    (tmp_path / "build_ext.py").write_text(text)
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "tcpcopy"\nversion = "0"\n'
        '[tool.setuptools]\npackage-dir = {"" = "src"}\n'
    )
    package = tmp_path / "src" / "tcpcopy"
    package.mkdir(parents=True)
    for name, content in {
        "__init__.py": "",
        "__init__.pxd": "",
        "hot.py": HOT_SOURCE,
        "hot.pxd": HOT_DECLARATION,
    }.items():
        (package / name).write_text(content)
    return tmp_path


def build(project: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "setup.py", "-q", "build"]
    return subprocess.run(
        command,
        cwd=project,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def built(project: Path, suffix: str) -> list[str]:
    return sorted(path.name for path in (project / "build").glob(f"lib*/**/*{suffix}"))


def test_required_build_compiles(small: Path) -> None:
    result = build(small, TCPCOPY_COMPILE="require")
    assert result.returncode == 0, result.stderr
    assert "1 modules compiled" in result.stderr
    assert [name.split(".")[0] for name in built(small, ".so")] == ["_cython_utilities", "hot"]
    assert not list((small / "src").rglob("*.c")), "generated C belongs under build/"


def test_required_build_fails_without_compiler(small: Path) -> None:
    result = build(small, TCPCOPY_COMPILE="require", CC="false")
    assert result.returncode != 0
    assert "FAILED, and TCPCOPY_COMPILE=require" in result.stderr
    assert "false" in result.stderr, "it was the C compiler that failed"


def test_required_build_fails_when_a_module_does_not_translate(small: Path) -> None:
    (small / "src" / "tcpcopy" / "hot.pxd").write_text("cpdef long twice(long value, long more)\n")
    result = build(small, TCPCOPY_COMPILE="require")
    assert result.returncode != 0
    assert "Error compiling Cython file" in result.stderr
    assert "FAILED, and TCPCOPY_COMPILE=require" in result.stderr


def test_required_build_fails_when_a_listed_module_is_missing(small: Path) -> None:
    (small / "src" / "tcpcopy" / "hot.pxd").unlink()
    result = build(small, TCPCOPY_COMPILE="require")
    assert result.returncode != 0
    assert "tcpcopy.hot: listed as compiled, but has no .py and .pxd" in result.stderr


def test_auto_build_without_compiler_is_pure_and_says_so(small: Path) -> None:
    assert build(small, TCPCOPY_COMPILE="require").returncode == 0
    result = build(small, TCPCOPY_COMPILE="auto", CC="false")
    assert result.returncode == 0, result.stderr
    assert "building the pure package instead" in result.stderr
    assert built(small, ".so") == [], "an extension of the build before would ship"
    assert "hot.py" in built(small, ".py")


def test_build_that_is_not_to_compile_does_not(small: Path) -> None:
    result = build(small, TCPCOPY_COMPILE="never", CC="false")
    assert result.returncode == 0, result.stderr
    assert built(small, ".so") == []
    assert built(small, ".py") == ["__init__.py", "hot.py"]


def test_removed_module_leaves_the_build(small: Path) -> None:
    extra = small / "src" / "tcpcopy" / "extra.py"
    extra.write_text("")
    assert build(small, TCPCOPY_COMPILE="never").returncode == 0
    extra.unlink()
    assert build(small, TCPCOPY_COMPILE="never").returncode == 0
    assert built(small, ".py") == ["__init__.py", "hot.py"]


def test_unknown_mode_is_refused(small: Path) -> None:
    result = build(small, TCPCOPY_COMPILE="maybe")
    assert result.returncode != 0
    assert "TCPCOPY_COMPILE=maybe: unknown; use auto, never or require" in result.stderr
