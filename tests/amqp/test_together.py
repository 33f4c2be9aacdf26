"""Everything at once: clients that publish, consume, stall and vanish, on a node with tiny limits.

A seed decides what happens: frames cut anywhere, turns at odd moments, a disk that lags behind,
alarms that come and go, wires that stop. Meanwhile and in the end is checked what a broker owes its
clients, whatever the pressure: replies in order, every publish confirmed once, every message
consumed, none lost, prefetch and memory never exceeded, nobody left waiting.
"""

import random
import struct
from collections import deque
from typing import Final

import pytest
from pamqp import base
from pamqp.commands import Basic, Channel, Confirm, Connection, Queue
from session_support import World
from wire import FRAME_HEADER, FRAME_METHOD, Frame, decode_method
from wire_methods import (
    NO_PROPERTIES,
    Method,
    basic_ack,
    basic_cancel,
    basic_consume,
    basic_nack,
    basic_publish,
    basic_qos,
    channel_close,
    channel_open,
    confirm_select,
    frame,
    properties,
    queue_declare,
)

from broker.store.memory import HeldStore

PERSISTENT: Final = properties(delivery_mode=2)
BYTES_MAX: Final = 6000
#: How far above the maximum one message, or a turn's small frames, may take the output.
SLACK: Final = 1600
ROUNDS_MAX: Final = 5000

#: What may happen, and how often.
EVENTS: Final = {
    "publish": 30,
    "settle": 16,
    "turn": 8,
    "sync": 7,
    "declare": 6,
    "turns": 6,
    "stall": 6,
    "drain": 6,
    "consume": 5,
    "alarm": 4,
    "read": 4,
    "close": 2,
    "vanish": 1,
}

#: The channels of a client: one publishes, one consumes.
PUBLISHING: Final = 1
CONSUMING: Final = 2


class Ledger:
    """What all clients together have published and consumed."""

    def __init__(self) -> None:
        self.count = 0
        #: bodies that a queue was to take, and those of them that were confirmed
        self.published: set[bytes] = set()
        self.confirmed: set[bytes] = set()
        #: bodies that somebody acknowledged
        self.consumed: set[bytes] = set()
        #: those of them whose acknowledgement the broker is sure to see
        self.settled: set[bytes] = set()


