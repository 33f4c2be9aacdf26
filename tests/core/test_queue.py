"""A queue: messages come in, go out, come back, and are settled."""

import pytest
from core_support import (
    Core,
    RecordingSink,
    ReleasingStore,
    a_header,
    held_core,
    memory_core,
    recorded,
)

from broker.core.columns import Columns
from broker.core.queue import Entry, Queue
from broker.core.records import Purged, Settled
from broker.core.transaction import Settlement
from broker.core.turn import Budget


def taken(queue: Queue, count: int = 1) -> list[Entry]:
    """That many messages by basic.get, to be settled."""
    entries = [queue.get(no_ack=False) for _ in range(count)]
    return [entry for entry in entries if entry is not None]


def drained(queue: Queue) -> list[bytes]:
    """The bodies of what waits, in order."""
    bodies = []
    while (entry := queue.get(no_ack=True)) is not None:
        bodies.append(entry.message.body)
    return bodies


# Messages come in.


def test_messages_wait_in_order_without_consumers() -> None:
    """First in, first out; the counters say how many wait and how large their bodies are."""
    core = memory_core()
    queue = core.vhost.declare_queue("q")
    for body in (b"one", b"three", b""):
        core.publish(queue, body=body)

    assert (queue.ready_count, queue.ready_bytes, queue.unacked_count) == (3, 8, 0)
    assert drained(queue) == [b"one", b"three", b""]
    assert (queue.ready_count, queue.ready_bytes) == (0, 0)


def test_a_message_goes_straight_to_an_idle_consumer() -> None:
    """With nothing waiting, a push is a delivery: no turn is needed."""
    core = memory_core()
    sink = RecordingSink(core.turn)
    queue = core.vhost.declare_queue("q")
    core.consume(queue, sink)
    message = core.publish(queue, body=b"hello")

    assert sink.messages == [message]
    assert (queue.ready_count, queue.unacked_count) == (0, 1)
    assert core.wakes == 0


def test_a_message_does_not_overtake_those_that_wait() -> None:
    """What comes while others wait is last, though a consumer could take it at once."""
    core = memory_core()
    sink = RecordingSink(core.turn)
    queue = core.vhost.declare_queue("q")
    core.publish(queue, body=b"first")
    core.consume(queue, sink)
    core.publish(queue, body=b"second")

    assert sink.bodies == []
    core.run_turns()
    assert sink.bodies == [b"first", b"second"]


def test_a_message_waits_when_no_consumer_can_take_it() -> None:
    """A consumer at its limit is no consumer."""
    core = memory_core()
    sink = RecordingSink(core.turn)
    queue = core.vhost.declare_queue("q")
    core.consume(queue, sink, prefetch_count=1)
    core.fill(queue, 3)

    assert sink.bodies == [b"0"]
    assert (queue.ready_count, queue.unacked_count) == (2, 1)


def test_a_first_delivery_is_not_redelivered() -> None:
    """Neither straight from the push nor out of the line."""
    core = memory_core()
    sink = RecordingSink(core.turn)
    queue = core.vhost.declare_queue("q")
    core.publish(queue)
    core.consume(queue, sink)
    core.run_turns()
    core.publish(queue)

    assert [delivery.redelivered for delivery in sink.deliveries] == [False, False]


def test_a_delivery_without_ack_leaves_nothing_behind() -> None:
    """For a no-ack consumer a message is settled once it is sent."""
    core = memory_core()
    sink = RecordingSink(core.turn)
    queue = core.vhost.declare_queue("q")
    core.publish(queue)
    consumer = core.consume(queue, sink, no_ack=True)
    core.run_turns()
    core.publish(queue)

    assert len(sink.deliveries) == 2
    assert (queue.ready_count, queue.unacked_count, sink.unsettled) == (0, 0, [])
    assert consumer.credit > 1_000_000


# Messages go out.


def test_a_backlog_goes_to_a_new_consumer_up_to_its_limit() -> None:
    """Six wait, and three consumers come with room for two each: 0 1, 2 3, 4 5."""
    core = memory_core()
    queue = core.vhost.declare_queue("q")
    core.fill(queue, 6)
    sinks = [RecordingSink(core.turn) for _ in range(3)]
    for sink in sinks:
        core.consume(queue, sink, prefetch_count=2)
        core.run_turns()

    assert [sink.bodies for sink in sinks] == [[b"0", b"1"], [b"2", b"3"], [b"4", b"5"]]


