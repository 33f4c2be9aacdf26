"""The ordered history: positions, group commit, reading back, cleaning, the end.

The engine is a double and threads run when a test says so; `tests/stateful/test_log_machine.py`
looks for the orders of events that nobody thought of.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any, TypeVar

import pytest
from core_support import a_message
from stepped_loop import SteppedLoop
from store.engine_double import Disk, MemoryLogEngine

from broker.core.message import Message
from broker.core.record_codec import COUNTERS, PUBLISHED, STARTED, decode_published
from broker.core.records import (
    Bound,
    Committed,
    Delivered,
    ExchangeDeclared,
    Published,
    Purged,
    QueueDeclared,
    QueueDeleted,
    Record,
    Settled,
    Stopped,
)
from broker.core.recovery import State
from broker.core.table import Table
from broker.store.errors import CorruptError, FormatError, FsyncError, StoreError
from broker.store.log import LogStore
from broker.store.segment import frame_record

Result = TypeVar("Result")


class Log:
    """One life of a LogStore."""

    def __init__(self, disk: Disk, loop: SteppedLoop) -> None:
        self.disk = disk
        self.loop = loop
        self.engine = MemoryLogEngine(disk)
        #: what ended it
        self.failures: list[str] = []
        self.store = LogStore(self.engine, self.failures.append)
        self.complete(self.store.start())
        self.recovered: State = self.store.recover()
        self.last_id = self.recovered.last_message_id

    def complete(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Run everything until `coroutine` is done."""
        return self.loop.complete(coroutine)

    def close(self) -> None:
        """The end in good order."""
        self.complete(self.store.close())

    def stop(self) -> None:
        """The end that is known for one at the next start."""
        self.store.append(Stopped())
        self.close()

    # Records.

    def declare(self, *queue_ids: int) -> None:
        """Queues, each called after its id."""
        for queue_id in queue_ids:
            self.store.append(queue(queue_id))

    def publish(self, *queue_ids: int, body: bytes = b"") -> Message:
        """A message for these queues."""
        record = self.a_record(*queue_ids, body=body)
        self.store.append(record)
        return record.message

    def a_record(self, *queue_ids: int, body: bytes = b"") -> Published:
        """The record of a message with the next id, not yet appended."""
        self.last_id += 1
        message = a_message(body, persistent=True, routing_key="key")
        message.message_id = self.last_id
        message.published_ms = 1000 + self.last_id
        return Published(message, queue_ids)

    def settle(self, queue_id: int, *messages: Message, release: bool = True) -> None:
        """The queue is done with messages, and so is everybody unless told otherwise."""
        self.store.append(Settled(queue_id, [message.message_id for message in messages]))
        if release:
            for message in messages:
                self.store.release(message)

    # What became of it.

    def messages(self) -> list[Message]:
        """The recovered messages in order."""
        messages = self.recovered.messages
        return [messages[message_id].message for message_id in sorted(messages)]

    def fetched(self) -> list[bytes]:
        """The bodies of the recovered messages in order."""
        messages = self.messages()
        self.complete(self.store.fetch(messages))
        return [message.body for message in messages]

    def holders(self) -> dict[int, list[int]]:
        """The recovered messages and who holds them."""
        return {
            message_id: list(record.queue_ids)
            for message_id, record in self.recovered.messages.items()
        }

    def job_names(self) -> list[str]:
        """What waits for a thread."""
        return [job.function.__name__ for job in self.loop.jobs]


@contextmanager
def life(disk: Disk) -> Iterator[Log]:
    """A life on `disk` that ends without a word, unless the test closed it."""
    with SteppedLoop() as loop:
        yield Log(disk, loop)
        disk.crash()


def queue(queue_id: int) -> QueueDeclared:
    """A queue called after its id."""
    return QueueDeclared("/", queue_id, f"queue-{queue_id}", False, Table.EMPTY)