class Client:
    """One client, and what it may expect."""

    def __init__(self, world: World, ledger: Ledger, chance: random.Random) -> None:
        self.world = world
        self.ledger = ledger
        self.chance = chance
        self.session = world.connect()
        self.session.runs_turns = False
        self.name = world.node.ids.next_session_id()
        self.replies: dict[int, deque[type[base.Frame]]] = {PUBLISHING: deque(), CONSUMING: deque()}
        self.bodies: list[bytes] = []
        self.confirmed = 0
        self.returned = 0
        self.to_be_returned = 0
        self.blocked = False
        self.open(PUBLISHING)
        self.call(PUBLISHING, confirm_select(), Confirm.SelectOk)
        self.start_consuming()

    def start_consuming(self) -> None:
        """Open the consuming channel, which consumes later."""
        self.unacked: dict[int, bytes] = {}
        #: the last message of each publisher that came for the first time
        self.last: dict[bytes, int] = {}
        self.consumes = False
        self.told = False
        self.closing = False
        self.prefetch_count = self.chance.choice([0, 0, 1, 3])
        self.shared = self.chance.random() < 0.5
        self.open(CONSUMING)
        qos = basic_qos(prefetch_count=self.prefetch_count, shared=self.shared)
        self.call(CONSUMING, qos, Basic.QosOk)

    def open(self, channel: int) -> None:
        """Open a channel."""
        self.call(channel, channel_open(), Channel.OpenOk)

    def call(self, channel: int, method: Method, reply: type[base.Frame] | None = None) -> None:
        """Send a method whose reply will have to come in its turn."""
        if reply is not None:
            self.replies[channel].append(reply)
        self.send(frame(FRAME_METHOD, channel, method.payload))

    def send(self, octets: bytes) -> None:
        """Send octets in one piece or two."""
        cut = self.chance.randrange(len(octets)) if self.chance.random() < 0.3 else 0
        if cut:
            self.session.send(octets[:cut])
            if self.chance.random() < 0.3:
                self.world.run_turn()
        self.session.send(octets[cut:])

    # What it does

    def publish(self) -> None:
        """A few messages, some of them to nowhere."""
        octets = b""
        for _ in range(self.chance.choice([1, 1, 1, 5])):
            self.ledger.count += 1
            body = struct.pack(">II", self.name, self.ledger.count)
            body += bytes(self.chance.choice([0, 0, 10, 300]))
            method = basic_publish("", "q")
            if self.chance.random() < 0.15:
                method = basic_publish("", "nowhere", mandatory=True)
                self.to_be_returned += 1
            else:
                self.ledger.published.add(body)
            self.bodies.append(body)
            content = self.chance.choice([PERSISTENT, NO_PROPERTIES])
            octets += self.session.encode_content(PUBLISHING, method, content, body)
        self.send(octets)

    def declare(self) -> None:
        """A durable queue, which has to wait for the disk."""
        self.ledger.count += 1
        channel = CONSUMING if self.chance.random() < 0.5 and not self.closing else PUBLISHING
        name = f"durable-{self.ledger.count}"
        self.call(channel, queue_declare(name, durable=True), Queue.DeclareOk)

    def consume(self) -> None:
        """Start consuming, once per channel."""
        if not self.consumes and not self.closing:
            self.consumes = True
            self.call(CONSUMING, basic_consume("q", "tag"), Basic.ConsumeOk)

    def settle(self, *, everything: bool = False) -> None:
        """Acknowledge or give back some of what was delivered."""
        self.read()
        if not self.unacked or self.closing:
            return
        tag = max(self.unacked) if everything else self.chance.choice(list(self.unacked))
        multiple = everything or self.chance.random() < 0.3
        tags = [each for each in self.unacked if each == tag or (multiple and each < tag)]
        bodies = [self.unacked.pop(each) for each in tags]
        if everything or self.chance.random() < 0.6:
            self.ledger.consumed.update(bodies)
            self.ledger.settled.update(bodies)
            self.call(CONSUMING, basic_ack(tag, multiple=multiple))
        else:
            self.call(CONSUMING, basic_nack(tag, multiple=multiple, requeue=True))

    def close_channel(self) -> None:
        """Close the consuming channel when nothing on it is pending; it is opened again later."""
        self.read()
        if not self.replies[CONSUMING] and not self.closing:
            self.closing = True
            self.call(CONSUMING, channel_close(), Channel.CloseOk)

    def vanish(self) -> None:
        """The socket is gone; whether its last acknowledgements were seen, nobody can say."""
        self.read()
        self.session.hang_up()
        self.ledger.settled.clear()

    # What it gets

    def read(self) -> None:
        """Take what has come, and check that it may."""
        content: list[Frame] = []
        missing = 0
        for received in self.session.read_frames():
            if content:
                # The frames of a content are not interleaved with others.
                assert received.type != FRAME_METHOD and received.channel == content[0].channel
                content.append(received)
                if received.type == FRAME_HEADER:
                    missing = struct.unpack_from(">Q", received.payload, 4)[0]
                else:
                    missing -= len(received.payload)
                if not missing:
                    method, body = content[0], b"".join(each.payload for each in content[2:])
                    self.take_content(decode_method(method.payload), body)
                    content = []
                continue
            method_ = decode_method(received.payload)
            if isinstance(method_, Basic.Deliver | Basic.Return):
                content = [received]
            else:
                self.take(received.channel, method_)
        assert not content

    def take(self, channel: int, method: base.Frame) -> None:
        """A method without content."""
        if isinstance(method, Basic.Ack):
            tag = method.delivery_tag or 0
            assert self.confirmed < tag <= len(self.bodies)
            assert method.multiple is (tag - self.confirmed > 1)
            self.ledger.confirmed.update(self.bodies[self.confirmed : tag])
            self.confirmed = tag
        elif isinstance(method, Connection.Blocked):
            assert not self.blocked
            self.blocked = True
        elif isinstance(method, Connection.Unblocked):
            assert self.blocked
            self.blocked = False
        else:
            expected = self.replies[channel].popleft()
            assert isinstance(method, expected), f"{method.name} instead of {expected.name}"
            if isinstance(method, Basic.ConsumeOk):
                self.told = True
            elif isinstance(method, Channel.CloseOk):
                self.start_consuming()

    def take_content(self, method: base.Frame, body: bytes) -> None:
        """A delivery or a return."""
        if isinstance(method, Basic.Return):
            self.returned += 1
            return
        assert isinstance(method, Basic.Deliver)
        assert self.told, "a delivery before consume-ok"
        # What was on its way to a channel that closes may have gone to somebody else by now.
        assert self.closing or body not in self.ledger.settled, "a delivery of what is settled"
        if not method.redelivered:
            publisher, number = body[:4], int.from_bytes(body[4:8], "big")
            assert number > self.last.get(publisher, 0), "out of order"
            self.last[publisher] = number
        self.unacked[method.delivery_tag or 0] = body
        if self.prefetch_count:
            assert len(self.unacked) <= self.prefetch_count

    def check_memory(self) -> None:
        """What the broker holds for this client is bounded, whatever the client does."""
        held = self.session.connection.output.size_bytes + len(self.session.wire.backlog)
        assert held <= BYTES_MAX + SLACK

    def is_quiet(self) -> bool:
        """Whether nothing is on its way to this client, or from it."""
        return (
            not self.session.unread
            and not self.session.wire.backlog
            and self.session.is_read()
            and not self.closing
        )


