"""Arguments of queues: what is accepted, what is refused in which words, what is compared."""

import pytest

from broker.core.names import queue_resource
from broker.core.queue_arguments import (
    QueueArguments,
    check_queue_equivalent,
    dead_letter_exchange,
)
from broker.core.table import Field, Table
from broker.errors import PreconditionFailed

CLASSIC = ("x-queue-type", Field("S", b"classic"))
QUORUM = ("x-queue-type", Field("S", b"quorum"))
DLX = ("x-dead-letter-exchange", Field("S", b"dlx"))
BOTH = ("classic", "quorum")

Entry = tuple[str, Field]


def parse(
    *entries: Entry,
    durable: bool = True,
    exclusive: bool = False,
    auto_delete: bool = False,
    server_named: bool = False,
) -> QueueArguments:
    return QueueArguments.parse(
        Table.encode(list(entries)),
        queue="q",
        vhost="/",
        durable=durable,
        exclusive=exclusive,
        auto_delete=auto_delete,
        server_named=server_named,
    )


def refusal(*entries: Entry, durable: bool = True, server_named: bool = False) -> str:
    """Declare and return the text of the refusal."""
    with pytest.raises(PreconditionFailed) as refused:
        parse(*entries, durable=durable, server_named=server_named)
    return refused.value.text


def of_type(queue_type: str) -> Entry:
    return "x-queue-type", Field("S", queue_type.encode())


def string(value: str) -> Field:
    return Field("S", value.encode())


def number(value: int) -> Field:
    return Field("l", value)


# What is accepted.


# argument, types that accept it, field, attribute and what it then is
ACCEPTED = [
    ("x-expires", BOTH, number(1), "expires_ms", 1),
    ("x-expires", BOTH, number(315_360_000_000), "expires_ms", 315_360_000_000),
    ("x-message-ttl", BOTH, number(0), "message_ttl_ms", 0),
    ("x-message-ttl", BOTH, number(315_360_000_000), "message_ttl_ms", 315_360_000_000),
    ("x-dead-letter-exchange", BOTH, string("dlx"), "dead_letter_exchange", "dlx"),
    ("x-dead-letter-exchange", BOTH, string(""), "dead_letter_exchange", ""),
    (
        "x-dead-letter-strategy",
        ("quorum",),
        string("at-most-once"),
        "dead_letter_strategy",
        "at-most-once",
    ),
    (
        "x-dead-letter-strategy",
        ("quorum",),
        string("at-least-once"),
        "dead_letter_strategy",
        "at-least-once",
    ),
    ("x-max-length", BOTH, number(0), "max_length", 0),
    ("x-max-length", BOTH, number(2**63 - 1), "max_length", 2**63 - 1),
    ("x-max-length-bytes", BOTH, number(0), "max_length_bytes", 0),
    ("x-max-priority", ("classic",), number(0), "max_priority", 0),
    ("x-max-priority", ("classic",), number(255), "max_priority", 255),
    ("x-overflow", BOTH, string("drop-head"), "overflow", "drop-head"),
    ("x-overflow", BOTH, string("reject-publish"), "overflow", "reject-publish"),
    ("x-overflow", BOTH, string("reject-publish-dlx"), "overflow", "reject-publish-dlx"),
    ("x-single-active-consumer", BOTH, Field("t", True), "single_active_consumer", True),
    ("x-single-active-consumer", BOTH, Field("t", False), "single_active_consumer", False),
    ("x-delivery-limit", BOTH, number(3), "delivery_limit", 3),
    ("x-delivery-limit", BOTH, number(-1), "delivery_limit", -1),
    ("x-delivery-limit", BOTH, string("many"), "delivery_limit", None),
    ("x-consumer-timeout", BOTH, number(0), "consumer_timeout_ms", 0),
    ("x-consumer-timeout", BOTH, number(60_000), "consumer_timeout_ms", 60_000),
    ("x-consumer-timeout", ("classic",), number(-1), "consumer_timeout_ms", None),
    ("x-consumer-timeout", ("classic",), string("1h"), "consumer_timeout_ms", None),
    ("x-delayed-retry-type", BOTH, string("all"), "delayed_retry_type", "all"),
    ("x-delayed-retry-type", BOTH, string("failed"), "delayed_retry_type", "failed"),
    ("x-delayed-retry-type", BOTH, string("returned"), "delayed_retry_type", "returned"),
    ("x-delayed-retry-type", BOTH, string("disabled"), "delayed_retry_type", None),
    ("x-delayed-retry-type", BOTH, number(1), "delayed_retry_type", None),
    ("x-delayed-retry-min", BOTH, number(1000), "delayed_retry_min_ms", 1000),
    ("x-delayed-retry-min", BOTH, number(0), "delayed_retry_min_ms", None),
    ("x-delayed-retry-max", BOTH, number(60_000), "delayed_retry_max_ms", 60_000),
    ("x-delayed-retry-max", BOTH, string("1h"), "delayed_retry_max_ms", None),
    ("x-delayed-retry-backoff", BOTH, string("linear"), "delayed_retry_backoff", "linear"),
    ("x-message-deduplication", BOTH, Field("t", True), "message_deduplication", True),
    ("x-cache-size", BOTH, number(1000), "cache_size", 1000),
    ("x-cache-ttl", BOTH, number(500), "cache_ttl_ms", 500),
    ("x-cache-persistence", BOTH, string("memory"), "cache_persistence", "memory"),
]


