"""Socket mode's replayed half, on a transport that the test plays."""

from __future__ import annotations

import errno

import pytest

from tcpcopy.engine import replayed
from tcpcopy.engine.chunk import CHUNK_COST, DATA, FIN, RST, Chunk, ChunkQueue
from tcpcopy.engine.context import Context, EngineConfig
from tcpcopy.engine.kernel import (
    POLL_MAX_NS,
    POLL_NS,
    SILENT_ERRORS,
    WOULD_BLOCK,
    KernelClient,
    Transport,
)
from tcpcopy.packet.batch import PacketBatch
from tests.unit.engine.rig import MS, SECOND, TARGET, TARGET_PORT, CollectingSink

START = 6_000 * SECOND


class FakeTransport(Transport):
    """Notes every call; takes as many bytes as there is room."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.results: list[int] = []  # of the next connects; 0 when there is none
        self.room = 1 << 30
        self.error = 0  # of the next send or shutdown
        self.sent = b""
        self.unacked = 0
        self.handles = 0
        self.until_ns = 0  # what it waits for lasts so long

    def connect(self, client: KernelClient) -> int:
        result = self.results.pop(0) if self.results else 0
        self.calls.append("connect")
        if result == 0 and not self.until_ns:
            client.handle = self.handles
            self.handles += 1
        return result

    def waits_until_ns(self, client: KernelClient) -> int:
        return self.until_ns

    def leave(self, client: KernelClient) -> int:
        assert client.handle < 0
        self.calls.append("leave")
        return 0

    def send(self, client: KernelClient, data: bytes, at: int) -> int:
        assert client.handle >= 0
        if self.error:
            return -self.error
        if self.room == 0:
            return WOULD_BLOCK
        taken = data[at : at + self.room]
        assert taken, "nothing to send"
        self.room -= len(taken)
        self.sent += taken
        self.unacked += len(taken)
        return len(taken)

    def shutdown(self, client: KernelClient) -> int:
        assert client.handle >= 0
        self.calls.append("shutdown")
        if self.error:
            return -self.error
        self.unacked += 1
        return 0

    def unacknowledged(self, client: KernelClient) -> int:
        assert client.handle >= 0
        return self.unacked

    def close(self, client: KernelClient, reset: bool) -> int:
        assert client.handle >= 0
        self.calls.append("reset" if reset else "close")
        return 0


class Kernel:
    """A client with its queue and transport."""

    def __init__(self, config: EngineConfig | None = None) -> None:
        self.config = config or EngineConfig()
        self.context = Context(self.config, PacketBatch(CollectingSink()))
        self.counts = self.context.counts
        self.transport = FakeTransport()
        self.queue = ChunkQueue()
        self.client = KernelClient(
            self.context, self.queue, self.transport, b"", TARGET, TARGET_PORT
        )
        self.now = START
        self.stream = b""

    def say(self, text: str) -> None:
        """A chunk that may go."""
        data = text.encode()
        self.queue.append(Chunk(DATA, data, len(self.stream), 0, self.now))
        self.counts.queued_bytes += CHUNK_COST + len(data)
        self.stream += data
        self.release()

    def end(self, kind: int) -> None:
        """The client's FIN or RST."""
        self.queue.append(Chunk(kind, b"", len(self.stream), 0, self.now))
        self.release()

    def release(self) -> None:
        self.queue.release()
        self.client.transmit(self.now)

    def run_to(self, after_ns: int) -> None:
        """Let time pass until START + `after_ns`, each timer at its own time."""
        end = START + after_ns
        for _ in range(10_000):
            deadline = self.client.deadline_ns()
            if deadline == 0 or deadline > end:
                self.now = end
                return
            self.now = max(self.now, deadline)
            self.client.run_timers(self.now)
            self.client.transmit(self.now)
        raise AssertionError("timers do not end")


def connected(config: EngineConfig | None = None) -> Kernel:
    """A connection that the target has accepted."""
    kernel = Kernel(config)
    kernel.client.open(kernel.now)
    kernel.client.on_connected(0, kernel.now)
    assert kernel.client.established == 1
    return kernel


# --- connecting ----------------------------------------------------------------------------


