"""Pressure, with real sockets: whoever is slow, greedy or stubborn harms nobody but himself.

Nothing here measures time. What must be bounded is looked at on the broker's own loop, and what
must go on is counted while the cause of the pressure is still at work.
"""

import asyncio
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest
from pamqp.commands import Basic, Connection, Queue
from running import RunningBroker, running_broker
from wire import FRAME_BODY, WireClient
from wire_methods import (
    basic_ack,
    basic_cancel,
    basic_consume,
    basic_get,
    basic_nack,
    basic_publish,
    basic_qos,
    channel_open,
    confirm_select,
    frames,
    queue_bind,
    queue_declare,
)

from broker.amqp.connection import Connection as Session
from broker.core.queue import Queue as BrokerQueue
from broker.core.reply import REPLY_TO
from broker.transport import Transport

KIB = 1024


class Watched:
    """A broker with small limits, its clients, and the broker's side of both."""

    def __init__(self, server: RunningBroker) -> None:
        self.server = server
        self._clients: list[WireClient] = []

    def connect(self, *channels: int, **agreed: Any) -> WireClient:
        """A client with these channels open."""
        client = WireClient(self.server.host, self.server.port, timeout=10)
        self._clients.append(client)
        client.handshake(**agreed)
        for channel in channels:
            client.open_channel(channel)
        return client

    def disconnect(self) -> None:
        """Hang up every client, so that no socket lingers."""
        for client in self._clients:
            client.disconnect()

    def transport(self, client: WireClient) -> Transport:
        """The broker's end of a client."""
        port = client._socket.getsockname()[1]

        def find() -> Transport:
            transports = self.server.broker._transports
            return next(each for each, session in transports.items() if session.peer.port == port)

        return self.server.call(find)

    def session(self, client: WireClient) -> Session:
        """The session of a client."""
        return self.transport(client)._session

    def narrow(self, client: WireClient) -> None:
        """Have the system hold little of what a client will not read, so that the broker must.

        Not too little: windows smaller than a segment are slow. Setting a size also keeps the
        system from finding a larger one.
        """
        client._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 128 * KIB)
        transport = self.transport(client)

        def shrink() -> None:
            tcp = transport._socket.get_extra_info("socket")
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * KIB)

        self.server.call(shrink)

    def held_bytes(self, client: WireClient) -> int:
        """What the broker holds for a client that does not read."""
        transport = self.transport(client)

        def count() -> int:
            held = transport._session.output.size_bytes
            return held + transport._socket.get_write_buffer_size()

        return self.server.call(count)

    def queue(self, name: str) -> BrokerQueue:
        """A queue by name; its numbers are looked at by `server.call`."""
        return self.server.call(lambda: self.server.broker._node.vhosts["/"].queues[name])

    def until(self, condition: Callable[[], bool]) -> None:
        """Ask on the broker's loop until it is so."""
        deadline = time.monotonic() + 10
        while not self.server.call(condition):
            assert time.monotonic() < deadline, "it never came to that"
            threading.Event().wait(0.002)


@contextmanager
def watched(**settings: Any) -> Iterator[Watched]:
    """A broker with these settings."""
    with running_broker(shutdown_timeout_ms=100, **settings) as server:
        watch = Watched(server)
        try:
            yield watch
        finally:
            watch.disconnect()


def numbered(number: int, size: int) -> bytes:
    """A body that knows its place."""
    return struct.pack(">I", number) + bytes(size - 4)


def number_of(body: bytes) -> int:
    """The place of a body."""
    return int(struct.unpack_from(">I", body)[0])


def read_numbers(client: WireClient, count: int, channel: int = 1) -> list[int]:
    """The numbers of that many deliveries."""
    return [number_of(client.expect_content(channel, Basic.Deliver).body) for _ in range(count)]


def publish_numbered(client: WireClient, numbers: range, size: int, queue: str = "q") -> None:
    """Publish on channel 1, which confirms, and wait for the last confirm."""
    for number in numbers:
        client.publish(1, "", queue, body=numbered(number, size))
    while client.expect(1, Basic.Ack).delivery_tag != numbers.stop:
        pass


# A consumer that does not read

HIGH = 64 * KIB
MESSAGE = 4 * KIB


