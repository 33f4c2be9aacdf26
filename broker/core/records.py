"""The records of the history: what happened, not what was asked.

A queue is named by its id, so that a later one of the same name does not inherit the messages of an
earlier one. Exchanges and bindings are named by what they are: with the record that ends one of
them goes everything that was tied to it by name.
"""

from array import array
from collections.abc import Sequence

from broker.core.message import Message
from broker.core.table import Table


class Record:
    """Something that happened and must survive."""

    __slots__ = ()


class Definition(Record):
    """Says that something exists, and holds until another record ends it.

    Attributes:
        position: where the history has it
        length: octets that it takes there
    """

    __slots__ = ("length", "position")

    def __init__(self) -> None:
        self.position = 0
        self.length = 0


class Published(Record):
    """A message entered these durable queues: one record however many they are."""

    __slots__ = ("message", "queue_ids")

    def __init__(self, message: Message, queue_ids: Sequence[int]) -> None:
        self.message = message
        self.queue_ids = queue_ids


class PublishedTogether(Record):
    """Messages for one and the same queue, one after the other, as recovery finds them in an index.

    Says what as many `Published` say, without an object for each.
    """

    __slots__ = ("body_sizes", "lengths", "message_ids", "positions", "queue_id")

    def __init__(self, queue_id: int) -> None:
        self.queue_id = queue_id
        self.message_ids = array("Q")
        self.positions = array("Q")
        self.body_sizes = array("I")
        #: octets of their records
        self.lengths = array("I")


class Settled(Record):
    """A durable queue is done with these messages."""

    __slots__ = ("message_ids", "queue_id")

    def __init__(self, queue_id: int, message_ids: Sequence[int]) -> None:
        self.queue_id = queue_id
        self.message_ids = message_ids


class Purged(Settled):
    """A durable queue dropped everything that waited.

    Tells more than the history keeps: these messages are released only later, in steps, and nobody
    may take them for alive meanwhile.
    """

    __slots__ = ()


class Committed(Record):
    """A transaction: its records survive together or not at all."""

    __slots__ = ("records",)

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = records


class QueueDeclared(Definition):
    """A durable queue came to be."""

    __slots__ = ("arguments", "auto_delete", "name", "queue_id", "vhost")

    def __init__(
        self, vhost: str, queue_id: int, name: str, auto_delete: bool, arguments: Table
    ) -> None:
        super().__init__()
        self.vhost = vhost
        self.queue_id = queue_id
        self.name = name
        self.auto_delete = auto_delete
        self.arguments = arguments


class QueueDeleted(Record):
    """A durable queue is gone, with its messages and bindings.

    Bindings know the queue by its name, so it is said again: the declaration may have been cleaned
    away when this is read.
    """

    __slots__ = ("name", "queue_id", "vhost")

    def __init__(self, vhost: str, queue_id: int, name: str) -> None:
        self.vhost = vhost
        self.queue_id = queue_id
        self.name = name


class ExchangeDeclared(Definition):
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
        super().__init__()
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


class BindingRecord(Definition):
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
        super().__init__()
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


class Delivered(Record):
    """These waiting messages of a queue had been delivered before; part of a clean stop."""

    __slots__ = ("message_ids", "queue_id")

    def __init__(self, queue_id: int, message_ids: Sequence[int]) -> None:
        self.queue_id = queue_id
        self.message_ids = message_ids


class Stopped(Record):
    """The broker stopped in good order: the last record of a clean stop.

    Unless it ends the history nobody can tell which messages were delivered, so all are taken for
    redelivered.
    """

    __slots__ = ()


class Started(Record):
    """A broker went on from here: what is delivered after it leaves no trace."""

    __slots__ = ()


class Counters(Record):
    """The last ids given, for when the records that show them are cleaned away."""

    __slots__ = ("message_id", "queue_id")

    def __init__(self, message_id: int, queue_id: int) -> None:
        self.message_id = message_id
        self.queue_id = queue_id
