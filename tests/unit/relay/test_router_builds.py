"""The router and the C tcpcopy's builds: who reads no batches, and who announces nothing."""

from __future__ import annotations

from tcpcopy.relay.own import OwnAddresses
from tcpcopy.relay.records import RecordWriter
from tcpcopy.relay.router import AnswerRouter
from tcpcopy.report.outcome import Drop
from tests.unit.relay.packets import ACK, CLIENT, SYN, answer, batch, record
from tests.unit.relay.test_router import SECOND, add, check_sums, connections, feed, sent


def unsure(number: int = 1) -> RecordWriter:
    writer = RecordWriter(number, 1)
    writer.unsure = True
    return writer


def syn_ack_again(router: AnswerRouter, seconds: float, port: int = 40001) -> bytes:
    router.now_ns += int(seconds * SECOND)
    packet = answer(client_port=port, flags=SYN | ACK)
    feed(router, packet)
    return packet


def test_syn_acks_that_come_again_and_again_are_not_understood() -> None:
    """As the target sends them; at the third that comes again, all of these go out bare."""
    router = AnswerRouter()
    writer = unsure()
    router.messages(writer, add())
    packet = syn_ack_again(router, 0)
    assert sent(writer) == batch(record(packet))
    syn_ack_again(router, 1)
    assert sent(writer) == batch(record(packet))
    assert not writer.went_bare
    syn_ack_again(router, 2)
    assert sent(writer) == batch(record(packet))
    syn_ack_again(router, 4)
    assert writer.went_bare
    assert sent(writer) == bytes(58) + 3 * record(packet)
    check_sums(router)


def test_seen_on_two_devices_is_not_sent_again() -> None:
    router = AnswerRouter()
    writer = unsure()
    router.messages(writer, add())
    for _ in range(9):
        syn_ack_again(router, 0.001)
    assert not writer.went_bare


def test_three_sessions_that_come_again_are_enough() -> None:
    """The C program gives up a session that is not established after three seconds."""
    router = AnswerRouter()
    writer = unsure()
    ports = range(40001, 40021)
    packets = []
    for port in ports:
        router.messages(writer, add(port))
        packets.append(syn_ack_again(router, 0, port))
    sent(writer)
    router.now_ns += SECOND
    for port in ports:
        syn_ack_again(router, 0, port)
    assert writer.went_bare
    said = sent(writer)
    assert said.endswith(b"".join(record(packet) for packet in packets))
    assert len(said) % 64 == (-20 * 66) % 64


def test_one_session_that_gets_on_shows_that_batches_are_read() -> None:
    router = AnswerRouter()
    writer = unsure()
    router.messages(writer, add(40001) + add(40002))
    syn_ack_again(router, 0, 40001)
    syn_ack_again(router, 0, 40002)
    syn_ack_again(router, 1, 40001)
    feed(router, answer(client_port=40002))
    for seconds in (2, 4, 8):
        syn_ack_again(router, seconds, 40001)
    assert (writer.unsure, writer.went_bare) == (False, False)


def test_who_announces_nothing_gets_what_nobody_has_announced() -> None:
    """All of a session over one connection; what was kept first; announced ones as announced."""
    router = AnswerRouter()
    one, two = connections(2)
    other = RecordWriter(3)
    router.messages(other, add(50000))
    kept = answer(client_port=40001, flags=SYN | ACK)
    feed(router, kept)
    assert router.kept_since_ns() == 0
    router.set_single([one, two])
    assert router.kept_since_ns() == -1
    packets = [answer(client_port=port) for port in range(40001, 40011)]
    for packet in packets * 2:
        feed(router, packet)
    announced = answer(client_port=50000)
    feed(router, announced)
    assert sent(other) == batch(record(announced))
    assert one.records + two.records == 1 + 2 * len(packets)
    assert abs(one.records - two.records) == 1  # that of the one that was kept
    assert router.relayed == 1 + 2 * len(packets)
    router.set_single([])
    assert feed(router, answer(client_port=40100)) == Drop.FOREIGN
    check_sums(router)


def test_a_connection_that_is_gone_leaves_its_sessions_to_the_others() -> None:
    router = AnswerRouter()
    one, two = connections(2)
    router.set_single([one, two])
    for port in (40001, 40002):
        feed(router, answer(client_port=port))
    one.close()
    router.connection_closed()
    router.set_single([two])
    for port in (40001, 40002):
        feed(router, answer(client_port=port))
    assert two.records == 3
    assert router.sessions == 2
    check_sums(router)


def test_who_announces_nothing_and_reads_no_batches_is_found_out_as_well() -> None:
    router = AnswerRouter()
    writer = unsure()
    packet = syn_ack_again(router, 0)
    router.set_single([writer])
    assert sent(writer) == batch(record(packet))
    for seconds in (1, 2, 4):
        syn_ack_again(router, seconds)
    assert writer.went_bare
    assert sent(writer) == 2 * batch(record(packet)) + bytes(58) + 3 * record(packet)


def test_nothing_for_this_host_itself_is_handed_out() -> None:
    router = AnswerRouter()
    router.set_own(OwnAddresses([CLIENT]))
    (one,) = connections(1)
    router.set_single([one])
    assert feed(router, answer()) == Drop.OWN_ADDRESS
    assert not one.records
