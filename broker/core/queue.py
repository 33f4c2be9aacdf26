"""A queue: waiting messages, consumers, and the rules by which the two meet.

Everything here is a state change caused by a call; a queue owns no timer, touches no socket or file
and knows nothing of JSON. The invariant that every method restores: *no message waits while a
consumer that could take it exists*, unless the queue is noted for dispatch in this turn.

A message pushed to a queue with nothing waiting goes straight to the next consumer, whatever the
turn's budget, because its input was already paid for; draining what waited is what the budget
bounds.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from broker.core.binding import Destination
from broker.core.columns import Columns
from broker.core.consumer import Consumer, Rotation
from broker.core.message import Message
from broker.core.packed import Row
from broker.core.paging import CONTENT_OVERHEAD_BYTES, Memory, content_bytes
from broker.core.ready import Ready
from broker.core.records import Purged, Settled
from broker.core.store import Store
from broker.core.turn import Budget, Turn

if TYPE_CHECKING:
    from broker.core.queue_arguments import QueueArguments


class Entry:
    """A message in one queue."""

    __slots__ = (
        "consumer",
        "delivery_count",
        "message",
        "queue",
        "redelivered",
        "sequence",
    )

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
        messages = self.entries.drop(count)
        for message in messages:
            self.queue.let_go(message)
        return len(messages)


class Queue(Destination):
    """A queue of one vhost.

    Arguments:
        owner: the connection an exclusive queue belongs to; None for other queues.
        declared_position: log position of its declaration, which equal redeclarations wait for.
    """

    __slots__ = (
        "_fetching",
        "_memory",
        "_rotation",
        "_settled_ids",
        "_store",
        "_turn",
        "arguments",
        "auto_delete",
        "awaiting",
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
        memory: Memory | None = None,
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
        self._memory = memory if memory is not None else Memory()
        self.ready = Ready(self._memory.window if durable else 0)
        #: messages that wait, and the octets of their bodies
        self.ready_count = 0
        self.ready_bytes = 0
        #: messages delivered and not yet settled
        self.unacked_count = 0
        #: in the turn's list of queues
        self.noted = False
        self._settled_ids: list[int] = []
        #: contents are being fetched, or will be before this turn ends
        self._fetching = False
        #: who waits for the content of the first message
        self.awaiting: list[Callable[[], None]] = []

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
        entry = Entry(self, message, message.message_id)
        if self.ready.push(entry):
            self._memory.note(self)
        self.ready_count += 1
        self.ready_bytes += message.body_size
        self._memory.used_bytes += content_bytes(message)

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
        self._memory.used_bytes += content_bytes(entry.message)
        self.note()

    def restore(
        self,
        columns: Columns | None,
        shared: Sequence[Message],
        delivered: frozenset[int] | None,
    ) -> None:
        """Take messages back after a restart, without their contents.

        Arguments:
            columns: those that only this queue holds.
            shared: those that other queues hold too, by rising ids.
            delivered: ids of those that were delivered before; None when any may have been.
        """
        if columns is not None and not shared and columns.is_in_order():
            for run in columns.runs():
                self.ready.restore_run(run, _marks(run.ids, delivered))
                self.ready_count += len(run.ids)
                self.ready_bytes += sum(run.body_sizes)
            return
        rows = [] if columns is None else list(columns.rows())
        others = {message.message_id: message for message in shared}
        rows += [(message.message_id, 0, message.body_size) for message in shared]
        for message_id, position, body_size in sorted(rows):
            redelivered = delivered is None or message_id in delivered
            self.ready_count += 1
            self.ready_bytes += body_size
            other = others.get(message_id)
            if other is not None:
                entry = Entry(self, other, message_id)
                entry.redelivered = redelivered
                self.ready.restore_entry(entry)
            else:
                self.ready.restore(message_id, position, body_size, redelivered)

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
            if self.ready.is_head_absent:
                if self._rotation.is_ready():
                    self.want_contents()
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
        """Take the first waiting message without a consumer (basic.get), if there is one.

        Its content must be there: see `await_content`.
        """
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
        assert entry.message.header_frame, "what is taken out has its content"
        self.ready_count -= 1
        self.ready_bytes -= entry.message.body_size
        self._memory.used_bytes -= content_bytes(entry.message)
        if self.ready.wants_more:
            self.want_contents()
        return entry

    # Contents come and go.

    def let_go_contents(self, durable: int, count: int) -> int:
        """Pack up to `count` messages behind the head; returns how many it were.

        Stops when memory is within its budget, or the log does not have the next one safe yet.
        """
        ready = self.ready
        memory = self._memory
        gone = 0
        while gone < count and ready.has_tail and memory.is_exceeded:
            size = ready.pack(durable)
            if size < 0:
                break
            memory.used_bytes -= size
            gone += 1
        return gone

    def want_contents(self) -> None:
        """Have the next contents fetched, unless some are coming."""
        if not self._fetching:
            self._fetching = True
            self._turn.fetches.append(self)
            self._turn.note()

    def begin_fetch(self) -> list[Row]:
        """The next waiting messages, of which those without content are to be fetched."""
        return self.ready.begin_fetch()

    def end_fetch(self, rows: list[Row]) -> None:
        """The contents of `rows` came, as far as they could be read.

        What cannot be read stays in the log for repair and is never delivered: it leaves the queue.
        """
        if not self.ready.end_fetch(rows):
            return
        self._fetching = False
        for row in rows:
            message = row.message
            if not message.header_frame:
                self.ready_count -= 1
                self.ready_bytes -= message.body_size
                continue
            entry = row.entry
            if entry is None:
                entry = Entry(self, message, message.message_id)
                entry.redelivered = row.redelivered
            if row.was_absent:
                self._memory.used_bytes += content_bytes(message)
            self.ready.append_fetched(entry)
        awaiting, self.awaiting = self.awaiting, []
        for call in awaiting:
            call()
        if self.ready_count:
            self.note()

    def await_content(self, call: Callable[[], None]) -> bool:
        """Whether the first message lacks its content; then `call` is called when it has come."""
        if not self.ready.is_head_absent:
            return False
        self.awaiting.append(call)
        self.want_contents()
        return True

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
                ids = self.ready.persistent_ids()
                if ids:
                    position = self._store.append(Purged(self.queue_id, ids))
            self._detach()
        return count, position

    def _detach(self) -> None:
        waiting_bytes = self.ready_bytes + self.ready_count * CONTENT_OVERHEAD_BYTES
        self._memory.used_bytes -= waiting_bytes - self.ready.absent_bytes
        self._fetching = False
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


def _marks(message_ids: Sequence[int], delivered: frozenset[int] | None) -> bytes:
    """An octet for each id: 1 for a message that may have been delivered before."""
    if delivered is None:
        return b"\x01" * len(message_ids)
    if not delivered:
        return bytes(len(message_ids))
    return bytes([message_id in delivered for message_id in message_ids])