@pytest.fixture
def log() -> Iterator[Log]:
    """A store on an empty disk of large segments, with queues 1 and 2."""
    with life(Disk()) as log:
        log.declare(1, 2)
        log.loop.settle()
        yield log


# Appending.


def test_positions_are_those_behind_the_records(log: Log) -> None:
    """`append` answers with the end of the record, and a message knows where its own begins."""
    begin = log.disk.end
    record = log.a_record(1, body=b"first")
    first = log.store.append(record)
    second = log.store.append(Settled(1, [record.message.message_id]))
    log.loop.settle()

    assert record.message.position == begin < first < second == log.disk.end
    assert [position for position, _, _ in log.disk.records()][-2:] == [begin, first]


def test_nothing_is_durable_before_it_is_synced(log: Log) -> None:
    """`durable` moves when the engine is done, not when the record is appended or written."""
    before = log.store.durable
    position = log.store.append(log.a_record(1))
    assert log.store.durable == before

    log.loop.rest()
    assert log.job_names() == ["_write"]
    assert log.store.durable == before

    log.loop.run_job()
    assert log.store.durable == position


def test_an_idle_store_syncs_at_once(log: Log) -> None:
    """There is no timer: the first record is given to the writer in the same round of the loop."""
    log.publish(1)
    log.loop.step()

    assert log.job_names() == ["_write"]


def test_what_comes_during_a_commit_shares_the_next(log: Log) -> None:
    """One batch is written while the next one gathers, however many records it gets."""
    positions = [log.store.append(log.a_record(1))]
    log.loop.rest()
    positions += [log.store.append(log.a_record(1)) for _ in range(50)]
    log.loop.rest()
    assert log.job_names() == ["_write"]

    log.loop.run_job()
    assert log.store.durable == positions[0]
    assert log.job_names() == ["_write"]

    appended = len(log.engine.appended)
    log.loop.run_job()
    assert log.store.durable == positions[-1]
    assert log.engine.appended[appended:] == [positions[-1] - positions[0]]
    assert log.job_names() == []


def test_everybody_hears_of_each_step_in_order(log: Log) -> None:
    """`on_durable` is called after each batch, when `durable` has moved."""
    heard: list[int] = []
    log.store.on_durable = lambda: heard.append(log.store.durable)
    first = log.store.append(log.a_record(1))
    log.loop.rest()
    second = log.store.append(log.a_record(1))
    log.loop.settle()

    assert heard == [first, second]


def test_waiting_for_a_position(log: Log) -> None:
    """Who waits goes on when the position is durable, and not sooner."""
    first = log.store.append(log.a_record(1))
    log.loop.rest()
    second = log.store.append(log.a_record(1))
    early = log.loop.create_task(log.store.wait_durable(first))
    late = log.loop.create_task(log.store.wait_durable(second))
    log.loop.rest()
    assert not early.done() and not late.done()

    log.loop.run_job()
    assert early.done() and not late.done()

    log.loop.run_job()
    assert late.done()


def test_waiting_for_what_is_durable_takes_no_time(log: Log) -> None:
    """A position in the past is not waited for."""
    waiting = log.loop.create_task(log.store.wait_durable(log.store.durable))
    log.loop.step()

    assert waiting.done()


def test_what_is_held_back_goes_with_the_next_batch(log: Log) -> None:
    """Whoever gathers acknowledgements adds them before a batch is taken, not one batch later."""
    held = [Settled(1, [1])]

    def add() -> None:
        if held:
            log.store.append(held.pop())

    log.store.append(log.a_record(1))
    log.loop.rest()
    log.store.on_commit = add
    log.store.append(log.a_record(1))
    log.loop.run_job()
    assert not held

    log.loop.run_job()
    assert log.store.durable == log.disk.end
    assert log.job_names() == []


# Failing.


