"""The segments of a log that are kept, and their open files.

Reads come from any thread while the writer appends and old segments go. What they share is here,
under one lock that is never held during an operation on a file's contents: a reader *borrows* the
handle of a segment, reads without the lock and gives the handle back. A segment that is trimmed is
no longer found from that moment on, and its file is removed when the last borrower is gone.

A log may have more segments than a process may have open files, so idle handles are closed, the
ones unused for the longest time first.
"""

from bisect import bisect_right
from collections import OrderedDict
from threading import Condition

from broker.store.directory import Directory
from broker.store.index_file import IndexBuilder

_OPEN_HANDLES_MAX = 64


class Segment:
    """One segment: where it begins and ends, and what is known of its files."""

    __slots__ = (
        "base",
        "end",
        "end_is_known",
        "handle",
        "index",
        "index_bytes",
        "readers",
        "sealed",
    )

    def __init__(self, base: int, end: int) -> None:
        self.base = base
        #: the position behind its last durable byte
        self.end = end
        #: from its index or from the segment behind it; else its records tell
        self.end_is_known = False
        self.handle: int | None = None
        #: borrowers of the handle
        self.readers = 0
        #: nothing more is appended
        self.sealed = True
        #: the entries that are not in an index file yet; None when they are, or when they are lost
        self.index: IndexBuilder | None = None
        #: size of the index file, 0 when there is none
        self.index_bytes = 0


class OpenSegments:
    """The segments from the oldest to the newest.

    Arguments:
        directory: where their files are
    """

    __slots__ = ("_changed", "_directory", "_idle", "_segments")

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._segments: list[Segment] = []
        #: segments with an open handle and no borrower, in the order they became idle
        self._idle: OrderedDict[int, Segment] = OrderedDict()
        self._changed = Condition()

    def all(self) -> list[Segment]:
        """The segments, oldest first."""
        with self._changed:
            return list(self._segments)

    def add(self, segment: Segment) -> None:
        """A segment behind all others."""
        with self._changed:
            self._segments.append(segment)

    def drop_empty(self, base: int) -> None:
        """Forget the newest segment if it begins at `base`, where nothing was written yet."""
        with self._changed:
            if self._segments and self._segments[-1].base == base:
                segment = self._segments.pop()
                self._idle.pop(base, None)
                self._close(segment)

    def newest(self) -> Segment | None:
        """The segment that holds the end of the log."""
        with self._changed:
            return self._segments[-1] if self._segments else None

    def find(self, position: int) -> Segment | None:
        """The segment that holds `position`; None when that is before the first."""
        with self._changed:
            return self._find(position)

    def _find(self, position: int) -> Segment | None:
        number = bisect_right(self._segments, position, key=_base)
        return self._segments[number - 1] if number else None

    def borrow(self, position: int) -> tuple[Segment, int] | None:
        """The segment that holds `position` and its handle, to be given back; None as with `find`.

        Raises OSError.
        """
        with self._changed:
            segment = self._find(position)
            if segment is None:
                return None
            if segment.handle is None:
                path = self._directory.segment(segment.base)
                segment.handle = self._directory.files.open(path, write=False)
            self._idle.pop(segment.base, None)
            segment.readers += 1
            return segment, segment.handle

    def give_back(self, segment: Segment) -> None:
        """A borrower is done with the handle of `segment`."""
        with self._changed:
            segment.readers -= 1
            if segment.readers == 0:
                self._settle(segment)
                self._changed.notify_all()

    def seal(self, segment: Segment) -> None:
        """Nothing more is appended to `segment`."""
        with self._changed:
            segment.sealed = True
            if segment.readers == 0:
                self._settle(segment)

    def _settle(self, segment: Segment) -> None:
        """Nobody reads a segment: its handle may be closed when others are wanted more."""
        if segment.sealed and segment.handle is not None:
            self._idle[segment.base] = segment
            if len(self._idle) > _OPEN_HANDLES_MAX:
                _, longest = self._idle.popitem(last=False)
                self._close(longest)

    def drop_oldest(self, before: int) -> Segment | None:
        """Forget the oldest segment if it ends at `before` or earlier and is not the newest.

        Returns it when nobody reads it any more and its handle is closed.
        """
        with self._changed:
            if len(self._segments) < 2 or self._segments[0].end > before:
                return None
            segment = self._segments.pop(0)
            self._changed.wait_for(lambda: segment.readers == 0)
            self._idle.pop(segment.base, None)
            self._close(segment)
            return segment

    def put_back(self, segment: Segment) -> None:
        """A segment that was dropped could not be removed."""
        with self._changed:
            self._segments.insert(0, segment)

    def close(self) -> None:
        """Close all handles, when nobody reads any more."""
        with self._changed:
            segments = self._segments
            self._segments = []
            self._changed.wait_for(lambda: all(segment.readers == 0 for segment in segments))
            for segment in segments:
                self._close(segment)
            self._idle.clear()

    def _close(self, segment: Segment) -> None:
        if segment.handle is not None:
            self._directory.files.close(segment.handle)
            segment.handle = None


def _base(segment: Segment) -> int:
    return segment.base
