"""What the tests of real clients share: names of their own, and waiting without sleeping."""

import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

TIMEOUT_S = 10.0

needs_own_broker = pytest.mark.skipif(
    "LEVERET_TEST_PORT" in os.environ,
    reason="restarts the broker or raises its alarms, so it must be ours",
)


class Server(Protocol):
    """Where the broker of the `server` fixture listens."""

    host: str
    port: int
    url: str


class Delivery(NamedTuple):
    """One message as pika hands it over."""

    method: Any
    properties: Any
    body: bytes


class Inbox(list[Delivery]):
    """What one pika consumer has received, in order; the inbox itself is the callback."""

    def __call__(self, channel: BlockingChannel, method: Any, properties: Any, body: bytes) -> None:
        self.append(Delivery(method, properties, body))

    @property
    def bodies(self) -> list[bytes]:
        return [delivery.body for delivery in self]


def unique(word: str) -> str:
    """A name that no other test and no earlier run uses."""
    return f"leveret-{word}-{uuid.uuid4().hex}"


def parameters(server: Server, **settings: Any) -> pika.ConnectionParameters:
    """How pika reaches the broker; settings are those of `pika.ConnectionParameters`."""
    return pika.ConnectionParameters(
        server.host, server.port, socket_timeout=TIMEOUT_S, stack_timeout=TIMEOUT_S, **settings
    )


@contextmanager
def pika_connection(server: Server, **settings: Any) -> Iterator[pika.BlockingConnection]:
    """A blocking connection, closed afterwards unless the test has lost it."""
    connection = pika.BlockingConnection(parameters(server, **settings))
    try:
        yield connection
    finally:
        if connection.is_open:
            connection.close()


@contextmanager
def pika_channel(server: Server) -> Iterator[BlockingChannel]:
    """A channel on a blocking connection of its own, closed afterwards."""
    with pika_connection(server) as connection:
        yield connection.channel()


@contextmanager
def deleted_afterwards(
    server: Server, *, queues: tuple[str, ...] = (), exchanges: tuple[str, ...] = ()
) -> Iterator[None]:
    """Delete what outlives its connection, whatever became of the test's own channels."""
    try:
        yield
    finally:
        with pika_channel(server) as channel:
            for queue in queues:
                channel.queue_delete(queue)
            for exchange in exchanges:
                channel.exchange_delete(exchange)


def own_queue(channel: BlockingChannel, arguments: dict[str, Any] | None = None) -> str:
    """Declare an exclusive queue, which goes with its connection; return the name it was given."""
    declared = channel.queue_declare("", exclusive=True, arguments=arguments)
    queue: str = declared.method.queue
    return queue


def own_exchange(
    channel: BlockingChannel, kind: str, arguments: dict[str, Any] | None = None
) -> str:
    """Declare an exchange that goes with its last binding; return its name."""
    exchange = unique(kind)
    channel.exchange_declare(exchange, kind, auto_delete=True, arguments=arguments)
    return exchange


def run_until(channel: BlockingChannel, condition: Callable[[], bool]) -> None:
    """Let the channel's connection work until `condition` holds; fail after `TIMEOUT_S`."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        remaining_s = deadline - time.monotonic()
        assert remaining_s > 0, "the awaited event did not come"
        channel.connection.process_data_events(time_limit=remaining_s)


def receive(channel: BlockingChannel, queue: str, count: int) -> Inbox:
    """Consume `count` messages from a queue with auto_ack, then cancel the consumer."""
    inbox = Inbox()
    tag = channel.basic_consume(queue, inbox, auto_ack=True)
    run_until(channel, lambda: len(inbox) >= count)
    channel.basic_cancel(tag)
    return inbox


def drain(channel: BlockingChannel, queue: str) -> list[bytes]:
    """Get whatever a queue holds until it says that it is empty."""
    bodies: list[bytes] = []
    while True:
        method, _, body = channel.basic_get(queue, auto_ack=True)
        if method is None:
            return bodies
        bodies.append(body)


def message_count(channel: BlockingChannel, queue: str) -> int:
    """How many messages wait in a queue."""
    count: int = channel.queue_declare(queue, passive=True).method.message_count
    return count
