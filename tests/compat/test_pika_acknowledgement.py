"""Getting, acknowledging, requeueing and transactions, as pika programs see them."""

from typing import Any

import pika
import pytest
from compat.clients import (
    Inbox,
    Server,
    deleted_afterwards,
    drain,
    message_count,
    own_queue,
    pika_channel,
    pika_connection,
    run_until,
    unique,
)
from pika.adapters.blocking_connection import BlockingChannel


def fill(channel: BlockingChannel, queue: str, count: int) -> None:
    """Publish the bodies 0, 1, 2 ... over another channel and wait until the queue has them."""
    publisher = channel.connection.channel()
    publisher.confirm_delivery()
    for number in range(count):
        publisher.basic_publish("", queue, b"%d" % number)
    publisher.close()


def get_all(channel: BlockingChannel, queue: str) -> list[tuple[bytes, bool]]:
    """Get all waiting messages without acknowledging them: bodies and redelivered flags."""
    messages: list[tuple[bytes, bool]] = []
    while True:
        method, _, body = channel.basic_get(queue)
        if method is None:
            return messages
        messages.append((body, method.redelivered))


def test_get_and_get_empty(server: Server) -> None:
    """basic.get tells how many messages are left, and an empty queue says so."""
    with pika_channel(server) as channel:
        queue = own_queue(channel)
        assert channel.basic_get(queue) == (None, None, None)

        fill(channel, queue, 2)
        method, _, body = channel.basic_get(queue)
        assert body == b"0"
        assert (method.delivery_tag, method.message_count, method.redelivered) == (1, 1, False)
        assert (method.exchange, method.routing_key) == ("", queue)

        method, _, body = channel.basic_get(queue, auto_ack=True)
        assert body == b"1"
        assert (method.delivery_tag, method.message_count) == (2, 0)
        assert channel.basic_get(queue) == (None, None, None)


def test_unacknowledged_messages_return_when_the_channel_closes(server: Server) -> None:
    """What a channel did not acknowledge goes back in its old order, marked as redelivered."""
    with pika_connection(server) as connection:
        channel = connection.channel()
        queue = own_queue(channel)
        fill(channel, queue, 4)
        first, _, _ = channel.basic_get(queue)
        assert len(get_all(channel, queue)) == 3
        channel.basic_ack(first.delivery_tag)
        channel.close()

        inbox = Inbox()
        successor = connection.channel()
        successor.basic_consume(queue, inbox)
        run_until(successor, lambda: len(inbox) == 3)

        assert [(delivery.body, delivery.method.redelivered) for delivery in inbox] == [
            (b"1", True),
            (b"2", True),
            (b"3", True),
        ]


def test_nacked_messages_return_to_their_place(server: Server) -> None:
    """Requeued messages come again in the order of the queue, not of their nacks."""
    with pika_channel(server) as channel:
        queue = own_queue(channel)
        fill(channel, queue, 6)
        for _ in range(4):
            channel.basic_get(queue)

        channel.basic_nack(3, requeue=True)
        channel.basic_nack(1, requeue=True)
        assert get_all(channel, queue) == [
            (b"0", True),
            (b"2", True),
            (b"4", False),
            (b"5", False),
        ]

        channel.basic_nack(4, multiple=True, requeue=True)
        assert get_all(channel, queue) == [(b"1", True), (b"3", True)]

        channel.basic_nack(0, multiple=True, requeue=False)
        channel.basic_recover(requeue=True)
        assert get_all(channel, queue) == []


def test_ack_multiple(server: Server) -> None:
    """Acknowledging several at once takes the older ones along and leaves the newer."""
    with pika_channel(server) as channel:
        queue = own_queue(channel)
        fill(channel, queue, 4)
        get_all(channel, queue)

        channel.basic_ack(3, multiple=True)
        channel.basic_recover(requeue=True)

        assert get_all(channel, queue) == [(b"3", True)]


def test_unknown_delivery_tag(server: Server) -> None:
    """Acknowledging a message twice closes the channel with 406."""
    with pika_channel(server) as channel:
        queue = own_queue(channel)
        fill(channel, queue, 1)
        method, _, _ = channel.basic_get(queue)
        channel.basic_ack(method.delivery_tag)
        channel.basic_ack(method.delivery_tag)

        with pytest.raises(pika.exceptions.ChannelClosedByBroker) as closed:
            message_count(channel, queue)

        assert closed.value.reply_code == 406
        assert closed.value.reply_text == "PRECONDITION_FAILED - unknown delivery tag 1"