def test_a_lone_consumer_without_limit_gets_the_whole_backlog() -> None:
    """A second one that comes later finds nothing."""
    core = memory_core()
    queue = core.vhost.declare_queue("q")
    core.fill(queue, 10)
    first, second = RecordingSink(core.turn), RecordingSink(core.turn)
    core.consume(queue, first)
    core.run_turns()
    core.consume(queue, second)
    core.run_turns()

    assert (len(first.deliveries), len(second.deliveries)) == (10, 0)


def test_priorities_with_limits() -> None:
    """Probed with RabbitMQ: hi hi2 hi hi2 def def lo lo, with room for two each."""
    core = memory_core()
    sink = RecordingSink(core.turn)
    queue = core.vhost.declare_queue("q")
    for tag, priority in [("hi", 10), ("lo", -5), ("def", 0), ("hi2", 10)]:
        core.consume(queue, sink, tag, priority=priority, prefetch_count=2)
    core.fill(queue, 8)

    assert sink.tags == ["hi", "hi2", "hi", "hi2", "def", "def", "lo", "lo"]


def test_consumers_take_turns() -> None:
    """Within a priority deliveries go round, across publishes and backlogs."""
    core = memory_core()
    sink = RecordingSink(core.turn)
    queue = core.vhost.declare_queue("q")
    core.fill(queue, 4)
    for tag in "abc":
        core.consume(queue, sink, tag)
    core.run_turns()
    core.fill(queue, 2)

    assert sink.tags == ["a", "b", "c", "a", "b", "c"]


def test_credit_that_came_back_in_time_keeps_the_place() -> None:
    """An ack before its turn comes costs a consumer nothing, in whatever order acks come."""
    core = memory_core()
    sink = RecordingSink(core.turn)
    queue = core.vhost.declare_queue("q")
    for tag in "abc":
        core.consume(queue, sink, tag, prefetch_count=1)
    core.fill(queue, 3)
    for delivery in reversed(list(sink.unsettled)):
        sink.settle(delivery)
    core.fill(queue, 3)

    assert sink.tags == ["a", "b", "c", "a", "b", "c"]


def test_a_consumer_out_of_credit_comes_back_at_the_end() -> None:
    """Who was asked in vain goes behind those who could take messages meanwhile."""
    core = memory_core()
    limited, free = RecordingSink(core.turn), RecordingSink(core.turn)
    queue = core.vhost.declare_queue("q")
    core.consume(queue, limited, "limited", prefetch_count=1)
    core.consume(queue, free, "one")
    core.consume(queue, free, "two")
    core.fill(queue, 4)
    assert free.tags == ["one", "two", "one"]
    limited.ack()
    core.fill(queue, 3)

    assert free.tags[3:] == ["two", "one"]
    assert len(limited.deliveries) == 2


def test_a_consumer_gets_nothing_before_it_is_started() -> None:
    """The client must know of its consumer first."""
    core = memory_core()
    sink = RecordingSink(core.turn)
    queue = core.vhost.declare_queue("q")
    consumer = core.consume(queue, sink, start=False)
    core.publish(queue)
    core.run_turns()

    assert sink.deliveries == []
    queue.start(consumer)
    core.run_turns()
    assert len(sink.deliveries) == 1


def test_starting_a_cancelled_consumer_does_nothing() -> None:
    """The start may be due after the consumer is gone, with its channel."""
    core = memory_core()
    sink = RecordingSink(core.turn)
    queue = core.vhost.declare_queue("q")
    consumer = core.consume(queue, sink, start=False)
    core.cancel(consumer)
    queue.start(consumer)
    core.publish(queue)
    core.run_turns()

    assert sink.deliveries == []


