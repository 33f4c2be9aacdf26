"""Promises: what a channel owes its client once the history is safe up to a position.

A channel has two ordered lists. *Confirms* answer publishes, *replies* answer synchronous methods.
Each leaves in order: a promise waits for its own position and for everything before it in its list;
a reply never waits behind confirms, so that a consume after a persistent publish does not pay for
its fsync. A promise has one owner, the channel that made it, and what happens to the message
meanwhile (delivered, acknowledged, its queue deleted) does not touch it: a confirm can neither be
lost nor come twice.
"""

from collections import deque
from collections.abc import Callable


class Confirms:
    """The publisher confirms of one channel."""

    __slots__ = ("_due", "_sent", "_waiting", "sequence")

    def __init__(self) -> None:
        #: number of the last publish on the channel since confirm.select
        self.sequence = 0
        #: the highest number that may be confirmed, and the highest that was
        self._due = 0
        self._sent = 0
        #: (position, number) of publishes whose position is not durable yet, in order
        self._waiting: deque[tuple[int, int]] = deque()

    def add(self, position: int, durable: int) -> bool:
        """Number a publish; returns whether its confirm is due at once."""
        self.sequence += 1
        if position <= durable and not self._waiting:
            self._due = self.sequence
            return True
        self._waiting.append((position, self.sequence))
        return False

    @property
    def is_waiting(self) -> bool:
        """Whether a publish waits for its position."""
        return bool(self._waiting)

    def take(self, durable: int) -> tuple[int, bool] | None:
        """The ack to send now as (delivery tag, multiple), or None; nothing is given twice."""
        waiting = self._waiting
        while waiting and waiting[0][0] <= durable:
            self._due = waiting.popleft()[1]
        count = self._due - self._sent
        if not count:
            return None
        self._sent = self._due
        return self._due, count > 1


#: What begins with a reply, such as a consumer with its consume-ok.
Begins = Callable[[], None]


class Replies:
    """The replies of one channel that wait for their position."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, bytes, Begins | None]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, position: int, frames: bytes, begins: Begins | None) -> None:
        """Queue a reply that may not be sent yet."""
        self._waiting.append((position, frames, begins))

    def take(self, durable: int) -> tuple[bytes, Begins | None] | None:
        """The next reply that is due, or None."""
        if self._waiting and self._waiting[0][0] <= durable:
            _, frames, begins = self._waiting.popleft()
            return frames, begins
        return None