def test_connects() -> None:
    kernel = Kernel()
    kernel.client.open(kernel.now)
    assert kernel.transport.calls == ["connect"]
    assert kernel.client.deadline_ns() == START + 20 * SECOND
    kernel.client.on_connected(0, kernel.now)
    assert kernel.counts.established == 1
    assert kernel.client.deadline_ns() == 0


@pytest.mark.parametrize(
    ("code", "ended"),
    [
        (errno.ECONNREFUSED, replayed.REFUSED),
        (errno.ECONNRESET, replayed.REFUSED),
        (errno.ETIMEDOUT, replayed.CONNECT_TIMEOUT),
        (errno.ENETUNREACH, replayed.SEND_FAILED),
        (errno.EACCES, replayed.SEND_FAILED),
    ],
)
@pytest.mark.parametrize("when", ["at once", "later", "as an error"])
def test_connect_that_fails(code: int, ended: int, when: str) -> None:
    kernel = Kernel()
    if when == "at once":
        kernel.transport.results = [-code]
    kernel.client.open(kernel.now)
    if when == "later":
        kernel.client.on_connected(code, kernel.now)
    elif when == "as an error":
        kernel.client.on_error(code, kernel.now)
    assert kernel.client.ended == ended
    assert kernel.client.handle == -1
    assert kernel.client.deadline_ns() == 0
    assert kernel.transport.calls == ["connect", "leave" if when == "at once" else "close"]
    assert kernel.counts.established == 0


def test_connect_that_waits_for_what_this_host_lacks_has_its_time_afterwards() -> None:
    kernel = Kernel()
    kernel.transport.until_ns = START + 600 * SECOND
    kernel.client.open(kernel.now)
    assert kernel.client.deadline_ns() == START + 20 * SECOND
    kernel.run_to(300 * SECOND)
    assert kernel.client.ended == replayed.RUNNING
    assert kernel.client.deadline_ns() == START + 600 * SECOND
    kernel.transport.until_ns = 0
    kernel.client.handle = 0
    kernel.client.on_connecting(kernel.now)
    assert kernel.client.deadline_ns() == START + 320 * SECOND
    kernel.client.on_connected(0, kernel.now)
    assert kernel.client.established == 1 and kernel.client.deadline_ns() == 0


def test_connect_that_waits_for_too_long_could_not_be_sent() -> None:
    kernel = Kernel()
    kernel.transport.until_ns = START + 60 * SECOND
    kernel.client.open(kernel.now)
    kernel.run_to(60 * SECOND - 1)
    assert kernel.client.ended == replayed.RUNNING
    kernel.run_to(60 * SECOND)
    assert kernel.client.ended == replayed.SEND_FAILED
    assert kernel.transport.calls == ["connect", "leave"]


def test_session_that_ends_while_its_connect_waits_leaves_the_line() -> None:
    kernel = Kernel()
    kernel.transport.until_ns = START + 60 * SECOND
    kernel.client.open(kernel.now)
    kernel.client.abort(kernel.now)
    assert kernel.client.ended == replayed.RESET_SENT
    assert "leave" in kernel.transport.calls


def test_connect_that_nobody_answers() -> None:
    kernel = Kernel(EngineConfig(connect_timeout_ns=SECOND))
    kernel.client.open(kernel.now)
    kernel.run_to(SECOND - 1)
    assert kernel.client.ended == replayed.RUNNING
    kernel.run_to(SECOND)
    assert kernel.client.ended == replayed.CONNECT_TIMEOUT
    assert kernel.transport.calls == ["connect", "close"]


# --- sending -------------------------------------------------------------------------------


def test_nothing_is_sent_before_the_connection_stands() -> None:
    kernel = Kernel()
    kernel.client.open(kernel.now)
    kernel.say("hello")
    assert kernel.transport.sent == b""
    kernel.client.on_connected(0, kernel.now)
    kernel.client.transmit(kernel.now)
    assert kernel.transport.sent == b"hello"


def test_chunks_in_order() -> None:
    kernel = connected()
    for text in ("one", "two", "three"):
        kernel.say(text)
    assert kernel.transport.sent == b"onetwothree"
    assert kernel.client.acknowledged == kernel.client.sent == 11
    assert (kernel.counts.bytes_delivered, kernel.counts.queued_bytes) == (11, 0)
    assert kernel.counts.segments_sent == 3
    assert kernel.queue.head is None


