"""A virtual host: its exchanges, queues and bindings, and every change to them.

AMQP channels, the HTTP API and recovery all come through here, so that the order of checks and the
texts of refusals exist once. The order is RabbitMQ's, as clients' suites compare which of two
errors comes first. `owner` is the connection that asks: exclusive queues belong to one.
"""

from collections.abc import Mapping

from broker.core.arguments import (
    QUORUM,
    alternate_exchange,
    check_exchange_equivalent,
    check_property,
    parse_consumer_arguments,
)
from broker.core.binding import Binding, Destination
from broker.core.clock import Clock
from broker.core.consumer import Consumer, Sink
from broker.core.exchange import EXCHANGE_TYPES, DirectExchange, Exchange
from broker.core.headers import comparable_headers
from broker.core.ids import Ids
from broker.core.message import Message
from broker.core.names import (
    check_exchange_name,
    check_queue_name,
    exchange_resource,
    queue_resource,
)
from broker.core.paging import Memory
from broker.core.queue import Queue
from broker.core.queue_arguments import QueueArguments, check_queue_equivalent
from broker.core.records import (
    Bound,
    Committed,
    ExchangeDeclared,
    ExchangeDeleted,
    Published,
    QueueDeclared,
    QueueDeleted,
    Record,
    Unbound,
)
from broker.core.reply import REPLY_TO_PREFIX, ReplyQueue
from broker.core.routing import Route, follow
from broker.core.store import Store
from broker.core.table import Table
from broker.core.transaction import Settlement, Transaction
from broker.core.turn import Turn
from broker.errors import (
    AccessRefused,
    NotFound,
    NotImplemented_,
    PreconditionFailed,
    ResourceLocked,
)

#: Exchanges that every vhost has from the start: name, type, internal.
_PREDECLARED = (
    ("amq.direct", "direct", False),
    ("amq.fanout", "fanout", False),
    ("amq.topic", "topic", False),
    ("amq.headers", "headers", False),
    ("amq.match", "headers", False),
    ("amq.rabbitmq.trace", "topic", True),
)


class DefaultExchange(DirectExchange):
    """The exchange with no name: a routing key is the name of a queue or a waiting requester."""

    __slots__ = ("_queues", "_reply_queues")

    def __init__(self, queues: dict[str, Queue], reply_queues: dict[str, ReplyQueue]) -> None:
        super().__init__("", durable=True)
        self._queues = queues
        self._reply_queues = reply_queues

    def route(self, routing_key: bytes, found: dict[Destination, None]) -> None:
        name = routing_key.decode("utf-8", "surrogateescape")
        queue = self._queues.get(name)
        if queue is None and name.startswith(REPLY_TO_PREFIX):
            queue = self._reply_queues.get(name)
        if queue is not None:
            found[queue] = None


