"""Comparison and checks that queues, exchanges and consumers share, with RabbitMQ's texts."""

import pytest

from broker.core.arguments import (
    ConsumerArguments,
    alternate_exchange,
    check_argument,
    check_exchange_equivalent,
    check_property,
    decode_text,
    inequivalent,
    parse_consumer_arguments,
    parse_expiration,
    string_term,
)
from broker.core.table import Field, Table
from broker.errors import PreconditionFailed

ABSENT = Table.EMPTY


def table(**fields: Field) -> Table:
    return Table.encode([(name.replace("_", "-"), field) for name, field in fields.items()])


# Texts.


@pytest.mark.parametrize(
    ("text", "term"),
    [
        ("plain text", '"plain text"'),
        ("", '""'),
        ("é", '"é"'),
        ('say "a\\b"', '"say \\"a\\\\b\\""'),
        ("\b\t\n\v\f\r\x1b", '"\\b\\t\\n\\v\\f\\r\\e"'),
        ("5日", "[53,26085]"),
        ("a\x01", "[97,1]"),
        ("\x7f", "[127]"),
        ("\x85", "[133]"),
    ],
)
def test_string_term(text: str, term: str) -> None:
    """A string is quoted and escaped if Latin-1 can print it, and a list of numbers if not."""
    assert string_term(text) == term


def test_decode_text() -> None:
    """Octets that are not UTF-8 are shown as Latin-1, so that every text can be encoded."""
    assert decode_text("é".encode()) == "é"
    assert decode_text(b"\xff\xfe") == "ÿþ"


# Comparison.


SAME = [
    *[(Field("I", 10), Field(tag, 10)) for tag in "bBsuIilL"],
    (Field("l", -1), Field("b", -1)),
    (Field("d", 0.5), Field("f", 0.5)),
    (Field("D", (1, 5)), Field("D", (1, 5))),
    (Field("S", b"a"), Field("S", b"a")),
    (Field("S", b"a"), Field("x", b"a")),
    (Field("I", 5), Field("T", 5)),
    (Field("t", True), Field("t", True)),
    (Field("V", None), Field("V", None)),
    (Field("A", (Field("l", 1),)), Field("A", (Field("L", 1),))),
    (Field("F", Table.from_python({"a": 1})), Field("F", Table.from_python({"a": 1}))),
]


@pytest.mark.parametrize(("current", "received"), SAME)
def test_same_argument(current: Field, received: Field) -> None:
    """The width of a number and the kind of string do not matter."""
    check_argument("x-a", "queue 'q' in vhost '/'", table(x_a=received), table(x_a=current))
    check_argument("x-a", "queue 'q' in vhost '/'", table(x_a=current), table(x_a=received))


DIFFERENT = [
    # current, received, the end of the text
    (Field("I", 5000), Field("I", 6000), "received '6000' but current is '5000'"),
    (Field("S", b"quorum"), Field("S", b"classic"), "received 'classic' but current is 'quorum'"),
    (Field("t", True), Field("t", False), "received 'false' but current is 'true'"),
    (Field("I", 1), Field("t", True), "received 'true' but current is '1'"),
    (Field("I", 5), Field("S", b"5"), "received '5' but current is '5'"),
    (Field("I", 5), Field("d", 5.0), "received '5.0' but current is '5'"),
    (Field("I", 5), Field("d", 1e22), "received '1.0e22' but current is '5'"),
    (Field("S", b"a"), Field("S", "é日".encode()), "received 'é日' but current is 'a'"),
    (Field("S", b"a"), Field("V", None), "received none but current is 'a'"),
    (Field("S", b"a"), Field("A", ()), "received '[]' but current is 'a'"),
    (
        Field("S", b"a"),
        Field("A", (Field("S", b"q"), Field("I", 1))),
        "received '[{longstr,<<\"q\">>},{signedint,1}]' but current is 'a'",
    ),
    (
        Field("A", (Field("I", 1),)),
        Field("A", (Field("l", 1),)),
        "received '[{long,1}]' but current is '[{signedint,1}]'",
    ),
    (
        None,
        Field("I", 5),
        "received the value '5' of type 'signedint' but current is none",
    ),
    (
        Field("S", b"quorum"),
        None,
        "received none but current is the value 'quorum' of type 'longstr'",
    ),
    (None, Field("L", 1), "received the value '1' of type 'long' but current is none"),
    (None, Field("t", False), "received the value 'false' of type 'bool' but current is none"),
    (None, Field("V", None), "received the value 'undefined' of type 'void' but current is none"),
    (None, Field("D", (1, 5)), "received the value '{1,5}' of type 'decimal' but current is none"),
]