@pytest.mark.parametrize("error", [FsyncError("The disk is broken."), RuntimeError("odd")])
def test_a_failure_is_told_once(log: Log, error: Exception) -> None:
    """A batch that cannot be made durable ends the broker, whatever the reason."""
    durable = log.store.durable
    log.engine.append_error = error
    heard: list[int] = []
    log.store.on_durable = lambda: heard.append(log.store.durable)
    log.publish(1)
    log.loop.rest()
    log.publish(1)
    log.loop.settle()
    log.publish(1)
    log.loop.settle()

    assert len(log.failures) == 1
    assert str(error) in log.failures[0]
    assert log.store.durable == durable
    assert heard == []


def test_nobody_waits_for_ever_after_a_failure(log: Log) -> None:
    """Who waits for a position that will not be durable is told, be it before or after."""
    log.engine.append_error = FsyncError("The disk is broken.")
    position = log.store.append(log.a_record(1))
    before = log.loop.create_task(log.store.wait_durable(position))
    log.loop.settle()
    after = log.loop.create_task(log.store.wait_durable(position))
    log.loop.settle()

    for task in (before, after):
        with pytest.raises(FsyncError, match="The disk is broken"):
            task.result()


def test_a_store_that_failed_can_be_closed(log: Log) -> None:
    """Closing lets go of the engine, though not everything is safe."""
    log.engine.append_error = FsyncError("The disk is broken.")
    log.publish(1)
    log.loop.settle()
    log.close()

    assert log.engine.closed
    assert len(log.failures) == 1


# Coming back.


@pytest.mark.parametrize("indexed", [True, False])
def test_what_was_closed_comes_back(indexed: bool) -> None:
    """Messages, their holders, definitions and ids are there again, with or without indexes."""
    disk = Disk(500, indexed=indexed)
    with life(disk) as log:
        log.declare(1, 2, 3)
        log.store.append(ExchangeDeclared("/", "x", "topic", True, False, Table.EMPTY))
        log.store.append(Bound("/", "x", "queue-1", True, b"#", Table.EMPTY))
        messages = [log.publish(1, 2, body=b"%d" % number) for number in range(20)]
        log.settle(1, *messages[:12], release=False)
        log.settle(2, *messages[5:], release=False)
        log.publish(3, body=b"")
        log.close()
    with life(disk) as log:
        assert log.holders() == {1: [2], 2: [2], 3: [2], 4: [2], 5: [2]} | {
            message_id: [1] for message_id in range(13, 21)
        } | {21: [3]}
        numbers = (*range(5), *range(12, 20))
        assert log.fetched() == [*(b"%d" % number for number in numbers), b""]
        message = log.messages()[0]
        assert (message.exchange, message.routing_key) == ("", "key")
        assert (message.published_ms, message.persistent) == (1001, True)
        assert [record.message.holders for record in log.recovered.messages.values()] == [1] * 14
        assert list(log.recovered.queues) == [1, 2, 3]
        assert [each.type_name for each in log.recovered.exchanges.values()] == ["topic"]
        assert len(log.recovered.bindings) == 1
        assert (log.recovered.last_message_id, log.recovered.last_queue_id) == (21, 3)
        assert log.store.durable == disk.end


def test_recovered_messages_have_no_content() -> None:
    """A long log must not fill the memory: contents are there when they are fetched."""
    disk = Disk()
    with life(disk) as log:
        log.declare(1)
        log.publish(1, body=b"content")
        log.close()
    for indexed in (True, False):
        disk.indexed = indexed
        with life(disk) as log:
            message = log.messages()[0]
            assert (message.address, message.header_frame, message.body_frame) == (b"", b"", b"")
            assert message.body_size == 7


