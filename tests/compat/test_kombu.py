"""kombu: producers, consumers, simple queues and the mailboxes that Celery is controlled by."""

from collections.abc import Iterator
from threading import Event, Thread
from typing import Any

import kombu
import pytest
from compat.clients import TIMEOUT_S, Server, deleted_afterwards, unique
from kombu.pidbox import Mailbox

BODY = {"name": "grüße", "numbers": [1, 2.5, None]}


@pytest.fixture
def connection(server: Server) -> Iterator[Any]:
    """A kombu connection that is closed after the test."""
    with kombu.Connection(server.url) as connection:
        yield connection


def own_queue(exchange: Any = None, routing_key: str = "") -> Any:
    """Describe an exclusive queue, bound to an exchange if one is given."""
    return kombu.Queue(unique("kombu"), exchange, routing_key, exclusive=True, durable=False)


def drain_until(connection: Any, received: list[Any], count: int) -> None:
    """Let the connection work until `count` messages have been received."""
    while len(received) < count:
        connection.drain_events(timeout=TIMEOUT_S)


def test_producer_and_consumer(connection: Any) -> None:
    """A producer declares what it needs, a consumer decodes and acknowledges."""
    exchange = kombu.Exchange(unique("kombu"), "direct", durable=False, auto_delete=True)
    queue = own_queue(exchange, "key")
    received: list[tuple[Any, dict[str, Any]]] = []

    def on_message(body: Any, message: Any) -> None:
        received.append((body, message.headers))
        message.ack()

    with connection.Consumer([queue], callbacks=[on_message]):
        connection.Producer().publish(
            BODY, exchange=exchange, routing_key="key", declare=[queue], headers={"try": 1}
        )
        drain_until(connection, received, 1)
        assert queue(connection.default_channel).get() is None

    assert received == [(BODY, {"try": 1})]


def test_confirmed_publish(server: Server) -> None:
    """With confirm_publish kombu waits for the broker's confirm of each message."""
    with kombu.Connection(server.url, transport_options={"confirm_publish": True}) as connection:
        queue = own_queue()(connection.default_channel)
        queue.declare()
        producer = connection.Producer()
        for number in range(10):
            producer.publish(number, routing_key=queue.name, timeout=TIMEOUT_S)

        assert [queue.get(no_ack=True).payload for _ in range(10)] == list(range(10))


def test_returned_message(connection: Any) -> None:
    """A mandatory message to nowhere comes back to the producer's callback."""
    returned: list[Any] = []

    def on_return(error: Any, exchange: str, routing_key: str, message: Any) -> None:
        returned.append((error.reply_code, routing_key, message.body))

    nowhere = unique("nowhere")
    producer = connection.Producer(on_return=on_return)
    producer.publish("lost", routing_key=nowhere, mandatory=True, serializer="raw")
    drain_until(connection, returned, 1)

    assert returned == [(312, nowhere, "lost")]


def test_requeue_and_reject(connection: Any) -> None:
    """A requeued message comes again marked as redelivered, a rejected one is gone."""
    queue = own_queue()(connection.default_channel)
    queue.declare()
    connection.Producer().publish("task", routing_key=queue.name)

    first = queue.get()
    first.requeue()
    second = queue.get()
    second.reject()

    assert first.delivery_info["redelivered"] is False
    assert second.delivery_info["redelivered"] is True
    assert queue.get() is None


def test_simple_queue(connection: Any, server: Server) -> None:
    """A SimpleQueue works like one of Python's own queues."""
    name = unique("simple")
    with deleted_afterwards(server, queues=(name,), exchanges=(name,)):
        with connection.SimpleQueue(name) as queue:
            for number in range(3):
                queue.put({"number": number})
            messages = [queue.get(timeout=TIMEOUT_S) for _ in range(3)]
            assert [message.payload for message in messages] == [
                {"number": number} for number in range(3)
            ]
            for message in messages:
                message.ack()
            assert len(queue) == 0
            with pytest.raises(queue.Empty):
                queue.get_nowait()


def test_simple_buffer(connection: Any, server: Server) -> None:
    """A SimpleBuffer is transient and needs no acknowledgements."""
    name = unique("buffer")
    with deleted_afterwards(server, queues=(name,), exchanges=(name,)):
        with connection.SimpleBuffer(name) as buffer:
            buffer.put("message")
            assert buffer.get(timeout=TIMEOUT_S).payload == "message"


