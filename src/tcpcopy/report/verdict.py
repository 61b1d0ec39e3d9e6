"""What a run comes to: the exit code and the result in one line."""

from __future__ import annotations

from tcpcopy.report.counters import Snapshot
from tcpcopy.report.text import number, per_cent, plural

EXIT_OK, EXIT_LOSSES = 0, 1


def exit_code(snapshot: Snapshot) -> int:
    """0 when all that was captured was replayed, else 1.

    1 also when nothing was captured or everything was left out (a run that proved nothing must
    not look like a success), when the kernel dropped packets before tcpcopy saw them, when captured
    packets were left unread at exit, when a worker died, and when the counts do not add up. Bad
    usage is 2 and never comes this far.
    """
    lost = snapshot.sessions_lost or snapshot.kernel_dropped or snapshot.workers_lost
    lost = lost or snapshot.udp_flows_lost or snapshot.udp_fragments_lost or snapshot.all_unread
    return EXIT_LOSSES if lost or not wanted(snapshot) or snapshot.check() else EXIT_OK


def wanted(snapshot: Snapshot) -> int:
    """Sessions and UDP flows that were to be replayed."""
    return _sessions_wanted(snapshot) + snapshot.udp_flows_captured - snapshot.udp_flows_skipped


def _sessions_wanted(snapshot: Snapshot) -> int:
    """All captured but those left out as asked, and attempts that came to no connection."""
    none = snapshot.sessions_skipped + snapshot.sessions_incomplete + snapshot.sessions_waiting
    return snapshot.sessions_captured - none


def _things(sessions: int, flows: int) -> str:
    """`1 session`, `5 flows`, `1 session and 5 flows`."""
    parts = [plural(flows, "UDP flow")] if flows else []
    return " and ".join([plural(sessions, "session"), *parts] if sessions or not flows else parts)


def headline(snapshot: Snapshot) -> str:
    """The result in one line."""
    sessions_skipped, flows_skipped = snapshot.sessions_skipped, snapshot.udp_flows_skipped
    all_wanted = wanted(snapshot)
    wanted_text = _things(_sessions_wanted(snapshot), snapshot.udp_flows_captured - flows_skipped)
    more = []
    if sessions_skipped + flows_skipped:
        more.append(f"{number(sessions_skipped + flows_skipped)} more left out as asked")
    if snapshot.sessions_incomplete:
        more.append(f"{plural(snapshot.sessions_incomplete, 'handshake')} never completed")
    skipped = f" ({', '.join(more)})" if more else ""
    live_count = snapshot.sessions_live + snapshot.udp_flows_live
    live = f", {number(live_count)} still live" if live_count else ""
    if snapshot.sessions_captured + snapshot.udp_flows_captured == 0:
        if snapshot.all_unread:
            return f"NOTHING REPLAYED: {_left(snapshot)}"
        return "NOTHING CAPTURED: no session was seen, none was replayed"
    if all_wanted == 0:
        return f"NOTHING REPLAYED: {_why_nothing(snapshot)}"
    lost = snapshot.sessions_lost + snapshot.udp_flows_lost
    if lost:
        share = per_cent(lost, all_wanted)
        left = f", and {_left(snapshot)}" if snapshot.all_unread else ""
        return f"{number(lost)} of {wanted_text} LOST ({share}){live}{left}{skipped}"
    if snapshot.check():
        return f"THE COUNTS DO NOT ADD UP, {wanted_text} captured{live}{skipped}"
    if live_count:
        return f"{number(_done(snapshot))} of {wanted_text} replayed, none lost{live}{skipped}"
    all_of_them = f"the {wanted_text}" if all_wanted == 1 else f"all {wanted_text}"
    if snapshot.kernel_dropped:
        dropped = plural(snapshot.kernel_dropped, "packet")
        return f"{all_of_them} seen replayed, but the kernel DROPPED {dropped} unseen{skipped}"
    if snapshot.all_unread:
        return f"{all_of_them} looked at replayed, but {_left(snapshot)}{skipped}"
    if snapshot.workers_lost:
        died = plural(snapshot.workers_lost, "worker")
        return f"{all_of_them} known of replayed, but {died} DIED{skipped}"
    if snapshot.udp_fragments_lost:
        pieces = plural(snapshot.udp_fragments_lost, "fragment")
        return f"{all_of_them} seen replayed, but {pieces} LOST of datagrams not whole{skipped}"
    return f"{all_of_them} replayed exactly{skipped}"


def _left(snapshot: Snapshot) -> str:
    """What was captured and not looked at before the end."""
    packets = plural(snapshot.all_unread, "captured packet")
    if not snapshot.sessions_unread:
        return f"{packets} left UNREAD"
    return f"{plural(snapshot.sessions_unread, 'session')} in {packets} left UNREAD"


def _why_nothing(snapshot: Snapshot) -> str:
    """Sessions or flows were captured, and none of them was to be replayed."""
    attempts = snapshot.sessions_incomplete + snapshot.sessions_waiting
    skipped = snapshot.sessions_skipped + snapshot.udp_flows_skipped
    parts = []
    if skipped or not attempts:
        things = _things(snapshot.sessions_skipped, snapshot.udp_flows_skipped)
        parts.append(f"all {things} left out")
    if attempts:
        parts.append(f"{plural(attempts, 'handshake')} never completed")
    return ", ".join(parts)


def _done(snapshot: Snapshot) -> int:
    """Sessions and flows that ended without a loss."""
    ended = sum(snapshot.udp_outcomes)
    flows = ended - snapshot.udp_flows_lost - snapshot.udp_flows_skipped
    return snapshot.sessions_replayed + flows
