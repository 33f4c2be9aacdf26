"""A binding: the standing order that a source exchange send matching messages to a destination."""

from typing import ClassVar, Final

from broker.core.table import Table


class Destination:
    """What a binding can lead to; queues and exchanges are the two kinds."""

    __slots__ = ("bindings", "durable", "name")

    is_queue: ClassVar[bool] = False

    def __init__(self, name: str, durable: bool) -> None:
        self.name = name
        self.durable = durable
        #: bindings that lead here
        self.bindings: dict[Binding, None] = {}


class Binding:
    """One binding from the exchange named `source` to a queue or an exchange.

    `identity` tells bindings of the same source and destination apart: the routing key together
    with the arguments sorted by name, so that the order a client sent them in makes no difference.
    """

    __slots__ = (
        "arguments",
        "declared_position",
        "destination",
        "identity",
        "routing_key",
        "source",
    )

    def __init__(
        self, source: str, destination: Destination, routing_key: bytes, arguments: Table
    ) -> None:
        self.source: Final = source
        self.destination: Final = destination
        self.routing_key: Final = routing_key
        self.arguments: Final = arguments
        self.identity: Final = (routing_key, arguments.sorted_raw())
        #: log position of its declaration, which whoever makes it again waits for
        self.declared_position = 0

    def __repr__(self) -> str:
        return f"Binding({self.source!r}, {self.destination!r}, {self.routing_key!r})"
