"""aiormq: consuming, confirms in bulk, returned messages."""

import asyncio
import struct
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal

import aiormq
import aiormq.abc
import pytest
import pytest_asyncio
from compat.clients import TIMEOUT_S, Server, unique
from pamqp.commands import Basic
from pamqp.common import FieldTable

Messages = asyncio.Queue[aiormq.abc.DeliveredMessage]


@pytest_asyncio.fixture
async def connection(server: Server) -> AsyncIterator[aiormq.abc.AbstractConnection]:
    """A connection that is closed after the test."""
    connection = await aiormq.connect(server.url)
    try:
        yield connection
    finally:
        await connection.close()


async def own_queue(channel: aiormq.abc.AbstractChannel) -> str:
    """Declare an exclusive queue, which goes with its connection; return its name."""
    declared = await channel.queue_declare(exclusive=True)
    assert declared.queue is not None
    return declared.queue


async def next_message(messages: Messages) -> aiormq.abc.DeliveredMessage:
    """The next message that a consumer puts there."""
    async with asyncio.timeout(TIMEOUT_S):
        return await messages.get()


async def test_consumer_of_a_direct_exchange(connection: aiormq.abc.AbstractConnection) -> None:
    """With a prefetch of one each explicit ack brings the next message, in order."""
    channel = await connection.channel()
    await channel.basic_qos(prefetch_count=1)
    exchange = unique("direct")
    await channel.exchange_declare(exchange, exchange_type="direct", auto_delete=True)
    queue = await own_queue(channel)
    await channel.queue_bind(queue, exchange, routing_key="info")
    messages: Messages = asyncio.Queue()
    consumed = await channel.basic_consume(queue, messages.put)

    for number in range(3):
        await channel.basic_publish(b"%d" % number, exchange=exchange, routing_key="info")
    await channel.basic_publish(b"other", exchange=exchange, routing_key="warning")

    for number in range(3):
        message = await next_message(messages)
        assert message.body == b"%d" % number
        assert message.exchange == exchange
        assert message.routing_key == "info"
        assert message.redelivered is False
        assert messages.empty()
        assert message.delivery_tag is not None
        await channel.basic_ack(message.delivery_tag)

    assert consumed.consumer_tag is not None
    await channel.basic_cancel(consumed.consumer_tag)
    assert isinstance((await channel.basic_get(queue)).delivery, Basic.GetEmpty)


async def test_mandatory_message_to_nowhere(connection: aiormq.abc.AbstractConnection) -> None:
    """The message comes back before its confirm, so its confirmation is the returned message."""
    channel = await connection.channel(on_return_raises=False)
    returned: list[bytes] = []

    def on_return(message: aiormq.abc.DeliveredMessage) -> None:
        returned.append(message.body)

    channel.on_return_callbacks.add(on_return)
    nowhere = unique("nowhere")

    confirmation: object = await channel.basic_publish(b"lost", routing_key=nowhere, mandatory=True)

    assert isinstance(confirmation, aiormq.abc.DeliveredMessage)
    assert isinstance(confirmation.delivery, Basic.Return)
    assert confirmation.delivery.reply_code == 312
    assert confirmation.delivery.reply_text == "NO_ROUTE"
    assert confirmation.routing_key == nowhere
    assert returned == [b"lost"]

    second = await channel.basic_publish(b"dropped", routing_key=nowhere)
    assert isinstance(second, Basic.Ack)


async def test_mandatory_message_to_nowhere_raises(
    connection: aiormq.abc.AbstractConnection,
) -> None:
    """A channel opened with on_return_raises turns the return into an exception."""
    channel = await connection.channel(on_return_raises=True)

    with pytest.raises(aiormq.exceptions.PublishError) as error:
        await channel.basic_publish(b"lost", routing_key=unique("nowhere"), mandatory=True)

    assert error.value.message is not None
    assert error.value.message.body == b"lost"


async def test_a_thousand_pipelined_confirms(connection: aiormq.abc.AbstractConnection) -> None:
    """A thousand publishes in flight at once are each confirmed, and the queue has them all."""
    channel = await connection.channel()
    queue = await own_queue(channel)

    async with asyncio.timeout(3 * TIMEOUT_S):
        confirmations = await asyncio.gather(
            *(
                channel.basic_publish(
                    b"%d" % number,
                    routing_key=queue,
                    properties=Basic.Properties(delivery_mode=2),
                )
                for number in range(1000)
            )
        )

    assert all(isinstance(confirmation, Basic.Ack) for confirmation in confirmations)
    declared = await channel.queue_declare(queue, passive=True)
    assert declared.message_count == 1000


