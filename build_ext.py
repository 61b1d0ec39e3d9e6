"""Compiles the hot modules with Cython; the rest of the package stays plain Python.

The hot modules are ordinary `.py` files whose C types stand in a `.pxd` beside them, so the package
works without this step, only slower. The environment decides:

- `TCPCOPY_COMPILE=auto` (default): compile, and if that is not possible build the pure package and
  say so. All or nothing: compiled modules use each other's C types, so a mixture does not import.
- `TCPCOPY_COMPILE=require`: compile, and any failure (no Cython, no compiler, a translation error,
  a C error) fails the build.
- `TCPCOPY_COMPILE=never`: the pure package.
- `TCPCOPY_DEBUG=1`: compile with bounds checks, for hunting; slower.
- `TCPCOPY_SANITIZE=1`: compile the same C with gcc's address and undefined-behaviour sanitizers, to
  find what reads or writes out of bounds; runs under scripts/sanitized.sh only.

Uses no state outside `build/`: the generated C goes to `build/cython`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from setuptools import Extension
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

# Each module with a `.pxd` beside it, and no other (tests/repo/test_compiled_modules.py).
COMPILED_MODULES = [
    "tcpcopy.capture.backlog",
    "tcpcopy.capture.ring",
    "tcpcopy.capture.unwrapping",
    "tcpcopy.deliver.batches",
    "tcpcopy.deliver.datagrams",
    "tcpcopy.deliver.link",
    "tcpcopy.deliver.raw",
    "tcpcopy.deliver.tun",
    "tcpcopy.engine.captured",
    "tcpcopy.engine.chunk",
    "tcpcopy.engine.client",
    "tcpcopy.engine.context",
    "tcpcopy.engine.counts",
    "tcpcopy.engine.datagram",
    "tcpcopy.engine.ended",
    "tcpcopy.engine.engine",
    "tcpcopy.engine.flood",
    "tcpcopy.engine.flow",
    "tcpcopy.engine.flows",
    "tcpcopy.engine.forged",
    "tcpcopy.engine.half_open",
    "tcpcopy.engine.handshakes",
    "tcpcopy.engine.incoming",
    "tcpcopy.engine.kernel",
    "tcpcopy.engine.newcomers",
    "tcpcopy.engine.opening",
    "tcpcopy.engine.pacing",
    "tcpcopy.engine.pauses",
    "tcpcopy.engine.receiver",
    "tcpcopy.engine.replayed",
    "tcpcopy.engine.round_trip",
    "tcpcopy.engine.sender",
    "tcpcopy.engine.seqnum",
    "tcpcopy.engine.session",
    "tcpcopy.engine.syn",
    "tcpcopy.engine.timers",
    "tcpcopy.engine.unread",
    "tcpcopy.ledger",
    "tcpcopy.loop",
    "tcpcopy.mapping.allocator",
    "tcpcopy.mapping.places",
    "tcpcopy.mapping.portmap",
    "tcpcopy.mapping.ports",
    "tcpcopy.packet.batch",
    "tcpcopy.packet.checksum",
    "tcpcopy.packet.frame",
    "tcpcopy.packet.handler",
    "tcpcopy.packet.links",
    "tcpcopy.packet.networks",
    "tcpcopy.packet.segment",
    "tcpcopy.packet.twins",
    "tcpcopy.packet.tunnels",
    "tcpcopy.packet.unwrap",
    "tcpcopy.recorded.feed",
    "tcpcopy.recorded.flows",
    "tcpcopy.recorded.pcapng",
    "tcpcopy.recorded.records",
    "tcpcopy.recorded.stream",
    "tcpcopy.relay.client",
    "tcpcopy.relay.connection",
    "tcpcopy.relay.headers",
    "tcpcopy.relay.injection",
    "tcpcopy.relay.native_records",
    "tcpcopy.relay.own",
    "tcpcopy.relay.records",
    "tcpcopy.relay.route",
    "tcpcopy.relay.router",
    "tcpcopy.report.histogram",
    "tcpcopy.said.answer",
    "tcpcopy.said.tally",
    "tcpcopy.waiting",
]

# Made by Cython: what the compiled modules have in common, which each would hold again otherwise.
SHARED_UTILITIES = "tcpcopy._cython_utilities"

SOURCE_ROOT = Path("src")
GENERATED_C = Path("build") / "cython"
COMPILE_ARGS = ["-O2", "-g0", "-Wall", "-Wconversion", "-Wno-sign-conversion"]
# What Cython's own generated code trips over; the warnings stay on for what we wrote.
QUIET_ARGS = ["-Wno-unused-function", "-Wno-unused-but-set-variable"]
# Not optimized: quick to compile, and nothing undefined is optimized away before it is seen.
# Python's own flags hold -fwrapv, under which gcc takes no signed overflow for undefined.
SANITIZE_ARGS = [
    "-O0",
    "-g1",
    "-fno-omit-frame-pointer",
    "-fno-wrapv",
    "-fsanitize=address,undefined",
]


class BuildRefused(Exception):
    """The build cannot go on as asked; the text says why."""


def compile_mode() -> str:
    """Return what `TCPCOPY_COMPILE` asks for: "auto", "never" or "require"."""
    mode = os.environ.get("TCPCOPY_COMPILE", "") or "auto"
    if mode not in ("auto", "never", "require"):
        raise BuildRefused(f"TCPCOPY_COMPILE={mode}: unknown; use auto, never or require")
    return mode


def is_debug_build() -> bool:
    """Return whether `TCPCOPY_DEBUG` asks for bounds checks."""
    return os.environ.get("TCPCOPY_DEBUG", "") not in ("", "0")


def is_sanitized_build() -> bool:
    """Return whether `TCPCOPY_SANITIZE` asks for the sanitizers."""
    return os.environ.get("TCPCOPY_SANITIZE", "") not in ("", "0")


def compile_args() -> list[str]:
    """Return what the C compiler is told."""
    return (SANITIZE_ARGS if is_sanitized_build() else COMPILE_ARGS) + QUIET_ARGS


def directives() -> dict[str, Any]:
    """Return the Cython directives of this build."""
    debug = is_debug_build()
    return {
        "language_level": 3,
        # C types stand in the `.pxd` only; the annotations are for the type checker.
        "annotation_typing": False,
        "boundscheck": debug,
        "wraparound": False,
        "initializedcheck": debug,
        "cdivision": not debug,
    }


def source_of(module: str) -> Path:
    """Return the path of a module's `.py`, from the project's root."""
    return SOURCE_ROOT.joinpath(*module.split(".")).with_suffix(".py")


def extension_modules() -> list[Extension]:
    """Return the extensions to declare to setuptools: all hot modules, or none."""
    if compile_mode() == "never":
        return []
    links = ["-fsanitize=address,undefined"] if is_sanitized_build() else []
    sources = {module: [str(source_of(module))] for module in COMPILED_MODULES}
    return [
        Extension(name, files, extra_compile_args=compile_args(), extra_link_args=links)
        for name, files in {**sources, SHARED_UTILITIES: []}.items()
    ]


def say(text: str) -> None:
    """Print a line that survives the build front end's filtering of standard output."""
    print(f"tcpcopy build: {text}", file=sys.stderr, flush=True)