@pytest.mark.parametrize(("name", "queue_types", "field", "attribute", "value"), ACCEPTED)
def test_accepted(
    name: str, queue_types: tuple[str, ...], field: Field, attribute: str, value: object
) -> None:
    """A valid value is accepted by every type that knows it, and read once."""
    for queue_type in queue_types:
        arguments = parse(of_type(queue_type), (name, field))

        assert getattr(arguments, attribute) == value


@pytest.mark.parametrize(
    ("name", "queue_types", "field"),
    [
        ("x-queue-mode", ("classic",), string("default")),
        ("x-queue-mode", ("classic",), string("lazy")),
        ("x-queue-version", ("classic",), number(1)),
        ("x-queue-version", ("classic",), number(2)),
        ("x-queue-master-locator", ("classic",), string("anything")),
        ("x-queue-leader-locator", BOTH, string("client-local")),
        ("x-queue-leader-locator", BOTH, string("balanced")),
        ("x-queue-leader-locator", BOTH, string("random")),
        ("x-queue-leader-locator", BOTH, string("least-leaders")),
        ("x-quorum-initial-group-size", ("quorum",), number(3)),
        ("x-max-in-memory-length", ("quorum",), number(0)),
        ("x-max-in-memory-bytes", ("quorum",), number(0)),
        ("x-consumer-disconnected-timeout", ("quorum",), number(0)),
        ("x-cancel-on-ha-failover", BOTH, Field("t", True)),
        ("x-foo", BOTH, Field("A", (number(1),))),
        ("foo", BOTH, Field("V", None)),
    ],
)
def test_accepted_without_effect(name: str, queue_types: tuple[str, ...], field: Field) -> None:
    """What has no effect on one node is accepted and kept, as is what nobody knows."""
    for queue_type in queue_types:
        arguments = parse(of_type(queue_type), (name, field))

        assert arguments.table.get(name) == field


@pytest.mark.parametrize("tag", "bBsuIilL")
def test_integers_of_any_width(tag: str) -> None:
    """The width an integer was sent in does not matter."""
    assert parse(("x-max-length", Field(tag, 7))).max_length == 7


def test_no_arguments() -> None:
    """A queue without arguments is classic and has no limits; all such queues share an object."""
    arguments = parse()

    assert arguments is QueueArguments.EMPTY
    assert arguments.queue_type == "classic"
    assert arguments.single_active_consumer is False
    assert arguments.max_length is None
    assert arguments.table == Table.EMPTY


def test_queue_types() -> None:
    """Classic and quorum queues can be declared."""
    assert parse(CLASSIC).queue_type == "classic"
    assert parse(QUORUM).queue_type == "quorum"


def test_dead_letter_routing_key() -> None:
    """A routing key for dead letters goes with an exchange for them, and may be empty or long."""
    for key in ("", "k", "k" * 255):
        assert parse(DLX, ("x-dead-letter-routing-key", string(key))).dead_letter_routing_key == key


def test_names_that_are_not_utf_8() -> None:
    """Octets of names survive, whatever they are."""
    arguments = parse(
        ("x-dead-letter-exchange", Field("S", b"\xff")),
        ("x-dead-letter-routing-key", Field("S", b"\xfe")),
    )

    assert arguments.dead_letter_exchange == "\udcff"
    assert arguments.dead_letter_routing_key == "\udcfe"


