"""Folders are layers: imports go down only (docs/design.md), C imports included."""

from __future__ import annotations

import graphlib

import pytest

from tests.repo.tree import imports, module_name, package_declarations, package_sources

# Top first. A part is a module or a folder right under the package.
LAYERS: list[set[str]] = [
    {
        "__main__",
        "cli",
        "inspect_cli",
        "doctor_cli",
        "doctor_plan",
        "doctor_probe",
        "process_options",
        "state_options",
        "intercept_cli",
        "options",
        "recorded_options",
        "arguments",
        "relay_options",
        "local_options",
        "tunnel_options",
        "demo",
    },
    {"supervisor", "workers"},
    {"rights"},
    {"copier", "interceptor"},
    {"leftover_side", "run_files"},
    {"capture_side"},
    {"copier_config"},
    {"ending", "figures"},
    {
        "loop",
        "retry_side",
        "socket_side",
        "udp_side",
        "local_side",
        "tunnel_end",
        "own_addresses",
        "probe_side",
        "handshake_side",
        "doctor",
    },
    {"said_side"},
    {"engine", "deliver", "relay", "recorded"},
    {"packet", "mapping", "capture", "report"},
    {
        "errors",
        "version",
        "memory",
        "memory_limit",
        "pure_cython",
        "waiting",
        "namespaces",
        "output_files",
        "privileges",
        "rehearsal",
        "threads",
        "ledger",
        "report_file",
        "said",
    },
]
DEPTH = {part: depth for depth, parts in enumerate(LAYERS) for part in parts}


def part_of(module: str) -> str:
    """Return the part that a module of the package belongs to; "" for the package itself."""
    return [*module.split("."), ""][1]


def edges() -> set[tuple[str, str, str]]:
    """Return (file's module, its part, imported part) for each import between two parts."""
    parts = {part_of(module_name(path)) for path in package_sources()} - {""}
    found = set()
    for path in [*package_sources(), *package_declarations()]:
        module = module_name(path)
        for name in imports(path):
            imported = part_of(name)
            if name.startswith("tcpcopy.") and imported in parts and imported != part_of(module):
                found.add((f"{module} ({path.suffix})", part_of(module), imported))
    return found


def test_every_part_has_a_layer() -> None:
    """A new module or folder is given its place in LAYERS and in docs/design.md."""
    parts = {part_of(module_name(path)) for path in package_sources()} - {""}
    assert parts - DEPTH.keys() == set()


def test_imports_go_down_only() -> None:
    upward = [
        f"{module} imports {imported}, which is above it"
        for module, part, imported in sorted(edges())
        if part and DEPTH.get(imported, 0) < DEPTH.get(part, 0)
    ]
    assert upward == []


def test_package_itself_imports_no_part() -> None:
    """`import tcpcopy` stays instant and free of cycles; only Cython's stand-in is below it."""
    assert {imported for _, part, imported in edges() if not part} <= {"pure_cython"}


def test_parts_of_one_layer_do_not_import_in_circles() -> None:
    graph: dict[str, set[str]] = {}
    for _, part, imported in edges():
        graph.setdefault(part, set()).add(imported)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"circle: {' -> '.join(error.args[1])}")
