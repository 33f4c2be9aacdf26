"""Connections and channels as a client sees them on the wire when nothing goes wrong.

With LEVERET_TEST_PORT these tests run against another broker; those that need settings, alarms or a
newer RabbitMQ than 3.10 are skipped then.
"""

import os
import re
import struct

import pytest
from pamqp.commands import Basic, Channel, Connection, Queue
from running import ExternalBroker, RunningBroker, running_broker
from wire import AMQPLAIN_GUEST, FRAME_HEARTBEAT, FRAME_METHOD, PLAIN_GUEST, WireClient
from wire_methods import (
    Method,
    access_request,
    basic_cancel,
    basic_consume,
    basic_get,
    basic_publish,
    basic_qos,
    basic_recover,
    channel_flow,
    channel_open,
    confirm_select,
    connection_open,
    connection_start_ok,
    content_header,
    exchange_bind,
    exchange_declare,
    exchange_delete,
    exchange_unbind,
    frame,
    frames,
    longstr,
    parse_table,
    queue_bind,
    queue_declare,
    queue_delete,
    queue_purge,
    queue_unbind,
    shortstr,
    table,
    table_content,
    update_secret,
)

EXTERNAL = "LEVERET_TEST_PORT" in os.environ

needs_our_broker = pytest.mark.skipif(EXTERNAL, reason="needs a broker of our own")
not_in_310 = pytest.mark.skipif(EXTERNAL, reason="RabbitMQ 3.10 differs")


# Start


def start_of(client: WireClient) -> tuple[bytes, bytes, bytes, bytes]:
    """Version, server-properties, mechanisms and locales of connection.start, undecoded."""
    received = client.read_frame()
    assert (received.type, received.channel) == (FRAME_METHOD, 0)
    assert received.payload[:4] == b"\x00\x0a\x00\x0a"
    parts = []
    position = 6
    while position < len(received.payload):
        (size,) = struct.unpack_from(">I", received.payload, position)
        parts.append(received.payload[position + 4 : position + 4 + size])
        position += 4 + size
    properties, mechanisms, locales = parts
    return received.payload[4:6], properties, mechanisms, locales


def test_start_announces_rabbitmq(newcomer: WireClient) -> None:
    """The server properties are those of RabbitMQ, sorted by name."""
    newcomer.send_protocol_header()

    _, content, _, _ = start_of(newcomer)

    properties = {name: (tag, value) for name, tag, value in parse_table(content)}
    assert list(properties) == sorted(properties)
    assert list(properties) == [
        "capabilities",
        "cluster_name",
        "copyright",
        "information",
        "platform",
        "product",
        "version",
    ]
    assert {name for name, (tag, _) in properties.items() if tag == "S"} == {
        *properties.keys() - {"capabilities"}
    }
    assert properties["product"] == ("S", b"RabbitMQ")
    assert re.fullmatch(rb"\d+\.\d+\.\d+", properties["version"][1])
    assert re.fullmatch(rb"\w+@[\w.-]+", properties["cluster_name"][1])


def test_start_lists_the_capabilities_in_order(newcomer: WireClient) -> None:
    """The capabilities are RabbitMQ's, all true, and nothing else."""
    newcomer.send_protocol_header()

    _, content, _, _ = start_of(newcomer)

    _, tag, capabilities = parse_table(content)[0]
    assert tag == "F"
    assert capabilities == tuple(
        (name, "t", True)
        for name in (
            "publisher_confirms",
            "exchange_exchange_bindings",
            "basic.nack",
            "consumer_cancel_notify",
            "connection.blocked",
            "consumer_priorities",
            "authentication_failure_close",
            "per_consumer_qos",
            "direct_reply_to",
        )
    )


def test_start_offers_version_mechanisms_and_locale(newcomer: WireClient) -> None:
    """Version 0-9, PLAIN and AMQPLAIN, en_US."""
    newcomer.send_protocol_header()

    version, _, mechanisms, locales = start_of(newcomer)

    assert version == b"\x00\x09"
    assert sorted(mechanisms.split(b" ")) == [b"AMQPLAIN", b"PLAIN"]
    assert locales == b"en_US"


