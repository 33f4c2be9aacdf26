"""Exchanges and bindings."""

from typing import Any

from pamqp.commands import Basic, Exchange, Queue
from wire_methods import (
    exchange_bind,
    exchange_declare,
    exchange_delete,
    exchange_unbind,
    queue_bind,
    queue_declare,
    queue_unbind,
    table,
)

from error_rows import REPLY_TO, Act, Row, channel_error, declares_exchange, sends

SYSTEM_EXCHANGE = "deletion of system exchange '{}' in vhost '/' not allowed"
DEFAULT_EXCHANGE = "operation not permitted on the default exchange"


def exchange_redeclared(
    id: str, text: str, before: dict[str, Any], after: dict[str, Any], **more: Any
) -> Row:
    """An exchange declared a second time with something changed."""
    return channel_error(
        f"exchange-redeclare-{id}",
        406,
        f"inequivalent arg {text}",
        Exchange.Declare,
        lambda s: s.call(exchange_declare(s.x, **before)).send(exchange_declare(s.x, **after)),
        **more,
    )


def alternate(tag: str, value: Any) -> bytes:
    """Exchange arguments with an alternate exchange."""
    return table(("alternate-exchange", tag, value))


# fmt: off
EXCHANGE_ROWS = [
    channel_error("exchange-type-unknown", 406, "unknown exchange type 'nope'", Exchange.Declare,
        lambda s: s.send(exchange_declare(s.x, "nope")), differs_on_310=True),
    channel_error("exchange-type-is-case-sensitive", 406, "unknown exchange type 'Direct'",
        Exchange.Declare, lambda s: s.send(exchange_declare(s.x, "Direct")), differs_on_310=True),
    channel_error("exchange-type-empty", 406, "invalid exchange type ''", Exchange.Declare,
        lambda s: s.send(exchange_declare(s.x, "")), differs_on_310=True),
    channel_error("exchange-type-unknown-though-it-exists", 406, "unknown exchange type 'nope'",
        Exchange.Declare,
        lambda s: s.call(exchange_declare(s.x)).send(exchange_declare(s.x, "nope")),
        differs_on_310=True),
    channel_error("exchange-type-unknown-on-default-exchange", 406, "unknown exchange type 'nope'",
        Exchange.Declare, lambda s: s.send(exchange_declare("", "nope")), differs_on_310=True),
    channel_error("exchange-reserved-name", 403,
        "exchange name 'amq.<x>' contains reserved prefix 'amq.*'", Exchange.Declare,
        lambda s: s.send(exchange_declare(f"amq.{s.x}"))),
    channel_error("exchange-reserved-name-after-stripping", 403,
        "exchange name 'amq.<x>' contains reserved prefix 'amq.*'", Exchange.Declare,
        lambda s: s.send(exchange_declare(f"am\r\nq.{s.x}"))),
    channel_error("exchange-passive-missing", 404, "no <X>", Exchange.Declare,
        lambda s: s.send(exchange_declare(s.x, passive=True))),
    channel_error("exchange-passive-missing-without-type", 404, "no <X>", Exchange.Declare,
        lambda s: s.send(exchange_declare(s.x, "", passive=True))),
    channel_error("exchange-passive-missing-nowait", 404, "no <X>", Exchange.Declare,
        lambda s: s.send(exchange_declare(s.x, passive=True, nowait=True))),
    channel_error("exchange-passive-missing-reserved", 404, "no exchange 'amq.<x>' in vhost '/'",
        Exchange.Declare, lambda s: s.send(exchange_declare(f"amq.{s.x}", passive=True))),
    channel_error("default-exchange-declare", 403, DEFAULT_EXCHANGE, Exchange.Declare,
        lambda s: s.send(exchange_declare("", durable=True))),
    channel_error("default-exchange-declare-after-stripping", 403, DEFAULT_EXCHANGE,
        Exchange.Declare, lambda s: s.send(exchange_declare("\r\n"))),
    channel_error("default-exchange-declare-passive", 403, DEFAULT_EXCHANGE, Exchange.Declare,
        lambda s: s.send(exchange_declare("", passive=True))),
    channel_error("default-exchange-delete", 403, DEFAULT_EXCHANGE, Exchange.Delete,
        lambda s: s.send(exchange_delete(""))),
    channel_error("default-exchange-bind-queue", 403, DEFAULT_EXCHANGE, Queue.Bind,
        lambda s: s.call(queue_declare(s.q)).send(queue_bind(s.q, ""))),
    channel_error("default-exchange-bind-missing-queue", 403, DEFAULT_EXCHANGE, Queue.Bind,
        lambda s: s.send(queue_bind(s.q, ""))),
    channel_error("default-exchange-unbind-queue", 403, DEFAULT_EXCHANGE, Queue.Unbind,
        lambda s: s.call(queue_declare(s.q)).send(queue_unbind(s.q, "", s.q))),
    channel_error("default-exchange-as-destination", 403, DEFAULT_EXCHANGE, Exchange.Bind,
        lambda s: s.send(exchange_bind("", "amq.direct"))),
    channel_error("default-exchange-as-source", 403, DEFAULT_EXCHANGE, Exchange.Bind,
        lambda s: s.send(exchange_bind("amq.direct", ""))),
    channel_error("default-exchange-unbind-destination", 403, DEFAULT_EXCHANGE, Exchange.Unbind,
        lambda s: s.send(exchange_unbind("", "amq.direct"))),
    channel_error("default-exchange-unbind-source", 403, DEFAULT_EXCHANGE, Exchange.Unbind,
        lambda s: s.send(exchange_unbind("amq.direct", ""))),
    exchange_redeclared("type", "'type' for <X>: received 'topic' but current is 'direct'", {},
        {"kind": "topic"}),
    exchange_redeclared("durable", "'durable' for <X>: received 'true' but current is 'false'", {},
        {"durable": True}),
    exchange_redeclared("auto-delete",
        "'auto_delete' for <X>: received 'true' but current is 'false'", {}, {"auto_delete": True}),
    exchange_redeclared("internal", "'internal' for <X>: received 'false' but current is 'true'",
        {"internal": True}, {}),
    exchange_redeclared("alternate-changed",
        "'alternate-exchange' for <X>: received 'b' but current is 'a'",
        {"arguments": alternate("S", "a")}, {"arguments": alternate("S", "b")}),
    exchange_redeclared("alternate-added",
        "'alternate-exchange' for <X>: "
        "received the value 'a' of type 'longstr' but current is none", {},
        {"arguments": alternate("S", "a")}),
    exchange_redeclared("alternate-left-out",
        "'alternate-exchange' for <X>: "
        "received none but current is the value 'a' of type 'longstr'",
        {"arguments": alternate("S", "a")}, {}),
    exchange_redeclared("type-before-durable",
        "'type' for <X>: received 'fanout' but current is 'direct'", {},
        {"kind": "fanout", "durable": True, "auto_delete": True, "internal": True}),
    exchange_redeclared("durable-before-auto-delete",
        "'durable' for <X>: received 'true' but current is 'false'", {},
        {"durable": True, "auto_delete": True, "internal": True}),
    exchange_redeclared("auto-delete-before-internal",
        "'auto_delete' for <X>: received 'true' but current is 'false'", {},
        {"auto_delete": True, "internal": True}),
    exchange_redeclared("internal-before-alternate",
        "'internal' for <X>: received 'true' but current is 'false'", {},
        {"internal": True, "arguments": alternate("S", "a")}),
    exchange_redeclared("nowait", "'durable' for <X>: received 'true' but current is 'false'", {},
        {"durable": True, "nowait": True}),
    channel_error("exchange-redeclare-predeclared", 406,
        "inequivalent arg 'durable' for exchange 'amq.direct' in vhost '/': "
        "received 'false' but current is 'true'", Exchange.Declare,
        lambda s: s.send(exchange_declare("amq.direct"))),
    *(
        channel_error(f"alternate-exchange-of-type-{name}", 406,
            f"invalid type '{name}' for arg 'alternate-exchange' in <X>", Exchange.Declare,
            declares_exchange(arguments=alternate(tag, value)))
        for name, tag, value in [
            ("signedint", "I", 1),
            ("bool", "t", True),
            ("binary", "x", b"ae"),
            ("void", "V", None),
        ]
    ),
    channel_error("exchange-internal-publish", 403, "cannot publish to internal <X>", Basic.Publish,
        lambda s: s.call(exchange_declare(s.x, internal=True)).publish(s.x)),
    channel_error("exchange-predeclared-internal-publish", 403,
        "cannot publish to internal exchange 'amq.rabbitmq.trace' in vhost '/'", Basic.Publish,
        lambda s: s.publish("amq.rabbitmq.trace")),
    *(
        channel_error(f"exchange-delete-{name}", 403, SYSTEM_EXCHANGE.format(name), Exchange.Delete,
            sends(exchange_delete(name)))
        for name in ("amq.direct", "amq.fanout", "amq.topic", "amq.headers", "amq.match",
            "amq.rabbitmq.trace", "amq.no-such-exchange")
    ),
    channel_error("exchange-delete-in-use-by-queue", 406, "<X> in use", Exchange.Delete,
        lambda s: s.call(exchange_declare(s.x), queue_declare(s.q), queue_bind(s.q, s.x))
            .send(exchange_delete(s.x, if_unused=True))),
    channel_error("exchange-delete-in-use-by-exchange", 406, "<X> in use", Exchange.Delete,
        lambda s: s.call(exchange_declare(s.x), exchange_declare(s.x2), exchange_bind(s.x2, s.x))
            .send(exchange_delete(s.x, if_unused=True, nowait=True))),
]
# fmt: on


