"""Consuming, getting and settling: the methods of class basic that are not a publish."""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from pamqp import commands

from broker.amqp import methods
from broker.amqp.channel import Channel
from broker.amqp.input import FETCH
from broker.amqp.methods import table_of
from broker.amqp.queue_methods import named_queue, queue_name
from broker.core.arguments import QUORUM
from broker.core.consumer import Consumer
from broker.core.names import queue_resource
from broker.core.reply import REPLY_TO
from broker.core.transaction import Settlement
from broker.errors import NotAllowed, NotFound, NotImplemented_, PreconditionFailed


def _qos(channel: Channel, method: commands.Basic.Qos) -> None:
    if method.prefetch_size:
        raise NotImplemented_(f"prefetch_size!=0 ({method.prefetch_size})")
    if method.global_:
        channel.limit_together(method.prefetch_count)
    else:
        # RabbitMQ: a limit per consumer takes a channel-wide one away.
        channel.prefetch_count = method.prefetch_count
        channel.global_prefetch = 0
    channel.reconsider(channel.connection.turn)
    channel.reply(commands.Basic.QosOk)


def _consume(channel: Channel, method: commands.Basic.Consume) -> None:
    tag = method.consumer_tag
    limit = channel.connection.limits.consumers_per_channel_max
    if limit and len(channel.consumers) >= limit:
        raise NotAllowed(f"reached maximum ({limit}) of consumers per channel")
    if method.queue == REPLY_TO:
        _consume_replies(channel, method)
        return
    if tag in channel.consumers:
        raise NotAllowed(f"attempt to reuse consumer tag '{tag}'")
    queue = named_queue(channel, method.queue)
    if queue.arguments.queue_type == QUORUM and channel.global_prefetch:
        raise NotImplemented_(
            f"{queue_resource(queue.name, channel.vhost.name)} does not support global qos"
        )
    consumer = channel.vhost.consume(
        queue,
        tag,
        channel,
        no_ack=method.no_ack,
        exclusive=method.exclusive,
        prefetch_count=channel.prefetch_count,
        arguments=table_of(method),
    )
    _begin(channel, consumer, method.nowait)


def _consume_replies(channel: Channel, method: commands.Basic.Consume) -> None:
    tag = method.consumer_tag
    if tag in channel.consumers:
        raise NotAllowed(f"attempt to reuse consumer tag '{tag}'")
    if channel.reply_consumer is not None:
        raise PreconditionFailed("reply consumer already set")
    if not method.no_ack:
        raise PreconditionFailed("reply consumer cannot acknowledge")
    channel.reply_consumer = channel.vhost.consume_replies(tag, channel)
    _begin(channel, channel.reply_consumer, method.nowait)


def _begin(channel: Channel, consumer: Consumer, nowait: bool) -> None:
    """Deliveries begin when the client knows of its consumer, that is with consume-ok."""
    channel.consumers[consumer.tag] = consumer
    start = partial(consumer.queue.start, consumer)
    if nowait:
        start()
    else:
        channel.reply_frames(
            methods.encode(commands.Basic.ConsumeOk, channel.number, consumer_tag=consumer.tag),
            begins=start,
        )


def _cancel(channel: Channel, method: commands.Basic.Cancel) -> None:
    consumer = channel.consumers.pop(method.consumer_tag or "", None)
    if consumer is not None:
        channel.refused.pop(consumer, None)
        if consumer is channel.reply_consumer:
            channel.reply_consumer = None
        channel.vhost.cancel(consumer)
    if not method.nowait:
        channel.reply(commands.Basic.CancelOk, consumer_tag=method.consumer_tag)


def _cancel_ok(channel: Channel, method: commands.Basic.CancelOk) -> None:
    """Some clients answer the broker's own basic.cancel, which needs no answer."""


def _get(channel: Channel, method: commands.Basic.Get) -> None:
    name = queue_name(channel, method.queue)
    if name == REPLY_TO:
        raise NotFound(f"no {queue_resource(name, channel.vhost.name)}")
    queue = named_queue(channel, name)
    channel.vhost.check_gettable(queue)
    connection = channel.connection
    if queue.await_content(partial(connection.unpause, FETCH)):
        # The message is on disk: this very get is handled again when it has been read.
        connection.pause(FETCH)
        connection.repeat(
            methods.encode(
                commands.Basic.Get,
                channel.number,
                ticket=0,
                queue=queue.name,
                no_ack=method.no_ack,
            )
        )
        return
    entry = queue.get(method.no_ack)
    if entry is None:
        channel.reply(commands.Basic.GetEmpty, cluster_id="")
        return
    channel.last_delivery_tag += 1
    tag = channel.last_delivery_tag
    if not method.no_ack:
        channel.unacked[tag] = entry
    channel.reply_frames(channel.send_got(entry, tag, queue.ready_count))


def _ack(channel: Channel, method: commands.Basic.Ack) -> None:
    channel.settle(method.delivery_tag or 0, method.multiple, Settlement.ACK)


def _nack(channel: Channel, method: commands.Basic.Nack) -> None:
    settlement = Settlement.REQUEUE if method.requeue else Settlement.REJECT
    channel.settle(method.delivery_tag or 0, method.multiple, settlement)


def _reject(channel: Channel, method: commands.Basic.Reject) -> None:
    settlement = Settlement.REQUEUE if method.requeue else Settlement.REJECT
    channel.settle(method.delivery_tag or 0, False, settlement)


def _recover(channel: Channel, method: commands.Basic.Recover) -> None:
    _recover_async(channel, method)
    channel.reply(commands.Basic.RecoverOk)


def _recover_async(
    channel: Channel, method: commands.Basic.Recover | commands.Basic.RecoverAsync
) -> None:
    if not method.requeue:
        raise NotImplemented_("requeue=false")
    channel.requeue_all()


HANDLERS: Final[dict[int, Callable[[Channel, Any], None]]] = {
    commands.Basic.Qos.index: _qos,
    commands.Basic.Consume.index: _consume,
    commands.Basic.Cancel.index: _cancel,
    commands.Basic.CancelOk.index: _cancel_ok,
    commands.Basic.Get.index: _get,
    commands.Basic.Ack.index: _ack,
    commands.Basic.Nack.index: _nack,
    commands.Basic.Reject.index: _reject,
    commands.Basic.Recover.index: _recover,
    commands.Basic.RecoverAsync.index: _recover_async,
}
