"""Arguments of declarations and consumers: what makes a value valid, and two values the same.

An argument is judged twice, by different rules. When a queue or an exchange is created, the values
of the arguments it knows are *checked*; arguments that nobody knows are accepted and kept. When it
is declared again nothing is checked: the known arguments are *compared* with those it was created
with, and the first that differs is named. Queues have enough arguments for modules of their own,
`queue_rules` and `queue_arguments`; this one holds what all share, and the few arguments of
exchanges and consumers.

Reply texts are RabbitMQ's, word for word, since applications and test suites match them. RabbitMQ
prints the error of a check as an Erlang term, so checks here return that term: an atom such as
`invalid_overflow`, a tuple such as `{value_negative,-1}`, or a string in double quotes.
"""

from collections.abc import Callable
from typing import ClassVar, Final, TypeAlias

from broker.core.names import exchange_resource, queue_resource
from broker.core.table import INTEGER_TAGS, Field, Table
from broker.core.terms import field_term
from broker.errors import PreconditionFailed

CLASSIC: Final = "classic"
QUORUM: Final = "quorum"
#: Streams cannot be declared; the type is here because its arguments are refused on the others.
STREAM: Final = "stream"

#: The longest time to live of a message or queue: ten years of 365 days.
EXPIRY_MAX_MS: Final = 315_360_000_000

# Takes the argument and the whole table; returns the error as an Erlang term, None if all is well.
Check: TypeAlias = Callable[[Field, Table], str | None]

_STREAM_CONSUMER_ARGUMENTS: Final = (
    "x-stream-offset",
    "x-stream-filter",
    "x-stream-match-unfiltered",
)

# Characters that Erlang escapes in a printed string. A string holding any other control character,
# or one beyond Latin-1, is printed as the list of its code points.
_ESCAPES: Final = {
    "\b": "\\b",
    "\t": "\\t",
    "\n": "\\n",
    "\v": "\\v",
    "\f": "\\f",
    "\r": "\\r",
    "\x1b": "\\e",
    '"': '\\"',
    "\\": "\\\\",
}


# Values as texts.


