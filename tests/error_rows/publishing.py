"""Publishing, confirms and transactions."""

from pamqp.commands import Basic, Confirm, Queue, Tx
from wire_methods import (
    TX_COMMIT,
    TX_ROLLBACK,
    TX_SELECT,
    Properties,
    basic_ack,
    basic_cancel,
    basic_consume,
    confirm_select,
    exchange_declare,
    frames,
    longstr,
    properties,
    queue_declare,
    table,
)

from error_rows import REPLY_TO, Entry, channel_error, connection_error, publishes


def headers(*entries: Entry) -> dict[str, bytes]:
    """The headers property."""
    return {"headers": table(*entries)}


# fmt: off
PUBLISH_ROWS = [
    connection_error("publish-immediate", 540, "immediate=true", Basic.Publish,
        lambda s: s.publish("", s.q, immediate=True)),
    connection_error("publish-immediate-before-missing-exchange", 540, "immediate=true",
        Basic.Publish, lambda s: s.publish(s.x, immediate=True)),
    channel_error("publish-too-large", 406,
        "message size 1001 is larger than configured max size 1000", Basic.Publish,
        lambda s: s.publish("", s.q, body=bytes(1001)), settings={"message_bytes_max": 1000}),
    channel_error("publish-too-large-before-missing-exchange", 406,
        "message size 1001 is larger than configured max size 1000", Basic.Publish,
        lambda s: s.publish(s.x, s.q, body=bytes(1001)), settings={"message_bytes_max": 1000}),
    channel_error("publish-missing-exchange", 404, "no <X>", Basic.Publish,
        lambda s: s.publish(s.x)),
    channel_error("publish-missing-exchange-mandatory", 404, "no <X>", Basic.Publish,
        lambda s: s.publish(s.x, mandatory=True)),
    channel_error("publish-missing-exchange-empty-body", 404, "no <X>", Basic.Publish,
        lambda s: s.publish(s.x, "", body=b"")),
    channel_error("publish-missing-exchange-in-confirm-mode", 404, "no <X>", Basic.Publish,
        lambda s: s.call(confirm_select()).publish(s.x)),
    channel_error("publish-missing-exchange-in-transaction", 404, "no <X>", Basic.Publish,
        lambda s: s.call(TX_SELECT).publish(s.x)),
    channel_error("publish-missing-exchange-before-expiration", 404, "no <X>", Basic.Publish,
        lambda s: s.publish(s.x, "", properties(expiration="abc"))),
    channel_error("publish-internal-before-expiration", 403, "cannot publish to internal <X>",
        Basic.Publish,
        lambda s: s.call(exchange_declare(s.x, internal=True))
            .publish(s.x, "", properties(expiration="abc"))),
    *(
        connection_error(f"properties-{case}", (501, 502, 541), None, Basic.Publish,
            publishes(content))
        for case, content in [
            ("cut-short", Properties(1 << 15, b"\x09short")),
            ("missing", Properties(1 << 12)),
            ("table-past-the-end", Properties(1 << 13, b"\x00\x00\x00\x09\x01k")),
            ("table-of-unknown-type", Properties(1 << 13, longstr(b"\x01kU\x00\x01"))),
            ("with-more-than-announced", Properties(0, b"more")),
        ]
    ),
    *(
        channel_error(f"expiration-{case}", 406, f"invalid expiration '{value}': {text}",
            Basic.Publish, publishes(properties(expiration=value)))
        for case, value, text in [
            ("text", "abc", "no_integer"),
            ("empty", "", "no_integer"),
            ("leading-space", " 5", "no_integer"),
            ("negative", "-1", "{value_negative,-1}"),
            ("fraction", "1.5", '{leftover_string,".5"}'),
            ("trailing-space", "5 ", '{leftover_string," "}'),
            ("too-large", "10000000000000", "{value_too_large,10000000000000}"),
            ("just-too-large", "315360000001", "{value_too_large,315360000001}"),
            ("sign-alone", "-", "no_integer"),
            ("unit", "5ms", '{leftover_string,"ms"}'),
        ]
    ),
    *(
        channel_error(f"header-{name}-{kind}", 406,
            f'invalid message: {{unacceptable_type_in_header,"{name}",{kind}}}', Basic.Publish,
            publishes(properties(**headers((name, tag, value)))))
        for name, kind, tag, value in [
            ("CC", "longstr", "S", "key"),
            ("CC", "signedint", "I", 5),
            ("CC", "table", "F", ()),
            ("CC", "void", "V", None),
            ("BCC", "longstr", "S", "key"),
            ("BCC", "bool", "t", True),
        ]
    ),
    channel_error("header-CC-before-BCC", 406,
        'invalid message: {unacceptable_type_in_header,"CC",longstr}', Basic.Publish,
        publishes(properties(**headers(("BCC", "S", "key"), ("CC", "S", "key"))))),
    channel_error("expiration-before-CC", 406, "invalid expiration 'abc': no_integer",
        Basic.Publish, publishes(properties(expiration="abc", **headers(("CC", "S", "key"))))),
    channel_error("user-id-of-another", 406,
        "user_id property set to 'bob' but authenticated user was 'guest'", Basic.Publish,
        publishes(properties(user_id="bob"))),
    channel_error("user-id-empty", 406,
        "user_id property set to '' but authenticated user was 'guest'", Basic.Publish,
        publishes(properties(user_id=""))),
    channel_error("reply-to-without-consumer", 406, "fast reply consumer does not exist",
        Basic.Publish, publishes(properties(reply_to=REPLY_TO))),
    channel_error("reply-to-consumer-on-another-channel", 406, "fast reply consumer does not exist",
        Basic.Publish,
        lambda s: s.on_channel_2(basic_consume(REPLY_TO, no_ack=True))
            .publish("", s.q, properties(reply_to=REPLY_TO))),
    channel_error("reply-to-after-cancel", 406, "fast reply consumer does not exist", Basic.Publish,
        lambda s: s.call(basic_consume(REPLY_TO, "tag", no_ack=True), basic_cancel("tag"))
            .publish("", s.q, properties(reply_to=REPLY_TO))),
    channel_error("reply-to-before-expiration", 406, "fast reply consumer does not exist",
        Basic.Publish, publishes(properties(reply_to=REPLY_TO, expiration="abc"))),
]

