"""The arguments of one queue: checked when it is created, compared when it is declared again.

The order of refusal at creation is RabbitMQ's: a type that cannot have a name made by the server,
the type of the dead letter exchange argument (RabbitMQ resolves it for the permission check),
x-queue-type, the arguments known to that type in the order of the rules, those known only to others
in the order received, and last the flags that a quorum queue cannot have.
"""

from typing import ClassVar, Final

from broker.core.arguments import (
    CLASSIC,
    QUORUM,
    STREAM,
    check_argument,
    exchange_argument,
    foreign_argument,
    integer,
    invalid_argument,
    text,
)
from broker.core.names import queue_resource
from broker.core.queue_rules import CHECKED, COMPARED, REFUSED, check_queue_type
from broker.core.table import Field, Table
from broker.errors import PreconditionFailed

#: Values of x-delayed-retry-type that have an effect: which returns wait before the next delivery.
DELAYED_RETRY_TYPES: Final = ("all", "failed", "returned")


# Readers of single fields; what is not of the kind asked for counts as absent.


def _flag(field: Field | None) -> bool:
    return field is not None and field.value is True


def _at_least(minimum: int, field: Field | None) -> int | None:
    value = integer(field)
    return value if value is not None and value >= minimum else None


def _one_of(choices: tuple[str, ...], field: Field | None) -> str | None:
    value = text(field)
    return value if value in choices else None


class QueueArguments:
    """The arguments of one queue, read once from the table it was declared with.

    An argument that is absent is None, a flag False. Times are milliseconds (`_ms`), lengths
    messages or octets of bodies (`_bytes`). `delivery_limit` below 0 means no limit. What has no
    effect on a single node, such as x-queue-mode, is found in `table` alone. Names that are not
    UTF-8 carry their bytes as lone surrogates (`surrogateescape`).

    The constructor reads without checking: for tables that were checked when the queue was created.
    """

    __slots__ = (
        "cache_persistence",
        "cache_size",
        "cache_ttl_ms",
        "consumer_timeout_ms",
        "dead_letter_exchange",
        "dead_letter_routing_key",
        "dead_letter_strategy",
        "delayed_retry_backoff",
        "delayed_retry_max_ms",
        "delayed_retry_min_ms",
        "delayed_retry_type",
        "delivery_limit",
        "expires_ms",
        "max_length",
        "max_length_bytes",
        "max_priority",
        "message_deduplication",
        "message_ttl_ms",
        "overflow",
        "queue_type",
        "single_active_consumer",
        "table",
    )

    EMPTY: ClassVar["QueueArguments"]

    def __init__(self, table: Table) -> None:
        self.table: Final = table
        self.queue_type: Final = text(table.get("x-queue-type")) or CLASSIC
        self.expires_ms: Final = integer(table.get("x-expires"))
        self.message_ttl_ms: Final = integer(table.get("x-message-ttl"))
        #: "" is the default exchange
        self.dead_letter_exchange: Final = text(table.get("x-dead-letter-exchange"))
        self.dead_letter_routing_key: Final = text(table.get("x-dead-letter-routing-key"))
        #: "at-most-once" or "at-least-once"
        self.dead_letter_strategy: Final = text(table.get("x-dead-letter-strategy"))
        self.max_length: Final = integer(table.get("x-max-length"))
        self.max_length_bytes: Final = integer(table.get("x-max-length-bytes"))
        #: "drop-head", "reject-publish" or "reject-publish-dlx"
        self.overflow: Final = text(table.get("x-overflow"))
        #: 0 means no priorities, like None
        self.max_priority: Final = integer(table.get("x-max-priority"))
        self.single_active_consumer: Final = _flag(table.get("x-single-active-consumer"))
        self.consumer_timeout_ms: Final = _at_least(0, table.get("x-consumer-timeout"))
        self.delivery_limit: Final = integer(table.get("x-delivery-limit"))
        #: which returns wait before they are delivered again: one of DELAYED_RETRY_TYPES, or none
        self.delayed_retry_type: Final = _one_of(
            DELAYED_RETRY_TYPES, table.get("x-delayed-retry-type")
        )
        self.delayed_retry_min_ms: Final = _at_least(1, table.get("x-delayed-retry-min"))
        self.delayed_retry_max_ms: Final = _at_least(1, table.get("x-delayed-retry-max"))
        #: how the wait grows with each delivery: one of DELAYED_RETRY_BACKOFFS
        self.delayed_retry_backoff: Final = text(table.get("x-delayed-retry-backoff"))
        self.message_deduplication: Final = _flag(table.get("x-message-deduplication"))
        self.cache_size: Final = integer(table.get("x-cache-size"))
        self.cache_ttl_ms: Final = integer(table.get("x-cache-ttl"))
        self.cache_persistence: Final = text(table.get("x-cache-persistence"))

    @staticmethod
    def parse(
        table: Table,
        *,
        queue: str,
        vhost: str,
        durable: bool,
        exclusive: bool,
        auto_delete: bool,
        server_named: bool = False,
    ) -> "QueueArguments":
        """Check and read the arguments of a queue to be created.

        The other parameters are those of its declaration; `server_named` when it left the name to
        the server. Raises PreconditionFailed for the first thing that is wrong.
        """
        if not table:
            return QueueArguments.EMPTY
        resource = queue_resource(queue, vhost)
        type_field = table.get("x-queue-type")
        queue_type = text(type_field) or CLASSIC
        if server_named and queue_type in (QUORUM, STREAM):
            raise PreconditionFailed(
                f"Cannot declare a server-named queue for type rabbit_{queue_type}_queue"
            )
        dead_letter_exchange(table, queue, vhost)
        if type_field is not None:
            error = check_queue_type(type_field, table)
            if error is not None:
                raise invalid_argument("x-queue-type", resource, error)
        for rule in CHECKED[queue_type]:
            field = table.get(rule.name)
            if field is not None and rule.check is not None:
                error = rule.check(field, table)
                if error is not None:
                    raise invalid_argument(rule.name, resource, error)
        refused = REFUSED[queue_type]
        for name, _ in table.items():
            if name in refused:
                raise foreign_argument(name, resource, queue_type)
        if queue_type == QUORUM:
            _check_quorum_properties(resource, durable, exclusive, auto_delete)
        return QueueArguments(table)

    def __repr__(self) -> str:
        return f"QueueArguments({self.table!r})"


