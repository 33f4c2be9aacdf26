"""Cleaning: what lives is copied to the end, and the head of the log goes."""

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from store.engine_double import Disk
from store.log_support import Log, after, life, pass_through, queue

from broker.core.message import Message
from broker.core.record_codec import COUNTERS, PUBLISHED, QUEUE_DECLARED, decode_published
from broker.core.records import (
    Bound,
    Committed,
    ExchangeDeclared,
    Purged,
    QueueDeleted,
    Record,
    Settled,
)
from broker.core.table import Table
from broker.store.errors import FsyncError, StoreError


def live_bytes(log: Log, messages: list[Message], definitions: int) -> int:
    """What the records take of `messages` and of as many queues as `definitions` says."""
    found = {
        decode_published(payload).message.message_id: 10 + len(payload)
        for _, kind, payload in log.disk.records()
        if kind == PUBLISHED
    }
    queues = [
        10 + len(payload) for _, kind, payload in log.disk.records() if kind == QUEUE_DECLARED
    ]
    return sum(found[message.message_id] for message in messages) + sum(queues[:definitions])


def check_bound(log: Log, live: int) -> None:
    """The log is within twice what lives and two segments."""
    assert log.disk.size_bytes <= 2 * live + 2 * log.disk.segment_bytes


def test_short_lived_messages_leave_no_trace() -> None:
    """Millions that pass through take two segments, whatever their number."""
    with life(Disk(2000)) as log:
        log.declare(1)
        for _ in range(300):
            log.settle(1, log.publish(1, body=bytes(50)))
            log.loop.settle()
            check_bound(log, 0)


def test_a_message_of_months_sits_in_front_while_others_pass() -> None:
    """What lives long is copied from time to time, and nothing else stays because of it."""
    disk = Disk(2000)
    with life(disk) as log:
        log.declare(1, 2)
        old = log.publish(2, body=b"old")
        for _ in range(300):
            log.settle(1, log.publish(1, body=bytes(50)))
            log.loop.settle()
        assert disk.segments[0].base > old.position
        check_bound(log, live_bytes(log, [old], 2))
        log.complete(log.store.fetch([old]))
        log.close()
    with life(disk) as log:
        assert log.fetched() == [b"old"]
        assert log.messages()[0].message_id == 1


@pytest.mark.parametrize("seed", range(6))
def test_any_mix_stays_within_the_bound(seed: int) -> None:
    """Long-lived and short-lived, large and small, settled in whatever order."""
    random = Random(seed)
    share = random.random()
    disk = Disk(3000)
    with life(disk) as log:
        log.declare(1, 2, 3)
        waiting: list[Message] = []
        for _ in range(400):
            message = log.publish(1, body=bytes(random.randrange(200)))
            waiting.append(message)
            # Up, then down again, and a number that stays.
            while waiting and random.random() < share:
                log.settle(1, waiting.pop(random.randrange(len(waiting))))
            log.loop.settle()
            check_bound(log, live_bytes(log, waiting, 3))
        while waiting:
            log.settle(1, waiting.pop(random.randrange(len(waiting))))
            log.loop.settle()
            check_bound(log, live_bytes(log, waiting, 3))
        assert log.failures == []


def test_the_bound_holds_while_clients_go_on() -> None:
    """Cleaning keeps pace with clients that append as fast as the disk takes it."""
    disk = Disk(100_000)
    with life(disk) as log:
        log.declare(1, 2)
        backlog: list[Message] = []
        for _ in range(30):
            backlog += [log.publish(2, body=bytes(1000)) for _ in range(20)]
            log.loop.settle()
        live = live_bytes(log, backlog, 2)
        for _ in range(400):
            for _ in range(3):
                log.settle(1, log.publish(1, body=bytes(1000)))
            # The writer and the reader have one turn each, and so have the clients.
            log.loop.rest()
            for job in list(log.loop.jobs):
                log.loop.jobs.remove(job)
                job.run()
            assert disk.size_bytes <= 2 * live + 2 * disk.segment_bytes
        assert disk.segments[0].base > backlog[-1].position, "all of it was copied"


def test_cleaning_takes_small_steps() -> None:
    """A segment of many messages is copied in portions, and others have the loop in between."""
    disk = Disk(1_000_000)
    with life(disk) as log:
        log.declare(1, 2)
        backlog = [log.publish(2, body=b"x") for _ in range(3000)]
        log.loop.settle()
        passing = [log.publish(1, body=bytes(1000)) for _ in range(2500)]
        log.loop.settle()
        log.settle(1, *passing)
        batches = len(log.engine.appended)
        log.loop.settle()
        assert disk.segments[0].base > backlog[-1].position
        copies = [size for size in log.engine.appended[batches:] if size > 1000]

    assert len(copies) >= 6
    assert max(copies) < 256 * 1024 + 2000


