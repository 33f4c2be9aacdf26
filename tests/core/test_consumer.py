"""Consumers: who is next, what keeps one from being served, and that nobody starves."""

from core_support import PLENTY, Core, RecordingSink, memory_core

from broker.core.consumer import UNLIMITED, Consumer, Rotation
from broker.core.queue import Queue
from broker.core.turn import Budget
from broker.store.memory import MemoryStore


def a_consumer(core: Core[MemoryStore], tag: str = "", priority: int = 0) -> Consumer:
    """A consumer without limit on a sink and a queue of its own."""
    queue = core.vhost.declare_queue("")
    return Consumer(tag, RecordingSink(core.turn), queue, priority=priority)


def next_tags(rotation: Rotation, count: int) -> list[str | None]:
    """The tags of those whose turn it is, one after the other."""
    consumers = [rotation.next() for _ in range(count)]
    return [consumer.tag if consumer is not None else None for consumer in consumers]


def filled_queues(core: Core[MemoryStore], count: int, messages: int) -> list[Queue]:
    """Queues q0, q1, ... with this many messages each."""
    queues = [core.vhost.declare_queue(f"q{number}") for number in range(count)]
    for queue in queues:
        core.fill(queue, messages)
    return queues


# The credit of a consumer.


def test_credit_is_the_prefetch_count() -> None:
    """A consumer that acknowledges may have as many deliveries as its limit says."""
    queue = memory_core().vhost.declare_queue("q")
    sink = RecordingSink(memory_core().turn)

    assert Consumer("c", sink, queue, prefetch_count=3).credit == 3


def test_no_prefetch_count_is_no_limit() -> None:
    """Zero stands for as many as there are."""
    queue = memory_core().vhost.declare_queue("q")
    sink = RecordingSink(memory_core().turn)

    assert Consumer("c", sink, queue).credit == UNLIMITED


def test_a_prefetch_count_means_nothing_without_acknowledgements() -> None:
    """A no-ack consumer has nothing unsettled that could count."""
    queue = memory_core().vhost.declare_queue("q")
    sink = RecordingSink(memory_core().turn)

    assert Consumer("c", sink, queue, prefetch_count=3, no_ack=True).credit == UNLIMITED


# The rotation.


def test_nobody_is_next_in_an_empty_rotation() -> None:
    """Without consumers there is nobody."""
    assert Rotation().next() is None


def test_consumers_take_strict_turns() -> None:
    """Each is next once before any is next again."""
    core = memory_core()
    rotation = Rotation()
    for tag in "abc":
        rotation.add(a_consumer(core, tag))

    assert next_tags(rotation, 7) == ["a", "b", "c", "a", "b", "c", "a"]


def test_a_new_consumer_joins_at_the_end() -> None:
    """Who comes later waits for those who were there."""
    core = memory_core()
    rotation = Rotation()
    for tag in "ab":
        rotation.add(a_consumer(core, tag))
    rotation.next()
    rotation.add(a_consumer(core, "new"))

    assert next_tags(rotation, 3) == ["b", "a", "new"]


def test_higher_priorities_come_first() -> None:
    """Whatever the order they came in, only the highest priority gets messages."""
    core = memory_core()
    rotation = Rotation()
    for tag, priority in [("default", 0), ("high", 9), ("low", -9), ("also high", 9)]:
        rotation.add(a_consumer(core, tag, priority))

    assert next_tags(rotation, 3) == ["high", "also high", "high"]


def test_lower_priorities_are_served_when_all_higher_cannot_be() -> None:
    """Each time the highest priority with somebody able is asked."""
    core = memory_core()
    rotation = Rotation()
    consumers = {
        tag: a_consumer(core, tag, priority)
        for tag, priority in [("low", -1), ("high", 1), ("also high", 1), ("default", 0)]
    }
    for consumer in consumers.values():
        consumer.credit = 2
        rotation.add(consumer)
    served = []
    while (following := rotation.next()) is not None:
        following.credit -= 1
        served.append(following.tag)

    assert served == [
        *("high", "also high", "high", "also high"),
        *("default", "default", "low", "low"),
    ]


def test_one_without_credit_leaves_the_rotation() -> None:
    """It waits, and costs nothing until somebody puts it back."""
    core = memory_core()
    rotation = Rotation()
    one, other = a_consumer(core, "one"), a_consumer(core, "other")
    rotation.add(one)
    rotation.add(other)
    one.credit = 0

    assert next_tags(rotation, 2) == ["other", "other"]
    assert (one.waiting, other.waiting) == (True, False)
    assert not one.sink.refused


def test_one_comes_back_at_the_end_of_its_priority() -> None:
    """Having been out costs the place."""
    core = memory_core()
    rotation = Rotation()
    consumers = [a_consumer(core, tag) for tag in "abc"]
    for consumer in consumers:
        rotation.add(consumer)
    consumers[0].credit = 0
    rotation.next()
    consumers[0].credit = 1
    rotation.add(consumers[0])

    assert not consumers[0].waiting
    assert next_tags(rotation, 3) == ["c", "b", "a"]


