"""The x-arguments of queues: which there are, what they accept, and which type of queue knows them.

`RULES` declares each argument once, in the order of checking. A type of queue *knows* an argument
when it acts on it, or when RabbitMQ's queue of that type does; the others refuse it, because a
setting silently without effect costs somebody a night. An argument that no type knows is accepted,
kept and shown, since applications put their own marks there.

Where RabbitMQ's versions differ, whatever one of them accepts is accepted: x-consumer-timeout on
classic queues and x-queue-version 1 from 3.13, x-queue-leader-locator on classic queues from 4.0.
"""

from typing import Final

from broker.core.arguments import (
    CLASSIC,
    QUORUM,
    STREAM,
    Check,
    check_integer,
    check_non_negative,
    check_positive,
    decode_text,
    expiry_error,
    integer,
    string_term,
    text,
)
from broker.core.table import Field, Table

#: Priorities are one octet in a message.
MAX_PRIORITY: Final = 255
#: A routing key travels as a short string.
ROUTING_KEY_BYTES_MAX: Final = 255

#: Values of x-delayed-retry-backoff: how the wait grows with each delivery.
DELAYED_RETRY_BACKOFFS: Final = ("constant", "linear", "exponential")


class Rule:
    """One argument: its name, the types of queue that know it, and the check of its value.

    Without a check every value is accepted. The types in `tolerated_by` do not refuse the argument,
    but neither check it nor compare it on redeclaration. Quorum queues compare it only after the
    argument `quorum_after`.
    """

    __slots__ = ("check", "known_to", "name", "quorum_after", "tolerated_by")

    def __init__(
        self,
        name: str,
        known_to: tuple[str, ...],
        check: Check | None = None,
        tolerated_by: tuple[str, ...] = (),
        quorum_after: str = "",
    ) -> None:
        self.name: Final = name
        self.known_to: Final = known_to
        self.check: Final = check
        self.tolerated_by: Final = tolerated_by
        self.quorum_after: Final = quorum_after


# Checks, in the order of the rules.


def _check_expires(field: Field, table: Table) -> str | None:
    return "{value_zero,0}" if integer(field) == 0 else _check_expiry(field, table)


def _check_expiry(field: Field, table: Table) -> str | None:
    value_ms = integer(field)
    return check_integer(field, table) if value_ms is None else expiry_error(value_ms)


def _check_text(field: Field, table: Table) -> str | None:
    return None if field.tag == "S" else f"{{unacceptable_type,{field.type_name}}}"


def _check_dead_letter_routing_key(field: Field, table: Table) -> str | None:
    error = _check_text(field, table)
    if error is not None:
        return error
    if table.get("x-dead-letter-exchange") is None:
        return "routing_key_but_no_dlx_defined"
    # RabbitMQ accepts a longer one, and then fails every connection that receives a dead letter.
    if isinstance(field.value, bytes) and len(field.value) > ROUTING_KEY_BYTES_MAX:
        return f"{{value_too_long,{len(field.value)}}}"
    return None


def _check_choice(field: Field, choices: tuple[str, ...], error: str) -> str | None:
    if field.tag == "S":
        return None if text(field) in choices else error
    return f"{{unacceptable_type,{field.type_name}}}"


def _check_dead_letter_strategy(field: Field, table: Table) -> str | None:
    return _check_choice(field, ("at-most-once", "at-least-once"), "invalid_dlx_strategy")


def _check_max_priority(field: Field, table: Table) -> str | None:
    value = integer(field)
    if value is not None and value > MAX_PRIORITY:
        return f"{{max_value_exceeded,{value}}}"
    return check_non_negative(field, table)


def _check_overflow(field: Field, table: Table) -> str | None:
    choices = ("drop-head", "reject-publish", "reject-publish-dlx")
    return _check_choice(field, choices, "invalid_overflow")


def _check_queue_mode(field: Field, table: Table) -> str | None:
    return _check_choice(field, ("default", "lazy"), _unsupported("mode", field))


def _check_queue_version(field: Field, table: Table) -> str | None:
    value = integer(field)
    if value is None or value < 0:
        return check_non_negative(field, table)
    return None if value in (1, 2) else string_term(f"unsupported queue version '{value}'")


def _check_flag(field: Field, table: Table) -> str | None:
    return None if field.tag == "t" else f"{{unacceptable_type,{field.type_name}}}"


def check_queue_type(field: Field, table: Table) -> str | None:
    """Accept the types of queue that can be declared."""
    return _check_choice(field, (CLASSIC, QUORUM), _unsupported("type", field))


def _check_leader_locator(field: Field, table: Table) -> str | None:
    choices = ("client-local", "balanced", "random", "least-leaders")
    return _check_choice(field, choices, "invalid_queue_locator_arg")


def _check_delayed_retry_backoff(field: Field, table: Table) -> str | None:
    return _check_choice(field, DELAYED_RETRY_BACKOFFS, "invalid_delayed_retry_backoff")


