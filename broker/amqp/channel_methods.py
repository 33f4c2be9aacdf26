"""Flow, confirms, transactions, tickets: what changes how a channel works."""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from pamqp import commands

from broker.amqp import methods
from broker.amqp.channel import Channel
from broker.amqp.methods import AccessRequest, AccessRequestOk
from broker.amqp.promises import Confirms
from broker.core.transaction import Transaction
from broker.errors import NotImplemented_, PreconditionFailed


def _flow(channel: Channel, method: commands.Channel.Flow) -> None:
    if not method.active:
        raise NotImplemented_("active=false")
    channel.reply(commands.Channel.FlowOk, active=True)


def _access_request(channel: Channel, method: AccessRequest) -> None:
    """Tickets went with the standard's access class; any answer satisfies who still asks."""
    channel.reply(AccessRequestOk, ticket=1)


def _confirm_select(channel: Channel, method: commands.Confirm.Select) -> None:
    if channel.transaction is not None:
        raise PreconditionFailed("cannot switch from tx to confirm mode")
    if channel.confirms is None:
        channel.confirms = Confirms()
    if not method.nowait:
        channel.reply(commands.Confirm.SelectOk)


def _tx_select(channel: Channel, method: commands.Tx.Select) -> None:
    if channel.confirms is not None:
        raise PreconditionFailed("cannot switch from confirm to tx mode")
    if channel.transaction is None:
        channel.transaction = Transaction()
    channel.reply(commands.Tx.SelectOk)


def _transaction(channel: Channel) -> Transaction:
    if channel.transaction is None:
        raise PreconditionFailed("channel is not transactional")
    return channel.transaction


def _tx_commit(channel: Channel, method: commands.Tx.Commit) -> None:
    transaction = _transaction(channel)
    channel.transaction = Transaction()
    for message in transaction.unroutable:
        channel.send_return(message)
    if channel.global_prefetch:
        for tag, (entry, _) in zip(transaction.tags, transaction.settlements, strict=True):
            channel.unlimit(tag, entry)
    position = channel.vhost.commit(transaction)
    channel.committing = True
    channel.direct = False
    channel.reply_frames(
        methods.encode(commands.Tx.CommitOk, channel.number),
        position,
        partial(_committed, channel),
    )


def _committed(channel: Channel) -> None:
    channel.committing = False
    channel.direct = True


def _tx_rollback(channel: Channel, method: commands.Tx.Rollback) -> None:
    transaction = _transaction(channel)
    channel.transaction = Transaction()
    channel.give_back(transaction)
    channel.reply(commands.Tx.RollbackOk)


HANDLERS: Final[dict[int, Callable[[Channel, Any], None]]] = {
    commands.Channel.Flow.index: _flow,
    AccessRequest.index: _access_request,
    commands.Confirm.Select.index: _confirm_select,
    commands.Tx.Select.index: _tx_select,
    commands.Tx.Commit.index: _tx_commit,
    commands.Tx.Rollback.index: _tx_rollback,
}
