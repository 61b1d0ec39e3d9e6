"""Errors by fault: bad usage is an exception; bad packets, peers and sessions are counts."""

from __future__ import annotations


class UsageError(Exception):
    """The user asked for something that cannot be done; ends the program with exit code 2.

    `option` is the option as typed ("-x"), `value` what was given, `problem` what is wrong with it
    and `hint` what mends it. `str()` is the one line that is shown.
    """

    def __init__(self, option: str, value: object, problem: str, hint: str) -> None:
        self.option = option
        self.value = value
        self.problem = problem
        self.hint = hint
        shown = f" {value}" if value not in (None, "") else ""
        super().__init__(f"{option}{shown}: {problem}; {hint}")