def test_header_of_0_9_is_understood(newcomer: WireClient) -> None:
    """The header of AMQP 0-9 means the same as that of 0-9-1."""
    newcomer.send_protocol_header(b"AMQP\x01\x01\x00\x09")

    newcomer.expect(0, Connection.Start)


def test_client_that_hangs_up_at_once_does_no_harm(
    server: RunningBroker | ExternalBroker, newcomer: WireClient
) -> None:
    """A health check connects and goes; the next client is served."""
    WireClient(server.host, server.port).disconnect()

    newcomer.handshake()


# Logging in


@pytest.mark.parametrize(
    ("mechanism", "response"),
    [
        pytest.param("PLAIN", PLAIN_GUEST, id="PLAIN"),
        pytest.param("AMQPLAIN", AMQPLAIN_GUEST, id="AMQPLAIN"),
        pytest.param(
            "AMQPLAIN",
            table_content(("other", "I", 1), ("PASSWORD", "S", "guest"), ("LOGIN", "S", "guest")),
            id="AMQPLAIN-any-order",
        ),
        pytest.param(
            "AMQPLAIN",
            table_content(("LOGIN", "x", b"guest"), ("PASSWORD", "x", b"guest")),
            id="AMQPLAIN-binary",
            marks=not_in_310,
        ),
    ],
)
def test_login(newcomer: WireClient, mechanism: str, response: bytes) -> None:
    """Right credentials are followed by connection.tune, whichever mechanism carries them."""
    newcomer.send_protocol_header()
    newcomer.expect(0, Connection.Start)
    newcomer.start_ok(mechanism, response)

    newcomer.expect(0, Connection.Tune)


def test_client_properties_may_be_anything(newcomer: WireClient) -> None:
    """Client properties of every type are taken; only known capabilities change anything."""
    newcomer.send_protocol_header()
    newcomer.expect(0, Connection.Start)
    newcomer.start_ok(
        capabilities=("basic.nack", "no_such_capability"),
        client_properties=[
            ("connection_name", "S", "a name"),
            ("product", "S", b"\xff\xfe"),
            ("list", "A", (("I", 1), ("S", "two"), ("F", (("three", "V", None),)))),
            ("number", "d", 1.5),
            ("nothing", "V", None),
            ("when", "T", 1700000000),
        ],
    )

    newcomer.expect(0, Connection.Tune)


def test_client_without_properties_may_log_in(newcomer: WireClient) -> None:
    """An empty table of client properties will do."""
    newcomer.send_protocol_header()
    newcomer.expect(0, Connection.Start)
    arguments = table() + shortstr("PLAIN") + longstr(PLAIN_GUEST) + shortstr("")
    newcomer.send_raw_method(0, 10, 11, arguments)

    newcomer.expect(0, Connection.Tune)


@pytest.mark.parametrize(
    "size", [3900, pytest.param(5000, marks=not_in_310), pytest.param(8000, marks=not_in_310)]
)
def test_start_ok_may_be_large(newcomer: WireClient, size: int) -> None:
    """A start-ok within the limit before login is read."""
    padding = [("padding", "S", bytes(size - 200))]
    assert size - 200 < len(connection_start_ok("PLAIN", b"", client_properties=padding).payload)
    newcomer.send_protocol_header()
    newcomer.expect(0, Connection.Start)
    newcomer.start_ok(client_properties=padding)

    newcomer.expect(0, Connection.Tune)


def test_refused_login_ends_with_close_ok(newcomer: WireClient) -> None:
    """A client that is told of the refusal gets its EOF as soon as it answers."""
    newcomer.send_protocol_header()
    newcomer.expect(0, Connection.Start)
    newcomer.start_ok("AMQPLAIN", table_content(("LOGIN", "S", "guest"), ("PASSWORD", "S", "no")))
    newcomer.expect_connection_close(
        403,
        "Login was refused using authentication mechanism AMQPLAIN. "
        "For details see the broker logfile.",
    )
    newcomer.connection_close_ok()

    assert newcomer.expect_eof() < 1