def test_prefetch_is_global_for_rabbitmq_3(connection: Any) -> None:
    """kombu knows from product and version that a shared limit must be asked for, and gets it."""
    assert connection.qos_semantics_matches_spec is False
    channel = connection.default_channel
    queues = [own_queue()(channel) for _ in range(2)]
    received: list[Any] = []

    def on_message(body: Any, message: Any) -> None:
        received.append(message)

    consumers = [connection.Consumer([queue], callbacks=[on_message]) for queue in queues]
    consumers[0].qos(prefetch_count=2, apply_global=True)
    for consumer in consumers:
        consumer.consume()
    for queue in queues:
        for number in range(2):
            connection.Producer(channel).publish(number, routing_key=queue.name)
    drain_until(connection, received, 2)
    waiting = [queue.queue_declare(passive=True).message_count for queue in queues]
    assert (len(received), sum(waiting)) == (2, 2)

    for message in received[:2]:
        message.ack()
    drain_until(connection, received, 4)
    assert sorted(message.payload for message in received) == [0, 0, 1, 1]


def test_fanout_to_every_listener(server: Server, connection: Any) -> None:
    """A broadcast reaches the queue of every listener."""
    exchange = kombu.Exchange(unique("broadcast"), "fanout", durable=False, auto_delete=True)
    received: list[tuple[str, Any]] = []
    with kombu.Connection(server.url) as other:
        for name, listener in (("first", connection), ("second", other)):

            def on_message(body: Any, message: Any, name: str = name) -> None:
                received.append((name, body))

            listener.Consumer([own_queue(exchange)], callbacks=[on_message], no_ack=True).consume()
        connection.Producer().publish({"revoke": "task"}, exchange=exchange)
        drain_until(connection, received, 1)
        drain_until(other, received, 2)

    assert received == [("first", {"revoke": "task"}), ("second", {"revoke": "task"})]


def test_mailbox(server: Server, connection: Any) -> None:
    """A command to a mailbox is carried out by each node, and the replies come back."""
    namespace = unique("mailbox")
    exchanges = f"{namespace}.pidbox", f"reply.{namespace}.pidbox"
    mailbox = Mailbox(namespace, type="fanout", accept=["json"])
    ready, stop = Event(), Event()

    def serve() -> None:
        with kombu.Connection(server.url) as own_connection:
            for hostname in ("node1", "node2"):
                node = mailbox(own_connection).Node(
                    hostname,
                    state=hostname,
                    channel=own_connection.channel(),
                    handlers={"greet": lambda state, whom: {state: f"hello {whom}"}},
                )
                node.listen()
            ready.set()
            while not stop.is_set():
                own_connection.drain_events(timeout=TIMEOUT_S)

    with deleted_afterwards(server, exchanges=exchanges):
        thread = Thread(target=serve, daemon=True)
        thread.start()
        assert ready.wait(TIMEOUT_S)
        bound = mailbox(connection)

        replies = bound.multi_call("greet", {"whom": "all"}, timeout=TIMEOUT_S, limit=2)
        assert sorted(replies, key=str) == [
            {"node1": {"node1": "hello all"}},
            {"node2": {"node2": "hello all"}},
        ]

        one_reply = bound.call(["node2"], "greet", {"whom": "you"}, timeout=TIMEOUT_S)
        assert one_reply == [{"node2": {"node2": "hello you"}}]

        stop.set()
        bound.abcast("greet", {"whom": "nobody"})
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()


def test_transaction_of_the_channel(connection: Any) -> None:
    """py-amqp's channel commits and rolls back."""
    channel = connection.default_channel
    queue = own_queue()(channel)
    queue.declare()
    transacted = connection.channel()
    producer = kombu.Producer(transacted)
    transacted.tx_select()
    producer.publish("regretted", routing_key=queue.name)
    transacted.tx_rollback()
    producer.publish("meant", routing_key=queue.name)
    assert queue.get() is None
    transacted.tx_commit()

    assert queue.get(no_ack=True).payload == "meant"


def test_heartbeats(server: Server) -> None:
    """A heartbeat is agreed upon and the client's check of it is content."""
    with kombu.Connection(server.url, heartbeat=30) as connection:
        connection.connect()

        assert connection.get_heartbeat_interval() == 30
        connection.heartbeat_check()