def _unsupported(what: str, field: Field) -> str:
    value = field.value
    shown = decode_text(value) if isinstance(value, bytes) else ""
    return string_term(f"unsupported queue {what} '{shown}'")


_ALL: Final = (CLASSIC, QUORUM, STREAM)
_CLASSIC_AND_QUORUM: Final = (CLASSIC, QUORUM)

RULES: Final[tuple[Rule, ...]] = (
    Rule("x-expires", _CLASSIC_AND_QUORUM, _check_expires, quorum_after="x-dead-letter-strategy"),
    Rule("x-message-ttl", _CLASSIC_AND_QUORUM, _check_expiry, quorum_after="x-delivery-limit"),
    # Checked before the others, by `dead_letter_exchange`.
    Rule("x-dead-letter-exchange", _CLASSIC_AND_QUORUM),
    Rule("x-dead-letter-routing-key", _CLASSIC_AND_QUORUM, _check_dead_letter_routing_key),
    Rule("x-dead-letter-strategy", (QUORUM,), _check_dead_letter_strategy),
    Rule("x-max-length", _CLASSIC_AND_QUORUM, check_non_negative),
    Rule("x-max-length-bytes", _ALL, check_non_negative),
    Rule("x-max-in-memory-length", (QUORUM,), check_non_negative),
    Rule("x-max-in-memory-bytes", (QUORUM,), check_non_negative),
    Rule("x-max-priority", (CLASSIC,), _check_max_priority),
    Rule("x-overflow", _CLASSIC_AND_QUORUM, _check_overflow),
    Rule("x-queue-mode", (CLASSIC,), _check_queue_mode),
    Rule("x-queue-version", (CLASSIC,), _check_queue_version),
    Rule("x-single-active-consumer", _CLASSIC_AND_QUORUM, _check_flag),
    Rule(
        "x-consumer-timeout",
        (QUORUM,),
        check_non_negative,
        tolerated_by=(CLASSIC,),
        quorum_after="x-queue-leader-locator",
    ),
    Rule(
        "x-consumer-disconnected-timeout",
        (QUORUM,),
        check_non_negative,
        quorum_after="x-queue-leader-locator",
    ),
    Rule("x-queue-type", _ALL, check_queue_type),
    Rule("x-quorum-initial-group-size", (QUORUM,), check_positive),
    Rule("x-max-age", (STREAM,)),
    Rule("x-stream-max-segment-size-bytes", (STREAM,)),
    Rule("x-stream-filter-size-bytes", (STREAM,)),
    Rule("x-initial-cluster-size", (STREAM,)),
    # RabbitMQ does not check this one: what it cannot use means no limit.
    Rule("x-delivery-limit", _CLASSIC_AND_QUORUM),
    Rule("x-queue-master-locator", (CLASSIC,)),
    Rule("x-queue-leader-locator", _ALL, _check_leader_locator),
    # Nor these: what it cannot use means no delay.
    Rule("x-delayed-retry-type", _CLASSIC_AND_QUORUM),
    Rule("x-delayed-retry-min", _CLASSIC_AND_QUORUM),
    Rule("x-delayed-retry-max", _CLASSIC_AND_QUORUM),
    # Not RabbitMQ's own: ours, and those of its deduplication plugin.
    Rule("x-delayed-retry-backoff", _CLASSIC_AND_QUORUM, _check_delayed_retry_backoff),
    Rule("x-message-deduplication", _CLASSIC_AND_QUORUM, _check_flag),
    Rule("x-cache-size", _CLASSIC_AND_QUORUM, check_positive),
    Rule("x-cache-ttl", _CLASSIC_AND_QUORUM, check_positive),
    Rule("x-cache-persistence", _CLASSIC_AND_QUORUM, _check_text),
)


def _known_to(queue_type: str) -> tuple[Rule, ...]:
    return tuple([rule for rule in RULES if queue_type in rule.known_to])


def _compared_by_quorum() -> tuple[Rule, ...]:
    order = [rule for rule in _known_to(QUORUM) if not rule.quorum_after]
    for rule in _known_to(QUORUM):
        if rule.quorum_after:
            names = [each.name for each in order]
            order.insert(names.index(rule.quorum_after) + 1, rule)
    return tuple(order)


def _refused_by(queue_type: str) -> frozenset[str]:
    return frozenset(
        [rule.name for rule in RULES if queue_type not in rule.known_to + rule.tolerated_by]
    )


#: Type of queue -> the rules of the arguments it knows, as they are checked.
CHECKED: Final = {CLASSIC: _known_to(CLASSIC), QUORUM: _known_to(QUORUM)}
#: Type of queue -> the same rules as they are compared.
COMPARED: Final = {CLASSIC: _known_to(CLASSIC), QUORUM: _compared_by_quorum()}
#: Type of queue -> the names of the arguments it refuses.
REFUSED: Final = {CLASSIC: _refused_by(CLASSIC), QUORUM: _refused_by(QUORUM)}