# Tuning


def test_tune_offers_the_defaults(newcomer: WireClient) -> None:
    """2047 channels, frames of 128 KiB and a heartbeat of a minute."""
    newcomer.log_in()

    tune = newcomer.expect(0, Connection.Tune)

    assert (tune.channel_max, tune.frame_max, tune.heartbeat) == (2047, 131072, 60)


@pytest.mark.parametrize(
    ("channel_max", "frame_max", "heartbeat"),
    [(2047, 4096, 0), (2047, 131072, 0), (1, 131072, 0), (2047, 131072, 65535)],
)
def test_client_may_ask_for_less(
    newcomer: WireClient, channel_max: int, frame_max: int, heartbeat: int
) -> None:
    """Whatever lies between the least allowed and the offer is agreed to; heartbeats are free."""
    newcomer.handshake(channel_max=channel_max, frame_max=frame_max, heartbeat=heartbeat)
    newcomer.open_channel()


def test_channel_max_limits_how_many_are_open(newcomer: WireClient) -> None:
    """Not the numbers of channels are limited but how many are open at a time."""
    newcomer.handshake(channel_max=2)
    newcomer.open_channel(60000)
    newcomer.open_channel(7)
    newcomer.close_channel(60000)
    newcomer.open_channel(65535)

    newcomer.send_method(1, channel_open())

    newcomer.expect_connection_close(
        530, "number of channels opened (2) has reached the negotiated channel_max (2)"
    )


def test_frame_may_exceed_the_limit_by_its_overhead(newcomer: WireClient) -> None:
    """With frames of 4096 bytes agreed on, a payload of 4096 bytes still passes."""
    newcomer.handshake(frame_max=4096).open_channel()
    queue = newcomer.declare_queue()
    newcomer.send_method(1, basic_publish("", queue))
    newcomer.send(frame(2, 1, content_header(4096)) + frame(3, 1, b"x" * 4096))

    content = newcomer.get(1, queue)

    assert [len(body) for body in content.body_frames] == [4088, 8]


@needs_our_broker
def test_limits_offered_are_settings() -> None:
    """The offer of connection.tune is what the broker is set to, and its limits hold."""
    with running_broker(channel_max=3, frame_max_bytes=8192, heartbeat_seconds=7) as server:
        with WireClient(server.host, server.port) as client:
            client.log_in()
            tune = client.expect(0, Connection.Tune)

    assert (tune.channel_max, tune.frame_max, tune.heartbeat) == (3, 8192, 7)


# Heartbeats


def test_heartbeats_begin_with_tune_ok(newcomer: WireClient) -> None:
    """The broker sends its first heartbeat half an interval after tune-ok, open or not."""
    newcomer.log_in()
    newcomer.expect(0, Connection.Tune)
    newcomer.tune_ok(10, 131072, heartbeat=1)

    assert newcomer.read_any_frame(timeout=2) == (FRAME_HEARTBEAT, 0, b"")


def test_heartbeats_keep_a_connection_alive(newcomer: WireClient) -> None:
    """A client that answers every heartbeat with its own is not dropped, and hears them steadily.

    Eight heartbeats, two in each interval, are longer than the three intervals after which a silent
    client is dropped.
    """
    newcomer.handshake(heartbeat=1)
    for _ in range(8):
        assert newcomer.read_any_frame(timeout=2) == (FRAME_HEARTBEAT, 0, b"")
        newcomer.send_frame(FRAME_HEARTBEAT, 0, b"")

    newcomer.open_channel()


# Replies


