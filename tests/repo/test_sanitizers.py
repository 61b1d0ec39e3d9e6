"""scripts/sanitized.sh finds what it is for: faults planted in a project of one hot module."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.repo.tree import ROOT

pytest.importorskip("Cython", reason="the build needs Cython")

HOT_SOURCE = """
def byte_at(data, place):
    return data[place]

def shifted(value, places):
    return value << places
"""
HOT_DECLARATION = """
cpdef int byte_at(const unsigned char[::1] data, Py_ssize_t place)
cpdef int shifted(int value, int places)
"""


def has_sanitizers() -> bool:
    """Whether the C compiler here brings the run-time of both."""
    for name in ("libasan.so", "libubsan.so"):
        found = subprocess.run(
            ["cc", f"-print-file-name={name}"], capture_output=True, text=True, check=False
        )
        if not found.stdout.startswith("/"):
            return False
    return True


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose only compiled module does what it is told, compiled with sanitizers."""
    if not shutil.which("cc") or not has_sanitizers():
        pytest.skip("the C compiler here has no sanitizers")
    project = tmp_path_factory.mktemp("sanitized")
    for folder in ("scripts", "src/tcpcopy", "tests/fuzz"):
        (project / folder).mkdir(parents=True)
    shutil.copy(ROOT / "setup.py", project)
    shutil.copy(ROOT / "scripts/sanitized.sh", project / "scripts")
    shutil.copy(ROOT / "tests/fuzz/ubsan.supp", project / "tests/fuzz")
    (project / ".venv").symlink_to(sys.prefix)
    text = (ROOT / "build_ext.py").read_text()
    start = text.index("COMPILED_MODULES = [")
    end = text.index("]", start) + 1
    text = text[:start] + 'COMPILED_MODULES = ["tcpcopy.hot"]' + text[end:]
    (project / "build_ext.py").write_text(text)
    (project / "pyproject.toml").write_text(
        '[project]\nname = "tcpcopy"\nversion = "0"\n'
        '[tool.setuptools]\npackage-dir = {"" = "src"}\n'
    )
    for name, content in {
        "__init__.py": "",
        "__init__.pxd": "",
        "hot.py": HOT_SOURCE,
        "hot.pxd": HOT_DECLARATION,
    }.items():
        (project / "src/tcpcopy" / name).write_text(content)
    done = run(project, "build")
    assert done.returncode == 0, done.stderr
    assert "1 modules compiled, with sanitizers" in done.stderr
    return project


def run(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["scripts/sanitized.sh", *arguments],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )


def python(project: Path, call: str) -> subprocess.CompletedProcess[str]:
    code = "from array import array; from tcpcopy import hot; "
    return run(
        project, "run", "-c", code + f"data = array('B', array('B', range(20))); print({call})"
    )


def test_sound_code_runs_as_ever(sanitized: Path) -> None:
    done = python(sanitized, "hot.byte_at(data, 19), hot.shifted(1, 30)")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"19 {1 << 30}\n", "")


@pytest.mark.parametrize("place", [20, -1])
def test_a_byte_out_of_bounds_ends_the_process(sanitized: Path, place: int) -> None:
    """Python's own bytes would have one more behind them: an array has not."""
    done = python(sanitized, f"hot.byte_at(data, {place})")
    assert done.returncode == 99
    assert "heap-buffer-overflow" in done.stderr and "byte_at" in done.stderr


@pytest.mark.parametrize("call", ["hot.shifted(135, 24)", "hot.shifted(1, 32)"])
def test_an_undefined_shift_ends_the_process(sanitized: Path, call: str) -> None:
    """The first although Python is compiled with -fwrapv, which makes it defined."""
    done = python(sanitized, call)
    assert done.returncode == 99
    assert "runtime error" in done.stderr and "shift" in done.stderr
