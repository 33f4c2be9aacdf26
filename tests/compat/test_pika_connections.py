"""Connections of all pika's kinds: their whole life, refusals, errors and blocking."""

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from threading import Thread
from typing import Any

import pika
import pytest
from compat.clients import (
    TIMEOUT_S,
    Server,
    deleted_afterwards,
    drain,
    needs_own_broker,
    own_queue,
    parameters,
    pika_channel,
    pika_connection,
    run_until,
    unique,
)
from conftest import running_broker
from pika.adapters.asyncio_connection import AsyncioConnection

WHOLE_LIFE = [
    "connection open",
    "channel open",
    "queue declared",
    "consuming",
    "confirmed 1",
    "received hello",
    "cancelled",
    "channel closed 200",
    "connection closed 200",
]


class Life:
    """The whole life of an asynchronous connection, each step begun by the one before."""

    def __init__(self, stop: Callable[[], None]) -> None:
        self.stop = stop
        self.steps: list[str] = []
        self.connection: Any = None
        self.channel: Any = None
        self.queue = ""
        self.tag = ""
        self.waiting_for = {"confirm", "message"}

    def on_open(self, connection: Any) -> None:
        self.steps.append("connection open")
        self.connection = connection
        connection.channel(on_open_callback=self.on_channel_open)

    def on_open_error(self, connection: Any, error: BaseException) -> None:
        self.steps.append(f"refused: {error!r}")
        self.stop()

    def on_channel_open(self, channel: Any) -> None:
        self.steps.append("channel open")
        self.channel = channel
        channel.add_on_close_callback(self.on_channel_closed)
        channel.queue_declare("", exclusive=True, callback=self.on_queue_declared)

    def on_queue_declared(self, frame: Any) -> None:
        self.steps.append("queue declared")
        self.queue = frame.method.queue
        self.tag = self.channel.basic_consume(
            self.queue, self.on_message, callback=self.on_consuming
        )

    def on_consuming(self, frame: Any) -> None:
        assert frame.method.consumer_tag == self.tag
        self.steps.append("consuming")
        self.channel.confirm_delivery(self.on_confirm)
        self.channel.basic_publish("", self.queue, b"hello")

    def on_confirm(self, frame: Any) -> None:
        self.steps.append(f"confirmed {frame.method.delivery_tag}")
        self.done("confirm")

    def on_message(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        self.steps.append(f"received {body.decode()}")
        channel.basic_ack(method.delivery_tag)
        self.done("message")

    def done(self, awaited: str) -> None:
        """The confirm and the message come in either order; with both the end begins."""
        self.waiting_for.remove(awaited)
        if not self.waiting_for:
            self.channel.basic_cancel(self.tag, callback=self.on_cancelled)

    def on_cancelled(self, frame: Any) -> None:
        self.steps.append("cancelled")
        self.channel.close(200, "finished")

    def on_channel_closed(self, channel: Any, reason: Any) -> None:
        self.steps.append(f"channel closed {reason.reply_code}")
        self.connection.close(200, "finished")

    def on_connection_closed(self, connection: Any, reason: Any) -> None:
        self.steps.append(f"connection closed {reason.reply_code}")
        self.stop()

    def on_timeout(self) -> None:
        self.steps.append("timeout")
        self.stop()


def test_life_of_a_blocking_connection(server: Server) -> None:
    """A blocking connection opens, works, closes its channel and then itself."""
    connection = pika.BlockingConnection(parameters(server))
    assert connection.is_open
    channel = connection.channel()
    assert channel.channel_number == 1
    queue = own_queue(channel)
    channel.basic_publish("", queue, b"hello")
    channel.close()
    assert channel.is_closed

    second = connection.channel()
    assert drain(second, queue) == [b"hello"]

    connection.close()
    assert connection.is_closed
    assert second.is_closed


def test_life_of_a_select_connection(server: Server) -> None:
    """pika's own event loop sees every step of a connection's life."""
    life = Life(lambda: connection.ioloop.stop())
    connection = pika.SelectConnection(
        parameters(server), life.on_open, life.on_open_error, life.on_connection_closed
    )
    connection.ioloop.call_later(TIMEOUT_S, life.on_timeout)

    connection.ioloop.start()

    assert sorted(life.steps[4:6]) == WHOLE_LIFE[4:6]
    assert life.steps[:4] + life.steps[6:] == WHOLE_LIFE[:4] + WHOLE_LIFE[6:]


async def test_life_of_an_asyncio_connection(server: Server) -> None:
    """pika on asyncio sees every step of a connection's life."""
    finished = asyncio.Event()
    life = Life(finished.set)
    AsyncioConnection(
        parameters(server), life.on_open, life.on_open_error, life.on_connection_closed
    )

    async with asyncio.timeout(TIMEOUT_S):
        await finished.wait()

    assert sorted(life.steps[4:6]) == WHOLE_LIFE[4:6]
    assert life.steps[:4] + life.steps[6:] == WHOLE_LIFE[:4] + WHOLE_LIFE[6:]


def test_connection_by_url(server: Server) -> None:
    """The server's URL is all that a client needs."""
    connection = pika.BlockingConnection(pika.URLParameters(server.url))

    assert connection.is_open

    connection.close()


def test_capabilities(server: Server) -> None:
    """pika finds all the extensions that it looks for."""
    with pika_connection(server) as connection:
        assert connection.basic_nack_supported
        assert connection.consumer_cancel_notify_supported
        assert connection.exchange_exchange_bindings_supported
        assert connection.publisher_confirms_supported


def test_tuning_is_negotiated(server: Server) -> None:
    """The smaller limits of client and server count."""
    with pika_connection(server, channel_max=3, frame_max=8192, heartbeat=30) as connection:
        channels = [connection.channel() for _ in range(3)]
        assert [channel.channel_number for channel in channels] == [1, 2, 3]
        with pytest.raises(pika.exceptions.NoFreeChannels):
            connection.channel()

        queue = own_queue(channels[0])
        channels[0].basic_publish("", queue, b"b" * 20_000)
        assert drain(channels[0], queue) == [b"b" * 20_000]


def test_many_channels(server: Server) -> None:
    """Channels of one connection don't mix up their messages."""
    with pika_connection(server) as connection:
        channels = [connection.channel() for _ in range(50)]
        queues = [own_queue(channel) for channel in channels]
        for channel, queue in zip(channels, queues, strict=True):
            channel.basic_publish("", queue, queue.encode())

        for channel, queue in zip(channels, queues, strict=True):
            assert drain(channel, queue) == [queue.encode()]


def test_wrong_password(server: Server) -> None:
    """A wrong password is refused with the reason."""
    credentials = pika.PlainCredentials("guest", "wrong")

    with pytest.raises(pika.exceptions.ProbableAuthenticationError) as refused:
        pika.BlockingConnection(parameters(server, credentials=credentials))

    assert "(403)" in str(refused.value)
    assert "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN" in str(
        refused.value
    )


def test_missing_vhost(server: Server) -> None:
    """Opening a virtual host that does not exist is refused with the reason."""
    vhost = unique("vhost")

    with pytest.raises(pika.exceptions.ProbableAccessDeniedError) as refused:
        pika.BlockingConnection(parameters(server, virtual_host=vhost))

    assert "(530)" in str(refused.value)
    assert f"NOT_ALLOWED - vhost {vhost} not found" in str(refused.value)


def test_channel_error_leaves_the_connection(server: Server) -> None:
    """A missing queue costs the channel; the connection goes on with another one."""
    with pika_connection(server) as connection:
        missing = unique("missing")
        with pytest.raises(pika.exceptions.ChannelClosedByBroker) as closed:
            connection.channel().queue_declare(missing, passive=True)
        assert closed.value.reply_code == 404
        assert closed.value.reply_text == f"NOT_FOUND - no queue '{missing}' in vhost '/'"

        assert own_queue(connection.channel())


def test_redeclaring_a_queue_differently(server: Server) -> None:
    """Declaring an existing queue with other properties closes the channel with 406."""
    queue = unique("queue")
    with deleted_afterwards(server, queues=(queue,)), pika_connection(server) as connection:
        connection.channel().queue_declare(queue, durable=True)

        with pytest.raises(pika.exceptions.ChannelClosedByBroker) as closed:
            connection.channel().queue_declare(queue)

        assert closed.value.reply_code == 406
        assert closed.value.reply_text == (
            f"PRECONDITION_FAILED - inequivalent arg 'durable' for queue '{queue}' in vhost '/': "
            "received 'false' but current is 'true'"
        )


def test_exclusive_queue_is_locked(server: Server) -> None:
    """Another connection cannot use an exclusive queue, and it goes with its owner."""
    with pika_connection(server) as other:
        with pika_channel(server) as owner:
            queue = own_queue(owner)
            with pytest.raises(pika.exceptions.ChannelClosedByBroker) as closed:
                other.channel().queue_declare(queue, passive=True)
            assert closed.value.reply_code == 405

        with pytest.raises(pika.exceptions.ChannelClosedByBroker) as closed:
            other.channel().queue_declare(queue, passive=True)
        assert closed.value.reply_code == 404


def test_connection_error_closes_everything(server: Server) -> None:
    """Asking for a feature that the standard left behind closes the connection with 540."""
    with pika_connection(server) as connection:
        channel = connection.channel()

        with pytest.raises(pika.exceptions.ConnectionClosedByBroker) as closed:
            channel.basic_recover(requeue=False)

        assert closed.value.reply_code == 540
        assert connection.is_closed
        assert channel.is_closed


def test_update_secret_is_accepted(server: Server) -> None:
    """A client may refresh its credentials on an open connection."""
    with pika_connection(server) as connection:
        connection.update_secret("guest", "routine")

        assert connection.is_open


def test_callback_from_another_thread(server: Server) -> None:
    """A connection that waits for events runs what another thread asks of it."""
    with pika_channel(server) as channel:
        called: list[str] = []
        channel.connection.add_callback_threadsafe(lambda: called.append("called"))

        run_until(channel, lambda: bool(called))

        assert called == ["called"]


@needs_own_broker
def test_publisher_is_blocked_while_memory_is_short() -> None:
    """A publisher learns of an alarm and of its end, and its message is delivered afterwards."""
    with running_broker() as server, pika_channel(server) as channel:
        queue = own_queue(channel)
        events: list[str] = []
        connection = channel.connection
        connection.add_on_connection_blocked_callback(
            lambda _, frame: events.append(f"blocked: {frame.method.reason}")
        )
        connection.add_on_connection_unblocked_callback(lambda _, frame: events.append("unblocked"))

        server.call(server.broker.set_alarm, "memory", True)
        channel.basic_publish("", queue, b"patience")
        run_until(channel, lambda: len(events) == 1)
        assert events == ["blocked: low on memory"]

        server.call(server.broker.set_alarm, "memory", False)
        run_until(channel, lambda: len(events) == 2)
        assert events[1] == "unblocked"
        assert drain(channel, queue) == [b"patience"]


@needs_own_broker
def test_blocked_connection_times_out() -> None:
    """A client that does not want to wait for the end of an alarm gives up by its own timeout."""
    with running_broker() as server:
        with pika_connection(server, blocked_connection_timeout=0.05) as connection:
            channel = connection.channel()
            server.call(server.broker.set_alarm, "disk", True)
            channel.basic_publish("", unique("anywhere"), b"")

            with pytest.raises(pika.exceptions.ConnectionBlockedTimeout):
                run_until(channel, lambda: False)

        server.call(server.broker.set_alarm, "disk", False)


@needs_own_broker
def test_client_is_told_of_a_stop() -> None:
    """A broker that stops closes its connections with 320 instead of dropping them."""
    with ExitStack() as running:
        server = running.enter_context(running_broker())
        channel = pika.BlockingConnection(parameters(server)).channel()
        stopping = Thread(target=running.close)
        stopping.start()

        with pytest.raises(pika.exceptions.ConnectionClosedByBroker) as closed:
            run_until(channel, lambda: False)
        stopping.join(TIMEOUT_S)

    assert closed.value.reply_code == 320
    assert closed.value.reply_text.startswith("CONNECTION_FORCED")
    assert not stopping.is_alive()
