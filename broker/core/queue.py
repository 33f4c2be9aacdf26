"""A queue: waiting messages, consumers, and the rules by which the two meet.

Everything here is a state change caused by a call; a queue owns no timer, touches no socket or file
and knows nothing of JSON. The invariant that every method restores: *no message waits while a
consumer that could take it exists*, unless the queue is noted for dispatch in this turn.

A message pushed to a queue with nothing waiting goes straight to the next consumer, whatever the
turn's budget, because its input was already paid for; draining what waited is what the budget
bounds.
"""

from typing import TYPE_CHECKING

from broker.core.binding import Destination
from broker.core.consumer import Consumer, Rotation
from broker.core.message import Message
from broker.core.ready import Ready
from broker.core.records import Purged, Settled
from broker.core.store import Store
from broker.core.turn import Budget, Turn

if TYPE_CHECKING:
    from broker.core.queue_arguments import QueueArguments


class Entry:
    """A message in one queue."""

    __slots__ = ("consumer", "delivery_count", "message", "queue", "redelivered", "sequence")

    def __init__(self, queue: "Queue", message: Message, sequence: int) -> None:
        self.queue = queue
        self.message = message
        #: its place in the queue, kept for life
        self.sequence = sequence
        self.redelivered = False
        #: how often it was returned
        self.delivery_count = 0
        #: who has it; None while it waits and after basic.get
        self.consumer: Consumer | None = None


class Remains:
    """Messages that a purge or deletion detached, released in bounded steps."""

    __slots__ = ("entries", "queue")

    def __init__(self, queue: "Queue", entries: Ready) -> None:
        self.queue = queue
        self.entries = entries

    def drop(self, count: int) -> int:
        """Release up to `count` messages and return how many it were."""
        dropped = min(count, len(self.entries))
        for _ in range(dropped):
            self.queue.let_go(self.entries.pop().message)
        return dropped