def test_what_is_not_released_stays() -> None:
    kernel = connected()
    kernel.queue.append(Chunk(DATA, b"later", 0, 0, kernel.now))
    kernel.client.transmit(kernel.now)
    assert kernel.transport.sent == b""


def test_full_buffer() -> None:
    kernel = connected()
    kernel.transport.room = 4
    kernel.say("123456789")
    assert kernel.transport.sent == b"1234"
    assert kernel.client.writable == 0
    kernel.client.transmit(kernel.now)
    assert kernel.transport.sent == b"1234"
    kernel.transport.room = 3
    kernel.client.on_writable(kernel.now)
    assert kernel.transport.sent == b"1234567"
    assert kernel.counts.queued_bytes == CHUNK_COST + 9
    kernel.transport.room = 100
    kernel.client.on_writable(kernel.now)
    assert kernel.transport.sent == b"123456789"
    assert kernel.counts.queued_bytes == 0


def test_full_buffer_holds_the_fin() -> None:
    kernel = connected()
    kernel.transport.room = 0
    kernel.say("data")
    kernel.end(FIN)
    assert "shutdown" not in kernel.transport.calls
    kernel.transport.room = 100
    kernel.client.on_writable(kernel.now)
    assert kernel.transport.sent == b"data"
    assert kernel.transport.calls[-1] == "shutdown"


def test_chunk_that_comes_when_all_before_it_is_gone() -> None:
    kernel = connected()
    kernel.say("one")
    assert kernel.queue.head is None
    kernel.say("two")
    kernel.say("three")
    assert kernel.transport.sent == b"onetwothree"


@pytest.mark.parametrize(
    ("code", "ended"),
    [
        (errno.EPIPE, replayed.RESET_BY_TARGET),
        (errno.ECONNRESET, replayed.RESET_BY_TARGET),
        *((code, replayed.ANSWER_TIMEOUT) for code in SILENT_ERRORS),
    ],
)
def test_send_that_fails(code: int, ended: int) -> None:
    kernel = connected()
    kernel.say("delivered")
    kernel.transport.unacked = 4
    kernel.transport.error = code
    kernel.say("lost")
    assert kernel.client.ended == ended
    assert kernel.counts.bytes_delivered == kernel.client.acknowledged == 5
    assert kernel.transport.calls == ["connect", "close"]


# --- receiving -----------------------------------------------------------------------------


def test_answers_are_counted_and_each_read_is_a_push() -> None:
    kernel = connected()
    assert kernel.client.coarse == 1
    kernel.now += 5
    kernel.client.on_received(700, kernel.now)
    kernel.client.on_received(1, kernel.now)
    assert kernel.client.received == 701
    assert kernel.counts.answer_bytes == 701
    assert kernel.client.pushed == 1
    assert kernel.client.last_receive_ns == START + 5


def test_end_of_the_target_counts_one() -> None:
    kernel = connected()
    kernel.client.on_received(10, kernel.now)
    kernel.client.on_end(kernel.now)
    kernel.client.on_end(kernel.now)
    assert kernel.client.received == 11
    assert kernel.client.target_closed == 1
    assert kernel.counts.answer_bytes == 10
    assert kernel.client.ended == replayed.RUNNING


# --- closing -------------------------------------------------------------------------------


def test_client_first() -> None:
    kernel = connected()
    kernel.say("x")
    kernel.end(FIN)
    assert kernel.transport.calls == ["connect", "shutdown"]
    assert kernel.client.fin_acknowledged == 0
    kernel.transport.unacked = 0
    kernel.run_to(POLL_NS)
    assert kernel.client.fin_acknowledged == 1
    assert kernel.client.ended == replayed.RUNNING
    kernel.client.on_end(kernel.now)
    assert kernel.client.ended == replayed.CLOSED
    assert kernel.transport.calls == ["connect", "shutdown", "close"]
    assert kernel.client.deadline_ns() == 0
    assert kernel.client.closed_first