def read_until_cancelled(client: WireClient) -> list[int]:
    """The numbers of all deliveries on channel 1 up to cancel-ok."""
    numbers: list[int] = []
    while True:
        received = client.read_frame()
        if received.type == FRAME_BODY:
            numbers.append(number_of(received.payload))
        elif received.payload.startswith(Basic.CancelOk.index.to_bytes(4, "big")):
            return numbers


@pytest.mark.parametrize("no_ack", [False, True])
def test_consumer_that_stops_reading(no_ack: bool) -> None:
    """It costs bounded memory, leaves the rest to others, and misses nothing in the end."""
    with watched(write_buffer_high_bytes=HIGH) as watch:
        publisher = watch.connect(1)
        publisher.call(1, queue_declare("q"))
        publisher.call(1, confirm_select())
        queue = watch.queue("q")
        slow, other = watch.connect(1), watch.connect(1)
        watch.narrow(slow)
        slow.call(1, basic_consume("q", "slow", no_ack=no_ack))
        publish_numbered(publisher, range(500), MESSAGE)
        session = watch.session(slow)
        watch.until(lambda: session.output.congested)
        assert watch.held_bytes(slow) < HIGH + 2 * MESSAGE
        assert watch.server.call(lambda: session.reading)

        channels = [session.channels[1], watch.session(other).channels[1]]
        with ThreadPoolExecutor(1) as threads:
            other.call(1, basic_consume("q", "other", no_ack=True))
            reader = threads.submit(read_until_cancelled, other)
            publish_numbered(publisher, range(500, 1000), MESSAGE)
            watch.until(lambda: sum(each.last_delivery_tag for each in channels) == 1000)
            assert watch.held_bytes(slow) < HIGH + 2 * MESSAGE
            assert watch.server.call(lambda: [each.waiting for each in queue.consumers])[0]
            other.send_method(1, basic_cancel("other"))
            theirs = reader.result()

        ours = read_numbers(slow, watch.server.call(lambda: channels[0].last_delivery_tag))
        assert len(ours) < 300
        assert sorted(ours + theirs) == list(range(1000))
        assert ours == sorted(ours) and theirs == sorted(theirs)
        publish_numbered(publisher, range(1000, 1300), 100)
        assert read_numbers(slow, 300) == list(range(1000, 1300))


def test_acks_of_a_consumer_that_does_not_read_are_handled() -> None:
    """A client that blocks in writing acks before it reads on does not deadlock with the broker."""
    with watched(write_buffer_high_bytes=HIGH) as watch:
        client = watch.connect(1)
        watch.narrow(client)
        client.call(1, queue_declare("q"))
        client.call(1, basic_consume("q", "tag"))
        publisher = watch.connect(1)
        publisher.call(1, confirm_select())
        publish_numbered(publisher, range(300), MESSAGE)
        session = watch.session(client)
        watch.until(lambda: session.output.congested)
        unacked = session.channels[1].unacked

        tag = watch.server.call(lambda: max(unacked))
        client.send(frames(1, [basic_ack(each) for each in range(1, tag + 1)]))

        watch.until(lambda: min(unacked, default=tag + 1) > tag)
        assert read_numbers(client, 300) == list(range(300))


# Replies and returns

BYTES_MAX = 128 * KIB


def saturate(watch: Watched, client: WireClient, cause: str) -> int:
    """Ask for far more than the broker will hold, and do not read it; returns for how much."""
    count = 300
    if cause == "returns":
        method = basic_publish("", "nowhere", mandatory=True)
        for number in range(count):
            client.send(client.encode_content(1, method, body=numbered(number, MESSAGE)))
    else:
        client.send(frames(1, [basic_get("q", no_ack=True)] * count))
    session = watch.session(client)
    watch.until(lambda: not session.reading)
    return count


@pytest.mark.parametrize("cause", ["returns", "replies"])
def test_replies_that_nobody_reads(cause: str) -> None:
    """Above the maximum nothing more is read; when the client reads, it gets all of it in order."""
    with watched(write_buffer_high_bytes=HIGH, write_buffer_bytes_max=BYTES_MAX) as watch:
        client = watch.connect(1)
        watch.narrow(client)
        publisher = watch.connect(1)
        publisher.call(1, confirm_select())
        publisher.call(1, queue_declare("q"))
        publish_numbered(publisher, range(300), MESSAGE)

        count = saturate(watch, client, cause)
        assert watch.held_bytes(client) < BYTES_MAX + 2 * MESSAGE

        kind = Basic.Return if cause == "returns" else Basic.GetOk
        received = [number_of(client.expect_content(1, kind).body) for _ in range(count)]
        assert received == list(range(count))
        client.call(1, basic_qos(prefetch_count=1))


