"""Compare, stream by stream, what two servers read: exact, lost, corrupt, extra, ended otherwise.

Streams are matched by content (SHA-256 and length), never by address: the mapped address at the
target is the replay's business. A stream that matches none is told from a lost one by its first
bytes, which name it (`frames.Content`).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Stream:
    """What one server recorded of one connection (see `server.Connection.record`)."""

    id: int
    peer: tuple[str, int]
    sha256: str
    bytes: int
    requests: int
    ended: str
    server_first: bool
    garbage: bool
    head: str
    opened_ns: int
    closed_ns: int
    arrivals_ns: tuple[int, ...]

    @property
    def gaps_ns(self) -> list[int]:
        """Times between the arrivals of this connection's requests."""
        return [b - a for a, b in zip(self.arrivals_ns, self.arrivals_ns[1:], strict=False)]

    def __str__(self) -> str:
        peer = f"{self.peer[0]}:{self.peer[1]}"
        return (
            f"{peer} {self.bytes} bytes, {self.requests} requests, {self.ended}, "
            f"sha {self.sha256[:10]}, tag {self.head[20:44] or '-'}"
        )


def load(path: Path) -> list[Stream]:
    """The streams of a record file, in the order of their accepting; the last line of an id holds.

    A last line that is still being written is passed over.
    """
    streams: dict[int, Stream] = {}
    if not path.exists():
        return []
    for line in path.read_text().split("\n")[:-1]:
        fields = json.loads(line)
        fields["peer"] = tuple(fields["peer"])
        fields["arrivals_ns"] = tuple(fields["arrivals_ns"])
        streams[fields["id"]] = Stream(**fields)
    return [streams[number] for number in sorted(streams)]


@dataclass(slots=True)
class Comparison:
    """Online against target. All counts are of streams; lists hold what went wrong."""

    online: int
    target: int
    exact: int = 0  # same bytes, ended the same way
    ended_differently: list[tuple[Stream, Stream]] = field(default_factory=list)  # same bytes
    corrupt: list[tuple[Stream, Stream]] = field(default_factory=list)  # same beginning only
    lost: list[Stream] = field(default_factory=list)  # online only
    extra: list[Stream] = field(default_factory=list)  # target only
    pairs: list[tuple[Stream, Stream]] = field(default_factory=list)  # all with the same bytes

    @property
    def clean(self) -> bool:
        """Every stream exact and no other one."""
        return not (self.ended_differently or self.corrupt or self.lost or self.extra)

    def pacing_ms(self) -> Pacing:
        """How far the gaps between requests at the target are from those online."""
        differences = [
            (gap_target - gap_online) / 1e6
            for a, b in self.pairs
            for gap_online, gap_target in zip(a.gaps_ns, b.gaps_ns, strict=False)
        ]
        return Pacing.of(differences)

    def __str__(self) -> str:
        lines = [
            f"{self.online} streams online, {self.target} at the target: {self.exact} exact, "
            f"{len(self.ended_differently)} ended differently, {len(self.corrupt)} corrupt, "
            f"{len(self.lost)} lost, {len(self.extra)} extra"
        ]
        for word, pairs in (
            ("ended differently", self.ended_differently),
            ("corrupt", self.corrupt),
        ):
            for a, b in pairs[:5]:
                lines += [f"  {word}: online {a}", f"  {' ' * len(word)}  target {b}"]
        for word, streams in (("lost", self.lost), ("extra", self.extra)):
            lines += [f"  {word}: {stream}" for stream in streams[:5]]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Pacing:
    """Distances between gaps in milliseconds: absolute p50, p99, greatest; signed median."""

    gaps: int
    p50: float
    p99: float
    greatest: float
    median_signed: float

    @classmethod
    def of(cls, differences: Sequence[float]) -> Pacing:
        """From signed differences, target minus online. Raises ValueError if there are none."""
        if not differences:
            raise ValueError("no gaps to compare: no matched stream has two requests")
        sizes, signed = sorted(map(abs, differences)), sorted(differences)
        last = len(sizes) - 1
        return cls(
            gaps=len(sizes),
            p50=sizes[last // 2],
            p99=sizes[int(last * 0.99)],
            greatest=sizes[-1],
            median_signed=signed[last // 2],
        )

    def __str__(self) -> str:
        return (
            f"{self.gaps} gaps: off by {self.p50:.3f} ms p50, {self.p99:.3f} ms p99, "
            f"{self.greatest:.3f} ms at most (signed median {self.median_signed:+.3f} ms)"
        )


def compare(
    online: Iterable[Stream], target: Iterable[Stream], *, copies: int = 1, empty: bool = False
) -> Comparison:
    """Match the streams; each online stream is expected `copies` times at the target.

    Connections over which nothing was sent are left out unless `empty`: they cannot be told apart.
    """
    expected = [s for s in online if s.bytes or empty for _ in range(copies)]
    arrived = [s for s in target if s.bytes or empty]
    result = Comparison(online=len(expected), target=len(arrived))
    by_content: dict[tuple[str, int], list[Stream]] = defaultdict(list)
    for stream in arrived:
        by_content[stream.sha256, stream.bytes].append(stream)
    missing = []
    for stream in expected:
        same = by_content[stream.sha256, stream.bytes]
        if not same:
            missing.append(stream)
            continue
        best = next((i for i, other in enumerate(same) if other.ended == stream.ended), 0)
        other = same.pop(best)
        result.pairs.append((stream, other))
        if other.ended == stream.ended:
            result.exact += 1
        else:
            result.ended_differently.append((stream, other))
    left = [stream for same in by_content.values() for stream in same]
    _match_broken(missing, left, result)
    return result


def _match_broken(missing: list[Stream], left: list[Stream], result: Comparison) -> None:
    """Sort what has no equal into corrupt (same beginning), lost and extra."""
    by_head: dict[str, list[Stream]] = defaultdict(list)
    for stream in left:
        by_head[stream.head[:44]].append(stream)
    for stream in missing:
        same_head = by_head[stream.head[:44]]
        if same_head:
            result.corrupt.append((stream, same_head.pop()))
        else:
            result.lost.append(stream)
    result.extra = [stream for same in by_head.values() for stream in same]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Compare the record files of two servers")
    parser.add_argument("online", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--copies", type=int, default=1)
    options = parser.parse_args(argv)
    result = compare(load(options.online), load(options.target), copies=options.copies)
    print(result)
    try:
        print(result.pacing_ms())
    except ValueError as error:
        print(error)
    return 0 if result.clean else 1


if __name__ == "__main__":
    sys.exit(main())
