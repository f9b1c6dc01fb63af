"""TFRecord files: where each record lies, and its bytes, with the format's checksums verified.

A record is framed as an 8-byte length, that length's checksum, the content, and the content's checksum; numbers are
little-endian and checksums are masked crc32c. Reading is by position, so any record is reached without the others.
"""

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from xvla_platform.errors import XvlaError

HEADER, FOOTER = 12, 4
BLOCK = 1 << 20
WINDOW = 4096
MASK_DELTA = 0xA282EAD8


@dataclass(frozen=True)
class Span:
    """`size` bytes of a file from `start` on."""

    start: int
    size: int


class Window:
    """Part of an open file, read in small pieces that share one buffer; offsets count from the part's start.

    Raises:
        ValueError: when a piece lies outside the part, which in a damaged record it may.
    """

    def __init__(self, descriptor: int, span: Span) -> None:
        self._descriptor, self.span = descriptor, span
        self._from, self._buffer = 0, b""

    def read(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes from `offset` on."""
        if offset < 0 or size < 0 or offset + size > self.span.size:
            raise ValueError("it is cut off")
        place = offset - self._from
        if place < 0 or place + size > len(self._buffer):
            wanted = min(max(size, WINDOW), self.span.size - offset)
            content = os.pread(self._descriptor, wanted, self.span.start + offset)
            if len(content) < size:
                raise ValueError("it is cut off")
            if size > WINDOW:
                return content  # large pieces are read once
            self._from, self._buffer, place = offset, content, 0
        return self._buffer[place : place + size]


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """The file's descriptor."""
    if not path.is_file():  # a folder opens, and fails at its first read
        raise XvlaError("records cannot be read: not a file", file=path)
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise XvlaError(f"records cannot be read: {error.strerror}", file=path) from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def record_spans(path: Path) -> list[Span]:
    """Where the content of each record lies; reads the headers only."""
    spans: list[Span] = []
    with opened(path) as descriptor:
        end, place = os.fstat(descriptor).st_size, 0
        while place < end:
            header = os.pread(descriptor, HEADER, place)
            if len(header) < HEADER:
                raise _damaged(path, len(spans), "it is cut off")
            size, checksum = struct.unpack("<QI", header)
            if _masked(header[:8]) != checksum:
                raise _damaged(path, len(spans), "the checksum of its length is wrong")
            if place + HEADER + size + FOOTER > end:
                raise _damaged(path, len(spans), "it is cut off")
            spans.append(Span(place + HEADER, size))
            place += HEADER + size + FOOTER
    return spans


def verify_record(path: Path, descriptor: int, span: Span, number: int) -> None:
    """Refuse a record whose content is not what was written; `number` names it in the error."""
    import google_crc32c

    crc, place, end = 0, span.start, span.start + span.size
    while place < end:
        block = os.pread(descriptor, min(BLOCK, end - place), place)
        if not block:
            raise _damaged(path, number, "it is cut off")
        crc = google_crc32c.extend(crc, block)
        place += len(block)
    footer = os.pread(descriptor, FOOTER, end)
    if len(footer) < FOOTER or struct.unpack("<I", footer)[0] != _mask(crc):
        raise _damaged(path, number, "its checksum is wrong")


def _masked(content: bytes) -> int:
    import google_crc32c

    return _mask(google_crc32c.value(content))


def _mask(crc: int) -> int:
    return ((crc >> 15 | crc << 17) + MASK_DELTA) & 0xFFFFFFFF


def _damaged(path: Path, number: int, reason: str) -> XvlaError:
    return XvlaError(f"record {number} is damaged: {reason}", file=path, hint="download the file again")
