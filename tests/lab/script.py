"""What load clients do: the command line, and each connection's requests made from the seed."""

from __future__ import annotations

import argparse
import ipaddress
import random
from dataclasses import dataclass
from pathlib import Path

from tests.lab import frames

ENDS = ("fin", "rst", "half-close", "server", "hold")


@dataclass(frozen=True, slots=True)
class Step:
    """One request: bytes of payload, bytes of answer wanted, flags, pause before it."""

    payload_bytes: int
    answer_bytes: int
    flags: int
    gap_ns: int


def span(text: str) -> tuple[float, float]:
    """A range: "5-20", or "5" for one value."""
    low, _, high = text.partition("-")
    return float(low), float(high or low)


def ports(text: str) -> tuple[int, int]:
    """A range of ports: "20000-20099" or "20000"."""
    low, high = span(text)
    return int(low), int(high)


def addresses(text: str) -> list[str]:
    """Addresses: "A", "A,B" or "A-B" (all from A to B)."""
    result = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        low, high = ipaddress.ip_address(first), ipaddress.ip_address(last or first)
        result += [str(type(low)(number)) for number in range(int(low), int(high) + 1)]
    return result


def make(options: argparse.Namespace, number: int) -> list[Step]:
    """The requests of connection `number`; the same seed gives the same."""
    generator = random.Random(options.seed * 1_000_003 + number)
    count = round(generator.uniform(*options.requests))
    steps = []
    for index in range(count):
        flags = options.server_delay_ms << frames.DELAY_SHIFT
        if options.no_answer:
            flags |= frames.NO_ANSWER
        if options.end == "server" and index == count - 1:
            flags |= frames.CLOSE_AFTER
        pause = index or options.think_first
        steps.append(
            Step(
                payload_bytes=round(generator.uniform(*options.request_bytes)),
                answer_bytes=round(generator.uniform(*options.answer_bytes)),
                flags=flags,
                gap_ns=int(generator.uniform(*options.think_ms) * 1e6) if pause else 0,
            )
        )
    return steps


def sent(words: str, number: int, first: int = 0) -> bytes:
    """All that connection `number` of a load with the options `words` sends, from request `first`.

    For what a test expects of sessions that are picked up in the middle.
    """
    options = parser().parse_args(["host", "1", *words.split()])
    content = frames.Content(options.seed)
    return b"".join(
        frames.request(
            content.payload(number, index, step.payload_bytes), step.answer_bytes, step.flags
        )
        for index, step in enumerate(make(options, number))
        if index >= first
    )


def parser() -> argparse.ArgumentParser:
    """The client's command line; ranges are drawn from evenly, seeded."""
    result = argparse.ArgumentParser(description="Load client of the lab")
    add = result.add_argument
    add("host")
    add("port", type=int)
    add("--records", type=Path, help="one JSON line for each connection")
    add("--seed", type=int, default=1)
    add("--connections", type=int, default=1, help="how many in all")
    add("--concurrency", type=int, default=0, help="how many open at once (0: all)")
    add("--rate", type=float, default=0.0, help="new connections a second (0: at once)")
    add("--duration", type=float, default=0.0, help="stop after so many seconds")
    add("--requests", type=span, default=(1, 1), help="for each connection")
    add("--request-bytes", type=span, default=(100, 100))
    add("--answer-bytes", type=span, default=(200, 200))
    add("--think-ms", type=span, default=(0, 0), help="after an answer, before the next request")
    add("--think-first", action="store_true", help="also before the first request")
    add("--pipeline", type=int, default=1, help="so many requests, then all their answers")
    add("--sliding", action="store_true", help="pipelining: always so many in flight")
    add("--two-way", action="store_true", help="send by the clock, whatever the server sends")
    add("--greeting", action="store_true", help="the server speaks first")
    add("--no-answer", action="store_true", help="ask for none, go on at once")
    add("--server-delay-ms", type=int, default=0, help="each answer, 0-255, asked of the server")
    add("--write-bytes", type=int, default=0, help="most bytes in one write")
    add("--cut-last", type=int, default=0, help="bytes never sent of the last request")
    add("--end", choices=ENDS, default="fin")
    add("--impatient", action="store_true", help="end without waiting for the answers")
    add("--pause-after", type=int, default=0, help="so many requests, then wait for SIGUSR1")
    add("--tolerate", action="store_true", help="the server may end connections as it likes")
    add("--source", type=addresses, default=[], help="own addresses, in turn")
    add("--source-ports", type=ports, default=(0, 0), help="own ports, in turn for each address")
    return result