class Queue(Destination):
    """A queue of one vhost.

    Arguments:
        owner: the connection an exclusive queue belongs to; None for other queues.
        declared_position: log position of its declaration, which equal redeclarations wait for.
    """

    __slots__ = (
        "_rotation",
        "_settled_ids",
        "_store",
        "_turn",
        "arguments",
        "auto_delete",
        "consumers",
        "declared_position",
        "deleted",
        "exclusive_consumer",
        "noted",
        "owner",
        "queue_id",
        "ready",
        "ready_bytes",
        "ready_count",
        "unacked_count",
    )

    is_queue = True

    def __init__(
        self,
        name: str,
        queue_id: int,
        arguments: "QueueArguments",
        store: Store,
        turn: Turn,
        *,
        durable: bool = False,
        auto_delete: bool = False,
        owner: object | None = None,
    ) -> None:
        super().__init__(name, durable)
        self.queue_id = queue_id
        self.arguments = arguments
        self._store = store
        self._turn = turn
        self.auto_delete = auto_delete
        self.owner = owner
        self.declared_position = 0
        self.deleted = False
        self.consumers: dict[Consumer, None] = {}
        #: whether its one consumer asked to be the only one
        self.exclusive_consumer = False
        self._rotation = Rotation()
        self.ready = Ready()
        #: messages that wait, and the octets of their bodies
        self.ready_count = 0
        self.ready_bytes = 0
        #: messages delivered and not yet settled
        self.unacked_count = 0
        #: in the turn's list of queues
        self.noted = False
        self._settled_ids: list[int] = []

    # Messages come in.

    def push(self, message: Message) -> None:
        """Take a new message: to the next consumer if nothing waits, else to the end."""
        if not self.ready_count:
            consumer = self._rotation.next()
            if consumer is not None:
                if consumer.no_ack:
                    consumer.sink.deliver(consumer, message, None)
                    if self.durable and message.persistent:
                        self.settle(message)
                else:
                    entry = Entry(self, message, message.message_id)
                    entry.consumer = consumer
                    consumer.credit -= 1
                    self.unacked_count += 1
                    consumer.sink.deliver(consumer, message, entry)
                return
        self.ready.push(Entry(self, message, message.message_id))
        self.ready_count += 1
        self.ready_bytes += message.body_size

    def requeue(self, entry: Entry) -> None:
        """Return a delivered message to its original place, marked as redelivered."""
        self._returned(entry)
        entry.redelivered = True
        entry.delivery_count += 1
        if self.deleted:
            self.settle(entry.message)
            return
        self.ready.put_back(entry)
        self.ready_count += 1
        self.ready_bytes += entry.message.body_size
        self.note()

    def restore(self, message: Message, redelivered: bool) -> None:
        """Take a message back after a restart; called in the order of their ids."""
        entry = Entry(self, message, message.message_id)
        entry.redelivered = redelivered
        self.ready.push(entry)
        self.ready_count += 1
        self.ready_bytes += message.body_size

    def delivered_before(self) -> list[int]:
        """The waiting messages that were delivered before, for the last record of a clean stop."""
        return [
            entry.message.message_id
            for entry in self.ready.entries()
            if entry.redelivered and entry.message.persistent
        ]

    # Messages go out.

    def note(self) -> None:
        """Dispatch before this turn ends."""
        if not self.noted:
            self.noted = True
            self._turn.queues.append(self)
            self._turn.note()

    def dispatch(self, budget: Budget) -> None:
        """Deliver waiting messages while there are consumers and budget."""
        while self.ready_count:
            if budget.messages <= 0 or budget.bytes <= 0:
                self.note()
                return
            consumer = self._rotation.next()
            if consumer is None:
                return
            entry = self._take()
            message = entry.message
            budget.messages -= 1
            budget.bytes -= message.body_size
            if consumer.no_ack:
                consumer.sink.deliver(consumer, message, entry)
                self.settle(message)
            else:
                entry.consumer = consumer
                consumer.credit -= 1
                self.unacked_count += 1
                consumer.sink.deliver(consumer, message, entry)

    def get(self, no_ack: bool) -> Entry | None:
        """Take the first waiting message without a consumer (basic.get), if there is one."""
        if not self.ready_count:
            return None
        entry = self._take()
        if no_ack:
            self.settle(entry.message)
        else:
            self.unacked_count += 1
        return entry

    def _take(self) -> Entry:
        entry = self.ready.pop()
        self.ready_count -= 1
        self.ready_bytes -= entry.message.body_size
        return entry

    # Messages are settled.

    def ack(self, entry: Entry) -> None:
        """The receiver is done with `entry`; acks for a deleted queue are accepted silently."""
        self._returned(entry)
        if self.durable:
            self.settle(entry.message)

    def reject(self, entry: Entry) -> None:
        """The receiver refuses `entry` for good."""
        self._returned(entry)
        self.settle(entry.message)

    def ack_recorded(self, entry: Entry) -> None:
        """Like `ack` or `reject` for an entry whose settlement is in the history already."""
        self._returned(entry)
        self.let_go(entry.message)

    def _returned(self, entry: Entry) -> None:
        self.unacked_count -= 1
        consumer = entry.consumer
        if consumer is not None:
            entry.consumer = None
            consumer.credit += 1
            if consumer.waiting:
                if consumer.sink.accepting:
                    self.resume(consumer)
                else:
                    consumer.sink.refused[consumer] = None

    def settle(self, message: Message) -> None:
        """This queue holds `message` no more; the last holder lets the store forget it."""
        if self.durable and message.persistent:
            if not self.deleted:
                if not self._settled_ids:
                    self._turn.settled.append(self)
                    self._turn.note()
                self._settled_ids.append(message.message_id)
            self.let_go(message)

    def let_go(self, message: Message) -> None:
        """Like `settle` for a message whose settlement is in the history already."""
        if self.durable and message.persistent:
            message.holders -= 1
            if not message.holders:
                self._store.release(message)

    def record_settled(self) -> None:
        """Append what was settled in this turn as one record."""
        message_ids, self._settled_ids = self._settled_ids, []
        if message_ids and not self.deleted:
            self._store.append(Settled(self.queue_id, message_ids))

    # Consumers come and go.

    def add_consumer(self, consumer: Consumer) -> None:
        """Register `consumer`; it is served once `start` says that its client knows of it."""
        self.consumers[consumer] = None
        self.exclusive_consumer = consumer.exclusive

    def start(self, consumer: Consumer) -> None:
        """Serve `consumer` from now on."""
        if consumer in self.consumers:
            self._rotation.add(consumer)
            if self.ready_count:
                self.note()

    def resume(self, consumer: Consumer) -> None:
        """Try a consumer again whose credit came back or whose sink accepts again."""
        if consumer.waiting and consumer in self.consumers:
            self._rotation.add(consumer)
            if self.ready_count:
                self.note()

    def remove_consumer(self, consumer: Consumer) -> None:
        """Forget `consumer`; what it was given and did not settle stays with its sink."""
        if self.consumers.pop(consumer, consumer) is None:
            self._rotation.remove(consumer)
            consumer.waiting = False
            self.exclusive_consumer = False

    # The end.

    def purge(self) -> tuple[int, int]:
        """Drop what waits; unacknowledged messages stay.

        Returns how many messages it were, and the position that makes it so.
        """
        count = self.ready_count
        position = 0
        if count:
            if self.durable:
                # One record for all of them, so that they go together or not at all.
                ids = [
                    entry.message.message_id
                    for entry in self.ready.entries()
                    if entry.message.persistent
                ]
                if ids:
                    position = self._store.append(Purged(self.queue_id, ids))
            self._detach()
        return count, position

    def _detach(self) -> None:
        self._turn.remains.append(Remains(self, self.ready.detach()))
        self._turn.note()
        self.ready_count = 0
        self.ready_bytes = 0

    def delete(self) -> list[Consumer]:
        """Drop everything and return the consumers to be told, in the order they came."""
        self.record_settled()
        self.deleted = True
        if self.ready_count:
            self._detach()
        consumers = list(self.consumers)
        for consumer in consumers:
            self.remove_consumer(consumer)
        return consumers