def test_first_of_repeated_names_counts() -> None:
    """Of two arguments with the same name, the first is read."""
    arguments = parse(("x-max-length", number(1)), ("x-max-length", number(-2)))

    assert arguments.max_length == 1


def test_dead_letter_exchange_for_the_permission_check() -> None:
    """The dead letter exchange can be had before anything else is checked."""
    bad_type = ("x-queue-type", string("foo"))

    assert dead_letter_exchange(Table.encode([bad_type, DLX]), "q", "/") == "dlx"
    assert dead_letter_exchange(Table.encode([bad_type]), "q", "/") is None


# What is refused.


# argument, types that know it, field, the error
REFUSED = [
    ("x-expires", BOTH, number(0), "{value_zero,0}"),
    ("x-expires", BOTH, number(-1), "{value_negative,-1}"),
    ("x-expires", BOTH, number(315_360_000_001), "{value_too_large,315360000001}"),
    ("x-expires", BOTH, string("5"), '"expected integer, got longstr"'),
    ("x-message-ttl", BOTH, number(-1), "{value_negative,-1}"),
    ("x-message-ttl", BOTH, number(315_360_000_001), "{value_too_large,315360000001}"),
    ("x-message-ttl", BOTH, Field("d", 5.0), '"expected integer, got double"'),
    ("x-message-ttl", BOTH, Field("f", 5.0), '"expected integer, got float"'),
    ("x-message-ttl", BOTH, Field("T", 5), '"expected integer, got timestamp"'),
    ("x-message-ttl", BOTH, Field("D", (0, 5)), '"expected integer, got decimal"'),
    ("x-message-ttl", BOTH, Field("t", True), '"expected integer, got bool"'),
    ("x-message-ttl", BOTH, Field("V", None), '"expected integer, got void"'),
    ("x-message-ttl", BOTH, Field("x", b"5"), '"expected integer, got binary"'),
    ("x-message-ttl", BOTH, Field("F", Table.EMPTY), '"expected integer, got table"'),
    ("x-message-ttl", BOTH, Field("A", ()), '"expected integer, got array"'),
    ("x-dead-letter-routing-key", BOTH, string("k"), "routing_key_but_no_dlx_defined"),
    ("x-dead-letter-routing-key", BOTH, number(1), "{unacceptable_type,long}"),
    ("x-dead-letter-routing-key", BOTH, Field("x", b"k"), "{unacceptable_type,binary}"),
    ("x-dead-letter-strategy", ("quorum",), string("foo"), "invalid_dlx_strategy"),
    ("x-dead-letter-strategy", ("quorum",), number(1), "{unacceptable_type,long}"),
    ("x-max-length", BOTH, number(-1), "{value_negative,-1}"),
    ("x-max-length", BOTH, string("10"), '"expected integer, got longstr"'),
    ("x-max-length-bytes", BOTH, number(-1), "{value_negative,-1}"),
    ("x-max-length-bytes", BOTH, Field("t", True), '"expected integer, got bool"'),
    ("x-max-in-memory-length", ("quorum",), number(-1), "{value_negative,-1}"),
    ("x-max-in-memory-bytes", ("quorum",), number(-1), "{value_negative,-1}"),
    ("x-max-priority", ("classic",), number(256), "{max_value_exceeded,256}"),
    ("x-max-priority", ("classic",), number(-1), "{value_negative,-1}"),
    ("x-max-priority", ("classic",), string("5"), '"expected integer, got longstr"'),
    ("x-overflow", BOTH, string("foo"), "invalid_overflow"),
    ("x-overflow", BOTH, Field("I", 1), "{unacceptable_type,signedint}"),
    ("x-overflow", BOTH, Field("x", b"drop-head"), "{unacceptable_type,binary}"),
    ("x-queue-mode", ("classic",), string("foo"), "\"unsupported queue mode 'foo'\""),
    ("x-queue-mode", ("classic",), string('"\\'), '"unsupported queue mode \'\\"\\\\\'"'),
    ("x-queue-mode", ("classic",), number(1), "{unacceptable_type,long}"),
    ("x-queue-version", ("classic",), number(3), "\"unsupported queue version '3'\""),
    ("x-queue-version", ("classic",), number(0), "\"unsupported queue version '0'\""),
    ("x-queue-version", ("classic",), number(-1), "{value_negative,-1}"),
    ("x-queue-version", ("classic",), string("2"), '"expected integer, got longstr"'),
    ("x-queue-leader-locator", BOTH, string("min-masters"), "invalid_queue_locator_arg"),
    ("x-queue-leader-locator", BOTH, number(1), "{unacceptable_type,long}"),
    ("x-single-active-consumer", BOTH, Field("I", 1), "{unacceptable_type,signedint}"),
    ("x-single-active-consumer", BOTH, string("true"), "{unacceptable_type,longstr}"),
    ("x-quorum-initial-group-size", ("quorum",), number(0), "{value_zero,0}"),
    ("x-quorum-initial-group-size", ("quorum",), number(-1), "{value_negative,-1}"),
    ("x-consumer-timeout", ("quorum",), number(-1), "{value_negative,-1}"),
    ("x-consumer-timeout", ("quorum",), string("1h"), '"expected integer, got longstr"'),
    ("x-consumer-disconnected-timeout", ("quorum",), number(-1), "{value_negative,-1}"),
    ("x-delayed-retry-backoff", BOTH, string("foo"), "invalid_delayed_retry_backoff"),
    ("x-message-deduplication", BOTH, number(1), "{unacceptable_type,long}"),
    ("x-cache-size", BOTH, number(0), "{value_zero,0}"),
    ("x-cache-ttl", BOTH, string("1h"), '"expected integer, got longstr"'),
    ("x-cache-persistence", BOTH, number(1), "{unacceptable_type,long}"),
]


