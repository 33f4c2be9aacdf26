"""A history comes back: from indexes, from records, whole or cut."""

import pytest
from stepped_loop import SteppedLoop
from store.engine_double import Disk, MemoryLogEngine
from store.log_support import life

from broker.core.record_codec import STARTED
from broker.core.records import (
    Bound,
    Committed,
    Delivered,
    ExchangeDeclared,
    Settled,
)
from broker.core.table import Table
from broker.store.errors import FormatError
from broker.store.log import LogStore
from broker.store.segment import frame_record


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
