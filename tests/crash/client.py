"""An AMQP client in asyncio that knows exactly what it sent and what it was told.

One connection with one channel. Whatever ends the connection ends it quietly: `lost` is set, and
whoever waits for something gets `Lost`.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from pamqp import base, body, commands, frame, header

Reply = TypeVar("Reply", bound=base.Frame)

#: delivery tag, redelivered, body
OnDelivery = Callable[[int, bool, bytes], None]
OnConfirm = Callable[[bytes], None]

_PERSISTENT = commands.Basic.Properties(delivery_mode=2)


class Lost(Exception):
    """The broker is gone."""


class Client(asyncio.Protocol):
    """See the module's docstring.

    Arguments:
        on_delivery: called with each message that comes.
        on_confirm: called with the body of each message that the broker confirmed.
    """

    def __init__(self, on_delivery: OnDelivery, on_confirm: OnConfirm) -> None:
        self._on_delivery = on_delivery
        self._on_confirm = on_confirm
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._replies: deque[asyncio.Future[base.Frame]] = deque()
        #: the delivery whose content comes
        self._delivery: commands.Basic.Deliver | None = None
        self._missing = 0
        self._body = bytearray()
        self._published = 0
        #: (number, body) of what is not confirmed yet, in order
        self.unconfirmed: deque[tuple[int, bytes]] = deque()
        self._waiting: asyncio.Future[None] | None = None
        self.lost = asyncio.Event()

    @classmethod
    async def connect(
        cls, port: int, on_delivery: OnDelivery, on_confirm: OnConfirm, *, confirms: bool = True
    ) -> "Client":
        """Open a connection and its channel; raises Lost."""
        loop = asyncio.get_running_loop()
        try:
            _, client = await loop.create_connection(
                lambda: cls(on_delivery, on_confirm), "127.0.0.1", port
            )
        except OSError:
            raise Lost from None
        started = client._expect()
        client._write(b"AMQP\x00\x00\x09\x01")
        await started
        await client.request(
            commands.Connection.StartOk({}, "PLAIN", "\0guest\0guest", "en_US"),
            commands.Connection.Tune,
            0,
        )
        client._send(commands.Connection.TuneOk(1, 131072, 0), 0)
        await client.request(commands.Connection.Open("/"), commands.Connection.OpenOk, 0)
        await client.request(commands.Channel.Open(), commands.Channel.OpenOk)
        if confirms:
            await client.request(commands.Confirm.Select(), commands.Confirm.SelectOk)
        return client

    # What it does.

    def publish(self, exchange: str, routing_key: str, content: bytes) -> None:
        """Publish a persistent message; a confirm will come for it."""
        self._published += 1
        self.unconfirmed.append((self._published, content))
        self._write(
            frame.marshal(commands.Basic.Publish(exchange=exchange, routing_key=routing_key), 1)
            + frame.marshal(header.ContentHeader(0, len(content), _PERSISTENT), 1)
            + frame.marshal(body.ContentBody(content), 1)
        )

    def ack(self, tag: int) -> None:
        """Acknowledge one delivery."""
        self._send(commands.Basic.Ack(tag))

    async def request(self, command: base.Frame, expected: type[Reply], channel: int = 1) -> Reply:
        """Send `command` and wait for its reply; raises Lost."""
        reply = self._expect()
        self._send(command, channel)
        found = await reply
        assert isinstance(found, expected), f"{found.name} for {command.name}"
        return found

    async def confirmed(self, at_most: int = 0) -> None:
        """Wait until no more than `at_most` messages are unconfirmed; raises Lost."""
        while len(self.unconfirmed) > at_most:
            if self.lost.is_set():
                raise Lost
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting

    def drop(self) -> None:
        """End the connection without a word."""
        if self._transport is not None:
            self._transport.abort()

    # The wire.

    def _expect(self) -> "asyncio.Future[base.Frame]":
        reply: asyncio.Future[base.Frame] = asyncio.get_running_loop().create_future()
        if self.lost.is_set():
            reply.set_exception(Lost())
        else:
            self._replies.append(reply)
        return reply

    def _send(self, command: base.Frame, channel: int = 1) -> None:
        self._write(frame.marshal(command, channel))

    def _write(self, octets: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(octets)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()
        for reply in self._replies:
            if not reply.done():
                reply.set_exception(Lost())
                # Whoever waited may be gone as well.
                reply.exception()
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        start = 0
        while len(buffer) - start >= 7:
            size = int.from_bytes(buffer[start + 3 : start + 7], "big")
            end = start + 8 + size
            if end > len(buffer):
                break
            self._receive(bytes(buffer[start:end]))
            start = end
        del buffer[:start]

    def _receive(self, octets: bytes) -> None:
        _, _, found = frame.unmarshal(octets)
        if isinstance(found, commands.Basic.Deliver):
            self._delivery = found
        elif isinstance(found, header.ContentHeader):
            self._missing = found.body_size
            self._body.clear()
            self._end_content()
        elif isinstance(found, body.ContentBody):
            self._body += found.value or b""
            self._missing -= len(found)
            self._end_content()
        elif isinstance(found, commands.Basic.Ack):
            while self.unconfirmed and self.unconfirmed[0][0] <= found.delivery_tag:
                assert found.multiple or self.unconfirmed[0][0] == found.delivery_tag
                self._on_confirm(self.unconfirmed.popleft()[1])
            self._wake()
        elif isinstance(found, commands.Connection.Close):
            self._send(commands.Connection.CloseOk(), 0)
        elif self._replies and isinstance(found, base.Frame):
            reply = self._replies.popleft()
            if not reply.done():
                reply.set_result(found)
        else:
            raise AssertionError(f"nobody waits for {found}")

    def _end_content(self) -> None:
        if self._missing == 0:
            delivery: Any = self._delivery
            self._on_delivery(delivery.delivery_tag, delivery.redelivered, bytes(self._body))
