"""Messages as bytes: however they are cut up on the way in, they come out as they were written.

With LEVERET_TEST_PORT these tests run against another broker.
"""

import os
import struct
from typing import Any

import pytest
from pamqp.commands import Basic
from running import ExternalBroker, RunningBroker
from wire import FRAME_BODY, FRAME_HEADER, FRAME_HEARTBEAT, FRAME_METHOD, Content, WireClient
from wire_methods import (
    NO_PROPERTIES,
    Properties,
    access_request,
    basic_consume,
    basic_publish,
    channel_close,
    confirm_select,
    content_header,
    frame,
    frames,
    properties,
    queue_bind,
    table,
)

Server = RunningBroker | ExternalBroker


@pytest.fixture
def queue(client: WireClient) -> str:
    """A queue that goes with the connection of `client`."""
    return client.declare_queue()


EVERY_TYPE = table(
    ("bool", "t", True),
    ("byte", "b", -5),
    ("unsignedbyte", "B", 250),
    ("short", "s", -300),
    ("unsignedshort", "u", 60000),
    ("signedint", "I", -70000),
    ("unsignedint", "i", 4000000000),
    ("long", "l", -(2**40)),
    ("float", "f", 1.5),
    ("double", "d", 0.1),
    ("decimal", "D", (2, 12345)),
    ("longstr", "S", "text"),
    ("not utf-8", "S", b"\xff\xfe"),
    ("binary", "x", bytes(range(256))),
    ("timestamp", "T", 1700000000),
    ("table", "F", (("inside", "F", (("deeper", "V", None),)), ("b", "S", ""))),
    ("array", "A", (("I", 1), ("S", "two"), ("A", ()), ("F", (("x", "t", False),)))),
    ("void", "V", None),
    ("", "S", "without a name"),
    ("Bool", "I", 1),
    ("same", "I", 1),
    ("same", "S", "again"),
    ("n" * 255, "I", 1),
)

CONTENTS = {
    "nothing": NO_PROPERTIES,
    "content_type": properties(content_type="text/plain"),
    "content_encoding": properties(content_encoding="gzip"),
    "headers": properties(headers=table(("one", "I", 1))),
    "empty-headers": properties(headers=table()),
    "headers-of-every-type": properties(headers=EVERY_TYPE),
    "transient": properties(delivery_mode=1),
    "persistent": properties(delivery_mode=2),
    "priority": properties(priority=255),
    "correlation_id": properties(correlation_id="5"),
    "reply_to": properties(reply_to="amq.somewhere"),
    "expiration": properties(expiration="3600000"),
    "message_id": properties(message_id="id"),
    "timestamp": properties(timestamp=2**64 - 1),
    "type": properties(type="type"),
    "user_id": properties(user_id="guest"),
    "app_id": properties(app_id="app"),
    "cluster_id": properties(cluster_id="cluster"),
    "empty-strings": properties(
        content_type="",
        content_encoding="",
        correlation_id="",
        reply_to="",
        message_id="",
        type="",
        app_id="",
        cluster_id="",
    ),
    "long-strings": properties(content_type="c" * 255, message_id="m" * 255, app_id="a" * 255),
    "not-utf-8": properties(content_type=b"\xff\xfe", correlation_id=b"\x00\x80", type=b"\xc3"),
    "all-fourteen": properties(
        content_type="application/json",
        content_encoding="utf-8",
        headers=EVERY_TYPE,
        delivery_mode=2,
        priority=9,
        correlation_id="correlation",
        reply_to="reply",
        expiration="60000",
        message_id="message",
        timestamp=1700000000,
        type="type",
        user_id="guest",
        app_id="app",
        cluster_id="cluster",
    ),
}


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS.keys())
def test_properties_are_kept_verbatim(client: WireClient, queue: str, content: Properties) -> None:
    """A delivery, a fetched and a returned message carry the very bytes that were published."""
    client.publish(1, "", queue, content, b"body")
    client.publish(1, "", queue, content, b"body")
    fetched = client.get(1, queue)
    client.call(1, basic_consume(queue, "tag"))
    delivered = client.expect_content(1, Basic.Deliver)
    client.publish(1, "", "no-such-queue", content, b"body", mandatory=True)
    returned = client.expect_content(1, Basic.Return)

    received: list[Content[Any]] = [fetched, delivered, returned]
    for message in received:
        assert message.header == content_header(4, content)
        assert message.body == b"body"


