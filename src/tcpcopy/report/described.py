"""Closed lists whose members say what they mean: what a summary, a log line or a page shows."""

from __future__ import annotations

from enum import IntEnum
from typing import Self


class Described(IntEnum):
    """A number and one line of text: `NAME = (1, "text")`."""

    description: str

    def __new__(cls, value: int, description: str = "") -> Self:
        member = int.__new__(cls, value)
        member._value_ = value
        member.description = description
        return member


class Ending(IntEnum):
    """How something captured ended: `NAME = (1, "text", is_loss, is_skip, is_attempt)`.

    `description` is one line for the summary. `is_loss`: something the client sent did not reach
    the target, so the exit code is 1. `is_skip`: left out because the user asked for it.
    `is_attempt`: it never came to anything that could be replayed.
    """

    description: str
    is_loss: bool
    is_skip: bool
    is_attempt: bool

    def __new__(
        cls,
        value: int,
        description: str,
        is_loss: bool = True,
        is_skip: bool = False,
        is_attempt: bool = False,
    ) -> Self:
        member = int.__new__(cls, value)
        member._value_ = value
        member.description = description
        member.is_loss = is_loss
        member.is_skip = is_skip
        member.is_attempt = is_attempt
        return member