@pytest.mark.parametrize(("name", "queue_types", "field", "error"), REFUSED)
def test_refused(name: str, queue_types: tuple[str, ...], field: Field, error: str) -> None:
    """A bad value is refused by every type that knows the argument, with RabbitMQ's error."""
    for queue_type in queue_types:
        text = refusal(of_type(queue_type), (name, field))

        assert text == f"invalid arg '{name}' for queue 'q' in vhost '/': {error}"


@pytest.mark.parametrize(
    ("field", "error"),
    [
        (string("foo"), "\"unsupported queue type 'foo'\""),
        (string("stream"), "\"unsupported queue type 'stream'\""),
        (string("Quorum"), "\"unsupported queue type 'Quorum'\""),
        (string(""), "\"unsupported queue type ''\""),
        (Field("I", 1), "{unacceptable_type,signedint}"),
        (Field("x", b"quorum"), "{unacceptable_type,binary}"),
        (Field("S", b"\xff"), "\"unsupported queue type 'ÿ'\""),
    ],
)
def test_refused_queue_type(field: Field, error: str) -> None:
    """A type that cannot be declared is refused; streams are among them."""
    text = refusal(("x-queue-type", field))

    assert text == f"invalid arg 'x-queue-type' for queue 'q' in vhost '/': {error}"


def test_routing_key_too_long_to_be_sent() -> None:
    """A routing key that would not fit a delivery is refused before it can do harm."""
    text = refusal(DLX, ("x-dead-letter-routing-key", string("k" * 256)))

    assert text == (
        "invalid arg 'x-dead-letter-routing-key' for queue 'q' in vhost '/': {value_too_long,256}"
    )


@pytest.mark.parametrize(
    ("field", "type_name"),
    [
        (Field("I", 1), "signedint"),
        (Field("x", b"dlx"), "binary"),
        (Field("V", None), "void"),
        (Field("F", Table.EMPTY), "table"),
    ],
)
def test_dead_letter_exchange_of_another_type(field: Field, type_name: str) -> None:
    """A dead letter exchange that is not a string is refused in words of its own."""
    text = refusal(("x-dead-letter-exchange", field))

    assert text == (
        f"invalid type '{type_name}' for arg 'x-dead-letter-exchange' in queue 'q' in vhost '/'"
    )


FOREIGN = [
    *[
        ("classic", name)
        for name in (
            "x-dead-letter-strategy",
            "x-quorum-initial-group-size",
            "x-max-in-memory-length",
            "x-max-in-memory-bytes",
            "x-consumer-disconnected-timeout",
        )
    ],
    *[
        ("quorum", name)
        for name in (
            "x-max-priority",
            "x-queue-mode",
            "x-queue-version",
            "x-queue-master-locator",
        )
    ],
    *[
        (queue_type, name)
        for queue_type in BOTH
        for name in (
            "x-max-age",
            "x-stream-max-segment-size-bytes",
            "x-stream-filter-size-bytes",
            "x-initial-cluster-size",
        )
    ],
]


