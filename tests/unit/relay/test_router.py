"""Who gets an answer: announcements, answers that come early, tables that stay bounded."""

from __future__ import annotations

import pytest

from tcpcopy.relay.classic import Layout, MessageType, encode_message
from tcpcopy.relay.native import MESSAGE_V6
from tcpcopy.relay.own import OwnAddresses
from tcpcopy.relay.records import Peer, RecordWriter
from tcpcopy.relay.router import AnswerRouter
from tcpcopy.report.outcome import Drop
from tests.unit.relay.packets import ACK, CLIENT, FIN, RST, SYN, TARGET, answer, batch, record

SECOND = 1_000_000_000


def add(port: int = 40001, target: bytes = TARGET, target_port: int = 8080) -> bytes:
    return encode_message(MessageType.ADD, CLIENT, port, target, target_port)


def remove(port: int = 40001) -> bytes:
    return encode_message(MessageType.REMOVE, CLIENT, port, TARGET, 8080)


def feed(router: AnswerRouter, packet: bytes) -> int:
    return router.packet(packet, 0, len(packet), len(packet), 0)


def sent(writer: RecordWriter) -> bytes:
    with writer.pending() as view:
        data = bytes(view)
    writer.sent(len(data))
    return data


def check_sums(router: AnswerRouter, held: int = 0) -> None:
    """Every answer is counted once, and every early one is accounted for."""
    unused = sum(router.drops)
    assert router.answers == router.relayed + router.kept + router.lost + unused
    assert router.kept == router.early_sent + router.early_expired + held


def test_answers_go_to_the_connection_that_announced() -> None:
    router = AnswerRouter()
    one, two = RecordWriter(1), RecordWriter(2)
    router.messages(one, add(40001))
    router.messages(two, add(40002))
    first, second = answer(client_port=40001), answer(client_port=40002, payload=b"xy")
    assert feed(router, first) == feed(router, second) == feed(router, first) == 0
    assert router.take_ready() == [one, two]
    assert router.take_ready() == []
    assert sent(one) == batch(record(first), record(first))
    assert sent(two) == batch(record(second))
    check_sums(router)


def connections(count: int, address: str = "10.0.0.1") -> list[RecordWriter]:
    """Of one host."""
    peer = Peer(address)
    return [RecordWriter(number, peer=peer) for number in range(1, count + 1)]


def test_the_last_announcement_wins() -> None:
    """Of one host: after a reconnect it announces again."""
    router = AnswerRouter()
    one, two = connections(2)
    router.messages(one, add())
    router.messages(two, add())
    feed(router, answer())
    assert router.sessions == 1
    assert (one.records, two.records) == (0, 1)


def test_all_four_of_addresses_and_ports_tell_sessions_apart() -> None:
    """Two tcpcopies that replay one client to two targets do not get each other's answers.

    The first pair of sessions shares a key in the C program (its key is a sum).
    """
    router = AnswerRouter()
    packets = [
        answer(client=bytes([10, 99, 0, 5]), client_port=40001),
        answer(client=bytes([10, 98, 0, 4]), client_port=40002),
        answer(target=bytes([10, 0, 0, 9])),
        answer(target_port=8081),
        answer(client_port=1),
        answer(),
    ]
    writers = []
    for number, packet in enumerate(packets):
        writers.append(RecordWriter(number))
        message = encode_message(
            MessageType.ADD,
            packet[16:20],
            int.from_bytes(packet[22:24], "big"),
            packet[12:16],
            int.from_bytes(packet[20:22], "big"),
        )
        router.messages(writers[-1], message)
    for packet in packets:
        feed(router, packet)
    assert [sent(writer) for writer in writers] == [batch(record(packet)) for packet in packets]
    assert router.sessions == len(packets)


def test_sessions_that_share_client_and_target_port_are_forgotten_one_by_one() -> None:
    """They stand in one chain of the table: each may leave it first."""
    targets = [bytes([10, 0, 0, number]) for number in range(1, 4)]
    for leaving in range(3):
        router = AnswerRouter(idle_ns=10 * SECOND)
        writers = [RecordWriter(number) for number in range(3)]
        for writer, target in zip(writers, targets, strict=True):
            router.messages(writer, add(target=target))
        writers[leaving].close()
        router.connection_closed()
        router.sweep(1)
        assert router.sessions == 2
        for number, target in enumerate(targets):
            reason = feed(router, answer(target=target))
            assert reason == (Drop.FOREIGN if number == leaving else 0)