def small_world(chance: random.Random) -> tuple[World, HeldStore]:
    """A node with tiny limits and a durable queue `q`."""
    store = HeldStore()
    world = World(
        store,
        budget=(chance.choice([1, 5, 1000]), chance.choice([300, 1 << 20])),
        input_work_per_turn=chance.choice([1, 3, 50]),
        write_buffer_high_bytes=chance.choice([200, 600, 5000]),
        write_buffer_bytes_max=BYTES_MAX,
        write_stall_ms=10**12,
        replies_waiting_max=chance.choice([1, 3, 100]),
        blocked_input_bytes_max=chance.choice([100, 2000]),
    )
    founder = world.connect(1)
    founder.send_method(1, queue_declare("q", durable=True))
    store.sync()
    world.run_turns()
    founder.hang_up()
    return world, store


def misbehave(
    world: World, store: HeldStore, clients: list[Client], ledger: Ledger, chance: random.Random
) -> None:
    """One thing that happens."""
    place = chance.randrange(len(clients))
    client = clients[place]
    (event,) = chance.choices(list(EVENTS), list(EVENTS.values()))
    if event == "publish":
        client.publish()
    elif event == "declare":
        client.declare()
    elif event == "consume":
        client.consume()
    elif event == "settle":
        client.settle()
    elif event == "turn":
        world.run_turn()
    elif event == "turns":
        world.run_turns()
    elif event == "stall":
        client.session.wire.stalled = True
    elif event == "drain":
        client.session.wire.drain()
    elif event == "alarm":
        world.node.set_alarm(chance.choice(["memory", "disk"]), chance.random() < 0.5)
    elif event == "sync":
        store.sync(chance.randint(store.durable, len(store.records)))
    elif event == "read":
        client.read()
    elif event == "close":
        client.close_channel()
    else:
        client.vanish()
        clients[place] = Client(world, ledger, chance)


def come_to_rest(world: World, store: HeldStore, clients: list[Client]) -> None:
    """The disk catches up, alarms clear, everybody reads and acknowledges all there is."""
    for resource in ("memory", "disk"):
        world.node.set_alarm(resource, False)
    for _ in range(ROUNDS_MAX):
        store.sync()
        world.run_turns()
        for client in clients:
            client.session.wire.drain()
            client.settle(everything=True)
        if (
            not world.awake
            and store.durable == len(store.records)
            and all(client.is_quiet() for client in clients)
        ):
            return
    raise AssertionError("somebody is left waiting")


@pytest.mark.parametrize("seed", range(60))
def test_clients_under_pressure(seed: int) -> None:
    """Whatever happens, in the end everybody has got what it was owed."""
    chance = random.Random(seed)
    world, store = small_world(chance)
    ledger = Ledger()
    clients = [Client(world, ledger, chance) for _ in range(3)]
    for _ in range(chance.randint(20, 250)):
        misbehave(world, store, clients, ledger, chance)
        for client in clients:
            client.check_memory()

    come_to_rest(world, store, clients)
    clients[0].consume()
    come_to_rest(world, store, clients)

    for client in clients:
        assert client.confirmed == len(client.bodies)
        assert client.returned == client.to_be_returned
        assert not any(client.replies.values())
        assert not client.blocked
        assert not client.unacked
    assert ledger.consumed <= ledger.published
    assert ledger.confirmed & ledger.published <= ledger.consumed
    queue = world.queue("q")
    assert (queue.ready_count, queue.unacked_count, len(queue.ready)) == (0, 0, 0)
    clients[0].call(CONSUMING, basic_cancel("tag"), Basic.CancelOk)
    for client in clients:
        client.session.hang_up()
    assert not world.node.sessions and not world.turn.waiting
    assert not queue.consumers
