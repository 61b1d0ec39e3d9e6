"""What a check found: one line, how bad it is, and the commands that mend it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final


class Level(IntEnum):
    """How bad a finding is, the worst highest."""

    OK = 1  # looked at, and as it should be
    NOTE = 2  # worth knowing, nothing to mend
    WARNING = 3  # replay works, but something will or may be lost
    FAULT = 4  # replay in this mode cannot work


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    check: str  # stable, lower case, as in docs/check-the-set-up.md: "route", "ip_forward"
    level: Level
    text: str  # one line, with the values that were seen
    remedy: tuple[str, ...] = ()  # commands, each with its host: "on target: ip route add ..."
    hop: str = ""  # where on the way of a request it is, for what was probed end to end
    harms_clients: bool = False  # real clients get the target's packets: open no session


_WORDS: Final = {
    Level.OK: "ok",
    Level.NOTE: "note",
    Level.WARNING: "warning",
    Level.FAULT: "fault",
}
_WIDTH: Final = max(map(len, _WORDS.values()))


def word(level: Level) -> str:
    """The level as it is printed and as JSON has it."""
    return _WORDS[level]


def worst(findings: Iterable[Finding]) -> Level:
    """The worst level among them; OK when there are none."""
    return max((finding.level for finding in findings), default=Level.OK)


def exit_code(findings: Iterable[Finding]) -> int:
    """0 when nothing keeps replay from working, 1 when something does."""
    return 1 if worst(findings) is Level.FAULT else 0


def serious(findings: Iterable[Finding]) -> list[Finding]:
    """Warnings and faults, the worst first; else in their order."""
    found = [finding for finding in findings if finding.level >= Level.WARNING]
    return sorted(found, key=lambda finding: -finding.level)


def render(findings: Sequence[Finding]) -> str:
    """A line for each finding, its remedies below it."""
    lines = []
    for finding in findings:
        where = f" [{finding.hop}]" if finding.hop else ""
        lines.append(f"{word(finding.level):<{_WIDTH}}  {finding.check}{where}: {finding.text}\n")
        lines += [f"{'':{_WIDTH}}    {step}\n" for step in finding.remedy]
    return "".join(lines)


def to_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """The findings as JSON has them."""
    return {
        "level": word(worst(findings)),
        "findings": [
            {
                "check": finding.check,
                "level": word(finding.level),
                "text": finding.text,
                "remedy": list(finding.remedy),
                "hop": finding.hop,
            }
            for finding in findings
        ],
    }
