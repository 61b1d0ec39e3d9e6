"""The options about recorded traffic and `--rate`: their values checked, what excludes what."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Final

from tcpcopy.arguments import Option, Word, printable
from tcpcopy.errors import UsageError
from tcpcopy.mapping.rate import DROP, MODES, PACE, QUEUE, REQUESTS, SESSIONS, RateConfig
from tcpcopy.recorded.player import RecordedConfig

_NS_PER_MS: Final = 1_000_000
_NS_PER_SECOND: Final = 1_000_000_000
STANDARD_INPUT: Final = "-"
_CAPTURE_FILES: Final = (".pcap", ".pcapng", ".cap", ".gz", ".zst")
_DIGITS: Final = 20
SPEEDS: Final = (Fraction(1, 1000), Fraction(1_000_000))
GAPS_MS: Final = (Fraction(0), Fraction(86_400_000))
RATES: Final = (Fraction(1, 1000), Fraction(10_000_000))
RAMPS_S: Final = (Fraction(0), Fraction(86_400))
_OF_FILES: Final = ("acceleration", "idle_threshold", "times", "fast")

_RECORDED: Final = "recorded traffic, and the rate"
OPTIONS: Final[tuple[Option, ...]] = (
    Option("acceleration", "-a", "--acceleration", _RECORDED,
           "replay files so many times faster than they were recorded, waits included; 0.001 to "
           "1000000, below 1 slower (default 1)", "FACTOR"),
    Option("idle_threshold", "-I", "--idle-threshold", _RECORDED,
           "cut gaps between the packets of a file that are longer than so many milliseconds, as "
           "recorded, to this", "MS"),
    Option("times", "-T", "--times", _RECORDED,
           "replay files so many times, one after the other (default 1)", "NUM"),
    Option("fast", "", "--fast", _RECORDED,
           "replay files as fast as the target answers: each session in its order, waiting for "
           "answers, but not for the time that passed when it was recorded"),
    Option("rate", "", "--rate", _RECORDED,
           "replay no more than so many sessions or requests a second, as 500sessions or "
           "2000requests, live or from files", "RATE"),
    Option("rate_mode", "", "--rate-mode", _RECORDED,
           "what --rate does with what is too much: queue (it waits, for a minute at most), drop "
           "(sessions are left out) or pace (files are read more slowly) (default queue)", "MODE"),
    Option("ramp", "", "--ramp", _RECORDED,
           "let the rate of --rate grow evenly from 0 for so many seconds", "SECONDS"),
)  # fmt: skip


def unwraps(words: Mapping[str, Word], files: tuple[str, ...]) -> bool:
    """Whether tunnels are taken off live traffic. Raises UsageError."""
    word = words.get("decapsulate")
    if word is not None and files:
        word.refuse("is for live traffic: of files, tunnels are always taken off", "leave it out")
    return word is not None or "promiscuous" in words


def inputs(word: Word | None, devices: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The devices and the files (absolute paths, "-" for standard input) that -i names.

    What could be both is a device unless it is written with a slash. Raises UsageError.
    """
    if word is None:
        return (), ()
    known = list(devices)
    found: dict[str, None] = {}
    files: dict[str, None] = {}
    for item in (part.strip() for part in word.value.split(",")):
        if item in known or item == "any":
            found[item] = None
        elif item == STANDARD_INPUT:
            files[item] = None
        elif (
            "/" in item or item.lower().endswith(_CAPTURE_FILES) or (item and os.path.exists(item))
        ):
            files[os.path.abspath(item)] = None
        else:
            raise UsageError(
                word.typed,
                printable(item),
                "there is no such device or file" if item else "a device is empty",
                f"give a capture file, or one or more of {', '.join(sorted(known))}",
            )
    if found and files:
        word.refuse("names devices and files", "give either, or run tcpcopy twice")
    return () if "any" in found else tuple(found), tuple(files)


