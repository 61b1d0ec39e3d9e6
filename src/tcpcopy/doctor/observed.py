"""What a probe observed, and nothing of what it means: `causes` tells that.

Each fact is of one flow: the handshake that was tried from the mapped address, or the ordinary one
from this host's own address. None always means that it was not looked at, or could not be seen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

from tcpcopy.relay.classic import RelayFault
from tcpcopy.relay.probing import Flow, Report, Seen


class Answer(IntEnum):
    """What a SYN brought."""

    NOT_TRIED = 0
    NOTHING = 1
    SYN_ACK = 2
    RESET = 3
    UNREACHABLE = 4  # ICMP says so
    FAILED = 5  # it could not be sent: see the errno beside it


@dataclass(frozen=True, slots=True)
class Attempt:
    """A SYN and what came of it."""

    answer: Answer = Answer.NOT_TRIED
    errno: int = 0  # of the send, with FAILED
    said_by: str = ""  # with UNREACHABLE: the host
    code: int = 0  # with UNREACHABLE: ICMP type << 8 | code
    reached_device: bool = False  # the answer was seen on this host's device


@dataclass(frozen=True, slots=True)
class RelayFacts:
    """How it went with one intercept."""

    name: str  # address:port
    address: str
    is_up: bool = False
    is_native: bool = False
    problem: str = ""  # why it is not up
    fault: RelayFault = RelayFault.NONE  # of the handshake
    was_reached: bool = False  # the TCP connection was made
    is_open: bool = False  # it takes whoever connects: no secret, no certificate is asked for
    report: Report | None = None  # None: it gives none (a C program, or an older version)
    syn_ack: bool = False  # it brought the SYN-ACK to the mapped address back
    reset: bool = False
    not_injected: str = ""  # why a packet that went through the tunnel was dropped there
    own_syn_ack: bool = False  # it brought the one to the assistant's own address


@dataclass(frozen=True, slots=True)
class ProbeFacts:
    """Everything that a probe observed."""

    flow: Flow
    forged: Attempt = Attempt()  # from the mapped address, as sessions are replayed
    own: Attempt = Attempt()  # from this host's own address
    target_is_alive: bool | None = None  # it answered a ping, or as a neighbour
    is_neighbour: bool = False  # no gateway between this host and the target
    left: bool | None = None  # the SYN was seen leaving on a device
    left_as: str = ""  # with this source address, if it is another
    here: tuple[Seen, ...] = ()  # answers to the mapped address that were seen on this host
    real_host: bool | None = None  # the mapped address answers a ping
    asked_for: tuple[str, ...] = ()  # addresses that the target asked the network for (ARP)
    relays: tuple[RelayFacts, ...] = ()
    reset_between: bool = False  # the target forgot the connection before this end ended it
    milliseconds: float = 0.0  # from the SYN to its answer

    def up(self) -> tuple[RelayFacts, ...]:
        """The intercepts that are connected."""
        return tuple(relay for relay in self.relays if relay.is_up)

    def reports(self) -> tuple[tuple[RelayFacts, Report], ...]:
        """The intercepts that say what they saw, and that."""
        return tuple(
            (r, r.report) for r in self.relays if r.report is not None and not r.report.is_open
        )

    def without_details(self) -> tuple[RelayFacts, ...]:
        """The intercepts that would say it to a tcpcopy that they know."""
        return tuple(r for r in self.up() if r.report is not None and r.report.is_open)

    def changed(self, **fields: object) -> ProbeFacts:
        """The same, with some facts replaced."""
        return replace(self, **fields)  # type: ignore[arg-type]