async def test_mixture_of_routed_and_returned(connection: aiormq.abc.AbstractConnection) -> None:
    """Among pipelined publishes exactly the unroutable ones come back."""
    channel = await connection.channel(on_return_raises=False)
    queue = await own_queue(channel)
    nowhere = unique("nowhere")

    async with asyncio.timeout(3 * TIMEOUT_S):
        confirmations = await asyncio.gather(
            *(
                channel.basic_publish(
                    b"", routing_key=nowhere if number % 3 == 0 else queue, mandatory=True
                )
                for number in range(300)
            )
        )

    came_back = [
        number
        for number, confirmation in enumerate(confirmations)
        if isinstance(confirmation, aiormq.abc.DeliveredMessage)
    ]
    assert came_back == list(range(0, 300, 3))


async def test_publish_to_a_missing_exchange(connection: aiormq.abc.AbstractConnection) -> None:
    """A publish to an exchange that does not exist fails with the broker's reason."""
    channel = await connection.channel()
    missing = unique("missing")

    with pytest.raises(aiormq.exceptions.ChannelNotFoundEntity, match=missing):
        await channel.basic_publish(b"lost", exchange=missing)

    assert not connection.is_closed


async def test_queue_declared_differently(connection: aiormq.abc.AbstractConnection) -> None:
    """Declaring a queue again with another argument fails with the broker's reason."""
    queue = unique("queue")
    channel = await connection.channel()
    await channel.queue_declare(queue, exclusive=True, arguments={"x-max-length": 1})

    with pytest.raises(aiormq.exceptions.ChannelPreconditionFailed, match="x-max-length"):
        await channel.queue_declare(queue, exclusive=True, arguments={"x-max-length": 2})


async def test_nack_and_reject(connection: aiormq.abc.AbstractConnection) -> None:
    """A requeued message comes again marked as redelivered, a discarded one does not."""
    channel = await connection.channel()
    queue = await own_queue(channel)
    await channel.basic_publish(b"again", routing_key=queue)

    first = await channel.basic_get(queue)
    assert isinstance(first.delivery, Basic.GetOk)
    assert first.delivery.delivery_tag is not None
    await channel.basic_nack(first.delivery.delivery_tag, requeue=True)

    second = await channel.basic_get(queue)
    assert isinstance(second.delivery, Basic.GetOk)
    assert second.delivery.redelivered is True
    assert second.delivery.delivery_tag is not None
    await channel.basic_reject(second.delivery.delivery_tag, requeue=False)

    third = await channel.basic_get(queue)
    assert isinstance(third.delivery, Basic.GetEmpty)


async def test_header_types(connection: aiormq.abc.AbstractConnection) -> None:
    """Every type that pamqp can write into a headers table arrives as it was."""
    headers: FieldTable = {
        "string": "grüße",
        "bytes": bytearray(b"\x00\xff"),
        "true": True,
        "byte": 7,
        "short": -300,
        "integer": 2**31 - 1,
        "large integer": 2**62,
        "float": 0.1,
        "decimal": Decimal("12.34"),
        "time": datetime(2024, 2, 29, 12, 30, tzinfo=UTC),
        "table": {"nested": {"deeper": "value"}},
        "list": ["text", 1, True, None, {"key": "value"}],
        "nothing": None,
    }
    channel = await connection.channel()
    queue = await own_queue(channel)
    await channel.basic_publish(
        b"", routing_key=queue, properties=Basic.Properties(headers=headers)
    )

    message = await channel.basic_get(queue)

    received = message.header.properties.headers
    assert received is not None
    single = struct.unpack(">f", struct.pack(">f", 0.1))[0]
    assert received.pop("float") in (0.1, single)
    headers.pop("float")
    assert received == headers


async def test_closing_a_channel_while_consuming(
    connection: aiormq.abc.AbstractConnection,
) -> None:
    """Unacknowledged messages of a closed channel go to the next consumer."""
    first, second = await connection.channel(), await connection.channel()
    queue = await own_queue(first)
    messages: Messages = asyncio.Queue()
    await first.basic_consume(queue, messages.put)
    await second.basic_publish(b"task", routing_key=queue)
    await next_message(messages)
    await second.basic_consume(queue, messages.put)

    await first.close()
    message = await next_message(messages)

    assert message.body == b"task"
    assert message.redelivered is True
