"""Makes docs/options.md from the option tables; `tests/repo/test_documents_of_options.py` compares.

PYTHONPATH=src python scripts/options_page.py
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tcpcopy import intercept_cli, options
from tcpcopy.arguments import Option

PAGE = Path(__file__).resolve().parents[1] / "docs" / "options.md"

_HEAD = """\
# Options of `tcpcopy` and `intercept`

Made from the option tables by `scripts/options_page.py`; do not edit. What differs from the C
programs of the same name is in
[differences-from-the-c-program.md](differences-from-the-c-program.md).

A value stands behind its option: `-n 3`, `-n3`, `--copies 3` or `--copies=3`. Switches can be
joined: `-dgW`. Of an option given twice the last one counts, but lists (`...`) add up.

Anything wrong is refused before anything starts: one line on stderr that names the option, its
value and the mend, exit code 2.
"""

_TCPCOPY = """\
## tcpcopy

    tcpcopy -x TRANSFER,... [-s HOST,...] [options]
    tcpcopy doctor OPTIONS... [--help]
    tcpcopy inspect FILE... [--help]
    tcpcopy demo [--help]

Runs on the online host and copies its live TCP traffic to a test server. Without `-s` it
connects to the target itself (socket mode, see
[copy-to-a-test-server.md](copy-to-a-test-server.md)); with `-s` it sends packets with the
clients' addresses, and `intercept` brings the answers back (classic mode, see
[classic-mode.md](classic-mode.md)). `python -m tcpcopy` is the same command.
"""

_INTERCEPT = """\
## intercept

    intercept [-i DEVICE,...] [-F FILTER] [options]
    intercept doctor OPTIONS... [--help]

Runs on the assistant host of classic mode: picks up the target's answers to mapped clients,
which a route on the target sends there, and gives their headers to the tcpcopies that connect.
"""

_TAIL = """\
## Exit codes

| code | tcpcopy | intercept |
| --- | --- | --- |
| 0 | all that was captured was replayed | ended by a signal |
| 1 | something was lost, or nothing was captured or replayed | |
| 2 | bad usage: nothing was started | the same |
| 130 | Ctrl-C before anything was open | the same |

With `-d` the command that is typed returns once the daemon is up: 0, or 2 with the line that
says why it is not.

## Signals

| signal | tcpcopy | intercept |
| --- | --- | --- |
| SIGINT, SIGTERM | stop capturing, let open work end (10 s at most), print the summary | end |
| the same again | print the summary at once | |
| SIGHUP | on a terminal, which is then gone, as SIGTERM; else ignored | the same |

## Files

- `-l`: appended to. A file that was moved away (`logrotate`) is opened anew at the next line,
  without a signal; while that cannot be done, lines go on in the old one, which says so.
- `-P`: holds the process id while it runs, and is locked. One that was left over is taken over;
  one of a process that runs is refused, as is a file that holds anything else.
- `--json`: written at the start, every ten seconds and at the end, beside the old one, which it
  replaces whole; its keys are in [reading-the-summary.md](reading-the-summary.md).
- `--state`: a file for each process, gone at the end; after a kill the next start reads it, says
  so, and resets the sessions that were left open at the target
  ([reading-the-summary.md](reading-the-summary.md#after-a-kill)).

None of them may be a symbolic link, but for `/dev/stdout`, `/dev/stderr` and `/dev/fd/N`; more in
[privileges.md](privileges.md).

## Privilege

Root, or the capability `CAP_NET_RAW` alone (both commands, both modes). `CAP_NET_ADMIN` lets
the buffers for packets larger than a frame of the capture ring grow beyond `net.core.rmem_max`;
`CAP_SYS_RESOURCE` lets tcpcopy raise its limit of open files, which bounds the sessions of
socket mode. Once all is open, both give up what the run does not need, and with `--user` root
itself: [privileges.md](privileges.md).
"""


def page() -> str:
    """The whole page."""
    parts = [_HEAD]
    for text, table in ((_TCPCOPY, options.OPTIONS), (_INTERCEPT, intercept_cli.OPTIONS)):
        parts += [text, *_groups(table)]
    parts.append(_TAIL)
    return "\n".join(parts)


def _groups(table: Iterable[Option]) -> list[str]:
    groups: dict[str, list[Option]] = {}
    for option in table:
        groups.setdefault(option.group, []).append(option)
    return [
        f"### {name[0].upper()}{name[1:]}\n\n" + "".join(map(_entry, members))
        for name, members in groups.items()
    ]


def _entry(option: Option) -> str:
    value = f" {option.metavar}" if option.metavar else ""
    names = ", ".join(f"`{name}{value}`" for name in option.names)
    return f"- {names}: {option.describe()}.\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
