"""A log engine in memory, whose crashes a test decides.

A `Disk` is what a machine has; a `MemoryLogEngine` is one life of a broker on it. An append writes
a batch and then syncs it, as the real engine does; `Disk.crash` ends a life between the two if the
test wants so: of the records that were written and not synced any number survives, counted from the
first, and of the last trims any number is undone, counted from the last. Whatever an engine does
after its crash fails.

As with the real engine a segment is sealed when it is full and when a new life begins. Sealed
segments have their index, unless a disk was told to lose its indexes: then recovery is given the
records.
"""

from collections.abc import Iterator, Sequence

from broker.store.errors import (
    CorruptError,
    DiskFullError,
    LockedError,
    StoreError,
    TrimmedError,
)
from broker.store.log_engine import Batch, LogEngine, SegmentSpan
from broker.store.segment import Scan, mark_batch


class PowerCut(StoreError):
    """The machine stopped in the middle of this."""


class StoredBatch:
    """A batch as the disk has it; without index it is only records."""

    def __init__(self, position: int, data: bytes, index: bytes | None) -> None:
        self.position = position
        self.data = data
        self.index = index

    @property
    def end(self) -> int:
        return self.position + len(self.data)


class StoredSegment:
    """A segment as the disk has it."""

    def __init__(self, base: int) -> None:
        self.base = base
        self.batches: list[StoredBatch] = []
        self.sealed = False

    @property
    def end(self) -> int:
        return self.batches[-1].end if self.batches else self.base

    @property
    def size(self) -> int:
        return self.end - self.base


class Disk:
    """What outlives a broker.

    Arguments:
        segment_bytes: how much goes into one segment; a larger batch has its own.
        indexed: whether sealed segments keep an index.
    """

    def __init__(self, segment_bytes: int = 1 << 20, *, indexed: bool = True) -> None:
        self.segment_bytes = segment_bytes
        self.indexed = indexed
        self.segments: list[StoredSegment] = []
        #: the last batch, between its write and its sync
        self.unsynced: StoredBatch | None = None
        #: segments whose removal a crash may undo, oldest first
        self.trimmed: list[StoredSegment] = []
        self.epoch = 0
        self.locked = False
        #: there is room in the reserve only, and whether there is some
        self.full = False
        self.reserve = True
        #: positions that cannot be read
        self.unreadable: set[int] = set()

    @property
    def size_bytes(self) -> int:
        """Octets of records in all segments."""
        return sum(segment.size for segment in self.segments)

    @property
    def end(self) -> int:
        """Where the log ends, synced or not."""
        return self.segments[-1].end if self.segments else 0

    def records(self) -> Iterator[tuple[int, int, bytes]]:
        """`(position, kind, payload)` of every record, oldest first."""
        for segment in self.segments:
            for batch in segment.batches:
                scan = Scan(batch.data, 0, len(batch.data), checked=False)
                while scan.next():
                    payload = batch.data[scan.payload_start : scan.payload_end]
                    yield batch.position + scan.offset, scan.kind, payload

    def crash(self, kept: int = 0, restored: int = 0) -> None:
        """End the life of whoever uses the disk.

        Arguments:
            kept: records of the unsynced batch that survive, at most.
            restored: segments trimmed last that are there again, at most.
        """
        self.epoch += 1
        self.locked = False
        batch = self.unsynced
        if batch is not None:
            self.unsynced = None
            scan = Scan(batch.data, 0, len(batch.data), checked=False)
            for _ in range(kept):
                if not scan.next():
                    break
            if scan.payload_end < len(batch.data):
                # An index describes whole batches only.
                batch.index = None
            batch.data = batch.data[: scan.payload_end]
            if not batch.data:
                assert self.segments[-1].batches.pop() is batch
        if restored:
            self.segments[:0] = self.trimmed[-restored:]
        self.trimmed.clear()

    def flip_bit(self, position: int, bit: int = 0) -> None:
        """Damage the octet at `position` of the log."""
        for segment in self.segments:
            for batch in segment.batches:
                if batch.position <= position < batch.end:
                    data = bytearray(batch.data)
                    data[position - batch.position] ^= 1 << bit
                    batch.data = bytes(data)