@pytest.mark.parametrize(("queue_type", "name"), FOREIGN)
def test_argument_of_another_type_of_queue(queue_type: str, name: str) -> None:
    """An argument that only other types know is refused, whatever its value."""
    for field in (number(1), Field("V", None)):
        text = refusal(of_type(queue_type), (name, field))

        assert text == (
            f"invalid arg '{name}' for queue 'q' in vhost '/' "
            f"of queue type rabbit_{queue_type}_queue"
        )


# The order of refusal.


def test_dead_letter_exchange_is_looked_at_first() -> None:
    """The type of the dead letter exchange is refused before the type of the queue."""
    text = refusal(("x-queue-type", string("foo")), ("x-dead-letter-exchange", number(1)))

    assert text.startswith("invalid type 'long' for arg 'x-dead-letter-exchange'")


def test_queue_type_precedes_other_arguments() -> None:
    """An unsupported type of queue is refused before the values of its arguments."""
    text = refusal(("x-expires", number(0)), ("x-queue-type", string("foo")))

    assert text.startswith("invalid arg 'x-queue-type'")


def test_values_are_checked_in_the_order_of_the_rules() -> None:
    """The order in which arguments were sent does not decide which is refused."""
    in_order: list[Entry] = [
        ("x-expires", number(0)),
        ("x-message-ttl", number(-1)),
        ("x-dead-letter-routing-key", string("k")),
        ("x-max-length", number(-1)),
        ("x-max-length-bytes", number(-1)),
        ("x-max-priority", number(256)),
        ("x-overflow", string("foo")),
        ("x-queue-mode", string("foo")),
        ("x-queue-version", number(3)),
        ("x-single-active-consumer", number(1)),
        ("x-queue-leader-locator", string("foo")),
    ]
    while in_order:
        text = refusal(*reversed(in_order))

        assert text.startswith(f"invalid arg '{in_order[0][0]}' for queue 'q' in vhost '/': ")
        in_order.pop(0)


def test_values_are_checked_before_foreign_arguments() -> None:
    """A bad value is refused before an argument that the type does not know."""
    text = refusal(("x-max-age", string("1D")), ("x-max-length", number(-1)))

    assert text.startswith("invalid arg 'x-max-length'")


def test_foreign_arguments_are_refused_in_the_order_received() -> None:
    """Of several arguments of other types, the first received is named."""
    first, second = ("x-max-age", string("1D")), ("x-dead-letter-strategy", number(1))

    assert refusal(first, second).startswith("invalid arg 'x-max-age'")
    assert refusal(second, first).startswith("invalid arg 'x-dead-letter-strategy'")


@pytest.mark.parametrize(
    ("durable", "exclusive", "auto_delete", "named"),
    [
        (False, False, False, "non-durable"),
        (False, True, False, "exclusive-owner"),
        (True, True, False, "exclusive-owner"),
        (True, False, True, "auto-delete"),
        (False, True, True, "auto-delete"),
    ],
)
def test_properties_of_quorum_queues(
    durable: bool, exclusive: bool, auto_delete: bool, named: str
) -> None:
    """Quorum queues are durable, shared and permanent; what is refused first is auto-delete."""
    with pytest.raises(PreconditionFailed) as refused:
        parse(QUORUM, durable=durable, exclusive=exclusive, auto_delete=auto_delete)

    assert refused.value.text == f"invalid property '{named}' for queue 'q' in vhost '/'"


def test_properties_come_last() -> None:
    """Arguments are refused before the properties that quorum queues cannot have."""
    text = refusal(QUORUM, ("x-max-priority", number(1)), durable=False)

    assert text.startswith("invalid arg 'x-max-priority'")


def test_classic_queues_may_have_any_properties() -> None:
    """Classic queues may be transient, exclusive and auto-delete."""
    arguments = parse(CLASSIC, durable=False, exclusive=True, auto_delete=True)

    assert arguments.queue_type == "classic"


def test_server_named_quorum_queue() -> None:
    """Only classic queues can be named by the server; that is refused before anything else."""
    bad_exchange = ("x-dead-letter-exchange", number(1))
    text = refusal(QUORUM, bad_exchange, server_named=True)

    assert text == "Cannot declare a server-named queue for type rabbit_quorum_queue"
    assert refusal(of_type("stream"), server_named=True) == (
        "Cannot declare a server-named queue for type rabbit_stream_queue"
    )
    assert parse(CLASSIC, server_named=True).queue_type == "classic"


