"""Reading the records of a segment file in bounded pieces, and judging where they end."""

from collections.abc import Iterator
from typing import Final

from broker.store.files import Files
from broker.store.segment import (
    BAD,
    HEADER_BYTES,
    RECORD_HEAD_BYTES,
    ZEROS,
    Scan,
    is_torn_tail,
    unmark_batches,
)

#: how much is read at once; a piece is longer only when a single record is
PIECE_BYTES: Final = 4 * 1024 * 1024


class SegmentScan:
    """A walk over the records of a segment file, with checksums compared.

    Arguments:
        files, handle: the file
        base: its first position
        end: the position behind its last record where that is known; else the file's size limits it
    """

    __slots__ = ("_files", "_handle", "_limit", "base", "position")

    def __init__(self, files: Files, handle: int, base: int, end: int | None) -> None:
        self._files = files
        self._handle = handle
        self.base = base
        #: behind the last whole record that was met
        self.position = base
        size = files.size(handle)
        if end is not None:
            size = min(size, HEADER_BYTES + end - base)
        #: offset in the file where there is nothing more
        self._limit = size

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """`(position, data)` of whole records as they were framed, until there are none."""
        data = b""
        wanted = PIECE_BYTES
        while True:
            offset = self._offset()
            wanted = min(wanted, self._limit - offset)
            if wanted > len(data):
                data += self._files.read(self._handle, offset + len(data), wanted - len(data))
                if len(data) < wanted:
                    self._limit = offset + len(data)
            scan = Scan(data, 0, len(data))
            starts = []
            while scan.next():
                if scan.starts_batch:
                    starts.append(scan.offset)
            if scan.offset:
                position = self.position
                self.position += scan.offset
                yield position, unmark_batches(data[: scan.offset], starts)
                data = data[scan.offset :]
                offset = self._offset()
            if scan.stop == BAD or (scan.stop == ZEROS and len(data) >= RECORD_HEAD_BYTES):
                return
            wanted = scan.wanted - scan.offset
            if offset + max(wanted, len(data) + 1) > self._limit:
                return
            wanted = max(PIECE_BYTES, wanted)

    def rest(self) -> bytes:
        """What follows the last whole record; empty if these are only zeros.

        The zeros at its end are left out but for those of one piece, so that a record that ends in
        zeros is whole.
        """
        offset = self._offset()
        pieces: list[bytes] = []
        zeros = 0
        while offset < self._limit:
            piece = self._files.read(self._handle, offset, min(PIECE_BYTES, self._limit - offset))
            if not piece:
                break
            offset += len(piece)
            if not piece.strip(b"\0"):
                zeros += len(piece)
                continue
            pieces.append(bytes(zeros))
            pieces.append(piece)
            zeros = 0
        if pieces:
            pieces.append(bytes(min(zeros, PIECE_BYTES)))
        return b"".join(pieces)

    def _offset(self) -> int:
        """Where `position` is in the file."""
        return HEADER_BYTES + self.position - self.base

    def is_torn(self, rest: bytes) -> bool:
        """Whether `rest` is only the torn end of the log; False when something is damaged."""
        return is_torn_tail(rest, self._offset())
