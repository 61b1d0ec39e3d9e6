"""What all senders of batches have in common: on to the last packet, whatever fails.

A packet that cannot be sent is counted by its errno and costs nothing else; TCP sends it again.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

from tcpcopy.packet.batch import PacketBatch, PacketSink

_EINTR = errno.EINTR


class BatchSender(PacketSink):
    """Sends batches by `_send_from`, which is its subclasses' own."""

    __slots__ = (
        "before",  # called before a batch is sent (announcements must go first), or None
        "errors",  # errno -> packets not sent
        "failures",  # if a list: (place in its batch, errno) of each is added; or None
    )

    def __init__(self, before: Callable[[], object] | None = None) -> None:
        self.before = before
        self.errors: dict[int, int] = {}
        self.failures: list[tuple[int, int]] | None = None

    def send_batch(self, batch: PacketBatch) -> None:
        """Send every packet of the batch."""
        if self.before is not None:
            self.before()
        index = 0
        waited = False
        while index < batch.count:
            result = self._send_from(batch, index)
            if result > 0:
                index += result
                waited = False
                continue
            code = -result
            if code == _EINTR:
                continue
            if not waited and self._mended(code):
                waited = True
                continue
            code = self._given_up(batch, index, code)
            self.errors[code] = self.errors.get(code, 0) + 1
            if self.failures is not None:
                self.failures.append((index, code))
            index += 1
            waited = False

    def _send_from(self, batch: PacketBatch, index: int) -> int:
        """Send packets from `index` on; how many went, or a negative errno for the first."""
        raise NotImplementedError

    def _mended(self, code: int) -> int:
        """Do what may help against an error; whether to try once more (1 or 0)."""
        return 0

    def _given_up(self, batch: PacketBatch, index: int, code: int) -> int:
        """A packet is given up; the errno to count it by."""
        return code