class MemoryLogEngine(LogEngine):
    """One life of a broker on `disk`."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self._epoch = 0
        self._recovered = False
        self.closed = False
        #: raised by recovery
        self.batches_error: Exception | None = None
        #: raised by the next append, once
        self.append_error: Exception | None = None
        #: raised by the next trim, once
        self.trim_error: Exception | None = None
        #: the next append stops between its write and its sync
        self.cut_power = False
        #: the lengths of the batches appended
        self.appended: list[int] = []

    def acquire(self) -> int:
        if self.disk.locked:
            raise LockedError("Another broker uses the disk.")
        self.disk.locked = True
        self.disk.epoch += 1
        self._epoch = self.disk.epoch
        return self._epoch

    def _check_alive(self) -> None:
        if self.disk.epoch != self._epoch:
            raise PowerCut("This engine has crashed.")
        assert not self.closed, "a closed engine is not used"

    def batches(self) -> Iterator[Batch]:
        self._check_alive()
        if self.batches_error is not None:
            raise self.batches_error
        for segment in self.disk.segments:
            for stored in segment.batches:
                if stored.index is None or not (segment.sealed and self.disk.indexed):
                    batch = Batch(stored.position, stored.end, None, stored.data)
                else:
                    batch = Batch(stored.position, stored.end, stored.index, None)
                yield batch
                assert batch.index is not None, "recovery says what the index of records would be"
                stored.index = batch.index
            segment.sealed = True
        self._recovered = True

    def append(self, data: bytes, index: bytes, reserve: bool) -> int:
        self._check_alive()
        assert self._recovered and data
        error, self.append_error = self.append_error, None
        if error is not None:
            raise error
        disk = self.disk
        if disk.full and not (reserve and disk.reserve):
            raise DiskFullError("The disk is full.")
        # What was trimmed before a later sync of the directory is gone for good.
        newest = disk.segments[-1] if disk.segments else None
        if newest is None or newest.sealed or newest.size + len(data) > disk.segment_bytes:
            end = disk.end
            if newest is not None:
                newest.sealed = True
                if not newest.size:
                    disk.segments.pop()
            newest = StoredSegment(end)
            disk.segments.append(newest)
            disk.trimmed.clear()
        batch = StoredBatch(newest.end, bytes(mark_batch(data)), index)
        newest.batches.append(batch)
        if self.cut_power:
            disk.unsynced = batch
            self._epoch = 0
            raise PowerCut("The power was cut.")
        self.appended.append(len(data))
        return batch.end

    def read(self, position: int, length: int) -> bytes:
        return self.read_many([(position, length)])[0]

    def read_many(self, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        self._check_alive()
        return [self._read(position, length) for position, length in spans]

    def _read(self, position: int, length: int) -> bytes:
        if position < self.begin:
            raise TrimmedError(f"Position {position} is gone.", position)
        if position in self.disk.unreadable:
            raise CorruptError("The file can't be read.", "file", position, "Mend it.")
        for segment in self.disk.segments:
            for batch in segment.batches:
                if batch.position <= position < batch.end:
                    start = position - batch.position
                    octets = batch.data[start : start + length]
                    assert len(octets) == length, "a read lies within one batch"
                    return octets
        raise AssertionError(f"nothing was appended at position {position}")

    def trim(self, before: int) -> None:
        self._check_alive()
        error, self.trim_error = self.trim_error, None
        if error is not None:
            raise error
        segments = self.disk.segments
        while len(segments) > 1 and segments[0].end <= before:
            self.disk.trimmed.append(segments.pop(0))

    def refill(self) -> bool:
        self._check_alive()
        return not self.disk.full

    def close(self) -> None:
        if not self.closed and self.disk.epoch == self._epoch:
            self.disk.locked = False
            for segment in self.disk.segments:
                segment.sealed = True
        self.closed = True

    @property
    def begin(self) -> int:
        return self.disk.segments[0].base if self.disk.segments else 0

    @property
    def end(self) -> int:
        return self.disk.end

    @property
    def size_bytes(self) -> int:
        return self.disk.size_bytes

    @property
    def reserve_is_whole(self) -> bool:
        return not self.disk.full

    def segments(self) -> list[SegmentSpan]:
        return [
            SegmentSpan(segment.base, segment.end, segment.sealed) for segment in self.disk.segments
        ]
