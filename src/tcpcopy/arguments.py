"""Command lines from a table of options: the parser, `--help`, the checks of single values.

Both commands use it; it knows neither's options.
"""

from __future__ import annotations

import argparse
import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from tcpcopy.errors import UsageError
from tcpcopy.namespaces import HOST, Namespace, own
from tcpcopy.output_files import LINK_HINT, descriptor_named

_SHOWN: Final = 200  # characters of a value shown in an error


@dataclass(frozen=True, slots=True)
class Option:
    """One option, as the parser, `--help` and the documentation need it."""

    name: str  # key of its value
    short: str  # "-x", or "" for none
    long: str  # "--transfer"
    group: str  # heading that it stands under
    help: str  # one sentence without a stop
    metavar: str = ""  # what stands for its value; "" for a switch
    low: int | None = None  # smallest number allowed; None: the value is not a number
    high: int = 0  # largest number allowed
    default: int | None = None  # number taken when the option is not given
    scale: int = 1  # what one unit is in the unit kept (bytes, ns)
    repeats: bool = False  # a comma list; several uses add up (else the last one counts)

    @property
    def names(self) -> tuple[str, ...]:
        """Its names as typed, the short one first."""
        return (self.short, self.long) if self.short else (self.long,)

    def describe(self) -> str:
        """Help text with range and default."""
        if self.low is None:
            return self.help
        default = "" if self.default is None else f", default {self.default}"
        return f"{self.help} ({self.low} to {self.high}{default})"


class Word:
    """An option as it was typed: its name there, and its value ("" for a switch)."""

    __slots__ = ("typed", "value")

    def __init__(self, typed: str, value: str) -> None:
        self.typed = typed
        self.value = value

    def refuse(self, problem: str, hint: str) -> NoReturn:
        """Raise the UsageError for this option and value."""
        raise UsageError(self.typed, printable(self.value), problem, hint)


