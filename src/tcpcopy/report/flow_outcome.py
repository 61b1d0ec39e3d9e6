"""The closed lists of UDP: how a flow ended, and why a packet or datagram was not sent on.

As `report/outcome.py` for TCP: numbers are contiguous from 1 and only ever appended, slot 0 of an
array of drops counts what was used. `engine/flow.py` is where they are counted.
"""

from __future__ import annotations

from typing import Final

from tcpcopy.report.described import Described, Ending


class FlowOutcome(Ending):
    """How a captured flow ended; each ends in exactly one of these."""

    REPLAYED = (1, "every captured datagram sent", False)
    REFUSED = (2, "refused by the target (ICMP)")
    INCOMPLETE = (3, "some datagrams not sent")
    SEND_FAILED = (4, "could not be sent from this host")
    SKIPPED_SAMPLING = (5, "left out by sampling (-r, -g)", False, True)
    SHED_MEMORY = (6, "not taken on, memory limit (-m) near")
    SHED_FLOWS = (7, "not taken on, too many live flows")
    NO_ADDRESS = (8, "not taken on, no free client address and port")
    INTERNAL_ERROR = (9, "ended by an error inside tcpcopy")
    WORKER_LOST = (10, "lost with a worker that died (--workers)")
    SHED_FORWARDED = (11, "not taken on, clients would get answers")


class DatagramDrop(Described):
    """Why a captured packet, or a datagram of a flow, was not sent; 0 instead: it was.

    The first members are what `packet.segment.parse_udp` returns.
    """

    # Packets: never came as far as a flow.
    NOT_IP = (1, "neither IPv4 nor IPv6")
    SHORT = (2, "shorter than its headers")
    BAD_HEADER = (3, "header lengths contradict each other")
    FRAGMENT = (4, "a fragment of a datagram that stayed incomplete")
    NOT_UDP = (5, "not UDP")
    FRAGMENT_ALONE = (6, "a fragment without the first one, of other traffic")
    NO_TRANSFER = (7, "to no address and port of -x")
    # Datagrams of a flow.
    CUT = (8, "cut by the snap length")
    SKIPPED_FLOW = (9, "of a flow left out (-r, -g)")
    SHED_FLOW = (10, "of a flow not taken on")
    SEND_ERROR = (11, "could not be sent from this host")
    INTERNAL_ERROR = (12, "met an error inside tcpcopy")
    # Packets again.
    SEEN_TWICE = (13, "seen on another device as well")
    ANSWER_SIDE = (14, "an answer (both ends use ports of -x)")


FLOW_OUTCOME_SLOTS: Final = len(FlowOutcome) + 1
DATAGRAM_DROP_SLOTS: Final = len(DatagramDrop) + 1