def test_a_congested_sink_gets_nothing() -> None:
    """Messages go to others meanwhile, and wait if there are none."""
    core = memory_core()
    congested, other = RecordingSink(core.turn), RecordingSink(core.turn)
    queue = core.vhost.declare_queue("q")
    core.consume(queue, congested)
    consumer = core.consume(queue, other)
    congested.set_able(False)
    core.fill(queue, 2)
    core.cancel(consumer)
    core.publish(queue, body=b"2")

    assert (congested.bodies, other.bodies) == ([], [b"0", b"1"])
    congested.set_able(True)
    core.run_turns()
    assert congested.bodies == [b"2"]


def test_a_cancelled_consumer_gets_nothing_more() -> None:
    """Its unsettled deliveries stay its own, and can be settled."""
    core = memory_core()
    sink = RecordingSink(core.turn)
    queue = core.vhost.declare_queue("q")
    consumer = core.consume(queue, sink)
    core.publish(queue)
    core.cancel(consumer)
    core.publish(queue)
    core.run_turns()

    assert (queue.ready_count, queue.unacked_count, len(sink.deliveries)) == (1, 1, 1)
    sink.ack()
    core.run_turns()
    assert (queue.ready_count, queue.unacked_count, len(sink.deliveries)) == (1, 0, 1)


def test_dispatch_without_budget_leaves_the_queue_noted() -> None:
    """What the budget didn't allow is for the next turn."""
    core = memory_core()
    sink = RecordingSink(core.turn)
    queue = core.vhost.declare_queue("q")
    core.fill(queue, 2)
    core.consume(queue, sink)
    core.turn.queues.clear()
    queue.noted = False
    queue.dispatch(Budget(1, 100))

    assert len(sink.deliveries) == 1
    assert list(core.turn.queues) == [queue]


# basic.get.


def test_get_takes_the_first_message() -> None:
    """Whatever consumers there are and what limits they have."""
    core = memory_core()
    sink = RecordingSink(core.turn)
    queue = core.vhost.declare_queue("q")
    core.consume(queue, sink, prefetch_count=1)
    core.fill(queue, 3)
    entry = queue.get(no_ack=False)

    assert entry is not None
    assert (entry.message.body, entry.redelivered, entry.consumer) == (b"1", False, None)
    assert (queue.ready_count, queue.unacked_count) == (1, 2)


def test_get_without_ack_settles_at_once() -> None:
    """There is nothing to be acknowledged."""
    core = memory_core()
    queue = core.vhost.declare_queue("q")
    core.publish(queue)
    queue.get(no_ack=True)

    assert (queue.ready_count, queue.unacked_count) == (0, 0)


def test_get_from_an_empty_queue() -> None:
    """Nothing waits, so there is nothing to get; what is unsettled doesn't wait."""
    core = memory_core()
    queue = core.vhost.declare_queue("q")
    core.publish(queue)
    taken(queue)

    assert queue.get(no_ack=False) is None
    assert queue.unacked_count == 1


# Messages are settled.


@pytest.mark.parametrize("settlement", Settlement)
def test_settling_gives_credit_back(settlement: Settlement) -> None:
    """Ack, reject and requeue alike make room for the next delivery."""
    core = memory_core()
    sink = RecordingSink(core.turn)
    queue = core.vhost.declare_queue("q")
    consumer = core.consume(queue, sink, prefetch_count=1)
    core.fill(queue, 2)
    sink.settle(sink.unsettled[0], settlement)

    assert consumer.credit == 1
    core.run_turns()
    expected = b"0" if settlement is Settlement.REQUEUE else b"1"
    assert sink.bodies == [b"0", expected]


@pytest.mark.parametrize("settlement", [Settlement.ACK, Settlement.REJECT])
def test_a_settled_message_is_gone(settlement: Settlement) -> None:
    """It neither waits nor counts as unsettled."""
    core = memory_core()
    sink = RecordingSink(core.turn)
    queue = core.vhost.declare_queue("q")
    core.consume(queue, sink)
    core.publish(queue)
    sink.settle(sink.unsettled[0], settlement)
    core.run_turns()

    assert (queue.ready_count, queue.unacked_count, len(sink.deliveries)) == (0, 0, 1)


