"""The log as files: see `broker.store.log_engine` for the verbs.

Theory of operation.

*Segments.* The log is cut into files of about `segment_bytes`, each named after the position of its
first byte and preallocated, so that an append neither moves the end of the file nor meets a full
disk. A batch lies within one file; when it doesn't fit any more, a new file is begun.

*Beginning a file.* It is made under another name: preallocated, header written, synced. Then it is
renamed, and the directory is synced before the first batch is written. So a file with the name of a
segment always has its whole header, and the log never has a segment that a crash could take away
from under those behind it.

*Sealing a file.* Its index is written under another name, synced, renamed. An index is a cache: if
there is none, recovery reads the segment instead. So nothing depends on when the name of the index
becomes durable, and on a full disk the index waits in memory. All batches were synced when they
were appended; sealing only gives back what was preallocated too much.

*Crash.* Only the newest segment can be unsealed, and only its last batch can be torn. What is not
whole there is cut off (how a torn batch is told from a damaged one: `broker.store.segment`). The
next batch begins a new file. The same happens after a clean stop, where there is nothing to cut and
the index of every segment is there.

*Trimming.* Segments are removed from the oldest on, one at a time, the directory synced after each,
so that no crash leaves a gap. The segment goes before its index: an index without a segment at the
head of the log is the rest of a trim, and removed when the directory is opened. The newest segment
stays, for its name is what remembers the position.

*Full disk.* A write that finds no room is cut back before anything else is written. What makes room
in the end may use the reserve (`broker.store.reserve`); what takes room is refused as long as the
reserve is not whole.

*Failed sync.* Nobody knows then what is on the disk, and asking again may lie. The engine refuses
everything until it is opened anew.
"""

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from threading import Lock
from typing import Final

from broker.store.directory import INDEX_SUFFIX, NEW_SUFFIX, SEGMENT_SUFFIX, Directory
from broker.store.errors import (
    CorruptError,
    DiskFullError,
    FormatError,
    FsyncError,
    LockedError,
    StoreError,
    TrimmedError,
    UnreadableError,
    UnwritableError,
)
from broker.store.files import Files, SystemFiles, is_full
from broker.store.index_file import IndexBuilder, IndexDamage, IndexReader
from broker.store.log_engine import Batch, LogEngine, SegmentSpan
from broker.store.open_segments import OpenSegments, Segment
from broker.store.reserve import Reserve
from broker.store.segment import HEADER_BYTES, mark_batch, segment_header
from broker.store.segment_scan import SegmentScan

__all__ = [
    "Batch",
    "CorruptError",
    "DiskFullError",
    "FileLogEngine",
    "FormatError",
    "FsyncError",
    "LockedError",
    "LogEngine",
    "SegmentSpan",
    "StoreError",
    "TrimmedError",
    "UnreadableError",
    "UnwritableError",
]

SEGMENT_BYTES: Final = 64 * 1024 * 1024
#: spans this near to each other are read together
_GAP_BYTES_MAX: Final = 16 * 1024
_RUN_BYTES_MAX: Final = 4 * 1024 * 1024
#: the process or the system has too many open files
_NO_HANDLES: Final = frozenset({errno.EMFILE, errno.ENFILE})
_UNFINISHED_SEGMENT: Final = "segment" + NEW_SUFFIX


def _ignore(sentence: str) -> None:
    """Nobody listens."""