@pytest.mark.skipif("LEVERET_TEST_PORT" in os.environ, reason="RabbitMQ 3.10 refuses them")
@pytest.mark.parametrize("delivery_mode", [0, 3, 255])
def test_delivery_mode_may_be_any(client: WireClient, queue: str, delivery_mode: int) -> None:
    """A delivery mode that is neither 1 nor 2 is kept as it is, and means transient."""
    content = properties(delivery_mode=delivery_mode)
    client.publish(1, "", queue, content)

    assert client.get(1, queue).header == content_header(0, content)


def test_spare_flag_bits_do_no_harm(client: WireClient, queue: str) -> None:
    """The two lowest bits of the flags word stand for nothing."""
    flags, values = properties(delivery_mode=2, app_id="app")
    client.publish(1, "", queue, Properties(flags | 3, values))

    received = client.get(1, queue).properties

    (received_flags,) = struct.unpack_from(">H", received)
    assert (received_flags & 0xFFFC, received[2:]) == (flags, values)


def test_exchange_and_key_are_kept_verbatim(client: WireClient, queue: str) -> None:
    """Deliveries, fetched and returned messages name the exchange and key as published."""
    key = "schlüssel." + "k" * 240
    client.call(1, queue_bind(queue, "amq.topic", "#"))
    client.publish(1, "amq.topic", key)
    client.publish(1, "amq.topic", key)
    get = client.get(1, queue).method
    client.call(1, basic_consume(queue, "tag"))
    deliver = client.expect_content(1, Basic.Deliver).method
    client.publish(1, "amq.direct", key, mandatory=True)
    returned = client.expect_content(1, Basic.Return).method

    assert (get["exchange"], get["routing_key"]) == ("amq.topic", key)
    assert (deliver["exchange"], deliver["routing_key"]) == ("amq.topic", key)
    assert (returned["exchange"], returned["routing_key"]) == ("amq.direct", key)
    assert (returned["reply_code"], returned["reply_text"]) == (312, "NO_ROUTE")


# Bodies


@pytest.mark.parametrize(
    ("size", "frame_sizes"),
    [
        (0, ()),
        (1, (1,)),
        (4087, (4087,)),
        (4088, (4088,)),
        (4089, (4088, 1)),
        (8176, (4088, 4088)),
        (10000, (4088, 4088, 1824)),
    ],
)
def test_body_is_split_at_frame_max(
    server: Server, size: int, frame_sizes: tuple[int, ...]
) -> None:
    """Bodies come in frames as full as was agreed on; an empty one in none at all."""
    body = os.urandom(size)
    with WireClient(server.host, server.port) as client:
        client.handshake(frame_max=4096).open_channel()
        queue = client.declare_queue()
        client.publish(1, "", queue, body=body)
        client.publish(1, "", queue, body=body)
        fetched = client.get(1, queue)
        client.call(1, basic_consume(queue, "tag"))
        delivered = client.expect_content(1, Basic.Deliver)

    received: list[Content[Any]] = [fetched, delivered]
    for message in received:
        assert tuple(map(len, message.body_frames)) == frame_sizes
        assert message.body == body