def test_target_first() -> None:
    kernel = connected()
    kernel.say("x")
    kernel.client.on_end(kernel.now)
    kernel.end(FIN)
    kernel.transport.unacked = 0
    kernel.run_to(POLL_NS)
    assert kernel.client.ended == replayed.CLOSED
    assert kernel.client.fin_acknowledged == 1
    assert kernel.transport.calls == ["connect", "shutdown", "close"]
    assert not kernel.client.closed_first


def test_target_that_closed_is_given_what_is_left_before_the_end_is_counted() -> None:
    """It may reset instead of reading on, and then the session is not replayed in full."""
    kernel = connected()
    kernel.client.on_end(kernel.now)
    kernel.say("unread")
    kernel.end(FIN)
    assert kernel.client.ended == replayed.RUNNING
    kernel.run_to(5 * MS)
    assert kernel.client.ended == replayed.RUNNING
    kernel.client.on_error(errno.ECONNRESET, kernel.now)
    assert kernel.client.ended == replayed.RESET_BY_TARGET
    assert kernel.counts.bytes_delivered == 0


def test_target_that_closes_without_having_everything() -> None:
    kernel = connected()
    kernel.say("unread")
    kernel.end(FIN)
    kernel.client.on_end(kernel.now)
    assert kernel.client.ended == replayed.RUNNING
    kernel.transport.unacked = 0
    kernel.run_to(100 * MS)
    assert kernel.client.ended == replayed.CLOSED
    assert kernel.counts.bytes_delivered == 6


def test_looks_for_the_last_acknowledgement_become_rarer() -> None:
    kernel = connected()
    kernel.say("x")
    kernel.end(FIN)
    waits = []
    for _ in range(12):
        deadline = kernel.client.poll_deadline_ns
        waits.append(deadline - kernel.now)
        kernel.run_to(deadline - START)
    assert waits[:4] == [POLL_NS, 2 * POLL_NS, 4 * POLL_NS, 8 * POLL_NS]
    assert waits[-1] == POLL_MAX_NS


def test_target_that_never_closes_is_left_after_the_close_time_out() -> None:
    kernel = connected(EngineConfig(close_timeout_ns=2 * SECOND))
    kernel.end(FIN)
    kernel.transport.unacked = 0
    kernel.run_to(2 * SECOND - 1)
    assert kernel.client.ended == replayed.RUNNING
    kernel.run_to(2 * SECOND)
    assert kernel.client.ended == replayed.CLOSED


def test_target_that_still_sends_is_not_left() -> None:
    kernel = connected(EngineConfig(close_timeout_ns=2 * SECOND))
    kernel.end(FIN)
    kernel.transport.unacked = 0
    kernel.run_to(1500 * MS)
    kernel.client.on_received(10, kernel.now)
    kernel.run_to(3500 * MS - 1)
    assert kernel.client.ended == replayed.RUNNING
    kernel.run_to(3500 * MS)
    assert kernel.client.ended == replayed.CLOSED


def test_target_that_does_not_read_is_not_left_as_if_it_had_everything() -> None:
    """The data stand in the kernel's buffer; its own time-out (-t) ends the connection."""
    kernel = connected(EngineConfig(close_timeout_ns=2 * SECOND))
    kernel.say("unread")
    kernel.end(FIN)
    kernel.run_to(30 * SECOND)
    assert kernel.client.ended == replayed.RUNNING
    kernel.client.on_error(errno.ETIMEDOUT, kernel.now)
    assert kernel.client.ended == replayed.ANSWER_TIMEOUT
    assert kernel.counts.bytes_delivered == 0


def test_shutdown_that_fails() -> None:
    kernel = connected()
    kernel.transport.error = errno.ENOTCONN
    kernel.transport.unacked = 1
    kernel.end(FIN)
    assert kernel.client.ended == replayed.RESET_BY_TARGET


# --- resets --------------------------------------------------------------------------------


def test_client_reset_waits_until_everything_is_acknowledged() -> None:
    kernel = connected()
    kernel.say("data")
    kernel.end(RST)
    assert kernel.transport.calls == ["connect"]
    kernel.run_to(50 * MS)
    assert kernel.transport.calls == ["connect"]
    kernel.transport.unacked = 0
    kernel.run_to(200 * MS)
    assert kernel.transport.calls == ["connect", "reset"]
    assert kernel.client.ended == replayed.RESET_SENT
    assert kernel.client.deadline_ns() == 0