def translate(extensions: list[Extension], *, force: bool) -> None:
    """Translate the modules to C and make that their source.

    Raises whatever Cython raises, on the first module that fails.
    """
    from Cython.Build import cythonize

    for module in COMPILED_MODULES:
        source = source_of(module)
        if not source.is_file() or not source.with_suffix(".pxd").is_file():
            raise BuildRefused(f"{module}: listed as compiled, but has no .py and .pxd")
    translated = cythonize(
        extensions,
        compiler_directives=directives(),
        build_dir=str(GENERATED_C),
        nthreads=os.cpu_count() or 1,
        shared_utility_qualified_name=SHARED_UTILITIES,
        force=force,
        quiet=True,
    )
    # setuptools has prepared the declared objects: they stay, with other sources.
    sources = {extension.name: extension.sources for extension in translated}
    for extension in extensions:
        extension.sources = sources[extension.name]


def translation_recipe() -> str:
    """Return what, besides the sources, decides how the C comes out."""
    from Cython import __version__ as cython_version

    return repr([cython_version, sys.version, sorted(directives().items())])


def compilation_recipe() -> str:
    """Return what, besides the sources, decides what comes out of all."""
    compiler = [compile_args(), os.environ.get("CC"), os.environ.get("CFLAGS")]
    return translation_recipe() + repr(compiler)


