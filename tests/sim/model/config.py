"""What can be set about the server model, and random choices of it."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from .clock import MILLISECOND, SECOND


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """One server's TCP. Times in nanoseconds, sizes in bytes."""

    mss: int | None = 1460  # announced; None: no option, so 536 or 1220 (RFC 9293 3.7.1)
    path_mtu: int = 1500  # no packet of the server is larger, whatever the peer's MSS
    window_scale: int | None = 7  # offered; None: none
    timestamps: bool = True
    sack: bool = True
    duplicate_sack: bool = True
    receive_buffer: int = 65536
    congestion_window: int = 10  # segments at the start (RFC 6928)
    push: bool = True  # PSH on the last segment of what the application wrote
    delayed_ack_ns: int = 0  # 0: every segment is acknowledged at once
    syn_ack_retries: int = 5
    data_retries: int = 15
    time_wait_ns: int = 60 * SECOND
    fin_wait_ns: int = 60 * SECOND  # in FIN-WAIT-2 after a full close, as Linux
    keep_alive_ns: int | None = None
    challenge_interval_ns: int = 500 * MILLISECOND  # RFC 5961 section 7, as Linux per connection
    lenient_edge: bool = True  # an empty segment just behind the window counts, as in Linux
    renege: float = 0.0  # probability that early data, although SACKed, is thrown away
    initial_sequence: int | None = None  # ISS of every connection; None: random
    large_segments: int | None = None  # payload of a segment where the packets come unsplit


WELL_BEHAVED = ServerConfig()


def near_wrap(random: Random) -> int:
    """Return a random 32-bit number, often one that is about to wrap."""
    return random.choice(
        (
            random.getrandbits(32),
            (-1 - random.randrange(64)) & 0xFFFFFFFF,
            (-1 - random.randrange(100_000)) & 0xFFFFFFFF,
            random.randrange(3),
            (1 << 31) - random.randrange(-50, 50),
        )
    )


def random_config(random: Random) -> ServerConfig:
    """Return any server that a correct client has to cope with."""
    window_scale = random.choice((None, 0, 2, 7, 14))
    smallest = 2 << (window_scale or 0)  # a smaller buffer could never open its window
    buffer = random.choice((1, 7, 100, 1000, 1460, 4000, 65535, 65536, 300_000, 1_000_000))
    return ServerConfig(
        mss=random.choice((None, 88, 536, 1220, 1400, 1440, 1460, 1460, 8960, 65495)),
        window_scale=window_scale,
        timestamps=random.random() < 0.6,
        sack=random.random() < 0.6,
        duplicate_sack=random.random() < 0.5,
        receive_buffer=max(buffer, smallest),
        congestion_window=random.choice((1, 2, 10, 40)),
        push=random.random() < 0.8,
        delayed_ack_ns=random.choice((0, 0, 40 * MILLISECOND, 200 * MILLISECOND)),
        keep_alive_ns=random.choice((None, None, 2 * SECOND)),
        lenient_edge=random.random() < 0.5,
        renege=random.choice((0.0, 0.0, 0.03)),
        large_segments=random.choice((None, None, 20_000, 65_000)),
    )