@pytest.mark.parametrize(("current", "received", "ending"), DIFFERENT)
def test_different_argument(current: Field | None, received: Field | None, ending: str) -> None:
    """A different value is shown bare, one that only one side has is shown with its type."""
    received_table = ABSENT if received is None else table(x_a=received)
    current_table = ABSENT if current is None else table(x_a=current)
    with pytest.raises(PreconditionFailed) as refusal:
        check_argument("x-a", "queue 'q' in vhost '/'", received_table, current_table)

    assert refusal.value.text == f"inequivalent arg 'x-a' for queue 'q' in vhost '/': {ending}"


def test_argument_absent_on_both_sides() -> None:
    """What neither side has is equal."""
    check_argument("x-a", "queue 'q' in vhost '/'", ABSENT, ABSENT)


def test_first_of_repeated_names_counts() -> None:
    """Of two arguments with the same name, the first is the one compared."""
    twice = Table.encode([("x-a", Field("I", 1)), ("x-a", Field("I", 2))])
    check_argument("x-a", "queue 'q' in vhost '/'", table(x_a=Field("I", 1)), twice)
    with pytest.raises(PreconditionFailed, match="received '2' but current is '1'"):
        check_argument("x-a", "queue 'q' in vhost '/'", table(x_a=Field("I", 2)), twice)


@pytest.mark.parametrize(
    ("name", "received", "current", "ending"),
    [
        ("durable", True, False, "received 'true' but current is 'false'"),
        ("auto_delete", False, True, "received 'false' but current is 'true'"),
        ("type", "topic", "direct", "received 'topic' but current is 'direct'"),
    ],
)
def test_different_property(
    name: str, received: bool | str, current: bool | str, ending: str
) -> None:
    """Types and flags of a declaration are refused in the words used for arguments."""
    resource = "exchange 'x' in vhost '/'"
    check_property(name, resource, current, current)
    with pytest.raises(PreconditionFailed) as refusal:
        check_property(name, resource, received, current)

    assert refusal.value.text == f"inequivalent arg '{name}' for {resource}: {ending}"
    assert inequivalent(name, resource, received, current).text == refusal.value.text


# Exchanges.


@pytest.mark.parametrize(
    ("arguments", "exchange"),
    [
        (ABSENT, None),
        (table(alternate_exchange=Field("S", b"ae")), "ae"),
        (table(alternate_exchange=Field("S", b"")), ""),
        (table(alternate_exchange=Field("S", b"\xff")), "\udcff"),
        (table(other=Field("I", 1)), None),
    ],
)
def test_alternate_exchange(arguments: Table, exchange: str | None) -> None:
    """The alternate exchange is a name; the empty one is a name too."""
    assert alternate_exchange(arguments, "x", "/") == exchange


@pytest.mark.parametrize(
    ("field", "type_name"),
    [
        (Field("I", 1), "signedint"),
        (Field("x", b"ae"), "binary"),
        (Field("V", None), "void"),
        (Field("t", True), "bool"),
    ],
)
def test_alternate_exchange_of_another_type(field: Field, type_name: str) -> None:
    """An alternate exchange that is not a string is refused when the exchange is created."""
    with pytest.raises(PreconditionFailed) as refusal:
        alternate_exchange(table(alternate_exchange=field), "x", "/")

    assert refusal.value.text == (
        f"invalid type '{type_name}' for arg 'alternate-exchange' in exchange 'x' in vhost '/'"
    )


def test_exchange_equivalent() -> None:
    """Only the alternate exchange is compared when an exchange is declared again."""
    current = table(alternate_exchange=Field("S", b"a"), other=Field("I", 1))
    check_exchange_equivalent(current, table(alternate_exchange=Field("S", b"a")), "x", "/")
    with pytest.raises(PreconditionFailed) as refusal:
        check_exchange_equivalent(current, table(alternate_exchange=Field("S", b"b")), "x", "/")

    assert refusal.value.text == (
        "inequivalent arg 'alternate-exchange' for exchange 'x' in vhost '/': "
        "received 'b' but current is 'a'"
    )


def test_exchange_equivalence_does_not_check() -> None:
    """A value that could not be declared is merely different from the current one."""
    with pytest.raises(PreconditionFailed) as refusal:
        check_exchange_equivalent(ABSENT, table(alternate_exchange=Field("I", 1)), "x", "/")

    assert refusal.value.text == (
        "inequivalent arg 'alternate-exchange' for exchange 'x' in vhost '/': "
        "received the value '1' of type 'signedint' but current is none"
    )


# Consumers.


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
@pytest.mark.parametrize(
    ("arguments", "priority", "timeout_ms"),
    [
        (ABSENT, 0, None),
        (table(x_priority=Field("I", 7)), 7, None),
        (table(x_priority=Field("l", -(2**63))), -(2**63), None),
        (table(x_priority=Field("B", 200)), 200, None),
        (table(x_consumer_timeout=Field("I", 60_000)), 0, 60_000),
        (table(x_cancel_on_ha_failover=Field("I", 1)), 0, None),
        (table(x_foo=Field("S", b"first")), 0, None),
    ],
)
def test_consumer_arguments(
    arguments: Table, priority: int, timeout_ms: int | None, queue_type: str
) -> None:
    """Priorities are integers of any size and sign; unknown arguments are ignored."""
    parsed = parse_consumer_arguments(arguments, "q", "/", queue_type)

    assert (parsed.priority, parsed.consumer_timeout_ms) == (priority, timeout_ms)


