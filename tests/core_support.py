"""What tests of the core stand on: a node without a loop, a sink that remembers, messages."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from pamqp import commands, header

from broker.core.clock import ManualClock
from broker.core.consumer import Consumer, Sink
from broker.core.ids import Ids
from broker.core.message import Message, frame_form
from broker.core.queue import Entry, Queue
from broker.core.records import Record
from broker.core.store import Store
from broker.core.table import Table
from broker.core.transaction import Settlement
from broker.core.turn import Budget, Session, Turn
from broker.core.vhost import VirtualHost
from broker.store.memory import HeldStore, MemoryStore

AnyStore = TypeVar("AnyStore", bound=Store)
AnyRecord = TypeVar("AnyRecord", bound=Record)

#: More than any test delivers in a turn.
PLENTY = 1 << 30


def counted_bytes() -> Callable[[int], bytes]:
    """A source of "random" bytes for `Ids`: the number of the call, so that names are known."""
    calls = 0

    def random_bytes(count: int) -> bytes:
        nonlocal calls
        calls += 1
        return calls.to_bytes(count, "big")

    return random_bytes


def run_turn(
    turn: Turn, *, messages: int = PLENTY, bytes_: int = PLENTY, remains: int = PLENTY
) -> None:
    """Do what `broker.broker.Broker` does when the loop calls it, within this budget."""
    turn.begin()
    for _ in range(len(turn.inputs)):
        turn.inputs.popleft().resume_input()
    turn.dispatch(Budget(messages, bytes_))
    turn.drop_remains(remains)
    turn.record_settled()
    outputs, turn.outputs = turn.outputs, []
    for session in outputs:
        session.end_turn()


class Core(Generic[AnyStore]):
    """One vhost "/" with everything it needs, and no loop: a turn runs when a test says so."""

    def __init__(self, store: AnyStore) -> None:
        self.store = store
        #: how often a turn was asked for
        self.wakes = 0
        #: whether one was since the last began
        self.awake = False
        self.turn = Turn(self._wake)
        self.ids = Ids(counted_bytes())
        self.clock = ManualClock()
        self.vhost = VirtualHost("/", self.ids, store, self.turn, self.clock)

    def _wake(self) -> None:
        self.wakes += 1
        self.awake = True

    def run_turn(
        self, *, messages: int = PLENTY, bytes_: int = PLENTY, remains: int = PLENTY
    ) -> None:
        """Run one turn within this budget."""
        self.awake = False
        run_turn(self.turn, messages=messages, bytes_=bytes_, remains=remains)

    def run_turns(self) -> int:
        """Run turns until none is asked for; returns how many it were."""
        count = 0
        while self.awake:
            self.run_turn()
            count += 1
            assert count < 1000, "turns go on asking for turns"
        return count

    def consume(
        self,
        queue: Queue,
        sink: Sink,
        tag: str = "",
        *,
        no_ack: bool = False,
        exclusive: bool = False,
        priority: int = 0,
        prefetch_count: int = 0,
        start: bool = True,
    ) -> Consumer:
        """Subscribe `sink` to `queue`, and begin as with consume-ok unless told otherwise."""
        consumer = self.vhost.consume(
            queue,
            tag,
            sink,
            no_ack=no_ack,
            exclusive=exclusive,
            prefetch_count=prefetch_count,
            arguments=Table.from_python({"x-priority": priority}) if priority else Table.EMPTY,
        )
        if start:
            queue.start(consumer)
        return consumer

    def cancel(self, consumer: Consumer) -> None:
        """Cancel as a channel does: its sink does not wait for it any more."""
        consumer.sink.refused.pop(consumer, None)
        self.vhost.cancel(consumer)

    def publish(self, *queues: Queue, body: bytes = b"", persistent: bool = False) -> Message:
        """Publish a new message to `queues` and return it."""
        message = a_message(body, persistent=persistent)
        self.vhost.publish(message, queues)
        return message

    def fill(self, queue: Queue, count: int) -> list[Message]:
        """Publish `count` messages and return them; the body of each is its number, from 0."""
        return [self.publish(queue, body=b"%d" % number) for number in range(count)]


def memory_core() -> Core[MemoryStore]:
    """A core whose store is durable at once."""
    return Core(MemoryStore())


def held_core() -> Core[HeldStore]:
    """A core whose store keeps its records and is durable when told so."""
    return Core(HeldStore())


def recorded(store: HeldStore, kind: type[AnyRecord]) -> list[AnyRecord]:
    """The records of one kind, in order."""
    return [record for record in store.records if isinstance(record, kind)]


class ReleasingStore(HeldStore):
    """A HeldStore that also remembers which messages it may forget."""

    __slots__ = ("released",)

    def __init__(self) -> None:
        super().__init__()
        self.released: list[Message] = []

    def release(self, message: Message) -> None:
        self.released.append(message)


@dataclass(eq=False)
class Delivery:
    """One message handed to a sink."""

    consumer: Consumer
    message: Message
    entry: Entry | None
    #: as the client would see it
    redelivered: bool

    @property
    def queue(self) -> Queue:
        return self.consumer.queue


class RecordingSink(Sink):
    """A channel as the core sees it, with neither connection nor frames.

    Arguments:
        limit: most unsettled deliveries to all its consumers together, like global qos; 0 for none.
    """

    def __init__(self, turn: Turn, limit: int = 0) -> None:
        super().__init__()
        self.turn = turn
        self.limit = limit
        #: whether it could be given messages, but for `limit`
        self.able = True
        self.deliveries: list[Delivery] = []
        #: deliveries to be settled, in order
        self.unsettled: list[Delivery] = []
        #: consumers whose queue went away
        self.told: list[Consumer] = []

    # What the core asks of it.

    def deliver(self, consumer: Consumer, message: Message, entry: Entry | None) -> None:
        redelivered = entry is not None and entry.redelivered
        delivery = Delivery(consumer, message, entry, redelivered)
        self.deliveries.append(delivery)
        if entry is not None and not consumer.no_ack:
            self.unsettled.append(delivery)
            if self.limit and len(self.unsettled) >= self.limit:
                self.accepting = False

    def is_able(self) -> bool:
        return self.able and (not self.limit or len(self.unsettled) < self.limit)

    def cancelled(self, consumer: Consumer) -> None:
        self.refused.pop(consumer, None)
        self.told.append(consumer)

    # What a client or its connection does.

    def set_able(self, able: bool) -> None:
        """Stop accepting messages, as a congested connection does, or go on."""
        self.able = able
        self.reconsider(self.turn)

    def settle(self, delivery: Delivery, settlement: Settlement = Settlement.ACK) -> None:
        """Settle one delivery; as a channel does, the shared limit is freed first."""
        self.unsettled.remove(delivery)
        self.free_limit()
        entry = delivery.entry
        assert entry is not None, "a delivery without entry needs no settlement"
        if settlement is Settlement.ACK:
            entry.queue.ack(entry)
        elif settlement is Settlement.REJECT:
            entry.queue.reject(entry)
        else:
            entry.queue.requeue(entry)

    def free_limit(self) -> None:
        """`unsettled` became fewer."""
        if self.limit and not self.accepting:
            self.reconsider(self.turn)

    def ack(self, count: int = 1) -> None:
        """Acknowledge the oldest `count` unsettled deliveries."""
        for _ in range(count):
            self.settle(self.unsettled[0])

    def requeue_all(self) -> None:
        """Give every unsettled delivery back, oldest first (basic.recover, a channel's end)."""
        unsettled, self.unsettled = self.unsettled, []
        for delivery in unsettled:
            assert delivery.entry is not None
            delivery.entry.queue.requeue(delivery.entry)
        self.reconsider(self.turn)

    # What tests look at.

    @property
    def messages(self) -> list[Message]:
        """What was delivered, in order."""
        return [delivery.message for delivery in self.deliveries]

    @property
    def bodies(self) -> list[bytes]:
        """The bodies delivered, in order."""
        return [delivery.message.body for delivery in self.deliveries]

    @property
    def tags(self) -> list[str]:
        """The tags of the consumers delivered to, in order."""
        return [delivery.consumer.tag for delivery in self.deliveries]

    @property
    def queue_names(self) -> list[str]:
        """The queues that deliveries came from, in order."""
        return [delivery.queue.name for delivery in self.deliveries]


class RecordingSession(Session):
    """A connection as a turn sees it, which counts what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def lost(self) -> None:
        self.told.append("lost")

    def resume_input(self) -> None:
        self.told.append("resume_input")

    def store_advanced(self) -> None:
        self.told.append("store_advanced")

    def alarms_changed(self) -> None:
        self.told.append("alarms_changed")

    def end_turn(self) -> None:
        self.told.append("end_turn")


def shortstr(value: str) -> bytes:
    """`value` as a short string."""
    octets = value.encode()
    return bytes((len(octets),)) + octets


def an_address(exchange: str = "", routing_key: str = "") -> bytes:
    """Where a message is published to, as basic.publish has it."""
    return shortstr(exchange) + shortstr(routing_key)


def a_header(properties: commands.Basic.Properties | None = None, body_size: int = 0) -> bytes:
    """A content header in frame form, encoded by pamqp."""
    if properties is None:
        properties = commands.Basic.Properties()
    return frame_form(header.ContentHeader(0, body_size, properties).marshal())


def a_message(
    body: bytes = b"", *, persistent: bool = False, exchange: str = "", routing_key: str = ""
) -> Message:
    """A message as a channel makes it."""
    properties = commands.Basic.Properties(delivery_mode=2 if persistent else None)
    return Message(
        an_address(exchange, routing_key),
        a_header(properties, len(body)),
        frame_form(body) if body else b"",
        len(body),
        persistent,
    )