def test_one_whose_sink_does_not_accept_is_refused() -> None:
    """It leaves the rotation, and its sink remembers whom it refused, oldest first."""
    core = memory_core()
    rotation = Rotation()
    sink = RecordingSink(core.turn)
    queue = core.vhost.declare_queue("q")
    consumers = [Consumer(tag, sink, queue) for tag in "ab"]
    for consumer in consumers:
        rotation.add(consumer)
    sink.accepting = False

    assert rotation.next() is None
    assert list(sink.refused) == consumers
    assert all(consumer.waiting for consumer in consumers)


def test_a_removed_consumer_is_never_next() -> None:
    """Removal closes the ranks; the others keep their order."""
    core = memory_core()
    rotation = Rotation()
    consumers = [a_consumer(core, tag) for tag in "abc"]
    for consumer in consumers:
        rotation.add(consumer)
    rotation.remove(consumers[1])

    assert next_tags(rotation, 3) == ["a", "c", "a"]


def test_removing_one_that_is_not_there_does_nothing() -> None:
    """Consumers that wait, or never started, are in no rotation."""
    core = memory_core()
    rotation = Rotation()
    rotation.add(a_consumer(core, "a"))
    rotation.remove(a_consumer(core, "b"))
    rotation.remove(a_consumer(core, "c", 5))

    assert next_tags(rotation, 1) == ["a"]


def test_a_priority_may_come_and_go() -> None:
    """The last consumer of a priority takes it along, and another brings it back in its place."""
    core = memory_core()
    rotation = Rotation()
    high = a_consumer(core, "high", 1)
    rotation.add(a_consumer(core, "low", -1))
    rotation.add(high)
    rotation.remove(high)

    assert next_tags(rotation, 1) == ["low"]
    rotation.add(a_consumer(core, "also high", 1))
    assert next_tags(rotation, 1) == ["also high"]


# The sink.


def test_a_sink_accepts_again_at_once_when_it_refused_nobody() -> None:
    """Nothing is owed to anybody, so the next message may come."""
    core = memory_core()
    sink = RecordingSink(core.turn)
    sink.set_able(False)
    closed = not sink.accepting
    sink.set_able(True)

    assert closed and sink.accepting
    assert core.wakes == 0


def test_a_sink_that_refused_somebody_accepts_again_in_the_next_turn() -> None:
    """Until those it refused were asked it takes nothing new; it is noted once."""
    core = memory_core()
    sink = RecordingSink(core.turn)
    queue = core.vhost.declare_queue("q")
    core.consume(queue, sink)
    sink.set_able(False)
    core.publish(queue)
    sink.set_able(True)
    sink.reconsider(core.turn)

    assert (sink.accepting, sink.noted, list(core.turn.sinks)) == (False, True, [sink])
    assert core.awake
    core.run_turn()
    assert (sink.accepting, sink.noted, len(sink.deliveries)) == (True, False, 1)


def test_a_sink_that_became_unable_again_is_asked_in_vain() -> None:
    """Between note and turn the connection may have filled up again."""
    core = memory_core()
    sink = RecordingSink(core.turn)
    queue = core.vhost.declare_queue("q")
    consumer = core.consume(queue, sink)
    sink.set_able(False)
    core.publish(queue)
    sink.set_able(True)
    sink.set_able(False)
    core.run_turns()

    assert (sink.accepting, sink.noted, sink.deliveries) == (False, False, [])
    assert list(sink.refused) == [consumer]


def test_retry_ends_with_the_budget() -> None:
    """What is left of the refused keeps its order for the next turn."""
    core = memory_core()
    sink = RecordingSink(core.turn)
    queues = [core.vhost.declare_queue(f"q{number}") for number in range(3)]
    consumers = [core.consume(queue, sink) for queue in queues]
    sink.set_able(False)
    for queue in queues:
        core.publish(queue)
    sink.able = True

    assert not sink.retry(Budget(1, PLENTY))
    assert not sink.accepting
    assert sink.queue_names == ["q0"]
    assert list(sink.refused) == consumers[1:]
    assert sink.retry(Budget(2, PLENTY))
    assert sink.queue_names == ["q0", "q1", "q2"]


def test_retry_ends_with_the_budget_of_bytes() -> None:
    """Large messages use the budget up as well as many do."""
    core = memory_core()
    sink = RecordingSink(core.turn)
    queues = [core.vhost.declare_queue(f"q{number}") for number in range(2)]
    for queue in queues:
        core.consume(queue, sink)
    sink.set_able(False)
    for queue in queues:
        core.publish(queue, body=b"four")
    sink.able = True

    assert not sink.retry(Budget(PLENTY, 4))
    assert sink.queue_names == ["q0"]


# Fairness under one limit that consumers share.