def test_a_record_from_the_future_is_refused() -> None:
    """What this version cannot understand stops the start with a sentence and a position."""
    disk = Disk()
    with life(disk) as log:
        log.declare(1)
        log.loop.settle()
        position = log.engine.end
        log.engine.append(frame_record(99, 1, b"?"), b"", False)
        disk.indexed = False
        log.engine.close()
    with SteppedLoop() as loop:
        store = LogStore(MemoryLogEngine(disk), lambda sentence: None)
        loop.complete(store.start())
        with pytest.raises(FormatError, match=f"position {position} .*unknown record kind 99"):
            store.recover()


def test_a_transaction_survives_whole_or_not_at_all() -> None:
    """Its records have positions of their own and lie in one."""
    for kept in (0, 1):
        disk = Disk()
        with life(disk) as log:
            log.declare(1, 2)
            old = log.publish(1, body=b"old")
            log.loop.settle()
            records = [log.a_record(1, body=b"new"), log.a_record(1, 2, body=b"newer")]
            log.store.append(Committed([*records, Settled(1, [old.message_id])]))
            log.loop.rest()
            log.engine.cut_power = True
            log.loop.run_job()
            disk.crash(kept)
        for indexed in (True, False):
            disk.indexed = indexed
            with life(disk) as log:
                assert log.fetched() == ([b"new", b"newer"] if kept else [b"old"])
                log.close()


def test_a_clean_stop_is_over_when_the_next_life_begins() -> None:
    """From then on deliveries leave no trace, so it must not look as if nothing had happened."""
    disk = Disk()
    with life(disk) as log:
        log.declare(1)
        message = log.publish(1)
        log.store.append(Delivered(1, [message.message_id]))
        log.stop()
    with life(disk) as log:
        assert log.recovered.stopped
        assert [kind for _, kind, _ in disk.records()][-1] == STARTED
        assert log.store.durable == disk.end
    with life(disk) as log:
        assert not log.recovered.stopped
        assert log.recovered.is_redelivered(1, 1)


def test_nothing_follows_a_clean_stop() -> None:
    """Cleaning that is under way ends where it is."""
    disk = Disk(400)
    with life(disk) as log:
        log.declare(1, 2)
        log.publish(2, body=b"long-lived")
        for _ in range(40):
            log.settle(1, log.publish(1))
            log.loop.rest()
            while log.loop.jobs and log.job_names() != ["read_many"]:
                log.loop.run_job()
            if log.loop.jobs:
                break
        else:
            raise AssertionError("cleaning never began to copy")
        log.stop()
    with life(disk) as log:
        assert log.recovered.stopped
        assert log.fetched() == [b"long-lived"]


# Reading.


def test_contents_are_fetched(log: Log) -> None:
    """What was let go of comes back as it was."""
    messages = [log.publish(1, body=b"%d" % number) for number in range(3)]
    contents = [(each.address, each.header_frame, each.body_frame) for each in messages]
    log.loop.settle()
    for message in messages:
        message.address = message.header_frame = message.body_frame = b""
    log.complete(log.store.fetch(messages[::-1]))

    assert [(each.address, each.header_frame, each.body_frame) for each in messages] == contents


def test_what_is_not_written_yet_is_waited_for(log: Log) -> None:
    """A message may be wanted again before its batch is on the disk."""
    message = log.publish(1, body=b"soon")
    message.header_frame = message.body_frame = b""
    log.complete(log.store.fetch([message]))

    assert message.body == b"soon"