REPLIES = [
    (access_request("/data"), "001e000b 0001"),
    (channel_flow(True), "00140015 01"),
    (exchange_declare("amq.direct", durable=True), "0028000b"),
    (exchange_declare("amq.direct", "", passive=True), "0028000b"),
    (exchange_delete("no-such-exchange"), "00280015"),
    (exchange_unbind("amq.direct", "amq.topic"), "00280033"),
    (queue_delete("no-such-queue"), "00320029 00000000"),
    (queue_unbind("no-such-queue", "no-such-exchange"), "00320033"),
    (basic_qos(prefetch_count=10), "003c000b"),
    (basic_cancel("no-such-tag"), "003c001f 0b6e6f2d737563682d746167"),
    (basic_recover(requeue=True), "003c006f"),
    (confirm_select(), "0055000b"),
    (Method(90, 10), "005a000b"),
]


@pytest.mark.parametrize(("request_", "reply"), REPLIES, ids=lambda value: str(value)[:24])
def test_reply(client: WireClient, request_: Method, reply: str) -> None:
    """Each synchronous method is answered, byte for byte, as RabbitMQ answers it."""
    client.send_method(1, request_)

    assert client.read_frame() == (FRAME_METHOD, 1, bytes.fromhex(reply))


def test_replies_of_opening(newcomer: WireClient) -> None:
    """open-ok of a connection carries an empty shortstr, that of a channel an empty longstr."""
    newcomer.log_in()
    newcomer.expect(0, Connection.Tune)
    newcomer.tune_ok(10, 131072, 0)
    newcomer.send(frames(0, [connection_open("/")]) + frames(1, [channel_open()]))

    assert newcomer.read_frame() == (FRAME_METHOD, 0, bytes.fromhex("000a0029 00"))
    assert newcomer.read_frame() == (FRAME_METHOD, 1, bytes.fromhex("0014000b 00000000"))


def test_replies_of_a_queue(client: WireClient) -> None:
    """The replies that name a queue or count its messages."""
    queue = client.declare_queue()
    name = shortstr(queue)
    counts = struct.pack(">II", 2, 0)
    client.fill(queue, b"one", b"two")
    expected = [
        (queue_declare(queue, passive=True), b"\x00\x32\x00\x0b" + name + counts),
        (queue_bind(queue, "amq.direct", "key"), b"\x00\x32\x00\x15"),
        (queue_unbind(queue, "amq.direct", "key"), b"\x00\x32\x00\x33"),
        (queue_purge(queue), b"\x00\x32\x00\x1f" + struct.pack(">I", 2)),
        (basic_get(queue), b"\x00\x3c\x00\x48\x00"),
        (basic_consume(queue, "tag"), b"\x00\x3c\x00\x15\x03tag"),
        (basic_cancel("tag"), b"\x00\x3c\x00\x1f\x03tag"),
        (queue_delete(queue), b"\x00\x32\x00\x29" + struct.pack(">I", 0)),
    ]
    for request, reply in expected:
        client.send_method(1, request)
        assert client.read_frame() == (FRAME_METHOD, 1, reply)


def test_names_the_broker_gives(client: WireClient) -> None:
    """Names of queues and consumers are a prefix and 22 characters of base64 for URLs."""
    queue = client.declare_queue()
    consume = client.call(1, basic_consume(queue))

    assert re.fullmatch(r"amq\.gen-[A-Za-z0-9_-]{22}", queue)
    assert re.fullmatch(r"amq\.ctag-[A-Za-z0-9_-]{22}", str(consume["consumer_tag"]))


def test_update_secret(client: WireClient) -> None:
    """A new secret is taken note of."""
    client.send_method(0, update_secret("secret", "reason"))

    assert client.read_frame() == (FRAME_METHOD, 0, bytes.fromhex("000a0047"))


@not_in_310
def test_answer_to_a_cancel_is_ignored(client: WireClient) -> None:
    """A client may answer the broker's basic.cancel though nobody asked it to."""
    queue = client.declare_queue()
    client.call(1, basic_consume(queue, "tag"))
    client.send_method(1, queue_delete(queue))
    assert client.expect(1, Basic.Cancel).consumer_tag == "tag"
    client.expect(1, Queue.DeleteOk)
    client.send_method(1, Method(60, 31, shortstr("tag")))

    client.close_channel()


