"""`tcpcopy inspect FILE...`: what is in capture files, before they are replayed."""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from tcpcopy.errors import UsageError
from tcpcopy.recorded.inspect import inspect, render, to_json
from tcpcopy.recorded.stream import open_recorded
from tcpcopy.supervisor import say

_DESCRIPTION = """\
Says what is in capture files: format, time, packets, TCP sessions (whole, begun
before, not ended, one-sided), servers, protocols, UDP flows, and the command that
replays them. Needs no privilege. Reads pcap and pcapng, plain, .gz or .zst, of any
number of rotated files, and standard input: tcpdump -w - | tcpcopy inspect -
"""


class _Parser(argparse.ArgumentParser):
    """Refuses as the other commands do: one line, exit code 2."""

    def error(self, message: str) -> NoReturn:
        raise UsageError("inspect", None, message, "see tcpcopy inspect --help")


def _parser() -> _Parser:
    parser = _Parser(
        prog="tcpcopy inspect",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "files", metavar="FILE", nargs="+", help="capture file; - is standard input"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.add_argument(
        "--keep-tunnels",
        action="store_true",
        help="show the packets that carry VXLAN, GRE and IP-in-IP instead of what is in them",
    )
    return parser


def help_text() -> str:
    """What `--help` prints."""
    return _parser().format_help()


def main(argv: Sequence[str]) -> int:
    """Run `tcpcopy inspect`; the exit code: 0, or 2 for files that cannot be read at all."""
    try:
        options = _parser().parse_args(argv)
        stream = open_recorded(
            options.files, option="inspect", strip_tunnels=not options.keep_tunnels
        )
    except UsageError as error:
        say(f"tcpcopy: {error}\n", sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    # A million connections are no garbage, and the collector would walk over them again and again.
    was_collecting = gc.isenabled()
    gc.disable()
    try:
        findings = inspect(stream, options.files)
    except KeyboardInterrupt:
        return 130
    finally:
        stream.close()
        if was_collecting:
            gc.enable()
    if options.json:
        say(json.dumps(to_json(findings), indent=2) + "\n", sys.stdout)
    else:
        say(render(findings, _width()), sys.stdout)
    return 0


def _width() -> int:
    """Columns of the terminal; 100 where there is none."""
    try:
        return min(os.get_terminal_size(sys.stdout.fileno()).columns, 140)
    except (OSError, ValueError):
        return 100