@pytest.mark.parametrize("flags", [SYN | ACK, RST, RST | ACK])
def test_early_syn_or_rst_is_kept_and_sent_with_the_announcement(flags: int) -> None:
    router = AnswerRouter()
    writer = RecordWriter()
    packet = answer(flags=flags)
    assert feed(router, packet) == 0
    assert (router.kept, router.early_sessions, router.take_ready()) == (1, 1, [])
    check_sums(router, held=1)
    router.messages(writer, add())
    assert router.take_ready() == [writer]
    assert sent(writer) == batch(record(packet))
    assert router.early_sessions == 0
    check_sums(router)


def test_other_early_answers_are_foreign() -> None:
    router = AnswerRouter()
    assert feed(router, answer(payload=b"x")) == Drop.FOREIGN
    assert feed(router, answer(flags=FIN | ACK)) == Drop.FOREIGN
    check_sums(router)


def test_early_answers_expire() -> None:
    router = AnswerRouter(early_ns=5 * SECOND)
    feed(router, answer(flags=SYN | ACK))
    router.sweep(5 * SECOND - 1)
    assert router.early_sessions == 1
    router.sweep(5 * SECOND)
    assert router.early_sessions == 0
    writer = RecordWriter()
    router.messages(writer, add())
    assert writer.records == 0
    check_sums(router)


def test_an_old_expiry_does_not_hit_answers_that_came_later() -> None:
    """Kept at 0, sent at 1, kept again at 4: gone at 9, not at 5."""
    router = AnswerRouter(early_ns=5 * SECOND)
    writer = RecordWriter()
    feed(router, answer(flags=SYN | ACK))
    router.messages(writer, add())
    writer.close()
    router.now_ns = 4 * SECOND
    feed(router, answer(flags=SYN | ACK))
    router.sweep(6 * SECOND)
    assert router.early_sessions == 1
    router.sweep(9 * SECOND)
    assert router.early_sessions == 0
    check_sums(router)


def test_early_answers_are_bounded() -> None:
    router = AnswerRouter(early_limit=100)
    for port in range(1, 1001):
        for _ in range(6):
            feed(router, answer(client_port=port, flags=SYN | ACK))
    assert router.early_sessions == 100
    assert router.kept == 4000  # four for each session, then no more
    check_sums(router, held=400)
    writer = RecordWriter()
    router.messages(writer, add(1000))
    router.messages(writer, add(1))
    assert writer.records == 4


def test_announced_and_kept_sessions_do_not_pile_up_in_the_queue() -> None:
    """The usual case: each SYN-ACK is early by a moment; nothing may grow until it expires."""
    router = AnswerRouter(early_limit=10)
    writer = RecordWriter()
    for port in range(1, 1001):
        feed(router, answer(client_port=port, flags=SYN | ACK))
        router.messages(writer, add(port))
    assert (router.early_sent, router.early_expired, router.early_sessions) == (1000, 0, 0)


def test_removed_session_gets_nothing_more_until_it_is_announced_again() -> None:
    router = AnswerRouter()
    writer = RecordWriter()
    router.messages(writer, add())
    router.messages(writer, remove())
    assert feed(router, answer(flags=RST)) == Drop.CLOSED_SESSION
    router.messages(writer, add())
    assert feed(router, answer()) == 0
    assert writer.records == 1
    check_sums(router)


def test_only_the_connection_that_announced_can_remove() -> None:
    """A removal that was overtaken by a new announcement on another connection is stale."""
    router = AnswerRouter()
    one, two = connections(2)
    router.messages(one, add())
    router.messages(two, add())
    router.messages(one, remove())
    router.messages(one, remove(99))
    assert feed(router, answer()) == 0
    assert two.records == 1


def test_idle_sessions_leave_and_busy_ones_stay() -> None:
    router = AnswerRouter(idle_ns=100 * SECOND)
    writer = RecordWriter()
    router.messages(writer, add(1))
    router.messages(writer, add(2))
    for now in range(10, 400, 10):
        router.now_ns = now * SECOND
        feed(router, answer(client_port=2))
        router.sweep(now * SECOND)
        assert router.sessions == (2 if now < 100 else 1)
    assert router.expired == 1
    router.sweep(700 * SECOND)
    assert router.sessions == 0


