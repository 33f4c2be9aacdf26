"""A disk in memory that keeps no more than it must.

It remembers for each file what was synced and what was only written, and for each directory which
names were synced and which were only given. `crash` makes the disk that a later process would find:
of every file any number of the unsynced writes from the last backwards is gone, and the one before
them is torn at any byte; of the unsynced names any are forgotten, each by itself. With `scatter` a
torn write is not a beginning of it but any choice of its sectors, as a disk does that orders its
writes by itself.

It may also refuse (`faults`), run full (`capacity_bytes`) and stop the process in the middle of an
operation (`cut_at`); operations are counted so that a test can do that at each of them in turn.
"""

import errno
import os
from collections.abc import Callable
from contextlib import suppress

from broker.store.files import Files
from broker.store.segment import SECTOR_BYTES

#: chooses a number below the one it is given
Choose = Callable[[int], int]


def keep_nothing(count: int) -> int:
    """A crash that loses all that was not synced."""
    return 0


def keep_everything(count: int) -> int:
    """A crash of the process alone: all that was written is there."""
    return count - 1


class PowerCut(BaseException):
    """The process is gone, in the middle of an operation."""


class Write:
    """Bytes written and not synced."""

    def __init__(self, offset: int, data: bytes) -> None:
        self.offset = offset
        self.data = data

    def apply(self, content: bytearray) -> None:
        end = self.offset + len(self.data)
        if len(content) < end:
            content.extend(bytes(end - len(content)))
        content[self.offset : end] = self.data

    def tear(self, content: bytearray, choose: Choose) -> None:
        """Apply a beginning of it."""
        kept = choose(len(self.data) + 1)
        if kept:
            Write(self.offset, self.data[:kept]).apply(content)

    def scatter(self, content: bytearray, choose: Choose) -> None:
        """Apply any of its sectors."""
        start = self.offset
        end = self.offset + len(self.data)
        while start < end:
            border = min(start - start % SECTOR_BYTES + SECTOR_BYTES, end)
            if choose(2):
                data = self.data[start - self.offset : border - self.offset]
                Write(start, data).apply(content)
            start = border


class Resize:
    """A size given to a file and not synced."""

    def __init__(self, size: int) -> None:
        self.size = size

    def apply(self, content: bytearray) -> None:
        if self.size < len(content):
            del content[self.size :]
        else:
            content.extend(bytes(self.size - len(content)))


class Node:
    """A file, whatever its name."""

    def __init__(self, content: bytes = b"") -> None:
        #: what a reader sees
        self.content = bytearray(content)
        #: what is safe, and what was done since
        self.synced = content
        self.changes: list[Write | Resize] = []
        self.locked_by: int | None = None

    def change(self, change: Write | Resize) -> None:
        change.apply(self.content)
        self.changes.append(change)

    def crash(self, choose: Choose, scatter: bool) -> "Node":
        content = bytearray(self.synced)
        kept = choose(len(self.changes) + 1)
        for change in self.changes[:kept]:
            change.apply(content)
        if kept < len(self.changes):
            torn = self.changes[kept]
            if isinstance(torn, Write):
                if scatter:
                    torn.scatter(content, choose)
                else:
                    torn.tear(content, choose)
        return Node(bytes(content))


class Name:
    """A name given (`node`) or taken away (`node` is None) and not synced, with what it replaces.

    Arguments:
        source: the name that the file had before, which is gone when this one is there
    """

    def __init__(self, path: str, node: Node | None, source: str | None = None) -> None:
        self.path = path
        self.node = node
        self.source = source

    def apply(self, names: dict[str, Node]) -> None:
        if self.source is not None:
            names.pop(self.source, None)
        if self.node is None:
            names.pop(self.path, None)
        else:
            names[self.path] = self.node