def test_a_requeued_message_is_marked_as_redelivered() -> None:
    """It was sent before, whoever gets it now; how often is counted."""
    core = memory_core()
    sink = RecordingSink(core.turn)
    queue = core.vhost.declare_queue("q")
    core.consume(queue, sink)
    core.publish(queue)
    for _ in range(2):
        sink.settle(sink.unsettled[0], Settlement.REQUEUE)
        core.run_turns()

    assert [delivery.redelivered for delivery in sink.deliveries] == [False, True, True]
    entry = sink.deliveries[-1].entry
    assert entry is not None
    assert entry.delivery_count == 2


def test_a_requeued_message_is_redelivered_without_ack_too() -> None:
    """A no-ack consumer is told as well."""
    core = memory_core()
    sink = RecordingSink(core.turn)
    queue = core.vhost.declare_queue("q")
    core.publish(queue)
    queue.requeue(taken(queue)[0])
    core.consume(queue, sink, no_ack=True)
    core.run_turns()

    assert [delivery.redelivered for delivery in sink.deliveries] == [True]


def test_a_requeued_message_goes_to_the_next_in_turn() -> None:
    """Not back to the one that gave it back, if there are others."""
    core = memory_core()
    one, other = RecordingSink(core.turn), RecordingSink(core.turn)
    queue = core.vhost.declare_queue("q")
    core.consume(queue, one)
    core.consume(queue, other)
    core.publish(queue)
    one.settle(one.unsettled[0], Settlement.REQUEUE)
    core.run_turns()

    assert (len(one.deliveries), len(other.deliveries)) == (1, 1)


def test_requeued_messages_return_to_their_places() -> None:
    """Probed with RabbitMQ: 0 to 3 of 0 to 5 taken, 2 and then 0 returned, then the rest."""
    core = memory_core()
    queue = core.vhost.declare_queue("q")
    core.fill(queue, 6)
    entries = taken(queue, 4)
    queue.requeue(entries[2])
    queue.requeue(entries[0])

    assert drained(queue) == [b"0", b"2", b"4", b"5"]
    queue.requeue(entries[1])
    queue.requeue(entries[3])
    assert drained(queue) == [b"1", b"3"]


def test_a_requeued_head_stays_before_newer_messages() -> None:
    """What arrives between delivery and return is behind."""
    core = memory_core()
    queue = core.vhost.declare_queue("q")
    core.publish(queue, body=b"old")
    (entry,) = taken(queue)
    core.publish(queue, body=b"new")
    queue.requeue(entry)

    assert (queue.ready_count, queue.ready_bytes) == (2, 6)
    assert drained(queue) == [b"old", b"new"]


def test_a_channel_that_ends_returns_its_messages_in_order() -> None:
    """Consumers first, then what they had: the next consumer finds the order unchanged."""
    core = memory_core()
    ending, sink = RecordingSink(core.turn), RecordingSink(core.turn)
    queue = core.vhost.declare_queue("q")
    consumers = [core.consume(queue, ending) for _ in range(2)]
    core.fill(queue, 4)
    for consumer in consumers:
        core.cancel(consumer)
    ending.requeue_all()
    core.consume(queue, sink)
    core.run_turns()

    assert sink.bodies == [b"0", b"1", b"2", b"3"]
    assert all(delivery.redelivered for delivery in sink.deliveries)


# Durable queues and the history.


def test_settled_messages_of_a_durable_queue_are_recorded() -> None:
    """Acked, rejected, got or sent without ack: all are over, and the history says so."""
    core = held_core()
    sink = RecordingSink(core.turn)
    queue = core.vhost.declare_queue("q", durable=True)
    messages = [core.publish(queue, persistent=True) for _ in range(5)]
    queue.get(no_ack=True)
    queue.ack(taken(queue)[0])
    queue.reject(taken(queue)[0])
    core.consume(queue, sink, no_ack=True)
    core.run_turns()
    messages.append(core.publish(queue, persistent=True))
    core.run_turns()
    ids = [number for record in recorded(core.store, Settled) for number in record.message_ids]

    assert ids == [message.message_id for message in messages]


def test_a_requeue_is_not_recorded() -> None:
    """The message is where it was, as far as the history is concerned."""
    core = held_core()
    queue = core.vhost.declare_queue("q", durable=True)
    core.publish(queue, persistent=True)
    queue.requeue(taken(queue)[0])
    core.run_turns()

    assert not recorded(core.store, Settled)


