"""What a client says about exchanges."""

from collections.abc import Callable
from typing import Any, Final

from pamqp import commands

from broker.amqp.channel import Channel
from broker.amqp.methods import table_of
from broker.core.names import strip_name


def _declare(channel: Channel, method: commands.Exchange.Declare) -> None:
    name = strip_name(method.exchange)
    vhost = channel.vhost
    if method.passive:
        vhost.check_not_default(name)
        exchange = vhost.exchange(name)
    else:
        exchange = vhost.declare_exchange(
            name,
            method.exchange_type,
            durable=method.durable,
            auto_delete=method.auto_delete,
            internal=method.internal,
            arguments=table_of(method),
        )
    if not method.nowait:
        channel.reply(commands.Exchange.DeclareOk, exchange.declared_position)


def _delete(channel: Channel, method: commands.Exchange.Delete) -> None:
    position = channel.vhost.delete_exchange(
        strip_name(method.exchange), if_unused=method.if_unused
    )
    if not method.nowait:
        channel.reply(commands.Exchange.DeleteOk, position)


def _bind(channel: Channel, method: commands.Exchange.Bind) -> None:
    vhost = channel.vhost
    source, destination = strip_name(method.source), strip_name(method.destination)
    vhost.check_not_default(destination)
    vhost.check_not_default(source)
    vhost.exchange(source)
    position = vhost.bind(
        source, vhost.exchange(destination), method.routing_key.encode(), table_of(method)
    )
    if not method.nowait:
        channel.reply(commands.Exchange.BindOk, position)


def _unbind(channel: Channel, method: commands.Exchange.Unbind) -> None:
    vhost = channel.vhost
    source, destination = strip_name(method.source), strip_name(method.destination)
    vhost.check_not_default(destination)
    vhost.check_not_default(source)
    exchange = vhost.exchanges.get(source)
    target = vhost.exchanges.get(destination)
    position = 0
    if exchange is not None and target is not None:
        position = vhost.unbind(exchange, target, method.routing_key.encode(), table_of(method))
    if not method.nowait:
        channel.reply(commands.Exchange.UnbindOk, position)


HANDLERS: Final[dict[int, Callable[[Channel, Any], None]]] = {
    commands.Exchange.Declare.index: _declare,
    commands.Exchange.Delete.index: _delete,
    commands.Exchange.Bind.index: _bind,
    commands.Exchange.Unbind.index: _unbind,
}
