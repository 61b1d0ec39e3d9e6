"""What a run comes to: the exit code and the result in one line."""

from __future__ import annotations

from tcpcopy.report.counters import Snapshot
from tcpcopy.report.text import number, per_cent, plural

EXIT_OK, EXIT_LOSSES = 0, 1


def exit_code(snapshot: Snapshot) -> int:
    """0 when all that was captured was replayed, else 1.

    1 also when nothing was captured or everything was left out (a run that proved nothing must
    not look like a success), when the kernel dropped packets before tcpcopy saw them, when a worker
    died, and when the counts do not add up. Bad usage is 2 and never comes this far.
    """
    lost = snapshot.sessions_lost or snapshot.kernel_dropped or snapshot.workers_lost
    idle = snapshot.sessions_captured == snapshot.sessions_skipped
    return EXIT_LOSSES if lost or idle or snapshot.check() else EXIT_OK


def headline(snapshot: Snapshot) -> str:
    """The result in one line."""
    wanted = snapshot.sessions_captured - snapshot.sessions_skipped
    skipped = ""
    if snapshot.sessions_skipped:
        skipped = f" ({number(snapshot.sessions_skipped)} more left out as asked)"
    live = f", {number(snapshot.sessions_live)} still live" if snapshot.sessions_live else ""
    if snapshot.sessions_captured == 0:
        return "NOTHING CAPTURED: no session was seen, none was replayed"
    if wanted == 0:
        return f"NOTHING REPLAYED: all {plural(snapshot.sessions_skipped, 'session')} left out"
    if snapshot.sessions_lost:
        lost = snapshot.sessions_lost
        share = per_cent(lost, wanted)
        return f"{number(lost)} of {plural(wanted, 'session')} LOST ({share}){live}{skipped}"
    if snapshot.check():
        return f"THE COUNTS DO NOT ADD UP, {plural(wanted, 'session')} captured{live}{skipped}"
    if snapshot.sessions_live:
        done = number(snapshot.sessions_replayed)
        return f"{done} of {plural(wanted, 'session')} replayed, none lost{live}{skipped}"
    all_of_them = "the 1 session" if wanted == 1 else f"all {plural(wanted, 'session')}"
    if snapshot.kernel_dropped:
        dropped = plural(snapshot.kernel_dropped, "packet")
        return f"{all_of_them} seen replayed, but the kernel DROPPED {dropped} unseen{skipped}"
    if snapshot.workers_lost:
        died = plural(snapshot.workers_lost, "worker")
        return f"{all_of_them} known of replayed, but {died} DIED{skipped}"
    return f"{all_of_them} replayed exactly{skipped}"
