"""The messages of one queue as recovery finds them: columns, not objects.

A log may hold millions of messages, and while it is replayed nobody knows yet which of them live.
So a message that one queue holds is a row: id, position, size of its body, and whether it is alive.
Messages come in the order of the log, which is that of their ids but for the copies that cleaning
made of old ones. So there are a few sorted *runs*: new messages go to the first, copies to the
first that they fit behind, and there are as many runs as the oldest messages were copied times.
Within a run a message is found by bisection; most settlements follow each other, so the row after
the last one found is tried first.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterator
from itertools import compress, pairwise


class Run:
    """Messages with rising ids and positions."""

    __slots__ = ("alive", "body_sizes", "ids", "positions")

    def __init__(self) -> None:
        self.ids = array("Q")
        self.positions = array("Q")
        self.body_sizes = array("I")
        self.alive = bytearray()

    def living(self) -> "Run":
        """The rows that are alive, and nothing else."""
        if 0 not in self.alive:
            return self
        run = Run()
        run.ids = array("Q", compress(self.ids, self.alive))
        run.positions = array("Q", compress(self.positions, self.alive))
        run.body_sizes = array("I", compress(self.body_sizes, self.alive))
        run.alive = bytearray(b"\x01") * len(run.ids)
        return run


class Columns:
    """The messages that one queue alone holds."""

    __slots__ = ("_next_row", "_next_run", "_runs")

    def __init__(self) -> None:
        self._runs: list[Run] = [Run()]
        #: where the next settlement is expected
        self._next_run = self._runs[0]
        self._next_row = 0

    def add(self, message_id: int, position: int, body_size: int) -> None:
        """A message was found; an earlier row of the same id must have been removed."""
        for run in self._runs:
            if not run.ids or run.ids[-1] < message_id:
                break
        else:
            run = Run()
            self._runs.append(run)
        run.ids.append(message_id)
        run.positions.append(position)
        run.body_sizes.append(body_size)
        run.alive.append(1)

    def extend(self, ids: "array[int]", positions: "array[int]", body_sizes: "array[int]") -> bool:
        """Add new messages; returns False, having added none, when their ids do not rise."""
        run = self._runs[0]
        if (run.ids and run.ids[-1] >= ids[0]) or any(
            before >= after for before, after in pairwise(ids)
        ):
            return False
        run.ids.extend(ids)
        run.positions.extend(positions)
        run.body_sizes.extend(body_sizes)
        run.alive.extend(b"\x01" * len(ids))
        return True

    def remove(self, message_id: int) -> bool:
        """The queue is done with a message; returns whether it was here."""
        run, row = self._next_run, self._next_row
        if row < len(run.ids) and run.ids[row] == message_id and run.alive[row]:
            run.alive[row] = 0
            self._next_row = row + 1
            return True
        for run in reversed(self._runs):
            row = bisect_left(run.ids, message_id)
            if row < len(run.ids) and run.ids[row] == message_id and run.alive[row]:
                run.alive[row] = 0
                self._next_run, self._next_row = run, row + 1
                return True
        return False

    def settle(self) -> None:
        """Forget what is dead; nothing is added or removed after."""
        self._runs = [run for run in (run.living() for run in self._runs) if run.ids]
        self._runs.sort(key=_first_id)
        self._next_run, self._next_row = Run(), 0

    def runs(self) -> list[Run]:
        """What is left after `settle`: runs that are alive as a whole, by their first ids."""
        return self._runs

    def is_in_order(self) -> bool:
        """Whether the runs, one after the other, have rising ids."""
        return all(before.ids[-1] < after.ids[0] for before, after in pairwise(self._runs))

    def rows(self) -> Iterator[tuple[int, int, int]]:
        """Id, position and body size of each message, in the order of the runs."""
        for run in self._runs:
            yield from zip(run.ids, run.positions, run.body_sizes, strict=True)


def _first_id(run: Run) -> int:
    return run.ids[0]
