"""Command line of the benchmark suite."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

from benchmarks import builds, machine, tables
from benchmarks.copier import Variant
from benchmarks.floor.scenario import Floor
from benchmarks.numbers import Run
from benchmarks.scaling import Scale
from benchmarks.scenarios import ALL as REPLAYS
from benchmarks.scenarios import Scenario
from benchmarks.site import Site
from tcpcopy.demo.netns import Lab, LabError, missing_requirement
from tcpcopy.demo.processes import Interrupted, Interrupts
from tcpcopy.errors import UsageError

ALL: tuple[type[Scenario], ...] = (*REPLAYS, Floor, Scale)
_JSON = machine.ROOT / "build" / "bench.json"


class _Parser(argparse.ArgumentParser):
    """Bad usage is one line."""

    def error(self, message: str) -> NoReturn:
        option, _, problem = message.removeprefix("argument ").partition(": ")
        raise UsageError(option, "", problem or "not understood", "see --help")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The options. Raises: UsageError."""
    parser = _Parser(prog="python -m benchmarks", description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("--scenario", action="append", choices=[s.name for s in ALL], help="only this; repeats")
    add("--mode", action="append", choices=builds.MODES, help="only this; repeats")
    add("--builds", default="", help="compiled, pure, c, NAME=INTERPRETER; with commas between")
    add("--rounds", type=int, default=0, help="runs of each, in turn; 0: as the scenario has it")
    add("--seconds", type=float, default=4.0, help="of load in each run")
    add("--json", type=Path, default=_JSON, help="file for all values of all runs")
    add("--sessions", type=int, default=10_000, help="connections that `open` holds")
    add("--perf", type=Path, help="sample with perf into this directory, and show functions")
    add("--list", action="store_true", help="list the scenarios")
    options = parser.parse_args(argv)
    if not 1 <= options.seconds <= 600:
        raise UsageError("--seconds", str(options.seconds), "is out of range", "1 to 600")
    if not 0 <= options.rounds <= 100:
        raise UsageError("--rounds", str(options.rounds), "is out of range", "0 to 100")
    if not 1 <= options.sessions <= 50_000:
        raise UsageError("--sessions", str(options.sessions), "is out of range", "1 to 50000")
    return options


def say(text: str = "") -> None:
    print(text, flush=True)


class Bench:
    """Runs scenarios, variants in turn within each round; prints and keeps the results."""

    def __init__(self, options: argparse.Namespace, interrupts: Interrupts) -> None:
        self.options = options
        self.interrupts = interrupts
        names = [name for name in options.builds.split(",") if name]
        self.named = bool(names)  # what is asked for by name is run wherever it can be
        self.builds = builds.find(names or builds.default_names())
        self.modes = options.mode or ["classic", "link", "socket"]
        self.machine = machine.describe()
        self.versions = {build.name: build.version() for build in self.builds}
        self.results: list[dict[str, Any]] = []
        self.kinds = "; ".join(f"{name}: {version}" for name, version in self.versions.items())

    def variants(self, scenario: Scenario) -> list[Variant]:
        """What is compared in a scenario, in the order of a round."""
        if scenario.own_modes:
            return [
                Variant(build, mode)
                for build in self.builds
                if build.name == "compiled"
                for mode in scenario.own_modes
            ]
        found = [Variant(None)] if scenario.without_copy else []
        for build in self.builds:
            if build.name == "pure" and not (scenario.pure or self.named):
                continue
            if scenario.modes:
                found += [Variant(build, mode) for mode in scenario.modes if not build.is_c]
                continue
            # The C pair is the reference of every mode asked for.
            modes = build.modes if build.is_c else [m for m in build.modes if m in self.modes]
            found += [Variant(build, mode) for mode in modes]
        return found

    def run(self, scenario: Scenario) -> None:
        """All rounds of a scenario; its tables are printed."""
        variants = self.variants(scenario)
        rounds = self.options.rounds or scenario.rounds
        load = machine.load_average()
        runs: dict[str, list[Run]] = {variant.name: [] for variant in variants}
        with ExitStack() as stack:
            options = self.options
            site = None
            if not scenario.alone:
                lab = stack.enter_context(Lab())
                site = Site(lab, self.interrupts, options.seconds, options.sessions, options.perf)
            for number in range(rounds):
                for variant in variants:
                    print(
                        f"\r{scenario.name}: round {number + 1} of {rounds}, {variant.name}",
                        end="\x1b[K",
                        file=sys.stderr,
                        flush=True,
                    )
                    self.interrupts.check()
                    if site is None:
                        runs[variant.name].append(scenario.run_alone(variant))
                        continue
                    runs[variant.name].append(scenario.run(site, variant))
                    site.clear()
        print(end="\r\x1b[K", file=sys.stderr, flush=True)
        add_slowdown(runs)
        self._show(scenario, runs, load)

    def _show(self, scenario: Scenario, runs: dict[str, list[Run]], load: float) -> None:
        rounds = max(map(len, runs.values()), default=0)
        say(f"\n### {scenario.name}: {scenario.title}\n")
        say(
            f"{machine.line(self.machine)}; load average {load:.1f} at the start; "
            f"{self.kinds}; {rounds} rounds, minimum / median\n"
        )
        reference = next((name for name in runs if name.startswith("c,")), "")
        for columns in scenario.tables:
            say(tables.results(columns, runs) + "\n")
            if reference and (text := tables.ratios(columns, runs, reference)):
                say(f"{text}\n")
        for note in scenario.notes:
            say(f"- {note}")
        for name, profile in scenario.profiles.items():
            say(f"{name}:\n\n```\n{profile.text()}\n```\n")
        self.results.append(
            {"scenario": scenario.name, "title": scenario.title, "load_average": load, "runs": runs}
        )

    def save(self) -> None:
        """Write all values of all runs."""
        path: Path = self.options.json
        path.parent.mkdir(parents=True, exist_ok=True)
        data = {"machine": self.machine, "builds": self.versions, "results": self.results}
        path.write_text(json.dumps(data, indent=1) + "\n")


def add_slowdown(runs: dict[str, list[Run]]) -> None:
    """Online's speed beside a copy, by its speed without one in the same round."""
    alone = runs.get("no copy")
    for name, measured in runs.items() if alone else ():
        if name == "no copy":
            continue
        for index, (run, other) in enumerate(zip(measured, alone or [], strict=True)):
            speed, free = run.get("online_per_s"), other.get("online_per_s")
            measured[index] = {**run, "slowdown": speed / free if speed and free else None}


def main(argv: Sequence[str]) -> int:
    """Run; exit status 0, 1 where something failed, 2 for bad usage, 130 after Ctrl-C."""
    try:
        options = parse(argv)
        if options.list:
            for scenario in ALL:
                say(f"{scenario.name:12} {scenario.title}")
            return 0
        chosen = [s for s in ALL if not options.scenario or s.name in options.scenario]
        problem = missing_requirement()
        if problem and not all(scenario.alone for scenario in chosen):
            raise LabError(problem)
        interrupts = Interrupts()
        with interrupts.installed():
            bench = Bench(options, interrupts)
            try:
                for scenario in chosen:
                    bench.run(scenario())
            finally:
                bench.save()
            say(f"\nAll values: {options.json}")
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    except LabError as error:
        print(f"\nbench: {error}", file=sys.stderr)
        return 1
    except Interrupted as stop:
        print(f"\nbench: ended by {stop}; everything is removed", file=sys.stderr)
        return 128 + stop.number
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
