"""A broker on a log whose power fails at any moment, checked against a list of what happened.

The broker is the real one, with the real LogStore and the real way to start again; what is below
them is the affair of a subclass, and threads run when the machine says so. So a step of the event
loop, a batch written, a segment read or trimmed are rules beside publishing and acknowledging, and
the power fails between any two of them, or within one.

The model knows for each thing that happened the position behind its record. What a crash left of
the log is all that matters: what happened before its end holds, and nothing else does. That covers
every promise, as no position is promised before it is durable.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

from core_support import a_message
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from stepped_loop import SteppedLoop

from broker import Broker, Config
from broker.core.clock import ManualClock
from broker.core.message import Message
from broker.core.queue import Entry, Queue
from broker.core.records import Committed, Record, Settled
from broker.core.recovery import State
from broker.core.table import Table
from broker.core.transaction import Settlement, Transaction
from broker.core.vhost import VirtualHost
from broker.store.log import LogStore
from broker.store.log_engine import LogEngine
from broker.store.segment import RECORD_HEAD_BYTES

#: A handful of messages go into one segment.
SEGMENT_BYTES = 400

#: Queues by slot: some are durable and some are not, so that a fan-out meets both.
SLOTS = ("durable-1", "durable-2", "durable-3", "transient")
EXCHANGES = ("exchange-1", "exchange-2")

slots = st.integers(0, len(SLOTS) - 1)
some_slots = st.sets(slots, min_size=1)
exchanges = st.sampled_from(EXCHANGES)
numbers = st.integers(0, 40)
some_choices = st.lists(numbers, max_size=8)
settlements = st.sampled_from(Settlement)
#: how many unsynced records a crash leaves; often none or all
kept_records = st.sampled_from((0, 1, 2, 3, 5, 8, 1000))


class Hold:
    """A message in a queue."""

    def __init__(self, number: int, message: Message, published_at: int) -> None:
        #: its content
        self.number = number
        self.message_id = message.message_id
        #: where the store is to look for it
        self.position = message.position
        #: behind the record that made it so; 0 when nothing did
        self.published_at = published_at
        #: behind the record that ended it
        self.settled_at: int | None = None
        #: behind the first publish after its settlement: once that is confirmed this stays gone
        self.gone_with: int | None = None
        #: in line, as opposed to being with somebody or gone
        self.waiting = True
        #: somebody was given it, in whatever life
        self.delivered = False
        #: what its next delivery says of that
        self.redelivered = False

    def survives(self, end: int) -> bool:
        """Whether it is in its queue after a crash that left the log up to `end`."""
        if not 0 < self.published_at <= end:
            return False
        return self.settled_at is None or self.settled_at > end


class QueueModel:
    """A queue under one id."""

    def __init__(self, name: str, queue: Queue) -> None:
        self.name = name
        self.queue = queue
        self.queue_id = queue.queue_id
        self.holds: dict[int, Hold] = {}

    def waiting(self) -> list[Hold]:
        """What is in line, first in first."""
        return sorted(
            [hold for hold in self.holds.values() if hold.waiting], key=lambda hold: hold.message_id
        )


#: What is declared: ("queue", id, name), ("exchange", name, type) or ("binding", ...).
Definitions = frozenset[tuple[object, ...]]


class WatchedStore(LogStore):
    """Says where the records that settle messages end, and what was recovered."""

    __slots__ = ("recovered", "settled", "survived", "was_stopped")

    settled: Callable[[Settled, int], None]
    recovered: dict[int, Message]
    #: where the log ended when this life began, and whether with a clean stop
    survived: int
    was_stopped: bool

    def recover(self) -> State:
        state = super().recover()
        self.was_stopped = state.stopped
        # A life after a clean stop begins with a record of its own.
        self.survived = self._end - (RECORD_HEAD_BYTES if state.stopped else 0)
        self.recovered = {
            message_id: record.message for message_id, record in state.messages.items()
        }
        return state

    def append(self, record: Record) -> int:
        position = super().append(record)
        for each in record.records if isinstance(record, Committed) else (record,):
            if isinstance(each, Settled):
                self.settled(each, position)
        return position


class DeafBroker(Broker):
    """A broker that nobody connects to: sockets would only cost time here."""

    async def _listen(self) -> None:
        pass


class Alarms(logging.Handler):
    """Remembers what the store complains of."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def nothing() -> None:
    """Nobody is called when the content is there: whoever wants it asks again."""