@pytest.mark.parametrize("cause", ["returns", "replies"])
def test_replies_that_nobody_ever_reads(cause: str) -> None:
    """A client that does not drain within write_stall_ms is dropped; others notice nothing."""
    with watched(
        write_buffer_high_bytes=HIGH, write_buffer_bytes_max=BYTES_MAX, write_stall_ms=50
    ) as watch:
        client, other = watch.connect(1), watch.connect(1)
        watch.narrow(client)
        other.call(1, confirm_select())
        other.call(1, queue_declare("q"))
        publish_numbered(other, range(300), MESSAGE)
        session = watch.session(client)

        saturate(watch, client, cause)
        watch.until(lambda: session.finished)

        other.call(1, basic_qos(prefetch_count=1))
        client.disconnect()
        sessions = watch.server.broker._node.sessions
        watch.until(lambda: len(sessions) == 1)


def test_direct_reply_to_a_saturated_requester_is_dropped() -> None:
    """A requester that does not read gets no more replies until it does."""
    with watched(write_buffer_high_bytes=HIGH, write_buffer_bytes_max=BYTES_MAX) as watch:
        requester, responder = watch.connect(1), watch.connect(1)
        watch.narrow(requester)
        requester.call(1, basic_consume(REPLY_TO, "replies", no_ack=True))
        vhost = watch.server.broker._node.vhosts["/"]
        (name,) = watch.server.call(lambda: list(vhost.reply_queues))
        responder.call(1, confirm_select())
        count = saturate(watch, requester, "returns")
        held = watch.held_bytes(requester)

        responder.publish(1, "", name, body=b"dropped", mandatory=True)
        responder.expect(1, Basic.Ack)
        assert watch.held_bytes(requester) <= held

        for _ in range(count):
            requester.expect_content(1, Basic.Return)
        responder.publish(1, "", name, body=b"heard")
        assert requester.expect_content(1, Basic.Deliver).body == b"heard"


def test_publisher_that_never_reads_its_confirms() -> None:
    """Confirms gather in the broker up to its bounds, and none is lost."""
    with watched(write_buffer_high_bytes=KIB, write_buffer_bytes_max=4 * KIB) as watch:
        client = watch.connect(1)
        watch.narrow(client)
        client.call(1, confirm_select())
        content = client.encode_content(1, basic_publish("", "nowhere"), body=b"x")
        for _ in range(400):
            client.send(content * 50)
            assert watch.held_bytes(client) < 5 * KIB

        confirmed = 0
        while confirmed < 400 * 50:
            ack = client.expect(1, Basic.Ack)
            tag = ack.delivery_tag or 0
            assert tag > confirmed
            assert ack.multiple or tag == confirmed + 1
            confirmed = tag


# Much to do at once


