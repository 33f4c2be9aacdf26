"""What pika puts into a message comes out again: bodies of all sizes, properties, header types."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pika
import pytest
from compat.clients import Server, own_exchange, own_queue, pika_channel, receive

FRAME_MAX = 131_072
MIB = 1024 * 1024

HEADERS = {
    "string": "grüße",
    "bytes": b"\x00\xff",
    "true": True,
    "false": False,
    "small integer": 7,
    "negative integer": -(2**31),
    "large integer": 2**62,
    "decimal": Decimal("12.34"),
    "time": datetime(2024, 2, 29, 12, 30, tzinfo=UTC),
    "table": {"nested": {"deeper": "value"}, "list": [1, 2]},
    "empty table": {},
    "list": ["text", 1, True, None, {"key": "value"}, [2**40]],
    "empty list": [],
    "nothing": None,
}


@pytest.mark.parametrize(
    "size", [0, 1, FRAME_MAX - 8, FRAME_MAX - 7, FRAME_MAX, 2 * FRAME_MAX, 5 * MIB]
)
def test_body_size(server: Server, size: int) -> None:
    """Bodies from nothing to many frames come back unchanged."""
    body = bytes(range(256)) * (size // 256 + 1)
    with pika_channel(server) as channel:
        queue = own_queue(channel)
        channel.confirm_delivery()
        channel.basic_publish("", queue, body[:size], mandatory=True)

        (delivery,) = receive(channel, queue, 1)

        assert delivery.body == body[:size]


def test_header_types(server: Server) -> None:
    """Every type that pika can write into a headers table arrives as it was."""
    with pika_channel(server) as channel:
        queue = own_queue(channel)
        channel.basic_publish("", queue, b"", pika.BasicProperties(headers=HEADERS))

        (delivery,) = receive(channel, queue, 1)

        received = dict(delivery.properties.headers)
        received["time"] = received["time"].replace(tzinfo=UTC)
        assert received == HEADERS
        assert all(isinstance(received[name], type(value)) for name, value in HEADERS.items())


def test_all_properties(server: Server) -> None:
    """The fourteen properties arrive as published."""
    properties = {
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "headers": {"key": "value"},
        "delivery_mode": 2,
        "priority": 200,
        "correlation_id": "correlation",
        "reply_to": "somewhere",
        "expiration": "60000",
        "message_id": "message",
        "timestamp": 1_700_000_000,
        "type": "type",
        "user_id": "guest",
        "app_id": "application",
        "cluster_id": "cluster",
    }
    with pika_channel(server) as channel:
        queue = own_queue(channel)
        channel.basic_publish("", queue, b"", pika.BasicProperties(**properties))

        (delivery,) = receive(channel, queue, 1)

        assert vars(delivery.properties) == properties


def test_no_properties(server: Server) -> None:
    """Properties that were not published do not appear."""
    with pika_channel(server) as channel:
        queue = own_queue(channel)
        channel.basic_publish("", queue, b"")

        (delivery,) = receive(channel, queue, 1)

        assert {value for value in vars(delivery.properties).values() if value is not None} == set()


def test_wrong_user_id(server: Server) -> None:
    """A message may only claim to come from the user who publishes it."""
    with pika_channel(server) as channel:
        channel.confirm_delivery()

        with pytest.raises(pika.exceptions.ChannelClosedByBroker) as closed:
            channel.basic_publish("", "anywhere", b"", pika.BasicProperties(user_id="bob"))

        assert closed.value.reply_text == (
            "PRECONDITION_FAILED - user_id property set to 'bob' but authenticated user was 'guest'"
        )


def test_copies_by_header(server: Server) -> None:
    """CC and BCC name further routing keys; receivers see CC but not BCC."""
    with pika_channel(server) as channel:
        exchange = own_exchange(channel, "direct")
        queues: dict[str, str] = {}
        for key in ("main", "copy", "blind"):
            queues[key] = own_queue(channel)
            channel.queue_bind(queues[key], exchange, key)
        headers: dict[str, Any] = {"CC": ["copy"], "BCC": ["blind"], "other": 1}
        channel.basic_publish(exchange, "main", b"", pika.BasicProperties(headers=headers))

        for queue in queues.values():
            (delivery,) = receive(channel, queue, 1)
            assert delivery.method.routing_key == "main"
            assert delivery.properties.headers == {"CC": ["copy"], "other": 1}
