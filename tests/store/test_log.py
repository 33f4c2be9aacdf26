"""The ordered history: positions, group commit, failures, a full disk, reading back, the end.

The engine is a double and threads run when a test says so; `tests/stateful/test_log_machine.py`
looks for the orders of events that nobody thought of.
"""

import pytest
from stepped_loop import SteppedLoop
from store.engine_double import Disk, MemoryLogEngine
from store.log_support import Log, after

from broker.core.records import Settled
from broker.store.errors import CorruptError, FsyncError
from broker.store.log import LogStore

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


# A full disk.


def test_a_batch_that_finds_the_disk_full_goes_to_the_reserve(log: Log) -> None:
    """What was accepted before anybody knew is made durable all the same, and publishers told."""
    log.disk.full = True
    position = log.store.append(log.a_record(1))
    log.loop.settle()

    assert log.store.durable == position
    assert log.told == [True]
    assert log.failures == []


def test_the_reserve_is_used_as_long_as_the_disk_is_full(log: Log) -> None:
    """Settlements and deletions go on meanwhile, and publishers are told once."""
    message = log.publish(1)
    log.disk.full = True
    log.settle(1, message)
    log.loop.settle()
    log.declare(3)
    log.loop.settle()

    assert log.store.durable == log.disk.end
    assert log.told == [True]


def test_publishers_go_on_when_the_reserve_is_whole_again(log: Log) -> None:
    """Room is looked for again and again; when there is some, publishers are told."""
    log.disk.full = True
    log.publish(1)
    log.loop.settle()
    log.loop.advance(1.5)
    log.loop.settle()
    assert log.told == [True]

    log.disk.full = False
    log.loop.advance(1.5)
    log.loop.settle()
    assert log.told == [True, False]

    log.disk.full = True
    log.publish(1)
    log.loop.settle()
    assert log.told == [True, False, True]


def test_a_disk_without_a_reserve_ends_the_broker(log: Log) -> None:
    """When there is no room at all, nothing can be promised any more."""
    log.disk.full = True
    log.disk.reserve = False
    log.publish(1)
    log.loop.settle()

    assert log.failures == ["The disk is full."]
    assert log.told == []


def test_nobody_looks_for_room_after_the_end(log: Log) -> None:
    """A closed store leaves its engine alone, whatever it was waiting for."""
    log.disk.full = True
    log.publish(1)
    log.loop.settle()
    log.close()
    log.loop.advance(10)
    log.loop.settle()

    assert log.told == [True]
    assert log.loop.jobs == []


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
