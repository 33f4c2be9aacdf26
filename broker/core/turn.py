"""What is left to do before a turn of the loop ends.

Whoever changes something says so here instead of acting at once: a queue that may have something to
deliver, a session with bytes to send, a durable queue with settled messages to record.
`broker.Broker` runs the turn, once for all that happened since the last one. Batching falls out of
that shape; there is no timer in it. `wake` is called when the first thing of a turn is noted.

Work that could be long is bounded per turn by a `Budget`, and what exceeds it stays noted for the
next.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from broker.core.consumer import Sink
    from broker.core.queue import Queue, Remains


class Budget:
    """What one turn may still hand over."""

    __slots__ = ("bytes", "messages")

    def __init__(self, messages: int, bytes_: int) -> None:
        self.messages = messages
        self.bytes = bytes_


class Session(ABC):
    """A connection as a turn sees it."""

    __slots__ = ()

    @abstractmethod
    def lost(self) -> None:
        """The wire is gone; safe to call twice."""

    @abstractmethod
    def resume_input(self) -> None:
        """Go on with input that exceeded the budget of an earlier turn."""

    @abstractmethod
    def store_advanced(self) -> None:
        """The store is durable further than before; asked only of sessions in `Turn.waiting`."""

    @abstractmethod
    def alarms_changed(self) -> None:
        """The node's alarms are others than before."""

    @abstractmethod
    def end_turn(self) -> None:
        """Keep the promises that are due and write what there is to write."""


class Turn:
    """The notes of one node; see the module's theory."""

    __slots__ = (
        "_awake",
        "_queues_first",
        "fetches",
        "inputs",
        "outputs",
        "queues",
        "remains",
        "settled",
        "sinks",
        "waiting",
        "wake",
    )

    def __init__(self, wake: Callable[[], None]) -> None:
        self.wake = wake
        self._awake = False
        #: sinks had the first of the budget in the last turn, and queues were left over
        self._queues_first = False
        #: queues that may have something to deliver
        self.queues: deque[Queue] = deque()
        #: sinks that can accept again, with queues they refused
        self.sinks: deque[Sink] = deque()
        #: durable queues with settled messages not yet recorded
        self.settled: list[Queue] = []
        #: queues that want contents from the store
        self.fetches: list[Queue] = []
        #: what purged and deleted queues left behind
        self.remains: deque[Remains] = deque()
        #: sessions with input left over
        self.inputs: deque[Session] = deque()
        #: sessions with promises or bytes due
        self.outputs: list[Session] = []
        #: sessions with promises that wait for the store
        self.waiting: dict[Session, None] = {}

    def note(self) -> None:
        """Make sure that a turn will come."""
        if not self._awake:
            self._awake = True
            self.wake()

    def begin(self) -> None:
        """A turn runs now: what is noted from here on asks for another."""
        self._awake = False

    def store_advanced(self) -> None:
        """Tell every session that waits for the store."""
        waiting, self.waiting = self.waiting, {}
        for session in waiting:
            session.store_advanced()

    def record_settled(self) -> None:
        """Append what was settled; before the store commits, and after anything it depends on."""
        if self.settled:
            settled, self.settled = self.settled, []
            for queue in settled:
                queue.record_settled()

    def dispatch(self, budget: Budget) -> None:
        """Let queues deliver, each in its turn, until the budget is used up.

        Sinks that can accept again come first, as what they refused is older than what is new; but
        when they leave nothing for the queues, the next turn begins with the queues.
        """
        if self._queues_first:
            self._dispatch_queues(budget)
            self._retry_sinks(budget)
        else:
            self._retry_sinks(budget)
            self._dispatch_queues(budget)
        self._queues_first = not self._queues_first and bool(self.queues)
        if self.queues or self.sinks:
            self.note()

    def _retry_sinks(self, budget: Budget) -> None:
        sinks = self.sinks
        for _ in range(len(sinks)):
            if budget.messages <= 0 or budget.bytes <= 0:
                break
            sink = sinks.popleft()
            if not sink.retry(budget):
                sink.noted = True
                sinks.append(sink)

    def _dispatch_queues(self, budget: Budget) -> None:
        queues = self.queues
        for _ in range(len(queues)):
            if budget.messages <= 0 or budget.bytes <= 0:
                break
            queue = queues.popleft()
            queue.noted = False
            queue.dispatch(budget)

    def drop_remains(self, count: int) -> None:
        """Release up to `count` messages of purged and deleted queues."""
        while self.remains and count > 0:
            count -= self.remains[0].drop(count)
            if not len(self.remains[0].entries):
                self.remains.popleft()
        if self.remains:
            self.note()
