"""The builds that are compared: which programs to start, and with what environment."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import ROOT
from tcpcopy.errors import UsageError

#: Prefix under which sbin/tcpcopy and sbin/intercept of the C pair are installed.
C_PREFIX = "TCPCOPY_BENCH_C"
#: Or each program by its path.
C_PROGRAMS = {name: f"{C_PREFIX}_{name.upper()}" for name in ("tcpcopy", "intercept")}
#: What carries the requests to the target.
MODES = ("classic", "link", "link-no-tso", "socket", "workers-2", "workers-4")


@dataclass(frozen=True, slots=True)
class Build:
    """One pair of programs."""

    name: str
    tcpcopy: tuple[str, ...]  # command without its options
    intercept: tuple[str, ...]
    environment: Mapping[str, str]
    is_c: bool = False

    @property
    def modes(self) -> tuple[str, ...]:
        """Modes that it knows."""
        return ("classic",) if self.is_c else MODES

    def version(self) -> str:
        """What it says of itself, in one line."""
        done = subprocess.run(
            [*self.tcpcopy, "-v"],
            capture_output=True,
            text=True,
            check=False,
            env=dict(self.environment),
            cwd="/",
        )
        lines = (done.stdout + done.stderr).strip().splitlines()
        return lines[0].strip() if lines else f"no version (exit status {done.returncode})"


def _python_build(name: str, interpreter: str, sources: Path | None = None) -> Build:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if sources is not None:
        environment["PYTHONPATH"] = str(sources)
    # -P: what is in the current directory is not what is measured.
    command = (interpreter, "-P", "-m")
    return Build(name, (*command, "tcpcopy.cli"), (*command, "tcpcopy.intercept_cli"), environment)


def c_paths(environment: Mapping[str, str] = os.environ) -> tuple[str, str] | None:
    """Paths of the C tcpcopy and intercept out of the environment; None if it names none."""
    prefix = environment.get(C_PREFIX, "")
    paths = [
        environment.get(variable) or (f"{prefix}/sbin/{name}" if prefix else "")
        for name, variable in C_PROGRAMS.items()
    ]
    if not any(paths):
        return None
    for variable, path in zip(C_PROGRAMS.values(), paths, strict=True):
        if not os.access(path, os.X_OK):
            raise UsageError(
                variable,
                path,
                "is no program",
                f"set {C_PREFIX} to the prefix that both programs are installed under, or "
                f"{' and '.join(C_PROGRAMS.values())} to their paths",
            )
    return paths[0], paths[1]


def default_names() -> list[str]:
    """What is compared unless asked otherwise."""
    return ["compiled", "pure"] + (["c"] if c_paths() else [])


def find(names: Sequence[str]) -> list[Build]:
    """The builds of these names; `name=INTERPRETER` is a package installed elsewhere.

    Raises: UsageError.
    """
    builds = []
    for name in names:
        label, _, interpreter = name.partition("=")
        if interpreter:
            if not os.access(interpreter, os.X_OK):
                raise UsageError(
                    "--builds", name, "is no interpreter", "give the path of a venv's bin/python"
                )
            builds.append(_python_build(label, interpreter))
        elif name == "compiled":
            builds.append(_python_build(name, sys.executable))
        elif name == "pure":
            builds.append(_python_build(name, sys.executable, ROOT / "src"))
        elif name == "c":
            paths = c_paths()
            if paths is None:
                raise UsageError(
                    "--builds",
                    name,
                    "the C programs are nowhere",
                    f"set {C_PREFIX} to their prefix",
                )
            builds.append(Build(name, paths[:1], paths[1:], dict(os.environ), is_c=True))
        else:
            raise UsageError(
                "--builds", name, "no such build", "compiled, pure, c, or NAME=INTERPRETER"
            )
    return builds
