"""A queue under a memory budget against a plain list: whatever is let go comes back, in order."""

from collections.abc import Sequence
from typing import Any

import hypothesis.strategies as st
from core_support import RecordingSink
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker.core.consumer import Consumer
from broker.core.message import Message, frame_form
from broker.core.packed import Row
from broker.core.paging import Memory, content_bytes
from broker.core.queue import Entry, Queue
from broker.core.queue_arguments import QueueArguments
from broker.core.turn import Budget, Turn
from broker.store.memory import MemoryStore

WINDOW = 4
HEADER = frame_form(bytes(14))


def nobody() -> None:
    """Wakes nobody: turns are run by hand."""


class PagingMachine(RuleBasedStateMachine):
    """One durable queue, contents that go and come, and a list that says what must come out."""

    def __init__(self) -> None:
        super().__init__()
        self.turn = Turn(nobody)
        self.memory = Memory(budget_bytes=1, window=WINDOW)
        self.store = MemoryStore()
        self.queue = Queue(
            "q", 1, QueueArguments.EMPTY, self.store, self.turn, durable=True, memory=self.memory
        )
        self.last_id = 0
        #: what the log has, by message id
        self.log: dict[int, bytes] = {}
        self.durable = 0
        #: ids that wait, in order, and those that somebody has
        self.waiting: list[int] = []
        self.held: list[Entry] = []
        self.redelivered: set[int] = set()
        self.unreadable: set[int] = set()
        #: reads under way; a purge may have made them pointless
        self.fetches: list[list[Row]] = []
        #: ids of messages that another queue holds too
        self.shared: set[int] = set()

    def body(self, message_id: int) -> bytes:
        """Every message has a body of its own."""
        return b"%d" % message_id * (1 + message_id % 3)

    @rule(persistent=st.booleans(), holders=st.sampled_from([1, 1, 1, 2]), count=st.integers(1, 6))
    def publish(self, persistent: bool, holders: int, count: int) -> None:
        for _ in range(count):
            self.last_id += 1
            body = self.body(self.last_id)
            message = Message(b"\0\1q", HEADER, frame_form(body), len(body), persistent)
            message.message_id = self.last_id
            if persistent:
                message.position = self.last_id
                message.holders = holders
                self.log[self.last_id] = body
                if holders > 1:
                    self.shared.add(self.last_id)
            self.queue.push(message)
            self.waiting.append(self.last_id)

    @rule()
    def sync(self) -> None:
        """Everything published so far is safe in the log."""
        self.durable = self.last_id + 1

    @rule(count=st.integers(1, 10), synced=st.booleans())
    def relieve(self, count: int, synced: bool) -> None:
        if synced:
            self.sync()
        self.memory.relieve(self.durable, count)

    @precondition(lambda self: self.turn.fetches)
    @rule()
    def begin_fetch(self) -> None:
        self.turn.fetches.clear()
        self.fetches.append(self.queue.begin_fetch())

    @precondition(lambda self: self.fetches)
    @rule(spoil=st.sets(st.integers(0, WINDOW - 1), max_size=1), last=st.booleans())
    def end_fetch(self, spoil: set[int], last: bool) -> None:
        """The contents come; of some the record cannot be read."""
        rows = self.fetches.pop(-1 if last else 0)
        for number, row in enumerate(rows):
            if not row.was_absent:
                continue
            message_id = row.message.message_id
            if number in spoil:
                if message_id in self.waiting:
                    self.unreadable.add(message_id)
                continue
            row.message.address = b"\0\1q"
            row.message.header_frame = HEADER
            row.message.body_frame = frame_form(self.log[message_id])
        before = self.queue.ready_count
        self.queue.end_fetch(rows)
        if self.queue.ready_count < before:
            self.waiting = [each for each in self.waiting if each not in self.unreadable]

    @rule(no_ack=st.booleans(), count=st.integers(1, 5))
    def get(self, no_ack: bool, count: int) -> None:
        for _ in range(count):
            if self.queue.await_content(nobody):
                return
            entry = self.queue.get(no_ack)
            if entry is None:
                assert not self.waiting
                return
            self.came_out(entry)
            if not no_ack:
                self.held.append(entry)

    def came_out(self, entry: Entry) -> None:
        """The first that waits came out, whole."""
        message_id = self.waiting.pop(0)
        assert entry.message.message_id == message_id
        assert entry.message.body == self.body(message_id)
        assert entry.redelivered == (message_id in self.redelivered)

    @rule(budget=st.integers(1, 20))
    def deliver(self, budget: int) -> None:
        """A consumer comes, takes what a turn gives it, and goes."""
        sink = RecordingSink(self.turn)
        consumer = Consumer("tag", sink, self.queue)
        self.queue.add_consumer(consumer)
        self.queue.start(consumer)
        before = len(self.waiting)
        self.queue.dispatch(Budget(budget, 1 << 30))
        for delivery in sink.deliveries:
            assert delivery.entry is not None
            self.came_out(delivery.entry)
            self.held.append(delivery.entry)
        self.queue.remove_consumer(consumer)
        assert len(sink.deliveries) <= budget
        assert before - len(self.waiting) == len(sink.deliveries)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def requeue(self, data: st.DataObject) -> None:
        entry = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        self.queue.requeue(entry)
        message_id = entry.message.message_id
        self.redelivered.add(message_id)
        self.waiting = sorted([*self.waiting, message_id])

    @precondition(lambda self: self.held)
    @rule()
    def ack(self) -> None:
        self.queue.ack(self.held.pop())

    @rule()
    def purge(self) -> None:
        assert self.queue.purge()[0] == len(self.waiting)
        self.waiting.clear()

    @rule(count=st.integers(1, 10))
    def drop_remains(self, count: int) -> None:
        self.turn.drop_remains(count)

    @rule(budget_bytes=st.sampled_from([1, 3000, 1 << 30]))
    def change_budget(self, budget_bytes: int) -> None:
        self.memory.budget_bytes = budget_bytes

    @invariant()
    def counts_are_right(self) -> None:
        assert self.queue.ready_count == len(self.waiting)
        assert self.queue.ready_bytes == sum([len(self.body(each)) for each in self.waiting])
        assert self.queue.unacked_count == len(self.held)
        assert sorted(self.queue.ready.persistent_ids()) == [
            each for each in self.waiting if each in self.log
        ]
        assert sorted(self.queue.ready.redelivered_ids()) == [
            each for each in self.waiting if each in self.log and each in self.redelivered
        ]

    @invariant()
    def only_what_is_safe_is_absent(self) -> None:
        there = {entry.message.message_id for entry in self.queue.ready.entries()}
        for message_id in self.waiting:
            if message_id in self.log and message_id not in self.shared | there:
                assert message_id < self.durable

    @invariant()
    def memory_is_what_is_there(self) -> None:
        """What is counted is what waits, less what is absent."""
        waiting = sum([content_bytes(message_of(each, self)) for each in self.waiting])
        assert self.memory.used_bytes == waiting - self.queue.ready.absent_bytes
        assert self.queue.ready.absent_bytes >= 0


def message_of(message_id: int, machine: PagingMachine) -> Message:
    """A message of that size."""
    return Message(b"", b"", b"", len(machine.body(message_id)), True)


TestPagingMachine: Any = PagingMachine.TestCase
TestPagingMachine.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
__all__: Sequence[str] = ["TestPagingMachine"]