@pytest.mark.parametrize("ending", [FIN | ACK, RST])
def test_ended_sessions_leave_sooner(ending: int) -> None:
    router = AnswerRouter(idle_ns=1000 * SECOND, ended_ns=60 * SECOND)
    writer = RecordWriter()
    router.messages(writer, add())
    feed(router, answer(flags=ending))
    router.sweep(59 * SECOND)
    assert feed(router, answer()) == 0  # a last acknowledgement, at 59
    router.sweep(60 * SECOND)
    assert router.sessions == 1
    router.sweep(200 * SECOND)
    assert router.sessions == 0


def test_session_announced_again_after_its_end_lives_on() -> None:
    router = AnswerRouter(idle_ns=1000 * SECOND, ended_ns=60 * SECOND)
    writer = RecordWriter()
    router.messages(writer, add())
    feed(router, answer(flags=RST))
    router.messages(writer, add())
    router.sweep(500 * SECOND)
    assert router.sessions == 1


def test_full_table_lets_ended_sessions_go_first_then_the_oldest() -> None:
    router = AnswerRouter(session_limit=3)
    writer = RecordWriter()
    for port in (1, 2, 3):
        router.messages(writer, add(port))
    feed(router, answer(client_port=2, flags=FIN | ACK))
    router.messages(writer, add(4))
    assert feed(router, answer(client_port=2)) == Drop.FOREIGN
    router.messages(writer, add(5))
    assert feed(router, answer(client_port=1)) == Drop.FOREIGN
    assert [feed(router, answer(client_port=port)) for port in (3, 4, 5)] == [0, 0, 0]
    assert (router.sessions, router.evicted) == (3, 2)


def test_closed_connection_takes_its_sessions_along() -> None:
    router = AnswerRouter()
    one, two = connections(2)
    for port in range(1, 1001):
        router.messages(one if port % 2 else two, add(port))
    router.messages(two, add(1))  # moved in time
    one.close()
    router.connection_closed()
    assert feed(router, answer(client_port=3)) == Drop.FOREIGN
    assert feed(router, answer(client_port=3, flags=SYN | ACK)) == 0  # kept: it may come back
    for _ in range(11):
        router.sweep(1, budget=100)
    assert router.sessions == 501
    assert feed(router, answer(client_port=1)) == 0
    router.messages(two, add(3))
    assert two.records == 2
    assert router.sessions == 502


def test_sweep_without_cause_looks_at_one_session_only() -> None:
    """Work does not grow with the sessions that are open: nothing leaves, nothing moves."""
    router = AnswerRouter()
    writer = RecordWriter()
    for port in range(1, 101):
        router.messages(writer, add(port))
    router.sweep(SECOND, budget=1)
    router.sweep(SECOND, budget=0)
    assert (router.sessions, router.expired) == (100, 0)


def test_slow_tcpcopy_loses_answers_and_they_are_counted() -> None:
    router = AnswerRouter()
    writer = RecordWriter(limit_bytes=1024)
    router.messages(writer, add())
    for _ in range(100):
        feed(router, answer())
    assert router.lost == writer.lost > 0
    assert router.relayed == writer.records == 15
    check_sums(router)


@pytest.mark.parametrize(
    ("packet", "drop"),
    [
        (answer()[:39], Drop.SHORT),
        (b"", Drop.SHORT),
        (b"\x70" + answer()[1:], Drop.NOT_IP),
        (b"\x60" + answer()[1:], Drop.NOT_TCP),
        (b"\x44" + answer()[1:], Drop.BAD_HEADER),
        (b"\x4f" + answer()[1:], Drop.SHORT),
        (answer()[:6] + b"\x20\x00" + answer()[8:], Drop.FRAGMENT),
        (answer()[:6] + b"\x00\x01" + answer()[8:], Drop.FRAGMENT),
        (answer()[:9] + b"\x11" + answer()[10:], Drop.NOT_TCP),
        (answer()[:32] + b"\x40" + answer()[33:], Drop.BAD_HEADER),
        (answer()[:32] + b"\x60" + answer()[33:], Drop.BAD_HEADER),
        (answer()[:2] + b"\x00\x00" + answer()[4:], Drop.BAD_HEADER),
        (answer(options=bytes([1] * 40))[:70], Drop.SHORT),
    ],
)
def test_what_is_no_whole_header_is_dropped_with_its_reason(packet: bytes, drop: Drop) -> None:
    router = AnswerRouter()
    router.messages(RecordWriter(), add())
    assert feed(router, packet) == drop
    assert router.drops[drop] == 1
    check_sums(router)


