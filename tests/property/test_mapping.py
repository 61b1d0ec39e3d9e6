"""Allocator against a model that knows every live port; -c and -x round trips."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tcpcopy.errors import UsageError
from tcpcopy.mapping.addresses import format_address, parse_address
from tcpcopy.mapping.allocator import Allocator
from tcpcopy.mapping.clients import AddressPool, parse_clients
from tcpcopy.mapping.ports import ManyPorts, PortRange
from tcpcopy.mapping.sampling import Sampler
from tcpcopy.mapping.shares import worker_of
from tcpcopy.mapping.transfers import TransferTable, parse_transfers

COOLDOWN_NS = 1000
FIRST, LAST = 2000, 2039
TARGETS = ((bytes((10, 9, 0, 1)), 80), (bytes((10, 9, 0, 1)), 81))
Mapped = tuple[bytes, int]


class AllocatorModel(RuleBasedStateMachine):
    """Few addresses and ports, so that they are often taken, cooling and exhausted."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ns = 0
        self.live: list[tuple[Mapped, Mapped]] = []  # (mapped, target)
        self.cooling: dict[tuple[Mapped, Mapped], int] = {}  # -> released

    @initialize(
        pool=st.sampled_from([None, "10.1.0.1", "10.1.0.1,10.1.0.2", "10.1.0.0/29"]),
        factor=st.sampled_from([0, 1, 1023]),
        last=st.sampled_from([FIRST, FIRST + 3, LAST]),
    )
    def start(self, pool: str | None, factor: int, last: int) -> None:
        self.pool: AddressPool | None = None if pool is None else parse_clients(pool)
        self.last = last
        self.factor = factor
        options = {"factor": factor, "copies": 3, "cooldown_ns": COOLDOWN_NS}
        ports = (FIRST, last)
        self.allocator = Allocator(self.pool, **options, ports=ports)  # type: ignore[arg-type]
        self.twin = Allocator(self.pool, **options, ports=ports)  # type: ignore[arg-type]

    def addresses(self, client: bytes) -> list[bytes]:
        return [client] if self.pool is None else list(self.pool)

    @rule(
        client=st.integers(1, 4).map(lambda last: bytes((10, 0, 0, last))),
        port=st.integers(FIRST - 2, LAST),
        goal=st.sampled_from(TARGETS),
        copy=st.integers(0, 2),
        sessions=st.sampled_from([1, 1, 1, 30]),
    )
    def acquire(self, client: bytes, port: int, goal: Mapped, copy: int, sessions: int) -> None:
        for number in range(sessions):
            wanted = FIRST + (port - FIRST + number) % (LAST - FIRST + 1) if number else port
            self.acquire_one(client, wanted, goal, copy)

    def acquire_one(self, client: bytes, port: int, target: Mapped, copy: int) -> None:
        mapped, twin = (
            allocator.acquire(
                client_address=client,
                client_port=port,
                target_address=target[0],
                target_port=target[1],
                copy=copy,
                now_ns=self.now_ns,
            )
            for allocator in (self.allocator, self.twin)
        )
        assert mapped == twin, "the same calls, the same results"
        taken = {held for held, towards in self.live if towards == target}
        cooling = {
            held
            for (held, towards), released in self.cooling.items()
            if towards == target and released + COOLDOWN_NS > self.now_ns
        }
        space = {
            (address, number)
            for address in self.addresses(client)
            for number in range(FIRST, self.last + 1)
        }
        own = (client, port)
        if mapped is None:
            assert space <= taken, "something was left"
            assert own in taken or self.pool is not None or copy or self.factor
            return
        assert mapped not in taken, "two live sessions share an address and port"
        assert mapped[0] in self.addresses(client)
        assert FIRST <= mapped[1] <= self.last or mapped[1] == port or mapped in cooling
        if mapped in cooling:
            assert space <= taken | cooling, "a free port was left"
            released = self.cooling.pop((mapped, target))
            older = [
                at
                for (held, towards), at in self.cooling.items()
                if towards == target and held[0] == mapped[0]
            ]
            assert not older or released <= min(older), "an older one was left"
        elif self.pool is None and not copy and not self.factor and own not in taken | cooling:
            assert mapped == own, "the client's own address and port was free"
        self.cooling.pop((mapped, target), None)
        self.live.append((mapped, target))

    @precondition(lambda self: self.live)
    @rule(choice=st.randoms(use_true_random=False), sessions=st.sampled_from([1, 1, 20]))
    def release(self, choice: object, sessions: int) -> None:
        for _ in range(min(sessions, len(self.live))):
            place = choice.randrange(len(self.live))  # type: ignore[attr-defined]
            mapped, target = self.live.pop(place)
            for allocator in (self.allocator, self.twin):
                assert allocator.release(*mapped, *target, now_ns=self.now_ns)
                assert not allocator.release(*mapped, *target, now_ns=self.now_ns)
            # In order of release: of two at one time the first is the older.
            self.cooling.pop((mapped, target), None)
            self.cooling[mapped, target] = self.now_ns

    @rule(elapsed_ns=st.sampled_from([1, 10, COOLDOWN_NS // 2, COOLDOWN_NS, 3 * COOLDOWN_NS]))
    def wait(self, elapsed_ns: int) -> None:
        self.now_ns += elapsed_ns
        self.cooling = {
            key: released
            for key, released in self.cooling.items()
            if released + COOLDOWN_NS > self.now_ns
        }

    @invariant()
    def counts_agree(self) -> None:
        if hasattr(self, "allocator"):
            assert self.allocator.live == len(self.live)


AllocatorModel.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAllocatorModel = AllocatorModel.TestCase


@given(
    workers=st.integers(2, 5),
    pool=st.sampled_from([None, "10.1.0.1", "10.1.0.1,10.1.0.2"]),
    factor=st.sampled_from([0, 1, 7]),
    calls=st.lists(
        st.tuples(
            st.integers(1, 3), st.integers(990, FIRST + 30), st.integers(0, 2), st.booleans()
        ),
        max_size=150,
    ),
)
@settings(max_examples=100, deadline=None)
def test_workers_never_hand_out_the_same_address_and_port(
    workers: int, pool: str | None, factor: int, calls: list[tuple[int, int, int, bool]]
) -> None:
    """Each session at the worker that the kernel deals it to; some end in between."""
    clients = None if pool is None else parse_clients(pool)
    allocators = [
        Allocator(clients, None, factor, 3, COOLDOWN_NS, ports=(FIRST, LAST), share=(n, workers))
        for n in range(workers)
    ]
    live: dict[Mapped, int] = {}
    used: set[Mapped] = set()  # cooling ports are avoided
    seen: set[tuple[bytes, int, int]] = set()
    for now_ns, (last, port, copy, ends) in enumerate(calls):
        client = bytes((10, 0, 0, last))
        if (client, port, copy) in seen:
            continue
        seen.add((client, port, copy))
        worker = worker_of(client, port, workers)
        mapped = allocators[worker].acquire(
            client_address=client, client_port=port,
            target_address=TARGETS[0][0], target_port=80, copy=copy, now_ns=now_ns,
        )  # fmt: skip
        if mapped is None:
            own = {
                (address, number)
                for address in clients or [client]
                for number in range(FIRST, LAST + 1)
                if worker_of(address, number, workers) == worker
            }
            assert own <= live.keys(), "something was left"
            continue
        assert mapped not in live, "two workers share an address and port"
        assert worker_of(*mapped, workers) == worker
        if pool is None and not copy and not factor:
            assert mapped == (client, port) or (client, port) in used, "its own was free"
        live[mapped] = worker
        used.add(mapped)
        if ends:
            victim, holder = live.popitem()
            assert allocators[holder].release(*victim, *TARGETS[0], now_ns=now_ns)


def test_workers_share_all_ports() -> None:
    parts = [PortRange(1024, 65535, rest, 3) for rest in range(3)]
    for port in range(65536):
        assert sum(port in part for part in parts) == (port >= 1024)


@given(
    first=st.integers(1, 65535),
    size=st.integers(1, 700),
    taken=st.sets(st.integers(1, 65535)),
    start=st.integers(0, 699),
)
def test_find_is_the_first_free_port_round_the_range(
    first: int, size: int, taken: set[int], start: int
) -> None:
    last = min(65535, first + size - 1)
    space = ManyPorts(PortRange(first, last))
    taken = {first + port % size if port % 3 else port for port in taken}
    taken = {port for port in taken if port <= 65535}
    for port in taken:
        assert space.take(port)
    begin = first + start % (last - first + 1)
    ring = [*range(begin, last + 1), *range(first, begin)]
    assert space.find(begin) == next((port for port in ring if port not in taken), 0)


@given(
    networks=st.lists(
        st.tuples(st.integers(1 << 24, (223 << 24) - 1), st.integers(20, 32)),
        min_size=1,
        max_size=4,
    ),
    excluded=st.lists(st.integers(0, 1 << 16), max_size=4),
)
@settings(deadline=None, max_examples=50)
def test_pool_is_the_hosts_of_its_networks(
    networks: list[tuple[int, int]], excluded: list[int]
) -> None:
    parsed = [
        ipaddress.IPv4Network((address, prefix), strict=False) for address, prefix in networks
    ]
    base = int(parsed[0].network_address)
    exclude = {(base + offset).to_bytes(4, "big") for offset in excluded}
    expected = [
        host.packed
        for network in parsed
        for host in network.hosts()
        if host.packed not in exclude
        and not (network.prefixlen <= 24 and host.packed[3] in (0, 255))
    ]
    text = ",".join(str(network) for network in parsed)
    if not expected:
        with pytest.raises(UsageError):
            parse_clients(text, exclude=exclude)
        return
    pool = parse_clients(text, exclude=exclude)
    assert len(pool) == len(expected)
    assert list(pool) == expected
    for index in {0, len(pool) // 2, len(pool) - 1}:
        assert pool[index] == expected[index]
        assert pool[index] in pool
    assert not any(address in pool for address in exclude)


@given(st.text(alphabet="0123456789.:[]-@,xab/ %*\n\0é", max_size=40))
def test_any_text_is_parsed_or_refused_in_one_line(text: str) -> None:
    def resolve(name: str) -> bytes:
        raise ValueError(f"host name {name!r} has no address")

    for parse in (lambda: parse_transfers(text, resolve=resolve), lambda: parse_clients(text)):
        try:
            parse()
        except UsageError as error:
            assert error.option in ("-x", "-c") and error.problem and error.hint


address_bytes = st.one_of(
    st.binary(min_size=4, max_size=4).filter(lambda raw: 0 < raw[0] < 224),
    st.binary(min_size=16, max_size=16).filter(lambda raw: raw[0] != 0xFF and any(raw)),
)
port_numbers = st.integers(1, 65535)


@given(
    st.lists(
        st.tuples(
            st.one_of(st.just(b""), address_bytes), port_numbers, address_bytes, port_numbers
        ),
        min_size=1,
        max_size=6,
        unique=True,
    ),
    st.tuples(address_bytes, port_numbers),
)
def test_transfers_survive_their_own_text_and_lookup_finds_what_matches(
    rules: list[tuple[bytes, int, bytes, int]], stranger: tuple[bytes, int]
) -> None:
    def show(address: bytes) -> str:
        text = format_address(address)
        return f"[{text}]" if len(address) == 16 else text

    text = ",".join(
        f"{show(source) + ':' if source else ''}{port}-{show(target)}:{target_port}"
        for source, port, target, target_port in rules
    )
    transfers = parse_transfers(text)
    assert [(*transfer.source, *transfer.target) for transfer in transfers] == rules
    assert ",".join(map(str, transfers)) == text
    table = TransferTable(transfers)
    targets = set(table.targets())
    for address, port in [*(each[:2] for each in rules if each[0]), stranger]:
        named = any(each[:2] == (address, port) for each in rules)
        expected = {
            each[2:]
            for each in rules
            if each[1] == port and each[0] in (b"", address)
            if named or (address, port) not in targets
        }
        found = table.lookup(address, port)
        assert {transfer.target for transfer in found} == expected
        assert len(found) == len(expected)


@given(address=address_bytes, percentage=st.integers(1, 100))
@settings(max_examples=30, deadline=None)
def test_sampling_admits_its_share_and_stays_with_it(address: bytes, percentage: int) -> None:
    ports = range(1024, 1024 + 4000)
    admitted = [Sampler(percentage).admit(address, port, now_ns=0) for port in ports]
    # Four standard deviations of 4,000 draws are at most 126.
    assert abs(sum(admitted) - 40 * percentage) <= 140
    assert admitted == [Sampler(percentage).admit(address, port, now_ns=9) for port in ports]


@given(address_bytes)
def test_addresses_survive_their_text(address: bytes) -> None:
    assert parse_address(format_address(address)) == address
