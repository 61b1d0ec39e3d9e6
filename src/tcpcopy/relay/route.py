"""What intercept's router keeps of one announced session."""

from __future__ import annotations

from tcpcopy.relay.records import RecordWriter

_SYN, _RST = 0x02, 0x04
# A SYN-ACK that comes so much later was sent again; sooner, it is the same one seen on two devices.
_AGAIN_NS = 500_000_000
# After so many, and no session that got on, the tcpcopy does not understand what it gets. The C
# program gives a session up that is not established after three seconds: there is no time for more.
_NOT_UNDERSTOOD = 3


class Route:
    """One announced session. Also the head of a list of them, linked in a ring by age."""

    __slots__ = (
        "active_ns",  # last answer or announcement
        "answered",  # 1: a SYN-ACK of the target was relayed, as far as `judge` is asked
        "checked_ns",  # when it was put at the young end of its list
        "ended",  # 1: a FIN or RST of the target was seen, or it was removed
        "key",  # what the table knows it by: client address and port, target port; not of IPv6
        "name",  # of IPv6: target and client address, target and client port; else None
        "newer",
        "older",
        "removed",  # 1: tcpcopy has removed it; it lingers so that late answers find it
        "sibling",  # another target address with the same key
        "target",  # target address
        "writer",  # of the connection that gets the answers
    )

    def __init__(self) -> None:
        self.active_ns = 0
        self.answered = 0
        self.checked_ns = 0
        self.ended = 0
        self.key = 0
        self.name: bytes | None = None
        self.newer: Route = self
        self.older: Route = self
        self.removed = 0
        self.sibling: Route | None = None
        self.target = 0
        self.writer: RecordWriter | None = None

    def unlink(self) -> None:
        """Leave the list; a ring of its own remains."""
        self.older.newer = self.newer
        self.newer.older = self.older
        self.newer = self
        self.older = self

    def link_newest(self, head: Route) -> None:
        """Go to the young end of the list of `head`; not linked before."""
        self.newer = head
        self.older = head.older
        head.older.newer = self
        head.older = self

    def judge(self, flags: int, now_ns: int) -> None:
        """Tell by an answer of the target whether the tcpcopy understands records in batches.

        If it does, the handshake ends and the target goes on; else its SYN-ACK comes again. For
        a writer that is `unsure`, before `active_ns` is that of this answer.
        """
        writer = self.writer
        if not flags & _SYN:
            if self.answered and not flags & _RST:
                writer.understood()  # type: ignore[union-attr]
        elif not self.answered:
            self.answered = 1
        elif now_ns - self.active_ns >= _AGAIN_NS:
            writer.repeats += 1  # type: ignore[union-attr]
            if writer.repeats >= _NOT_UNDERSTOOD:  # type: ignore[union-attr]
                writer.go_bare()  # type: ignore[union-attr]