def x_match(tag: str, value: Any) -> Act:
    """Bind the row's queue to amq.headers with this x-match."""
    arguments = table(("x-match", tag, value))
    return lambda s: s.call(queue_declare(s.q)).send(
        queue_bind(s.q, "amq.headers", arguments=arguments)
    )


VOLATILE = "cannot bind or unbind to a volatile (direct reply-to) queue"


# fmt: off
BINDING_ROWS = [
    channel_error("bind-missing-exchange", 404, "no <X>", Queue.Bind,
        lambda s: s.call(queue_declare(s.q)).send(queue_bind(s.q, s.x))),
    channel_error("bind-missing-queue", 404, "no <Q>", Queue.Bind,
        lambda s: s.send(queue_bind(s.q, "amq.direct"))),
    channel_error("bind-missing-both", 404, "no <X>", Queue.Bind,
        lambda s: s.send(queue_bind(s.q, s.x))),
    channel_error("bind-missing-nowait", 404, "no <Q>", Queue.Bind,
        lambda s: s.send(queue_bind(s.q, "amq.direct", nowait=True))),
    channel_error("bind-missing-names-stripped", 404, "no <Q>", Queue.Bind,
        lambda s: s.send(queue_bind(f"{s.q}\r\n", "\namq.direct\r"))),
    channel_error("exchange-bind-missing-source", 404, "no <X>", Exchange.Bind,
        lambda s: s.send(exchange_bind("amq.direct", s.x))),
    channel_error("exchange-bind-missing-destination", 404, "no <X>", Exchange.Bind,
        lambda s: s.send(exchange_bind(s.x, "amq.direct"))),
    channel_error("exchange-bind-missing-both", 404, "no <X2>", Exchange.Bind,
        lambda s: s.send(exchange_bind(s.x, s.x2))),
    channel_error("x-match-unknown", 406,
        'Invalid x-match field value <<"foo">>; expected all, any, all-with-x, or any-with-x',
        Queue.Bind, x_match("S", "foo")),
    channel_error("x-match-empty", 406,
        'Invalid x-match field value <<>>; expected all, any, all-with-x, or any-with-x',
        Queue.Bind, x_match("S", "")),
    channel_error("x-match-number", 406,
        "Invalid x-match field type signedint (value 5); expected longstr", Queue.Bind,
        x_match("I", 5)),
    channel_error("x-match-bool", 406,
        "Invalid x-match field type bool (value true); expected longstr", Queue.Bind,
        x_match("t", True)),
    channel_error("x-match-binary", 406,
        'Invalid x-match field type binary (value <<"all">>); expected longstr', Queue.Bind,
        x_match("x", b"all")),
    channel_error("x-match-double", 406,
        "Invalid x-match field type double (value 1.5); expected longstr", Queue.Bind,
        x_match("d", 1.5)),
    channel_error("x-match-table", 406,
        'Invalid x-match field type table (value [{<<"a">>,signedint,1}]); expected longstr',
        Queue.Bind, x_match("F", (("a", "I", 1),))),
    channel_error("x-match-unprintable", 406,
        "Invalid x-match field value <<1,2>>; expected all, any, all-with-x, or any-with-x",
        Queue.Bind, x_match("S", b"\x01\x02")),
    channel_error("x-match-void", 406,
        "Invalid x-match field type void (value undefined); expected longstr", Queue.Bind,
        x_match("V", None)),
    channel_error("x-match-of-exchange-binding", 406,
        'Invalid x-match field value <<"foo">>; expected all, any, all-with-x, or any-with-x',
        Exchange.Bind,
        lambda s: s.send(
            exchange_bind("amq.direct", "amq.headers", arguments=table(("x-match", "S", "foo"))))),
    *(
        channel_error(f"reply-to-{case}", 403, VOLATILE, method.ids, sends(method),
            differs_on_310=True)
        for case, method in [
            ("bind", queue_bind(REPLY_TO, "amq.direct")),
            ("bind-token", queue_bind(f"{REPLY_TO}.token", "amq.direct")),
            ("unbind-token", queue_unbind(f"{REPLY_TO}.token", "amq.direct")),
        ]
    ),
]
# fmt: on