# Doing without replies


def test_pipelined_requests_are_answered_in_order(client: WireClient) -> None:
    """Nobody has to wait: open, declare, bind, publish and consume may go out in one write."""
    name = f"pipelined-{os.urandom(6).hex()}"
    client.send(
        frames(9, [channel_open(), queue_declare(name, exclusive=True)])
        + frames(9, [queue_bind(name, "amq.topic", "*.b")])
        + client.encode_content(9, basic_publish("amq.topic", "a.b"), body=b"one")
        + frames(9, [basic_consume(name, "tag")])
    )

    client.expect(9, Channel.OpenOk)
    client.expect(9, Queue.DeclareOk)
    client.expect(9, Queue.BindOk)
    client.expect(9, Basic.ConsumeOk)
    assert client.expect_content(9, Basic.Deliver).body == b"one"


def test_many_pipelined_declares(client: WireClient) -> None:
    """A hundred requests in one write get a hundred replies in their order."""
    names = [f"{number}-{os.urandom(6).hex()}" for number in range(100)]
    client.send(frames(1, [queue_declare(name, exclusive=True) for name in names]))

    assert [client.expect(1, Queue.DeclareOk).queue for _ in names] == names


def test_nowait_gets_no_reply(client: WireClient) -> None:
    """Every method with a nowait bit does its work without a word."""
    name = f"nowait-{os.urandom(6).hex()}"
    source, fanout, queue = f"{name}-source", f"{name}-fanout", f"{name}-queue"

    client.send(
        frames(
            1,
            [
                exchange_declare(source, nowait=True),
                exchange_declare(fanout, "fanout", nowait=True),
                queue_declare(queue, exclusive=True, nowait=True),
                exchange_bind(fanout, source, "key", nowait=True),
                queue_bind(queue, fanout, nowait=True),
            ],
        )
    )
    client.publish(1, source, "key", body=b"one")
    assert client.get(1, queue).body == b"one"

    client.publish(1, source, "key", body=b"two")
    client.send_method(1, queue_purge(queue, nowait=True))
    assert isinstance(client.call(1, basic_get(queue)), Basic.GetEmpty)

    client.send_method(1, basic_consume(queue, "tag", nowait=True))
    client.publish(1, source, "key", body=b"three")
    delivery = client.expect_content(1, Basic.Deliver)
    assert (delivery.body, delivery.method.consumer_tag) == (b"three", "tag")

    client.send_method(1, basic_cancel("tag", nowait=True))
    client.publish(1, source, "key", body=b"four")
    assert client.get(1, queue).body == b"four"

    client.send_method(1, exchange_unbind(fanout, source, "key", nowait=True))
    client.publish(1, source, "key", body=b"five", mandatory=True)
    assert client.expect_content(1, Basic.Return).body == b"five"

    client.send(
        frames(
            1,
            [
                queue_delete(queue, nowait=True),
                exchange_delete(source, nowait=True),
                exchange_delete(fanout, nowait=True),
                queue_declare(queue, passive=True),
            ],
        )
    )
    client.expect_channel_close(1, 404, f"no queue '{queue}' in vhost '/'", 50, 10)


def test_confirm_select_without_reply(client: WireClient) -> None:
    """Confirms are on after confirm.select with nowait, and the first is number one."""
    client.send_method(1, confirm_select(nowait=True))
    client.publish(1, "", "no-such-queue")

    ack = client.expect(1, Basic.Ack)

    assert (ack.delivery_tag, ack.multiple) == (1, False)


def test_consumer_without_tag_and_reply(client: WireClient) -> None:
    """A consumer started with nowait and no tag learns its tag from its first delivery."""
    queue = client.declare_queue()
    client.send_method(1, basic_consume(queue, "", nowait=True))
    client.publish(1, "", queue)

    delivery = client.expect_content(1, Basic.Deliver)

    assert str(delivery.method.consumer_tag).startswith("amq.ctag-")