@pytest.mark.parametrize(("durable", "persistent"), [(True, False), (False, True), (False, False)])
def test_only_persistent_messages_of_durable_queues_are_recorded(
    durable: bool, persistent: bool
) -> None:
    """The others are in no history that could be told of their end."""
    core = held_core()
    queue = core.vhost.declare_queue("q", durable=durable)
    count = len(core.store.records)
    core.publish(queue, persistent=persistent)
    core.publish(queue, persistent=persistent)
    queue.ack(taken(queue)[0])
    queue.purge()
    core.run_turns()

    assert len(core.store.records) == count


def test_the_last_holder_releases_a_message() -> None:
    """The store may forget a message when no durable queue holds it any more."""
    core = Core(ReleasingStore())
    one, other = (core.vhost.declare_queue(name, durable=True) for name in ("one", "other"))
    transient = core.vhost.declare_queue("transient")
    message = core.publish(one, other, transient, persistent=True)
    one.get(no_ack=True)
    assert core.store.released == []
    other.get(no_ack=True)

    assert core.store.released == [message]
    transient.get(no_ack=True)
    assert core.store.released == [message]


def test_a_recorded_settlement_is_not_recorded_again() -> None:
    """What a transaction has in the history already only releases the message and the credit."""
    core = Core(ReleasingStore())
    sink = RecordingSink(core.turn)
    queue = core.vhost.declare_queue("q", durable=True)
    consumer = core.consume(queue, sink, prefetch_count=1)
    message = core.publish(queue, persistent=True)
    entry = sink.unsettled[0].entry
    assert entry is not None
    queue.ack_recorded(entry)
    core.run_turns()

    assert (queue.unacked_count, consumer.credit) == (0, 1)
    assert core.store.released == [message]
    assert not recorded(core.store, Settled)


# Consumers come and go.


def test_exclusive_use_ends_with_its_consumer() -> None:
    """The queue is free for others once the exclusive consumer is gone."""
    core = memory_core()
    queue = core.vhost.declare_queue("q")
    consumer = core.consume(queue, RecordingSink(core.turn), exclusive=True)

    assert queue.exclusive_consumer
    core.cancel(consumer)
    assert not queue.exclusive_consumer


def test_removing_a_consumer_twice_does_nothing() -> None:
    """A channel may end after its queue did."""
    core = memory_core()
    queue = core.vhost.declare_queue("q")
    consumer = core.consume(queue, RecordingSink(core.turn))
    other = core.consume(queue, RecordingSink(core.turn))
    queue.remove_consumer(consumer)
    queue.remove_consumer(consumer)

    assert list(queue.consumers) == [other]


# The end.


def test_purge_drops_what_waits() -> None:
    """Unsettled messages stay; how many were dropped is the answer."""
    core = memory_core()
    queue = core.vhost.declare_queue("q")
    core.fill(queue, 5)
    (entry,) = taken(queue)

    assert queue.purge() == (4, 0)
    assert (queue.ready_count, queue.ready_bytes, queue.unacked_count) == (0, 0, 1)
    queue.requeue(entry)
    assert drained(queue) == [b"0"]


def test_purging_an_empty_queue_is_nothing() -> None:
    """There is neither a message nor work left to do."""
    core = held_core()
    queue = core.vhost.declare_queue("q", durable=True)

    assert queue.purge() == (0, 0)
    assert (core.wakes, len(core.store.records)) == (0, 1)


def test_a_purge_of_a_durable_queue_is_one_record() -> None:
    """The persistent messages go together, returned ones too, at the position that is returned."""
    core = held_core()
    queue = core.vhost.declare_queue("q", durable=True)
    kept = core.publish(queue, persistent=True)
    returned = core.publish(queue, persistent=True)
    entries = taken(queue, 2)
    core.publish(queue)
    last = core.publish(queue, persistent=True)
    queue.requeue(entries[1])
    count, position = queue.purge()
    (purged,) = recorded(core.store, Purged)

    assert (count, position) == (3, len(core.store.records))
    assert purged.queue_id == queue.queue_id
    assert sorted(purged.message_ids) == [returned.message_id, last.message_id]
    core.run_turns()
    assert recorded(core.store, Settled) == [purged]
    assert kept.holders == 1