class VirtualHost:
    """One vhost."""

    __slots__ = (
        "_clock",
        "_exclusive",
        "_ids",
        "_memory",
        "_store",
        "_turn",
        "exchanges",
        "generation",
        "name",
        "queues",
        "reply_queues",
    )

    def __init__(
        self,
        name: str,
        ids: Ids,
        store: Store,
        turn: Turn,
        clock: Clock,
        memory: Memory | None = None,
    ) -> None:
        self.name = name
        self._clock = clock
        self._memory = memory if memory is not None else Memory()
        self._ids = ids
        self._store = store
        self._turn = turn
        #: counts the changes after which a message may go elsewhere
        self.generation = 0
        self.queues: dict[str, Queue] = {}
        #: exclusive queues by the connection they belong to
        self._exclusive: dict[object, dict[Queue, None]] = {}
        self.reply_queues: dict[str, ReplyQueue] = {}
        self.exchanges: dict[str, Exchange] = {"": DefaultExchange(self.queues, self.reply_queues)}
        for exchange_name, type_name, internal in _PREDECLARED:
            self.exchanges[exchange_name] = EXCHANGE_TYPES[type_name](
                exchange_name, durable=True, internal=internal
            )

    # Recovery.

    def restore_exchange(self, declared: ExchangeDeclared) -> None:
        """Bring an exchange back as it was."""
        self.exchanges[declared.name] = EXCHANGE_TYPES[declared.type_name](
            declared.name,
            durable=True,
            auto_delete=declared.auto_delete,
            internal=declared.internal,
            arguments=declared.arguments,
            alternate=alternate_exchange(declared.arguments, declared.name, self.name),
        )

    def restore_queue(self, declared: QueueDeclared) -> Queue:
        """Bring a queue back, without its messages."""
        queue = Queue(
            declared.name,
            declared.queue_id,
            QueueArguments(declared.arguments),
            self._store,
            self._turn,
            durable=True,
            auto_delete=declared.auto_delete,
            memory=self._memory,
        )
        self.queues[declared.name] = queue
        return queue

    def restore_binding(self, bound: Bound) -> None:
        """Bring a binding back if both its ends are there."""
        source = self.exchanges.get(bound.source)
        ends: Mapping[str, Destination] = self.queues if bound.to_queue else self.exchanges
        destination = ends.get(bound.destination)
        if source is not None and destination is not None:
            binding = Binding(bound.source, destination, bound.routing_key, bound.arguments)
            source.bind(binding)
            destination.bindings[binding] = None

    # Publishing.

    def resolve(self, route: Route) -> tuple[Queue, ...] | None:
        """Bring `route` up to the present generation and return its targets.

        Raises NotFound for a missing exchange and AccessRefused for an internal one.
        """
        exchange = self.exchanges.get(route.exchange_name)
        if exchange is None:
            raise NotFound(f"no {exchange_resource(route.exchange_name, self.name)}")
        if exchange.internal:
            raise AccessRefused(
                f"cannot publish to internal {exchange_resource(exchange.name, self.name)}"
            )
        route.exchange = exchange
        route.targets = follow(exchange, self.exchanges, (route.routing_key,), None)
        route.generation = self.generation
        return route.targets

    def route_message(
        self, route: Route, extra_keys: list[bytes], headers: bytes
    ) -> tuple[Queue, ...]:
        """The targets of one message whose own headers matter.

        Arguments:
            route: resolved.
            extra_keys: of its CC and BCC headers.
            headers: the inside of its headers table.
        """
        assert route.exchange is not None, "the route was resolved before"
        routing_keys = (route.routing_key, *extra_keys)
        targets = follow(route.exchange, self.exchanges, routing_keys, None)
        if targets is None:
            comparable = comparable_headers(headers)
            targets = follow(route.exchange, self.exchanges, routing_keys, comparable)
            assert targets is not None, "with headers at hand there is an answer"
        return targets

    def publish(self, message: Message, targets: tuple[Queue, ...]) -> int:
        """Put `message` into `targets` and return the position that makes it safe; 0 if none does.

        A message that several durable queues must keep is stored once, and all or none have it.
        """
        ids = self._ids
        ids.message_id += 1
        message.message_id = ids.message_id
        position = 0
        if message.persistent:
            record = self._published(message, targets)
            if record is not None:
                position = self._store.append(record)
        for queue in targets:
            queue.push(message)
        return position

    def _published(self, message: Message, targets: tuple[Queue, ...]) -> Published | None:
        queue_ids = [queue.queue_id for queue in targets if queue.durable]
        if not queue_ids:
            return None
        message.holders = len(queue_ids)
        message.published_ms = self._clock.now_ms()
        return Published(message, queue_ids)

    def commit(self, transaction: Transaction) -> int:
        """Do what `transaction` gathered, publishes first; returns the position to wait for.

        The history has all of it in one record, so that it survives whole or not at all.
        """
        records: list[Record] = []
        publishes = [
            (message, tuple([queue for queue in targets if not queue.deleted]))
            for message, targets in transaction.publishes
        ]
        for message, targets in publishes:
            self._ids.message_id += 1
            message.message_id = self._ids.message_id
            record = self._published(message, targets) if message.persistent else None
            if record is not None:
                records.append(record)
        records.extend(transaction.settled_records())
        position = self._store.append(Committed(records)) if records else 0
        for message, targets in publishes:
            for queue in targets:
                queue.push(message)
        for entry, settlement in transaction.settlements:
            if settlement is Settlement.REQUEUE:
                entry.queue.requeue(entry)
            else:
                entry.queue.ack_recorded(entry)
        return position

    # Exchanges.

    def exchange(self, name: str) -> Exchange:
        """The exchange called `name`; raises NotFound."""
        exchange = self.exchanges.get(name)
        if exchange is None:
            raise NotFound(f"no {exchange_resource(name, self.name)}")
        return exchange

    def check_not_default(self, exchange_name: str) -> None:
        """Refuse what cannot be done to the exchange with no name."""
        if not exchange_name:
            raise AccessRefused("operation not permitted on the default exchange")

    def declare_exchange(
        self,
        name: str,
        type_name: str,
        *,
        durable: bool = False,
        auto_delete: bool = False,
        internal: bool = False,
        arguments: Table = Table.EMPTY,
    ) -> Exchange:
        """Make an exchange, or find that it exists with the same attributes.

        Raises PreconditionFailed or AccessRefused. RabbitMQ: exchange.declare.
        """
        kind = EXCHANGE_TYPES.get(type_name)
        if kind is None:
            # RabbitMQ tells words it knows from elsewhere apart; the empty one is sure to be.
            known = "unknown" if type_name else "invalid"
            raise PreconditionFailed(f"{known} exchange type '{type_name}'")
        self.check_not_default(name)
        resource = exchange_resource(name, self.name)
        existing = self.exchanges.get(name)
        if existing is not None:
            check_property("type", resource, type_name, existing.type_name)
            check_property("durable", resource, durable, existing.durable)
            check_property("auto_delete", resource, auto_delete, existing.auto_delete)
            check_property("internal", resource, internal, existing.internal)
            check_exchange_equivalent(existing.arguments, arguments, name, self.name)
            return existing
        check_exchange_name(name)
        exchange = kind(
            name,
            durable=durable,
            auto_delete=auto_delete,
            internal=internal,
            arguments=arguments,
            alternate=alternate_exchange(arguments, name, self.name),
        )
        self.exchanges[name] = exchange
        self.generation += 1
        if durable:
            exchange.declared_position = self._store.append(
                ExchangeDeclared(self.name, name, type_name, auto_delete, internal, arguments)
            )
        return exchange

    def delete_exchange(self, name: str, *, if_unused: bool = False) -> int:
        """Delete an exchange if it exists; returns the position that makes it so."""
        self.check_not_default(name)
        resource = exchange_resource(name, self.name)
        if name.startswith("amq."):
            raise AccessRefused(f"deletion of system {resource} not allowed")
        exchange = self.exchanges.get(name)
        if exchange is None:
            return 0
        if if_unused and exchange.outgoing:
            raise PreconditionFailed(f"{resource} in use")
        return self._remove_exchange(exchange)

    def _remove_exchange(self, exchange: Exchange) -> int:
        """Delete `exchange` and every auto-delete exchange that loses its last binding by it."""
        position = 0
        doomed = [exchange]
        for current in doomed:
            if current.deleted:
                continue
            current.deleted = True
            del self.exchanges[current.name]
            self.generation += 1
            if current.durable:
                position = self._store.append(ExchangeDeleted(self.name, current.name))
            for binding in list(current.outgoing.values()):
                current.unbind(binding)
                binding.destination.bindings.pop(binding, None)
            doomed.extend(self._unbind_all(current.bindings))
        return position

    def _unbind_all(self, bindings: dict[Binding, None]) -> list[Exchange]:
        """Remove bindings whose destination goes; returns the auto-delete exchanges left unused."""
        unused: list[Exchange] = []
        for binding in list(bindings):
            source = self.exchanges.get(binding.source)
            if source is not None:
                source.unbind(binding)
                if source.auto_delete and not source.outgoing:
                    unused.append(source)
        bindings.clear()
        return unused

    # Bindings.

    def bind(
        self, source: str, destination: Destination, routing_key: bytes, arguments: Table
    ) -> int:
        """Bind `destination` to the exchange `source`; the same binding twice is one binding.

        Returns the position to wait for. Raises NotFound for a missing source, and what the type of
        the exchange has against the binding.
        """
        exchange = self.exchange(source)
        binding = Binding(source, destination, routing_key, arguments)
        existing = exchange.outgoing.get((destination, binding.identity))
        if existing is not None:
            return max(exchange.declared_position, existing.declared_position)
        exchange.bind(binding)
        destination.bindings[binding] = None
        self.generation += 1
        if exchange.durable and destination.durable:
            binding.declared_position = self._store.append(
                Bound(
                    self.name,
                    source,
                    destination.name,
                    destination.is_queue,
                    routing_key,
                    arguments,
                )
            )
        return max(exchange.declared_position, binding.declared_position)

    def unbind(
        self, exchange: Exchange, destination: Destination, routing_key: bytes, arguments: Table
    ) -> int:
        """Remove a binding if it exists; returns the position to wait for."""
        wanted = Binding(exchange.name, destination, routing_key, arguments)
        binding = exchange.outgoing.get((destination, wanted.identity))
        if binding is None:
            return 0
        exchange.unbind(binding)
        destination.bindings.pop(binding, None)
        self.generation += 1
        position = 0
        if exchange.durable and destination.durable:
            position = self._store.append(
                Unbound(
                    self.name,
                    exchange.name,
                    destination.name,
                    destination.is_queue,
                    routing_key,
                    arguments,
                )
            )
        if exchange.auto_delete and not exchange.outgoing:
            position = max(position, self._remove_exchange(exchange))
        return position

    def is_bound(
        self, exchange: Exchange, destination: Destination, routing_key: bytes, arguments: Table
    ) -> bool:
        """Whether this very binding exists."""
        wanted = Binding(exchange.name, destination, routing_key, arguments)
        return (destination, wanted.identity) in exchange.outgoing

    # Queues.

    def queue(self, name: str, owner: object | None) -> Queue:
        """The queue called `name`, for use by `owner`.

        Raises NotFound, and ResourceLocked for a queue exclusive to somebody else.
        """
        queue = self.queues.get(name)
        if queue is None:
            raise NotFound(f"no {queue_resource(name, self.name)}")
        self.check_owner(queue, owner)
        return queue

    def check_owner(self, queue: Queue, owner: object | None) -> None:
        """Raise ResourceLocked when `queue` is exclusive to somebody other than `owner`."""
        if queue.owner is not None and queue.owner is not owner:
            raise self._locked(queue.name)

    def _locked(self, name: str) -> ResourceLocked:
        resource = queue_resource(name, self.name)
        return ResourceLocked(
            f"cannot obtain exclusive access to locked {resource}. It could be originally declared "
            "on another connection or the exclusive property value does not match that of the "
            "original declaration."
        )

    def declare_queue(
        self,
        name: str,
        *,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: Table = Table.EMPTY,
        owner: object | None = None,
    ) -> Queue:
        """Make a queue, or find that it exists with the same attributes.

        Arguments:
            name: empty for one that the broker chooses.

        Raises AccessRefused, ResourceLocked or PreconditionFailed. RabbitMQ: queue.declare.
        """
        requested_durable = durable
        durable = durable and not exclusive
        if name:
            check_queue_name(name)
        existing = self.queues.get(name)
        if existing is not None:
            resource = queue_resource(name, self.name)
            if existing.owner is not (owner if exclusive else None):
                raise self._locked(name)
            check_property("durable", resource, durable, existing.durable)
            check_property("auto_delete", resource, auto_delete, existing.auto_delete)
            check_queue_equivalent(existing.arguments, arguments, resource)
            return existing
        server_named = not name
        if server_named:
            name = f"amq.gen-{self._ids.token()}"
        parsed = QueueArguments.parse(
            arguments,
            queue=name,
            vhost=self.name,
            durable=requested_durable,
            exclusive=exclusive,
            auto_delete=auto_delete,
            server_named=server_named,
        )
        queue = Queue(
            name,
            self._ids.next_queue_id(),
            parsed,
            self._store,
            self._turn,
            durable=durable,
            auto_delete=auto_delete,
            owner=owner if exclusive else None,
            memory=self._memory,
        )
        self.queues[name] = queue
        if exclusive:
            self._exclusive.setdefault(owner, {})[queue] = None
        self.generation += 1
        if durable:
            queue.declared_position = self._store.append(
                QueueDeclared(self.name, queue.queue_id, name, auto_delete, arguments)
            )
        return queue

    def check_gettable(self, queue: Queue) -> None:
        """Refuse basic.get behind the back of a single active consumer, with ResourceLocked."""
        arguments = queue.arguments
        if arguments.queue_type == QUORUM and arguments.single_active_consumer:
            raise ResourceLocked(
                f"cannot obtain access to locked {queue_resource(queue.name, self.name)}. "
                "basic.get operations are not supported by quorum queues with single active "
                "consumer"
            )

    def check_deletable(self, queue: Queue, *, if_unused: bool, if_empty: bool) -> None:
        """Refuse a conditional deletion whose condition does not hold; emptiness comes first.

        Raises PreconditionFailed, and NotImplemented_ for quorum queues, which know no conditions.
        """
        resource = queue_resource(queue.name, self.name)
        if queue.arguments.queue_type == QUORUM and (if_unused or if_empty):
            flag = "if-unused" if if_unused else "if-empty"
            raise NotImplemented_(
                f"cannot delete {resource}. queue.delete operations with {flag} flag set are not "
                "supported by quorum queues"
            )
        if if_empty and queue.ready_count:
            raise PreconditionFailed(f"{resource} not empty")
        if if_unused and queue.consumers:
            raise PreconditionFailed(f"{resource} in use")

    def delete_queue(self, queue: Queue) -> int:
        """Delete `queue`, tell its consumers, and return the position that makes it so."""
        if queue.deleted:
            return 0
        del self.queues[queue.name]
        if queue.owner in self._exclusive:
            self._exclusive[queue.owner].pop(queue, None)
        self.generation += 1
        consumers = queue.delete()
        position = 0
        if queue.durable:
            position = self._store.append(QueueDeleted(self.name, queue.queue_id, queue.name))
        for exchange in self._unbind_all(queue.bindings):
            position = max(position, self._remove_exchange(exchange))
        for consumer in consumers:
            consumer.sink.cancelled(consumer)
        return position

    # Consumers.

    def consume(
        self,
        queue: Queue,
        tag: str,
        sink: Sink,
        *,
        no_ack: bool,
        exclusive: bool,
        prefetch_count: int,
        arguments: Table,
    ) -> Consumer:
        """Subscribe `sink` to `queue`; deliveries begin when the consumer is started.

        Arguments:
            tag: empty for one that the broker chooses.

        Raises PreconditionFailed for its arguments and AccessRefused when exclusive use stands
        against it. RabbitMQ: basic.consume.
        """
        parsed = parse_consumer_arguments(
            arguments, queue.name, self.name, queue.arguments.queue_type
        )
        if queue.exclusive_consumer or (
            exclusive and (queue.consumers or queue.arguments.single_active_consumer)
        ):
            raise AccessRefused(f"{queue_resource(queue.name, self.name)} in exclusive use")
        consumer = Consumer(
            tag or self.new_consumer_tag(),
            sink,
            queue,
            no_ack=no_ack,
            exclusive=exclusive,
            priority=parsed.priority,
            prefetch_count=prefetch_count,
            arguments=arguments,
        )
        queue.add_consumer(consumer)
        return consumer

    def consume_replies(self, tag: str, sink: Sink) -> Consumer:
        """Make `sink` a waiting end for direct replies; `Consumer.queue` has its name."""
        queue = ReplyQueue(
            REPLY_TO_PREFIX + self._ids.token(),
            self._ids.next_queue_id(),
            QueueArguments.EMPTY,
            self._store,
            self._turn,
        )
        consumer = Consumer(tag or self.new_consumer_tag(), sink, queue, no_ack=True)
        queue.add_consumer(consumer)
        self.reply_queues[queue.name] = queue
        self.generation += 1
        return consumer

    def new_consumer_tag(self) -> str:
        """A tag for a consumer whose client chose none."""
        return f"amq.ctag-{self._ids.token()}"

    def cancel(self, consumer: Consumer) -> None:
        """End a subscription; an auto-delete queue goes with its last consumer."""
        queue = consumer.queue
        queue.remove_consumer(consumer)
        if isinstance(queue, ReplyQueue):
            self.reply_queues.pop(queue.name, None)
            self.generation += 1
        elif queue.auto_delete and not queue.consumers:
            self.delete_queue(queue)

    def release_owner(self, owner: object) -> None:
        """Delete the exclusive queues of a connection that ends."""
        for queue in self._exclusive.pop(owner, ()):
            self.delete_queue(queue)
