"""What publishers are told, and what waits, while memory or disk is low."""

import os

import pytest
from pamqp.commands import Basic, Connection, Queue
from running import RunningBroker
from wire import WireClient
from wire_methods import (
    basic_ack,
    basic_consume,
    basic_qos,
    queue_declare,
)

pytestmark = pytest.mark.skipif(
    "LEVERET_TEST_PORT" in os.environ, reason="needs a broker of our own"
)


def another(server: RunningBroker) -> WireClient:
    """One more client with channel 1 open."""
    client = WireClient(server.host, server.port).handshake()
    client.open_channel()
    return client


def set_alarm(server: RunningBroker, resource: str, active: bool) -> None:
    """Set or clear an alarm of our own broker."""
    server.call(server.broker.set_alarm, resource, active)


def messages_in(client: WireClient, queue: str) -> int | None:
    """How many messages are ready."""
    reply = client.call(1, queue_declare(queue, passive=True))
    assert isinstance(reply, Queue.DeclareOk)
    return reply.message_count


@pytest.mark.parametrize("resource", ["memory", "disk"])
def test_alarm_blocks_a_publisher(server: RunningBroker, client: WireClient, resource: str) -> None:
    """What is published during an alarm waits with all that follows it until the alarm is over."""
    queue = client.declare_queue(exclusive=False)
    set_alarm(server, resource, True)
    client.publish(1, "", queue, body=b"one")
    client.publish(1, "", queue, body=b"two")
    client.send_method(1, queue_declare(queue, passive=True))
    assert client.expect(0, Connection.Blocked).reason == f"low on {resource}"
    with another(server) as other:
        assert messages_in(other, queue) == 0

    set_alarm(server, resource, False)

    client.expect(0, Connection.Unblocked)
    assert client.expect(1, Queue.DeclareOk).message_count == 2


def test_publisher_is_told_of_both_alarms(server: RunningBroker, client: WireClient) -> None:
    """The reason names all that is low; unblocked waits for the last alarm to clear."""
    set_alarm(server, "memory", True)
    set_alarm(server, "disk", True)
    client.publish(1, "", "no-such-queue", body=b"one")
    client.send_method(1, basic_qos())
    reason = client.expect(0, Connection.Blocked).reason
    set_alarm(server, "memory", False)
    with another(server) as other:
        other.call(1, basic_qos())

    set_alarm(server, "disk", False)

    assert reason in ("low on memory & disk", "low on disk & memory")
    client.expect(0, Connection.Unblocked)
    client.expect(1, Basic.QosOk)


def test_alarm_is_silent_without_the_capability(server: RunningBroker) -> None:
    """A client that does not know connection.blocked is blocked all the same."""
    with WireClient(server.host, server.port) as client:
        client.handshake(capabilities=()).open_channel()
        queue = client.declare_queue(exclusive=False)
        set_alarm(server, "memory", True)
        client.publish(1, "", queue, body=b"one")
        client.send_method(1, queue_declare(queue, passive=True))
        with another(server) as other:
            assert messages_in(other, queue) == 0

        set_alarm(server, "memory", False)

        assert client.expect(1, Queue.DeclareOk).message_count == 1


def test_alarm_spares_consumers(server: RunningBroker, client: WireClient) -> None:
    """A connection that publishes nothing goes on as if there were no alarm, however new it is."""
    queue = client.declare_queue(exclusive=False)
    client.fill(queue, b"one")
    set_alarm(server, "memory", True)

    with another(server) as consumer:
        consumer.call(1, basic_consume(queue, "tag"))
        delivery = consumer.expect_content(1, Basic.Deliver)
        assert delivery.body == b"one"
        consumer.send_method(1, basic_ack(1))
        assert messages_in(consumer, queue) == 0

        consumer.publish(1, "", queue, body=b"two")
        consumer.expect(0, Connection.Blocked)


def test_alarm_lets_an_empty_message_pass(server: RunningBroker, client: WireClient) -> None:
    """A publish that blocks its connection by its header, and has no body, is complete."""
    queue = client.declare_queue(exclusive=False)
    set_alarm(server, "memory", True)
    client.publish(1, "", queue)
    client.expect(0, Connection.Blocked)

    with another(server) as other:
        assert messages_in(other, queue) == 1


def test_alarm_that_is_over_leaves_no_trace(server: RunningBroker, client: WireClient) -> None:
    """Nobody is told of an alarm that came and went between two publishes."""
    set_alarm(server, "memory", True)
    set_alarm(server, "memory", False)
    client.publish(1, "", "no-such-queue", body=b"one")

    client.call(1, basic_qos())