def test_large_body(client: WireClient, queue: str) -> None:
    """A body of many frames comes back whole."""
    body = os.urandom(3_000_000)
    client.publish(1, "", queue, body=body)

    assert client.get(1, queue).body == body


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1, 1), (2, 3), (4, 0, 1), (0, 0, 5), (1, 0, 0, 4)])
def test_body_may_come_in_any_frames(
    client: WireClient, queue: str, sizes: tuple[int, ...]
) -> None:
    """Body frames may be of any size, and empty ones are passed over while more is to come."""
    parts = []
    body = b"12345"
    position = 0
    for size in sizes:
        parts.append(frame(FRAME_BODY, 1, body[position : position + size]))
        position += size
    header = frame(FRAME_HEADER, 1, content_header(5))
    client.send(frames(1, [basic_publish("", queue)]) + header + b"".join(parts))

    assert client.get(1, queue).body == body


def test_contents_of_two_channels_may_interleave(client: WireClient, queue: str) -> None:
    """The frames of contents on different channels, and heartbeats, may alternate freely."""
    client.open_channel(2)
    client.call(2, confirm_select())
    for frame_type, payloads in (
        (FRAME_METHOD, (basic_publish("", queue).payload,) * 2),
        (FRAME_HEADER, (content_header(4),) * 2),
        (FRAME_BODY, (b"1-", b"2-")),
        (FRAME_BODY, (b"1.", b"2.")),
    ):
        for channel, payload in enumerate(payloads, start=1):
            client.send(frame(frame_type, channel, payload) + frame(FRAME_HEARTBEAT, 0, b""))
    client.expect(2, Basic.Ack)

    assert sorted(client.get(1, queue).body for _ in range(2)) == [b"1-1.", b"2-2."]


# However the bytes arrive


SAMPLE = properties(headers=table(("key", "S", "value")), delivery_mode=2, app_id="app")


def sample(queue: str) -> bytes:
    """The frames of one message with properties and a body in two frames."""
    return (
        frames(1, [basic_publish("", queue)])
        + frame(FRAME_HEADER, 1, content_header(5, SAMPLE))
        + frame(FRAME_BODY, 1, b"bo")
        + frame(FRAME_BODY, 1, b"dy!")
    )


def is_sample(message: Content[Basic.GetOk]) -> bool:
    """Whether a message is the sample."""
    return message.header == content_header(5, SAMPLE) and message.body == b"body!"


def test_one_byte_at_a_time(server: Server) -> None:
    """A whole conversation, from the protocol header on, may come byte by byte."""

    class Dribbling(WireClient):
        """A client that sends every byte on its own."""

        def send(self, octets: bytes) -> None:
            for octet in octets:
                super().send(bytes([octet]))

    with Dribbling(server.host, server.port) as client:
        client.handshake().open_channel()
        queue = client.declare_queue()
        client.send(sample(queue))
        assert is_sample(client.get(1, queue))
        client.close()


def test_split_anywhere(server: Server, client: WireClient, queue: str) -> None:
    """A message may be split between any two of its bytes.

    Between the halves another client makes a round trip, so that the broker has most likely read
    the first half alone.
    """
    octets = sample(queue)
    with WireClient(server.host, server.port) as other:
        other.handshake().open_channel()
        for split in range(1, len(octets)):
            client.send(octets[:split])
            other.send_method(1, access_request("/data"))
            other.read_frame()
            client.send(octets[split:])

    for _ in range(1, len(octets)):
        assert is_sample(client.get(1, queue))


@pytest.mark.parametrize("size", [7, 61, 4096, 65536, 1_000_000])
def test_many_messages_in_any_pieces(client: WireClient, queue: str, size: int) -> None:
    """A stream of messages may be cut into pieces of any size, across all frame borders."""
    client.call(1, confirm_select())
    octets = sample(queue) * 200
    for start in range(0, len(octets), size):
        client.send(octets[start : start + size])

    while client.expect(1, Basic.Ack).delivery_tag != 200:
        pass
    for _ in range(200):
        assert is_sample(client.get(1, queue))
    client.send_method(1, channel_close())