class Sampler:
    """Looks at two sessions and a queue each time the broker's loop comes round."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, busy: Session, other: Session, queue: BrokerQueue
    ) -> None:
        self._loop = loop
        self._busy = busy
        self._other = other
        self._queue = queue
        self._stopped = False
        #: the busy client was not read
        self.paused = False
        #: octets from and to the other client, messages in the queue
        self.seen: list[tuple[int, int, int]] = []

    def look(self) -> None:
        """Look now, and again the next time."""
        other = self._other
        self.paused |= not self._busy.reading
        self.seen.append((other.received_octets, other.output.sent_octets, self._queue.ready_count))
        if not self._stopped:
            self._loop.call_soon(self.look)

    def stop(self) -> None:
        """Look no more."""
        self._stopped = True


def test_large_fanout_in_one_read() -> None:
    """While one read of 1,000 publishes fills 1,000 queues, other clients get their turns."""
    with watched(input_work_per_turn=2000) as watch:
        busy, other = watch.connect(1), watch.connect(1)
        names = [f"q{number}" for number in range(1000)]
        for start in range(0, 1000, 100):
            some = names[start : start + 100]
            busy.send(frames(1, [queue_declare(name, exclusive=True) for name in some]))
            busy.send(frames(1, [queue_bind(name, "amq.fanout") for name in some]))
            for _ in some:
                busy.expect(1, Queue.DeclareOk)
            for _ in some:
                busy.expect(1, Queue.BindOk)
        other.call(1, queue_declare("theirs"))
        sessions = watch.session(busy), watch.session(other)
        sampler = Sampler(watch.server.loop, *sessions, watch.queue("q999"))

        watch.server.call(sampler.look)
        busy.send(busy.encode_content(1, basic_publish("amq.fanout"), body=b"x") * 1000)
        watch.until(lambda: sampler.seen[-1][2] > 0)
        for _ in range(20):
            other.call(1, basic_get("theirs"))
        watch.server.call(sampler.stop)

    seen = sampler.seen
    counts = [count for _, _, count in seen]
    # At most two publishes of 1,000 queues each are handled when it is the busy client's turn ...
    assert max(after - before for before, after in pairwise(counts)) <= 2
    # ... which is not read meanwhile; and what the other client asks is answered at once.
    assert sampler.paused
    asked = [at for at in range(1, len(seen) - 2) if seen[at][0] > seen[at - 1][0]]
    assert len(asked) >= 19
    assert all(seen[at + 2][1] > seen[at - 1][1] for at in asked)


@pytest.mark.parametrize("frame_max", [4096, 131072])
def test_large_bodies_round_trip(frame_max: int) -> None:
    """A body of 1 MiB is the same octet for octet, whatever the frames on either side."""
    body = random.Random(frame_max).randbytes(1 << 20)
    with watched() as watch:
        sender = watch.connect(1, frame_max=frame_max)
        receiver = watch.connect(1, frame_max=135168 - frame_max)
        sender.call(1, queue_declare("q"))
        receiver.call(1, basic_consume("q", "tag", no_ack=True))
        for _ in range(3):
            sender.publish(1, "", "q", body=body)
            assert receiver.expect_content(1, Basic.Deliver).body == body
        receiver.call(1, basic_cancel("tag"))
        sender.publish(1, "", "q", body=body)
        assert sender.get(1, "q").body == body


@pytest.mark.parametrize("frame_max", [4096, 131072])
def test_large_bodies_do_not_stop_small_calls(frame_max: int) -> None:
    """While one client streams bodies of 1 MiB without a pause, another's calls are answered."""
    with watched() as watch:
        streaming, other = watch.connect(1, frame_max=frame_max), watch.connect(1)
        other.call(1, queue_declare("q"))
        content = streaming.encode_content(1, basic_publish("", "nowhere"), body=bytes(1 << 20))
        enough = threading.Event()
        begun = threading.Event()

        def stream() -> int:
            count = 0
            while not enough.is_set():
                streaming.send(content)
                begun.set()
                count += 1
            return count

        with ThreadPoolExecutor(1) as threads:
            streamed = threads.submit(stream)
            try:
                assert begun.wait(10)
                for number in range(30):
                    other.publish(1, "", "q", body=numbered(number, 10))
                    assert number_of(other.get(1, "q", no_ack=True).body) == number
            finally:
                enough.set()
            assert streamed.result() > 0
        streaming.call(1, basic_qos(prefetch_count=1))


def test_endless_requeueing() -> None:
    """A consumer that gives everything back for ever keeps itself busy, and nobody else waiting."""
    with watched() as watch:
        stubborn, other = watch.connect(1), watch.connect(1)
        stubborn.call(1, queue_declare("q"))
        stubborn.call(1, basic_qos(prefetch_count=20))
        other.call(1, queue_declare("theirs"))
        for number in range(100):
            other.publish(1, "", "q", body=numbered(number, 100))
        enough = threading.Event()
        rounds = []

        def requeue() -> int:
            stubborn.call(1, basic_consume("q", "tag"))
            count = 0
            while not enough.is_set():
                delivery = stubborn.expect_content(1, Basic.Deliver)
                stubborn.send_method(1, basic_nack(delivery.method.delivery_tag or 0, requeue=True))
                count += 1
            return count

        queue = watch.queue("q")
        with ThreadPoolExecutor(1) as threads:
            requeued = threads.submit(requeue)
            try:
                watch.until(lambda: queue.unacked_count > 0)
                for number in range(50):
                    other.publish(1, "", "theirs", body=numbered(number, 10))
                    rounds.append(number_of(other.get(1, "theirs", no_ack=True).body))
            finally:
                enough.set()
            assert requeued.result() > 0

        assert rounds == list(range(50))
        stubborn.disconnect()
        watch.until(lambda: not queue.consumers)
        assert [number_of(other.get(1, "q").body) for _ in range(100)] == list(range(100))


