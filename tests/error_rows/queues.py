"""Names, owners and properties of queues; purging and deleting them."""

from collections.abc import Callable

from pamqp.commands import Basic, Queue
from wire_methods import (
    Method,
    basic_consume,
    basic_get,
    basic_qos,
    queue_bind,
    queue_declare,
    queue_delete,
    queue_purge,
    queue_unbind,
    table,
)

from error_rows import QUORUM, Ids, Row, Scene, channel_error, connection_error, sends

LOCKED = (
    "cannot obtain exclusive access to locked <Q>. It could be originally declared on another "
    "connection or the exclusive property value does not match that of the original declaration."
)
NO_QUEUE_DECLARED = "no previously declared queue"


def locked(id: str, method: Ids, request: Callable[[Scene], Method]) -> Row:
    """A request for a queue that is exclusive to another connection and bound to amq.direct."""
    return channel_error(
        f"exclusive-elsewhere-{id}",
        405,
        LOCKED,
        method,
        lambda s: s.elsewhere(
            queue_declare(s.q, exclusive=True), queue_bind(s.q, "amq.direct", s.q)
        ).send(request(s)),
    )


# fmt: off
NAME_ROWS = [
    channel_error("queue-reserved-name", 403,
        "queue name 'amq.<q>' contains reserved prefix 'amq.*'", Queue.Declare,
        lambda s: s.send(queue_declare(f"amq.{s.q}"))),
    channel_error("queue-reserved-name-after-stripping", 403,
        "queue name 'amq.<q>' contains reserved prefix 'amq.*'", Queue.Declare,
        lambda s: s.send(queue_declare(f"\namq.{s.q}\r"))),
    channel_error("queue-reserved-name-nowait", 403,
        "queue name 'amq.<q>' contains reserved prefix 'amq.*'", Queue.Declare,
        lambda s: s.send(queue_declare(f"amq.{s.q}", nowait=True))),
    channel_error("queue-passive-missing", 404, "no <Q>", Queue.Declare,
        lambda s: s.send(queue_declare(s.q, passive=True))),
    channel_error("queue-passive-missing-nowait", 404, "no <Q>", Queue.Declare,
        lambda s: s.send(queue_declare(s.q, passive=True, nowait=True))),
    channel_error("queue-passive-missing-after-stripping", 404, "no <Q>", Queue.Declare,
        lambda s: s.send(queue_declare(f"\r{s.q}\n", passive=True))),
    channel_error("queue-passive-missing-reserved", 404, "no queue 'amq.<q>' in vhost '/'",
        Queue.Declare, lambda s: s.send(queue_declare(f"amq.{s.q}", passive=True))),
    channel_error("queue-passive-without-name", 404, "no queue '' in vhost '/'", Queue.Declare,
        lambda s: s.call(queue_declare(s.q)).send(queue_declare("", passive=True))),
    channel_error("queue-passive-very-long-name", 404, f"no queue '{'n' * 255}' in vhost '/'",
        Queue.Declare, lambda s: s.send(queue_declare("n" * 255, passive=True))),
    channel_error("queue-passive-not-ascii", 404, "no queue 'häschen-€' in vhost '/'",
        Queue.Declare, lambda s: s.send(queue_declare("häschen-€", passive=True))),
    channel_error("queue-name-is-case-sensitive", 404, "no queue 'UPPER-<q>' in vhost '/'",
        Queue.Declare,
        lambda s: s.call(queue_declare(f"upper-{s.q}", auto_delete=True, exclusive=True))
            .send(queue_declare(f"UPPER-{s.q}", passive=True))),
    *(
        channel_error(f"no-queue-declared-{case}", 404, NO_QUEUE_DECLARED, method.ids,
            sends(method))
        for case, method in [
            ("bind", queue_bind("", "amq.direct")),
            ("unbind", queue_unbind("", "amq.direct")),
            ("purge", queue_purge("")),
            ("delete", queue_delete("")),
            ("get", basic_get("")),
            ("consume", basic_consume("")),
        ]
    ),
    channel_error("no-queue-declared-on-this-channel", 404, NO_QUEUE_DECLARED, Queue.Purge,
        lambda s: s.on_channel_2(queue_declare(s.q)).send(queue_purge(""))),
    channel_error("last-queue-declared-is-gone", 404, "no <Q>", Queue.Purge,
        lambda s: s.call(queue_declare(s.q), queue_delete("")).send(queue_purge(""))),
]

