"""Which messages of the log are alive, and how much of it is dead.

Cleaning needs two things: how many octets of the log still count, and, for its oldest part, which
records these are. Both are kept in columns ordered by position, a few octets per record, since
positions only grow: a record is found by bisection, its death is one octet cleared, and dropping
the head of the log is dropping the head of the columns.

A message that cleaning copied forward lives at its new position from then on. The message itself is
not told; the ledger remembers where it went.

A copy must name the queues that hold the message at that moment. For a message written for one
queue that is either this queue or nobody, so only of those written for several queues the holders
are remembered. *At that moment* is a place in the history: a queue lets go of a message with the
record that says so, which may come a little later than its release (acknowledgements are recorded
in groups), when the message is simply dead already, or a little earlier (a purge is one record, and
its messages are released in steps), when the message is alive and yet nobody's: `purge` notes such
messages until their release.
"""

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple


class Span(NamedTuple):
    """A record of a message in the log."""

    message_id: int
    position: int
    length: int

    @property
    def end(self) -> int:
        """The position behind it."""
        return self.position + self.length


class Ledger:
    """The messages of one log."""

    __slots__ = (
        "_alive",
        "_holders",
        "_ids",
        "_lengths",
        "_moved",
        "_positions",
        "_purged",
        "live_bytes",
    )

    def __init__(self) -> None:
        # One row per message record, ordered by position.
        self._positions = array("Q")
        self._lengths = array("I")
        self._ids = array("Q")
        self._alive = bytearray()
        #: where copied messages are now, by id
        self._moved: dict[int, int] = {}
        #: queues that hold a message, for those that were written for several
        self._holders: dict[int, set[int]] = {}
        #: messages that no queue holds though they are still to be released
        self._purged: set[int] = set()
        #: octets of all records that are alive
        self.live_bytes = 0

    # Messages come.

    def add(self, message_id: int, position: int, length: int, queue_ids: Sequence[int]) -> None:
        """A message was appended."""
        self._positions.append(position)
        self._lengths.append(length)
        self._ids.append(message_id)
        self._alive.append(1)
        self.live_bytes += length
        if len(queue_ids) > 1:
            self._holders[message_id] = set(queue_ids)

    def add_copy(self, span: Span, position: int, length: int) -> None:
        """The record of `span` was copied to `position`, which counts from now on."""
        self._kill(span.position)
        self._positions.append(position)
        self._lengths.append(length)
        self._ids.append(span.message_id)
        self._alive.append(1)
        self.live_bytes += length
        self._moved[span.message_id] = position

    def add_recovered(self, message_id: int, position: int, length: int) -> None:
        """A record was found in the log; dead until `revive` says otherwise."""
        self._positions.append(position)
        self._lengths.append(length)
        self._ids.append(message_id)
        self._alive.append(0)

    def add_recovered_run(
        self, message_ids: "array[int]", positions: "array[int]", lengths: "array[int]"
    ) -> None:
        """Many records were found, one behind the other."""
        self._ids.extend(message_ids)
        self._positions.extend(positions)
        self._lengths.extend(lengths)
        self._alive.extend(bytes(len(message_ids)))

    def revive(
        self, message_id: int, position: int, queue_ids: Sequence[int], written_for: int
    ) -> None:
        """The record found at `position` is what is left of a message.

        Arguments:
            queue_ids: the queues that hold it.
            written_for: how many queues its record names.
        """
        row = self._row(position)
        self._alive[row] = 1
        self.live_bytes += self._lengths[row]
        if written_for > 1:
            self._holders[message_id] = set(queue_ids)

    def revive_run(self, positions: Sequence[int]) -> None:
        """The records found at these rising positions live, each for the one queue it names."""
        found = self._positions
        lengths = self._lengths
        alive = self._alive
        row = 0
        size = 0
        for position in positions:
            if row >= len(found) or found[row] != position:
                row = bisect_left(found, position, row)
            alive[row] = 1
            size += lengths[row]
            row += 1
        self.live_bytes += size

    # Messages go.

    def settle(self, queue_id: int, message_ids: Sequence[int]) -> None:
        """The history says from here on that a queue let go of messages."""
        if self._holders:
            for message_id in message_ids:
                holders = self._holders.get(message_id)
                if holders is not None:
                    holders.discard(queue_id)

    def purge(self, message_ids: Sequence[int]) -> None:
        """Like `settle`, which comes too, for messages that will be released only later."""
        holders = self._holders
        self._purged.update([each for each in message_ids if each not in holders])

    def release(self, message_id: int, position: int) -> None:
        """No queue holds the message any more; `position` is where it was first written."""
        self._kill(self._moved.pop(message_id, position))
        self._holders.pop(message_id, None)
        if self._purged:
            self._purged.discard(message_id)

    def _kill(self, position: int) -> None:
        row = self._row(position)
        if row >= 0 and self._alive[row]:
            self._alive[row] = 0
            self.live_bytes -= self._lengths[row]

    def _row(self, position: int) -> int:
        row = bisect_left(self._positions, position)
        if row < len(self._positions) and self._positions[row] == position:
            return row
        return -1

    # Where they are.

    def find(self, message_id: int, position: int) -> Span | None:
        """The record of a message written first at `position`; None when it is dead."""
        position = self._moved.get(message_id, position)
        row = self._row(position)
        if row < 0 or not self._alive[row]:
            return None
        return Span(message_id, position, self._lengths[row])

    def is_alive(self, span: Span) -> bool:
        """Whether this very record still counts."""
        row = self._row(span.position)
        return row >= 0 and self._alive[row] == 1

    def holders(self, message_id: int, written: Sequence[int]) -> Sequence[int]:
        """The queues that hold a living message now.

        Arguments:
            written: the queues that its record names.
        """
        holders = self._holders.get(message_id)
        if holders is not None:
            return sorted(holders)
        return () if message_id in self._purged else written

    # The head of the log.

    def alive_before(self, end: int, position: int, count: int) -> list[Span]:
        """Up to `count` living records from `position` on that lie before `end`."""
        spans: list[Span] = []
        alive = self._alive
        stop = bisect_left(self._positions, end)
        row = alive.find(1, bisect_left(self._positions, position), stop)
        while row >= 0 and len(spans) < count:
            spans.append(Span(self._ids[row], self._positions[row], self._lengths[row]))
            row = alive.find(1, row + 1, stop)
        return spans

    def drop_before(self, end: int) -> None:
        """The log begins at `end` now."""
        rows = bisect_left(self._positions, end)
        assert self._alive.find(1, 0, rows) < 0, "what is dropped was copied or dead"
        del self._positions[:rows]
        del self._lengths[:rows]
        del self._ids[:rows]
        del self._alive[:rows]