# A limit shared by many queues


@pytest.mark.parametrize("prefetch_count", [1, 3])
def test_shared_limit_starves_no_queue(prefetch_count: int) -> None:
    """A channel consuming from five queues under one small limit gets from all of them."""
    with watched() as watch:
        client, publisher = watch.connect(1), watch.connect(1)
        names = [f"q{number}" for number in range(5)]
        for name in names:
            publisher.call(1, queue_declare(name))
        publisher.call(1, confirm_select())
        for number, name in enumerate(names):
            for _ in range(40):
                publisher.publish(1, "", name, body=numbered(number, 10))
        while publisher.expect(1, Basic.Ack).delivery_tag != 200:
            pass
        client.call(1, basic_qos(prefetch_count=prefetch_count, shared=True))
        client.send(frames(1, [basic_consume(name, name) for name in names]))
        order: list[int] = []
        while len(order) < 200:
            received = client.read_frame()
            if received.type == FRAME_BODY:
                order.append(number_of(received.payload))
                client.send_method(1, basic_ack(len(order)))

        for start in range(0, 160, 20):
            assert set(order[start : start + 20]) == {0, 1, 2, 3, 4}, order
        assert sorted(order) == sorted([*range(5)] * 40)


# Alarms


def test_alarm_parks_the_publishing_channel_alone() -> None:
    """Another channel of the same connection declares, consumes and acknowledges as ever."""
    with watched() as watch:
        client = watch.connect(1, 2)
        client.call(1, queue_declare("q"))
        client.publish(1, "", "q", body=numbered(0, 10))
        client.call(1, basic_qos())
        set_alarm = watch.server.broker.set_alarm
        watch.server.call(set_alarm, "memory", True)

        client.publish(1, "", "q", body=numbered(1, 10))
        client.send_method(1, queue_declare("q", passive=True))
        client.expect(0, Connection.Blocked)
        client.call(2, queue_declare("other"))
        client.call(2, basic_consume("q", "tag"))
        assert read_numbers(client, 1, channel=2) == [0]
        client.send(frames(2, [basic_ack(1)]) + frames(3, [channel_open()]))
        queue = watch.queue("q")
        watch.until(lambda: queue.unacked_count == 0)
        assert client.read_frame().channel == 3

        watch.server.call(set_alarm, "memory", False)
        client.expect(0, Connection.Unblocked)
        assert read_numbers(client, 1, channel=2) == [1]
        client.expect(1, Queue.DeclareOk)


def test_alarm_holds_so_much_and_loses_nothing() -> None:
    """Past blocked_input_bytes_max reading stops; after the alarm all of it is there, in order."""
    with watched(blocked_input_bytes_max=HIGH) as watch:
        client = watch.connect(1)
        client.call(1, queue_declare("q"))
        client.call(1, confirm_select())
        queue, session = watch.queue("q"), watch.session(client)
        watch.server.call(watch.server.broker.set_alarm, "disk", True)

        with ThreadPoolExecutor(1) as threads:
            published = threads.submit(publish_numbered_blocked, client, 1000)
            watch.until(lambda: not session.reading)
            held = watch.server.call(lambda: session.parking._size_bytes + len(session._input))
            assert HIGH < held < HIGH + 512 * KIB
            assert watch.server.call(lambda: queue.ready_count) == 0

            watch.server.call(watch.server.broker.set_alarm, "disk", False)
            published.result()

        assert [number_of(client.get(1, "q", no_ack=True).body) for _ in range(1000)] == [
            *range(1000)
        ]
        assert watch.server.call(lambda: session.reading)


def publish_numbered_blocked(client: WireClient, count: int) -> None:
    """Publish through an alarm: blocked and unblocked come before the confirms."""
    for number in range(count):
        client.publish(1, "", "q", body=numbered(number, MESSAGE))
    client.expect(0, Connection.Blocked)
    client.expect(0, Connection.Unblocked)
    while client.expect(1, Basic.Ack).delivery_tag != count:
        pass
