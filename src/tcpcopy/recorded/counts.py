"""What became of the packets of capture files; plain numbers for reports."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tcpcopy.packet.links import link_name

_MOST_PROBLEMS = 8


@dataclass(slots=True)
class FileCounts:
    """Counts of one file, or of several added up (then `path` is "")."""

    path: str
    format: str  # "pcap", "pcap, big-endian", "pcap, nanoseconds", "pcapng", ...
    compression: str  # "", "gzip" or "zstd"
    packets: int = 0  # records read; handed on + skipped
    handed_on: int = 0  # of these, with IP in them: handed on, or pieces of what was
    cut: int = 0  # captured shorter than they were on the wire
    snaplen: int = 0  # largest limit of a file that has cut packets; 0: none has
    tunnelled: int = 0  # handed on without the tunnel they came in
    fragments: int = 0  # pieces of TCP and of tunnels
    joined: int = 0  # packets put together from them, and handed on
    lost_fragments: int = 0  # pieces of what stayed incomplete
    unread: dict[str, int] = field(default_factory=dict)  # encapsulation -> packets
    skipped: dict[str, int] = field(default_factory=dict)  # reason -> packets
    links: dict[str, int] = field(default_factory=dict)  # link type -> packets
    first_ns: int = -1  # of the first packet, -1 without one
    last_ns: int = -1  # the latest time
    problems: list[str] = field(default_factory=list)

    def take(self, reader: Any) -> None:
        """Add what a `RecordReader` has counted."""
        self.packets += reader.packets
        self.handed_on += reader.handed
        unwrapper = reader.unwrapper
        self.tunnelled += unwrapper.tunnelled
        self.fragments += unwrapper.fragments
        self.joined += unwrapper.joined
        self.lost_fragments += unwrapper.lost
        for name, count in unwrapper.unread_counts().items():
            self.unread[name] = self.unread.get(name, 0) + count
        for interface in reader.interfaces:
            if not interface.packets:
                continue
            name = link_name(interface.link_type)
            self.links[name] = self.links.get(name, 0) + interface.packets
            self.cut += interface.cut
            if interface.cut:
                self.snaplen = max(self.snaplen, interface.snaplen)
        unread = " or ".join(
            sorted({link_name(i.link_type) for i in reader.interfaces if i.packets})
        )
        for reason, count in (
            ("not IP", reader.skipped_not_ip),
            ("too short for an IP header", reader.skipped_short),
            (f"link type that cannot be read ({unread})", reader.skipped_link),
            ("damaged record", reader.skipped_bad),
        ):
            if count:
                self.skipped[reason] = self.skipped.get(reason, 0) + count
        self._span(reader.first_ns, reader.last_ns)
        if reader.problem:
            self.note(reader.problem)

    def add(self, other: FileCounts) -> None:
        """Add the counts of another file."""
        self.packets += other.packets
        self.handed_on += other.handed_on
        self.tunnelled += other.tunnelled
        self.fragments += other.fragments
        self.joined += other.joined
        self.lost_fragments += other.lost_fragments
        self.cut += other.cut
        self.snaplen = max(self.snaplen, other.snaplen)
        for mine, others in (
            (self.skipped, other.skipped),
            (self.links, other.links),
            (self.unread, other.unread),
        ):
            for name, count in others.items():
                mine[name] = mine.get(name, 0) + count
        self._span(other.first_ns, other.last_ns)
        self.problems += other.problems

    def note(self, problem: str) -> None:
        """Keep a problem, once."""
        if problem not in self.problems and len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(problem)

    def copy(self) -> FileCounts:
        """An independent copy."""
        made = FileCounts(self.path, self.format, self.compression)
        made.add(self)
        return made

    def _span(self, first_ns: int, last_ns: int) -> None:
        if first_ns >= 0 and (self.first_ns < 0 or first_ns < self.first_ns):
            self.first_ns = first_ns
        self.last_ns = max(self.last_ns, last_ns)
