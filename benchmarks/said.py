"""What it costs to tell the kind of an answer: `python -m benchmarks.said`.

Nanoseconds a call, a call of `len` and the loop taken off; best of several rounds. The whole
replay is measured by `python -m benchmarks` (keep-alive), as a ratio to another build.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable
from functools import partial

from tcpcopy.said import answer, kinds
from tcpcopy.said.tally import Tally

ROUNDS = 7
CALLS = 100_000
SAMPLES = {
    "HTTP 200": b"HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Length: 12\r\n\r\n" + bytes(66),
    "RESP reply": b"+OK\r\n",
    "RESP error": b"-NOAUTH Authentication required.\r\n",
    "MySQL reply": b"\x07\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00",
    "MySQL error": b"\x48\x00\x00\x02\xff\x15\x04#28000Access denied",
    "TLS alert": b"\x15\x03\x03\x00\x02\x02\x28",
    "not known": b"anything else " * 9,
}
REQUEST = b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"


def best_ns(run: Callable[[], object]) -> float:
    """Nanoseconds of one call."""
    return min(timeit.repeat(run, number=CALLS, repeat=ROUNDS)) / CALLS * 1e9


def main() -> None:
    """Print a table."""
    call = best_ns(partial(len, REQUEST))
    print(f"{answer.__file__}\nnanoseconds, less {call:.0f} for the call itself")
    for name, data in SAMPLES.items():
        print(f"kind_of      {name:<12} {best_ns(partial(answer.kind_of, data)) - call:6.0f}")
    known = best_ns(partial(answer.protocol_of, kinds.HTTP, REQUEST))
    print(f"protocol_of  {'known':<12} {known - call:6.0f}")
    note = best_ns(partial(Tally().note, kinds.HTTP, kinds.HTTP_2XX, False))
    print(f"note         {'':<12} {note - call:6.0f}")


if __name__ == "__main__":
    main()
