"""Finding what is damaged in a log that is not open, and going on without it.

`check` reads everything: every record of every segment, and every index. What it finds are
`Problem`s, each with a sentence saying what is wrong, one saying what `repair` would do, and what
would be lost by that. `repair` does exactly what was said: it is given the problems, finds them
again under the lock, and refuses if they are not the same.

Nothing is ever shifted: positions are what the rest of the log refers to. A damaged stretch is
covered by a *hole*, a record that says nothing, from its first byte to where the log can be trusted
again; a missing segment becomes a file of holes. The log can be trusted again

- where the damaged record says that it ends, if a whole record begins there, or else
- at the next batch: within the same batch, what looks like a record may be the inside of one.

An index is only a cache: a damaged one is removed, and so is that of a segment that got a hole.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from zlib import crc32

from broker.store.directory import (
    FORMAT_NAME,
    FORMAT_VERSION,
    INDEX_SUFFIX,
    NEW_SUFFIX,
    SEGMENT_SUFFIX,
    Directory,
)
from broker.store.errors import CorruptError, StoreError
from broker.store.files import Files, SystemFiles
from broker.store.index_file import IndexDamage, IndexReader
from broker.store.segment import (
    END,
    HEADER_BYTES,
    KIND_HOLE,
    RECORD_HEAD,
    RECORD_HEAD_BYTES,
    Scan,
    find_batch,
    is_torn_tail,
    parse_record,
    segment_header,
)

#: what a problem is about, and with it what repair does
FORMAT: Final = "format"
HEADER: Final = "header"
INDEX: Final = "index"
RECORDS: Final = "records"
MISSING: Final = "missing"
ENDING: Final = "ending"
TORN: Final = "torn"
UNREADABLE: Final = "unreadable"

#: a hole is no longer than this, so that nobody must read a whole gap at once
_HOLE_BYTES_MAX: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in a log that is not as it was written.

    Attributes:
        kind: one of the names above
        file: the path of the file
        start: the first position of the log that is concerned, None for a file that has none
        end: the position behind the last
        text: what is wrong, as a sentence
        remedy: what repair does, as a sentence; empty when it does nothing: a torn end is cut off
            by the next start, and what the disk can't read must be copied to another disk first
        lost_bytes: how much of the log is lost, by the damage or at the latest by repair
        stops_start: a broker does not start before this is repaired
    """

    kind: str
    file: str
    start: int | None
    end: int | None
    text: str
    remedy: str
    lost_bytes: int = 0
    stops_start: bool = True

    @property
    def loss(self) -> str:
        """What is lost with the repair, as a sentence."""
        if not self.lost_bytes:
            return "Nothing is lost."
        return f"{self.lost_bytes} bytes are lost, positions {self.start} to {self.end}."


def check(directory: str | os.PathLike[str], *, files: Files | None = None) -> list[Problem]:
    """All that is wrong with the log in a directory, in the order of the log.

    Arguments:
        directory: of the log; no broker may be using it
        files: the operations on files

    Raises LockedError, FormatError, UnwritableError, and StoreError where there is no log.
    """
    place = Directory(directory, files if files is not None else SystemFiles())
    with _Locked(place):
        return _Examination(place).problems


def repair(
    directory: str | os.PathLike[str], problems: Sequence[Problem], *, files: Files | None = None
) -> None:
    """Do what the remedies of `problems` say, all that `check` has just found.

    Arguments:
        directory: of the log; no broker may be using it
        problems: what `check` returned, and the operator was told
        files: the operations on files

    A repair that is interrupted is begun again with a new `check`.

    Raises what `check` raises, and StoreError when it finds other problems by now.
    """
    place = Directory(directory, files if files is not None else SystemFiles())
    with _Locked(place):
        if _Examination(place).problems != list(problems):
            raise StoreError(
                f"The log in {place.path} is not as it was when it was checked. "
                "Nothing was changed; check it again."
            )
        for problem in problems:
            try:
                _repair(place, problem)
            except OSError as error:
                raise place.unwritable(error) from error


class _Locked:
    """The lock of a directory that must be there."""

    def __init__(self, place: Directory) -> None:
        self._place = place

    def __enter__(self) -> None:
        try:
            names = self._place.files.names(self._place.path)
        except OSError as error:
            raise self._place.unwritable(error) from error
        if FORMAT_NAME not in names and not self._place.bases(SEGMENT_SUFFIX):
            raise StoreError(f"There is no log in {self._place.path}.")
        self._place.lock(os.getpid())

    def __exit__(self, *error: object) -> None:
        self._place.unlock()


