"""Capture files by their content: what a path holds, and how to read it.

Everything that makes a path unusable as a whole is said here, before anything starts.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence

from tcpcopy.errors import UsageError
from tcpcopy.packet.unwrap import Unwrapper
from tcpcopy.recorded.pcapng import SECTION_MAGIC, PcapngReader
from tcpcopy.recorded.records import READY, PcapReader, RecordReader
from tcpcopy.recorded.source import (
    GzipSource,
    RawSource,
    Source,
    ZstdSource,
    closing_on_error,
    read_head,
)

STANDARD_INPUT = "-"
_HEAD_BYTES = 24
_PCAP_MAGICS = {
    bytes.fromhex(magic): name
    for magic, name in (
        ("a1b2c3d4", "pcap, big-endian"),
        ("d4c3b2a1", "pcap"),
        ("a1b23c4d", "pcap, big-endian, nanoseconds"),
        ("4d3cb2a1", "pcap, nanoseconds"),
        ("a1b2cd34", "pcap, big-endian, modified"),
        ("34cdb2a1", "pcap, modified"),
    )
}
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_WRITE_ONE = "record one with: tcpdump -i DEVICE -s 0 -w FILE"
# What people do hand in, and what makes a capture of it.
_FOREIGN = (
    (b"\xfd7zXZ\x00", "is compressed with xz", "give it decompressed: xz -dc FILE | ... -"),
    (b"BZh", "is compressed with bzip2", "give it decompressed: bzip2 -dc FILE | ... -"),
    (b"\x04\x22\x4d\x18", "is compressed with lz4", "give it decompressed: lz4 -dc FILE | ... -"),
    (b"PK\x03\x04", "is a zip archive", "unpack it first: unzip FILE"),
    (b"snoop\0\0\0", "is a snoop file", "turn it into pcap: editcap -F pcap FILE NEW"),
)
_LARGE_WINDOW = 256 * 1024
_SMALL_WINDOW = 64 * 1024
_FEW_FILES = 16


class RecordedFile:
    """One path with a capture in it, open or not."""

    __slots__ = (
        "compression",  # "", "gzip" or "zstd"
        "first_ns",  # time of its first packet, -1 if it has none or was not asked
        "format",  # "pcap", "pcap, big-endian, nanoseconds", "pcapng", ...
        "identity",  # device and inode
        "is_regular",  # can be opened again
        "path",
        "reader",  # the open reader; None when closed
        "size",  # bytes, 0 if not known
        "unwrapper",  # of the whole set of files: each reader has one beside it
        "window",
    )

    def __init__(self, path: str, option: str, *, unwrapper: Unwrapper, window: int) -> None:
        """Open it and look at its head. Raises: UsageError."""
        self.path = path
        self.unwrapper = unwrapper
        self.window = window
        self.first_ns = -1
        self.reader: RecordReader | None = None
        _check_path(path, option)
        try:
            raw = RawSource(path)
        except OSError as error:
            raise UsageError(option, path, *_refusal(error)) from None
        with closing_on_error(raw):
            status = os.fstat(raw.file.fileno())
            self.identity = (status.st_dev, status.st_ino)
            self.is_regular = raw.is_regular
            self.size = raw.size
            self.compression = ""
            self.format = ""
            self.reader = self._reader(raw, option)

    def open(self) -> RecordReader:
        """A reader at the first packet. Raises: UsageError when the file has changed meanwhile."""
        if self.reader is None:
            try:
                raw = RawSource(self.path)
            except OSError as error:
                raise UsageError("", self.path, *_refusal(error)) from None
            with closing_on_error(raw):
                self.reader = self._reader(raw, "")
        return self.reader

    def look_at_first_time(self) -> None:
        """Set `first_ns`. Waits for the first packet of a pipe."""
        if self.open().next_record(True) == READY:
            self.first_ns = self.open().timestamp_ns

    def close(self) -> None:
        """Close it; `open` begins anew."""
        if self.reader is not None:
            self.reader.close()
            self.reader = None

    def _reader(self, raw: RawSource, option: str) -> RecordReader:
        source: Source = raw
        head = read_head(raw, _HEAD_BYTES)
        if not head and not raw.problem:
            raise UsageError(option, self.path, "is empty", _WRITE_ONE)
        if head[:2] == _GZIP_MAGIC:
            self.compression = "gzip"
            source = GzipSource(raw, head)
        elif head[:4] == _ZSTD_MAGIC:
            self.compression = "zstd"
            try:
                source = ZstdSource(raw, head)
            except ImportError:
                raise UsageError(
                    option,
                    self.path,
                    "is compressed with zstd, which needs a package more",
                    "install it: pip install 'tcpcopy[zst]'",
                ) from None
        if self.compression:
            head = read_head(source, _HEAD_BYTES)
        if source.problem:
            raise UsageError(option, self.path, source.problem, "get the file again")
        return self._by_magic(raw, source, head, option)

    def _by_magic(self, raw: RawSource, source: Source, head: bytes, option: str) -> RecordReader:
        magic = head[:4]
        if magic not in _PCAP_MAGICS and magic != SECTION_MAGIC:
            for foreign, problem, hint in _FOREIGN:
                if head.startswith(foreign):
                    raise UsageError(option, self.path, problem, hint)
            raise UsageError(
                option, self.path, "is not a capture file (pcap or pcapng)", _WRITE_ONE
            )
        if len(head) < _HEAD_BYTES:
            raise UsageError(
                option, self.path, f"is cut off in its first {len(head)} bytes", _WRITE_ONE
            )
        unwrapper = Unwrapper(self.unwrapper.strips_tunnels, self.unwrapper)
        if magic == SECTION_MAGIC:
            self.format = "pcapng"
            if head[8:12] not in (b"\x1a\x2b\x3c\x4d", b"\x4d\x3c\x2b\x1a"):
                raise UsageError(option, self.path, "is not a pcapng file", _WRITE_ONE)
            return PcapngReader(raw, source, head, self.window, unwrapper)
        self.format = _PCAP_MAGICS[magic]
        return PcapReader(raw, source, head, self.window, unwrapper)


def open_files(
    paths: Sequence[str], option: str, *, strips_tunnels: bool = True
) -> list[RecordedFile]:
    """The files in the order of their first packets; of several, regular ones are closed again.

    Raises: UsageError naming `option` for the first path that cannot be used.
    """
    if not paths:
        raise UsageError(option, None, "no file given", "name at least one capture file")
    window = _LARGE_WINDOW if len(paths) <= _FEW_FILES else _SMALL_WINDOW
    unwrapper = Unwrapper(strips_tunnels)
    files: list[RecordedFile] = []
    seen: dict[tuple[int, int], str] = {}
    try:
        for path in paths:
            file = RecordedFile(path, option, unwrapper=unwrapper, window=window)
            files.append(file)
            if file.identity in seen:
                raise UsageError(
                    option, path, f"is the same as {seen[file.identity]}", "give each file once"
                )
            seen[file.identity] = path
            if len(paths) > 1:
                file.look_at_first_time()
                if file.is_regular:
                    file.close()
    except BaseException:
        for file in files:
            file.close()
        raise
    files.sort(key=lambda file: file.first_ns)
    return files


def _check_path(path: str, option: str) -> None:
    """Refuse what must not be opened: directories, the terminal, odd devices."""
    if path == STANDARD_INPUT:
        try:
            if os.isatty(0):
                raise UsageError(
                    option, path, "is the terminal", "pipe into it: tcpdump -w - | tcpcopy -i -"
                )
            os.fstat(0)
        except OSError as error:
            raise UsageError(option, path, *_refusal(error)) from None
        return
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        raise UsageError(option, path, *_refusal(error)) from None
    if stat.S_ISDIR(mode):
        raise UsageError(option, path, "is a directory", f"name the files: {path.rstrip('/')}/*")
    if stat.S_ISSOCK(mode) or stat.S_ISBLK(mode):
        raise UsageError(option, path, "is no file", "give a capture file")


def _refusal(error: Exception) -> tuple[str, str]:
    """Problem and hint for what the operating system said."""
    if not isinstance(error, OSError):
        return "is no path", "give a capture file"
    if error.errno == errno.ENOENT:
        return "no such file", "check the path"
    text = error.strerror or str(error)
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"cannot be read ({text})", "give this user the right to read it"
    return f"cannot be read ({text})", "check the path"