OWNER_ROWS = [
    locked("declare", Queue.Declare, lambda s: queue_declare(s.q)),
    locked("declare-exclusive", Queue.Declare, lambda s: queue_declare(s.q, exclusive=True)),
    locked("declare-passive", Queue.Declare, lambda s: queue_declare(s.q, passive=True)),
    locked("bind", Queue.Bind, lambda s: queue_bind(s.q, "amq.direct")),
    locked("unbind", Queue.Unbind, lambda s: queue_unbind(s.q, "amq.direct", s.q)),
    locked("purge", Queue.Purge, lambda s: queue_purge(s.q)),
    locked("delete", Queue.Delete, lambda s: queue_delete(s.q)),
    locked("get", Basic.Get, lambda s: basic_get(s.q)),
    locked("consume", Basic.Consume, lambda s: basic_consume(s.q)),
    channel_error("exclusive-asked-of-a-shared-queue", 405, LOCKED, Queue.Declare,
        lambda s: s.call(queue_declare(s.q)).send(queue_declare(s.q, exclusive=True))),
    channel_error("exclusive-not-asked-of-own-queue", 405, LOCKED, Queue.Declare,
        lambda s: s.call(queue_declare(s.q, exclusive=True)).send(queue_declare(s.q))),
    channel_error("exclusive-before-durable", 405, LOCKED, Queue.Declare,
        lambda s: s.call(queue_declare(s.q))
            .send(queue_declare(s.q, exclusive=True, durable=True, auto_delete=True))),
]

PROPERTY_ROWS = [
    channel_error("queue-redeclare-durable", 406,
        "inequivalent arg 'durable' for <Q>: received 'true' but current is 'false'", Queue.Declare,
        lambda s: s.call(queue_declare(s.q)).send(queue_declare(s.q, durable=True))),
    channel_error("queue-redeclare-not-durable", 406,
        "inequivalent arg 'durable' for <Q>: received 'false' but current is 'true'", Queue.Declare,
        lambda s: s.call(queue_declare(s.q, durable=True)).send(queue_declare(s.q))),
    channel_error("queue-redeclare-auto-delete", 406,
        "inequivalent arg 'auto_delete' for <Q>: received 'true' but current is 'false'",
        Queue.Declare,
        lambda s: s.call(queue_declare(s.q)).send(queue_declare(s.q, auto_delete=True))),
    channel_error("queue-redeclare-exclusive-auto-delete", 406,
        "inequivalent arg 'auto_delete' for <Q>: received 'false' but current is 'true'",
        Queue.Declare,
        lambda s: s.call(queue_declare(s.q, exclusive=True, auto_delete=True))
            .send(queue_declare(s.q, exclusive=True, durable=True))),
    channel_error("queue-redeclare-durable-before-auto-delete", 406,
        "inequivalent arg 'durable' for <Q>: received 'true' but current is 'false'", Queue.Declare,
        lambda s: s.call(queue_declare(s.q))
            .send(queue_declare(s.q, durable=True, auto_delete=True))),
    channel_error("queue-redeclare-auto-delete-before-arguments", 406,
        "inequivalent arg 'auto_delete' for <Q>: received 'true' but current is 'false'",
        Queue.Declare,
        lambda s: s.call(queue_declare(s.q))
            .send(
                queue_declare(s.q, auto_delete=True, arguments=table(("x-expires", "I", 60000))))),
    channel_error("queue-redeclare-nowait", 406,
        "inequivalent arg 'durable' for <Q>: received 'true' but current is 'false'", Queue.Declare,
        lambda s: s.call(queue_declare(s.q)).send(queue_declare(s.q, durable=True, nowait=True))),
]

DELETE_ROWS = [
    channel_error("delete-not-empty", 406, "<Q> not empty", Queue.Delete,
        lambda s: s.call(queue_declare(s.q)).fill(b"one").send(queue_delete(s.q, if_empty=True))),
    channel_error("delete-in-use", 406, "<Q> in use", Queue.Delete,
        lambda s: s.call(queue_declare(s.q), basic_consume(s.q))
            .send(queue_delete(s.q, if_unused=True))),
    channel_error("delete-not-empty-before-in-use", 406, "<Q> not empty", Queue.Delete,
        lambda s: s.call(queue_declare(s.q), basic_qos(prefetch_count=1)).fill(b"one", b"two")
            .call(basic_consume(s.q)).expect_content(Basic.Deliver)
            .send(queue_delete(s.q, if_unused=True, if_empty=True))),
    channel_error("delete-in-use-nowait", 406, "<Q> in use", Queue.Delete,
        lambda s: s.call(queue_declare(s.q), basic_consume(s.q))
            .send(queue_delete(s.q, if_unused=True, nowait=True))),
    connection_error("quorum-delete-if-unused", 540,
        "cannot delete <Q>. queue.delete operations with if-unused flag set are not supported "
        "by quorum queues", Queue.Delete,
        lambda s: s.call(queue_declare(s.q, durable=True, arguments=table(QUORUM)))
            .send(queue_delete(s.q, if_unused=True))),
    connection_error("quorum-delete-if-empty", 540,
        "cannot delete <Q>. queue.delete operations with if-empty flag set are not supported "
        "by quorum queues", Queue.Delete,
        lambda s: s.call(queue_declare(s.q, durable=True, arguments=table(QUORUM)))
            .send(queue_delete(s.q, if_empty=True))),
    channel_error("purge-missing", 404, "no <Q>", Queue.Purge, lambda s: s.send(queue_purge(s.q))),
    channel_error("purge-missing-nowait", 404, "no <Q>", Queue.Purge,
        lambda s: s.send(queue_purge(s.q, nowait=True))),
]
# fmt: on