class _Examination:
    """Reads a whole log and gathers its problems."""

    def __init__(self, place: Directory) -> None:
        self._place = place
        self.problems: list[Problem] = []
        try:
            self._format()
            self._log()
        except OSError as error:
            raise place.unwritable(error) from error

    def _add(
        self,
        kind: str,
        file: str,
        span: tuple[int, int] | None,
        text: str,
        remedy: str,
        lost_bytes: int = 0,
        stops_start: bool = True,
    ) -> None:
        start, end = span if span is not None else (None, None)
        problem = Problem(
            kind, file, start, end, f"{file} {text}.", remedy, lost_bytes, stops_start
        )
        self.problems.append(problem)

    def _format(self) -> None:
        path = self._place.file(FORMAT_NAME)
        try:
            text = "is missing" if self._place.read_format() is None else ""
        except CorruptError:
            text = "is damaged"
        if text:
            self._add(FORMAT, path, None, text, f"It is written anew, for format {FORMAT_VERSION}.")

    def _log(self) -> None:
        """Walk from segment to segment, and over what is missing between them."""
        bases = self._place.bases(SEGMENT_SUFFIX)
        indexes = self._place.bases(INDEX_SUFFIX)
        if bases:
            # The rest of a trim.
            indexes = [base for base in indexes if base >= bases[0]]
        expected: int | None = None
        known = sorted({*bases, *indexes})
        for number, base in enumerate(known):
            following = known[number + 1] if number + 1 < len(known) else None
            if expected is not None and expected < base:
                self._missing(expected, base)
            ends = self._read_index(base) if base in indexes else None
            if ends is not None and following is not None and ends[-1] > following:
                self._bad_index(base, f"ends at position {ends[-1]}, within the next segment")
                ends = None
            if base in bases:
                expected = self._segment(base, following, ends)
            else:
                expected = ends[-1] if ends is not None else following
                if expected is not None:
                    self._missing(base, expected)

    def _missing(self, start: int, end: int) -> None:
        self._add(
            MISSING,
            self._place.segment(start),
            (start, end),
            "is missing",
            "A file of holes takes its place.",
            end - start,
        )

    def _bad_index(self, base: int, text: str) -> None:
        self._add(
            INDEX,
            self._place.index(base),
            None,
            text,
            "It is removed, and made again from the segment at the next start.",
        )

    def _read_index(self, base: int) -> list[int] | None:
        """Where the batches of a segment end by its index; None when that is damaged."""
        path = self._place.index(base)
        files = self._place.files
        handle = files.open(path, write=False)
        try:
            return [base, *(end for _, end, _ in IndexReader(files, handle, base))]
        except IndexDamage as damage:
            self._bad_index(base, str(damage))
        except OSError as error:
            self._unreadable(path, error)
        finally:
            files.close(handle)
        return None

    def _unreadable(self, path: str, error: OSError) -> None:
        self._add(UNREADABLE, path, None, f"can't be read: {error.strerror or error}", "")

    def _read(self, path: str) -> bytes | None:
        """A whole file; None when the disk can't read it."""
        files = self._place.files
        handle = files.open(path, write=False)
        try:
            return files.read(handle, 0, files.size(handle))
        except OSError as error:
            self._unreadable(path, error)
            return None
        finally:
            files.close(handle)

    def _segment(self, base: int, following: int | None, ends: list[int] | None) -> int | None:
        """Examine a segment; returns where it ends.

        Arguments:
            base, following: where it begins, and where the next one does
            ends: where its batches end by its index
        """
        path = self._place.segment(base)
        data = self._read(path)
        if data is None:
            return ends[-1] if ends is not None else following
        if data[:HEADER_BYTES] != segment_header(base):
            self._add(
                HEADER,
                path,
                None,
                "has a damaged header",
                "The header is written anew, from the name of the file.",
            )
        records = data[HEADER_BYTES:]
        if ends is not None:
            end = ends[-1]
        elif following is not None:
            end = following
        else:
            return self._open_end(base, records)
        damaged = self._closed_end(base, end, records, ends is not None)
        if ends is not None and not damaged:
            self._compare(base, records, ends)
        return end

    def _closed_end(self, base: int, end: int, records: bytes, indexed: bool) -> bool:
        """Find damage in a segment whose end is known; says whether there is any."""
        length = end - base
        is_short = len(records) < length
        records = records[:length]
        at = 0
        found = False
        while True:
            scan = Scan(records, at, len(records))
            while scan.next():
                pass
            if scan.stop == END and scan.offset == length:
                return found
            found = True
            at = _resume(records, scan.offset)
            stretch_end = at if at >= 0 else length
            self._records(
                base,
                (base + scan.offset, base + stretch_end),
                stops_start=not indexed or (is_short and at < 0),
            )
            if at < 0:
                return found

    def _open_end(self, base: int, records: bytes) -> int:
        """Find damage in a segment that was being written; returns where it ends."""
        at = 0
        while True:
            scan = Scan(records, at, len(records))
            while scan.next():
                pass
            bad = scan.offset
            rest = records[bad:]
            filled = len(rest.rstrip(b"\0"))
            if not filled:
                return base + bad
            span = base + bad, base + bad + filled
            path = self._place.segment(base)
            if is_torn_tail(rest, HEADER_BYTES + bad):
                self._add(
                    TORN,
                    path,
                    span,
                    f"ends in a batch that was not written to its end, at position {span[0]}",
                    "",
                    filled,
                    stops_start=False,
                )
                return base + bad
            at = _resume(records, bad)
            if at < 0:
                self._add(
                    ENDING,
                    path,
                    span,
                    f"is damaged at its end, from position {span[0]} on",
                    f"It is cut off at position {span[0]}.",
                    filled,
                )
                return base + bad
            self._records(base, (base + bad, base + at), stops_start=True)

    def _records(self, base: int, span: tuple[int, int], stops_start: bool) -> None:
        start, end = span
        self._add(
            RECORDS,
            self._place.segment(base),
            span,
            f"is damaged from position {start} to position {end} "
            f"(from byte {HEADER_BYTES + start - base} of the file on)",
            "A hole takes the place of what is damaged.",
            end - start,
            stops_start,
        )

    def _compare(self, base: int, records: bytes, ends: list[int]) -> None:
        """See that an index speaks of the records that are there."""
        borders = {base}
        scan = Scan(records, 0, ends[-1] - base, checked=False)
        while scan.next():
            borders.add(base + scan.payload_end)
        if not borders.issuperset(ends):
            self._bad_index(base, "does not fit its segment")


