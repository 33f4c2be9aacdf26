"""The programs of RabbitMQ's own pika tutorials."""

from itertools import islice
from threading import Thread
from typing import Any

import pika
import pytest
from compat.clients import (
    Inbox,
    Server,
    deleted_afterwards,
    drain,
    own_exchange,
    own_queue,
    pika_channel,
    pika_connection,
    receive,
    run_until,
    unique,
)
from pika.adapters.blocking_connection import BlockingChannel

REPLY_TO = "amq.rabbitmq.reply-to"


def test_hello_world(server: Server) -> None:
    """A message sent through the default exchange reaches the queue that its key names."""
    queue = unique("hello")
    with deleted_afterwards(server, queues=(queue,)):
        with pika_channel(server) as producer:
            producer.queue_declare(queue)
            producer.basic_publish(exchange="", routing_key=queue, body=b"Hello World!")

        with pika_channel(server) as consumer:
            consumer.queue_declare(queue)
            inbox = receive(consumer, queue, 1)

        assert inbox.bodies == [b"Hello World!"]
        assert inbox[0].method.exchange == ""
        assert inbox[0].method.routing_key == queue
        assert inbox[0].method.redelivered is False


def test_start_consuming_until_stopped(server: Server) -> None:
    """The blocking loop of the tutorials runs until a callback stops it."""
    with pika_channel(server) as channel:
        queue = own_queue(channel)
        bodies = []

        def on_message(channel: BlockingChannel, method: Any, properties: Any, body: bytes) -> None:
            bodies.append(body)
            channel.basic_ack(method.delivery_tag)
            if body == b"last":
                channel.stop_consuming()

        channel.basic_consume(queue, on_message)
        channel.basic_publish("", queue, b"first")
        channel.basic_publish("", queue, b"last")
        channel.start_consuming()

        assert bodies == [b"first", b"last"]


def test_consume_generator(server: Server) -> None:
    """pika's consume generator hands out messages and gives back those it had prefetched."""
    with pika_channel(server) as channel:
        queue = own_queue(channel)
        channel.confirm_delivery()
        for number in range(5):
            channel.basic_publish("", queue, b"%d" % number)

        bodies = []
        for method, _, body in channel.consume(queue, inactivity_timeout=10):
            assert method is not None
            bodies.append(body)
            channel.basic_ack(method.delivery_tag)
            if len(bodies) == 2:
                break
        channel.cancel()

        assert bodies == [b"0", b"1"]
        assert drain(channel, queue) == [b"2", b"3", b"4"]


def test_publish_and_subscribe(server: Server) -> None:
    """A fanout exchange gives every bound queue a copy, whatever the routing key."""
    with pika_channel(server) as emitter, pika_channel(server) as subscriber:
        logs = own_exchange(subscriber, "fanout")
        queues = [own_queue(subscriber), own_queue(subscriber)]
        inboxes = [Inbox(), Inbox()]
        for queue, inbox in zip(queues, inboxes, strict=True):
            subscriber.queue_bind(queue, logs)
            subscriber.basic_consume(queue, inbox, auto_ack=True)

        emitter.basic_publish(logs, "", b"first")
        emitter.basic_publish(logs, "ignored", b"second")
        run_until(subscriber, lambda: all(len(inbox) == 2 for inbox in inboxes))

        assert [inbox.bodies for inbox in inboxes] == [[b"first", b"second"]] * 2
        assert inboxes[1][1].method.routing_key == "ignored"


def test_fanout_without_subscribers_drops(server: Server) -> None:
    """What is published before the first queue is bound is gone."""
    with pika_channel(server) as channel:
        logs = unique("logs")
        with deleted_afterwards(server, exchanges=(logs,)):
            channel.exchange_declare(logs, "fanout")
            channel.confirm_delivery()
            channel.basic_publish(logs, "", b"nobody listens")
            queue = own_queue(channel)
            channel.queue_bind(queue, logs)
            channel.basic_publish(logs, "", b"somebody listens")

            assert drain(channel, queue) == [b"somebody listens"]


def test_direct_logs_by_severity(server: Server) -> None:
    """A direct exchange routes by exact key, and one queue may be bound with several keys."""
    with pika_channel(server) as channel:
        logs = own_exchange(channel, "direct")
        errors, everything = own_queue(channel), own_queue(channel)
        channel.queue_bind(errors, logs, "error")
        for severity in ("info", "warning", "error"):
            channel.queue_bind(everything, logs, severity)

        channel.confirm_delivery()
        for severity in ("info", "warning", "error", "debug"):
            channel.basic_publish(logs, severity, severity.encode())

        assert drain(channel, errors) == [b"error"]
        assert drain(channel, everything) == [b"info", b"warning", b"error"]