def test_purged_messages_are_released_in_steps() -> None:
    """However many they are, each is released once, a bounded number per turn."""
    core = Core(ReleasingStore())
    queue = core.vhost.declare_queue("q", durable=True)
    messages = [core.publish(queue, persistent=True) for _ in range(5)]
    queue.purge()
    released = []
    for _ in range(3):
        core.run_turn(remains=2)
        released.append(len(core.store.released))

    assert released == [2, 4, 5]
    assert core.store.released == messages


def test_a_queue_goes_on_after_a_purge() -> None:
    """What comes later is not touched by what is left of the purge."""
    core = memory_core()
    queue = core.vhost.declare_queue("q")
    core.fill(queue, 3)
    queue.purge()
    core.publish(queue, body=b"new")
    core.run_turns()

    assert drained(queue) == [b"new"]


def test_delete_hands_back_the_consumers() -> None:
    """They are returned in the order they came, to be told, and get nothing more."""
    core = memory_core()
    queue = core.vhost.declare_queue("q")
    consumers = [core.consume(queue, RecordingSink(core.turn)) for _ in range(3)]

    assert queue.delete() == consumers
    assert not queue.consumers


@pytest.mark.parametrize("settlement", Settlement)
def test_deliveries_of_a_deleted_queue_may_be_settled(settlement: Settlement) -> None:
    """Acks that come late are accepted silently, and a requeue has nowhere to go."""
    core = Core(ReleasingStore())
    sink = RecordingSink(core.turn)
    queue = core.vhost.declare_queue("q", durable=True)
    core.consume(queue, sink)
    message = core.publish(queue, persistent=True)
    core.vhost.delete_queue(queue)
    count = len(core.store.records)
    sink.settle(sink.unsettled[0], settlement)
    core.run_turns()

    assert (queue.ready_count, queue.unacked_count) == (0, 0)
    assert core.store.released == [message]
    assert len(core.store.records) == count


def test_what_was_settled_before_the_deletion_is_recorded_before_it() -> None:
    """The history keeps the order of events."""
    core = held_core()
    queue = core.vhost.declare_queue("q", durable=True)
    core.publish(queue, persistent=True)
    queue.get(no_ack=True)
    core.vhost.delete_queue(queue)
    core.run_turns()

    assert [type(record).__name__ for record in core.store.records] == [
        "QueueDeclared",
        "Published",
        "Settled",
        "QueueDeleted",
    ]


def test_a_deleted_queue_releases_its_messages_without_a_record() -> None:
    """Its deletion says it for all of them."""
    core = Core(ReleasingStore())
    queue = core.vhost.declare_queue("q", durable=True)
    messages = [core.publish(queue, persistent=True) for _ in range(3)]
    core.vhost.delete_queue(queue)
    core.run_turns()

    assert core.store.released == messages
    assert not recorded(core.store, Settled)


# After a restart.


def test_restored_messages_wait_in_order() -> None:
    """They come back by their ids, some of them marked as delivered before, and then in content."""
    core = memory_core()
    queue = core.vhost.declare_queue("q", durable=True)
    columns = Columns()
    columns.add(3, 30, 4)
    columns.add(5, 50, 4)
    columns.settle()
    queue.restore(columns, [], frozenset({3}))
    assert queue.await_content(lambda: None)
    rows = queue.begin_fetch()
    for row in rows:
        row.message.header_frame = a_header()
    queue.end_fetch(rows)
    entries = queue.ready.entries()

    assert [(entry.sequence, entry.redelivered) for entry in entries] == [(3, True), (5, False)]
    assert (queue.ready_count, queue.ready_bytes, queue.unacked_count) == (2, 8, 0)


def test_delivered_before_are_the_persistent_messages_that_came_back() -> None:
    """Those are what a restart must not take for new."""
    core = memory_core()
    queue = core.vhost.declare_queue("q", durable=True)
    messages = [core.publish(queue, persistent=persistent) for persistent in (True, False, True)]
    entries = taken(queue, 2)
    for entry in entries:
        queue.requeue(entry)

    assert queue.ready.redelivered_ids() == [messages[0].message_id]
