"""The directory of a log: which files are in it, its format, and who may write to it.

    format               the version of the format, and the epoch
    lock                 locked by the broker that uses the directory; holds its process id
    <base>.segment       records from position <base> (20 digits) on
    <base>.index         what recovery wants to know of a sealed segment
    reserve-0 reserve-1  room for what makes room, for when the disk is full
    *.new                a file in the making; nothing, after a crash

The format file has two slots, a page apart, each with magic 8 bytes, format version u32, epoch u64
and the crc u32 of these. The valid slot with the higher epoch counts. A new epoch is written over
the other slot, in place: it needs no room on a full disk, and if it is torn the old one still
stands. The layout of a slot is the same in all versions, so that each can read the version of all.
"""

import os
from collections.abc import Callable, Sequence
from struct import Struct
from typing import Final
from zlib import crc32

from broker.store.errors import CorruptError, FormatError, LockedError, UnwritableError
from broker.store.files import Files, is_full

#: version of the format that is written
FORMAT_VERSION: Final = 1
#: what brings a directory from a version to the next one
MIGRATIONS: Final[dict[int, Callable[["Directory"], None]]] = {}

FORMAT_NAME: Final = "format"
LOCK_NAME: Final = "lock"
RESERVE_NAMES: Final = ("reserve-0", "reserve-1")
SEGMENT_SUFFIX: Final = ".segment"
INDEX_SUFFIX: Final = ".index"
#: of files in the making
NEW_SUFFIX: Final = ".new"

_FORMAT_MAGIC: Final = b"LVRTform"
_SLOT: Final = Struct(">8sIQ")
_CRC: Final = Struct(">I")
_SLOT_BYTES: Final = _SLOT.size + _CRC.size
_SLOT_DISTANCE: Final = 4096
_POSITION_DIGITS: Final = 20