class FileLogEngine(LogEngine):
    """The log as files in a directory of its own.

    Arguments:
        directory: created when missing
        segment_bytes: how many record bytes go into one file; a larger batch has a file of its own
        files: the operations on files; a test gives a failing disk
        warn: takes a sentence for the operator
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        segment_bytes: int = SEGMENT_BYTES,
        files: Files | None = None,
        warn: Callable[[str], None] = _ignore,
    ) -> None:
        self._files = files if files is not None else SystemFiles()
        self._directory = Directory(directory, self._files)
        self._segment_bytes = segment_bytes
        self._warn = warn
        self._segments = OpenSegments(self._directory)
        self._reserve = Reserve(self._directory, HEADER_BYTES + segment_bytes)
        #: the segment that is written to
        self._current: Segment | None = None
        self._end = 0
        #: `batches` has come to its end
        self._recovered = False
        self._acquired = False
        #: held while segments are removed, so that `close` waits for it
        self._trimming = Lock()
        #: why everything is refused
        self._failure: str | None = None

    # Opening.

    def acquire(self) -> int:
        assert not self._acquired, "acquired once"
        self._directory.create()
        self._directory.lock(os.getpid())
        try:
            epoch = self._directory.next_epoch()
            self._directory.remove_unfinished()
            self._find_segments()
            self._reserve.inspect()
        except OSError as error:
            self._directory.unlock()
            raise self._directory.unwritable(error) from error
        except StoreError:
            self._directory.unlock()
            raise
        self._acquired = True
        return epoch

    def _find_segments(self) -> None:
        """Learn which segments there are, and that none is missing."""
        directory = self._directory
        self._segments = OpenSegments(directory)
        self._end = 0
        bases = directory.bases(SEGMENT_SUFFIX)
        indexes = directory.bases(INDEX_SUFFIX)
        for base in indexes:
            if base not in bases:
                if not bases or base > bases[0]:
                    raise directory.corrupt("is missing", directory.segment(base), base)
                self._files.remove(directory.index(base))
        for base, following in zip_longest(bases, bases[1:]):
            end, size = base, self._check_header(base)
            index_bytes = 0
            if base in indexes:
                end, index_bytes = self._read_index_end(base)
                if size < HEADER_BYTES + end - base:
                    raise directory.corrupt(
                        f"ends before position {end}, up to which its index goes",
                        directory.segment(base),
                        base + max(size - HEADER_BYTES, 0),
                    )
            if following is not None and end < following and base in indexes:
                raise directory.corrupt("is missing", directory.segment(end), end)
            if following is not None and end > following:
                raise directory.corrupt(
                    f"ends at position {end}, within the next segment", directory.index(base), end
                )
            segment = Segment(base, following if following is not None else end)
            segment.index_bytes = index_bytes
            segment.end_is_known = base in indexes or following is not None
            self._segments.add(segment)
            self._end = segment.end

    def _check_header(self, base: int) -> int:
        """The size of a segment file whose header is right."""
        path = self._directory.segment(base)
        handle = self._files.open(path, write=False)
        try:
            if self._files.read(handle, 0, HEADER_BYTES) != segment_header(base):
                raise self._directory.corrupt("has a damaged header", path, base)
            return self._files.size(handle)
        finally:
            self._files.close(handle)

    def _read_index_end(self, base: int) -> tuple[int, int]:
        """Where a sealed segment ends, and the size of its index."""
        path = self._directory.index(base)
        handle = self._files.open(path, write=False)
        try:
            return IndexReader(self._files, handle, base).end, self._files.size(handle)
        except IndexDamage as damage:
            raise self._directory.corrupt(str(damage), path, damage.position) from damage
        finally:
            self._files.close(handle)

    # Recovery.

    def batches(self) -> Iterator[Batch]:
        self._check_usable()
        assert not self._recovered, "recovery runs once"
        for segment in self._segments.all():
            try:
                if segment.index_bytes:
                    yield from self._indexed_batches(segment)
                else:
                    yield from self._scanned_batches(segment)
            except OSError as error:
                path = self._directory.segment(segment.base)
                raise self._unreadable(path, segment.base, error) from error
        self._recovered = True
        self.refill()

    def _indexed_batches(self, segment: Segment) -> Iterator[Batch]:
        path = self._directory.index(segment.base)
        handle = self._files.open(path, write=False)
        try:
            for position, end, index in IndexReader(self._files, handle, segment.base):
                yield Batch(position, end, index, None)
        except IndexDamage as damage:
            raise self._directory.corrupt(str(damage), path, damage.position) from damage
        finally:
            self._files.close(handle)

    def _scanned_batches(self, segment: Segment) -> Iterator[Batch]:
        """The records of a segment without index; it gets one if every batch is given its own."""
        borrowed = self._segments.borrow(segment.base)
        assert borrowed is not None, "nothing is trimmed during recovery"
        index: IndexBuilder | None = IndexBuilder(segment.base)
        try:
            end = segment.end if segment.end_is_known else None
            scan = SegmentScan(self._files, borrowed[1], segment.base, end)
            for position, data in scan:
                batch = Batch(position, position + len(data), None, data)
                yield batch
                if batch.index is None:
                    index = None
                elif index is not None:
                    index.add(batch.end, batch.index)
            if end is None:
                self._end_log(segment, scan)
            elif scan.position < end:
                raise self._damaged(segment, scan.position)
        finally:
            self._segments.give_back(segment)
        if segment.end > segment.base:
            segment.index = index
            self._write_indexes()

    def _end_log(self, segment: Segment, scan: SegmentScan) -> None:
        """The newest segment ends where `scan` stopped, unless what follows was durable once."""
        path = self._directory.segment(segment.base)
        rest = scan.rest()
        if rest and not scan.is_torn(rest):
            raise self._damaged(segment, scan.position)
        if rest:
            self._warn(
                f"The log ends in a batch that was not written to its end when the broker stopped, "
                f"and that nobody was told was safe: {path} is cut off at position {scan.position}."
            )
        try:
            handle = self._files.open(path, write=True)
            try:
                self._files.truncate(handle, HEADER_BYTES + scan.position - segment.base)
                self._files.sync(handle)
            finally:
                self._files.close(handle)
        except OSError as error:
            raise self._fail("can't be cut", error) from error
        segment.end = self._end = scan.position
        segment.end_is_known = True

    def _damaged(self, segment: Segment, position: int) -> CorruptError:
        return self._directory.corrupt(
            f"has a damaged record at position {position} "
            f"(byte {HEADER_BYTES + position - segment.base} of the file)",
            self._directory.segment(segment.base),
            position,
        )

    def _unreadable(self, path: str, position: int, error: OSError) -> StoreError:
        reason = f"can't be read: {error.strerror or error}"
        if error.errno in (errno.EIO, errno.ENOENT):
            return self._directory.corrupt(reason, path, position)
        return UnreadableError(f"{path} {reason}.")

    # Appending.

    def append(self, data: bytes, index: bytes, reserve: bool) -> int:
        assert self._recovered, "batches() comes first, to its end"
        assert data, "a batch has a record"
        self._check_usable()
        if not reserve and not self._reserve.is_whole and not self.refill():
            raise self._full()
        while True:
            try:
                segment = self._segment_for(len(data), reserve)
                self._write(segment, data)
                break
            except DiskFullError:
                if not reserve or not self._free_reserve():
                    raise
        assert segment.handle is not None, "it is being written"
        assert segment.index is not None, "it is not sealed"
        self._sync(segment.handle)
        end = segment.end + len(data)
        segment.index.add(end, index)
        segment.end = self._end = end
        return end

    def _segment_for(self, length: int, reserve: bool) -> Segment:
        """The segment to write a batch of `length` bytes to. Raises DiskFullError."""
        current = self._current
        if current is not None:
            used = current.end - current.base
            if used == 0 or used + length <= self._segment_bytes:
                return current
        path = self._prepare(length, reserve)
        if current is not None:
            self._seal(current)
            self._write_indexes()
        return self._begin(path)

    def _prepare(self, length: int, reserve: bool) -> str:
        """A file that only needs its name to be the next segment. Raises DiskFullError."""
        path = self._directory.file(_UNFINISHED_SEGMENT)
        try:
            self._write_header(path, HEADER_BYTES + max(length, self._segment_bytes))
        except OSError as error:
            if not is_full(error):
                raise self._fail("can't be written", error) from error
            self._remove_unfinished(_UNFINISHED_SEGMENT)
        else:
            return path
        kept = self._reserve.take() if reserve else None
        if kept is None:
            raise self._full()
        try:
            self._write_header(kept, 0)
        except OSError as error:
            if is_full(error):
                raise self._full() from error
            raise self._fail("can't be written", error) from error
        return kept

    def _write_header(self, path: str, preallocated: int) -> None:
        """Write the header of the next segment to a file and sync it."""
        handle = self._files.open(path, write=True, create=True)
        try:
            if preallocated:
                self._files.truncate(handle, 0)
                self._files.preallocate(handle, preallocated)
            self._files.write(handle, 0, segment_header(self._end))
            self._files.sync(handle)
        finally:
            self._files.close(handle)

    def _begin(self, prepared: str) -> Segment:
        """Make a prepared file the newest segment."""
        base = self._end
        path = self._directory.segment(base)
        self._segments.drop_empty(base)
        try:
            self._files.rename(prepared, path)
        except OSError as error:
            if not is_full(error):
                raise self._fail("can't be written", error) from error
            self._remove_unfinished(_UNFINISHED_SEGMENT)
            raise self._full() from error
        try:
            self._directory.sync()
            handle = self._files.open(path, write=True)
        except OSError as error:
            raise self._fail("can't be synced", error) from error
        segment = Segment(base, base)
        segment.handle = handle
        segment.sealed = False
        segment.end_is_known = True
        segment.index = IndexBuilder(base)
        self._segments.add(segment)
        self._current = segment
        return segment

    def _write(self, segment: Segment, data: bytes) -> None:
        """Write a batch, or none of it. Raises DiskFullError."""
        assert segment.handle is not None, "it is being written"
        used = HEADER_BYTES + segment.end - segment.base
        try:
            self._files.write(segment.handle, used, mark_batch(data))
        except OSError as error:
            if not is_full(error):
                raise self._fail("can't be written", error) from error
            self._cut_back(segment.handle, used)
            raise self._full() from error

    def _cut_back(self, handle: int, used: int) -> None:
        """Take back what a failed write left behind the last whole batch."""
        try:
            self._files.truncate(handle, used)
            self._files.preallocate(handle, HEADER_BYTES + self._segment_bytes)
        except OSError as error:
            if not is_full(error):
                raise self._fail("can't be cut back", error) from error

    def _seal(self, segment: Segment) -> None:
        """End a segment where its last batch ends; its index is still to be written."""
        assert segment.handle is not None, "it is being written"
        try:
            self._files.truncate(segment.handle, HEADER_BYTES + segment.end - segment.base)
        except OSError as error:
            if not is_full(error):
                raise self._fail("can't be cut", error) from error
        self._current = None
        self._segments.seal(segment)

    def _write_indexes(self) -> bool:
        """Write the indexes of sealed segments that are only in memory.

        Returns False when there was no room for all of them. Their names are not synced.
        """
        for segment in self._segments.all():
            if segment.sealed and segment.index is not None:
                path = self._directory.index(segment.base)
                pieces = segment.index.pieces()
                try:
                    self._directory.write_new(path, pieces)
                except OSError as error:
                    if not is_full(error) and error.errno not in _NO_HANDLES:
                        raise self._fail("can't be synced", error) from error
                    self._remove_unfinished(os.path.basename(path) + NEW_SUFFIX)
                    return False
                segment.index_bytes = sum(map(len, pieces))
                segment.index = None
        return True

    # The reserve.

    def refill(self) -> bool:
        self._check_usable()
        try:
            whole = self._reserve.refill()
        except OSError as error:
            raise self._fail("can't be synced", error) from error
        if whole:
            self._write_indexes()
        return whole

    def _free_reserve(self) -> bool:
        """Remove a file of the reserve, for its room; False when there is none left."""
        try:
            return self._reserve.free()
        except OSError as error:
            raise self._fail("can't be synced", error) from error

    def _remove_unfinished(self, name: str) -> None:
        """Remove a file that there was no room for."""
        try:
            if name in self._files.names(self._directory.path):
                self._files.remove(self._directory.file(name))
        except OSError as error:
            raise self._fail("can't be cut back", error) from error

    # Reading.

    def read(self, position: int, length: int) -> bytes:
        return self.read_many([(position, length)])[0]

    def read_many(self, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        self._check_usable()
        contents = [b""] * len(spans)
        order = sorted(range(len(spans)), key=spans.__getitem__)
        first = 0
        while first < len(order):
            base, length = spans[order[first]]
            segment, handle = self._borrow(base)
            try:
                # Take in what lies near behind it, as long as it is in the same segment.
                last = first + 1
                end = base + length
                while last < len(order):
                    position, length = spans[order[last]]
                    behind = max(end, position + length)
                    if (
                        position >= segment.end
                        or position > end + _GAP_BYTES_MAX
                        or behind > base + _RUN_BYTES_MAX
                    ):
                        break
                    end = behind
                    last += 1
                data = self._read_run(segment, handle, base, end)
            finally:
                self._segments.give_back(segment)
            for number in order[first:last]:
                position, length = spans[number]
                contents[number] = data[position - base : position - base + length]
            first = last
        return contents

    def _borrow(self, position: int) -> tuple[Segment, int]:
        try:
            borrowed = self._segments.borrow(position)
        except OSError as error:
            path = self._directory.segment(position)
            raise self._unreadable(path, position, error) from error
        if borrowed is None:
            raise TrimmedError(
                f"Position {position} is before {self.begin}, where the log begins.", position
            )
        return borrowed

    def _read_run(self, segment: Segment, handle: int, position: int, end: int) -> bytes:
        assert end <= segment.end, f"up to {segment.end} can be read, not up to {end}"
        path = self._directory.segment(segment.base)
        try:
            data = self._files.read(handle, HEADER_BYTES + position - segment.base, end - position)
        except OSError as error:
            raise self._unreadable(path, position, error) from error
        if len(data) < end - position:
            missing = position + len(data)
            raise self._directory.corrupt(f"ends early, at position {missing}", path, missing)
        return data

    # Trimming and the end.

    def trim(self, before: int) -> None:
        with self._trimming:
            while True:
                self._check_usable()
                segment = self._segments.drop_oldest(before)
                if segment is None:
                    return
                try:
                    self._files.remove(self._directory.segment(segment.base))
                except OSError as error:
                    self._segments.put_back(segment)
                    raise self._directory.unwritable(error) from error
                try:
                    if segment.index_bytes:
                        self._files.remove(self._directory.index(segment.base))
                    self._directory.sync()
                except OSError as error:
                    raise self._fail("can't be synced", error) from error

    def close(self) -> None:
        if not self._acquired:
            return
        self._acquired = False
        try:
            if self._failure is None and self._recovered:
                self._seal_all()
        finally:
            with self._trimming:
                self._segments.close()
                self._directory.unlock()

    def _seal_all(self) -> None:
        """Leave nothing to be replayed but indexes."""
        if self._current is not None:
            self._seal(self._current)
        for segment in self._segments.all():
            if segment.end == segment.base:
                segment.index = None
        while not self._write_indexes():
            if not self._free_reserve():
                break
        try:
            self._directory.sync()
        except OSError as error:
            raise self._fail("can't be synced", error) from error

    # What it says of itself.

    @property
    def begin(self) -> int:
        segments = self._segments.all()
        return segments[0].base if segments else self._end

    @property
    def end(self) -> int:
        return self._end

    @property
    def size_bytes(self) -> int:
        return sum(
            HEADER_BYTES + segment.end - segment.base + segment.index_bytes
            for segment in self._segments.all()
        )

    @property
    def reserve_is_whole(self) -> bool:
        return self._reserve.is_whole

    def segments(self) -> list[SegmentSpan]:
        return [
            SegmentSpan(segment.base, segment.end, segment.sealed)
            for segment in self._segments.all()
        ]

    # Failing.

    def _full(self) -> DiskFullError:
        return DiskFullError(f"The disk of {self._directory.path} is full.")

    def _fail(self, what: str, error: OSError) -> StoreError:
        """The end of this engine: an error after which nobody knows what is on the disk.

        A lack of handles is none: a file that was not opened was not changed.
        """
        if error.errno in _NO_HANDLES:
            return self._directory.unwritable(error)
        self._failure = (
            f"The log in {self._directory.path} {what}: {error.strerror or error}. What is on the "
            "disk is uncertain until it is read again, by a restart."
        )
        return FsyncError(self._failure)

    def _sync(self, handle: int) -> None:
        try:
            self._files.sync(handle)
        except OSError as error:
            raise self._fail("can't be synced", error) from error

    def _check_usable(self) -> None:
        if not self._acquired:
            raise StoreError(f"The log in {self._directory.path} is not open.")
        if self._failure is not None:
            raise FsyncError(self._failure)
