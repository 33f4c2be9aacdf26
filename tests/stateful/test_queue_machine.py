"""Two queues and three channels under everything clients do, checked against plain lists.

The model of a queue is a list of what waits, kept in the order of publishing. It doesn't predict
who gets a message; it judges each delivery at the moment it happens: was this message first in
line, could this consumer take it, was nobody before it in priority, and nobody passed over twice.
"""

import os
from collections.abc import Callable, Sequence

from core_support import Core, Delivery, RecordingSink, ReleasingStore, a_message
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)

from broker.core.consumer import Consumer
from broker.core.message import Message
from broker.core.queue import Entry, Queue
from broker.core.records import Committed, Record, Settled
from broker.core.transaction import Settlement, Transaction
from broker.errors import AccessRefused

#: Raise it to search longer.
EFFORT = int(os.environ.get("LEVERET_TEST_EFFORT", "1"))

#: Shared limits of the channels.
LIMITS = (0, 1, 3)

numbers = st.integers(0, 40)
queues = st.integers(0, 1)
sinks = st.integers(0, len(LIMITS) - 1)
settlements = st.sampled_from(Settlement)


class ConsumerModel:
    """What is known of a consumer from outside."""

    def __init__(self, consumer: Consumer, sink: "WatchedSink") -> None:
        self.consumer = consumer
        self.sink = sink
        self.started = False
        #: deliveries it was given and did not settle
        self.unsettled = 0
        #: those of its queue and priority who could take a message ever since its last delivery
        self.waiting: set[ConsumerModel] = set()
        #: turns in which only others of its channel were served though its queue had messages
        self.passed_over = 0

    def has_credit(self) -> bool:
        """Whether its own limit allows it a message."""
        consumer = self.consumer
        limit = consumer.prefetch_count
        return self.started and (consumer.no_ack or not limit or self.unsettled < limit)

    def is_eligible(self) -> bool:
        """Whether it could be given a message now."""
        return self.has_credit() and self.sink.accepting