def _resume(records: bytes, bad: int) -> int:
    """Where `records` can be trusted again behind a bad record; -1 for nowhere."""
    if bad + RECORD_HEAD_BYTES <= len(records):
        length, _, _, _ = RECORD_HEAD.unpack_from(records, bad)
        end = bad + RECORD_HEAD_BYTES + (length & 0x7FFF_FFFF)
        if end == len(records) or parse_record(records, end) is not None:
            return int(end)
    return find_batch(records, bad + RECORD_HEAD_BYTES)


# Repairing.


def _repair(place: Directory, problem: Problem) -> None:
    """Do what a remedy says, durably."""
    if problem.kind == FORMAT:
        # Epochs count starts; the time is more than any count.
        place.write_format(FORMAT_VERSION, int(time.time()))
    elif problem.kind == INDEX:
        place.files.remove(problem.file)
        place.sync()
    elif problem.kind == HEADER:
        stem = os.path.basename(problem.file).removesuffix(SEGMENT_SUFFIX)
        _overwrite(place.files, problem.file, [(0, segment_header(int(stem)))])
    elif problem.kind == ENDING:
        assert problem.start is not None, "an ending is somewhere"
        handle = place.files.open(problem.file, write=True)
        try:
            place.files.truncate(handle, HEADER_BYTES + problem.start - _base(problem))
            place.files.sync(handle)
        finally:
            place.files.close(handle)
    elif problem.kind == RECORDS:
        _remove_index(place, _base(problem))
        _dig(place.files, problem, problem.file)
    elif problem.kind == MISSING:
        _remove_index(place, _base(problem))
        unfinished = problem.file + NEW_SUFFIX
        place.files.close(place.files.open(unfinished, write=True, create=True))
        _overwrite(place.files, unfinished, [(0, segment_header(_base(problem)))])
        _dig(place.files, problem, unfinished)
        place.files.rename(unfinished, problem.file)
        place.sync()


def _base(problem: Problem) -> int:
    """The first position of the segment that a problem is about."""
    return int(os.path.basename(problem.file).removesuffix(SEGMENT_SUFFIX))


def _remove_index(place: Directory, base: int) -> None:
    if base in place.bases(INDEX_SUFFIX):
        place.files.remove(place.index(base))
        place.sync()


def _overwrite(files: Files, path: str, pieces: Sequence[tuple[int, bytes]]) -> None:
    """Write `(offset, data)` into a file and sync it."""
    handle = files.open(path, write=True)
    try:
        for offset, data in pieces:
            files.write(handle, offset, data)
        files.sync(handle)
    finally:
        files.close(handle)


def _dig(files: Files, problem: Problem, path: str) -> None:
    """Cover the span of a problem with holes; what is in it stays, but for their heads."""
    assert problem.start is not None, "a hole begins somewhere"
    assert problem.end is not None, "a hole ends somewhere"
    base = _base(problem)
    offset = HEADER_BYTES + problem.start - base
    end = HEADER_BYTES + problem.end - base
    handle = files.open(path, write=True)
    try:
        if files.size(handle) < end:
            files.truncate(handle, end)
        while offset < end:
            size = end - offset
            if size > _HOLE_BYTES_MAX:
                # What is left must have room for a head.
                size = min(_HOLE_BYTES_MAX, size - RECORD_HEAD_BYTES)
            payload = files.read(handle, offset + RECORD_HEAD_BYTES, size - RECORD_HEAD_BYTES)
            crc = crc32(payload, crc32(bytes((KIND_HOLE, 1))))
            files.write(handle, offset, RECORD_HEAD.pack(len(payload), crc, KIND_HOLE, 1))
            offset += size
        files.sync(handle)
    finally:
        files.close(handle)