class _Record(argparse.Action):
    """Keeps the option's name as typed; several uses of a list add up."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        value = values if isinstance(values, str) else ""
        before = getattr(namespace, self.dest)
        if self.const and before is not None:
            value = f"{before.value},{value}"
        setattr(namespace, self.dest, Word(option_string or "", value))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(self.prog, "", message, f"see {self.prog} --help")


def make_parser(program: str, table: Iterable[Option], **texts: Any) -> argparse.ArgumentParser:
    """The parser of an option table; its `format_help()` is the help."""
    parser = _Parser(
        prog=program,
        usage=texts.pop("usage", None),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
        allow_abbrev=False,
        exit_on_error=False,
        **texts,
    )
    groups: dict[str, argparse._ArgumentGroup] = {}
    for option in table:
        if option.group not in groups:
            groups[option.group] = parser.add_argument_group(option.group)
        keywords: dict[str, Any] = {"dest": option.name, "help": option.describe()}
        if option.metavar:
            keywords["metavar"] = option.metavar
        else:
            keywords["nargs"] = 0
        groups[option.group].add_argument(
            *option.names, action=_Record, const=option.repeats, **keywords
        )
    return parser


def read_words(
    parser: argparse.ArgumentParser, table: Iterable[Option], argv: Sequence[str]
) -> dict[str, Word]:
    """The options given, by name. Raises UsageError for what is no option or lacks its value."""
    try:
        namespace, rest = parser.parse_known_args(list(argv))
    except argparse.ArgumentError as error:
        _refuse_argument(error, table, argv)
    see = f"see {parser.prog} --help"
    if rest:
        stray = next((word for word in rest if word != "--"), "--")
        if stray.startswith("-") and stray != "--":
            name, equals, value = stray.partition("=")
            raise UsageError(name, printable(value) if equals else "", "is not an option", see)
        raise UsageError(printable(stray), "", "belongs to no option", see)
    words = {name: word for name, word in vars(namespace).items() if word is not None}
    switches = {option.name for option in table if not option.metavar}
    for name, word in words.items():
        if name not in switches:
            _check_text(word)
    return words


def _check_text(word: Word) -> None:
    if not word.value.strip():
        word.refuse("is empty", "give a value")
    if not word.value.isprintable():
        word.refuse("holds a character that cannot be shown", "remove it")


def _refuse_argument(
    error: argparse.ArgumentError, table: Iterable[Option], argv: Sequence[str]
) -> NoReturn:
    names = (error.argument_name or "").split("/")
    option = next(option for option in table if option.names[0] in names)
    if option.metavar:
        for place, word in enumerate(argv):
            value = argv[place + 1] if place + 1 < len(argv) else ""
            # The word before the end or before another option is the one that got no value.
            if word in names and (not value or value.startswith("-")):
                hint = f"write {word} {option.metavar}"
                if value:
                    hint += f", or {option.long}={printable(value)} if that is meant as its value"
                raise UsageError(word, printable(value), "needs a value", hint)
        raise UsageError(names[0], "", "needs a value", f"write {names[0]} {option.metavar}")
    given = next((word for word in argv if word.startswith(f"{option.long}=")), "")
    if given:
        value = printable(given.partition("=")[2])
        raise UsageError(option.long, value, "takes no value", f"write {option.long} alone")
    given = next(
        (word for word in argv if word[:1] == "-" != word[1:2] and names[0][1] in word), ""
    )
    raise UsageError(
        printable(given) or names[0], "", "is not a set of options", f"{names[0]} takes no value"
    )


def printable(text: str) -> str:
    """The text itself, escaped when it would break the line, shortened when it is long."""
    if not text.isprintable():
        text = ascii(text)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 20]}...{text[-17:]}"


def number(option: Option, word: Word | None) -> int | None:
    """Value of a numeric option in its kept unit; its default when not given. Raises UsageError."""
    assert option.low is not None
    if word is None:
        return None if option.default is None else option.default * option.scale
    text = word.value
    hint = f"give a whole number from {option.low} to {option.high}"
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()):
        word.refuse("is not a whole number", hint)
    # Ten digits are more than any range; int() refuses thousands of them in its own way.
    value = int(text) if len(text) <= 10 else option.high + 1
    if not option.low <= value <= option.high:
        word.refuse("is out of range", hint)
    return value * option.scale


def file_to_write(word: Word | None) -> str | None:
    """Absolute path of a file that can be written, or None when not given. Raises UsageError.

    Nothing is created. A pipe counts as one when it is read.
    """
    if word is None:
        return None
    path = os.path.abspath(word.value)
    folder = os.path.dirname(path)
    if descriptor_named(path) is None and os.path.islink(path):
        word.refuse("is a symbolic link", LINK_HINT)
    mode = _mode(word, path)
    if mode is None:
        folder_mode = _mode(word, folder)
        if folder_mode is None or not stat.S_ISDIR(folder_mode):
            hint = f"create {printable(folder)} or name another file"
            word.refuse("its directory does not exist", hint)
    elif stat.S_ISDIR(mode):
        word.refuse("is a directory", "name a file")
    if not os.access(folder if mode is None else path, os.W_OK):
        word.refuse("may not be written", "name another file, or run as a user who may")
    if mode is not None and stat.S_ISFIFO(mode):
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:
            word.refuse("is a pipe that nobody reads", "start its reader first, or name a file")
    return path


def _mode(word: Word, path: str) -> int | None:
    """Type and rights of a file, None when there is none. Raises UsageError."""
    try:
        return os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        word.refuse(error.strerror or str(error), "name another file, or run as a user who may")


def refuse_same_files(words: Mapping[str, Word], names: Iterable[str]) -> None:
    """Raise UsageError when two of the options `names` give the same file (devices may be)."""
    seen: dict[str, Word] = {}
    for name in names:
        if name not in words:
            continue
        word = words[name]
        path = os.path.realpath(word.value)
        if path in seen and not path.startswith("/dev/"):
            word.refuse(f"is the file of {seen[path].typed} already", "name another file")
        seen[path] = word


def namespaces(
    words: Mapping[str, Word],
    other: str,
    open_namespace: Callable[[str, str], Namespace] = Namespace,
) -> tuple[Namespace | None, Namespace | None]:
    """The namespaces of --netns and of the option named `other`, which is the same if not given.

    Both are None when all happens where the command was started. Raises UsageError.
    """

    def find(word: Word) -> Namespace:
        return own(word.typed) if word.value == HOST else open_namespace(word.typed, word.value)

    if "netns" not in words and other not in words:
        return None, None
    if "netns" not in words:
        return own(words[other].typed), find(words[other])
    capture = find(words["netns"])
    return capture, find(words[other]) if other in words else capture
