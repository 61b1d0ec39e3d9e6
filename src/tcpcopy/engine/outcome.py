"""The closed lists of the engine: how a session ended, and why a packet was not used.

They are in `report/outcome.py`, because reports lie below the engine and name every member.
"""

from tcpcopy.report.outcome import DROP_SLOTS, OUTCOME_SLOTS, Drop, Outcome

__all__ = ["DROP_SLOTS", "OUTCOME_SLOTS", "Drop", "Outcome"]
