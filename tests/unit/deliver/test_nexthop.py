"""Next hops: what is chosen, asked for, verified and said, with tables of our own."""

from __future__ import annotations

import errno
import logging

import pytest

from tcpcopy.capture.rtnetlink import (
    FAILED,
    INCOMPLETE,
    NO_ARP,
    PERMANENT,
    PROBE,
    REACHABLE,
    STALE,
    Link,
    Neighbour,
)
from tcpcopy.deliver.nexthop import ENTRY, NextHops
from tcpcopy.errors import UsageError
from tcpcopy.mapping.addresses import parse_address, parse_mac
from tcpcopy.mapping.transfers import TransferTable, parse_transfers

TARGET, GATEWAY = parse_address("10.0.0.2"), parse_address("10.0.0.1")
OWN, FIRST, SECOND = (parse_mac(f"02:00:00:00:00:0{n}") for n in (1, 2, 3))
ETHERNET = Link(7, "eth0", True, 0, 0, 1, OWN, 1500)
SECONDS = 1_000_000_000


class FakeTables:
    """Tables that a test writes; what is asked of them is kept."""

    def __init__(self) -> None:
        self.link: Link | None = ETHERNET
        self.routes: dict[bytes, bytes | OSError] = {}  # none: on the link
        self.neighbours: dict[bytes, Neighbour] = {}
        self.asked: list[bytes] = []
        self.verified: list[bytes] = []
        self.answers: dict[bytes, Neighbour] = {}  # what asking brings
        self.permitted = True
        self.link_error: OSError | None = None

    def link_named(self, name: str) -> Link | None:
        assert name == "eth0"
        if self.link_error is not None:
            raise self.link_error
        return self.link

    def next_hop(self, address: bytes, device: int) -> bytes:
        assert self.link is not None and device == self.link.index
        found = self.routes.get(address, address)
        if isinstance(found, OSError):
            raise found
        return found

    def neighbour(self, address: bytes, device: int) -> Neighbour:
        return self.neighbours.get(address, Neighbour(0, b""))

    def ask_for_neighbour(self, address: bytes, device: int) -> None:
        if not self.permitted:
            raise PermissionError(errno.EPERM, "not permitted")
        self.asked.append(address)
        self.neighbours[address] = self.answers.get(address, Neighbour(INCOMPLETE, b""))

    def verify_neighbour(self, address: bytes, device: int) -> None:
        self.verified.append(address)


@pytest.fixture
def tables() -> FakeTables:
    return FakeTables()


def hops_of(tables: FakeTables, *transfers: str) -> NextHops:
    text = ",".join(transfers or ("80-10.0.0.2:8080",))
    return NextHops("eth0", TransferTable(parse_transfers(text)), tables)


def opened(tables: FakeTables, *transfers: str) -> NextHops:
    hops = hops_of(tables, *transfers)
    hops.open(lambda: 0, lambda _: None)
    return hops


def refused(tables: FakeTables) -> UsageError:
    """The refusal at start; the clock goes on while it waits."""
    clock = [0]

    def pause(seconds: float) -> None:
        clock[0] += int(seconds * SECONDS)

    with pytest.raises(UsageError) as caught:
        hops_of(tables).open(lambda: clock[0], pause)
    return caught.value


@pytest.mark.parametrize("state", [REACHABLE, STALE, PROBE, PERMANENT, NO_ARP])
def test_known_neighbour_on_the_link(tables: FakeTables, state: int) -> None:
    tables.neighbours[TARGET] = Neighbour(state, FIRST)
    hops = opened(tables)
    assert hops.header(hops.hops[0]) == FIRST + OWN + b"\x08\x00"
    assert tables.asked == tables.verified == []


def test_gateway(tables: FakeTables) -> None:
    tables.routes[TARGET] = GATEWAY
    tables.neighbours[TARGET] = Neighbour(REACHABLE, FIRST)
    tables.neighbours[GATEWAY] = Neighbour(REACHABLE, SECOND)
    hops = opened(tables)
    assert hops.header(hops.hops[0])[:6] == SECOND
    assert str(hops.hops[0]) == "the next hop 10.0.0.1 of the target 10.0.0.2:8080"