def test_client_reset_of_an_idle_connection() -> None:
    kernel = connected()
    kernel.end(RST)
    assert kernel.transport.calls == ["connect", "reset"]
    assert kernel.client.ended == replayed.RESET_SENT


def test_client_reset_after_its_fin() -> None:
    kernel = connected()
    kernel.say("data")
    kernel.end(FIN)
    kernel.end(RST)
    assert kernel.transport.calls == ["connect", "shutdown"]
    kernel.transport.unacked = 0
    kernel.run_to(POLL_MAX_NS)
    assert kernel.client.ended == replayed.RESET_SENT
    assert kernel.transport.calls == ["connect", "shutdown", "reset"]


def test_client_reset_after_its_fin_was_acknowledged() -> None:
    kernel = connected()
    kernel.end(FIN)
    kernel.transport.unacked = 0
    kernel.run_to(POLL_NS)
    kernel.end(RST)
    assert kernel.client.ended == replayed.RESET_SENT


def test_target_resets() -> None:
    kernel = connected()
    kernel.say("data")
    kernel.transport.unacked = 1
    kernel.client.on_error(errno.ECONNRESET, kernel.now)
    assert kernel.client.ended == replayed.RESET_BY_TARGET
    assert kernel.counts.bytes_delivered == kernel.client.acknowledged == 3
    assert kernel.client.handle == -1


def test_target_resets_after_it_had_everything() -> None:
    kernel = connected()
    kernel.say("data")
    kernel.end(FIN)
    kernel.transport.unacked = 0
    kernel.client.on_error(errno.ECONNRESET, kernel.now)
    assert kernel.client.ended == replayed.RESET_AT_END
    assert kernel.counts.bytes_delivered == 4


def test_unacknowledged_fin_is_no_byte() -> None:
    """Its acknowledgement may stand in the RST, where the kernel does not look for it."""
    kernel = connected()
    kernel.say("data")
    kernel.end(FIN)
    kernel.transport.unacked = 1
    kernel.client.on_error(errno.ECONNRESET, kernel.now)
    assert kernel.client.ended == replayed.RESET_AT_END
    assert kernel.counts.bytes_delivered == kernel.client.acknowledged == 4


def test_target_resets_while_a_byte_before_the_fin_is_open() -> None:
    kernel = connected()
    kernel.say("data")
    kernel.end(FIN)
    kernel.transport.unacked = 2
    kernel.client.on_error(errno.ECONNRESET, kernel.now)
    assert kernel.client.ended == replayed.RESET_BY_TARGET
    assert kernel.counts.bytes_delivered == kernel.client.acknowledged == 3


def test_abort() -> None:
    kernel = connected()
    kernel.say("data")
    kernel.transport.unacked = 3
    kernel.client.abort(kernel.now)
    assert kernel.transport.calls == ["connect", "reset"]
    assert kernel.client.ended == replayed.RESET_SENT
    assert kernel.counts.bytes_delivered == 1
    kernel.client.abort(kernel.now)
    assert kernel.transport.calls == ["connect", "reset"]


def test_abort_while_connecting() -> None:
    kernel = Kernel()
    kernel.client.open(kernel.now)
    kernel.client.abort(kernel.now)
    assert kernel.transport.calls == ["connect", "reset"]
    assert kernel.client.handle == -1


def test_nothing_is_kept_of_a_closed_socket() -> None:
    kernel = connected()
    kernel.client.abort(kernel.now)
    assert kernel.client.linger(kernel.now) == 1
    assert kernel.client.owner is None
    assert kernel.client.queue is None
    assert kernel.client.cursor is None


# --- what the session asks -------------------------------------------------------------------


def test_what_stands_in_the_kernels_buffer_is_not_delivered() -> None:
    kernel = connected()
    assert kernel.client.undelivered() == 0
    kernel.say("data")
    assert kernel.client.undelivered() == 4
    kernel.transport.unacked = 0
    assert kernel.client.undelivered() == 0
    kernel.client.abort(kernel.now)
    assert kernel.client.undelivered() == 0