class LogMachine(RuleBasedStateMachine):
    """See the module's theory."""

    store_class: type[WatchedStore] = WatchedStore

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        #: every queue there was, by id
        self.models: dict[int, QueueModel] = {}
        #: the queues there are, by slot
        self.slots: dict[int, QueueModel] = {}
        #: deliveries to be settled
        self.entries: list[Entry] = []
        #: what was declared behind each position where that changed
        self.history: list[tuple[int, Definitions]] = [(0, frozenset())]
        self.definitions: Definitions = frozenset()
        #: (position, id) of every message and every durable queue that the log had
        self.message_ids: list[tuple[int, int]] = [(0, 0)]
        self.queue_ids: list[tuple[int, int]] = [(0, 0)]
        self.published = 0
        #: what was settled since the last publish that the log has
        self.just_settled: list[Hold] = []
        #: what was settled before a publish and was not seen to be safely so
        self.owed: list[Hold] = []
        #: how many unsynced records survive when the power fails in a start
        self.kept_in_start = 0
        #: the power failed: nothing is done any more until the next life
        self.dead = False
        #: how far everything was durable when the last life ended
        self.promised = 0
        self.alarms = Alarms()
        logging.getLogger("broker.store").addHandler(self.alarms)
        self.make_disk()
        self.start()
        for name in EXCHANGES:
            self.declare_exchange(name, "topic")
        for slot in range(len(SLOTS)):
            self.declare(slot)
            self.bind_or_unbind(EXCHANGES[0], slot, b"a")

    def teardown(self) -> None:
        self.lose_power(0, 0)
        self.loop.abandon()
        logging.getLogger("broker.store").removeHandler(self.alarms)

    # What is below the store.

    def make_disk(self) -> None:
        """An empty disk."""
        raise NotImplementedError

    def make_engine(self) -> LogEngine:
        """An engine for one life on the disk."""
        raise NotImplementedError

    def lose_power(self, kept: int, restored: int) -> None:
        """The power fails now; a later life finds what the disk kept.

        Arguments:
            kept: how many unsynced records survive, at most.
            restored: how many trimmed segments are there again, at most.
        """
        raise NotImplementedError

    def spoil_start(self) -> None:
        """The power will fail during the next start."""
        raise NotImplementedError

    def run_job(self, number: int) -> None:
        """Have a thread do something; the power may fail in it."""
        self.loop.jobs.pop(number).run()

    # A life.

    def start(self) -> None:
        """Begin a life, with as many starts as it takes."""
        while not self.try_start():
            self.end_life(kept=self.kept_in_start, restored=0)

    def try_start(self) -> bool:
        """Start a broker; False when the power failed meanwhile."""
        self.loop = SteppedLoop()
        self.loop.set_exception_handler(self.raised)
        self.engine = self.make_engine()
        self.store = self.store_class(self.engine, self.failed)
        self.store.settled = self.note_settled
        self.broker = DeafBroker(Config(port=0), clock=self.clock, store=self.store)
        if not self.complete(self.broker.start()):
            return False
        self.vhost: VirtualHost = self.broker._node.vhosts["/"]
        self.recovered = self.store.recovered
        self.entries = []
        self.just_settled = []
        self.owed = []
        return True

    def complete(self, coroutine: Coroutine[Any, Any, None]) -> bool:
        """Run everything until `coroutine` is done; False when the power failed meanwhile."""
        task = self.loop.create_task(coroutine)
        self.loop.rest()
        while not task.done() and not self.dead:
            assert self.loop.jobs, "it waits for something that nobody does"
            self.run_job(0)
            self.loop.rest()
        if not self.dead:
            task.result()
        return not self.dead

    def end_life(self, kept: int, restored: int) -> None:
        """Nothing goes on; what is left is on the disk."""
        self.lose_power(kept, restored)
        self.loop.abandon()
        self.dead = False
        self.alarms.texts.clear()

    def failed(self, sentence: str) -> None:
        self.alarms.texts.append(f"the store gave up: {sentence}")

    def raised(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not loop.is_closed():
            self.alarms.texts.append(f"a callback raised: {context}")

    def check_calm(self) -> None:
        """Nothing went wrong unheard."""
        assert self.alarms.texts == []

    def note_settled(self, record: Settled, position: int) -> None:
        for message_id in record.message_ids:
            self.models[record.queue_id].holds[message_id].settled_at = position

    # What clients do.

    def make_message(self) -> tuple[int, bytes]:
        self.published += 1
        return self.published, b"%d" % self.published

    def at(self, which: set[int]) -> list[QueueModel]:
        """The queues at these slots."""
        return [self.slots[slot] for slot in sorted(which) if slot in self.slots]

    @rule(
        to=some_slots,
        count=st.integers(1, 5),
        persistent=st.sampled_from((True, True, True, False)),
    )
    def publish(self, to: set[int], count: int, persistent: bool) -> None:
        models = self.at(to)
        for _ in range(count if models else 0):
            number, body = self.make_message()
            message = a_message(body, persistent=persistent)
            position = self.vhost.publish(message, tuple(model.queue for model in models))
            self.note_published(models, number, message, position)

    def note_published(
        self, models: list[QueueModel], number: int, message: Message, position: int
    ) -> None:
        for model in models:
            kept = message.persistent and model.queue.durable
            model.holds[message.message_id] = Hold(number, message, position if kept else 0)
            if kept:
                assert position > 0, "a message that a durable queue must keep has a position"
                self.message_ids.append((position, message.message_id))
                for hold in self.just_settled:
                    hold.gone_with = position
                    self.owed.append(hold)
                self.just_settled = []

    def take(self, model: QueueModel, no_ack: bool) -> None:
        if model.queue.await_content(nothing):
            return
        first = next(iter(model.waiting()), None)
        entry = model.queue.get(no_ack)
        if entry is None:
            assert first is None, "a message was lost"
            return
        assert first is not None, "a message came twice"
        assert entry.message.message_id == first.message_id, "order was kept"
        assert int(entry.message.body) == first.number, "its content came back"
        assert entry.redelivered is first.redelivered
        first.delivered = True
        first.waiting = False
        if no_ack:
            self.note_ack(first)
        else:
            self.entries.append(entry)

    @rule(slot=slots, count=st.integers(1, 6), no_ack=st.booleans())
    def get(self, slot: int, count: int, no_ack: bool) -> None:
        for model in self.at({slot}):
            for _ in range(count):
                self.take(model, no_ack)

    @rule(
        count=st.integers(10, 30),
        also=some_slots,
        choices=st.lists(numbers, min_size=1, max_size=8),
    )
    def pass_through(self, count: int, also: set[int], choices: list[int]) -> None:
        """Messages that live shortly, as most do, while those of other queues wait."""
        slot = SLOTS.index("durable-3")
        self.publish(to={slot, *also}, count=1, persistent=True)
        for number in range(count):
            self.publish(to={slot}, count=1, persistent=True)
            self.get(slot=slot, count=1, no_ack=True)
            self.go_on(choices[number % len(choices)])
            self.go_on(choices[number // 2 % len(choices)])

    def settle(self, entry: Entry, settlement: Settlement) -> None:
        """Follow what becomes of a delivery."""
        if not entry.queue.deleted:
            hold = self.models[entry.queue.queue_id].holds[entry.message.message_id]
            if settlement is Settlement.REQUEUE:
                hold.waiting = hold.redelivered = True
            else:
                self.note_ack(hold)

    def note_ack(self, hold: Hold) -> None:
        if hold.published_at:
            self.just_settled.append(hold)

    @rule(number=numbers, settlement=settlements)
    def settle_one(self, number: int, settlement: Settlement) -> None:
        if self.entries:
            entry = self.entries.pop(number % len(self.entries))
            self.settle(entry, settlement)
            if settlement is Settlement.ACK:
                entry.queue.ack(entry)
            elif settlement is Settlement.REJECT:
                entry.queue.reject(entry)
            else:
                entry.queue.requeue(entry)

    @rule(before=some_choices, number=numbers, slot=slots, after=some_choices)
    def answer(self, before: list[int], number: int, slot: int, after: list[int]) -> None:
        """A client acknowledges a request and publishes its reply, in one go."""
        self.work(before)
        self.settle_one(number, Settlement.ACK)
        self.publish(to={slot}, count=1, persistent=True)
        self.work(after)

    @rule(
        publishes=st.lists(some_slots, max_size=3),
        settled=st.lists(st.tuples(numbers, settlements), max_size=3),
    )
    def commit(self, publishes: list[set[int]], settled: list[tuple[int, Settlement]]) -> None:
        """A transaction, whole or not at all."""
        transaction = Transaction()
        published: list[tuple[list[QueueModel], int]] = []
        for to in publishes:
            models = self.at(to)
            number, body = self.make_message()
            message = a_message(body, persistent=True)
            transaction.publish(message, tuple(model.queue for model in models))
            published.append((models, number))
        for tag, (number, settlement) in enumerate(settled):
            if self.entries:
                entry = self.entries.pop(number % len(self.entries))
                transaction.settle(tag, entry, settlement)
                self.settle(entry, settlement)
        position = self.vhost.commit(transaction)
        for (models, number), (message, _) in zip(published, transaction.publishes, strict=True):
            self.note_published(models, number, message, position)

    @rule(slot=slots, choices=some_choices)
    def purge(self, slot: int, choices: list[int]) -> None:
        """Everything that waits goes at once, and is released a little later."""
        self.work(choices)
        if slot in self.slots:
            model = self.slots[slot]
            count, _ = model.queue.purge()
            assert count == len(model.waiting())
            for hold in model.waiting():
                hold.waiting = False

    # Definitions.

    def define(self, definitions: Definitions, position: int) -> None:
        """What is declared changed; `position` is behind the record that says so."""
        if definitions != self.definitions:
            self.definitions = definitions
            self.history.append((position, definitions))

    @rule(slot=slots, again=st.booleans())
    def declare_or_delete(self, slot: int, again: bool) -> None:
        if slot not in self.slots:
            self.declare(slot)
        else:
            self.delete(slot)
            if again:
                self.declare(slot)

    def delete(self, slot: int) -> None:
        model = self.slots[slot]
        position = self.vhost.delete_queue(model.queue)
        del self.slots[slot]
        for hold in model.waiting():
            hold.waiting = False
        gone = [
            each
            for each in self.definitions
            if each[:2] == ("queue", model.queue_id) or each[2:4] == (True, model.name)
        ]
        self.define(self.definitions.difference(gone), position)

    def declare(self, slot: int) -> None:
        name = SLOTS[slot]
        durable = name != "transient"
        queue = self.vhost.declare_queue(name, durable=durable)
        model = self.models[queue.queue_id] = self.slots[slot] = QueueModel(name, queue)
        if durable:
            position = queue.declared_position
            self.queue_ids.append((position, queue.queue_id))
            self.define(self.definitions | {("queue", model.queue_id, name)}, position)

    @rule(
        what=st.sampled_from(("exchange", "binding", "binding of exchanges")),
        name=exchanges,
        slot=slots,
        key=st.sampled_from((b"a", b"b")),
    )
    def redefine(self, what: str, name: str, slot: int, key: bytes) -> None:
        if what == "exchange":
            self.declare_or_delete_exchange(name, "direct")
        elif what == "binding":
            self.bind_or_unbind(name, slot, key)
        else:
            self.bind_or_unbind_exchanges(key)

    def declare_or_delete_exchange(self, name: str, type_name: str) -> None:
        if name in self.vhost.exchanges:
            position = self.vhost.delete_exchange(name)
            gone = [
                each
                for each in self.definitions
                if each[:2] in (("exchange", name), ("binding", name)) or each[2:4] == (False, name)
            ]
            self.define(self.definitions.difference(gone), position)
        else:
            self.declare_exchange(name, type_name)

    def declare_exchange(self, name: str, type_name: str) -> None:
        exchange = self.vhost.declare_exchange(name, type_name, durable=True)
        definitions = self.definitions | {("exchange", name, type_name)}
        self.define(definitions, exchange.declared_position)

    def bind_or_unbind(self, source: str, slot: int, key: bytes) -> None:
        model = self.slots.get(slot)
        exchange = self.vhost.exchanges.get(source)
        if model is None or exchange is None:
            return
        binding = {("binding", source, True, model.name, key)}
        if self.vhost.is_bound(exchange, model.queue, key, Table.EMPTY):
            position = self.vhost.unbind(exchange, model.queue, key, Table.EMPTY)
            definitions = self.definitions - binding
        else:
            position = self.vhost.bind(source, model.queue, key, Table.EMPTY)
            definitions = self.definitions | binding
        if model.queue.durable:
            self.define(definitions, position)

    def bind_or_unbind_exchanges(self, key: bytes) -> None:
        source, destination = [self.vhost.exchanges.get(name) for name in EXCHANGES]
        if source is None or destination is None:
            return
        binding = {("binding", source.name, False, destination.name, key)}
        if self.vhost.is_bound(source, destination, key, Table.EMPTY):
            position = self.vhost.unbind(source, destination, key, Table.EMPTY)
            self.define(self.definitions - binding, position)
        else:
            position = self.vhost.bind(source.name, destination, key, Table.EMPTY)
            self.define(self.definitions | binding, position)

    # What the machine does.

    def go_on(self, choice: int) -> None:
        """The event loop goes round, or a thread does something: write, read or trim."""
        jobs: list[int] = []
        writes = False
        for number, job in enumerate(self.loop.jobs):
            # There is one thread that writes, and there are many others.
            if job.executor is None or not writes:
                jobs.append(number)
            writes = writes or job.executor is not None
        if self.dead:
            return
        if jobs and choice % 3:
            self.run_job(jobs[choice % len(jobs)])
        else:
            self.loop.step()

    @rule(choices=some_choices)
    def work(self, choices: list[int]) -> None:
        """The broker goes on a little."""
        for choice in choices:
            self.go_on(choice)

    @rule()
    def come_to_rest(self) -> None:
        """Nothing else happens until all is done; cleaning included."""
        self.loop.rest()
        while self.loop.jobs and not self.dead:
            self.run_job(0)
            self.loop.rest()
        if not self.dead:
            assert self.store.durable == self.engine.end
            self.check_contents()
        self.check_calm()

    @invariant()
    def settled_before_confirmed(self) -> None:
        """Once a publish is confirmed, what its client settled before it stays settled."""
        durable = self.store.durable
        owed, self.owed = self.owed, []
        for hold in owed:
            assert hold.gone_with is not None
            if hold.gone_with > durable:
                self.owed.append(hold)
            else:
                assert hold.settled_at is not None and hold.settled_at <= durable

    # The end of a life.

    @rule(
        how=st.sampled_from(
            ("crash", "crash in commit", "stop", "crash in stop", "crash in start")
        ),
        kept=kept_records,
        restored=st.integers(0, 1),
        choices=st.lists(numbers, min_size=1, max_size=8),
        passing=st.sampled_from((0, 0, 0, 5, 12, 20)),
    )
    def end(self, how: str, kept: int, restored: int, choices: list[int], passing: int) -> None:
        """A life ends and another begins."""
        if self.dead:
            how = "crash"
        elif how.startswith("crash") and passing:
            self.pass_through(count=passing, also={0, 1}, choices=choices)
        if how in ("crash", "crash in commit"):
            if how == "crash in commit":
                self.commit(publishes=[{0, 1}, {2}], settled=[(0, Settlement.ACK)])
            self.loop.step()
            self.crash(kept, restored)
        elif how == "stop":
            self.stop(kept)
        elif how == "crash in stop":
            self.crash_while_stopping(choices, kept)
        else:
            self.crash_while_starting(kept)

    def crash(self, kept: int, restored: int, stopped: bool | None = False) -> None:
        """The life ends without a word.

        Arguments:
            stopped: whether the next one finds a clean stop; None when both may be.
        """
        self.check_calm()
        self.promised = self.store.durable
        self.end_life(kept, restored)
        self.start()
        self.check_recovered(stopped)

    def stop(self, kept: int) -> None:
        """The life ends as it should."""
        self.give_back()
        completed = self.complete(self.broker.stop())
        self.crash(kept, 0, stopped=True if completed else None)

    def crash_while_stopping(self, choices: list[int], kept: int) -> None:
        self.give_back()
        stopping = self.loop.create_task(self.broker.stop())
        self.work(choices)
        self.crash(kept, 0, stopped=True if stopping.done() else None)

    def crash_while_starting(self, kept: int) -> None:
        """A clean stop is no longer one once a broker began to deliver."""
        self.give_back()
        self.complete(self.broker.stop())
        self.kept_in_start = kept
        self.spoil_start()
        self.crash(kept, 0, stopped=None)

    def forget_behind(self, end: int) -> None:
        """What happened behind `end` did not happen."""
        while self.history[-1][0] > end:
            self.history.pop()
        self.definitions = self.history[-1][1]
        for ids in (self.message_ids, self.queue_ids):
            ids[:] = [each for each in ids if each[0] <= end]
        for model in self.models.values():
            for hold in model.holds.values():
                if hold.settled_at is not None and hold.settled_at > end:
                    hold.settled_at = None
            model.holds = {
                message_id: hold
                for message_id, hold in model.holds.items()
                if 0 < hold.published_at <= end
            }

    def give_back(self) -> None:
        """Sessions end: what they did not settle goes back."""
        while self.entries:
            self.settle_one(0, Settlement.REQUEUE)

    # What must be so after it.

    def check_recovered(self, stopped: bool | None) -> None:
        end = self.store.survived
        assert end >= self.promised, "what was durable is there"
        assert stopped is None or self.store.was_stopped is stopped
        self.forget_behind(end)
        self.check_definitions()
        self.check_ids()
        queues = {queue.queue_id: queue for queue in self.vhost.queues.values()}
        holders: Counter[int] = Counter()
        for model in self.models.values():
            expected = [hold for hold in model.holds.values() if hold.survives(end)]
            model.holds = {}
            if model.queue_id in queues:
                model.queue = queues[model.queue_id]
                self.check_queue(model, expected)
                holders.update(list(model.holds))
        assert holders == {
            message_id: message.holders for message_id, message in self.recovered.items()
        }
        self.check_contents()

    def check_queue(self, model: QueueModel, expected: list[Hold]) -> None:
        expected.sort(key=lambda hold: hold.message_id)
        queue = model.queue
        found = queue.ready.persistent_ids()
        wanted = [hold.message_id for hold in expected]
        assert not set(wanted).difference(found), "a confirmed message was lost"
        assert not set(found).difference(wanted), "a settled message came back"
        assert found == wanted, "order was kept"
        assert queue.ready_count == len(found)
        assert queue.ready_bytes == sum(len(b"%d" % hold.number) for hold in expected)
        redelivered = queue.ready.redelivered_ids()
        for hold in expected:
            flag = hold.message_id in redelivered
            if self.store.was_stopped:
                assert flag is hold.redelivered, "after a clean stop it is known"
            else:
                assert flag or not hold.delivered, "it was delivered before"
            hold.redelivered = flag
            hold.waiting = True
            hold.settled_at = None
            hold.position = self.recovered[hold.message_id].position
            model.holds[hold.message_id] = hold

    def check_contents(self) -> None:
        """What is in the log for each message is what was published."""
        numbers: list[int] = []
        messages: list[Message] = []
        for model in self.slots.values():
            for hold in model.waiting():
                if hold.published_at:
                    message = Message(b"", b"", b"", 0, True)
                    message.message_id = hold.message_id
                    message.position = hold.position
                    messages.append(message)
                    numbers.append(hold.number)
        if self.complete(self.store.fetch(messages)):
            assert [int(message.body) for message in messages] == numbers

    def check_definitions(self) -> None:
        found: set[tuple[object, ...]] = set()
        for queue in self.vhost.queues.values():
            found.add(("queue", queue.queue_id, queue.name))
            assert queue.durable
        for exchange in self.vhost.exchanges.values():
            if exchange.name in EXCHANGES:
                found.add(("exchange", exchange.name, exchange.type_name))
            for binding in exchange.outgoing.values():
                destination = binding.destination
                found.add(
                    (
                        "binding",
                        exchange.name,
                        destination.is_queue,
                        destination.name,
                        binding.routing_key,
                    )
                )
                assert binding in destination.bindings
        assert found == self.definitions, "what was declared is there, and nothing else"
        self.slots = {
            SLOTS.index(queue.name): self.models[queue.queue_id]
            for queue in self.vhost.queues.values()
        }

    def check_ids(self) -> None:
        """Ids that the log has seen are not given again."""
        assert self.broker._ids.message_id >= max(each for _, each in self.message_ids)
        assert self.broker._ids.queue_id >= max(each for _, each in self.queue_ids)
