"""All targets, and the inputs that are kept for them."""

from __future__ import annotations

from pathlib import Path

from tests.fuzz import engines, files, packets, relay, texts
from tests.fuzz.target import Target

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        *packets.TARGETS,
        *files.TARGETS,
        *relay.TARGETS,
        *texts.TARGETS,
        *engines.TARGETS,
    )
}

CORPUS = Path(__file__).parent / "corpus"


def kept(target: Target) -> list[bytes]:
    """The inputs that are kept for a target, in the order of their names."""
    return [path.read_bytes() for path in sorted((CORPUS / target.name).glob("*"))]


def corpus(target: Target) -> list[bytes]:
    """What inputs are made of: valid ones, and those that are kept."""
    return [*target.seeds(), *kept(target)]
