"""What a client says about queues.

An empty queue name stands for the queue last declared on the channel, in every method but declare.
"""

from collections.abc import Callable
from typing import Any, Final

from pamqp import commands

from broker.amqp.channel import Channel
from broker.amqp.methods import table_of
from broker.core.names import queue_resource, strip_name
from broker.core.queue import Queue
from broker.core.reply import REPLY_TO, REPLY_TO_PREFIX
from broker.errors import AccessRefused, NotFound


def queue_name(channel: Channel, name: str) -> str:
    """`name`, or that of the queue last declared. Raises NotFound when there is none."""
    name = strip_name(name)
    if name:
        return name
    if not channel.last_queue:
        raise NotFound("no previously declared queue")
    return channel.last_queue


def named_queue(channel: Channel, name: str) -> Queue:
    """The queue a method names, for use by this connection.

    Raises NotFound or ResourceLocked.
    """
    return channel.vhost.queue(queue_name(channel, name), channel.connection)


def _declare(channel: Channel, method: commands.Queue.Declare) -> None:
    name = strip_name(method.queue)
    vhost = channel.vhost
    if name == REPLY_TO or name.startswith(REPLY_TO_PREFIX):
        _declare_reply_queue(channel, name, method.nowait)
        return
    if method.passive:
        queue = vhost.queue(name, channel.connection)
    else:
        queue = vhost.declare_queue(
            name,
            durable=method.durable,
            exclusive=method.exclusive,
            auto_delete=method.auto_delete,
            arguments=table_of(method),
            owner=channel.connection,
        )
    channel.last_queue = queue.name
    if not method.nowait:
        channel.reply(
            commands.Queue.DeclareOk,
            queue.declared_position,
            queue=queue.name,
            message_count=queue.ready_count,
            consumer_count=len(queue.consumers),
        )


def _declare_reply_queue(channel: Channel, name: str, nowait: bool) -> None:
    """A requester's end may be asked for by name: that tells a responder whether it is there."""
    vhost = channel.vhost
    if name != REPLY_TO and name not in vhost.reply_queues:
        raise NotFound(f"no {queue_resource(name, vhost.name)}")
    if not nowait:
        channel.reply(commands.Queue.DeclareOk, queue=name, message_count=0, consumer_count=1)


def _bind(channel: Channel, method: commands.Queue.Bind) -> None:
    vhost = channel.vhost
    name, exchange, routing_key = _binding(channel, method)
    vhost.exchange(exchange)
    queue = vhost.queue(name, channel.connection)
    position = vhost.bind(exchange, queue, routing_key, table_of(method))
    if not method.nowait:
        channel.reply(commands.Queue.BindOk, max(position, queue.declared_position))


def _unbind(channel: Channel, method: commands.Queue.Unbind) -> None:
    vhost = channel.vhost
    name, exchange_name, routing_key = _binding(channel, method)
    exchange = vhost.exchanges.get(exchange_name)
    queue = vhost.queues.get(name)
    position = 0
    if exchange is not None and queue is not None:
        arguments = table_of(method)
        if vhost.is_bound(exchange, queue, routing_key, arguments):
            vhost.check_owner(queue, channel.connection)
            position = vhost.unbind(exchange, queue, routing_key, arguments)
    channel.reply(commands.Queue.UnbindOk, position)


def _binding(
    channel: Channel, method: commands.Queue.Bind | commands.Queue.Unbind
) -> tuple[str, str, bytes]:
    """Queue, exchange and key of a binding, after the checks that come before looking them up."""
    name = queue_name(channel, method.queue)
    routing_key = method.routing_key
    if not method.queue and not routing_key:
        routing_key = name
    if name == REPLY_TO or name.startswith(REPLY_TO_PREFIX):
        raise AccessRefused("cannot bind or unbind to a volatile (direct reply-to) queue")
    exchange = strip_name(method.exchange)
    channel.vhost.check_not_default(exchange)
    return name, exchange, routing_key.encode()


def _purge(channel: Channel, method: commands.Queue.Purge) -> None:
    count, position = named_queue(channel, method.queue).purge()
    if not method.nowait:
        channel.reply(commands.Queue.PurgeOk, position, message_count=count)


def _delete(channel: Channel, method: commands.Queue.Delete) -> None:
    vhost = channel.vhost
    queue = vhost.queues.get(queue_name(channel, method.queue))
    count = 0
    position = 0
    if queue is not None:
        vhost.check_owner(queue, channel.connection)
        vhost.check_deletable(queue, if_unused=method.if_unused, if_empty=method.if_empty)
        count = queue.ready_count
        position = vhost.delete_queue(queue)
    if not method.nowait:
        channel.reply(commands.Queue.DeleteOk, position, message_count=count)


HANDLERS: Final[dict[int, Callable[[Channel, Any], None]]] = {
    commands.Queue.Declare.index: _declare,
    commands.Queue.Bind.index: _bind,
    commands.Queue.Unbind.index: _unbind,
    commands.Queue.Purge.index: _purge,
    commands.Queue.Delete.index: _delete,
}
