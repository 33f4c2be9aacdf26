"""The memory budget: what is let go, what stays, what comes back."""

from core_support import a_header

from broker.core.message import Message, frame_form
from broker.core.packed import Row
from broker.core.paging import Memory
from broker.core.queue import Queue
from broker.core.queue_arguments import QueueArguments
from broker.core.turn import Turn
from broker.store.memory import MemoryStore

WINDOW = 4


def nobody() -> None:
    """Wakes nobody, waits for nothing."""


def a_queue(budget_bytes: int = 1) -> tuple[Queue, Memory, Turn]:
    """A durable queue under a budget that its messages exceed."""
    turn = Turn(nobody)
    memory = Memory(budget_bytes, WINDOW)
    queue = Queue("q", 1, QueueArguments.EMPTY, MemoryStore(), turn, durable=True, memory=memory)
    return queue, memory, turn


def fill(queue: Queue, count: int, *, persistent: bool = True) -> None:
    """Push messages that the log has at the position of their id."""
    for message_id in range(1, count + 1):
        message = Message(b"\0\1q", a_header(), frame_form(b"body"), 4, persistent)
        message.message_id = message_id
        if persistent:
            message.position = message_id
            message.holders = 1
        queue.push(message)


def read(rows: list[Row]) -> None:
    """Give the rows their contents."""
    for row in rows:
        row.message.header_frame = a_header()
        row.message.body_frame = frame_form(b"body")


def taken(queue: Queue, count: int) -> list[int]:
    """The ids of the next messages."""
    entries = [queue.get(no_ack=True) for _ in range(count)]
    return [entry.message.message_id for entry in entries if entry is not None]


def test_the_head_stays_and_the_rest_goes() -> None:
    """The first window of messages is there at once; what follows has to be fetched."""
    queue, memory, _ = a_queue()
    fill(queue, 10)
    memory.relieve(durable=100, count=100)

    assert taken(queue, WINDOW) == [1, 2, 3, 4]
    assert queue.await_content(nobody)


def test_what_comes_back_goes_on_in_order() -> None:
    """Block by block, with what arrived meanwhile behind."""
    queue, memory, _ = a_queue()
    fill(queue, 10)
    memory.relieve(durable=100, count=100)
    ids: list[int] = []
    while queue.ready_count:
        if queue.await_content(nobody):
            rows = queue.begin_fetch()
            read(rows)
            queue.end_fetch(rows)
        ids += taken(queue, 1)

    assert ids == list(range(1, 11))
    assert memory.used_bytes == 0


def test_who_waits_for_a_content_is_called() -> None:
    """Once, when it has come."""
    queue, memory, _ = a_queue()
    fill(queue, 10)
    memory.relieve(durable=100, count=100)
    taken(queue, WINDOW)
    called: list[bool] = []
    queue.await_content(lambda: called.append(True))
    rows = queue.begin_fetch()
    read(rows)
    queue.end_fetch(rows)

    assert called == [True]


def test_nothing_goes_before_the_log_has_it() -> None:
    """What is not durable stays until it is."""
    queue, memory, _ = a_queue()
    fill(queue, 10)
    memory.relieve(durable=7, count=100)

    assert len(queue.ready.entries()) == 10 - 2


def test_transient_messages_stay() -> None:
    """The log does not have them, so they keep their content and their place."""
    queue, memory, _ = a_queue()
    fill(queue, 10, persistent=False)
    memory.relieve(durable=100, count=100)

    assert taken(queue, 10) == list(range(1, 11))


def test_within_the_budget_nothing_goes() -> None:
    """Letting go stops as soon as memory is within its budget."""
    queue, memory, _ = a_queue(budget_bytes=1 << 30)
    fill(queue, 10)
    memory.relieve(durable=100, count=100)

    assert len(queue.ready.entries()) == 10


def test_a_read_that_a_purge_made_pointless_changes_nothing() -> None:
    """What comes after the purge belongs to nobody."""
    queue, memory, _ = a_queue()
    fill(queue, 12)
    memory.relieve(durable=100, count=100)
    taken(queue, WINDOW)
    queue.await_content(nobody)
    rows = queue.begin_fetch()
    assert queue.purge()[0] == 8
    read(rows)
    queue.end_fetch(rows)

    assert (queue.ready_count, queue.ready.entries(), memory.used_bytes) == (0, [], 0)


def test_what_cannot_be_read_leaves_the_queue() -> None:
    """It is never delivered, and the rest goes on."""
    queue, memory, _ = a_queue()
    fill(queue, 8)
    memory.relieve(durable=100, count=100)
    taken(queue, WINDOW)
    queue.await_content(nobody)
    rows = queue.begin_fetch()
    read(rows[1:])
    queue.end_fetch(rows)

    assert queue.ready_count == 3
    assert taken(queue, 3) == [6, 7, 8]


def test_a_content_that_several_queues_want_counts_for_each() -> None:
    """After a restart one queue fetches what another holds too: both give back what they count."""
    first, memory, _ = a_queue(1 << 20)
    second = Queue(
        "r", 2, QueueArguments.EMPTY, MemoryStore(), Turn(nobody), durable=True, memory=memory
    )
    messages: list[Message] = []
    for message_id in range(1, WINDOW):
        message = Message(b"\0\1q", b"", b"", 4, True)
        message.message_id = message_id
        message.holders = 2
        messages.append(message)
    for queue in (first, second):
        queue.restore(None, messages, None)
    for queue in (first, second):
        rows = queue.begin_fetch()
        read(rows)
        queue.end_fetch(rows)
        taken(queue, len(messages))
        assert (memory.used_bytes, queue.ready.absent_bytes) == (0, 0)