def test_queues_take_turns_under_a_shared_limit() -> None:
    """After each ack the queue that waits longest is served, though all have backlogs."""
    core = memory_core()
    sink = RecordingSink(core.turn, limit=1)
    for queue in filled_queues(core, 3, 5):
        core.consume(queue, sink)
    core.run_turns()
    sink.deliveries.clear()
    for _ in range(9):
        sink.ack()
        core.run_turns()

    assert sink.queue_names == ["q0", "q1", "q2"] * 3


def test_a_new_queue_is_not_starved_by_busy_ones() -> None:
    """A queue that joins a channel at its limit has its turn after those refused before it."""
    core = memory_core()
    sink = RecordingSink(core.turn, limit=1)
    old, other, new = filled_queues(core, 3, 5)
    core.consume(old, sink)
    core.consume(other, sink)
    core.run_turns()
    core.consume(new, sink)
    core.run_turns()
    for _ in range(3):
        sink.ack()
        core.run_turns()

    assert sink.queue_names == ["q0", "q0", "q1", "q2"]


def test_a_fresh_message_does_not_overtake_who_was_refused() -> None:
    """A publish between the ack and the turn finds the sink closed still."""
    core = memory_core()
    sink = RecordingSink(core.turn, limit=1)
    busy, idle = core.vhost.declare_queue("busy"), core.vhost.declare_queue("idle")
    core.consume(busy, sink)
    core.consume(idle, sink)
    core.fill(busy, 2)
    sink.ack()
    core.publish(idle)
    core.run_turns()
    sink.ack()
    core.run_turns()

    assert sink.queue_names == ["busy", "busy", "idle"]


def test_several_acks_at_once_serve_several_queues() -> None:
    """The first queue in line may take all the room there is, but then it is last."""
    core = memory_core()
    sink = RecordingSink(core.turn, limit=2)
    for queue in filled_queues(core, 3, 6):
        core.consume(queue, sink)
    core.run_turns()
    sink.deliveries.clear()
    for _ in range(4):
        sink.ack(2)
        core.run_turns()

    assert sink.queue_names == ["q0", "q0", "q1", "q1", "q2", "q2", "q0", "q0"]


def test_two_consumers_of_one_queue_take_turns_under_a_shared_limit() -> None:
    """Within a queue the turn passes too, however the limit closes in between."""
    core = memory_core()
    sink = RecordingSink(core.turn, limit=1)
    (queue,) = filled_queues(core, 1, 9)
    for tag in "abc":
        core.consume(queue, sink, tag)
    core.run_turns()
    for _ in range(6):
        sink.ack()
        core.run_turns()

    assert sink.tags == ["a", "b", "c", "a", "b", "c", "a"]


def test_two_consumers_of_one_queue_take_turns_after_a_congestion() -> None:
    """A sink that accepts again gives all its consumers of a queue their share."""
    core = memory_core()
    sink = RecordingSink(core.turn)
    queue = core.vhost.declare_queue("q")
    core.consume(queue, sink, "a")
    core.consume(queue, sink, "b")
    sink.set_able(False)
    core.fill(queue, 6)
    sink.set_able(True)
    core.run_turns()

    assert sink.tags == ["a", "b"] * 3


def test_priority_counts_among_those_refused() -> None:
    """When a sink accepts again, its consumer of high priority is first, though refused last."""
    core = memory_core()
    sink = RecordingSink(core.turn)
    queue = core.vhost.declare_queue("q")
    core.consume(queue, sink, "low")
    high = core.consume(queue, sink, "high", priority=1, prefetch_count=1)
    core.fill(queue, 2)
    assert sink.tags == ["high", "low"]
    sink.set_able(False)
    core.fill(queue, 3)
    sink.ack()
    assert [consumer.tag for consumer in sink.refused] == ["low", "high"]
    sink.set_able(True)
    core.run_turns()

    assert sink.tags[2:] == ["high", "low", "low"]
    assert high.credit == 0


def test_no_ack_consumers_are_held_back_by_the_shared_limit() -> None:
    """They don't count against it, but get nothing while it is exhausted."""
    core = memory_core()
    sink = RecordingSink(core.turn, limit=1)
    counted, uncounted = filled_queues(core, 2, 2)
    core.consume(counted, sink)
    core.run_turns()
    core.consume(uncounted, sink, no_ack=True)
    core.run_turns()
    assert sink.queue_names == ["q0"]
    sink.ack()
    core.run_turns()
    sink.ack()
    core.run_turns()

    assert sink.queue_names == ["q0", "q0", "q1", "q1"]


def test_both_limits_must_allow_a_delivery() -> None:
    """A consumer keeps to its own limit within that of its channel."""
    core = memory_core()
    sink = RecordingSink(core.turn, limit=3)
    one, other = filled_queues(core, 2, 5)
    core.consume(one, sink, prefetch_count=2)
    core.consume(other, sink, prefetch_count=2)
    core.run_turns()

    assert sink.queue_names == ["q0", "q0", "q1"]
