"""Room on the disk that is kept for what makes room.

A broker whose disk is full must still be able to settle messages, delete queues and copy what lives
out of its oldest segment, for only that gives space back; each of these is written to the log
first. So two files of the size of a segment are kept, preallocated and full of zeros. On a full
disk one of them becomes the next segment by being renamed, which needs no room, or is removed so
that a segment can grow into its place.
"""

from broker.store.directory import NEW_SUFFIX, RESERVE_NAMES, Directory
from broker.store.files import is_full

_ZEROS_BYTES = 1024 * 1024


class Reserve:
    """The reserve of a directory.

    Arguments:
        directory: where it lies
        file_bytes: the size of each of its files
    """

    __slots__ = ("_directory", "_file_bytes", "_kept")

    def __init__(self, directory: Directory, file_bytes: int) -> None:
        self._directory = directory
        self._file_bytes = file_bytes
        #: paths of the files that are there
        self._kept: list[str] = []

    @property
    def is_whole(self) -> bool:
        """Whether all of it is there."""
        return len(self._kept) == len(RESERVE_NAMES)

    def inspect(self) -> None:
        """Find what is there. Files of another size, from another setting, don't count."""
        files = self._directory.files
        self._kept = []
        names = files.names(self._directory.path)
        for name in RESERVE_NAMES:
            if name in names:
                path = self._directory.file(name)
                handle = files.open(path, write=False)
                try:
                    if files.size(handle) == self._file_bytes:
                        self._kept.append(path)
                finally:
                    files.close(handle)

    def refill(self) -> bool:
        """Make what is missing, if there is room; says whether the reserve is whole.

        Raises OSError for anything but a full disk.
        """
        made = False
        for name in RESERVE_NAMES:
            path = self._directory.file(name)
            if path not in self._kept:
                try:
                    self._make(path)
                except OSError as error:
                    if not is_full(error):
                        raise
                    break
                self._kept.append(path)
                made = True
        if made:
            self._directory.sync()
        return self.is_whole

    def _make(self, path: str) -> None:
        files = self._directory.files
        unfinished = path + NEW_SUFFIX
        try:
            handle = files.open(unfinished, write=True, create=True)
            try:
                files.truncate(handle, 0)
                if not files.preallocate(handle, self._file_bytes):
                    for offset in range(0, self._file_bytes, _ZEROS_BYTES):
                        length = min(_ZEROS_BYTES, self._file_bytes - offset)
                        files.write(handle, offset, bytes(length))
                files.sync(handle)
            finally:
                files.close(handle)
            files.rename(unfinished, path)
        except OSError:
            # What there is of it takes room on a disk that has none.
            if unfinished in map(self._directory.file, files.names(self._directory.path)):
                files.remove(unfinished)
            raise

    def take(self) -> str | None:
        """A file to be renamed into use, which no longer belongs to the reserve; None if empty."""
        return self._kept.pop() if self._kept else None

    def free(self) -> bool:
        """Remove a file, for its room; False when none is left."""
        if not self._kept:
            return False
        self._directory.files.remove(self._kept.pop())
        self._directory.sync()
        return True