QueueArguments.EMPTY = QueueArguments(Table.EMPTY)


def dead_letter_exchange(table: Table, queue: str, vhost: str) -> str | None:
    """Return the dead letter exchange of a queue to be created, None without one.

    For the permission check, which RabbitMQ makes before it looks at other arguments. Raises
    PreconditionFailed unless it is a string.
    """
    return exchange_argument(table, "x-dead-letter-exchange", queue_resource(queue, vhost))


def check_queue_equivalent(current: QueueArguments, received: Table, resource: str) -> None:
    """Refuse a redeclaration of the queue `resource` if an argument known to its type differs.

    Arguments that the type does not know are not compared, and values are not checked. No
    x-queue-type is the same as `classic`; a vhost with another default type puts it into the
    table before it declares or compares. Owner, durable and auto_delete are compared first, by
    the caller. Raises PreconditionFailed.
    """
    if received == current.table:
        return
    for rule in COMPARED[current.queue_type]:
        if rule.name == "x-queue-type" and _both_classic(current.table, received):
            continue
        check_argument(rule.name, resource, received, current.table)


def _both_classic(current: Table, received: Table) -> bool:
    for table in (current, received):
        field = table.get("x-queue-type")
        if field is not None and text(field) != CLASSIC:
            return False
    return True


def _check_quorum_properties(
    resource: str, durable: bool, exclusive: bool, auto_delete: bool
) -> None:
    if auto_delete:
        raise PreconditionFailed(f"invalid property 'auto-delete' for {resource}")
    if exclusive:
        raise PreconditionFailed(f"invalid property 'exclusive-owner' for {resource}")
    if not durable:
        raise PreconditionFailed(f"invalid property 'non-durable' for {resource}")
