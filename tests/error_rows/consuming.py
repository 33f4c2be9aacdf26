"""Fetching, consuming, prefetch, direct reply-to and settling."""

from collections.abc import Sequence

from pamqp.commands import Basic, Queue
from wire_methods import (
    basic_ack,
    basic_consume,
    basic_get,
    basic_nack,
    basic_qos,
    basic_recover,
    basic_recover_async,
    basic_reject,
    queue_declare,
    table,
)

from error_rows import QUORUM, REPLY_TO, Act, Entry, channel_error, connection_error, sends

EXCLUSIVE_USE = "<Q> in exclusive use"


def consumes(declared: Sequence[Entry], *entries: Entry) -> Act:
    """Consume the row's queue, declared with some arguments, with others."""
    return lambda s: s.call(queue_declare(s.q, durable=True, arguments=table(*declared))).send(
        basic_consume(s.q, arguments=table(*entries))
    )


# fmt: off
CONSUME_ROWS = [
    channel_error("get-missing", 404, "no <Q>", Basic.Get, lambda s: s.send(basic_get(s.q))),
    channel_error("get-reply-to", 404, "no queue 'amq.rabbitmq.reply-to' in vhost '/'", Basic.Get,
        lambda s: s.send(basic_get(REPLY_TO))),
    channel_error("get-quorum-single-active-consumer", 405,
        "cannot obtain access to locked <Q>. basic.get operations are not supported by quorum "
        "queues with single active consumer", Basic.Get,
        lambda s: s.call(
            queue_declare(s.q, durable=True,
                arguments=table(QUORUM, ("x-single-active-consumer", "t", True))))
            .send(basic_get(s.q))),
    channel_error("consume-missing", 404, "no <Q>", Basic.Consume,
        lambda s: s.send(basic_consume(s.q))),
    channel_error("consume-missing-nowait", 404, "no <Q>", Basic.Consume,
        lambda s: s.send(basic_consume(s.q, "tag", nowait=True))),
    connection_error("consume-tag-twice", 530, "attempt to reuse consumer tag 'tag'", Basic.Consume,
        lambda s: s.call(queue_declare(s.q), basic_consume(s.q, "tag"))
            .send(basic_consume(s.q, "tag"))),
    connection_error("consume-tag-twice-before-missing-queue", 530,
        "attempt to reuse consumer tag 'tag'", Basic.Consume,
        lambda s: s.call(queue_declare(s.q), basic_consume(s.q, "tag"))
            .send(basic_consume(s.q2, "tag"))),
    channel_error("consume-exclusively-a-used-queue", 403, EXCLUSIVE_USE, Basic.Consume,
        lambda s: s.call(queue_declare(s.q), basic_consume(s.q))
            .send(basic_consume(s.q, exclusive=True))),
    channel_error("consume-an-exclusively-used-queue", 403, EXCLUSIVE_USE, Basic.Consume,
        lambda s: s.call(queue_declare(s.q)).elsewhere(basic_consume(s.q, exclusive=True))
            .send(basic_consume(s.q))),
    channel_error("consume-exclusively-a-single-active-consumer-queue", 403, EXCLUSIVE_USE,
        Basic.Consume,
        lambda s: s.call(
            queue_declare(s.q, arguments=table(("x-single-active-consumer", "t", True))))
            .send(basic_consume(s.q, exclusive=True))),
    *(
        channel_error(f"consume-priority-{kind}", 406,
            f"invalid arg 'x-priority' for <Q>: \"expected integer, got {kind}\"", Basic.Consume,
            consumes((), ("x-priority", tag, value)))
        for kind, tag, value in [
            ("longstr", "S", "5"),
            ("double", "d", 5.0),
            ("bool", "t", True),
            ("void", "V", None),
        ]
    ),
    *(
        channel_error(f"consume-argument-{name}-on-{kind}", 406,
            f"invalid arg '{name}' for <Q> of queue type rabbit_{kind}_queue", Basic.Consume,
            consumes(declared, (name, tag, value)), **more)
        for kind, declared in (("classic", ()), ("quorum", (QUORUM,)))
        for name, tag, value, more in [
            ("x-stream-offset", "S", "first", {}),
            ("x-stream-filter", "S", "one", {"differs_on_310": True}),
            ("x-stream-match-unfiltered", "t", True, {"differs_on_310": True}),
        ]
    ),
    connection_error("consumers-too-many", 530, "reached maximum (1) of consumers per channel",
        Basic.Consume,
        lambda s: s.call(queue_declare(s.q), basic_consume(s.q)).send(basic_consume(s.q)),
        settings={"consumers_per_channel_max": 1}),
    connection_error("qos-size", 540, "prefetch_size!=0 (10)", Basic.Qos,
        lambda s: s.send(basic_qos(prefetch_size=10))),
    connection_error("qos-size-shared", 540, "prefetch_size!=0 (4294967295)", Basic.Qos,
        lambda s: s.send(basic_qos(prefetch_size=4294967295, prefetch_count=1, shared=True))),
    connection_error("consume-quorum-with-shared-qos", 540, "<Q> does not support global qos",
        Basic.Consume,
        lambda s: s.call(queue_declare(s.q, durable=True, arguments=table(QUORUM)),
            basic_qos(prefetch_count=5, shared=True))
            .send(basic_consume(s.q))),
    # Direct reply-to
    channel_error("reply-to-consumer-with-acks", 406, "reply consumer cannot acknowledge",
        Basic.Consume, lambda s: s.send(basic_consume(REPLY_TO))),
    channel_error("reply-to-consumer-twice", 406, "reply consumer already set", Basic.Consume,
        lambda s: s.call(basic_consume(REPLY_TO, no_ack=True))
            .send(basic_consume(REPLY_TO, no_ack=True))),
    connection_error("reply-to-consumer-tag-twice", 530, "attempt to reuse consumer tag 'tag'",
        Basic.Consume,
        lambda s: s.call(queue_declare(s.q), basic_consume(s.q, "tag"))
            .send(basic_consume(REPLY_TO, "tag", no_ack=True))),
    *(
        channel_error(f"reply-to-declare-{case}", 404,
            f"no queue '{REPLY_TO}.{token}' in vhost '/'", Queue.Declare,
            sends(queue_declare(f"{REPLY_TO}.{token}", passive=passive)))
        for case, token, passive in [
            ("unknown-token", "nobody", True),
            ("unknown-token-not-passive", "nobody", False),
        ]
    ),
]