def decode_text(raw: bytes) -> str:
    """Return a string argument as texts show it: UTF-8, or Latin-1 if it is not UTF-8."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def string_term(string: str) -> str:
    """Return `string` as Erlang prints a string: quoted, or as a list if it is not printable."""
    parts: list[str] = []
    for character in string:
        escaped = _ESCAPES.get(character)
        if escaped is not None:
            parts.append(escaped)
        elif " " <= character <= "~" or "\xa0" <= character <= "\xff":
            parts.append(character)
        else:
            return "[" + ",".join([str(ord(each)) for each in string]) + "]"
    return '"' + "".join(parts) + '"'


def _value_text(field: Field) -> str:
    """Return the value of `field` as it stands between quotes in a text."""
    value = field.value
    return decode_text(value) if isinstance(value, bytes) else field_term(field)


# Checks.


def invalid_argument(name: str, resource: str, error: str) -> PreconditionFailed:
    """Return the refusal of an argument whose check gave `error`."""
    return PreconditionFailed(f"invalid arg '{name}' for {resource}: {error}")


def foreign_argument(name: str, resource: str, queue_type: str) -> PreconditionFailed:
    """Return the refusal of an argument that only other types of queue know."""
    return PreconditionFailed(
        f"invalid arg '{name}' for {resource} of queue type rabbit_{queue_type}_queue"
    )


def integer(field: Field | None) -> int | None:
    """Return the value of an integer of any width; None for everything else, timestamps too."""
    if field is not None and field.tag in INTEGER_TAGS and isinstance(field.value, int):
        return field.value
    return None


def text(field: Field | None) -> str | None:
    """Return the value of a string (`S`); None for everything else, binaries too.

    Bytes that are not UTF-8 come as lone surrogates (`surrogateescape`).
    """
    if field is not None and field.tag == "S" and isinstance(field.value, bytes):
        return field.value.decode("utf-8", "surrogateescape")
    return None


def check_integer(field: Field, table: Table) -> str | None:
    """Accept an integer of any width."""
    if integer(field) is None:
        return f'"expected integer, got {field.type_name}"'
    return None


def check_non_negative(field: Field, table: Table) -> str | None:
    """Accept an integer from 0."""
    value = integer(field)
    if value is None:
        return check_integer(field, table)
    return f"{{value_negative,{value}}}" if value < 0 else None


def check_positive(field: Field, table: Table) -> str | None:
    """Accept an integer from 1."""
    return "{value_zero,0}" if integer(field) == 0 else check_non_negative(field, table)


def expiry_error(value_ms: int) -> str | None:
    """Return what is wrong with a time to live, None if nothing is."""
    if value_ms < 0:
        return f"{{value_negative,{value_ms}}}"
    if value_ms > EXPIRY_MAX_MS:
        return f"{{value_too_large,{value_ms}}}"
    return None


def exchange_argument(table: Table, name: str, resource: str) -> str | None:
    """Return the exchange that the argument `name` points to, None without the argument.

    It need not exist. Raises PreconditionFailed unless it is a string (`S`).
    """
    field = table.get(name)
    if field is None:
        return None
    exchange = text(field)
    if exchange is None:
        raise PreconditionFailed(f"invalid type '{field.type_name}' for arg '{name}' in {resource}")
    return exchange


# Comparison.


def inequivalent(
    name: str,
    resource: str,
    received: Field | bool | str | None,
    current: Field | bool | str | None,
) -> PreconditionFailed:
    """Return the refusal of a redeclaration that differs in the argument or property `name`.

    None stands for an absent argument; the side that is present is then shown with its type.
    """
    received_text = _compared_text(received, current is None)
    current_text = _compared_text(current, received is None)
    return PreconditionFailed(
        f"inequivalent arg '{name}' for {resource}: "
        f"received {received_text} but current is {current_text}"
    )


def _compared_text(value: Field | bool | str | None, with_type: bool) -> str:
    if isinstance(value, bool):
        return "'true'" if value else "'false'"
    if isinstance(value, str):
        return f"'{value}'"
    if value is None:
        return "none"
    if with_type:
        return f"the value '{_value_text(value)}' of type '{value.type_name}'"
    return "none" if value.value is None else f"'{_value_text(value)}'"


def check_property(name: str, resource: str, received: bool | str, current: bool | str) -> None:
    """Refuse a redeclaration whose `durable`, `auto_delete`, `type` or `internal` differs."""
    if received != current:
        raise inequivalent(name, resource, received, current)


def check_argument(name: str, resource: str, received: Table, current: Table) -> None:
    """Refuse a redeclaration in which the argument `name` differs from the `current` one."""
    received_field = received.get(name)
    current_field = current.get(name)
    if received_field is None and current_field is None:
        return
    if received_field is None or current_field is None or not _same(received_field, current_field):
        raise inequivalent(name, resource, received_field, current_field)


def _same(one: Field, other: Field) -> bool:
    """Tell whether two arguments are equal.

    Integers of any width are, and so are a string and a binary or an integer and a timestamp of
    the same value: RabbitMQ looks at types only where values could be taken for each other.
    """
    return type(one.value) is type(other.value) and one.comparable()[1] == other.comparable()[1]


# Exchanges.


def alternate_exchange(table: Table, exchange: str, vhost: str) -> str | None:
    """Return the `alternate-exchange` of an exchange to be created, None without one.

    Raises PreconditionFailed unless it is a string.
    """
    return exchange_argument(table, "alternate-exchange", exchange_resource(exchange, vhost))


def check_exchange_equivalent(current: Table, received: Table, exchange: str, vhost: str) -> None:
    """Refuse a redeclaration of an exchange whose known arguments differ.

    `alternate-exchange` is the only one; its type and flags are compared first, by
    `check_property`. Raises PreconditionFailed.
    """
    check_argument("alternate-exchange", exchange_resource(exchange, vhost), received, current)


# Consumers and messages.


class ConsumerArguments:
    """What basic.consume asked for beyond its fields.

    `priority` is the consumer's x-priority, 0 unless given. `consumer_timeout_ms` is how long one
    of its deliveries may stay unacknowledged, None for what applies to the queue.
    """

    __slots__ = ("consumer_timeout_ms", "priority")

    NONE: ClassVar["ConsumerArguments"]

    def __init__(self, priority: int, consumer_timeout_ms: int | None) -> None:
        self.priority: Final = priority
        self.consumer_timeout_ms: Final = consumer_timeout_ms


ConsumerArguments.NONE = ConsumerArguments(0, None)


def parse_consumer_arguments(
    table: Table, queue: str, vhost: str, queue_type: str
) -> ConsumerArguments:
    """Check and read the arguments of a basic.consume.

    Unknown ones are ignored. Raises PreconditionFailed for a bad value and for those of streams,
    first x-priority, then x-consumer-timeout of quorum queues, then in the order received.
    """
    if not table:
        return ConsumerArguments.NONE
    resource = queue_resource(queue, vhost)
    priority = table.get("x-priority")
    if priority is not None:
        error = check_integer(priority, table)
        if error is not None:
            raise invalid_argument("x-priority", resource, error)
    timeout = table.get("x-consumer-timeout")
    if timeout is not None and queue_type == QUORUM:
        error = check_non_negative(timeout, table)
        if error is not None:
            raise invalid_argument("x-consumer-timeout", resource, error)
    for name, _ in table.items():
        if name in _STREAM_CONSUMER_ARGUMENTS:
            raise foreign_argument(name, resource, queue_type)
    timeout_ms = integer(timeout)
    if timeout_ms is not None and timeout_ms < 0:
        timeout_ms = None
    return ConsumerArguments(integer(priority) or 0, timeout_ms)


def parse_expiration(expiration: bytes) -> int:
    """Return the `expiration` property of a message in milliseconds.

    A decimal integer and nothing else; a sign is allowed, a space is not. Raises
    PreconditionFailed for other texts and for values outside 0..EXPIRY_MAX_MS.
    """
    sign = 1 if expiration[:1] == b"+" or expiration[:1] == b"-" else 0
    leftover = expiration[sign:].lstrip(b"0123456789")
    error: str | None
    if len(leftover) == len(expiration) - sign:
        error = "no_integer"
    elif leftover:
        error = f"{{leftover_string,{string_term(leftover.decode('latin-1'))}}}"
    else:
        value_ms = int(expiration)
        error = expiry_error(value_ms)
        if error is None:
            return value_ms
    raise PreconditionFailed(f"invalid expiration '{decode_text(expiration)}': {error}")