def test_ipv6(tables: FakeTables) -> None:
    tables.neighbours[parse_address("fd00::2")] = Neighbour(REACHABLE, FIRST)
    hops = opened(tables, "80-[fd00::2]:8080")
    assert hops.header(hops.hops[0]) == FIRST + OWN + b"\x86\xdd"


def test_given_addresses_need_no_tables(tables: FakeTables) -> None:
    """@MAC of the target: neither route nor neighbour; of the source: not the device's own."""
    tables.routes[TARGET] = OSError(errno.ENETUNREACH, "unreachable")
    hops = opened(tables, "80@02:00:00:00:00:03-10.0.0.2:8080@02:00:00:00:00:02")
    assert hops.header(hops.hops[0]) == FIRST + SECOND + b"\x08\x00"


def test_one_hop_for_each_target(tables: FakeTables) -> None:
    mac = "@02:00:00:00:00:02"
    hops = opened(tables, f"80-10.0.0.2:8080{mac}", f"81-10.0.0.2:8080{mac}", f"80-9.9.9.9:1{mac}")
    assert [(hop.address, hop.port) for hop in hops.hops] == [
        (TARGET, 8080),
        (parse_address("9.9.9.9"), 1),
    ]


@pytest.mark.parametrize("second", ["81-10.0.0.2:8080", "81@02:00:00:00:00:03-10.0.0.2:8080{mac}"])
def test_contradicting_addresses(tables: FakeTables, second: str) -> None:
    mac = "@02:00:00:00:00:02"
    with pytest.raises(UsageError) as caught:
        hops_of(tables, f"80-10.0.0.2:8080{mac}", second.format(mac=mac))
    assert "the same target is given with other MAC addresses" in str(caught.value)


def test_unknown_neighbour_is_asked_for_once(tables: FakeTables) -> None:
    """While the kernel waits for the answer, it is not asked again; then the answer is taken."""
    hops = hops_of(tables)
    hops.look(0, in_use=False)
    hops.look(1, in_use=False)
    assert tables.asked == [TARGET] and hops.hops[0].error == errno.EHOSTUNREACH
    tables.neighbours[TARGET] = Neighbour(REACHABLE, FIRST)
    hops.look(2, in_use=False)
    assert hops.hops[0].error == 0 and hops.hops[0].mac == FIRST


def test_failed_neighbour_is_asked_for_again(tables: FakeTables) -> None:
    tables.neighbours[TARGET] = Neighbour(FAILED, b"")
    tables.answers[TARGET] = Neighbour(REACHABLE, FIRST)
    hops = opened(tables)
    assert tables.asked == [TARGET] and hops.hops[0].mac == FIRST


def test_neighbour_in_use_is_verified_every_five_seconds(tables: FakeTables) -> None:
    """Nothing else tells the kernel that it is used; one that is not in use is left alone."""
    tables.neighbours[TARGET] = Neighbour(REACHABLE, FIRST)
    hops = opened(tables)
    for second in range(10, 22):
        hops.look(second * SECONDS, in_use=True)
    assert len(tables.verified) == 3
    for second in range(30, 50):
        hops.look(second * SECONDS, in_use=False)
    assert len(tables.verified) == 3


@pytest.mark.parametrize(("state", "times"), [(STALE, 1), (PERMANENT, 0), (NO_ARP, 0), (PROBE, 0)])
def test_which_states_are_verified(tables: FakeTables, state: int, times: int) -> None:
    tables.neighbours[TARGET] = Neighbour(state, FIRST)
    hops = opened(tables)
    hops.look(SECONDS, in_use=True)
    assert len(tables.verified) == times


