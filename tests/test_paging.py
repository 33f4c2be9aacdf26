"""A long queue under a small memory budget, over real sockets and a real log."""

from pathlib import Path

import pika
from running import RunningBroker, running_broker

COUNT = 6000


def test_a_long_queue_comes_back_from_disk(tmp_path: Path) -> None:
    """Gets, deliveries and a restart give every message whole and in order, whoever reads it."""
    settings = {"data_dir": str(tmp_path), "memory_budget_bytes": 1, "shutdown_timeout_ms": 0}
    with running_broker(**settings) as server:
        channel = connected(server)
        channel.queue_declare("long", durable=True)
        for number in range(COUNT):
            channel.basic_publish("", "long", b"%d" % number, pika.BasicProperties(delivery_mode=2))
        # Its answer comes when everything before it is safe, and then memory is relieved.
        channel.queue_declare("other", durable=True)
        assert channel.queue_declare("long", passive=True).method.message_count == COUNT
        assert server.call(packed, server)
        bodies = got(channel, 2100)
    with running_broker(**settings) as server:
        channel = connected(server)
        bodies += got(channel, 10)
        for method, _, body in channel.consume("long", inactivity_timeout=10):
            assert method is not None, f"{COUNT - len(bodies)} messages did not come"
            bodies.append(body)
            channel.basic_ack(method.delivery_tag)
            if len(bodies) == COUNT:
                break
        channel.cancel()
        assert channel.queue_declare("long", passive=True).method.message_count == 0

    assert bodies == [b"%d" % number for number in range(COUNT)]


def connected(server: RunningBroker) -> "pika.adapters.blocking_connection.BlockingChannel":
    """A channel of a connection of its own."""
    return pika.BlockingConnection(pika.URLParameters(server.url)).channel()


def got(channel: "pika.adapters.blocking_connection.BlockingChannel", count: int) -> list[bytes]:
    """The bodies of the next messages, got one by one."""
    bodies: list[bytes] = []
    for _ in range(count):
        _, _, body = channel.basic_get("long", auto_ack=True)
        assert body is not None
        bodies.append(body)
    return bodies


def packed(server: RunningBroker) -> bool:
    """Whether messages wait without their contents."""
    queue = server.broker._node.vhosts["/"].queues["long"]
    return queue.ready.absent_bytes > 0