def test_recover_redelivers_to_the_consumer(server: Server) -> None:
    """basic.recover brings all unacknowledged messages again, under new delivery tags."""
    with pika_channel(server) as channel:
        queue = own_queue(channel)
        fill(channel, queue, 3)
        inbox = Inbox()
        channel.basic_consume(queue, inbox)
        run_until(channel, lambda: len(inbox) == 3)

        channel.basic_recover(requeue=True)
        run_until(channel, lambda: len(inbox) == 6)

        assert inbox.bodies == [b"0", b"1", b"2"] * 2
        assert [delivery.method.delivery_tag for delivery in inbox] == [1, 2, 3, 4, 5, 6]
        assert [delivery.method.redelivered for delivery in inbox] == [False] * 3 + [True] * 3


def test_consumer_is_told_when_its_queue_is_deleted(server: Server) -> None:
    """Deleting a queue cancels its consumers with a notification."""
    queue = unique("doomed")
    with (
        deleted_afterwards(server, queues=(queue,)),
        pika_channel(server) as consumer,
        pika_channel(server) as other,
    ):
        consumer.queue_declare(queue)
        cancelled: list[Any] = []
        consumer.add_on_cancel_callback(cancelled.append)
        tag = consumer.basic_consume(queue, Inbox())
        assert consumer.connection.consumer_cancel_notify_supported

        other.queue_delete(queue)
        run_until(consumer, lambda: bool(cancelled))

        assert [frame.method.consumer_tag for frame in cancelled] == [tag]
        assert consumer.consumer_tags == []


def test_consumer_priorities(server: Server) -> None:
    """A consumer of lower priority gets messages only while the higher ones are at their limit."""
    with pika_channel(server) as channel:
        queue = own_queue(channel)
        default, preferred = Inbox(), Inbox()
        channel.basic_qos(prefetch_count=2)
        channel.basic_consume(queue, default)
        channel.basic_consume(queue, preferred, arguments={"x-priority": 10})

        fill(channel, queue, 3)
        run_until(channel, lambda: len(default) + len(preferred) == 3)
        assert preferred.bodies == [b"0", b"1"]
        assert default.bodies == [b"2"]

        channel.basic_ack(preferred[0].method.delivery_tag)
        channel.basic_publish("", queue, b"3")
        run_until(channel, lambda: len(default) + len(preferred) == 4)
        assert preferred.bodies == [b"0", b"1", b"3"]


def test_consumers_take_turns(server: Server) -> None:
    """Consumers of equal priority get messages in rotation."""
    with pika_channel(server) as channel:
        queue = own_queue(channel)
        inboxes = [Inbox(), Inbox()]
        for inbox in inboxes:
            channel.basic_consume(queue, inbox, auto_ack=True)

        fill(channel, queue, 4)
        run_until(channel, lambda: sum(map(len, inboxes)) == 4)

        assert [inbox.bodies for inbox in inboxes] == [[b"0", b"2"], [b"1", b"3"]]


def test_prefetch_of_one_consumer(server: Server) -> None:
    """A prefetch limit counts for each consumer by itself, and an ack makes room for one more."""
    with pika_channel(server) as channel:
        queue = own_queue(channel)
        inbox = Inbox()
        channel.basic_qos(prefetch_count=2)
        channel.basic_consume(queue, inbox)
        fill(channel, queue, 4)
        run_until(channel, lambda: len(inbox) == 2)
        assert message_count(channel, queue) == 2

        channel.basic_ack(inbox[0].method.delivery_tag)
        run_until(channel, lambda: len(inbox) == 3)
        assert inbox.bodies == [b"0", b"1", b"2"]
        assert message_count(channel, queue) == 1


def test_prefetch_shared_by_a_channel(server: Server) -> None:
    """A global prefetch limit is shared by all consumers of the channel, old and new."""
    with pika_channel(server) as channel:
        queues = own_queue(channel), own_queue(channel)
        inboxes = Inbox(), Inbox()
        channel.basic_consume(queues[0], inboxes[0])
        channel.basic_qos(prefetch_count=3, global_qos=True)
        channel.basic_consume(queues[1], inboxes[1])
        for queue in queues:
            fill(channel, queue, 2)
        run_until(channel, lambda: sum(map(len, inboxes)) == 3)
        assert sum(message_count(channel, queue) for queue in queues) == 1

        channel.basic_ack(0, multiple=True)
        run_until(channel, lambda: sum(map(len, inboxes)) == 4)
        assert [inbox.bodies for inbox in inboxes] == [[b"0", b"1"]] * 2