@pytest.mark.parametrize(("start", "end"), [(-1, 40), (0, 41), (1, 40), (40, 40), (50, 90)])
def test_bounds_are_not_trusted(start: int, end: int) -> None:
    router = AnswerRouter()
    assert router.packet(answer(), start, end, 40, 0) == Drop.SHORT


def test_replaced_destination_is_put_back() -> None:
    """-D: answers to the address that docker shows are those of the original client."""
    router = AnswerRouter(replaced_address=bytes([172, 17, 0, 1]), original_address=CLIENT)
    writer = RecordWriter()
    shown = answer(client=bytes([172, 17, 0, 1]), flags=SYN | ACK)
    feed(router, shown)
    router.messages(writer, add())
    feed(router, shown)
    feed(router, answer(flags=SYN | ACK))
    assert sent(writer) == batch(*[record(answer(flags=SYN | ACK))] * 3)


def test_target_address_may_be_left_out_of_account() -> None:
    """--dnat: the session was announced with the address in front of the target."""
    router = AnswerRouter(ignore_target=True)
    writer = RecordWriter()
    other = bytes([192, 168, 5, 5])
    feed(router, answer(target=other, flags=SYN | ACK))
    router.messages(writer, add())
    assert feed(router, answer(target=other)) == 0
    assert writer.records == 2


def test_kept_records_have_the_layout_of_the_connection() -> None:
    router = AnswerRouter()
    writer = RecordWriter(layout=Layout.BATCHED_PAYLOAD)
    packet = answer(flags=SYN | ACK, payload=b"fast open")
    feed(router, packet)
    router.messages(writer, add())
    assert sent(writer) == batch(record(packet, 192))


def test_clear_forgets_everything() -> None:
    router = AnswerRouter()
    writer = RecordWriter()
    for port in range(1, 2001):
        router.messages(writer, add(port))
        feed(router, answer(client_port=port, flags=FIN | ACK if port % 3 else ACK))
        feed(router, answer(client_port=port, target_port=1, flags=RST))
    router.clear()
    assert (router.sessions, router.early_sessions) == (0, 0)
    assert feed(router, answer(client_port=1)) == Drop.FOREIGN
    check_sums(router)


# --- who may not have a session ------------------------------------------------------------------

V6_TARGET, V6_CLIENT = bytes.fromhex("fd66" + "00" * 13 + "03"), bytes.fromhex("fd99" + "00" * 14)


def add_v6(client: bytes = V6_CLIENT) -> bytes:
    return MESSAGE_V6.pack(V6_TARGET, client, 8080, 40001, MessageType.ADD)


def answer_v6(client: bytes = V6_CLIENT, flags: int = ACK) -> bytes:
    network = bytes([0x60, 0, 0, 0, 0, 20, 6, 64]) + V6_TARGET + client
    ports = (8080).to_bytes(2, "big") + (40001).to_bytes(2, "big")
    return network + ports + bytes(8) + bytes([0x50, flags]) + bytes(6)


@pytest.mark.parametrize("family", [4, 6])
def test_a_live_session_is_not_another_hosts(family: int) -> None:
    """It is refused and counted; the answers go where they went."""
    router = AnswerRouter()
    one, again = connections(2)
    (other,) = connections(1, "10.0.0.9")

    def announce(writer: RecordWriter) -> None:
        if family == 4:
            router.messages(writer, add())
        else:
            router.messages_v6(writer, add_v6())

    for writer in (one, other, other):
        announce(writer)
    feed(router, answer() if family == 4 else answer_v6())
    assert (one.records, other.records) == (1, 0)
    assert (router.refused_taken, other.peer.taken, one.peer.sessions) == (2, 2, 1)
    announce(again)
    feed(router, answer() if family == 4 else answer_v6())
    assert (one.records, again.records, other.records) == (1, 1, 0)
    assert router.refused_taken == 2
    check_sums(router)


def test_what_has_ended_may_be_taken_over_a_little_later() -> None:
    """Ten seconds after the last answer; at once when its host has removed it, or has gone."""
    for how in ("target's FIN", "target's RST", "removed", "closed"):
        router = AnswerRouter()
        (one,) = connections(1)
        (other,) = connections(1, "10.0.0.9")
        router.now_ns = SECOND
        router.messages(one, add())
        if how == "removed":
            router.messages(one, remove())
        elif how == "closed":
            one.close()
        else:
            feed(router, answer(flags=RST if "RST" in how else FIN | ACK))
        router.messages(other, add())
        at_once = how in ("removed", "closed")
        assert router.refused_taken == (not at_once), how
        router.now_ns = 11 * SECOND - 1
        router.messages(other, add())
        assert other.peer.sessions == at_once, how
        router.now_ns = 11 * SECOND
        router.messages(other, add())
        assert other.peer.sessions == 1, how