def cleaned_after(log: Log, change: Callable[[], None]) -> None:
    """Have cleaning read the head of the log, do `change`, then let it finish."""
    filler = [log.publish(9, body=bytes(300)) for _ in range(20)]
    log.settle(9, *filler)
    log.loop.rest()
    while log.job_names() != ["read_many"]:
        assert log.loop.jobs, "cleaning reads"
        log.loop.run_job()
    change()
    base = log.disk.segments[0].base
    log.loop.settle()
    assert log.disk.segments[0].base > base


def test_settled_between_the_read_and_the_copy(head: Log) -> None:
    """A message that was settled while its segment was read is not copied."""
    one, other = head.publish(1), head.publish(1)
    head.loop.settle()
    cleaned_after(head, lambda: head.settle(1, one))

    assert after(head) == {other.message_id: [1]}


def test_settled_by_one_of_two_holders_before_the_copy(head: Log) -> None:
    """The copy names the queue that is left, be it long before or while the segment is read."""
    early, late = head.publish(1, 2), head.publish(1, 2)
    head.settle(1, early, release=False)
    head.loop.settle()
    cleaned_after(head, lambda: head.settle(2, late, release=False))

    assert after(head) == {early.message_id: [2], late.message_id: [1]}


def test_settled_by_one_of_two_holders_in_an_earlier_life(head: Log) -> None:
    """What a record names is not who holds it; a new life knows that as well."""
    message = head.publish(1, 2)
    head.settle(1, message, release=False)
    head.loop.settle()
    head.disk.crash()
    head.loop.abandon()
    with life(head.disk) as log:
        log.publish(9)
        cleaned_after(log, lambda: None)
        while log.disk.segments[0].base <= message.position:
            pass_through(log)

        assert after(log)[message.message_id] == [2]


def test_settled_by_the_other_holder_after_the_copy(head: Log) -> None:
    """A copy is settled like an original."""
    message = head.publish(1, 2)
    head.settle(1, message, release=False)
    head.loop.settle()
    cleaned_after(head, lambda: None)
    head.settle(2, message)
    head.loop.settle()

    assert after(head) == {}


def test_purged_and_not_yet_released(head: Log) -> None:
    """A purge is one record, and what it drops is released in steps: it is not copied behind it."""
    one, other = head.publish(1), head.publish(1, 2)
    head.loop.settle()

    def purge() -> None:
        head.store.append(Purged(1, [one.message_id, other.message_id]))

    cleaned_after(head, purge)
    head.store.release(one)

    assert after(head) == {other.message_id: [2]}


def test_deleted_with_its_queue_and_not_yet_released(head: Log) -> None:
    """A deleted queue holds nothing, though its messages are released in steps."""
    one, other = head.publish(1), head.publish(1, 2)
    head.loop.settle()

    def delete() -> None:
        head.store.append(QueueDeleted("/", 1, "queue-1"))

    cleaned_after(head, delete)
    head.store.release(one)

    assert after(head) == {other.message_id: [2]}


def test_messages_of_a_transaction_are_cleaned(head: Log) -> None:
    """They lie within its record, and are copied as messages of their own."""
    records = [head.a_record(1, body=b"one"), head.a_record(1, 2, body=b"two")]
    head.store.append(Committed(records))
    head.loop.settle()
    cleaned_after(head, lambda: head.settle(1, records[1].message, release=False))
    assert after(head) == {1: [1], 2: [2]}

    with life(head.disk) as log:
        assert log.fetched() == [b"one", b"two"]


def test_a_message_is_fetched_wherever_cleaning_took_it(head: Log) -> None:
    """Its position is that of its first record; the store knows where it is."""
    message = head.publish(1, body=b"moved")
    head.loop.settle()
    cleaned_after(head, lambda: None)
    message.header_frame = message.body_frame = b""
    head.complete(head.store.fetch([message]))

    assert message.body == b"moved"


def test_a_message_is_fetched_while_cleaning_takes_it_away(head: Log) -> None:
    """A read that comes too late looks again where the message went."""
    message = head.publish(1, body=b"moved")
    head.loop.settle()
    message.header_frame = message.body_frame = b""
    fetching: list[asyncio.Task[None]] = []

    def fetch() -> None:
        fetching.append(head.loop.create_task(head.store.fetch([message])))
        head.loop.rest()
        # The thread that reads for it is slow.
        slow.append(head.loop.jobs.pop())

    slow: list[Any] = []
    cleaned_after(head, fetch)
    slow[0].run()
    head.loop.settle()

    assert fetching[0].done()
    assert message.body == b"moved"


