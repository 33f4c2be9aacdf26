"""Transactions: gathered by the channel, done at once by the vhost."""

import pytest
from core_support import Core, RecordingSink, ReleasingStore, a_message, held_core, memory_core

from broker.core.queue import Entry, Queue
from broker.core.records import Committed, Published, Settled
from broker.core.transaction import Settlement, Transaction


def taken(queue: Queue, count: int = 1) -> list[Entry]:
    """That many messages by basic.get, to be settled."""
    entries = [queue.get(no_ack=False) for _ in range(count)]
    return [entry for entry in entries if entry is not None]


def test_nothing_arrives_before_the_commit() -> None:
    """A transaction only remembers."""
    core = memory_core()
    queue = core.vhost.declare_queue("q")
    transaction = Transaction()
    transaction.publish(a_message(), (queue,))

    assert (queue.ready_count, queue.unacked_count) == (0, 0)
    assert core.ids.message_id == 0


def test_publishes_arrive_in_order() -> None:
    """At commit, and idle consumers get them at once."""
    core = memory_core()
    sink = RecordingSink(core.turn)
    queue = core.vhost.declare_queue("q")
    core.consume(queue, sink, prefetch_count=2)
    transaction = Transaction()
    for body in (b"1", b"2", b"3"):
        transaction.publish(a_message(body), (queue,))
    core.vhost.commit(transaction)

    assert sink.bodies == [b"1", b"2"]
    assert [delivery.message.message_id for delivery in sink.deliveries] == [1, 2]
    assert queue.ready_count == 1


@pytest.mark.parametrize(
    ("settlement", "waiting"),
    [(Settlement.ACK, 0), (Settlement.REJECT, 0), (Settlement.REQUEUE, 1)],
)
def test_settlements_are_done_at_commit(settlement: Settlement, waiting: int) -> None:
    """Until then the queue counts the delivery as unsettled, and credit is not given back."""
    core = memory_core()
    sink = RecordingSink(core.turn)
    queue = core.vhost.declare_queue("q")
    consumer = core.consume(queue, sink, prefetch_count=1)
    core.publish(queue)
    entry = sink.unsettled[0].entry
    assert entry is not None
    transaction = Transaction()
    transaction.settle(1, entry, settlement)
    assert (queue.unacked_count, consumer.credit) == (1, 0)
    core.vhost.commit(transaction)

    assert (queue.ready_count, queue.unacked_count, consumer.credit) == (waiting, 0, 1)


def test_a_transaction_is_one_record() -> None:
    """Publishes first, then one record of settlements per queue."""
    core = held_core()
    queues = [core.vhost.declare_queue(name, durable=True) for name in ("a", "b")]
    old = [core.publish(queue, persistent=True) for queue in (*queues, queues[0])]
    entries = [*taken(queues[0], 2), *taken(queues[1])]
    transaction = Transaction()
    for tag, entry in enumerate(entries):
        settlement = Settlement.REJECT if tag else Settlement.ACK
        transaction.settle(tag, entry, settlement)
    new = a_message(persistent=True)
    transaction.publish(new, tuple(queues))
    count = len(core.store.records)

    assert core.vhost.commit(transaction) == count + 1
    (committed,) = core.store.records[count:]
    assert isinstance(committed, Committed)
    published, *settled = committed.records
    assert isinstance(published, Published)
    assert published.message is new
    assert published.queue_ids == [queue.queue_id for queue in queues]
    assert [(each.queue_id, each.message_ids) for each in settled if isinstance(each, Settled)] == [
        (queues[0].queue_id, [old[0].message_id, old[2].message_id]),
        (queues[1].queue_id, [old[1].message_id]),
    ]
    core.run_turns()
    assert len(core.store.records) == count + 1


def test_what_need_not_survive_is_not_recorded() -> None:
    """Nobody waits for a transaction of transient things, nor for a requeue."""
    core = held_core()
    durable = core.vhost.declare_queue("d", durable=True)
    transient = core.vhost.declare_queue("t")
    core.publish(durable, persistent=True)
    core.publish(durable)
    core.publish(transient, persistent=True)
    requeued, acked = taken(durable, 2)
    transaction = Transaction()
    transaction.settle(1, requeued, Settlement.REQUEUE)
    transaction.settle(2, acked, Settlement.ACK)
    transaction.settle(3, taken(transient)[0], Settlement.REJECT)
    transaction.publish(a_message(), (durable,))
    transaction.publish(a_message(persistent=True), (transient,))
    count = len(core.store.records)

    assert transaction.settled_records() == []
    assert core.vhost.commit(transaction) == 0
    core.run_turns()
    assert len(core.store.records) == count


def test_an_empty_transaction_is_nothing() -> None:
    """There is nothing to record and nothing to wait for."""
    core = held_core()

    assert core.vhost.commit(Transaction()) == 0
    assert (core.store.records, core.wakes) == ([], 0)


def test_a_queue_deleted_before_the_commit_gets_nothing() -> None:
    """Messages were routed when they came; the queues that are left get them."""
    core = held_core()
    gone, kept = (core.vhost.declare_queue(name, durable=True) for name in ("gone", "kept"))
    transaction = Transaction()
    message = a_message(persistent=True)
    transaction.publish(message, (gone, kept))
    transaction.publish(a_message(persistent=True), (gone,))
    core.vhost.delete_queue(gone)
    core.vhost.commit(transaction)
    committed = core.store.records[-1]

    assert isinstance(committed, Committed)
    (published,) = committed.records
    assert isinstance(published, Published)
    assert published.queue_ids == [kept.queue_id]
    assert (message.holders, gone.ready_count, kept.ready_count) == (1, 0, 1)


def test_settlements_of_a_queue_deleted_before_the_commit_are_fine() -> None:
    """They are not recorded, but the message is released."""
    core = Core(ReleasingStore())
    queue = core.vhost.declare_queue("q", durable=True)
    message = core.publish(queue, persistent=True)
    transaction = Transaction()
    transaction.settle(1, taken(queue)[0], Settlement.ACK)
    core.vhost.delete_queue(queue)

    assert core.vhost.commit(transaction) == 0
    assert core.store.released == [message]


def test_the_last_holder_releases_a_message_settled_in_a_transaction() -> None:
    """As everywhere else."""
    core = Core(ReleasingStore())
    queue = core.vhost.declare_queue("q", durable=True)
    messages = [core.publish(queue, persistent=True) for _ in range(3)]
    transaction = Transaction()
    settlements = (Settlement.ACK, Settlement.REQUEUE, Settlement.REJECT)
    for tag, (entry, settlement) in enumerate(zip(taken(queue, 3), settlements, strict=True)):
        transaction.settle(tag, entry, settlement)
    core.vhost.commit(transaction)

    assert core.store.released == [messages[0], messages[2]]
    assert queue.ready_count == 1


def test_tags_are_remembered_for_a_rollback() -> None:
    """In the order of the settlements they belong to."""
    core = memory_core()
    queue = core.vhost.declare_queue("q")
    core.fill(queue, 2)
    entries = taken(queue, 2)
    transaction = Transaction()
    transaction.settle(7, entries[1], Settlement.ACK)
    transaction.settle(3, entries[0], Settlement.REQUEUE)

    assert transaction.tags == [7, 3]
    assert transaction.settlements == [
        (entries[1], Settlement.ACK),
        (entries[0], Settlement.REQUEUE),
    ]