def test_an_idle_session_stays_its_hosts_until_it_leaves_the_table() -> None:
    router = AnswerRouter(idle_ns=1200 * SECOND)
    (one,) = connections(1)
    (other,) = connections(1, "10.0.0.9")
    router.messages(one, add())
    router.now_ns = 1199 * SECOND
    router.messages(other, add())
    assert router.refused_taken == 1
    router.sweep(1200 * SECOND)
    router.messages(other, add())
    assert other.peer.sessions == 1


@pytest.mark.parametrize("family", [4, 6])
def test_nothing_for_this_host_itself_is_relayed(family: int) -> None:
    """Neither announced nor kept early; counted as what it is."""
    router = AnswerRouter()
    client = CLIENT if family == 4 else V6_CLIENT
    router.set_own(OwnAddresses([client]))
    (writer,) = connections(1)
    if family == 4:
        router.messages(writer, add())
    else:
        router.messages_v6(writer, add_v6())
    packets = [answer(flags=flags) if family == 4 else answer_v6(flags=flags)
               for flags in (ACK, SYN | ACK, RST)]  # fmt: skip
    assert [feed(router, packet) for packet in packets] == [Drop.OWN_ADDRESS] * 3
    assert (writer.records, router.kept, router.sessions) == (0, 0, 0)
    assert (router.refused_own, writer.peer.own) == (1, 1)
    check_sums(router)


@pytest.mark.parametrize("ignore_target", [False, True])
def test_sessions_leave_when_their_client_becomes_this_host(ignore_target: bool) -> None:
    router = AnswerRouter(ignore_target=ignore_target)
    (writer,) = connections(1)
    router.messages(writer, add() + add(40002, bytes([10, 0, 0, 77])))
    router.messages_v6(writer, add_v6() + add_v6(V6_TARGET))
    assert router.sessions == 4
    assert router.set_own(OwnAddresses([V6_CLIENT])) == 1
    assert router.set_own(OwnAddresses([], [(CLIENT[:2] + bytes(2), 16)])) == 2
    assert (router.sessions, router.refused_own) == (1, 3)
    assert feed(router, answer()) == Drop.OWN_ADDRESS
    assert writer.peer.sessions == 1


def test_what_a_host_holds() -> None:
    router = AnswerRouter()
    (one,) = connections(1)
    (other,) = connections(1, "10.0.0.9")
    router.messages(one, add())
    router.messages_v6(one, add_v6())
    flows = [(CLIENT, 40001, TARGET, 8080), (V6_CLIENT, 40001, V6_TARGET, 8080)]
    for flow in flows:
        assert router.holds(one.peer, *flow)
        assert not router.holds(other.peer, *flow)
        assert not router.holds(one.peer, flow[0], 40002, *flow[2:])
    router.messages(one, remove())
    assert not router.holds(one.peer, *flows[0])
    one.close()
    assert not router.holds(one.peer, *flows[1])


def test_own_addresses() -> None:
    """Loopback always; networks by their prefix, of each family for itself."""
    own = OwnAddresses([bytes([10, 0, 0, 4]), bytes(15) + b"\2"], [(bytes([10, 9, 0, 0]), 16)])
    assert own.has_v4(0x7F000001) and own.has_v4(0x7FFFFFFF) and own.has_v6(bytes(15) + b"\1")
    assert own.has_v4(0x0A000004) and own.has_v6(bytes(15) + b"\2") and own.has_v4(0x0A0900FF)
    assert not own.has_v4(0x0A0A0000) and not own.has_v6(bytes(12) + bytes([10, 9, 0, 0]))
    everything = OwnAddresses([], [(bytes(16), 0)])
    assert everything.has_v6(V6_TARGET) and not everything.has_v4(1)


def test_sweep_that_ends_in_mid_list_says_how_much_is_left() -> None:
    """One more session than its budget is due; nothing is to be purged."""
    router = AnswerRouter(idle_ns=100 * SECOND)
    writer = RecordWriter()
    for port in (1, 2, 3):
        router.messages(writer, add(port))
    for left in (2, 1, 0):
        router.sweep(200 * SECOND, budget=1)
        assert router.sessions == left
    assert router.expired == 3