def test_no_consumer_arguments() -> None:
    """A consumer without arguments costs no object."""
    assert parse_consumer_arguments(ABSENT, "q", "/", "classic") is ConsumerArguments.NONE


@pytest.mark.parametrize(
    ("arguments", "queue_type", "ending"),
    [
        (
            [("x-priority", Field("S", b"1"))],
            "classic",
            "'x-priority' for queue 'q' in vhost '/': \"expected integer, got longstr\"",
        ),
        (
            [("x-priority", Field("t", True))],
            "quorum",
            "'x-priority' for queue 'q' in vhost '/': \"expected integer, got bool\"",
        ),
        (
            [("x-priority", Field("D", (0, 1)))],
            "classic",
            "'x-priority' for queue 'q' in vhost '/': \"expected integer, got decimal\"",
        ),
        (
            [("x-stream-offset", Field("S", b"first"))],
            "classic",
            "'x-stream-offset' for queue 'q' in vhost '/' of queue type rabbit_classic_queue",
        ),
        (
            [("x-stream-filter", Field("S", b"a"))],
            "quorum",
            "'x-stream-filter' for queue 'q' in vhost '/' of queue type rabbit_quorum_queue",
        ),
        (
            [("x-stream-match-unfiltered", Field("t", True)), ("x-stream-offset", Field("I", 1))],
            "classic",
            "'x-stream-match-unfiltered' for queue 'q' in vhost '/' "
            "of queue type rabbit_classic_queue",
        ),
        (
            [("x-stream-offset", Field("I", 1)), ("x-priority", Field("S", b"1"))],
            "classic",
            "'x-priority' for queue 'q' in vhost '/': \"expected integer, got longstr\"",
        ),
        (
            [("x-consumer-timeout", Field("I", -1))],
            "quorum",
            "'x-consumer-timeout' for queue 'q' in vhost '/': {value_negative,-1}",
        ),
    ],
)
def test_refused_consumer_arguments(
    arguments: list[tuple[str, Field]], queue_type: str, ending: str
) -> None:
    """Values are checked first; then arguments of streams are refused in the order received."""
    with pytest.raises(PreconditionFailed) as refusal:
        parse_consumer_arguments(Table.encode(arguments), "q", "/", queue_type)

    assert refusal.value.text == f"invalid arg {ending}"


@pytest.mark.parametrize("field", [Field("I", -1), Field("S", b"1h")])
def test_consumer_timeout_of_a_classic_queue(field: Field) -> None:
    """Classic queues tolerate a consumer timeout that makes no sense, and ignore it."""
    parsed = parse_consumer_arguments(table(x_consumer_timeout=field), "q", "/", "classic")

    assert parsed.consumer_timeout_ms is None


# Messages.


@pytest.mark.parametrize(
    ("expiration", "value_ms"),
    [
        (b"0", 0),
        (b"60000", 60_000),
        (b"+5", 5),
        (b"-0", 0),
        (b"00012", 12),
        (b"315360000000", 315_360_000_000),
    ],
)
def test_expiration(expiration: bytes, value_ms: int) -> None:
    """An expiration is a decimal integer of milliseconds; a sign and zeros may precede it."""
    assert parse_expiration(expiration) == value_ms


@pytest.mark.parametrize(
    ("expiration", "error"),
    [
        ("", "no_integer"),
        (" 5", "no_integer"),
        ("abc", "no_integer"),
        ("+", "no_integer"),
        ("--5", "no_integer"),
        ("é", "no_integer"),
        ("-1", "{value_negative,-1}"),
        ("1.5", '{leftover_string,".5"}'),
        ("5 ", '{leftover_string," "}'),
        ("1_0", '{leftover_string,"_0"}'),
        ("-1x", '{leftover_string,"x"}'),
        ('5"', '{leftover_string,"\\""}'),
        ("5\n", '{leftover_string,"\\n"}'),
        ("5\x01", "{leftover_string,[1]}"),
        ("5日", "{leftover_string,[230,151,165]}"),
        ("315360000001", "{value_too_large,315360000001}"),
        ("10000000000000", "{value_too_large,10000000000000}"),
    ],
)
def test_refused_expiration(expiration: str, error: str) -> None:
    """Anything else is refused with what is wrong with it."""
    with pytest.raises(PreconditionFailed) as refusal:
        parse_expiration(expiration.encode())

    assert refusal.value.text == f"invalid expiration '{expiration}': {error}"
