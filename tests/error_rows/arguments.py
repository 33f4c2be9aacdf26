"""Arguments of queues: each on its own, against the queue's type, and on a redeclare."""

from typing import Any

from pamqp.commands import Queue
from wire_methods import queue_declare, table

from error_rows import QUORUM, Entry, Row, channel_error, declares_queue, sends


def queue_redeclared(
    id: str,
    text: str,
    before: tuple[Entry, ...],
    after: tuple[Entry, ...],
    **more: Any,
) -> Row:
    """A queue declared a second time with other arguments."""
    return channel_error(
        f"queue-redeclare-{id}",
        406,
        f"inequivalent arg {text}",
        Queue.Declare,
        lambda s: s.call(queue_declare(s.q, durable=True, arguments=table(*before))).send(
            queue_declare(s.q, durable=True, arguments=table(*after))
        ),
        **more,
    )


def queue_refused(id: str, text: str, *entries: Entry, **more: Any) -> Row:
    """A durable queue that cannot be declared with these arguments."""
    return channel_error(
        f"queue-argument-{id}",
        406,
        text,
        Queue.Declare,
        lambda s: s.send(queue_declare(s.q, durable=True, arguments=table(*entries))),
        **more,
    )


# fmt: off
REDECLARE_ROWS = [
    *(
        queue_redeclared(f"{name}-changed",
            f"'{name}' for <Q>: received '{after}' but current is '{before}'",
            (*more, (name, tag, before)), (*more, (name, tag, after)))
        for name, tag, before, after, more in [
            ("x-expires", "I", 600000, 700000, ()),
            ("x-message-ttl", "I", 5000, 6000, ()),
            ("x-dead-letter-exchange", "S", "one", "two", ()),
            ("x-dead-letter-routing-key", "S", "one", "two",
                (("x-dead-letter-exchange", "S", "dlx"),)),
            ("x-max-length", "I", 5, 6, ()),
            ("x-max-length-bytes", "I", 5, 6, ()),
            ("x-max-priority", "I", 5, 6, ()),
            ("x-overflow", "S", "drop-head", "reject-publish", ()),
            ("x-queue-mode", "S", "default", "lazy", ()),
            ("x-queue-version", "I", 1, 2, ()),
            ("x-queue-type", "S", "classic", "quorum", ()),
            ("x-delivery-limit", "I", 5, 6, (QUORUM,)),
            ("x-dead-letter-strategy", "S", "at-most-once", "at-least-once", (QUORUM,)),
        ]
    ),
    queue_redeclared("boolean-changed",
        "'x-single-active-consumer' for <Q>: received 'false' but current is 'true'",
        (("x-single-active-consumer", "t", True),), (("x-single-active-consumer", "t", False),)),
    queue_redeclared("delivery-limit-of-classic-changed",
        "'x-delivery-limit' for <Q>: received '6' but current is '5'",
        (("x-delivery-limit", "I", 5),), (("x-delivery-limit", "I", 6),), differs_on_310=True),
    queue_redeclared("locator-of-classic-changed",
        "'x-queue-leader-locator' for <Q>: received 'balanced' but current is 'client-local'",
        (("x-queue-leader-locator", "S", "client-local"),),
        (("x-queue-leader-locator", "S", "balanced"),), differs_on_310=True),
    queue_redeclared("quorum-without-type",
        "'x-queue-type' for <Q>: "
        "received none but current is the value 'quorum' of type 'longstr'", (QUORUM,), ()),
    queue_redeclared("classic-as-quorum",
        "'x-queue-type' for <Q>: "
        "received the value 'quorum' of type 'longstr' but current is none", (), (QUORUM,)),
    queue_redeclared("argument-left-out",
        "'x-max-length' for <Q>: received none but current is the value '5' of type 'long'",
        (("x-max-length", "l", 5),), ()),
    *(
        queue_redeclared(f"compares-before-it-validates-{name}",
            f"'{name}' for <Q>: received the value '{value}' of type '{kind}' but current is none",
            (), ((name, tag, value),))
        for name, kind, tag, value in [
            ("x-expires", "signedint", "I", 0),
            ("x-dead-letter-exchange", "signedint", "I", 5),
            ("x-queue-type", "longstr", "S", "foo"),
        ]
    ),
    queue_redeclared("number-as-text", "'x-max-length' for <Q>: received '5' but current is '5'",
        (("x-max-length", "I", 5),), (("x-max-length", "S", "5"),)),
    *(
        queue_redeclared(f"added-as-{name}",
            f"'x-expires' for <Q>: received the value '{rendered}' of type '{name}' "
            "but current is none", (), (("x-expires", tag, value),))
        for name, tag, value, rendered in [
            ("byte", "b", -5, "-5"),
            ("unsignedbyte", "B", 200, "200"),
            ("short", "s", 5, "5"),
            ("unsignedshort", "u", 65535, "65535"),
            ("signedint", "I", 5, "5"),
            ("unsignedint", "i", 4294967295, "4294967295"),
            ("long", "l", 5, "5"),
            ("longstr", "S", "text", "text"),
            ("binary", "x", b"text", "text"),
            ("bool", "t", True, "true"),
            ("timestamp", "T", 5, "5"),
            ("double", "d", 1.5, "1.5"),
            ("float", "f", 1.5, "1.5"),
            ("void", "V", None, "undefined"),
            ("decimal", "D", (2, 5), "{2,5}"),
            ("table", "F", (("a", "I", 1),), '[{<<"a">>,signedint,1}]'),
            ("array", "A", (("I", 1),), "[{signedint,1}]"),
        ]
    ),
]

