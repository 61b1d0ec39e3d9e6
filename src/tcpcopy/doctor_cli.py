"""`tcpcopy doctor` and `intercept doctor`: what a run with these options needs, and has here."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Final

from tcpcopy.doctor.alarm import checked, tell
from tcpcopy.doctor.finding import Finding, exit_code, render, to_json
from tcpcopy.errors import UsageError
from tcpcopy.supervisor import fill_standard_streams, raise_open_files, say

_JSON: Final = "--json"
_HELP: Final = ("-h", "--help")

_DESCRIPTION: Final = """\
usage: {program} doctor OPTIONS... [--json]

Says whether this host has what `{program} OPTIONS...` needs, one line for each
check, and below it the commands that mend what is wrong. OPTIONS are those of
the run itself, all of them. Nothing is left running, nothing is changed.

  --json      print JSON instead of text
  -h, --help  print this help and exit

exit code: 0 nothing keeps it from working, 1 something does, 2 bad options
"""

Examine = Callable[[list[str]], list[Finding]]


def help_text(program: str) -> str:
    """What `doctor --help` prints."""
    return _DESCRIPTION.format(program=program)


def run(program: str, arguments: Sequence[str], examine: Examine) -> int:
    """Print what `examine` finds for the options of a run; the exit code.

    `examine` raises UsageError for options that the run itself would refuse.
    """
    words, as_json = _own_words(arguments)
    if any(word in _HELP for word in words):
        say(help_text(program), sys.stdout)
        return 0
    try:
        fill_standard_streams()
        raise_open_files()  # as the run does
        findings = examine(words)
    except UsageError as error:
        say(f"{program}: {error}\n", sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    if as_json:
        say(json.dumps(to_json(findings), indent=2) + "\n", sys.stdout)
    else:
        say(render(findings), sys.stdout)
    return exit_code(findings)


def check_at_start(program: str, check: Callable[[], list[Finding]], log_file: str | None) -> None:
    """Log what is wrong with this host, and say it on the terminal when the log is a file.

    A check that fails itself says nothing: the run goes on in any case.
    """

    def on_terminal(line: str) -> None:
        say(f"{program}: {line}\n", sys.stderr)

    tell(checked(check), on_terminal if log_file else None)


def _own_words(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """The options of the run, and whether JSON is wanted.

    A `--json` with a file behind it is the run's.
    """
    words: list[str] = []
    as_json = False
    for word, behind in zip(arguments, [*arguments[1:], "-"], strict=False):
        if word == _JSON and behind.startswith("-"):
            as_json = True
        else:
            words.append(word)
    return words, as_json
