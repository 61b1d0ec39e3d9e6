"""The closed lists: how a session ended, and why a packet was not used.

They are in the lowest layer so that reports can name what the engine counts. The engine and its
owners import them as `engine/outcome.py`, the reports from here.

The numbers are contiguous and start at 1: plain arrays of `OUTCOME_SLOTS` and `DROP_SLOTS` counts
are indexed by them. Slot 0 of an array of drops counts the packets that were used; slot 0 of
outcomes stays 0. Members are only ever appended: JSON reports and C constants carry them.
"""

from __future__ import annotations

from typing import Final

from tcpcopy.report.described import Described, Ending


class Outcome(Ending):
    """How a captured session ended; every session ends in exactly one of these."""

    REPLAYED = (1, "replayed in full", False)
    CLIENT_RESET = (2, "replayed, ended by the client's reset", False)
    REFUSED = (3, "refused by the target")
    RESET = (4, "reset by the target")
    CLOSED_EARLY = (5, "closed by the target before all was sent")
    CONNECT_TIMEOUT = (6, "the target did not answer the connect")
    ANSWER_TIMEOUT = (7, "the target stopped answering")
    IDLE_TIMEOUT = (8, "idle too long, with data not delivered")
    IDLE_COMPLETE = (9, "idle too long, all captured data delivered", False)
    CAPTURE_HOLE = (10, "part of the client's data was not captured")
    SKIPPED_SAMPLING = (11, "left out by sampling (-r, -g)", False, True)
    SKIPPED_PARTIAL = (12, "begun before the capture, left out (-O)", False, True)
    SHED_MEMORY = (13, "not taken on or broken off, memory limit (-m) near")
    SHED_SESSIONS = (14, "not taken on, session limit reached")
    NO_ADDRESS = (15, "not taken on, no free client address and port")
    SEND_FAILED = (16, "could not be sent from this host")
    INTERNAL_ERROR = (17, "ended by an error inside tcpcopy")
    OPEN_COMPLETE = (18, "open at exit or file end, all captured data delivered", False)
    OPEN_AT_EXIT = (19, "open at exit, with data not delivered")
    SHED_RATE = (20, "not taken on, too many waited for their turn (--rate)")
    SKIPPED_RATE = (21, "left out to keep the rate (--rate-mode drop)", False, True)
    WORKER_LOST = (22, "lost with a worker that died (--workers)")
    HANDSHAKE_INCOMPLETE = (23, "the client never completed its handshake", False, False, True)
    SHED_FORWARDED = (24, "not taken on or broken off, clients would get answers")
    RESET_AT_END = (25, "replayed in full, then reset by the target", False)
    UNANSWERED = (26, "delivered, but the target answered nothing of it")
    MPTCP = (27, "MPTCP with several subflows, which are not put together")
    GONE_ON = (28, "cut by the target, gone on with on another connection")


class Drop(Described):
    """Why a packet (captured, or an answer) was not used; 0 instead of a member: it was used.

    `description` is one line for the summary. Packets that are dropped for good reason
    (duplicates, acknowledgements) are counted here as well, so that the sums close.
    """

    # The packet itself cannot be read.
    NOT_IP = (1, "neither IPv4 nor IPv6")
    SHORT = (2, "shorter than its headers")
    BAD_HEADER = (3, "header lengths contradict each other")
    FRAGMENT = (4, "a fragment of what did not come whole")
    NOT_TCP = (5, "not TCP")
    CUT = (6, "payload cut by the snap length")
    BAD_OPTION = (7, "malformed TCP options")
    # It can be read, but is nothing to replay.
    NO_TRANSFER = (8, "to no address and port of -x")
    NO_SESSION = (9, "of no known session (reset or FIN)")
    PURE_ACK_NO_SESSION = (10, "an acknowledgement of no known session")
    CLOSED_SESSION = (11, "of a session that has ended")
    SKIPPED_SESSION = (12, "of a session left out (-r, -g, -O)")
    SHED_SESSION = (13, "of a session not taken on")
    DUPLICATE = (14, "nothing new (retransmission, keep-alive)")
    OUT_OF_WINDOW = (15, "outside the window of its session")
    EARLY_LIMIT = (16, "too far ahead, the hold for early data is full")
    # Answers only.
    FOREIGN = (17, "an answer for no session")
    BAD_ACK = (18, "acknowledges what was not sent")
    BAD_STATE = (19, "does not fit the state of its session")
    # Both; a packet that trips our own bug is counted too.
    INTERNAL_ERROR = (20, "met an error inside tcpcopy")
    # Answers at intercept only.
    OWN_ADDRESS = (21, "for this host itself, not for a client")
    # Captured ones again.
    BEHIND_HOLE = (22, "behind bytes that were not captured")
    NO_ACK = (23, "without an acknowledgement: online drops those")
    BAD_CHECKSUM = (24, "with a wrong checksum: online drops those")
    STRAY_SYN = (25, "a SYN within an open connection: online ignores those")
    SEEN_TWICE = (26, "of a connection that was seen on another device as well")
    ANSWER_SIDE = (27, "an answer (both ends use ports of -x)")
    SUBFLOW = (28, "of a subflow of MPTCP")


OUTCOME_SLOTS: Final = len(Outcome) + 1
DROP_SLOTS: Final = len(Drop) + 1