ARGUMENT_ROWS = [
    *(
        queue_refused(f"{name}-{case}", f"invalid arg '{name}' for <Q>: {text}", *more,
            (name, tag, value))
        for name, case, tag, value, text, more in [
            ("x-expires", "zero", "I", 0, "{value_zero,0}", ()),
            ("x-expires", "negative", "I", -1, "{value_negative,-1}", ()),
            ("x-expires", "too-large", "l", 315360000001, "{value_too_large,315360000001}", ()),
            ("x-expires", "text", "S", "5", '"expected integer, got longstr"', ()),
            ("x-expires", "double", "d", 5.0, '"expected integer, got double"', ()),
            ("x-expires", "float", "f", 5.0, '"expected integer, got float"', ()),
            ("x-expires", "decimal", "D", (0, 5), '"expected integer, got decimal"', ()),
            ("x-expires", "timestamp", "T", 5, '"expected integer, got timestamp"', ()),
            ("x-expires", "bool", "t", True, '"expected integer, got bool"', ()),
            ("x-expires", "void", "V", None, '"expected integer, got void"', ()),
            ("x-expires", "table", "F", (), '"expected integer, got table"', ()),
            ("x-expires", "array", "A", (), '"expected integer, got array"', ()),
            ("x-expires", "binary", "x", b"5", '"expected integer, got binary"', ()),
            ("x-message-ttl", "negative", "b", -1, "{value_negative,-1}", ()),
            ("x-message-ttl", "too-large", "l", 315360000001, "{value_too_large,315360000001}", ()),
            ("x-message-ttl", "text", "S", "5", '"expected integer, got longstr"', ()),
            ("x-dead-letter-routing-key", "alone", "S", "key", "routing_key_but_no_dlx_defined",
                ()),
            ("x-dead-letter-routing-key", "number", "I", 5, "{unacceptable_type,signedint}",
                (("x-dead-letter-exchange", "S", "dlx"),)),
            ("x-max-length", "negative", "I", -1, "{value_negative,-1}", ()),
            ("x-max-length", "text", "S", "5", '"expected integer, got longstr"', ()),
            ("x-max-length-bytes", "negative", "I", -1, "{value_negative,-1}", ()),
            ("x-max-length-bytes", "text", "S", "5", '"expected integer, got longstr"', ()),
            ("x-max-priority", "too-large", "I", 256, "{max_value_exceeded,256}", ()),
            ("x-max-priority", "negative", "I", -1, "{value_negative,-1}", ()),
            ("x-max-priority", "text", "S", "5", '"expected integer, got longstr"', ()),
            ("x-overflow", "unknown", "S", "explode", "invalid_overflow", ()),
            ("x-overflow", "number", "I", 5, "{unacceptable_type,signedint}", ()),
            ("x-queue-mode", "unknown", "S", "foo", "\"unsupported queue mode 'foo'\"", ()),
            ("x-queue-version", "unknown", "I", 3, "\"unsupported queue version '3'\"", ()),
            ("x-queue-leader-locator", "unknown", "S", "foo", "invalid_queue_locator_arg",
                (QUORUM,)),
            ("x-single-active-consumer", "number", "I", 1, "{unacceptable_type,signedint}", ()),
            ("x-single-active-consumer", "text", "S", "true", "{unacceptable_type,longstr}", ()),
            ("x-queue-type", "unknown", "S", "foo", "\"unsupported queue type 'foo'\"", ()),
            ("x-queue-type", "number", "I", 5, "{unacceptable_type,signedint}", ()),
            ("x-dead-letter-strategy", "unknown", "S", "foo", "invalid_dlx_strategy", (QUORUM,)),
            ("x-quorum-initial-group-size", "zero", "I", 0, "{value_zero,0}", (QUORUM,)),
        ]
    ),
    *(
        queue_refused(f"x-dead-letter-exchange-{name}",
            f"invalid type '{name}' for arg 'x-dead-letter-exchange' in <Q>",
            ("x-dead-letter-exchange", tag, value))
        for name, tag, value in [
            ("signedint", "I", 5),
            ("bool", "t", True),
            ("binary", "x", b"dlx"),
            ("void", "V", None),
        ]
    ),
    queue_refused("x-queue-leader-locator-unknown-on-classic",
        "invalid arg 'x-queue-leader-locator' for <Q>: invalid_queue_locator_arg",
        ("x-queue-leader-locator", "S", "foo"), differs_on_310=True),
    # Arguments of another type of queue
    *(
        queue_refused(f"{name}-on-classic",
            f"invalid arg '{name}' for <Q> of queue type rabbit_classic_queue", (name, tag, value),
            **more)
        for name, tag, value, more in [
            ("x-dead-letter-strategy", "S", "at-most-once", {}),
            ("x-quorum-initial-group-size", "I", 1, {}),
            ("x-max-in-memory-length", "I", 1, {}),
            ("x-max-in-memory-bytes", "I", 1, {}),
            ("x-max-age", "S", "1h", {}),
            ("x-stream-max-segment-size-bytes", "I", 1000, {}),
            ("x-initial-cluster-size", "I", 1, {}),
            ("x-stream-filter-size-bytes", "I", 16, {"differs_on_310": True}),
        ]
    ),
    *(
        queue_refused(f"{name}-on-quorum",
            f"invalid arg '{name}' for <Q> of queue type rabbit_quorum_queue", QUORUM,
            (name, tag, value), **more)
        for name, tag, value, more in [
            ("x-max-priority", "I", 5, {}),
            ("x-queue-mode", "S", "lazy", {}),
            ("x-queue-version", "I", 2, {}),
            ("x-max-age", "S", "1h", {}),
            ("x-stream-max-segment-size-bytes", "I", 1000, {}),
            ("x-initial-cluster-size", "I", 1, {}),
            ("x-stream-filter-size-bytes", "I", 16, {"differs_on_310": True}),
        ]
    ),
    # What is looked at first
    queue_refused("order-type-before-dead-letter-exchange",
        "invalid type 'signedint' for arg 'x-dead-letter-exchange' in <Q>",
        ("x-queue-type", "S", "foo"), ("x-dead-letter-exchange", "I", 5)),
    queue_refused("order-type-before-expires",
        "invalid arg 'x-queue-type' for <Q>: \"unsupported queue type 'foo'\"",
        ("x-expires", "I", 0), ("x-queue-type", "S", "foo")),
    queue_refused("order-expires-before-ttl", "invalid arg 'x-expires' for <Q>: {value_zero,0}",
        ("x-message-ttl", "I", -1), ("x-expires", "I", 0)),
    queue_refused("order-ttl-before-dead-letter-routing-key",
        "invalid arg 'x-message-ttl' for <Q>: {value_negative,-1}",
        ("x-dead-letter-routing-key", "S", "key"), ("x-message-ttl", "I", -1)),
    queue_refused("order-dead-letter-routing-key-before-max-length",
        "invalid arg 'x-dead-letter-routing-key' for <Q>: routing_key_but_no_dlx_defined",
        ("x-max-length", "I", -1), ("x-dead-letter-routing-key", "S", "key")),
    queue_refused("order-max-length-before-max-length-bytes",
        "invalid arg 'x-max-length' for <Q>: {value_negative,-1}", ("x-max-length-bytes", "I", -1),
        ("x-max-length", "I", -1)),
    queue_refused("order-values-before-keys-of-other-types",
        "invalid arg 'x-expires' for <Q>: {value_zero,0}", ("x-max-age", "S", "1h"),
        ("x-expires", "I", 0)),
    queue_refused("order-keys-of-other-types-as-received",
        "invalid arg 'x-max-age' for <Q> of queue type rabbit_classic_queue",
        ("x-max-age", "S", "1h"), ("x-dead-letter-strategy", "S", "at-most-once")),
    queue_refused("first-of-duplicates-counts", "invalid arg 'x-expires' for <Q>: {value_zero,0}",
        ("x-expires", "I", 0), ("x-expires", "I", 60000)),
    # Properties that quorum queues do not have
    *(
        channel_error(f"quorum-{case}", 406, f"invalid property '{name}' for <Q>", Queue.Declare,
            declares_queue(arguments=table(QUORUM), **flags))
        for case, name, flags in [
            ("transient", "non-durable", {}),
            ("auto-delete", "auto-delete", {"durable": True, "auto_delete": True}),
            ("exclusive", "exclusive-owner", {"durable": True, "exclusive": True}),
            ("order-auto-delete-before-owner", "auto-delete",
                {"auto_delete": True, "exclusive": True}),
            ("order-owner-before-durable", "exclusive-owner", {"exclusive": True}),
        ]
    ),
    channel_error("quorum-order-arguments-before-properties", 406,
        "invalid arg 'x-max-priority' for <Q> of queue type rabbit_quorum_queue", Queue.Declare,
        declares_queue(arguments=table(QUORUM, ("x-max-priority", "I", 5)))),
    channel_error("quorum-without-name", 406,
        "Cannot declare a server-named queue for type rabbit_quorum_queue", Queue.Declare,
        sends(queue_declare("", durable=True, arguments=table(QUORUM)))),
    # Streams are refused like any type that is not there
    queue_refused("x-queue-type-stream",
        "invalid arg 'x-queue-type' for <Q>: \"unsupported queue type 'stream'\"",
        ("x-queue-type", "S", "stream"), differs_on_310=True),
]
# fmt: on
