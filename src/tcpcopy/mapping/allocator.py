"""Which client address and port a session shows to its target.

Two live sessions never share an address and port towards the same target, whatever -c, -n and -f
are. Where the C program's port arithmetic gives a port that is taken, it drops the session; here
its result is the preferred port, and another is found when that is taken.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import cython

from tcpcopy.mapping.addresses import IPV4_BYTES, IPV6_BYTES, is_loopback
from tcpcopy.mapping.clients import AddressPool
from tcpcopy.mapping.hashing import stable_hash
from tcpcopy.mapping.portmap import PortMap
from tcpcopy.mapping.ports import FewPorts, PortRange, Ports
from tcpcopy.mapping.shares import address_hash, worker_of

_PORT_MASK = 0xFFFF
_FIRST_PORT = 1024  # where the C program goes on when a shifted port passes 65535
_TAG_BYTES = 2
_SINGLE_BYTES = IPV4_BYTES + _TAG_BYTES  # keys of this length fit into a PortMap
_BATCHES = 32  # parts of the cool-down in which released ports are remembered together
_SWEPT_A_CALL = 8  # bounds the work of one call; more than one release adds
COOLDOWN_NS = 60_000_000_000  # TIME_WAIT on Linux


def preferred_port(client_port: int, copy: int, factor: int, shift: int = 0) -> int:
    """Port that the C program would give to a copy of a client's session, 0 to 65535.

    `copy` is 0 for the session itself and 1 to n-1 for the further ones of -n, `factor` is -f (0:
    none), `shift` a number from 0 to 511, different for each run, which the C program draws at
    start and adds whenever it shifts.
    Source: as TCPCopy 1.3.0 does in replicate_packs and get_port_from_shift.
    """
    port = client_port
    if copy:
        port = _shifted(port, ((copy << 1) - 1 << 5) + shift)
    if factor:
        port = _shifted(port, (factor << 11) + shift)
    return port


def _shifted(port: int, addition: int) -> int:
    port += addition
    if port > _PORT_MASK:
        port = _FIRST_PORT + addition
    return port & _PORT_MASK


class Allocator:
    """Hands out mapped addresses and ports. Not safe for use by several threads.

    `pool` is -c (None: clients keep their address), `localhost_replacement` -H, `factor` -f,
    `copies` -n. A released port is avoided for `cooldown_ns` while others are free, because the
    target may hold the old connection in TIME_WAIT. `shift`: see `preferred_port`. `ports` bounds
    the ports that are found by search; a client's own port may lie outside. `share`: the index of
    this worker and how many there are; only addresses and ports that belong to it are handed out
    (`mapping.shares`).

    Work and memory: a few look-ups a call; some twenty bytes for an IPv4 address with one session,
    a dictionary entry and a short list for one with few, 16 KiB of bitmaps for one with many; no
    walk over ports. Only when every port of an address is taken is the next one looked at.
    """

    __slots__ = (
        "_batch",
        "_batch_ends_ns",
        "_batches",
        "_cooldown_ns",
        "_copies",
        "_factor",
        "_last_address",
        "_last_port",
        "_last_tag",
        "_localhost_replacement",
        "_pools",
        "_range",
        "_ranges",
        "_shift",
        "_single",
        "_spaces",
        "_sweep_ns",
        "_tags",
        "_worker",
        "_workers",
        "live",
    )

    live: int  # sessions that hold an address and port now
    _pools: dict[int, AddressPool] | None  # by length of address; None without -c
    _localhost_replacement: bytes | None
    _factor: int
    _copies: int
    _shift: int
    _cooldown_ns: int
    _range: PortRange
    _ranges: tuple[PortRange, ...]  # by residue
    _worker: int
    _workers: int
    _tags: dict[tuple[bytes, int], bytes]  # target -> two bytes that stand for it in keys
    # The target asked for last, and its tag: mostly it is the next one, too.
    _last_address: bytes
    _last_port: int
    _last_tag: bytes
    _single: PortMap  # IPv4 address + tag, as a number -> its port, where it is the only one, live
    _spaces: dict[bytes, Ports]  # address + tag -> its ports, of all others; never without any
    # What released ports wait in to be forgotten: (when the last of them has cooled down, keys).
    _batches: deque[tuple[int, list[bytes]]]
    _batch: list[bytes]  # the newest of these
    _batch_ends_ns: int  # when a new one is begun
    _sweep_ns: int  # nothing is to be forgotten before

    def __init__(
        self,
        pool: AddressPool | None = None,
        localhost_replacement: bytes | None = None,
        factor: int = 0,
        copies: int = 1,
        cooldown_ns: int = COOLDOWN_NS,
        *,
        shift: int = 0,
        ports: tuple[int, int] = (_FIRST_PORT, _PORT_MASK),
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self._pools = None
        if pool is not None:
            families = (IPV4_BYTES, IPV6_BYTES)
            self._pools = {length: pool.only(length) for length in families}
        self._localhost_replacement = localhost_replacement
        self._factor = factor
        self._copies = copies
        self._shift = shift
        self._cooldown_ns = cooldown_ns
        self._worker, self._workers = share
        self._ranges = tuple(PortRange(*ports, rest, share[1]) for rest in range(share[1]))
        self._range = self._ranges[0]
        self._tags = {}
        self._last_address, self._last_port, self._last_tag = b"", 0, b""
        self._single = PortMap(shift)
        self._spaces = {}
        self._batches = deque()
        self._batch = []
        self._batch_ends_ns = -1
        self._sweep_ns = 0
        self.live = 0

    def acquire(
        self,
        client_address: bytes,
        client_port: int,
        target_address: bytes,
        target_port: int,
        copy: int,
        now_ns: int,
    ) -> tuple[bytes, int] | None:
        """Take an address and port for one copy of a client's session towards a target.

        Copy 0 without -c keeps the client's address and port if free; with -c the same client and
        copy gets the same address. None when every port is live, on every address of the pool
        (without -c: of the client), or when there is no address of the target's family.
        The result depends on the calls made before and on nothing else.
        """
        if not 0 <= copy < self._copies:
            raise ValueError(f"copy {copy} of {self._copies}")
        if self._batches:
            self._sweep(now_ns)
        tag = self._tag(target_address, target_port)
        replacement = self._localhost_replacement
        # As in the C program, loopback clients of a loopback target stay what they are.
        if (
            replacement is not None
            and is_loopback(client_address)
            and not is_loopback(target_address)
        ):
            client_address = replacement
        port = client_port
        if copy or self._factor:
            port = preferred_port(client_port, copy, self._factor, self._shift)
        kept = port == client_port
        if not port or not (kept or self._range.first <= port <= self._range.last):
            port = 0  # a shifted port that no client would have
        if self._pools is not None:
            pool = self._pools[len(target_address)]
            return self._acquire_pooled(pool, client_address, client_port, copy, tag, port, now_ns)
        if len(client_address) != len(target_address):
            return None
        key = client_address + tag
        port = self._take_wanted(key, port, now_ns)
        if not port:
            port = self._take_free(key, self._start(client_address, client_port, copy))
        if not port:
            port = self._take_oldest(key)
        if not port:
            return None
        self.live += 1
        return client_address, port

    def _acquire_pooled(
        self,
        pool: AddressPool,
        client_address: bytes,
        client_port: int,
        copy: int,
        tag: bytes,
        wanted: int,
        now_ns: int,
    ) -> tuple[bytes, int] | None:
        size = len(pool)
        if not size:
            return None
        # Each copy has its own address, as in the C program: that spreads the ports.
        home = stable_hash(client_address + copy.to_bytes(2, "big")) % size
        address = pool[home]
        port = self._take_wanted(address + tag, wanted, now_ns)
        if not port:
            start = self._start(client_address, client_port, copy)
            port = self._take_free(address + tag, start)
            for index in _round(home, size) if not port else ():
                address = pool[index]
                key = address + tag
                port = self._take_wanted(key, wanted, now_ns) or self._take_free(key, start)
                if port:
                    break
            for index in (home, *_round(home, size)) if not port else ():
                address = pool[index]
                port = self._take_oldest(address + tag)
                if port:
                    break
            if not port:
                return None
        self.live += 1
        return address, port

    def release(
        self, address: bytes, port: int, target_address: bytes, target_port: int, now_ns: int
    ) -> bool:
        """Hand an address and port back; False (and no change) when it is not held.

        `now_ns` must not go back between calls.
        """
        if self._batches:
            self._sweep(now_ns)
        key = address + self._tag(target_address, target_port)
        space = self._space(key)
        if space is None or not space.release(
            port, now_ns + self._cooldown_ns if self._cooldown_ns else 0
        ):
            return False
        self.live -= 1
        if self._cooldown_ns > 0:
            if now_ns >= self._batch_ends_ns:
                self._batch_ends_ns = now_ns + self._cooldown_ns // _BATCHES + 1
                self._batch = []
                self._batches.append((self._batch_ends_ns + self._cooldown_ns, self._batch))
            self._batch.append(key)
        else:
            self._forget_expired(key, now_ns)
        return True

    @property
    def remembered(self) -> int:
        """Mapped addresses, counted for each target, that have live or cooling ports."""
        return len(self._spaces) + len(self._single)

    def _space(self, key: bytes) -> Ports | None:
        """The ports of an address, in a form that can hold more than the one it may have."""
        space: Ports | None = self._spaces.get(key)
        if space is None and len(key) == _SINGLE_BYTES:
            number = _number(key)
            port = self._single.get(number)
            if port:
                self._single.remove(number)
                few = FewPorts(self._range_of(key))
                few.take(port)
                self._spaces[key] = few
                return few
        return space

    def _begin(self, key: bytes, port: int) -> None:
        """An address that has no port takes its first."""
        if len(key) == _SINGLE_BYTES:
            self._single.add(_number(key), port)
        else:
            few = FewPorts(self._range_of(key))
            few.take(port)
            self._spaces[key] = few

    def _tag(self, target_address: bytes, target_port: int) -> bytes:
        if target_address is self._last_address and target_port == self._last_port:
            return self._last_tag
        tag: bytes | None = self._tags.get((target_address, target_port))
        if tag is None:
            tag = len(self._tags).to_bytes(_TAG_BYTES, "big")
            self._tags[target_address, target_port] = tag
        self._last_address, self._last_port, self._last_tag = target_address, target_port, tag
        return tag

    def _start(self, client_address: bytes, client_port: int, copy: int) -> int:
        """Where the search begins: spread, because the next ports up are the likeliest that the
        same client uses next."""
        place = stable_hash(client_address + (client_port << 16 | copy).to_bytes(4, "big"))
        above: int = cython.cast(cython.int, place % self._range.size)
        return self._range.first + above

    def _take_wanted(self, key: bytes, port: int, now_ns: int) -> int:
        """Take this very port; 0 when it is taken, or another worker's.

        Frees what has cooled down first.
        """
        if port and self._workers > 1:
            address = key[: len(key) - _TAG_BYTES]
            if worker_of(address, port, self._workers) != self._worker:
                port = 0
        space = self._space(key)
        if space is None:
            if port:
                self._begin(key, port)
            return port
        space.expire(now_ns)
        if port and not self._add(key, space, port):
            port = 0
        if space.used() == 0:
            del self._spaces[key]
        return port

    def _take_free(self, key: bytes, start: int) -> int:
        """Take the first free port from `start` on; 0 when none is free."""
        space = self._space(key)
        if space is None:
            port = FewPorts(self._range_of(key)).find(start)
            if port:
                self._begin(key, port)
            return port
        port = space.find(start)
        if port:
            self._add(key, space, port)
        return port

    def _range_of(self, key: bytes) -> PortRange:
        """The ports of an address that are this worker's."""
        if self._workers == 1:
            return self._range
        address = key[: len(key) - _TAG_BYTES]
        return self._ranges[(self._worker - address_hash(address)) % self._workers]

    def _take_oldest(self, key: bytes) -> int:
        """Take the port that has been cooling longest; 0 when none is cooling."""
        space = self._space(key)
        return space.take_oldest() if space is not None else 0

    def _add(self, key: bytes, space: Ports, port: int) -> int:
        if isinstance(space, FewPorts):
            few: FewPorts = space
            if few.is_full():
                space = self._spaces[key] = few.grown()
        return space.take(port)

    def _sweep(self, now_ns: int) -> None:
        """Forget a few of the addresses whose ports have all cooled down."""
        if now_ns < self._sweep_ns:
            return
        due_ns, keys = self._batches[0]
        self._sweep_ns = due_ns
        if due_ns > now_ns:
            return
        for _ in range(_SWEPT_A_CALL):
            if not keys:
                self._batches.popleft()
                return
            self._forget_expired(keys.pop(), now_ns)

    def _forget_expired(self, key: bytes, now_ns: int) -> None:
        space: Ports | None = self._spaces.get(key)
        if space is None:
            return
        space.expire(now_ns)
        if space.used() == 0:
            del self._spaces[key]
        elif isinstance(space, FewPorts) and len(key) == _SINGLE_BYTES:
            few: FewPorts = space
            port = few.only_live()
            if port:
                del self._spaces[key]
                self._begin(key, port)


def _number(key: bytes) -> int:
    """A key of six bytes as a number."""
    number = 0
    for place in range(_SINGLE_BYTES):
        number = number << 8 | key[place]
    return number


def _round(home: int, size: int) -> Iterator[int]:
    """The other places of a pool, from the one after `home` on."""
    for step in range(1, size):
        yield (home + step) % size