def test_a_flipped_bit_costs_one_message(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    """A content that cannot be read is reported and left out; those around it are read."""
    messages = [log.publish(1, body=b"body-%d" % number) for number in range(3)]
    log.loop.settle()
    for message in messages:
        message.header_frame = message.body_frame = b""
    log.disk.flip_bit(messages[1].position + 40)
    log.complete(log.store.fetch(messages))

    assert [message.body for message in messages] == [b"body-0", b"", b"body-2"]
    assert messages[1].header_frame == b""
    assert [each.getMessage() for each in caplog.records] == [
        f"message 2 at position {messages[1].position} of the log cannot be read: its checksum "
        "does not hold; it will not be delivered"
    ]
    assert log.failures == []


def test_an_unreadable_part_of_a_disk_costs_its_messages(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the disk itself refuses, the rest of what was asked for is read all the same."""
    messages = [log.publish(1, body=b"body-%d" % number) for number in range(3)]
    log.loop.settle()
    for message in messages:
        message.header_frame = message.body_frame = b""
    log.disk.unreadable.add(messages[1].position)
    log.complete(log.store.fetch(messages))

    assert [message.body for message in messages] == [b"body-0", b"", b"body-2"]
    assert "can't be read" in caplog.text


def test_what_nobody_holds_is_not_fetched(log: Log) -> None:
    """A queue may be purged while its contents are on the way."""
    message = log.publish(1, body=b"gone")
    log.loop.settle()
    message.header_frame = message.body_frame = b""
    log.settle(1, message)
    log.complete(log.store.fetch([message]))

    assert message.header_frame == b""


# Cleaning.


def live_bytes(log: Log, messages: list[Message], definitions: int) -> int:
    """What the records take of `messages` and of as many queues as `definitions` says."""
    found = {
        decode_published(payload).message.message_id: 10 + len(payload)
        for _, kind, payload in log.disk.records()
        if kind == PUBLISHED
    }
    queues = [10 + len(payload) for _, kind, payload in log.disk.records() if kind == 3]
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


def pass_through(log: Log) -> None:
    """Messages that live shortly, enough to have a segment cleaned."""
    log.settle(9, *[log.publish(9, body=bytes(300)) for _ in range(20)])
    log.loop.settle()


@pytest.fixture
def head() -> Iterator[Log]:
    """A store whose first segment is full of what the test puts there."""
    with life(Disk(600)) as log:
        log.declare(1, 2, 9)
        yield log


def after(log: Log) -> dict[int, list[int]]:
    """Who holds what after a crash."""
    log.disk.crash()
    log.loop.abandon()
    with life(log.disk) as log:
        return log.holders()


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


# The end.


def test_closing_makes_everything_durable(log: Log) -> None:
    """What was appended is safe when the store is closed, and the engine is let go of."""
    position = log.store.append(log.a_record(1))
    log.close()

    assert log.store.durable == position == log.disk.end
    assert log.engine.closed
    assert not log.disk.locked


def test_closing_waits_for_cleaning(head: Log) -> None:
    """Nobody trims an engine that is closed: what cleaning began is over before."""
    message = head.publish(1, body=b"live")
    head.loop.settle()
    head.settle(9, *[head.publish(9, body=bytes(300)) for _ in range(20)])
    while head.job_names() != ["trim"]:
        head.loop.rest()
        assert head.loop.jobs, "cleaning trims"
        head.loop.run_job()
    closing = head.loop.create_task(head.store.close())
    head.loop.rest()
    assert head.job_names() == ["trim"], "the engine is not closed yet"

    head.loop.settle()
    assert closing.done()
    assert head.engine.closed
    assert head.failures == []
    assert after(head) == {message.message_id: [1]}


def test_closing_twice(log: Log) -> None:
    """A second close does nothing."""
    log.close()
    log.close()

    assert log.engine.closed


def test_closing_what_was_never_started() -> None:
    """A store that was not started has nothing to let go of."""
    with SteppedLoop() as loop:
        engine = MemoryLogEngine(Disk())
        loop.complete(LogStore(engine, lambda sentence: None).close())

    assert not engine.closed


def test_a_damaged_engine_at_start(log: Log) -> None:
    """What the engine raises during recovery comes through, to stop the start."""
    log.close()
    engine = MemoryLogEngine(log.disk)
    engine.batches_error = CorruptError("A file is damaged.", "file", 0, "Mend it.")
    with SteppedLoop() as loop:
        store = LogStore(engine, lambda sentence: None)
        loop.complete(store.start())
        with pytest.raises(CorruptError, match="A file is damaged"):
            store.recover()