def test_definitions_survive_the_cleaning_of_their_segment(head: Log) -> None:
    """What still holds is said again; what does not is left behind."""
    binding = Bound("/", "x", "queue-1", True, b"key", Table.EMPTY)
    records: list[Record] = [
        ExchangeDeclared("/", "x", "topic", False, False, Table.EMPTY),
        binding,
        queue(3),
        QueueDeleted("/", 3, "queue-3"),
    ]
    for record in records:
        head.store.append(record)
    head.loop.settle()
    first_written = binding.position
    while head.disk.segments[0].base <= first_written:
        pass_through(head)
    head.disk.crash()
    head.loop.abandon()
    with life(head.disk) as log:
        assert sorted(log.recovered.queues) == [1, 2, 9]
        assert list(log.recovered.exchanges) == [("/", "x")]
        assert [each.routing_key for each in log.recovered.bindings.values()] == [b"key"]


def test_a_definition_that_ends_while_they_are_repeated() -> None:
    """Very many definitions are repeated in portions: one that ended meanwhile stays ended."""
    disk = Disk(20_000)
    with life(disk) as log:
        log.declare(*range(1, 1001))
        log.loop.settle()
        filler = [log.publish(1, body=bytes(1000)) for _ in range(200)]
        log.settle(1, *filler)
        log.loop.rest()
        appended = log.store.append(Settled(1, [1]))
        while log.store.append(Settled(1, [1])) - appended < 5_000:
            # Round by round, until some of them were said again and some were not.
            appended = log.store.append(Settled(1, [1]))
            if log.loop.jobs:
                log.loop.jobs.pop(0).run()
            log.loop.step()
        for queue_id in (1, 500, 1000):
            log.store.append(QueueDeleted("/", queue_id, f"queue-{queue_id}"))
        log.loop.settle()
        disk.crash()
    with life(disk) as log:
        assert set(range(1, 1001)) - set(log.recovered.queues) == {1, 500, 1000}


def test_many_definitions_are_not_repeated_for_ever() -> None:
    """Definitions live too: a log of nothing else is left as it is."""
    with life(Disk(1000)) as log:
        log.declare(*range(1, 500))
        log.loop.settle()
        size = log.disk.size_bytes
        log.publish(1)
        log.loop.settle()

        assert log.disk.size_bytes < size + 1000


def test_ids_survive_the_cleaning_of_what_had_them(head: Log) -> None:
    """No id is given twice, though nothing is left that had it."""
    head.declare(77)
    head.store.append(QueueDeleted("/", 77, "queue-77"))
    last = head.publish(1)
    head.settle(1, last)
    for _ in range(4):
        pass_through(head)
    kinds = [kind for _, kind, _ in head.disk.records()]
    assert COUNTERS in kinds and 4 not in kinds
    last_id = head.last_id
    head.disk.crash()
    head.loop.abandon()
    with life(head.disk) as log:
        assert log.recovered.last_queue_id == 77
        assert log.recovered.last_message_id == last_id


def test_a_message_that_cannot_be_read_stays_where_it_is(
    head: Log, caplog: pytest.LogCaptureFixture
) -> None:
    """Cleaning leaves it for repair and complains; the broker goes on without cleaning."""
    good, bad = head.publish(1, body=b"good"), head.publish(1, body=b"bad")
    head.loop.settle()
    head.disk.flip_bit(bad.position + 40)
    for _ in range(3):
        pass_through(head)

    assert head.disk.segments[0].base <= bad.position
    assert "the log could not be cleaned" in caplog.text
    assert f"message {bad.message_id} at position {bad.position}" in caplog.text
    assert head.failures == []
    assert after(head) == {good.message_id: [1], bad.message_id: [1]}


def test_a_failed_trim_is_tried_again(head: Log, caplog: pytest.LogCaptureFixture) -> None:
    """A file that could not be removed is in nobody's way; later it can be."""
    message = head.publish(1, body=b"live")
    head.loop.settle()
    head.engine.trim_error = StoreError("The file can't be removed.")
    for _ in range(6):
        pass_through(head)

    assert "The file can't be removed." in caplog.text
    assert head.failures == []
    assert head.disk.segments[0].base > message.position
    assert after(head) == {message.message_id: [1]}


def test_a_trim_that_broke_the_log_ends_the_broker(head: Log) -> None:
    """When nobody knows what is on the disk, cleaning is no exception."""
    head.publish(1)
    head.loop.settle()
    head.engine.trim_error = FsyncError("The directory can't be synced.")
    for _ in range(4):
        pass_through(head)

    assert head.failures == ["The directory can't be synced."]