class QueueModel:
    """What is known of a queue from outside."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.ready: list[Message] = []
        self.unsettled: list[Message] = []
        self.settled: list[Message] = []
        self.published: list[Message] = []
        #: delivered before, with the number of returns
        self.returns: dict[Message, int] = {}
        self.consumers: dict[Consumer, ConsumerModel] = {}

    def take(self, message: Message, redelivered: bool) -> None:
        """`message` leaves the line."""
        assert self.ready[0] is message, "a message was delivered out of order"
        assert redelivered is (message in self.returns), "redelivered says whether it was before"
        self.returns.setdefault(message, 0)
        del self.ready[0]

    def put_back(self, message: Message) -> None:
        """`message` comes back to its place."""
        self.unsettled.remove(message)
        self.returns[message] += 1
        self.ready.append(message)
        self.ready.sort(key=lambda waiting: waiting.message_id)

    def forget_ineligible(self) -> None:
        """Somebody became unable to take a message: who waits in vain from now on may."""
        for model in self.consumers.values():
            model.waiting = {
                other
                for other in model.waiting
                if other.is_eligible() and other.consumer in self.consumers
            }


class WatchedSink(RecordingSink):
    """A sink whose every delivery is judged first."""

    def __init__(self, core: Core[ReleasingStore], machine: "QueueMachine", limit: int) -> None:
        super().__init__(core.turn, limit)
        self.machine = machine

    def deliver(self, consumer: Consumer, message: Message, entry: Entry | None) -> None:
        self.machine.judge(consumer, message, entry)
        super().deliver(consumer, message, entry)
        self.machine.forget_ineligible()


class QueueMachine(RuleBasedStateMachine):
    """See the module's theory."""

    def __init__(self) -> None:
        super().__init__()
        self.core = Core(ReleasingStore())
        self.sinks = [WatchedSink(self.core, self, limit) for limit in LIMITS]
        self.models: dict[Queue, QueueModel] = {}
        #: durable queues by the persistent messages they hold
        self.holders: dict[Message, set[Queue]] = {}
        #: messages that some durable queue had to keep
        self.stored: set[Message] = set()
        #: what basic.get gave and was not settled
        self.got: list[Entry] = []
        #: the queues of the vhost; a deleted one is followed by another
        self.queues = [self.declare(durable=False), self.declare(durable=True)]

    def declare(self, durable: bool) -> Queue:
        name = "durable" if durable else "transient"
        queue = self.core.vhost.declare_queue(name, durable=durable)
        self.models[queue] = QueueModel(queue)
        return queue

    # The model.

    def judge(self, consumer: Consumer, message: Message, entry: Entry | None) -> None:
        """Check a delivery before it is made, and follow it."""
        queue = self.models[consumer.queue]
        model = queue.consumers[consumer]
        queue.take(message, entry is not None and entry.redelivered)
        assert model.sink.is_able(), "its channel could not take it"
        assert model.is_eligible(), "its consumer could not take it"
        for other in queue.consumers.values():
            if other.consumer.priority > consumer.priority:
                assert not other.is_eligible(), "one of higher priority could have had it"
        assert not model.waiting, "somebody was passed over"
        for other in queue.consumers.values():
            other.waiting.discard(model)
        model.waiting = {
            other
            for other in queue.consumers.values()
            if other is not model
            and other.consumer.priority == consumer.priority
            and other.is_eligible()
        }
        model.passed_over = 0
        if consumer.no_ack:
            self.settled(queue, message)
        else:
            assert entry is not None
            assert entry.delivery_count == queue.returns[message]
            model.unsettled += 1
            queue.unsettled.append(message)

    def forget_ineligible(self) -> None:
        for queue in self.models.values():
            queue.forget_ineligible()

    def settled(self, queue: QueueModel, message: Message) -> None:
        """`queue` has done with `message`."""
        queue.settled.append(message)
        if queue.queue.durable and message.persistent:
            self.holders[message].remove(queue.queue)

    def follow_settlement(
        self, entry: Entry, consumer: Consumer | None, settlement: Settlement
    ) -> None:
        """Do to the model what is done to the queue; `consumer` is the one that has `entry`."""
        queue = self.models[entry.queue]
        if consumer is not None and consumer in queue.consumers:
            queue.consumers[consumer].unsettled -= 1
        if settlement is Settlement.REQUEUE and not queue.queue.deleted:
            queue.put_back(entry.message)
        else:
            queue.unsettled.remove(entry.message)
            self.settled(queue, entry.message)

    def settle(self, sink: WatchedSink, delivery: Delivery, settlement: Settlement) -> None:
        assert delivery.entry is not None
        self.follow_settlement(delivery.entry, delivery.entry.consumer, settlement)
        sink.settle(delivery, settlement)

    def requeue_all(self, sink: WatchedSink) -> None:
        for delivery in sink.unsettled:
            assert delivery.entry is not None
            self.follow_settlement(delivery.entry, delivery.entry.consumer, Settlement.REQUEUE)
        sink.requeue_all()

    def consumers(self) -> list[ConsumerModel]:
        return [model for queue in self.models.values() for model in queue.consumers.values()]

    def new_message(self, size: int, persistent: bool, targets: list[Queue]) -> Message:
        message = a_message(bytes(size), persistent=persistent)
        for queue in targets:
            self.models[queue].ready.append(message)
            self.models[queue].published.append(message)
        self.holders[message] = {queue for queue in targets if persistent and queue.durable}
        if self.holders[message]:
            self.stored.add(message)
        return message

    # What clients do.

    @rule(both=st.booleans(), which=queues, size=st.integers(0, 3), persistent=st.booleans())
    def publish(self, both: bool, which: int, size: int, persistent: bool) -> None:
        targets = self.queues if both else [self.queues[which]]
        message = self.new_message(size, persistent, targets)
        self.core.vhost.publish(message, tuple(targets))

    @rule(which=queues, count=st.integers(2, 8))
    def publish_many(self, which: int, count: int) -> None:
        for _ in range(count):
            message = self.new_message(1, True, [self.queues[which]])
            self.core.vhost.publish(message, (self.queues[which],))

    @rule(
        which=queues,
        sink=sinks,
        no_ack=st.booleans(),
        exclusive=st.sampled_from([False, False, False, True]),
        priority=st.sampled_from([0, 0, 1, -1]),
        prefetch_count=st.integers(0, 3),
        start=st.sampled_from([True, True, False]),
    )
    def consume(
        self,
        which: int,
        sink: int,
        no_ack: bool,
        exclusive: bool,
        priority: int,
        prefetch_count: int,
        start: bool,
    ) -> None:
        queue = self.queues[which]
        present = self.models[queue].consumers
        refused = any(other.exclusive for other in present) or (exclusive and present)
        try:
            consumer = self.core.consume(
                queue,
                self.sinks[sink],
                no_ack=no_ack,
                exclusive=exclusive,
                priority=priority,
                prefetch_count=prefetch_count,
                start=False,
            )
        except AccessRefused:
            assert refused
            return
        assert not refused
        present[consumer] = ConsumerModel(consumer, self.sinks[sink])
        if start:
            self.start(present[consumer])

    def start(self, model: ConsumerModel) -> None:
        model.started = True
        model.consumer.queue.start(model.consumer)

    @precondition(lambda self: any(not model.started for model in self.consumers()))
    @rule(number=numbers)
    def start_one(self, number: int) -> None:
        unstarted = [model for model in self.consumers() if not model.started]
        self.start(unstarted[number % len(unstarted)])

    def cancel(self, consumer: Consumer) -> None:
        del self.models[consumer.queue].consumers[consumer]
        self.core.cancel(consumer)
        self.forget_ineligible()

    @precondition(lambda self: any(sink.unsettled for sink in self.sinks))
    @rule(sink=sinks, number=numbers, settlement=settlements)
    def settle_one(self, sink: int, number: int, settlement: Settlement) -> None:
        chosen = self.sinks[sink]
        if chosen.unsettled:
            delivery = chosen.unsettled[number % len(chosen.unsettled)]
            self.settle(chosen, delivery, settlement)

    @precondition(lambda self: any(sink.unsettled for sink in self.sinks))
    @rule(sink=sinks, number=numbers, settlement=settlements)
    def settle_up_to(self, sink: int, number: int, settlement: Settlement) -> None:
        chosen = self.sinks[sink]
        for delivery in chosen.unsettled[: number + 1]:
            self.settle(chosen, delivery, settlement)

    @rule(sink=sinks)
    def recover(self, sink: int) -> None:
        self.requeue_all(self.sinks[sink])

    @rule(which=queues, no_ack=st.booleans())
    def get(self, which: int, no_ack: bool) -> None:
        queue = self.queues[which]
        model = self.models[queue]
        waiting = bool(model.ready)
        entry = queue.get(no_ack)
        assert (entry is not None) is waiting
        if entry is None:
            return
        model.take(entry.message, entry.redelivered)
        assert entry.delivery_count == model.returns[entry.message]
        if no_ack:
            self.settled(model, entry.message)
        else:
            model.unsettled.append(entry.message)
            self.got.append(entry)

    @precondition(lambda self: self.got)
    @rule(number=numbers, settlement=settlements)
    def settle_got(self, number: int, settlement: Settlement) -> None:
        entry = self.got.pop(number % len(self.got))
        self.follow_settlement(entry, None, settlement)
        action: dict[Settlement, Callable[[Entry], None]] = {
            Settlement.ACK: entry.queue.ack,
            Settlement.REJECT: entry.queue.reject,
            Settlement.REQUEUE: entry.queue.requeue,
        }
        action[settlement](entry)

    @rule(sink=sinks, count=st.integers(0, 3), settlement=settlements, which=queues)
    def commit(self, sink: int, count: int, settlement: Settlement, which: int) -> None:
        """A transaction of two publishes and some settlements."""
        chosen = self.sinks[sink]
        transaction = Transaction()
        for persistent in (True, False):
            targets = [self.queues[which]]
            transaction.publish(self.new_message(1, persistent, targets), tuple(targets))
        settled = []
        for tag, delivery in enumerate(chosen.unsettled[:count]):
            assert delivery.entry is not None
            transaction.settle(tag, delivery.entry, settlement)
            settled.append((delivery.entry, delivery.entry.consumer))
        del chosen.unsettled[:count]
        chosen.free_limit()
        records = len(self.core.store.records)
        position = self.core.vhost.commit(transaction)
        assert position in (0, records + 1), "a transaction is one record"
        for entry, consumer in settled:
            self.follow_settlement(entry, consumer, settlement)

    @rule(sink=sinks)
    def toggle(self, sink: int) -> None:
        """A connection becomes congested, or has drained."""
        chosen = self.sinks[sink]
        chosen.set_able(not chosen.able)
        self.forget_ineligible()

    @rule(what=st.sampled_from(["cancel", "close", "purge", "delete"]), number=numbers)
    def end(self, what: str, number: int) -> None:
        """Something comes to an end: one rule, so that there is time for something to begin."""
        if what == "close":
            self.close(number % len(self.sinks))
        elif what == "purge":
            self.purge(number % len(self.queues))
        elif what == "delete":
            self.delete(number % len(self.queues))
        elif consumers := self.consumers():
            self.cancel(consumers[number % len(consumers)].consumer)

    def close(self, sink: int) -> None:
        """A channel ends: its consumers first, then its unsettled deliveries."""
        chosen = self.sinks[sink]
        for model in self.consumers():
            if model.sink is chosen:
                self.cancel(model.consumer)
        self.requeue_all(chosen)
        assert not chosen.refused
        self.sinks[sink] = WatchedSink(self.core, self, LIMITS[sink])

    def purge(self, which: int) -> None:
        queue = self.queues[which]
        model = self.models[queue]
        purged, model.ready = model.ready, []
        for message in purged:
            self.settled(model, message)
        records = len(self.core.store.records)
        count, position = queue.purge()
        assert count == len(purged)
        lasting = queue.durable and any(message.persistent for message in purged)
        assert position == (records + 1 if lasting else 0)

    def delete(self, which: int) -> None:
        """A queue is deleted, and another of its name comes to be."""
        queue = self.queues[which]
        model = self.models[queue]
        told = [len(sink.told) for sink in self.sinks]
        self.core.vhost.delete_queue(queue)
        for message in model.ready:
            self.settled(model, message)
        model.ready = []
        for sink, before in zip(self.sinks, told, strict=True):
            expected = [each.consumer for each in model.consumers.values() if each.sink is sink]
            assert sink.told[before:] == expected
        model.consumers.clear()
        self.queues[which] = self.declare(queue.durable)

    @rule(messages=st.integers(1, 4), bytes_=st.integers(1, 4), remains=st.integers(1, 3))
    def run_turn(self, messages: int, bytes_: int, remains: int) -> None:
        delivered = self.delivered()
        self.core.run_turn(messages=messages, bytes_=bytes_, remains=remains)
        assert self.delivered() - delivered <= messages, "a turn keeps to its budget"
        self.forget_ineligible()

    def delivered(self) -> int:
        return sum(len(sink.deliveries) for sink in self.sinks)

    @rule()
    def run_turns(self) -> None:
        """Turns without a limit, until none is asked for."""
        hungry = [model for model in self.consumers() if self.is_held_back(model)]
        delivered = {sink: len(sink.deliveries) for sink in self.sinks}
        self.core.run_turns()
        self.forget_ineligible()
        for model in hungry:
            if len(model.sink.deliveries) > delivered[model.sink] and self.is_held_back(model):
                model.passed_over += 1
                others = sum(other.sink is model.sink for other in self.consumers())
                assert model.passed_over <= others**2, "a queue starves under a shared limit"
        self.check_rest()

    def is_held_back(self, model: ConsumerModel) -> bool:
        """Whether only its channel keeps a consumer from the messages of its queue."""
        queue = self.models[model.consumer.queue]
        return (
            bool(queue.ready)
            and model.has_credit()
            and not model.sink.accepting
            and all(
                other.consumer.priority <= model.consumer.priority
                for other in queue.consumers.values()
            )
        )

    def check_rest(self) -> None:
        """With nothing left to do, no message waits for an eligible consumer; all is recorded."""
        for sink in self.sinks:
            assert sink.accepting is sink.is_able()
        recorded = settled_ids(self.core.store.records)
        for queue, model in self.models.items():
            if model.ready:
                assert not any(each.is_eligible() for each in model.consumers.values())
            if queue.durable and not queue.deleted:
                ids = {each.message_id for each in model.settled if each.persistent}
                assert ids == set(recorded.get(queue.queue_id, ()))
        released = self.core.store.released
        assert len(released) == len(set(released)), "the store is told once"
        assert set(released) == {
            message
            for message, holders in self.holders.items()
            if message in self.stored and not holders
        }

    # What always holds.

    @invariant()
    def counters_agree(self) -> None:
        """The counters of a queue are the lengths and sizes of what it holds."""
        for queue, model in self.models.items():
            assert queue.ready_count == len(queue.ready) == len(model.ready)
            assert queue.ready_bytes == sum(message.body_size for message in model.ready)
            assert queue.unacked_count == len(model.unsettled)
            head = queue.ready.head()
            assert (head.message if head is not None else None) is next(iter(model.ready), None)
            assert list(queue.consumers) == list(model.consumers)

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        """Each message of a queue waits, or is unsettled, or is settled."""
        for model in self.models.values():
            everything = model.ready + model.unsettled + model.settled
            assert len(everything) == len(model.published)
            assert set(everything) == set(model.published)

    @invariant()
    def limits_hold(self) -> None:
        """Nobody has more unsettled deliveries than a limit allows, and credit says how many."""
        for model in self.consumers():
            consumer = model.consumer
            if consumer.prefetch_count and not consumer.no_ack:
                assert consumer.credit == consumer.prefetch_count - model.unsettled >= 0
        for sink in self.sinks:
            assert not sink.limit or len(sink.unsettled) <= sink.limit

    @invariant()
    def nobody_is_forgotten(self) -> None:
        """A queue with a message for an eligible consumer, or a sink that can accept, is noted."""
        turn = self.core.turn
        for queue, model in self.models.items():
            assert queue.noted is (turn.queues.count(queue) == 1)
            if model.ready and not queue.noted:
                assert not any(each.is_eligible() for each in model.consumers.values())
        for sink in self.sinks:
            assert sink.noted is (turn.sinks.count(sink) == 1)
            assert sink.noted or sink.accepting is sink.is_able()
            assert not sink.accepting or not sink.refused
            for consumer in sink.refused:
                assert consumer in consumer.queue.consumers
        if turn.queues or turn.sinks or turn.settled or turn.remains:
            assert self.core.awake, "a turn will come"

    @invariant()
    def history_is_right(self) -> None:
        """A settlement is recorded once, for durable queues and persistent messages alone."""
        ids = settled_ids(self.core.store.records)
        for queue, model in self.models.items():
            found = ids.pop(queue.queue_id, [])
            assert len(found) == len(set(found))
            assert set(found) <= {
                message.message_id
                for message in model.settled
                if queue.durable and message.persistent
            }
        assert not ids


def settled_ids(records: Sequence[Record]) -> dict[int, list[int]]:
    """What the history says was settled, by id of the queue."""
    ids: dict[int, list[int]] = {}
    for record in records:
        if isinstance(record, Settled):
            assert record.message_ids, "nothing happened, so there is nothing to record"
            ids.setdefault(record.queue_id, []).extend(record.message_ids)
        elif isinstance(record, Committed):
            for queue_id, message_ids in settled_ids(record.records).items():
                ids.setdefault(queue_id, []).extend(message_ids)
    return ids


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(
    max_examples=150 * EFFORT, stateful_step_count=50, deadline=None
)