def recorded(words: Mapping[str, Word], files: tuple[str, ...]) -> RecordedConfig | None:
    """How the files of -i are replayed, None without files. Raises UsageError."""
    if not files:
        for name in _OF_FILES:
            if name in words:
                problem = "is for files: live traffic comes when it comes"
                words[name].refuse(problem, "give -i FILE, or leave it out")
        return None
    speed = _decimal(words.get("acceleration"), SPEEDS, "factor")
    gap_ms = _decimal(words.get("idle_threshold"), GAPS_MS, "number of milliseconds")
    if "fast" in words:
        for name in ("acceleration", "idle_threshold"):
            if name in words:
                words[name].refuse("does nothing with --fast, which keeps no times", "give either")
    passes = _times(words.get("times"))
    if STANDARD_INPUT in files:
        if passes > 1:
            words["times"].refuse(
                "standard input cannot be read twice", "save it to a file, or leave -T out"
            )
        if "daemon" in words:
            words["device"].refuse("a daemon has no standard input", "leave out -d, or give a file")
    return RecordedConfig(
        paths=files,
        speed=Fraction(1) if speed is None else speed,
        longest_gap_ns=None if gap_ms is None else int(gap_ms * _NS_PER_MS),
        passes=passes,
        fast="fast" in words,
    )


def refuse_rate_of_udp(words: Mapping[str, Word], transport: str) -> None:
    """Refuse `--rate` with UDP, which has neither sessions nor requests. Raises UsageError."""
    if "rate" in words and transport != "tcp":
        option = "--udp" if "udp" in words else f"--transport {transport}"
        hint = f"leave it out, or {option}; files are replayed more slowly by -a"
        words["rate"].refuse("is of TCP sessions or requests, datagrams are neither", hint)


def rate(words: Mapping[str, Word], is_recorded: bool) -> RateConfig | None:
    """`--rate`, `--rate-mode` and `--ramp`; None when not given. Raises UsageError."""
    word = words.get("rate")
    if word is None:
        for name in ("rate_mode", "ramp"):
            if name in words:
                words[name].refuse("needs --rate", "give --rate, or leave it out")
        return None
    text = word.value.removesuffix("/s")
    unit = next((unit for unit in (SESSIONS, REQUESTS) if text.endswith(unit)), "")
    hint = "write a number and what it counts, such as 500sessions or 2000requests"
    if not unit:
        word.refuse("says neither sessions nor requests", hint)
    number = Word(word.typed, text.removesuffix(unit).strip())
    per_second = _decimal(number, RATES, "number of " + unit, hint)
    assert per_second is not None
    ramp = _decimal(words.get("ramp"), RAMPS_S, "number of seconds")
    return RateConfig(
        per_second=per_second,
        is_requests=unit == REQUESTS,
        mode=_rate_mode(words.get("rate_mode"), unit, is_recorded),
        ramp_ns=0 if ramp is None else int(ramp * _NS_PER_SECOND),
    )


def _rate_mode(word: Word | None, unit: str, is_recorded: bool) -> str:
    if word is None:
        return QUEUE
    if word.value not in MODES:
        word.refuse("is no such way", f"give one of {', '.join(MODES)}")
    if word.value == PACE and not is_recorded:
        word.refuse("live traffic cannot be read more slowly", f"give {QUEUE} or {DROP}")
    if word.value == DROP and unit == REQUESTS:
        word.refuse(
            "requests cannot be left out of a session", f"give {QUEUE}, or a rate of {SESSIONS}"
        )
    return word.value


def _times(word: Word | None) -> int:
    if word is None:
        return 1
    text = word.value
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) > 0):
        word.refuse("is not a number of times", "give a whole number from 1 to 9999999999")
    return int(text)


def _decimal(
    word: Word | None, bounds: tuple[Fraction, Fraction], what: str, hint: str = ""
) -> Fraction | None:
    """An exact number written with or without a decimal point. Raises UsageError."""
    if word is None:
        return None
    low, high = bounds
    hint = hint or f"give a {what} from {_shown(low)} to {_shown(high)}, fractions as 0.5"
    try:
        if len(word.value) > _DIGITS or not set(word.value) <= set("0123456789."):
            raise InvalidOperation
        value = Fraction(Decimal(word.value))
    except InvalidOperation:
        word.refuse(f"is not a {what}", hint)
    if not low <= value <= high:
        word.refuse("is out of range", hint)
    return value


def _shown(value: Fraction) -> str:
    return f"{float(value):g}" if value.denominator > 1 else str(value.numerator)
