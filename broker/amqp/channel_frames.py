"""The frames of channels, one by one: which state a channel is in decides what a frame means.

A channel that does not exist accepts channel.open alone. One that was closed by the broker ignores
everything until its close is answered. One that is parked has its frames held. One whose content is
incomplete accepts nothing but that content. Every other channel accepts methods.
"""

from typing import TYPE_CHECKING, Final

from pamqp import commands

from broker.amqp import methods
from broker.amqp.channel import Channel
from broker.amqp.content import Content, parse_publish
from broker.amqp.dispatch import HANDLERS
from broker.amqp.frames import BODY, HEADER, HEARTBEAT, METHOD, octets
from broker.errors import (
    AMQPError,
    ChannelError,
    CommandInvalid,
    FrameError,
    NotAllowed,
    UnexpectedFrame,
)

if TYPE_CHECKING:
    from broker.amqp.connection import Connection

PUBLISH: Final = commands.Basic.Publish.index
_OPEN: Final = commands.Channel.Open.index
_CLOSE: Final = commands.Channel.Close.index
_CLOSE_OK: Final = commands.Channel.CloseOk.index


def receive(connection: "Connection", kind: int, number: int, index: int, frame: bytes) -> None:
    """Handle a frame of channel `number`.

    Arguments:
        index: class << 16 | method of a method frame, else 0.

    Raises the AMQPError that answers it.
    """
    if kind == HEARTBEAT:
        raise UnexpectedFrame(f"type {kind}, {octets(frame[7:-1])}")
    if kind not in (METHOD, HEADER, BODY):
        raise FrameError(f"type {kind}, {octets(frame[7:-1])}: unknown_frame")
    channel = connection.channels.get(number)
    if channel is None:
        _receive_without_channel(connection, kind, number, index, frame[7:-1])
    elif channel.closing:
        _receive_while_closing(connection, channel, index)
    elif channel.parked:
        connection.parking.hold(channel, frame)
    elif channel.content is not None:
        _receive_content(connection, channel, channel.content, kind, frame)
    elif kind != METHOD:
        raise UnexpectedFrame("expected method frame, got non method frame instead")
    elif index == PUBLISH and not channel.committing:
        publish = parse_publish(channel, frame, connection.table_limits)
        connection.remember_publish(frame[:-1], publish)
        channel.begin_content(publish)
    else:
        _receive_method(connection, channel, index, frame[7:-1])


def _receive_method(connection: "Connection", channel: Channel, index: int, payload: bytes) -> None:
    connection.work += 1
    method = methods.decode(payload, connection.table_limits)
    if channel.committing:
        raise ChannelError("unexpected command while processing 'tx.commit'")
    if index == _CLOSE:
        connection.close_channel(channel)
        return
    if index == _OPEN:
        raise ChannelError("second 'channel.open' seen")
    handler = HANDLERS.get(index)
    if handler is None:
        raise CommandInvalid("unimplemented method")
    handler(channel, method)


def _receive_without_channel(
    connection: "Connection", kind: int, number: int, index: int, payload: bytes
) -> None:
    if kind != METHOD:
        raise UnexpectedFrame("expected method frame, got non method frame instead")
    methods.decode(payload, connection.table_limits)
    if index != _OPEN:
        raise ChannelError("expected 'channel.open'")
    _open(connection, number)


def _open(connection: "Connection", number: int) -> None:
    limit = connection.channel_max
    if 0 < limit <= len(connection.channels):
        count = sum([not channel.answered for channel in connection.channels.values()])
        if count >= limit:
            connection.fail(
                NotAllowed(
                    f"number of channels opened ({count}) has reached the negotiated channel_max "
                    f"({limit})"
                ),
                0,
                0,
            )
            return
    channel = Channel(connection, number)
    connection.channels[number] = channel
    channel.reply(commands.Channel.OpenOk, channel_id=b"")


def _receive_while_closing(connection: "Connection", channel: Channel, index: int) -> None:
    """Nothing counts on a channel that is closing but the end of it.

    A close of the client may have crossed ours: it is answered, and then the number is free, but
    the client still answers ours as well.
    """
    if index == _CLOSE_OK:
        del connection.channels[channel.number]
    elif index == _CLOSE:
        channel.answered = True
        connection.send(methods.encode(commands.Channel.CloseOk, channel.number))
    elif index == _OPEN:
        if not channel.answered:
            raise ChannelError("second 'channel.open' seen")
        del connection.channels[channel.number]
        _open(connection, channel.number)


def _receive_content(
    connection: "Connection", channel: Channel, content: Content, kind: int, frame: bytes
) -> None:
    try:
        if content.header_frame:
            content.receive_body(kind, frame)
        else:
            content.receive_header(kind, frame)
            if connection.alarmed and content.body_size:
                # RabbitMQ: the publish that meets the alarm waits with all that follows it, but for
                # one without a body, which is complete already.
                channel.begin_content(content.publish)
                connection.block(channel)
                connection.parking.hold(channel, frame)
                return
            if content.body_size > connection.limits.message_bytes_max:
                content.parts = None
        if not content.missing:
            channel.end_content()
            channel.publish(
                content.publish,
                content.header_frame,
                content.flags,
                content.body_frame(),
                content.body_size,
            )
            if connection.alarmed:
                connection.block(channel)
    except AMQPError as error:
        channel.end_content()
        connection.raised(error, channel.number, PUBLISH)
