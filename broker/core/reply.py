"""Direct reply-to: answers without a queue.

A client that consumes from `amq.rabbitmq.reply-to` gets an end of its own under an unguessable
name, which the broker writes into the reply-to of the requests published on that channel. A reply
is a publish to the default exchange with that name as routing key, and goes straight to the
channel: it is never stored, and dropped if the requester is gone or does not read. RabbitMQ's
"Direct Reply-to".
"""

from typing import Final

from broker.core.message import Message
from broker.core.queue import Queue

#: What a client consumes from and writes into reply-to.
REPLY_TO: Final = "amq.rabbitmq.reply-to"
#: What the names seen by responders begin with.
REPLY_TO_PREFIX: Final = "amq.rabbitmq.reply-to."


class ReplyQueue(Queue):
    """The waiting end of one channel: a queue in name, with one consumer and nothing ever in it."""

    __slots__ = ()

    def push(self, message: Message) -> None:
        """Deliver at once; no limit but that of the connection's memory applies to replies."""
        for consumer in self.consumers:
            if not consumer.sink.saturated:
                consumer.sink.deliver(consumer, message, None)