# Redeclaration.


def redeclare(current: list[Entry], received: list[Entry]) -> None:
    check_queue_equivalent(parse(*current), Table.encode(received), queue_resource("q", "/"))


def difference(current: list[Entry], received: list[Entry]) -> str:
    """Declare twice and return what the text of the refusal says after the queue's name."""
    with pytest.raises(PreconditionFailed) as refused:
        redeclare(current, received)
    return refused.value.text.replace(" for queue 'q' in vhost '/'", "")


@pytest.mark.parametrize(
    ("current", "received"),
    [
        ([], []),
        ([CLASSIC], []),
        ([], [CLASSIC]),
        ([("x-message-ttl", Field("I", 5))], [("x-message-ttl", Field("l", 5))]),
        ([DLX, ("x-max-length", number(1))], [("x-max-length", number(1)), DLX]),
        ([("x-foo", number(1))], []),
        ([], [("x-foo", number(1))]),
        ([], [("x-max-age", string("1D"))]),
        ([("x-consumer-timeout", number(1))], [("x-consumer-timeout", number(2))]),
        ([QUORUM], [QUORUM, ("x-max-priority", number(1))]),
    ],
)
def test_equivalent(current: list[Entry], received: list[Entry]) -> None:
    """Order, widths and arguments that the type does not know make no difference."""
    redeclare(current, received)


@pytest.mark.parametrize(
    ("current", "received", "text"),
    [
        (
            [("x-message-ttl", number(5000))],
            [("x-message-ttl", number(6000))],
            "inequivalent arg 'x-message-ttl': received '6000' but current is '5000'",
        ),
        (
            [],
            [("x-message-ttl", Field("I", 5))],
            "inequivalent arg 'x-message-ttl': "
            "received the value '5' of type 'signedint' but current is none",
        ),
        (
            [QUORUM],
            [],
            "inequivalent arg 'x-queue-type': "
            "received none but current is the value 'quorum' of type 'longstr'",
        ),
        (
            [QUORUM],
            [CLASSIC],
            "inequivalent arg 'x-queue-type': received 'classic' but current is 'quorum'",
        ),
        (
            [CLASSIC],
            [QUORUM],
            "inequivalent arg 'x-queue-type': received 'quorum' but current is 'classic'",
        ),
        (
            [],
            [QUORUM],
            "inequivalent arg 'x-queue-type': "
            "received the value 'quorum' of type 'longstr' but current is none",
        ),
        (
            [],
            [("x-queue-type", string("foo"))],
            "inequivalent arg 'x-queue-type': "
            "received the value 'foo' of type 'longstr' but current is none",
        ),
        (
            [],
            [("x-single-active-consumer", Field("t", False))],
            "inequivalent arg 'x-single-active-consumer': "
            "received the value 'false' of type 'bool' but current is none",
        ),
        (
            [("x-delivery-limit", number(3))],
            [],
            "inequivalent arg 'x-delivery-limit': "
            "received none but current is the value '3' of type 'long'",
        ),
        (
            [QUORUM, ("x-consumer-timeout", number(1))],
            [QUORUM, ("x-consumer-timeout", number(2))],
            "inequivalent arg 'x-consumer-timeout': received '2' but current is '1'",
        ),
        (
            [("x-message-ttl", number(5))],
            [("x-message-ttl", string("5"))],
            "inequivalent arg 'x-message-ttl': received '5' but current is '5'",
        ),
    ],
)
def test_inequivalent(current: list[Entry], received: list[Entry], text: str) -> None:
    """A known argument that differs is refused with both values."""
    assert difference(current, received) == text


def test_first_difference_is_named() -> None:
    """Of several differences the first in the order of comparison is named."""
    received: list[Entry] = [("x-max-length", number(1)), ("x-expires", number(1))]

    assert difference([], received).startswith("inequivalent arg 'x-expires'")


def test_type_of_queue_is_named_before_times_to_live() -> None:
    """A quorum queue declared again as a plain one with a TTL differs in its type first."""
    received: list[Entry] = [("x-message-ttl", number(1))]

    assert difference([QUORUM], received).startswith("inequivalent arg 'x-queue-type'")
