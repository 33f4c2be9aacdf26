"""The order of the messages that wait in a queue.

A short queue is a deque: new messages arrive at its end with rising sequences and leave at its
head.

Returned messages go back to their original position, which is before most of what waits but not
always before all of it, so they are kept in a heap by sequence beside the deque, and the head of
the queue is the smaller of the two heads. A push and a pop of a queue that sees no returns touch
the deque alone; a return costs the logarithm of the number of returned messages, wherever it
belongs and in whatever order the returns come.

A long queue whose messages the log has is *split* in three, so that the middle need not be in
memory (`broker.core.paging` says when and why):

    head (a window of entries)  |  middle (blocks of packed rows)  |  tail (entries that may go)

Messages arrive at the tail, are packed from there into the middle when memory is short, and come
back block by block to the head. They leave at the head only, so the three parts are in order
without gaps.
"""

from collections import deque
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final

from broker.core.columns import Run
from broker.core.message import Message
from broker.core.packed import Block, Row
from broker.core.paging import CONTENT_OVERHEAD_BYTES, content_bytes

if TYPE_CHECKING:
    from broker.core.queue import Entry

#: Rows of a block where there is no window: after a restart, in a queue that is never split.
_BLOCK_ROWS: Final = 1024


class Ready:
    """Waiting entries, first in, first out by sequence.

    Arguments:
        window: length from which on the queue is split, and that of its blocks; 0 for never.
    """

    __slots__ = (
        "_coming",
        "_head",
        "_middle",
        "_returned",
        "_split",
        "_tail",
        "_window",
        "absent_bytes",
    )

    def __init__(self, window: int = 0) -> None:
        self._window = window
        self._head: deque[Entry] = deque()
        self._returned: list[tuple[int, Entry]] = []
        #: what arrives goes to the tail
        self._split = False
        self._middle: deque[Block] = deque()
        #: rows of the middle whose contents are being fetched
        self._coming: list[Row] = []
        self._tail: deque[Entry] = deque()
        #: what the messages without content would take in memory
        self.absent_bytes = 0

    def __len__(self) -> int:
        packed = sum([len(block) for block in self._middle]) + len(self._coming)
        return len(self._head) + len(self._returned) + packed + len(self._tail)

    def push(self, entry: "Entry") -> bool:
        """Append an entry whose sequence is higher than any seen before.

        Returns whether it begins a tail, from which contents may be let go.
        """
        if self._split:
            self._tail.append(entry)
            return len(self._tail) == 1
        self._head.append(entry)
        if len(self._head) == self._window:
            self._split = True
        return False

    def put_back(self, entry: "Entry") -> None:
        """Return an entry to its place."""
        heappush(self._returned, (entry.sequence, entry))

    def head(self) -> "Entry | None":
        """The entry that `pop` would give; None when nothing waits, or it is not in memory."""
        if not self._head and self._split:
            self._join()
        if self._returned:
            entry = self._returned[0][1]
            if not self._head or entry.sequence < self._head[0].sequence:
                return entry
        return self._head[0] if self._head else None

    def pop(self) -> "Entry":
        """Take the first entry; there must be one in memory."""
        if not self._head and self._split:
            self._join()
        if self._returned:
            sequence = self._returned[0][0]
            if not self._head or sequence < self._head[0].sequence:
                return heappop(self._returned)[1]
        return self._head.popleft()

    def _join(self) -> None:
        """The head is used up: go on with the tail if nothing is between."""
        if not self._middle and not self._coming:
            self._head, self._tail = self._tail, self._head
            self._split = len(self._head) >= self._window

    # Paging.

    @property
    def has_tail(self) -> bool:
        """Whether there are messages behind the head and the middle."""
        return bool(self._tail)

    @property
    def is_head_absent(self) -> bool:
        """Whether messages wait, and the first is not in memory."""
        return not self._head and not self._returned and bool(self._middle or self._coming)

    @property
    def wants_more(self) -> bool:
        """Whether the next block should be fetched by now."""
        return len(self._head) < self._window // 2 and bool(self._middle) and not self._coming

    def restore(self, message_id: int, position: int, body_size: int, redelivered: bool) -> None:
        """Append a packed message after a restart."""
        self._split = True
        self._last_block().append(message_id, position, body_size, redelivered)
        self.absent_bytes += body_size + CONTENT_OVERHEAD_BYTES

    def restore_run(self, run: Run, redelivered: bytes) -> None:
        """Append many packed messages after a restart; `redelivered` has an octet for each."""
        self._split = True
        row = 0
        while row < len(run.ids):
            block = self._last_block()
            end = min(len(run.ids), row + block.room)
            block.extend(
                run.ids[row:end],
                run.positions[row:end],
                run.body_sizes[row:end],
                redelivered[row:end],
            )
            row = end
        self.absent_bytes += sum(run.body_sizes) + len(run.ids) * CONTENT_OVERHEAD_BYTES

    def restore_entry(self, entry: "Entry") -> None:
        """Append a message after a restart that several queues hold."""
        self._split = True
        self._last_block().append_entry(entry)
        self.absent_bytes += content_bytes(entry.message)

    def _last_block(self) -> Block:
        if not self._middle or self._middle[-1].is_full:
            self._middle.append(Block(self._window or _BLOCK_ROWS))
        return self._middle[-1]

    def pack(self, durable: int) -> int:
        """Move the first entry of the tail into the middle.

        Returns what that gives back in bytes: 0 for an entry that keeps its content and only takes
        its place, -1 when nothing was moved because the log does not have the message safe yet.
        """
        entry = self._tail[0]
        message = entry.message
        if message.holders != 1:
            self._tail.popleft()
            if self._middle or self._coming:
                self._last_block().append_entry(entry)
            else:
                self._head.append(entry)
            return 0
        if message.position >= durable:
            return -1
        self._tail.popleft()
        self._last_block().append(
            message.message_id, message.position, message.body_size, entry.redelivered
        )
        size = content_bytes(message)
        self.absent_bytes += size
        return size

    def begin_fetch(self) -> list[Row]:
        """Take the next block out of the middle; its rows are to be given back to `end_fetch`."""
        if not self._coming and self._middle:
            self._coming = self._middle.popleft().rows()
        return self._coming

    def end_fetch(self, rows: list[Row]) -> bool:
        """The contents of `rows` came, and they belong to the head now.

        Returns whether they are still wanted: the queue may have been purged meanwhile.
        """
        if rows is not self._coming:
            return False
        self._coming = []
        for row in rows:
            if row.was_absent:
                self.absent_bytes -= content_bytes(row.message)
        return True

    def append_fetched(self, entry: "Entry") -> None:
        """Append an entry of a fetched block to the head."""
        self._head.append(entry)

    # All of it.

    def persistent_ids(self) -> list[int]:
        """The message ids of everything persistent that waits, in no particular order."""
        ids = [each.message.message_id for each in self.entries() if each.message.persistent]
        for block in self._middle:
            ids += block.persistent_ids()
        ids += [row.message.message_id for row in self._coming if row.message.persistent]
        return ids

    def redelivered_ids(self) -> list[int]:
        """The message ids of everything persistent that waits and was delivered before."""
        ids = [
            each.message.message_id
            for each in self.entries()
            if each.redelivered and each.message.persistent
        ]
        for block in self._middle:
            ids += block.redelivered_ids()
        ids += [
            row.message.message_id
            for row in self._coming
            if row.redelivered and row.message.persistent
        ]
        return ids

    def entries(self) -> "list[Entry]":
        """Everything that waits as an entry, in no particular order."""
        return [*self._head, *[entry for _, entry in self._returned], *self._tail]

    def detach(self) -> "Ready":
        """Take everything at once, whatever its number; what is detached is dropped in steps."""
        detached = Ready(self._window)
        detached._head, self._head = self._head, detached._head
        detached._returned, self._returned = self._returned, detached._returned
        detached._middle, self._middle = self._middle, detached._middle
        detached._coming, self._coming = self._coming, detached._coming
        detached._tail, self._tail = self._tail, detached._tail
        detached._split, self._split = self._split, False
        detached.absent_bytes, self.absent_bytes = self.absent_bytes, 0
        return detached

    def drop(self, count: int) -> list[Message]:
        """Take up to `count` messages out of what was detached, with or without content."""
        messages: list[Message] = []
        while len(messages) < count:
            if self._returned:
                messages.append(self._returned.pop()[1].message)
            elif self._head:
                messages.append(self._head.popleft().message)
            elif self._tail:
                messages.append(self._tail.popleft().message)
            elif self._coming:
                messages.append(self._coming.pop().message)
            elif self._middle:
                self._coming = self._middle.popleft().rows()
            else:
                break
        return messages
