"""From an address to queues: following exchange bindings and alternate exchanges.

A publisher repeats itself: the same exchange and routing key, message after message. So the answer
is kept in a `Route` beside the address it belongs to, and it stays right until the topology
changes, which the vhost counts as *generations*. A message whose route is current costs one
comparison of integers, whatever the type of the exchange and the number of bindings. Only two
things make a message's own headers matter, and then there is nothing to keep: a headers exchange on
the way, and CC or BCC.
"""

from collections.abc import Mapping, Sequence

from broker.core.binding import Destination
from broker.core.exchange import Exchange
from broker.core.queue import Queue
from broker.core.table import Comparable


class Route:
    """Where an address leads, as of one generation of its vhost.

    Arguments:
        address: exchange shortstr + routing-key shortstr, as in basic.publish.
    """

    __slots__ = ("address", "exchange", "exchange_name", "generation", "routing_key", "targets")

    def __init__(self, address: bytes) -> None:
        self.address = address
        length = address[0]
        self.exchange_name = address[1 : 1 + length].decode()
        self.routing_key = address[2 + length :]
        #: the generation that `exchange` and `targets` belong to
        self.generation = -1
        self.exchange: Exchange | None = None
        #: the queues it leads to; None when that depends on the headers of each message
        self.targets: tuple[Queue, ...] | None = None


def follow(
    exchange: Exchange,
    exchanges: Mapping[str, Exchange],
    routing_keys: Sequence[bytes],
    headers: dict[str, Comparable] | None,
) -> tuple[Queue, ...] | None:
    """The queues that a message published to `exchange` goes to, each once.

    Each exchange is visited at most once, so that cycles end. The alternate exchange counts only
    where no binding of the exchange itself matched.

    Arguments:
        exchanges: all of the vhost, to find alternates by name. headers: of the message; None when
        it is not looked at, and then the answer is None too if an
            exchange on the way wants to see them.
    """
    queues: dict[Queue, None] = {}
    visited = {exchange}
    waiting = [exchange]
    for current in waiting:
        found: dict[Destination, None] = {}
        if current.uses_headers:
            if headers is None:
                return None
            current.route_headers(headers, found)
        else:
            for routing_key in routing_keys:
                current.route(routing_key, found)
        # RabbitMQ: the default exchange is no alternate, as its bindings are only implied.
        if not found and current.alternate:
            alternate = exchanges.get(current.alternate)
            if alternate is not None:
                found[alternate] = None
        for destination in found:
            if isinstance(destination, Queue):
                queues[destination] = None
            elif isinstance(destination, Exchange) and destination not in visited:
                visited.add(destination)
                waiting.append(destination)
    return tuple(queues)
