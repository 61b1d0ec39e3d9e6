""".clusterfuzzlite: what can be told of it without its image. The build script is run with
stand-ins for what the image brings; what it makes are programs of targets that exist.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import yaml

from tests.fuzz.table import TARGETS, corpus
from tests.repo.tree import ROOT

FOLDER = ROOT / ".clusterfuzzlite"


def test_project_is_one_of_python() -> None:
    assert yaml.safe_load((FOLDER / "project.yaml").read_text()) == {"language": "python"}


def test_image_is_that_of_python_and_copies_what_is_there() -> None:
    lines = (FOLDER / "Dockerfile").read_text().splitlines()
    assert [line for line in lines if line.startswith("FROM")] == [
        "FROM gcr.io/oss-fuzz-base/base-builder-python:v1"
    ]
    copied = [line.split()[1] for line in lines if line.startswith("COPY")]
    assert ".clusterfuzzlite/build.sh" in copied
    assert [name for name in copied if not (ROOT / name).exists()] == []


def test_build_makes_a_program_of_each_target(tmp_path: Path) -> None:
    tools, out, source, work = (tmp_path / name for name in ("bin", "out", "src", "work"))
    for folder in (tools, out, source, work):
        folder.mkdir()
    for name, text in {
        "pip3": "exit 0",
        "compile_python_fuzzer": 'echo "$@" >>"$OUT/compiled"',
        "python3": f'exec {sys.executable} "$@"',
    }.items():
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    done = subprocess.run(
        ["bash", "-eu", str(FOLDER / "build.sh")],
        cwd=ROOT,
        env={
            **os.environ,
            "PATH": f"{tools}:{os.environ['PATH']}",
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "CFLAGS": "-O1",
            "OUT": str(out),
            "SRC": str(source),
            "WORK": str(work),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    harnesses = {path.stem.removeprefix("fuzz_"): path for path in source.glob("fuzz_*.py")}
    assert harnesses.keys() == TARGETS.keys()
    for name, path in harnesses.items():
        named = re.findall(r'run\("(\w+)"', path.read_text())
        assert named == [name]
        with ZipFile(out / f"fuzz_{name}_seed_corpus.zip") as seeds:
            assert len(seeds.namelist()) == len(corpus(TARGETS[name]))
    compiled = (out / "compiled").read_text().splitlines()
    assert len(compiled) == len(TARGETS)
    added = re.findall(r"--add-data (\S+):", compiled[0])
    assert added and all((ROOT / name).is_dir() for name in added)
