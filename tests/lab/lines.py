"""A server and clients of short requests, for targets that are ended and started again in a run.

serve PORT RECORDS: answers each line with one, and writes it down before that.
load ADDRESS PORT --rate N --seconds S --requests LOW-HIGH --think-ms N: opens connections evenly,
sends numbered lines (`connection.request`), each after the answer to the one before; prints how
many were answered.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import socket


async def serve(port: int, records: str) -> None:
    """Serve until killed."""
    descriptor = os.open(records, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                if line.endswith(b"\n"):
                    os.write(descriptor, line)
                    writer.write(b"answer to " + line)
        except ConnectionError:
            pass
        finally:
            writer.close()

    sock = socket.create_server(("", port), family=socket.AF_INET, backlog=4096)
    server = await asyncio.start_server(handle, sock=sock)
    print("ready", flush=True)
    await server.serve_forever()


async def load(options: argparse.Namespace) -> None:
    """Open all connections and wait for their ends."""
    choose = random.Random(options.seed)
    low, high = map(int, options.requests.split("-"))
    answered = 0

    async def talk(number: int, requests: int) -> None:
        nonlocal answered
        reader, writer = await asyncio.open_connection(options.address, options.port)
        for request in range(requests):
            writer.write(f"{number}.{request}\n".encode())
            await reader.readline()
            answered += 1
            await asyncio.sleep(options.think_ms / 1000)
        writer.close()

    tasks = []
    clock = asyncio.get_running_loop().time
    begun = clock()
    print("begun", flush=True)
    for number in range(int(options.rate * options.seconds)):
        await asyncio.sleep(max(0.0, begun + number / options.rate - clock()))
        tasks.append(asyncio.create_task(talk(number, choose.randint(low, high))))
    await asyncio.gather(*tasks)
    print(f"answered {answered}", flush=True)


def main() -> None:
    """Run one of the roles."""
    parser = argparse.ArgumentParser(description=__doc__)
    roles = parser.add_subparsers(dest="role", required=True)
    server = roles.add_parser("serve")
    server.add_argument("port", type=int)
    server.add_argument("records")
    client = roles.add_parser("load")
    client.add_argument("address")
    client.add_argument("port", type=int)
    client.add_argument("--rate", type=float, default=100)
    client.add_argument("--seconds", type=float, default=10)
    client.add_argument("--requests", default="1-30")
    client.add_argument("--think-ms", type=float, default=50)
    client.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if options.role == "serve":
        asyncio.run(serve(options.port, options.records))
    else:
        asyncio.run(load(options))


if __name__ == "__main__":
    main()
