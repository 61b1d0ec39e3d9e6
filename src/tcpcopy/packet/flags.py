"""TCP header flags (RFC 9293, 3.1) and the numbers that `segment.parse` returns."""

from __future__ import annotations

FIN = 0x01
SYN = 0x02
RST = 0x04
PSH = 0x08
ACK = 0x10
URG = 0x20

# The first members of engine.outcome.Drop carry the same numbers.
PARSED = 0
NOT_IP = 1
SHORT = 2
BAD_HEADER = 3
FRAGMENT = 4
NOT_TCP = 5