class Directory:
    """Names, lock, format and epoch of a directory.

    Arguments:
        path: of the directory, made absolute
        files: the operations on files
    """

    __slots__ = ("_lock", "files", "path")

    def __init__(self, path: str | os.PathLike[str], files: Files) -> None:
        self.path = os.path.abspath(os.fspath(path))
        self.files = files
        self._lock: int | None = None

    def file(self, name: str) -> str:
        """The path of a file in the directory."""
        return os.path.join(self.path, name)

    def segment(self, base: int) -> str:
        """The path of the segment that begins at `base`."""
        return self.file(f"{base:0{_POSITION_DIGITS}}{SEGMENT_SUFFIX}")

    def index(self, base: int) -> str:
        """The path of the index of the segment that begins at `base`."""
        return self.file(f"{base:0{_POSITION_DIGITS}}{INDEX_SUFFIX}")

    def sync(self) -> None:
        """Make the names in the directory durable."""
        self.files.sync_directory(self.path)

    @property
    def hint(self) -> str:
        """How to go on with a damaged log."""
        return (
            f"`leveret log check --data-dir {self.path}` says what is damaged, "
            f"`leveret log repair --data-dir {self.path}` goes on without it."
        )

    def corrupt(self, text: str, file: str, position: int | None) -> CorruptError:
        """An error about a file of the directory; `text` goes on after its path."""
        return CorruptError(f"{file} {text}.", file, position, self.hint)

    # Names.

    def bases(self, suffix: str) -> list[int]:
        """The positions that files of a kind are named after, in order."""
        found = []
        for name in self.files.names(self.path):
            stem = name.removesuffix(suffix)
            if stem != name and len(stem) == _POSITION_DIGITS and stem.isdecimal():
                found.append(int(stem))
        return sorted(found)

    def remove_unfinished(self) -> None:
        """Remove files that a crash left in the making."""
        for name in self.files.names(self.path):
            if name.endswith(NEW_SUFFIX):
                self.files.remove(self.file(name))

    def write_new(self, path: str, pieces: Sequence[bytes | bytearray]) -> None:
        """Put a synced file in the place of `path`; the directory is not synced.

        When it fails, `path` is as it was.

        Arguments:
            pieces: what the file holds, one behind the other
        """
        unfinished = path + NEW_SUFFIX
        handle = self.files.open(unfinished, write=True, create=True)
        try:
            self.files.truncate(handle, 0)
            offset = 0
            for piece in pieces:
                self.files.write(handle, offset, piece)
                offset += len(piece)
            self.files.sync(handle)
        finally:
            self.files.close(handle)
        self.files.rename(unfinished, path)

    # The lock.

    def create(self) -> None:
        """Create the directory unless it exists. Raises UnwritableError."""
        try:
            if self.files.make_directory(self.path):
                self.files.sync_directory(os.path.dirname(self.path))
        except OSError as error:
            raise self.unwritable(error) from error

    def lock(self, process_id: int) -> None:
        """Keep others out until `unlock`. Raises LockedError and UnwritableError.

        Arguments:
            process_id: written into the lock file, for those who are kept out
        """
        assert self._lock is None, "locked once"
        path = self.file(LOCK_NAME)
        try:
            handle = self.files.open(path, write=True, create=True)
        except OSError as error:
            raise self.unwritable(error) from error
        try:
            if not self.files.lock(handle):
                raise LockedError(
                    f"{self.path} is used by another broker{self._holder(handle)}. "
                    "Stop that one, or give this one a directory of its own."
                )
            try:
                self.files.write(handle, 0, b"%-19d\n" % process_id)
            except OSError as error:
                if not is_full(error):
                    raise
        except OSError as error:
            self.files.close(handle)
            raise self.unwritable(error) from error
        except LockedError:
            self.files.close(handle)
            raise
        self._lock = handle

    def unlock(self) -> None:
        """Let others in."""
        if self._lock is not None:
            self.files.close(self._lock)
            self._lock = None

    def _holder(self, handle: int) -> str:
        """Who has the lock, as far as it can be read."""
        try:
            text = self.files.read(handle, 0, 32).strip()
        except OSError:
            return ""
        return f" (process {text.decode()})" if text.isdigit() else ""

    def unwritable(self, error: OSError) -> UnwritableError:
        """The sentence for a directory that refuses to be used."""
        reason = error.strerror or str(error)
        return UnwritableError(f"{self.path} can't be used for the log: {reason}.")

    # Format and epoch.

    def read_format(self) -> tuple[int, int, bool] | None:
        """`(version, epoch, whole)` of the format file; None when there is none.

        `whole` is False when one slot is damaged, which a crash explains. Raises CorruptError when
        both are, and FormatError for a version that is not known.
        """
        path = self.file(FORMAT_NAME)
        if FORMAT_NAME not in self.files.names(self.path):
            return None
        handle = self.files.open(path, write=False)
        try:
            data = self.files.read(handle, 0, _SLOT_DISTANCE + _SLOT_BYTES)
        finally:
            self.files.close(handle)
        slots = [_parse_slot(data, start) for start in (0, _SLOT_DISTANCE)]
        valid = [slot for slot in slots if slot is not None]
        if not valid:
            raise self.corrupt("is damaged", path, None)
        epoch, version = max(valid)
        if version > FORMAT_VERSION:
            raise FormatError(
                f"{self.path} has format {version}, written by a newer Leveret; this one knows "
                f"formats up to {FORMAT_VERSION}. Use the newer one, or another directory."
            )
        return version, epoch, len(valid) == 2

    def write_format(self, version: int, epoch: int) -> None:
        """Make a format file with both slots, in place of what there is, durably."""
        slot = _pack_slot(version, epoch)
        self.write_new(self.file(FORMAT_NAME), [slot.ljust(_SLOT_DISTANCE, b"\0"), slot])
        self.sync()

    def next_epoch(self) -> int:
        """Bring the format up to date and count the epoch up, durably. Returns the new epoch.

        Raises CorruptError, FormatError, OSError.
        """
        found = self.read_format()
        if found is None:
            if self.bases(SEGMENT_SUFFIX):
                raise self.corrupt("is missing", self.file(FORMAT_NAME), None)
            self.write_format(FORMAT_VERSION, 0)
            found = FORMAT_VERSION, 0, True
        version, epoch, whole = found
        while version < FORMAT_VERSION:
            MIGRATIONS[version](self)
            version += 1
            self.write_format(version, epoch)
        # A damaged slot may have held the epoch after this one; it is the slot to write over.
        epoch += 1 if whole else 3
        handle = self.files.open(self.file(FORMAT_NAME), write=True)
        try:
            self.files.write(handle, epoch % 2 * _SLOT_DISTANCE, _pack_slot(version, epoch))
            self.files.sync(handle)
        finally:
            self.files.close(handle)
        return epoch


def _pack_slot(version: int, epoch: int) -> bytes:
    fields = _SLOT.pack(_FORMAT_MAGIC, version, epoch)
    return fields + _CRC.pack(crc32(fields))


def _parse_slot(data: bytes, start: int) -> tuple[int, int] | None:
    """`(epoch, version)` of a slot; None when it is not whole."""
    if len(data) < start + _SLOT_BYTES:
        return None
    magic, version, epoch = _SLOT.unpack_from(data, start)
    (crc,) = _CRC.unpack_from(data, start + _SLOT.size)
    if magic != _FORMAT_MAGIC or crc != crc32(data[start : start + _SLOT.size]):
        return None
    return epoch, version
