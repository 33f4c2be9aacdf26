"""The order of the messages that wait in a queue.

New messages arrive with rising sequences and form a plain deque. Returned ones go back to their
original position, which is before most of what waits but not always before all of it, so they are
kept in a heap by sequence beside the deque, and the head of the queue is the smaller of the two
heads. Both a push and a pop of a queue that sees no returns touch the deque alone; a return costs
the logarithm of the number of returned messages, wherever it belongs and in whatever order the
returns come.
"""

from collections import deque
from heapq import heappop, heappush
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from broker.core.queue import Entry


class Ready:
    """Waiting entries, first in, first out by sequence."""

    __slots__ = ("_arrived", "_returned")

    def __init__(self) -> None:
        self._arrived: deque[Entry] = deque()
        self._returned: list[tuple[int, Entry]] = []

    def __len__(self) -> int:
        return len(self._arrived) + len(self._returned)

    def push(self, entry: "Entry") -> None:
        """Append an entry whose sequence is higher than any seen before."""
        self._arrived.append(entry)

    def put_back(self, entry: "Entry") -> None:
        """Return an entry to its place."""
        heappush(self._returned, (entry.sequence, entry))

    def head(self) -> "Entry | None":
        """The entry that `pop` would give, or None when nothing waits."""
        if self._returned:
            entry = self._returned[0][1]
            if not self._arrived or entry.sequence < self._arrived[0].sequence:
                return entry
        return self._arrived[0] if self._arrived else None

    def pop(self) -> "Entry":
        """Take the first entry; there must be one."""
        if self._returned:
            sequence = self._returned[0][0]
            if not self._arrived or sequence < self._arrived[0].sequence:
                return heappop(self._returned)[1]
        return self._arrived.popleft()

    def entries(self) -> list["Entry"]:
        """Everything that waits, in no particular order."""
        return [*self._arrived, *[entry for _, entry in self._returned]]

    def detach(self) -> "Ready":
        """Take everything at once, whatever its number; what is detached is dropped in steps."""
        detached = Ready()
        detached._arrived, self._arrived = self._arrived, detached._arrived
        detached._returned, self._returned = self._returned, detached._returned
        return detached
