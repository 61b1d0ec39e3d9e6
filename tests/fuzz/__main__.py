"""Feeds every target with mutated inputs, and keeps those that break one.

    python -m tests.fuzz --seconds 60                  all targets in turns
    python -m tests.fuzz --seed 7 engine router        these, with other inputs
    python -m tests.fuzz --run engine FILE...          files, once each
    python -m tests.fuzz --list
    python -m tests.fuzz --write-seeds FOLDER          what inputs are made of, for other fuzzers

The same seed makes the same inputs. What is found is saved, with the target, the seed and the
number of the input said; once it is mended, its file belongs into tests/fuzz/corpus/TARGET.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tcpcopy.version import version_line
from tests.fuzz.runner import Session
from tests.fuzz.table import TARGETS, corpus
from tests.fuzz.worker import problem_with


def main() -> int:
    """0: nothing found; 1: something was."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="all when none is named")
    parser.add_argument("--seconds", type=float, default=60, help="in all (default: 60)")
    parser.add_argument(
        "--seed", type=int, default=1, help="other inputs with another (default: 1)"
    )
    parser.add_argument("--found", type=Path, default=Path("build/fuzz"), metavar="FOLDER",
                        help="where inputs are saved (default: build/fuzz)")  # fmt: skip
    parser.add_argument("--run", action="store_true", help="TARGET FILE...: run these files")
    parser.add_argument("--write-seeds", type=Path, metavar="FOLDER", help="to FOLDER/TARGET")
    parser.add_argument("--list", action="store_true", help="name the targets")
    chosen = parser.parse_args()
    if chosen.list:
        for target in TARGETS.values():
            print(f"{target.name}: {len(corpus(target))} inputs to begin with")
        return 0
    if chosen.write_seeds:
        write_seeds(chosen.write_seeds)
        return 0
    if chosen.run:
        return run_files(*chosen.targets)
    if unknown := set(chosen.targets) - TARGETS.keys():
        parser.error(f"no such target: {', '.join(sorted(unknown))}; see --list")
    names = chosen.targets or list(TARGETS)
    print(f"fuzzing {version_line()}, seed {chosen.seed}, {chosen.seconds:g} s", flush=True)
    session = Session(names, chosen.seed, chosen.found)
    session.run(chosen.seconds)
    print(f"{sum(session.runs.values())} inputs: " + ", ".join(
        f"{name} {count}" for name, count in session.runs.items()
    ))  # fmt: skip
    if session.findings:
        print(f"{len(session.findings)} found; the same again with --seed {chosen.seed}")
    return 1 if session.findings else 0


def write_seeds(folder: Path) -> None:
    """A folder for each target, with the inputs that it begins with."""
    for target in TARGETS.values():
        (folder / target.name).mkdir(parents=True, exist_ok=True)
        for place, data in enumerate(corpus(target)):
            (folder / target.name / f"{place:03}").write_bytes(data)


def run_files(name: str, *paths: str) -> int:
    """Run files on one target, in this process."""
    failed = 0
    for path in paths:
        problem = problem_with(TARGETS[name], Path(path).read_bytes())
        print(f"{path}: {problem.strip() or 'fine'}")
        failed += bool(problem)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
