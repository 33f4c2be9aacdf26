"""The records of the history: what happened, not what was asked.

Queues and exchanges are named by id where a later thing of the same name must not inherit what an
earlier one left behind.
"""

from collections.abc import Sequence

from broker.core.message import Message
from broker.core.table import Table


class Record:
    """Something that happened and must survive."""

    __slots__ = ()


class Published(Record):
    """A message entered these durable queues: one record however many they are."""

    __slots__ = ("message", "queue_ids")

    def __init__(self, message: Message, queue_ids: Sequence[int]) -> None:
        self.message = message
        self.queue_ids = queue_ids


class Settled(Record):
    """A durable queue is done with these messages."""

    __slots__ = ("message_ids", "queue_id")

    def __init__(self, queue_id: int, message_ids: Sequence[int]) -> None:
        self.queue_id = queue_id
        self.message_ids = message_ids


class Committed(Record):
    """A transaction: its records survive together or not at all."""

    __slots__ = ("records",)

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = records


class QueueDeclared(Record):
    """A durable queue came to be."""

    __slots__ = ("arguments", "auto_delete", "name", "queue_id", "vhost")

    def __init__(
        self, vhost: str, queue_id: int, name: str, auto_delete: bool, arguments: Table
    ) -> None:
        self.vhost = vhost
        self.queue_id = queue_id
        self.name = name
        self.auto_delete = auto_delete
        self.arguments = arguments


class QueueDeleted(Record):
    """A durable queue is gone, with its messages and bindings."""

    __slots__ = ("queue_id",)

    def __init__(self, queue_id: int) -> None:
        self.queue_id = queue_id


class ExchangeDeclared(Record):
    """A durable exchange came to be."""

    __slots__ = ("arguments", "auto_delete", "internal", "name", "type_name", "vhost")

    def __init__(
        self,
        vhost: str,
        name: str,
        type_name: str,
        auto_delete: bool,
        internal: bool,
        arguments: Table,
    ) -> None:
        self.vhost = vhost
        self.name = name
        self.type_name = type_name
        self.auto_delete = auto_delete
        self.internal = internal
        self.arguments = arguments


class ExchangeDeleted(Record):
    """A durable exchange is gone, with its bindings."""

    __slots__ = ("name", "vhost")

    def __init__(self, vhost: str, name: str) -> None:
        self.vhost = vhost
        self.name = name


class BindingRecord(Record):
    """What names a binding between two durable ends."""

    __slots__ = ("arguments", "destination", "routing_key", "source", "to_queue", "vhost")

    def __init__(
        self,
        vhost: str,
        source: str,
        destination: str,
        to_queue: bool,
        routing_key: bytes,
        arguments: Table,
    ) -> None:
        self.vhost = vhost
        self.source = source
        self.destination = destination
        self.to_queue = to_queue
        self.routing_key = routing_key
        self.arguments = arguments


class Bound(BindingRecord):
    """A binding between two durable ends was made."""

    __slots__ = ()


class Unbound(BindingRecord):
    """A binding between two durable ends was removed."""

    __slots__ = ()


class Stopped(Record):
    """The broker stopped in good order, and these waiting messages had been delivered before.

    The last record of a clean stop. Without it at the end of the history nobody can tell which
    messages were delivered, so all are taken for redelivered.
    """

    __slots__ = ("redelivered",)

    def __init__(self, redelivered: Sequence[int]) -> None:
        self.redelivered = redelivered
