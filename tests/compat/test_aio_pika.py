"""aio-pika: its patterns, and a robust connection that survives a restart of the broker."""

import asyncio
from collections.abc import AsyncIterator
from typing import Self

import aio_pika
import aio_pika.abc
import aiormq.abc
import pytest
import pytest_asyncio
from aio_pika.patterns import RPC, Master
from compat.clients import TIMEOUT_S, Server, needs_own_broker, unique
from conftest import running_broker


class RestartableBroker:
    """A broker that can be restarted on its port, without blocking the loop of its clients."""

    def __init__(self) -> None:
        self.running = running_broker()
        self.url = ""

    async def __aenter__(self) -> Self:
        server = await asyncio.to_thread(self.running.__enter__)
        self.url = server.url
        self.port = server.port
        return self

    async def __aexit__(self, *error: object) -> None:
        await asyncio.to_thread(self.running.__exit__, None, None, None)

    async def restart(self) -> None:
        """Stop the broker and start another one, which knows nothing, in its place."""
        await asyncio.to_thread(self.running.__exit__, None, None, None)
        self.running = running_broker(port=self.port)
        await asyncio.to_thread(self.running.__enter__)


@pytest_asyncio.fixture
async def channel(server: Server) -> AsyncIterator[aio_pika.abc.AbstractChannel]:
    """A channel on a connection that is closed after the test."""
    async with await aio_pika.connect(server.url) as connection:
        yield await connection.channel()


async def test_publish_and_iterate(channel: aio_pika.abc.AbstractChannel) -> None:
    """A queue can be iterated over; leaving a message's context acknowledges it."""
    queue = await channel.declare_queue(exclusive=True)
    for number in range(3):
        await channel.default_exchange.publish(
            aio_pika.Message(b"%d" % number, headers={"number": number}), routing_key=queue.name
        )

    bodies = []
    async with queue.iterator(timeout=TIMEOUT_S) as messages:
        async for message in messages:
            async with message.process():
                bodies.append(message.body)
                assert message.headers == {"number": int(message.body)}
            if len(bodies) == 3:
                break

    assert bodies == [b"0", b"1", b"2"]
    assert await queue.get(fail=False) is None


async def test_failed_message_is_requeued(channel: aio_pika.abc.AbstractChannel) -> None:
    """A message whose processing fails comes again, marked as redelivered."""
    queue = await channel.declare_queue(exclusive=True)
    await channel.default_exchange.publish(aio_pika.Message(b"task"), routing_key=queue.name)

    first = await queue.get()
    with pytest.raises(ZeroDivisionError):
        async with first.process(requeue=True):
            raise ZeroDivisionError
    second = await queue.get()

    assert first.redelivered is False
    assert second.redelivered is True
    await second.ack()


async def test_unroutable_message(channel: aio_pika.abc.AbstractChannel) -> None:
    """Publishing to nowhere returns the message instead of a confirmation."""
    confirmation = await channel.default_exchange.publish(
        aio_pika.Message(b"lost"), routing_key=unique("nowhere")
    )

    assert isinstance(confirmation, aiormq.abc.DeliveredMessage)
    assert confirmation.body == b"lost"


async def test_topic_exchange(channel: aio_pika.abc.AbstractChannel) -> None:
    """A bound queue gets what matches its pattern."""
    exchange = await channel.declare_exchange(
        unique("topic"), aio_pika.ExchangeType.TOPIC, auto_delete=True
    )
    queue = await channel.declare_queue(exclusive=True)
    await queue.bind(exchange, routing_key="*.payment")

    await exchange.publish(aio_pika.Message(b"no"), routing_key="error.login")
    await exchange.publish(aio_pika.Message(b"yes"), routing_key="error.payment")

    message = await queue.get(no_ack=True)
    assert message.body == b"yes"
    assert await queue.get(fail=False) is None


async def test_transaction(server: Server) -> None:
    """An exception in a transaction's block takes back what was published in it."""
    async with await aio_pika.connect(server.url) as connection:
        channel = await connection.channel(publisher_confirms=False)
        queue = await channel.declare_queue(exclusive=True)
        exchange = channel.default_exchange

        async def regret() -> None:
            async with channel.transaction():
                await exchange.publish(aio_pika.Message(b"regretted"), routing_key=queue.name)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await regret()
        async with channel.transaction():
            await exchange.publish(aio_pika.Message(b"meant"), routing_key=queue.name)

        message = await queue.get(no_ack=True)
        assert message.body == b"meant"


async def test_remote_procedure_call(channel: aio_pika.abc.AbstractChannel) -> None:
    """aio-pika's RPC pattern calls a function elsewhere and passes results and errors back."""
    method = unique("multiply")

    async def multiply(*, x: int, y: int) -> int:
        return x * y

    rpc = await RPC.create(channel)
    await rpc.register(method, multiply, auto_delete=True)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            assert await rpc.call(method, {"x": 6, "y": 7}) == 42
            with pytest.raises(TypeError):
                await rpc.call(method, {"x": 6})
            with pytest.raises(aio_pika.exceptions.MessageProcessError):
                await rpc.call(unique("missing"))
    finally:
        await rpc.unregister(multiply)
        await rpc.close()


async def test_master_and_worker(channel: aio_pika.abc.AbstractChannel) -> None:
    """aio-pika's master hands tasks to a worker, which rejects or acknowledges them."""
    tasks: asyncio.Queue[str] = asyncio.Queue()

    async def work(*, name: str) -> None:
        await tasks.put(name)

    master = Master(channel)
    worker = await master.create_worker(unique("tasks"), work, auto_delete=True)
    for name in ("first", "second"):
        await master.create_task(worker.queue.name, {"name": name})
    async with asyncio.timeout(TIMEOUT_S):
        names = [await tasks.get(), await tasks.get()]
    await worker.close()

    assert names == ["first", "second"]


async def test_exclusive_queue_is_locked(server: Server) -> None:
    """A second connection is refused an exclusive queue with RESOURCE_LOCKED."""
    async with await aio_pika.connect(server.url) as first:
        queue = await (await first.channel()).declare_queue(exclusive=True)
        async with await aio_pika.connect(server.url) as second:
            channel = await second.channel()
            with pytest.raises(aiormq.exceptions.ChannelLockedResource):
                await channel.get_queue(queue.name)


@needs_own_broker
async def test_robust_connection_survives_a_restart() -> None:
    """After a restart on the same port a robust connection restores its queue and its consumer."""
    bodies: asyncio.Queue[bytes] = asyncio.Queue()
    lost, reconnected = asyncio.Event(), asyncio.Event()

    async def on_message(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        async with message.process():
            await bodies.put(message.body)

    async with asyncio.timeout(3 * TIMEOUT_S), RestartableBroker() as server:
        connection = await aio_pika.connect_robust(server.url, reconnect_interval=0.05)
        connection.close_callbacks.add(lambda *_: lost.set())
        connection.reconnect_callbacks.add(lambda *_: reconnected.set())
        async with connection:
            channel = await connection.channel()
            exchange = await channel.declare_exchange(unique("robust"), auto_delete=True)
            queue = await channel.declare_queue(unique("robust"), auto_delete=True)
            await queue.bind(exchange, routing_key="key")
            await queue.consume(on_message)
            await exchange.publish(aio_pika.Message(b"before"), routing_key="key")
            assert await bodies.get() == b"before"

            await server.restart()
            await lost.wait()
            await reconnected.wait()

            await exchange.publish(aio_pika.Message(b"after"), routing_key="key")
            assert await bodies.get() == b"after"