def test_topic_logs(server: Server) -> None:
    """A message whose key matches the patterns of two queues reaches both, once each."""
    with pika_channel(server) as channel:
        logs = own_exchange(channel, "topic")
        errors, payments = own_queue(channel), own_queue(channel)
        channel.queue_bind(errors, logs, "error.*")
        channel.queue_bind(payments, logs, "*.payment")
        channel.queue_bind(payments, logs, "#.payment")

        channel.confirm_delivery()
        for key in ("error.payment", "error.login", "info.payment", "info.login", "error"):
            channel.basic_publish(logs, key, key.encode())

        assert drain(channel, errors) == [b"error.payment", b"error.login"]
        assert drain(channel, payments) == [b"error.payment", b"info.payment"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("eu.*.free_user", ["eu.culture.free_user", "eu.sport.free_user"]),
        ("ru.#", ["ru.culture.paid_user", "ru", "ru.sport"]),
        ("*.culture.*", ["eu.culture.free_user", "ru.culture.paid_user"]),
        (
            "#",
            [
                "eu.culture.free_user",
                "eu.sport.free_user",
                "eu.sport.local.free_user",
                "ru.culture.paid_user",
                "ru",
                "ru.sport",
                "us.politics.paid_user",
            ],
        ),
    ],
)
def test_news_by_region_section_and_user_type(
    server: Server, pattern: str, expected: list[str]
) -> None:
    """In `<region>.<section>.<user_type>` a star is one word and a hash any number of them."""
    with pika_channel(server) as channel:
        news = own_exchange(channel, "topic")
        queue = own_queue(channel)
        channel.queue_bind(queue, news, pattern)

        channel.confirm_delivery()
        for key in (
            "eu.culture.free_user",
            "eu.sport.free_user",
            "eu.sport.local.free_user",
            "ru.culture.paid_user",
            "ru",
            "ru.sport",
            "us.politics.paid_user",
        ):
            channel.basic_publish(news, key, key.encode())

        assert [body.decode() for body in drain(channel, queue)] == expected


def serve_squares(server: Server, queue: str, requests: int) -> Thread:
    """Answer a number of requests in a thread with the square of their number."""
    connection = pika.BlockingConnection(
        pika.ConnectionParameters(server.host, server.port, heartbeat=0)
    )
    channel = connection.channel()
    channel.queue_declare(queue, auto_delete=True)
    channel.basic_qos(prefetch_count=1)

    def serve() -> None:
        inbox = channel.consume(queue, inactivity_timeout=10)
        for method, properties, body in islice(inbox, requests):
            if method is None:
                break
            channel.basic_publish(
                exchange="",
                routing_key=properties.reply_to,
                properties=pika.BasicProperties(correlation_id=properties.correlation_id),
                body=b"%d" % int(body) ** 2,
            )
            channel.basic_ack(method.delivery_tag)
        connection.close()

    thread = Thread(target=serve, daemon=True)
    thread.start()
    return thread


def test_request_and_reply_over_an_exclusive_queue(server: Server) -> None:
    """Replies come to a server-named exclusive queue and are told apart by correlation id."""
    requests = unique("requests")
    thread = serve_squares(server, requests, 3)
    with pika_channel(server) as client:
        reply_queue = own_queue(client)
        assert reply_queue.startswith("amq.gen-")

        replies = Inbox()
        client.basic_consume(reply_queue, replies, auto_ack=True)
        for number in (3, 4, 5):
            client.basic_publish(
                "",
                requests,
                b"%d" % number,
                pika.BasicProperties(reply_to=reply_queue, correlation_id=f"id-{number}"),
            )
        run_until(client, lambda: len(replies) == 3)
    thread.join(10)

    answers = {reply.properties.correlation_id: reply.body for reply in replies}
    assert answers == {"id-3": b"9", "id-4": b"16", "id-5": b"25"}
    assert not thread.is_alive()


def test_request_and_reply_directly(server: Server) -> None:
    """With the reply-to pseudo-queue a reply reaches the waiting channel without a queue."""
    requests = unique("requests")
    thread = serve_squares(server, requests, 2)
    with pika_channel(server) as client:
        replies = Inbox()
        client.basic_consume(REPLY_TO, replies, auto_ack=True)
        for number in (6, 7):
            client.basic_publish(
                "",
                requests,
                b"%d" % number,
                pika.BasicProperties(reply_to=REPLY_TO, correlation_id=f"id-{number}"),
            )
        run_until(client, lambda: len(replies) == 2)
    thread.join(10)

    answers = {reply.properties.correlation_id: reply.body for reply in replies}
    assert answers == {"id-6": b"36", "id-7": b"49"}
    assert replies[0].method.exchange == ""
    assert replies[0].method.routing_key.startswith(REPLY_TO + ".")
    assert not thread.is_alive()


def test_direct_reply_address_can_be_checked(server: Server) -> None:
    """A server may ask by a passive declare whether the one who waits for a reply still does."""
    with pika_channel(server) as client, pika_channel(server) as responder:
        client.basic_consume(REPLY_TO, Inbox(), auto_ack=True)
        requests = own_queue(responder)
        client.basic_publish("", requests, b"?", pika.BasicProperties(reply_to=REPLY_TO))
        address = receive(responder, requests, 1)[0].properties.reply_to

        declared = responder.queue_declare(address, passive=True)

        assert declared.method.queue == address
        assert declared.method.message_count == 0


def test_direct_reply_needs_its_consumer_first(server: Server) -> None:
    """Publishing with the pseudo-queue as reply-to but no consumer on it closes the channel."""
    with pika_connection(server) as connection:
        channel = connection.channel()
        channel.confirm_delivery()

        with pytest.raises(pika.exceptions.ChannelClosedByBroker) as closed:
            channel.basic_publish("", "anything", b"?", pika.BasicProperties(reply_to=REPLY_TO))

        assert closed.value.reply_code == 406
        assert closed.value.reply_text == (
            "PRECONDITION_FAILED - fast reply consumer does not exist"
        )