def test_changes_are_followed_and_said(
    tables: FakeTables, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    tables.neighbours[TARGET] = Neighbour(REACHABLE, FIRST)
    hops = opened(tables)
    tables.neighbours[TARGET] = Neighbour(REACHABLE, SECOND)
    hops.look(1, in_use=True)
    hops.look(2, in_use=True)
    tables.neighbours[TARGET] = Neighbour(FAILED, b"")
    hops.look(3, in_use=True)
    hops.look(4, in_use=True)
    tables.neighbours[TARGET] = Neighbour(REACHABLE, FIRST)
    hops.look(5, in_use=True)
    target = "-o eth0: {}the target 10.0.0.2:8080 "
    assert [record.getMessage() for record in caplog.records] == [
        target.format("") + "is at 02:00:00:00:00:03 now",
        target.format("packets to ")[:-1] + " are lost: no answer to ARP",
        target.format("") + "can be reached again, at 02:00:00:00:00:02",
    ]


@pytest.mark.parametrize(
    ("link", "error", "problem"),
    [
        (None, errno.ENODEV, "the device is gone"),
        (Link(7, "eth0", False, 0, 0, 1, OWN, 1500), errno.ENETDOWN, "the device is down"),
    ],
)
def test_device_that_goes(tables: FakeTables, link: Link | None, error: int, problem: str) -> None:
    """Given addresses do not help then; back again, under another number, all goes on."""
    hops = opened(tables, "80-10.0.0.2:8080@02:00:00:00:00:02")
    tables.link = link
    hops.look(1, in_use=True)
    assert (hops.hops[0].error, hops.hops[0].problem) == (error, problem)
    tables.link = Link(9, "eth0", True, 0, 0, 1, SECOND, 1400)
    hops.look(2, in_use=True)
    assert hops.hops[0].error == 0 and hops.index == 9
    assert hops.header(hops.hops[0]) == FIRST + SECOND + b"\x08\x00"


def test_kernel_that_does_not_answer(tables: FakeTables) -> None:
    """What was known stays."""
    tables.neighbours[TARGET] = Neighbour(REACHABLE, FIRST)
    hops = opened(tables)
    tables.routes[TARGET] = TimeoutError()
    hops.look(1, in_use=True)
    tables.link_error = OSError(errno.ENOBUFS, "no memory")
    hops.look(2, in_use=True)
    assert hops.hops[0].error == 0 and hops.hops[0].mac == FIRST


def test_refused_at_start(tables: FakeTables) -> None:
    """Two seconds at most are waited for an answer to ARP."""
    assert str(refused(tables)) == (
        "-o eth0: the target 10.0.0.2:8080 cannot be reached on it (no answer to ARP); choose "
        "another device, or give the MAC address to send to with -x "
        "...-10.0.0.2:8080@aa:bb:cc:dd:ee:ff"
    )
    assert tables.asked == [TARGET]


def test_refused_at_start_without_the_right_to_ask(tables: FakeTables) -> None:
    tables.permitted = False
    assert "(not in the neighbour table, and to send ARP needs CAP_NET_ADMIN)" in str(
        refused(tables)
    )


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.EADDRNOTAVAIL, "own"), "(it is an address of this host)"),
        (OSError(errno.ENETUNREACH, "unreachable"), "(no route: unreachable)"),
    ],
)
def test_no_route_at_start(tables: FakeTables, error: OSError, text: str) -> None:
    tables.routes[TARGET] = error
    assert text in str(refused(tables))


@pytest.mark.parametrize(
    ("link", "problem"),
    [
        (None, "there is no such device"),
        (Link(1, "lo", True, 0, 0, 772, bytes(6), 65536), "is the loopback device"),
        (Link(3, "tun0", True, 0, 0, 65534, b"", 1500), "is not an Ethernet device"),
        (Link(3, "eth0", False, 0, 0, 1, OWN, 1500), "the device is down"),
    ],
)
def test_devices_that_do_not_serve(tables: FakeTables, link: Link | None, problem: str) -> None:
    tables.link = link
    assert refused(tables).problem.startswith(problem)


def test_table_for_the_compiled_sender(tables: FakeTables) -> None:
    tables.neighbours[TARGET] = Neighbour(REACHABLE, FIRST)
    hops = hops_of(tables, "80-10.0.0.2:8080", "80-[fd00::2]:9")
    hops.look(0, in_use=False)
    table = hops.table()
    assert len(table) == 2 * ENTRY.size == 80
    assert ENTRY.unpack(table[:40]) == (
        0, 4, b"\x1f\x90", TARGET + bytes(12), FIRST + OWN + b"\x08\x00",
    )  # fmt: skip
    assert ENTRY.unpack(table[40:])[0] == errno.EHOSTUNREACH
