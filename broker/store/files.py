"""The few operations on files that the log uses, so that a test can give it a failing disk.

Paths are absolute texts, handles are numbers. Everything raises OSError. Nothing is durable before
`sync` (contents of a file) or `sync_directory` (which names exist) has returned.
"""

import errno
import os
import sys
from abc import ABC, abstractmethod
from contextlib import suppress
from threading import Lock
from typing import Final

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_UNSUPPORTED: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP})
#: what a lock covers on Windows: a byte that nobody reads, because locked ones can't be read
_LOCKED_BYTE: Final = 1 << 30


def is_full(error: OSError) -> bool:
    """Whether an operation failed for want of space, on the disk or in a quota."""
    return error.errno in _FULL


class Files(ABC):
    """A file system, as far as the log needs one."""

    @abstractmethod
    def make_directory(self, path: str) -> bool:
        """Create a directory, and those above it, unless it exists; says whether it did."""

    @abstractmethod
    def names(self, directory: str) -> list[str]:
        """The names in a directory, in any order."""

    @abstractmethod
    def open(self, path: str, write: bool, create: bool = False) -> int:
        """Open a file and return its handle.

        Arguments:
            write: for reading and writing, else for reading alone
            create: make an empty file unless there is one
        """

    @abstractmethod
    def close(self, handle: int) -> None:
        """Close a file; its lock goes with it. Never fails: what matters was synced before."""

    @abstractmethod
    def read(self, handle: int, offset: int, length: int) -> bytes:
        """`length` bytes from `offset` on, fewer only where the file ends."""

    @abstractmethod
    def write(self, handle: int, offset: int, data: bytes | bytearray) -> None:
        """Write all of `data` at `offset`. After an error any part of it may have been written."""

    @abstractmethod
    def size(self, handle: int) -> int:
        """The size of a file in bytes."""

    @abstractmethod
    def preallocate(self, handle: int, size: int) -> bool:
        """Give a file this size, with zeros behind what it holds, and its place on the disk.

        False when the system can't; the file is as it was. Raises OSError when there is no room.
        """

    @abstractmethod
    def truncate(self, handle: int, size: int) -> None:
        """Cut a file to `size` bytes."""

    @abstractmethod
    def sync(self, handle: int) -> None:
        """Make the contents and the size of a file durable."""

    @abstractmethod
    def sync_directory(self, path: str) -> None:
        """Make the names of a directory durable."""

    @abstractmethod
    def rename(self, source: str, target: str) -> None:
        """Give a file another name in its directory, in place of a file that has it already."""

    @abstractmethod
    def remove(self, path: str) -> None:
        """Remove a file."""

    @abstractmethod
    def lock(self, handle: int) -> bool:
        """Lock a file until it is closed; False when somebody else has locked it."""


class SystemFiles(Files):
    """The file system of this machine."""

    def __init__(self) -> None:
        #: for systems where reading at an offset means seeking first
        self._seeking = Lock()

    def make_directory(self, path: str) -> bool:
        if os.path.isdir(path):
            return False
        os.makedirs(path, mode=0o700)
        return True

    def names(self, directory: str) -> list[str]:
        return os.listdir(directory)

    def open(self, path: str, write: bool, create: bool = False) -> int:
        flags = os.O_RDWR if write else os.O_RDONLY
        if create:
            flags |= os.O_CREAT
        if sys.platform == "win32":
            flags |= os.O_BINARY
        return os.open(path, flags, 0o600)

    def close(self, handle: int) -> None:
        with suppress(OSError):
            os.close(handle)

    def read(self, handle: int, offset: int, length: int) -> bytes:
        data = self._read_some(handle, offset, length)
        if len(data) == length or not data:
            return data
        pieces = [data]
        got = len(data)
        while got < length and (data := self._read_some(handle, offset + got, length - got)):
            pieces.append(data)
            got += len(data)
        return b"".join(pieces)

    def write(self, handle: int, offset: int, data: bytes | bytearray) -> None:
        written = self._write_some(handle, offset, data)
        if written < len(data):
            rest = memoryview(data)
            while written < len(data):
                written += self._write_some(handle, offset + written, rest[written:])

    if sys.platform == "win32":

        def _read_some(self, handle: int, offset: int, length: int) -> bytes:
            with self._seeking:
                os.lseek(handle, offset, os.SEEK_SET)
                return os.read(handle, length)

        def _write_some(
            self, handle: int, offset: int, data: bytes | bytearray | memoryview
        ) -> int:
            with self._seeking:
                os.lseek(handle, offset, os.SEEK_SET)
                return os.write(handle, data)

        def sync(self, handle: int) -> None:
            os.fsync(handle)

        def sync_directory(self, path: str) -> None:
            """Windows keeps names by itself and offers nothing to wait for."""

        def lock(self, handle: int) -> bool:
            import msvcrt

            with self._seeking:
                os.lseek(handle, _LOCKED_BYTE, os.SEEK_SET)
                try:
                    msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
                except OSError:
                    return False
            return True

    else:

        def _read_some(self, handle: int, offset: int, length: int) -> bytes:
            return os.pread(handle, length, offset)

        def _write_some(
            self, handle: int, offset: int, data: bytes | bytearray | memoryview
        ) -> int:
            return os.pwrite(handle, data, offset)

        def sync(self, handle: int) -> None:
            if sys.platform == "darwin":
                import fcntl

                # fsync only hands the data to the drive there.
                try:
                    fcntl.fcntl(handle, fcntl.F_FULLFSYNC)
                except OSError as error:
                    if error.errno not in _UNSUPPORTED:
                        raise
                    os.fsync(handle)
            elif hasattr(os, "fdatasync"):
                os.fdatasync(handle)
            else:
                os.fsync(handle)

        def sync_directory(self, path: str) -> None:
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

        def lock(self, handle: int) -> bool:
            import fcntl

            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    def size(self, handle: int) -> int:
        return os.fstat(handle).st_size

    def preallocate(self, handle: int, size: int) -> bool:
        if not hasattr(os, "posix_fallocate"):
            return False
        try:
            os.posix_fallocate(handle, 0, size)
        except OSError as error:
            if error.errno in _UNSUPPORTED:
                return False
            raise
        return True

    def truncate(self, handle: int, size: int) -> None:
        os.ftruncate(handle, size)

    def rename(self, source: str, target: str) -> None:
        os.replace(source, target)

    def remove(self, path: str) -> None:
        os.remove(path)
