"""Exchanges: where messages are published, and which of their bindings a message matches.

An exchange is a set of bindings and an index over them that fits its type. It answers one question,
"which destinations does this routing key, or do these headers, match?", into a dict that serves as
an ordered set. Following a destination that is an exchange itself, alternate exchanges and the rule
that each exchange is visited once are the vhost's affair, not the type's.
"""

from typing import ClassVar

from broker.core.binding import Binding, Destination
from broker.core.headers import HeadersIndex
from broker.core.table import Comparable, Table
from broker.core.topic import TopicTrie


class Exchange(Destination):
    """What all types share."""

    __slots__ = (
        "alternate",
        "arguments",
        "auto_delete",
        "declared_position",
        "deleted",
        "internal",
        "outgoing",
    )

    type_name: ClassVar[str]
    #: whether routing depends on more than the address of a message
    uses_headers: ClassVar[bool] = False

    def __init__(
        self,
        name: str,
        *,
        durable: bool = False,
        auto_delete: bool = False,
        internal: bool = False,
        arguments: Table = Table.EMPTY,
        alternate: str | None = None,
    ) -> None:
        super().__init__(name, durable)
        self.auto_delete = auto_delete
        #: clients may not publish to it
        self.internal = internal
        self.arguments = arguments
        #: where messages go that match no binding; the exchange named need not exist
        self.alternate = alternate
        #: bindings that lead from here, by what makes them one binding
        self.outgoing: dict[tuple[Destination, tuple[bytes, bytes]], Binding] = {}
        #: log position of its declaration
        self.declared_position = 0
        self.deleted = False
        self._make_index()

    def bind(self, binding: Binding) -> None:
        """Add a binding that leads from here; it must be new. May raise PreconditionFailed."""
        self._index(binding)
        self.outgoing[binding.destination, binding.identity] = binding

    def unbind(self, binding: Binding) -> None:
        """Remove a binding that leads from here."""
        del self.outgoing[binding.destination, binding.identity]
        self._unindex(binding)

    def route(self, routing_key: bytes, found: dict[Destination, None]) -> None:
        """Add the destinations whose bindings match `routing_key` to `found`."""
        raise AssertionError("an exchange type says how it routes")

    def route_headers(self, headers: dict[str, Comparable], found: dict[Destination, None]) -> None:
        """Add the destinations whose bindings match `headers` to `found`."""
        raise AssertionError("only types that use headers are asked")

    def _make_index(self) -> None:
        """Make what the type keeps beside `outgoing`; nothing unless a type says otherwise."""

    def _index(self, binding: Binding) -> None:
        raise AssertionError("an exchange type says how it keeps bindings")

    def _unindex(self, binding: Binding) -> None:
        raise AssertionError("an exchange type says how it keeps bindings")


class DirectExchange(Exchange):
    """A binding matches when its key equals the routing key."""

    __slots__ = ("_by_key",)

    type_name = "direct"

    def _make_index(self) -> None:
        self._by_key: dict[bytes, dict[Binding, None]] = {}

    def route(self, routing_key: bytes, found: dict[Destination, None]) -> None:
        for binding in self._by_key.get(routing_key, ()):
            found[binding.destination] = None

    def _index(self, binding: Binding) -> None:
        self._by_key.setdefault(binding.routing_key, {})[binding] = None

    def _unindex(self, binding: Binding) -> None:
        same_key = self._by_key[binding.routing_key]
        del same_key[binding]
        if not same_key:
            del self._by_key[binding.routing_key]


class FanoutExchange(Exchange):
    """Every binding matches."""

    __slots__ = ()

    type_name = "fanout"

    def route(self, routing_key: bytes, found: dict[Destination, None]) -> None:
        for binding in self.outgoing.values():
            found[binding.destination] = None

    def _index(self, binding: Binding) -> None:
        pass

    def _unindex(self, binding: Binding) -> None:
        pass


class TopicExchange(Exchange):
    """A binding's key is a pattern over the words of the routing key."""

    __slots__ = ("_trie",)

    type_name = "topic"

    def _make_index(self) -> None:
        self._trie = TopicTrie()

    def route(self, routing_key: bytes, found: dict[Destination, None]) -> None:
        self._trie.match(routing_key, found)

    def _index(self, binding: Binding) -> None:
        self._trie.add(binding)

    def _unindex(self, binding: Binding) -> None:
        self._trie.remove(binding)


class HeadersExchange(Exchange):
    """A binding's arguments are matched against the headers of the message."""

    __slots__ = ("_headers_index",)

    type_name = "headers"
    uses_headers = True

    def _make_index(self) -> None:
        self._headers_index = HeadersIndex()

    def route_headers(self, headers: dict[str, Comparable], found: dict[Destination, None]) -> None:
        self._headers_index.match(headers, found)

    def _index(self, binding: Binding) -> None:
        self._headers_index.add(binding)

    def _unindex(self, binding: Binding) -> None:
        self._headers_index.remove(binding)


#: Every type a client may declare, by its name on the wire.
EXCHANGE_TYPES: dict[str, type[Exchange]] = {
    kind.type_name: kind
    for kind in (DirectExchange, FanoutExchange, TopicExchange, HeadersExchange)
}