@contextmanager
def up_to_date(folder: Path, recipe: str) -> Iterator[bool]:
    """Give whether what `folder` holds was made by that recipe; note it there once it is.

    A failure forgets what was there, so that the next build makes everything anew.
    """
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / "tcpcopy-recipe"
    digest = hashlib.sha256(recipe.encode()).hexdigest()
    is_current = note.is_file() and note.read_text() == digest
    note.unlink(missing_ok=True)
    yield is_current
    note.write_text(digest)


class BuildHotModules(build_ext):
    """`build_ext` that never fails half-way: all modules, or (mode "auto") none."""

    extensions: list[Extension]
    parallel: int | None
    force: bool | None

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count() or 1

    def run(self) -> None:
        declared = list(self.extensions or [])
        self._prune(keep=declared)
        if not declared:
            return
        mode = compile_mode()
        try:
            # Builds that differ only in what the C compiler is told have one translation.
            with up_to_date(GENERATED_C, translation_recipe()) as is_current:
                translate(declared, force=bool(self.force) or not is_current)
            with up_to_date(Path(self.build_temp), compilation_recipe()) as is_current:
                self.force = bool(self.force) or not is_current
                super().run()
                self._check(declared)
        # SystemExit too: setuptools raises it for some compiler failures.
        except (Exception, SystemExit) as error:
            if mode == "require":
                say(f"FAILED, and TCPCOPY_COMPILE=require: {error}")
                raise
            say(f"cannot compile here: {type(error).__name__}: {error}")
            say("building the pure package instead: it works, only slower")
            self._fall_back(declared)
        else:
            kind = "compiled, with bounds checks" if is_debug_build() else "compiled"
            kind += ", with sanitizers" if is_sanitized_build() else ""
            say(f"{len(COMPILED_MODULES)} modules {kind}")

    def get_source_files(self) -> list[str]:
        """Return what a source distribution needs; the declared `.py`, never the generated C."""
        return [str(source_of(module)) for module in COMPILED_MODULES]

    def _check(self, declared: list[Extension]) -> None:
        """Refuse a build that "succeeded" without making every extension."""
        missing = [e.name for e in declared if not Path(self.get_ext_fullpath(e.name)).is_file()]
        if missing:
            raise BuildRefused(f"no extension module came out for {', '.join(missing)}")

    def _fall_back(self, declared: list[Extension]) -> None:
        """Turn this build into the pure one: no extension left behind, a wheel for any platform."""
        for extension in declared:
            Path(self.get_ext_fullpath(extension.name)).unlink(missing_ok=True)
        self.extensions = []
        self.distribution.ext_modules = []
        wheel = self.distribution.get_command_obj("bdist_wheel", create=False)
        if wheel is not None:
            wheel.root_is_pure = True

    def _prune(self, *, keep: list[Extension]) -> None:
        """Remove extension modules of an earlier build that are not to be kept."""
        if self.inplace or self.build_lib is None:
            return
        kept = {Path(self.get_ext_fullpath(extension.name)).resolve() for extension in keep}
        for path in Path(self.build_lib).rglob("*.so"):
            if path.resolve() not in kept:
                path.unlink()


class BuildFreshPackage(build_py):
    """`build_py` that starts from an empty folder: no module that has since been removed ships."""

    def run(self) -> None:
        stale = Path(self.build_lib) / "tcpcopy"
        if stale.is_dir() and not self.editable_mode:
            extensions = set(stale.rglob("*.so"))
            for path in sorted(stale.rglob("*"), reverse=True):
                if path.is_file() and path not in extensions:
                    path.unlink()
                elif path.is_dir() and not any(path.iterdir()):
                    shutil.rmtree(path)
        super().run()


COMMANDS: dict[str, Any] = {"build_ext": BuildHotModules, "build_py": BuildFreshPackage}