CONFIRM_ROWS = [
    channel_error("confirm-on-tx-channel", 406, "cannot switch from tx to confirm mode",
        Confirm.Select, lambda s: s.call(TX_SELECT).send(confirm_select())),
    channel_error("confirm-nowait-on-tx-channel", 406, "cannot switch from tx to confirm mode",
        Confirm.Select, lambda s: s.call(TX_SELECT).send(confirm_select(nowait=True))),
    channel_error("tx-on-confirm-channel", 406, "cannot switch from confirm to tx mode", Tx.Select,
        lambda s: s.call(confirm_select()).send(TX_SELECT)),
    channel_error("commit-without-tx", 406, "channel is not transactional", Tx.Commit,
        lambda s: s.send(TX_COMMIT)),
    channel_error("rollback-without-tx", 406, "channel is not transactional", Tx.Rollback,
        lambda s: s.send(TX_ROLLBACK)),
    channel_error("commit-on-confirm-channel", 406, "channel is not transactional", Tx.Commit,
        lambda s: s.call(confirm_select()).send(TX_COMMIT)),
    channel_error("ack-twice-in-tx", 406, "unknown delivery tag 1", Basic.Ack,
        lambda s: s.fetch(1).call(TX_SELECT).send(basic_ack(1), basic_ack(1))),
    connection_error("command-while-committing", 504,
        "unexpected command while processing 'tx.commit'", Queue.Declare,
        lambda s: s.call(queue_declare(s.q, durable=True), TX_SELECT)
            .publish("", s.q, properties(delivery_mode=2))
            .send_octets(frames(1, [TX_COMMIT, queue_declare(s.q2, passive=True)])), durable=True),
]
# fmt: on
