"""Compiles `copying` for the interpreter that runs the suite, with the package's own recipe."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.machine import ROOT
from tcpcopy.demo.netns import LabError

_SOURCES = Path(__file__).resolve().parent
_DIRECTORY = ROOT / "build" / "bench-floor"
_RECIPE = """
import sys
sys.path.insert(0, {root!r})
from build_ext import COMPILE_ARGS, QUIET_ARGS, directives
from Cython.Build import cythonize
from setuptools import Extension, setup
extension = Extension("copying", ["copying.py"], extra_compile_args=COMPILE_ARGS + QUIET_ARGS)
setup(
    name="copying",
    ext_modules=cythonize(
        [extension], compiler_directives=directives(), include_path=[{source!r}], quiet=True
    ),
    script_args=["-q", "build_ext", "--inplace"],
)
"""


def build() -> Path:
    """The directory that the compiled module is in. Raises `LabError`: it cannot be compiled."""
    shutil.rmtree(_DIRECTORY, ignore_errors=True)
    _DIRECTORY.mkdir(parents=True)
    for name in ("copying.py", "copying.pxd"):
        shutil.copy(_SOURCES / name, _DIRECTORY)
    recipe = _RECIPE.format(root=str(ROOT), source=str(ROOT / "src"))
    done = subprocess.run(
        [sys.executable, "-c", recipe], cwd=_DIRECTORY, capture_output=True, text=True, check=False
    )
    if done.returncode or not list(_DIRECTORY.glob("copying*.so")):
        lines = done.stderr.strip().splitlines() or ["no extension module came out"]
        raise LabError(f"floor: cannot be compiled ({lines[-1]}); needs Cython and a C compiler")
    (_DIRECTORY / "copying.py").unlink()  # or it could be imported instead
    return _DIRECTORY
