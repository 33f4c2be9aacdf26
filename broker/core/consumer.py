"""Consumers, the seam towards a channel, and the rotation that shares a queue among them.

A queue never writes to a connection. It hands a message to a consumer's *sink* and the sink does
the rest: a channel encodes basic.deliver, a test records the call. Two things can keep a consumer
from being served, and each has one owner: its own `credit` (the prefetch limit, given back by acks)
and the sink's `accepting` (the channel-wide limit, and a connection whose client reads too slowly).

The rotation holds, for each priority, the consumers believed able to take a message, next one
first. One that turns out to be unable is taken out, and it comes back *at the end* of its priority
when its credit returns or its sink accepts again: that is RabbitMQ's rule (classic queues,
reference algorithm "deliver loop"), and it makes the search for the next consumer cost nothing when
all are busy.
"""

from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Final

from broker.core.message import Message
from broker.core.table import Table

if TYPE_CHECKING:
    from broker.core.queue import Entry, Queue
    from broker.core.turn import Budget, Turn

#: The credit of a consumer without a prefetch limit: more than there will ever be messages.
UNLIMITED: Final = 1 << 60


class Sink(ABC):
    """Where deliveries go: a channel, or whatever stands in for one.

    While a sink does not accept, the consumers it had to refuse wait in order, and when it can
    accept again they are served in that order, oldest refusal first, before anything new: a channel
    consuming from several queues under one shared limit starves none of them.
    """

    __slots__ = ("accepting", "noted", "refused", "saturated")

    def __init__(self) -> None:
        #: whether its consumers may be given messages at this moment
        self.accepting = True
        #: whether it holds so much unsent that nothing more may be added, not even a direct reply
        self.saturated = False
        #: consumers refused while it was not accepting, oldest first
        self.refused: dict[Consumer, None] = {}
        #: in the turn's list of sinks
        self.noted = False

    @abstractmethod
    def deliver(self, consumer: "Consumer", message: Message, entry: "Entry | None") -> None:
        """Send `message` to `consumer`.

        Arguments:
            entry: what to give back to the queue to settle or requeue it; None for a message that
                needs no ack and was never delivered before.
        """

    @abstractmethod
    def cancelled(self, consumer: "Consumer") -> None:
        """The queue of `consumer` is gone and the consumer with it."""

    @abstractmethod
    def is_able(self) -> bool:
        """Whether nothing stands against accepting messages now."""

    def reconsider(self, turn: "Turn") -> None:
        """Accept again if that is possible now; called when what closed it has changed."""
        if not self.is_able():
            self.accepting = False
        elif not self.refused:
            self.accepting = True
        elif not self.noted:
            self.noted = True
            turn.sinks.append(self)
            turn.note()

    def retry(self, budget: "Budget") -> bool:
        """Let the queues it refused try again, in order; returns whether the budget sufficed."""
        self.noted = False
        self.accepting = self.is_able()
        while self.accepting and self.refused:
            if budget.messages <= 0 or budget.bytes <= 0:
                self.accepting = False
                return False
            consumer = next(iter(self.refused))
            queue = consumer.queue
            if len(queue.consumers) == 1:
                del self.refused[consumer]
                queue.resume(consumer)
            else:
                # Those of one queue together: priority and turn decide among them.
                for each in [each for each in self.refused if each.queue is queue]:
                    del self.refused[each]
                    queue.resume(each)
            queue.dispatch(budget)
        return True


class Consumer:
    """A subscription of a sink to a queue."""

    __slots__ = (
        "arguments",
        "credit",
        "deliver_heads",
        "exclusive",
        "no_ack",
        "prefetch_count",
        "priority",
        "queue",
        "sink",
        "tag",
        "waiting",
    )

    def __init__(
        self,
        tag: str,
        sink: Sink,
        queue: "Queue",
        *,
        no_ack: bool = False,
        exclusive: bool = False,
        priority: int = 0,
        prefetch_count: int = 0,
        arguments: Table = Table.EMPTY,
    ) -> None:
        self.tag = tag
        self.sink = sink
        self.queue = queue
        self.no_ack = no_ack
        self.exclusive = exclusive
        #: `x-priority`; higher is served first
        self.priority = priority
        #: its own limit of unacknowledged deliveries; 0 for none, and none counts without acks
        self.prefetch_count = prefetch_count
        self.arguments = arguments
        #: deliveries it may still be given before it acknowledges some
        self.credit = prefetch_count if prefetch_count and not no_ack else UNLIMITED
        #: out of the rotation until credit or sink returns
        self.waiting = False
        #: encoded beginnings of its basic.deliver frames, kept by the channel
        self.deliver_heads: dict[int, bytes] = {}


class Rotation:
    """Who is next, by priority and then in turn."""

    __slots__ = ("_groups",)

    def __init__(self) -> None:
        #: (priority, consumers able to take a message as far as known), highest priority first
        self._groups: list[tuple[int, deque[Consumer]]] = []

    def add(self, consumer: Consumer) -> None:
        """Put `consumer` at the end of its priority."""
        consumer.waiting = False
        index = 0
        for priority, members in self._groups:
            if priority == consumer.priority:
                members.append(consumer)
                return
            if priority < consumer.priority:
                break
            index += 1
        self._groups.insert(index, (consumer.priority, deque((consumer,))))

    def remove(self, consumer: Consumer) -> None:
        """Forget `consumer`; nothing happens when it is not in the rotation."""
        for group in self._groups:
            if group[0] == consumer.priority:
                if consumer in group[1]:
                    group[1].remove(consumer)
                if not group[1]:
                    self._groups.remove(group)
                return

    def is_ready(self) -> bool:
        """Whether somebody may be able to take a message."""
        return any(members for _, members in self._groups)

    def next(self) -> Consumer | None:
        """The consumer whose turn it is, or None when nobody can take a message now."""
        for _, members in self._groups:
            while members:
                consumer = members[0]
                if consumer.credit > 0 and consumer.sink.accepting:
                    if len(members) > 1:
                        members.rotate(-1)
                    return consumer
                members.popleft()
                consumer.waiting = True
                if not consumer.sink.accepting:
                    consumer.sink.refused[consumer] = None
        return None
