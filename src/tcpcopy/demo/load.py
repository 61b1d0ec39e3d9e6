"""HTTP load for machines without wrk: keep-alive clients with think times, seeded.

Run as `python -m tcpcopy.demo.load ADDRESS PORT CLIENTS SECONDS`. Each client sends a request after
its answer and a pause; now and then one asks for the connection's end and opens another. No
request is under way when it ends. Prints totals.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sys
from collections.abc import Iterator, Sequence

from tcpcopy.demo.traffic import CLOSE_EVERY, PAUSE_MS, SIZES

_TIMEOUT_S = 5.0


class Connection:
    """One client connection at a time."""

    def __init__(self, address: str, port: int) -> None:
        self.address = address
        self.port = port
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def request(self, path: str, *, last: bool) -> None:
        """Send one request and read its answer. Raises OSError, EOFError or TimeoutError."""
        if self.streams is None:
            self.streams = await asyncio.open_connection(self.address, self.port)
        reader, writer = self.streams
        closing = "Connection: close\r\n" if last else ""
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {self.address}\r\n{closing}\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        await reader.readexactly(length)
        if last:
            await self.close()

    async def close(self) -> None:
        """Close the connection, if there is one."""
        if self.streams is not None:
            _, writer = self.streams
            self.streams = None
            writer.close()
            await writer.wait_closed()


async def client(
    connection: Connection, numbers: Iterator[int], end_s: float, generator: random.Random
) -> tuple[int, int]:
    """Requests until `end_s` on the loop's clock; return (answered, failed)."""
    answered = failed = 0
    loop = asyncio.get_running_loop()
    while loop.time() < end_s:
        await asyncio.sleep(generator.uniform(*PAUSE_MS) / 1000)
        number = next(numbers)
        path = f"/{SIZES[number % len(SIZES)]}.bin?n={number}"
        last = number % CLOSE_EVERY == 0
        try:
            await asyncio.wait_for(connection.request(path, last=last), _TIMEOUT_S)
            answered += 1
        except (OSError, EOFError, asyncio.LimitOverrunError):
            failed += 1
            connection.streams = None
    await connection.close()
    return answered, failed


async def run(address: str, port: int, clients: int, seconds: float) -> tuple[int, int]:
    """All clients together; return (answered, failed)."""
    numbers = itertools.count(1)
    end_s = asyncio.get_running_loop().time() + seconds
    results = await asyncio.gather(
        *(
            client(Connection(address, port), numbers, end_s, random.Random(seed))
            for seed in range(clients)
        )
    )
    return sum(answered for answered, _ in results), sum(failed for _, failed in results)


def main(argv: Sequence[str]) -> int:
    address, port, clients, seconds = argv
    answered, failed = asyncio.run(run(address, int(port), int(clients), float(seconds)))
    print(f"{answered} requests answered, {failed} failed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