class SimulatedDisk(Files):
    """A disk in memory; see above.

    Arguments:
        capacity_bytes: how much the files may hold together; None for no end
        preallocates: whether it can preallocate
    """

    def __init__(self, capacity_bytes: int | None = None, preallocates: bool = True) -> None:
        self.capacity_bytes = capacity_bytes
        self.preallocates = preallocates
        #: operations so far, by name
        self.operations: list[str] = []
        #: the process dies in the operation of this number, counted from 0
        self.cut_at: int | None = None
        #: operations that fail, by their number, with the number of the error
        self.faults: dict[int, int] = {}
        self.directories = {"/"}
        self._names: dict[str, Node] = {}
        self._synced_names: dict[str, Node] = {}
        self._changes: list[Name] = []
        self._handles: dict[int, tuple[Node, bool]] = {}
        self._last_handle = 0
        self._dead = False

    # What a test does to it.

    def crash(self, choose: Choose, scatter: bool = False) -> "SimulatedDisk":
        """The disk that a later process finds; this one is not changed."""
        names = dict(self._synced_names)
        for change in self._changes:
            if choose(2):
                change.apply(names)
        found = type(self)(self.capacity_bytes, self.preallocates)
        found.directories = set(self.directories)
        survivors: dict[int, Node] = {}
        for path, node in names.items():
            if id(node) not in survivors:
                survivors[id(node)] = node.crash(choose, scatter)
            found._names[path] = survivors[id(node)]
        found._synced_names = dict(found._names)
        return found

    def cut_after(self, operations: int) -> None:
        """The process dies after this many more operations."""
        self.cut_at = len(self.operations) + operations

    def fail_after(self, operations: int, number: int) -> None:
        """The operation after this many more fails with the error of this number."""
        self.faults[len(self.operations) + operations] = number

    @property
    def used_bytes(self) -> int:
        """What the files take."""
        nodes = {id(node): node for node in self._names.values()}
        nodes.update({id(node): node for node, _ in self._handles.values()})
        return sum(len(node.content) for node in nodes.values())

    def contents(self, path: str) -> bytearray:
        """What a file holds, to be looked at or damaged."""
        return self._names[path].content

    def put(self, path: str, data: bytes) -> None:
        """Make a file, durable at once."""
        self._names[path] = self._synced_names[path] = Node(data)

    def settle(self) -> None:
        """Make everything durable as it is, with what was done by hand."""
        for node in self._names.values():
            node.synced = bytes(node.content)
            node.changes = []
        self._synced_names = dict(self._names)
        self._changes = []

    def paths(self, suffix: str = "") -> list[str]:
        """The files whose names end so."""
        return sorted(path for path in self._names if path.endswith(suffix))

    # What an operation meets.

    def _enter(self, name: str) -> bool:
        """Count an operation; True when the process dies in it. Raises what was arranged."""
        if self._dead:
            raise PowerCut
        number = len(self.operations)
        self.operations.append(name)
        fault = self.faults.get(number)
        if fault is not None:
            raise OSError(fault, os.strerror(fault))
        self._dead = number == self.cut_at
        return self._dead

    def _step(self, name: str) -> None:
        """An operation that does nothing when the process dies in it."""
        if self._enter(name):
            raise PowerCut

    def _leave(self) -> None:
        """The end of an operation that may have been done when the process died in it."""
        if self._dead:
            raise PowerCut

    def _room(self, node: Node, size: int) -> int:
        """How large a file may become if it is to have `size` bytes."""
        if self.capacity_bytes is None or size <= len(node.content):
            return size
        return min(size, len(node.content) + max(self.capacity_bytes - self.used_bytes, 0))

    # Operations.

    def make_directory(self, path: str) -> bool:
        self._step("make_directory")
        if path in self.directories:
            return False
        while path not in self.directories:
            self.directories.add(path)
            path = os.path.dirname(path)
        return True

    def names(self, directory: str) -> list[str]:
        self._step("names")
        return [os.path.basename(path) for path in self._names if _directory(path) == directory]

    def open(self, path: str, write: bool, create: bool = False) -> int:
        self._enter("open")
        if path not in self._names:
            if not create:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            if _directory(path) not in self.directories:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            self._change_names(Name(path, Node()))
        self._last_handle += 1
        self._handles[self._last_handle] = self._names[path], write
        self._leave()
        return self._last_handle

    def close(self, handle: int) -> None:
        with suppress(OSError):  # faults are for the operations that may fail
            self._step("close")
        node, _ = self._handles.pop(handle)
        if node.locked_by == handle:
            node.locked_by = None

    def read(self, handle: int, offset: int, length: int) -> bytes:
        self._step("read")
        return bytes(self._handles[handle][0].content[offset : offset + length])

    def write(self, handle: int, offset: int, data: bytes | bytearray) -> None:
        node = self._writable(handle)
        try:
            self._enter("write")
        except OSError:
            node.change(Write(offset, bytes(data[: len(data) // 2])))
            raise
        room = self._room(node, offset + len(data))
        node.change(Write(offset, bytes(data[: room - offset])))
        if room < offset + len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._leave()

    def size(self, handle: int) -> int:
        self._step("size")
        return len(self._handles[handle][0].content)

    def preallocate(self, handle: int, size: int) -> bool:
        self._enter("preallocate")
        if not self.preallocates:
            return False
        node = self._writable(handle)
        if self._room(node, size) < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if size > len(node.content):
            node.change(Resize(size))
        self._leave()
        return True

    def truncate(self, handle: int, size: int) -> None:
        self._enter("truncate")
        self._writable(handle).change(Resize(size))
        self._leave()

    def sync(self, handle: int) -> None:
        self._step("sync")
        node, _ = self._handles[handle]
        node.synced = bytes(node.content)
        node.changes = []

    def sync_directory(self, path: str) -> None:
        self._step("sync_directory")
        for change in self._changes:
            if _directory(change.path) == path:
                change.apply(self._synced_names)
        self._changes = [change for change in self._changes if _directory(change.path) != path]

    def rename(self, source: str, target: str) -> None:
        self._enter("rename")
        self._change_names(Name(target, self._names[source], source))
        self._leave()

    def remove(self, path: str) -> None:
        self._enter("remove")
        if path not in self._names:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        self._change_names(Name(path, None))
        self._leave()

    def lock(self, handle: int) -> bool:
        self._step("lock")
        node, _ = self._handles[handle]
        if node.locked_by not in (None, handle):
            return False
        node.locked_by = handle
        return True

    def _writable(self, handle: int) -> Node:
        node, write = self._handles[handle]
        assert write, "opened for reading alone"
        return node

    def _change_names(self, change: Name) -> None:
        change.apply(self._names)
        self._changes.append(change)


def _directory(path: str) -> str:
    return os.path.dirname(path)