def test_exclusive_consumer(server: Server) -> None:
    """While a consumer is exclusive nobody else may consume from its queue."""
    queue = unique("queue")
    with (
        deleted_afterwards(server, queues=(queue,)),
        pika_channel(server) as channel,
        pika_channel(server) as other,
    ):
        channel.queue_declare(queue)
        channel.basic_consume(queue, Inbox(), exclusive=True)

        with pytest.raises(pika.exceptions.ChannelClosedByBroker) as closed:
            other.basic_consume(queue, Inbox())

        assert closed.value.reply_code == 403
        assert closed.value.reply_text == (
            f"ACCESS_REFUSED - queue '{queue}' in vhost '/' in exclusive use"
        )


def test_cancelled_consumer_gets_nothing_more(server: Server) -> None:
    """After cancel-ok messages stay in the queue, and what had been delivered can be settled."""
    with pika_channel(server) as channel:
        queue = own_queue(channel)
        inbox = Inbox()
        tag = channel.basic_consume(queue, inbox)
        fill(channel, queue, 1)
        run_until(channel, lambda: len(inbox) == 1)

        channel.basic_cancel(tag)
        fill(channel, queue, 2)
        channel.basic_ack(inbox[0].method.delivery_tag)

        assert drain(channel, queue) == [b"0", b"1"]
        assert len(inbox) == 1


def test_transaction_commits_publishes(server: Server) -> None:
    """Published messages are in the queue after the commit and not before it."""
    with pika_connection(server) as connection:
        channel, observer = connection.channel(), connection.channel()
        queue = own_queue(channel)
        channel.tx_select()
        for number in range(3):
            channel.basic_publish("", queue, b"%d" % number)
        assert channel.basic_get(queue) == (None, None, None)
        assert message_count(observer, queue) == 0

        channel.tx_commit()

        assert drain(observer, queue) == [b"0", b"1", b"2"]


def test_transaction_rolls_publishes_back(server: Server) -> None:
    """Messages published before a rollback are gone, the channel goes on in its transaction."""
    with pika_channel(server) as channel:
        queue = own_queue(channel)
        channel.tx_select()
        channel.basic_publish("", queue, b"regretted")
        channel.tx_rollback()
        channel.basic_publish("", queue, b"meant")
        channel.tx_commit()

        assert drain(channel, queue) == [b"meant"]


def test_transaction_rolls_acknowledgements_back(server: Server) -> None:
    """After a rollback the messages are unacknowledged as before; recover brings them again."""
    with pika_connection(server) as connection:
        publisher, channel = connection.channel(), connection.channel()
        queue = own_queue(publisher)
        fill(publisher, queue, 2)
        get_all(channel, queue)
        channel.tx_select()
        channel.basic_ack(1)
        channel.basic_nack(2, requeue=True)
        channel.tx_rollback()
        assert get_all(channel, queue) == []

        channel.basic_recover(requeue=True)
        assert get_all(channel, queue) == [(b"0", True), (b"1", True)]

        channel.basic_ack(0, multiple=True)
        channel.tx_commit()
        channel.basic_recover(requeue=True)
        assert get_all(channel, queue) == []


def test_transaction_ends_with_its_channel(server: Server) -> None:
    """Closing a channel rolls its open transaction back."""
    with pika_connection(server) as connection:
        observer, channel = connection.channel(), connection.channel()
        queue = own_queue(observer)
        fill(observer, queue, 1)
        channel.tx_select()
        method, _, _ = channel.basic_get(queue)
        channel.basic_publish("", queue, b"lost")
        channel.basic_ack(method.delivery_tag)
        channel.close()

        inbox = Inbox()
        observer.basic_consume(queue, inbox, auto_ack=True)
        run_until(observer, lambda: bool(inbox))

        assert [(delivery.body, delivery.method.redelivered) for delivery in inbox] == [
            (b"0", True)
        ]


def test_commit_without_transaction(server: Server) -> None:
    """Committing on a channel that never selected a transaction closes it with 406."""
    with pika_channel(server) as channel:
        with pytest.raises(pika.exceptions.ChannelClosedByBroker) as closed:
            channel.tx_commit()

        assert closed.value.reply_code == 406
        assert closed.value.reply_text == "PRECONDITION_FAILED - channel is not transactional"


def test_transactions_and_confirms_exclude_each_other(server: Server) -> None:
    """A channel cannot go from confirm mode into a transaction."""
    with pika_channel(server) as channel:
        channel.confirm_delivery()

        with pytest.raises(pika.exceptions.ChannelClosedByBroker) as closed:
            channel.tx_select()

        assert closed.value.reply_text == (
            "PRECONDITION_FAILED - cannot switch from confirm to tx mode"
        )
