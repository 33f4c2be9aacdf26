"""The table of errors behind `amqp/test_error_table.py`: what a row is, and the scene it plays in.

A row says what a client does and which close it gets for it. The rows themselves are in the modules
beside this one, by theme. In their texts `<Q>` and `<X>` stand for the row's queue and exchange as
the broker renders them, `<Q2>` and `<X2>` for its second ones, and the same letters in lower case
for their bare names.
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Self

from pamqp import base
from wire import WireClient
from wire_methods import (
    NO_PROPERTIES,
    Method,
    Properties,
    exchange_declare,
    exchange_delete,
    queue_declare,
    queue_delete,
)

Ids = tuple[int, int] | type[base.Frame] | None

# A field of a table: name, type tag and value.
Entry = tuple[str, str, Any]

QUORUM: Final[Entry] = ("x-queue-type", "S", "quorum")

# The pseudo-queue of direct reply-to.
REPLY_TO: Final = "amq.rabbitmq.reply-to"


class Scene:
    """A client with channel 1 open, names nobody else uses, and a second client when asked for.

    What it does returns the scene again, so that a row can be written as one chain.
    """

    def __init__(self, row: "Row", host: str, port: int) -> None:
        self.host = host
        self.port = port
        name = f"{row.id}-{uuid.uuid4().hex[:8]}"
        self.q, self.q2 = f"{name}-q", f"{name}-q2"
        self.x, self.x2 = f"{name}-x", f"{name}-x2"
        self.client = WireClient(host, port)
        self._other: WireClient | None = None
        if row.connected:
            self.client.handshake(channel_max=row.channel_max, frame_max=row.frame_max)
            self.client.open_channel()

    def call(self, *methods: Method) -> Self:
        """Send methods on channel 1 and take the reply of each."""
        for method in methods:
            self.client.call(1, method)
        return self

    def send(self, *methods: Method, channel: int = 1) -> Self:
        """Send methods, on channel 1 unless told, without waiting."""
        for method in methods:
            self.client.send_method(channel, method)
        return self

    def send_frame(self, frame_type: int, payload: bytes, *, channel: int = 1) -> Self:
        """Send one frame, on channel 1 unless told."""
        self.client.send_frame(frame_type, channel, payload)
        return self

    def send_octets(self, octets: bytes) -> Self:
        """Send bytes as they are."""
        self.client.send(octets)
        return self

    def publish(
        self,
        exchange: str = "",
        routing_key: str = "",
        content: Properties = NO_PROPERTIES,
        *,
        body: bytes = b"body",
        channel: int = 1,
        **flags: bool,
    ) -> Self:
        """Publish a message, on channel 1 unless told."""
        self.client.publish(channel, exchange, routing_key, content, body, **flags)
        return self

    def fetch(self, count: int, *, no_ack: bool = False, channel: int = 1) -> Self:
        """Declare the row's queue, publish to it and get the messages: tags 1 to `count`."""
        self.client.call(channel, queue_declare(self.q))
        self.client.fill(self.q, *[b"body"] * count)
        for _ in range(count):
            self.client.get(channel, self.q, no_ack=no_ack)
        return self

    def fill(self, *bodies: bytes) -> Self:
        """Put messages into the row's queue, and wait until they are there."""
        self.client.fill(self.q, *bodies)
        return self

    def expect(self, expected: type[base.Frame]) -> Self:
        """Take this method from channel 1."""
        self.client.expect(1, expected)
        return self

    def expect_content(self, expected: type[base.Frame]) -> Self:
        """Take this method with its content from channel 1."""
        self.client.expect_content(1, expected)
        return self

    def close_channel(self) -> Self:
        """Close channel 1."""
        self.client.close_channel()
        return self

    def on_channel_2(self, *methods: Method) -> Self:
        """Open channel 2, send methods there and take the reply of each."""
        self.client.open_channel(2)
        for method in methods:
            self.client.call(2, method)
        return self

    def elsewhere(self, *methods: Method) -> Self:
        """Send methods on channel 1 of another connection and take the reply of each."""
        if self._other is None:
            self._other = WireClient(self.host, self.port).handshake()
            self._other.open_channel()
        for method in methods:
            self._other.call(1, method)
        return self

    def connect_again(self) -> Self:
        """Open the connection, and go on with a second one before its first byte."""
        self._other = self.client.handshake()
        self.client = WireClient(self.host, self.port)
        return self

    def expand(self, text: str) -> str:
        """A row's text with the names of this scene in it."""
        names = {"q": self.q, "q2": self.q2, "x": self.x, "x2": self.x2}
        for letter, name in names.items():
            kind = "queue" if letter[0] == "q" else "exchange"
            text = text.replace(f"<{letter.upper()}>", f"{kind} '{name}' in vhost '/'")
            text = text.replace(f"<{letter}>", name)
        return text

    def end(self) -> None:
        """Hang up."""
        self.client.disconnect()
        if self._other is not None:
            self._other.disconnect()

    def clean_up(self) -> None:
        """Leave nothing behind on a broker that others use."""
        deletions = (
            queue_delete(self.q),
            queue_delete(self.q2),
            exchange_delete(self.x),
            exchange_delete(self.x2),
        )
        with WireClient(self.host, self.port).handshake() as client:
            for channel, method in enumerate(deletions, start=1):
                client.open_channel(channel)
                client.send_method(channel, method)
                client.read_frame()


Act = Callable[[Scene], object]


@dataclass(frozen=True)
class Row:
    """One error: how to provoke it, and what the broker must say."""

    id: str
    codes: tuple[int, ...]
    # The explanation after the code's name; None where any will do.
    text: str | None
    # The method named by the close: a pamqp class, the bare ids, or None for 0/0.
    method: Ids
    act: Act
    # What ends: "channel" or "connection".
    scope: str
    # RabbitMQ 3.10 says or does something else.
    differs_on_310: bool = False
    # False when the client is handed over before its first byte.
    connected: bool = True
    # Limits to agree on in the handshake; None for those the broker offers.
    channel_max: int | None = None
    frame_max: int | None = None
    # Settings of the broker under which the error can be had at all.
    settings: dict[str, Any] = field(default_factory=dict)
    # The broker keeps its promises on disk while the row is played.
    durable: bool = False
    # After this error the broker reads nothing more, not even close-ok, and ends by itself.
    deaf: bool = False

    @property
    def ids(self) -> tuple[int, int]:
        """Class and method id the close must carry."""
        if self.method is None:
            return 0, 0
        if isinstance(self.method, tuple):
            return self.method
        return self.method.index >> 16, self.method.index & 0xFFFF


def channel_error(id: str, code: int, text: str, method: Ids, act: Act, **more: Any) -> Row:
    """A row whose error closes channel 1."""
    return Row(id, (code,), text, method, act, "channel", **more)


def connection_error(
    id: str, code: int | tuple[int, ...], text: str | None, method: Ids, act: Act, **more: Any
) -> Row:
    """A row whose error closes the connection."""
    codes = (code,) if isinstance(code, int) else code
    return Row(id, codes, text, method, act, "connection", **more)


def sends(*methods: Method, channel: int = 1) -> Act:
    """Just send these methods."""

    return lambda s: s.send(*methods, channel=channel)


def declares_queue(**properties: Any) -> Act:
    """Declare the row's queue."""
    return lambda s: s.send(queue_declare(s.q, **properties))


def declares_exchange(**properties: Any) -> Act:
    """Declare the row's exchange."""
    return lambda s: s.send(exchange_declare(s.x, **properties))


def publishes(content: Properties) -> Act:
    """Publish to the default exchange with these properties."""
    return lambda s: s.publish("", s.q, content)
