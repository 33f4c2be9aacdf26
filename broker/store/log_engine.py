"""The log engine: owns bytes on disk, behind five verbs, and knows nothing of what they mean.

The verbs are `acquire`, `append`, `read`, `batches` and `trim`; what else is here is bookkeeping.
Positions are logical: bytes of records since the log began, whatever files they lie in. The engine
of one node, on files, is `broker.store.engine`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import NamedTuple

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

__all__ = [
    "Batch",
    "CorruptError",
    "DiskFullError",
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


class SegmentSpan(NamedTuple):
    """A part of the log that is trimmed as a whole.

    Attributes:
        base: its first position
        end: the position behind its last byte
        sealed: nothing more is appended to it
    """

    base: int
    end: int
    sealed: bool

    @property
    def size(self) -> int:
        """Bytes of records in it."""
        return self.end - self.base


class Batch:
    """A run of whole records as recovery meets it.

    Either `index` is what `append` was given with the batch, and `data` is None: nothing was read.
    Or there was no index to be found: then `data` holds the records as they were appended, and
    whoever recovers may set `index` before asking for the next batch. The engine keeps it, so that
    the next start finds it. Such a batch is not the one that was appended, but a piece of up to
    4 MiB of whole records.
    """

    __slots__ = ("data", "end", "index", "position")

    def __init__(self, position: int, end: int, index: bytes | None, data: bytes | None) -> None:
        self.position = position
        self.end = end
        self.index = index
        self.data = data


class LogEngine(ABC):
    """An endless log of bytes, written in batches by one writer and trimmed from its head.

    Order of use: `acquire`, `batches` to its end, then `append`, `read` and `trim` in any order,
    `close`. `append`, `refill` and `close` are called one at a time, from any thread; so is `trim`,
    which may run beside `append`; `read`, `read_many` and the properties at any time.
    """

    @abstractmethod
    def acquire(self) -> int:
        """Become the only writer.

        Returns an epoch, higher than that of every writer before.

        Raises LockedError, FormatError, UnwritableError, CorruptError.
        """

    @abstractmethod
    def batches(self) -> Iterator[Batch]:
        """What survived, in order, from `begin` to `end`. Runs once, before anything is appended.

        `end` is final when it is done. Cuts a torn end off, durably, with one warning. Raises
        CorruptError.
        """

    @abstractmethod
    def append(self, data: bytes, index: bytes, reserve: bool) -> int:
        """Write a batch at the end and make it durable; blocks meanwhile.

        Positions don't jump: the batch lies from the old `end` to the new one, `len(data)` apart.

        Arguments:
            data: whole framed records, at least one
            index: what recovery will want to know of them; opaque
            reserve: the batch makes room in the end and may use the reserve on a full disk

        Returns the new end. Raises DiskFullError and, for want of file handles, UnwritableError:
        nothing was kept and the same batch or another may be appended; FsyncError: the engine
        refuses everything from now on.
        """

    @abstractmethod
    def read(self, position: int, length: int) -> bytes:
        """The bytes of the log from `position` on, all within one segment.

        They are to be parsed by `broker.store.segment`: some records carry a mark there.

        Raises TrimmedError; CorruptError when the file is too short or the disk can't read it;
        UnreadableError when it can't be opened at this moment.
        """

    @abstractmethod
    def read_many(self, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes of each `(position, length)`, in the order asked; each within one segment.

        Neighbours are read together, in the order of the disk. Errors are those of `read`.
        """

    @abstractmethod
    def trim(self, before: int) -> None:
        """Let go of segments that end at `before` or earlier; never of the newest one."""

    @abstractmethod
    def refill(self) -> bool:
        """Try to make the reserve whole again; says whether it is."""

    @abstractmethod
    def close(self) -> None:
        """Seal what was written, let go of the files and the lock. A second call does nothing."""

    @property
    @abstractmethod
    def begin(self) -> int:
        """The first position that is kept."""

    @property
    @abstractmethod
    def end(self) -> int:
        """The position behind the last durable byte."""

    @property
    @abstractmethod
    def size_bytes(self) -> int:
        """Bytes of segments and indexes, without what is only preallocated."""

    @property
    @abstractmethod
    def reserve_is_whole(self) -> bool:
        """Whether publishes may be appended; else `refill` first."""

    @abstractmethod
    def segments(self) -> list[SegmentSpan]:
        """The segments, oldest first."""
