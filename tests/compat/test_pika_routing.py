"""Exchanges as pika programs use them: headers, chains, alternates, dead letters, returns."""

from typing import Any

import pika
import pytest
from compat.clients import (
    Server,
    deleted_afterwards,
    drain,
    own_exchange,
    own_queue,
    pika_channel,
    run_until,
    unique,
)


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ("all", [b"both", b"both and more"]),
        ("any", [b"both", b"both and more", b"format only", b"kind only"]),
    ],
)
def test_headers_exchange(server: Server, match: str, expected: list[bytes]) -> None:
    """A headers exchange wants all or any of a binding's arguments and ignores the routing key."""
    with pika_channel(server) as channel:
        exchange = own_exchange(channel, "headers")
        queue = own_queue(channel)
        channel.queue_bind(
            queue,
            exchange,
            "ignored",
            arguments={"x-match": match, "format": "pdf", "kind": "report", "x-ignored": "value"},
        )

        channel.confirm_delivery()
        for body, headers in (
            (b"both", {"format": "pdf", "kind": "report"}),
            (b"both and more", {"format": "pdf", "kind": "report", "size": 3}),
            (b"format only", {"format": "pdf", "kind": "log"}),
            (b"kind only", {"kind": "report"}),
            (b"neither", {"format": "zip", "kind": "log"}),
            (b"no headers", None),
        ):
            channel.basic_publish(exchange, "", body, pika.BasicProperties(headers=headers))

        assert drain(channel, queue) == expected


@pytest.mark.parametrize(("match", "expected"), [("any-with-x", [b"x only"]), ("all-with-x", [])])
def test_headers_exchange_counts_x_headers_only_when_asked(
    server: Server, match: str, expected: list[bytes]
) -> None:
    """Arguments beginning with x- count for any-with-x and all-with-x."""
    with pika_channel(server) as channel:
        exchange = own_exchange(channel, "headers")
        asking, plain = own_queue(channel), own_queue(channel)
        arguments = {"format": "pdf", "x-origin": "scanner"}
        channel.queue_bind(asking, exchange, arguments={"x-match": match, **arguments})
        channel.queue_bind(plain, exchange, arguments={"x-match": "any", **arguments})

        channel.confirm_delivery()
        channel.basic_publish(
            exchange, "", b"x only", pika.BasicProperties(headers={"x-origin": "scanner"})
        )

        assert drain(channel, asking) == expected
        assert drain(channel, plain) == []


def test_exchange_to_exchange_binding(server: Server) -> None:
    """A message travels through bound exchanges and reaches a queue once, by whatever ways."""
    with pika_channel(server) as channel:
        queue = own_queue(channel)
        source, topics, copies = (
            own_exchange(channel, kind) for kind in ("direct", "topic", "fanout")
        )
        channel.exchange_bind(destination=topics, source=source, routing_key="order.paid")
        channel.exchange_bind(destination=copies, source=source, routing_key="order.paid")
        channel.queue_bind(queue, topics, "order.*")
        channel.queue_bind(queue, copies)

        channel.confirm_delivery()
        channel.basic_publish(source, "order.paid", b"paid")
        channel.basic_publish(source, "order.lost", b"lost")
        assert drain(channel, queue) == [b"paid"]

        channel.exchange_unbind(destination=copies, source=source, routing_key="order.paid")
        channel.exchange_unbind(destination=topics, source=source, routing_key="order.paid")
        with pytest.raises(pika.exceptions.ChannelClosedByBroker) as closed:
            channel.exchange_declare(source, "direct", passive=True)
        assert closed.value.reply_code == 404


def test_alternate_exchange(server: Server) -> None:
    """What an exchange cannot route goes to its alternate exchange, and counts as routed."""
    with pika_channel(server) as channel:
        unrouted, routed = own_queue(channel), own_queue(channel)
        alternate = own_exchange(channel, "fanout")
        channel.queue_bind(unrouted, alternate)
        exchange = own_exchange(channel, "direct", {"alternate-exchange": alternate})
        channel.queue_bind(routed, exchange, "known")

        channel.confirm_delivery()
        channel.basic_publish(exchange, "known", b"routed", mandatory=True)
        channel.basic_publish(exchange, "unknown", b"unrouted", mandatory=True)

        assert drain(channel, routed) == [b"routed"]
        assert drain(channel, unrouted) == [b"unrouted"]


def test_unroutable_message_in_confirm_mode(server: Server) -> None:
    """A mandatory message that nobody gets comes back before its confirm, and pika raises."""
    with pika_channel(server) as channel:
        channel.confirm_delivery()
        nowhere = unique("nowhere")

        with pytest.raises(pika.exceptions.UnroutableError) as unroutable:
            channel.basic_publish(
                "", nowhere, b"lost", pika.BasicProperties(message_id="7"), mandatory=True
            )

        (returned,) = unroutable.value.messages
        assert returned.method.reply_code == 312
        assert returned.method.reply_text == "NO_ROUTE"
        assert returned.method.exchange == ""
        assert returned.method.routing_key == nowhere
        assert returned.properties.message_id == "7"
        assert returned.body == b"lost"


def test_unroutable_message_without_confirms(server: Server) -> None:
    """Outside confirm mode a mandatory message comes back to the return callback."""
    with pika_channel(server) as channel:
        returned: list[tuple[int, bytes]] = []

        def on_return(channel: Any, method: Any, properties: Any, body: bytes) -> None:
            returned.append((method.reply_code, body))

        channel.add_on_return_callback(on_return)
        channel.basic_publish("", unique("nowhere"), b"silently lost")
        channel.basic_publish("", unique("nowhere"), b"lost", mandatory=True)
        run_until(channel, lambda: bool(returned))

        assert returned == [(312, b"lost")]


def test_publish_to_a_missing_exchange(server: Server) -> None:
    """Publishing to an exchange that does not exist closes the channel with 404."""
    with pika_channel(server) as channel:
        missing = unique("missing")
        channel.confirm_delivery()

        with pytest.raises(pika.exceptions.ChannelClosedByBroker) as closed:
            channel.basic_publish(missing, "", b"lost")

        assert closed.value.reply_code == 404
        assert closed.value.reply_text == f"NOT_FOUND - no exchange '{missing}' in vhost '/'"


def test_unbinding_purging_and_deleting(server: Server) -> None:
    """Unbind stops the flow, purge and delete say how many messages they took away."""
    queue = unique("queue")
    with deleted_afterwards(server, queues=(queue,)), pika_channel(server) as channel:
        exchange = own_exchange(channel, "direct")
        keeper = own_queue(channel)
        channel.queue_bind(keeper, exchange, "keep the exchange")
        channel.queue_declare(queue)
        channel.queue_bind(queue, exchange, "key")
        channel.confirm_delivery()
        for _ in range(2):
            channel.basic_publish(exchange, "key", b"")
        assert channel.queue_purge(queue).method.message_count == 2

        channel.basic_publish(exchange, "key", b"")
        channel.queue_unbind(queue, exchange, "key")
        channel.basic_publish(exchange, "key", b"")
        assert channel.queue_delete(queue).method.message_count == 1
        assert channel.queue_delete(queue).method.message_count == 0