SETTLE_ROWS = [
    *(
        channel_error(f"{case}-never-issued", 406, f"unknown delivery tag {tag}", method.ids,
            sends(method))
        for case, tag, method in [
            ("ack", 1, basic_ack(1)),
            ("ack-zero", 0, basic_ack(0)),
            ("ack-largest", 18446744073709551615, basic_ack(18446744073709551615)),
            ("ack-multiple", 5, basic_ack(5, multiple=True)),
            ("nack", 1, basic_nack(1)),
            ("nack-requeue", 1, basic_nack(1, requeue=True)),
            ("nack-multiple", 7, basic_nack(7, multiple=True)),
            ("nack-zero", 0, basic_nack(0)),
            ("reject", 1, basic_reject(1)),
            ("reject-requeue", 1, basic_reject(1, requeue=True)),
            ("reject-zero", 0, basic_reject(0)),
        ]
    ),
    channel_error("ack-twice", 406, "unknown delivery tag 1", Basic.Ack,
        lambda s: s.fetch(2).send(basic_ack(1), basic_ack(1))),
    channel_error("reject-after-ack", 406, "unknown delivery tag 1", Basic.Reject,
        lambda s: s.fetch(1).send(basic_ack(1), basic_reject(1))),
    channel_error("ack-after-nack", 406, "unknown delivery tag 1", Basic.Ack,
        lambda s: s.fetch(1).send(basic_nack(1), basic_ack(1))),
    channel_error("ack-settled-by-multiple", 406, "unknown delivery tag 1", Basic.Ack,
        lambda s: s.fetch(3).send(basic_ack(2, multiple=True), basic_ack(1))),
    channel_error("ack-of-no-ack-delivery", 406, "unknown delivery tag 1", Basic.Ack,
        lambda s: s.fetch(1, no_ack=True).send(basic_ack(1))),
    channel_error("ack-multiple-of-settled-tag", 406, "unknown delivery tag 2", Basic.Ack,
        lambda s: s.fetch(2).send(basic_ack(2), basic_ack(2, multiple=True))),
    channel_error("ack-multiple-beyond-the-last", 406, "unknown delivery tag 3", Basic.Ack,
        lambda s: s.fetch(2).send(basic_ack(3, multiple=True))),
    channel_error("nack-multiple-beyond-the-last", 406, "unknown delivery tag 3", Basic.Nack,
        lambda s: s.fetch(2).send(basic_nack(3, multiple=True, requeue=True))),
    channel_error("ack-of-another-channel", 406, "unknown delivery tag 1", Basic.Ack,
        lambda s: s.on_channel_2().fetch(1, channel=2).send(basic_ack(1))),
    channel_error("ack-after-recover", 406, "unknown delivery tag 1", Basic.Ack,
        lambda s: s.fetch(1).call(basic_recover(requeue=True)).send(basic_ack(1))),
    connection_error("recover-without-requeue", 540, "requeue=false", Basic.Recover,
        lambda s: s.send(basic_recover(requeue=False))),
    connection_error("recover-async-without-requeue", 540, "requeue=false", Basic.RecoverAsync,
        lambda s: s.send(basic_recover_async(requeue=False))),
]
# fmt: on
