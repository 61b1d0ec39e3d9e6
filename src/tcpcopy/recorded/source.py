"""Where the bytes of a capture come from: a file, a pipe, either of them compressed.

A source fills buffers with what is there and never waits for more than that, so that packets of
a running `tcpdump -w -` are seen as they come. What goes wrong on the way is a text in `problem`
and the end of the bytes, never an exception.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import stat
import zlib
from typing import Any, Protocol

_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK_BYTES = 128 * 1024


class Source(Protocol):
    """Bytes in order."""

    problem: str  # what ended the bytes before their time; "" if nothing did

    def readinto(self, buffer: memoryview) -> int:
        """Fill the front of `buffer`; how many bytes, 0 at the end. Waits for at least one."""
        ...


class RawSource:
    """The bytes of a file or pipe as they stand there.

    Raises OSError when it cannot be opened. A named pipe is waited for.
    """

    __slots__ = ("bytes_read", "file", "is_regular", "problem", "size")

    def __init__(self, path: str) -> None:
        if path == "-":
            self.file = io.FileIO(0, "rb", closefd=False)
        else:
            self.file = io.FileIO(path, "rb")
        status = os.fstat(self.file.fileno())
        self.is_regular = stat.S_ISREG(status.st_mode) and path != "-"
        self.size = status.st_size if stat.S_ISREG(status.st_mode) else 0
        self.bytes_read = 0
        self.problem = ""

    def readinto(self, buffer: memoryview) -> int:
        """As `Source`."""
        while not self.problem:
            try:
                count = self.file.readinto(buffer)
            except OSError as error:
                self.problem = f"cannot be read on ({error.strerror})"
                break
            if count is not None:
                self.bytes_read += count
                return count
            self._wait(None)  # someone has made the pipe non-blocking
        return 0

    def has_bytes(self) -> bool:
        """Whether `readinto` would not wait: bytes, or the end, are there."""
        return self.is_regular or self._wait(0)

    def fileno(self) -> int:
        """The descriptor that becomes readable when bytes come; -1 for regular files."""
        return -1 if self.is_regular else self.file.fileno()

    def close(self) -> None:
        """Close it; standard input stays open."""
        self.file.close()

    def _wait(self, milliseconds: int | None) -> bool:
        poll = select.poll()
        poll.register(self.file, select.POLLIN)
        return bool(poll.poll(milliseconds))


class GzipSource:
    """The content of gzip data, of one member or several (RFC 1952)."""

    __slots__ = ("_decompressor", "_held", "_raw", "_scratch", "problem")

    def __init__(self, raw: RawSource, head: bytes) -> None:
        self._raw = raw
        self._held = head  # compressed bytes that were not used yet
        self._scratch = memoryview(bytearray(_CHUNK_BYTES))
        self._decompressor = zlib.decompressobj(31)
        self.problem = ""

    def readinto(self, buffer: memoryview) -> int:
        """As `Source`; at most `len(buffer)` bytes are ever decompressed."""
        while not self.problem:
            if self._decompressor.eof and not self._next_member():
                return 0
            try:
                out = self._decompressor.decompress(self._held, len(buffer))
            except zlib.error:
                self.problem = "compressed data is damaged"
                return 0
            self._held = self._decompressor.unconsumed_tail
            if self._decompressor.eof:
                self._held = self._decompressor.unused_data
            if out:
                buffer[: len(out)] = out
                return len(out)
            if not self._decompressor.eof and not self._more():
                self.problem = self._raw.problem or "compressed data is cut off"
        return 0

    def _more(self) -> bool:
        count = self._raw.readinto(self._scratch)
        self._held += bytes(self._scratch[:count])
        return count > 0

    def _next_member(self) -> bool:
        """Begin the member that follows; False at the end."""
        while len(self._held) < 2 and self._more():
            pass
        if self._held[:2] == _GZIP_MAGIC:
            self._decompressor = zlib.decompressobj(31)
            return True
        if self._held.strip(b"\0"):  # zeros are padding, as gzip has it
            self.problem = "the compressed data is followed by something else"
        return False


class ZstdSource:
    """The content of zstd data, of one frame or several. Raises ImportError without `zstandard`."""

    __slots__ = ("_error", "_reader", "problem")

    def __init__(self, raw: RawSource, head: bytes) -> None:
        import zstandard

        self._error: type[Exception] = zstandard.ZstdError
        # Frames that want more than 128 MiB of window are refused: memory stays bounded.
        decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 27)
        content: Any = _HeadThenRaw(raw, head)  # all of a file that it asks for
        self._reader: Any = decompressor.stream_reader(
            content, read_size=_CHUNK_BYTES, read_across_frames=True
        )
        self.problem = ""

    def readinto(self, buffer: memoryview) -> int:
        """As `Source`."""
        if self.problem:
            return 0
        try:
            out: bytes = self._reader.read1(len(buffer))
        except (self._error, MemoryError):
            self.problem = "compressed data is damaged"
            return 0
        buffer[: len(out)] = out
        return len(out)


class _HeadThenRaw:
    """What zstandard reads from: the bytes that were looked at already, then the others."""

    __slots__ = ("_head", "_raw")

    def __init__(self, raw: RawSource, head: bytes) -> None:
        self._raw = raw
        self._head = head

    def read(self, size: int) -> bytes:
        """Bytes that are there, at most `size`; b"" at the end."""
        if self._head:
            head, self._head = self._head[:size], self._head[size:]
            return head
        buffer = bytearray(size)
        count = self._raw.readinto(memoryview(buffer))
        return bytes(buffer[:count])


def read_head(source: Source, size: int) -> bytes:
    """The first `size` bytes, fewer if there are no more."""
    buffer = memoryview(bytearray(size))
    filled = 0
    while filled < size:
        count = source.readinto(buffer[filled:])
        if count == 0:
            break
        filled += count
    return bytes(buffer[:filled])


@contextlib.contextmanager
def closing_on_error(raw: RawSource) -> Any:
    """Close `raw` if the block fails."""
    try:
        yield
    except BaseException:
        raw.close()
        raise
