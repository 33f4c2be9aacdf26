"""From the history to the present: what a broker has to bring back after a restart.

The fold goes over the surviving records once, in order, and keeps the final state only: definitions
by what names them, and for each queue the messages it still holds. The rules, and why they suffice:

- A later record for the same message replaces an earlier one. Cleaning copies a message forward
  before it drops the original, so a crash in between leaves two of one id; the later names its
  holders.
- A Settled takes a queue's hold on a message away. Segments go in order, so a Settled always
  outlives the Published it cancels, and one that finds nothing has nothing to cancel.
- What names a queue by an id that is gone is ignored: a queue declared again under the same name
  has another id and inherits nothing.
- Recovery never routes. Bindings and policies may have changed since; a message stays where it was.
"""

from collections.abc import Iterable

from broker.core.message import Message
from broker.core.records import (
    Bound,
    Committed,
    ExchangeDeclared,
    ExchangeDeleted,
    Published,
    QueueDeclared,
    QueueDeleted,
    Record,
    Settled,
    Stopped,
    Unbound,
)

#: What makes a binding one: vhost, source, to a queue, destination, routing key, sorted arguments.
BindingKey = tuple[str, str, bool, str, bytes, bytes]
#: One end of a binding: vhost, whether it is a queue, name.
End = tuple[str, bool, str]


class State:
    """What the history amounts to."""

    __slots__ = (
        "bindings",
        "bindings_at",
        "exchanges",
        "holders",
        "last_message_id",
        "last_queue_id",
        "messages",
        "queues",
        "redelivered",
        "stopped",
    )

    def __init__(self) -> None:
        self.exchanges: dict[tuple[str, str], ExchangeDeclared] = {}
        self.queues: dict[int, QueueDeclared] = {}
        self.bindings: dict[BindingKey, Bound] = {}
        #: the bindings at each end, for when it goes
        self.bindings_at: dict[End, dict[BindingKey, None]] = {}
        #: messages that some queue holds, by id, and the ids of those queues
        self.messages: dict[int, Message] = {}
        self.holders: dict[int, set[int]] = {}
        self.last_message_id = 0
        self.last_queue_id = 0
        #: whether the history ends with a clean stop
        self.stopped = False
        #: after a clean stop, exactly the messages that had been delivered
        self.redelivered: frozenset[int] = frozenset()

    def by_queue(self) -> dict[int, list[Message]]:
        """The messages of each queue in their order."""
        queues: dict[int, list[Message]] = {queue_id: [] for queue_id in self.queues}
        for message_id in sorted(self.messages):
            for queue_id in self.holders[message_id]:
                if queue_id in queues:
                    queues[queue_id].append(self.messages[message_id])
        return queues


def fold(records: Iterable[Record]) -> State:
    """The state after `records`."""
    state = State()
    for record in records:
        state.stopped = False
        _apply(state, record)
    return state


def _apply(state: State, record: Record) -> None:
    if isinstance(record, Published):
        message_id = record.message.message_id
        state.messages[message_id] = record.message
        state.holders[message_id] = set(record.queue_ids)
        state.last_message_id = max(state.last_message_id, message_id)
    elif isinstance(record, Settled):
        for message_id in record.message_ids:
            _settle(state, record.queue_id, message_id)
            state.last_message_id = max(state.last_message_id, message_id)
    elif isinstance(record, Committed):
        for inner in record.records:
            _apply(state, inner)
    elif isinstance(record, Stopped):
        state.stopped = True
        state.redelivered = frozenset(record.redelivered)
    else:
        _apply_definition(state, record)


def _settle(state: State, queue_id: int, message_id: int) -> None:
    holders = state.holders.get(message_id)
    if holders is not None:
        holders.discard(queue_id)
        if not holders:
            del state.holders[message_id]
            del state.messages[message_id]


def _apply_definition(state: State, record: Record) -> None:
    if isinstance(record, QueueDeclared):
        state.queues[record.queue_id] = record
        state.last_queue_id = max(state.last_queue_id, record.queue_id)
    elif isinstance(record, QueueDeleted):
        _delete_queue(state, record.queue_id)
    elif isinstance(record, ExchangeDeclared):
        state.exchanges[record.vhost, record.name] = record
    elif isinstance(record, ExchangeDeleted):
        state.exchanges.pop((record.vhost, record.name), None)
        _delete_end(state, (record.vhost, False, record.name))
    elif isinstance(record, Unbound):
        state.bindings.pop(binding_key(record), None)
    elif isinstance(record, Bound):
        key = binding_key(record)
        state.bindings[key] = record
        for end in (
            (record.vhost, False, record.source),
            (record.vhost, record.to_queue, record.destination),
        ):
            state.bindings_at.setdefault(end, {})[key] = None
    else:
        raise AssertionError(f"the fold knows every record, but not {type(record).__name__}")


def _delete_queue(state: State, queue_id: int) -> None:
    declared = state.queues.pop(queue_id, None)
    state.last_queue_id = max(state.last_queue_id, queue_id)
    if declared is not None:
        _delete_end(state, (declared.vhost, True, declared.name))


def _delete_end(state: State, end: End) -> None:
    """Remove the bindings of an exchange or a queue that was deleted."""
    for key in state.bindings_at.pop(end, ()):
        state.bindings.pop(key, None)


def binding_key(record: Bound | Unbound) -> BindingKey:
    """What makes the binding of `record` one binding."""
    return (
        record.vhost,
        record.source,
        record.to_queue,
        record.destination,
        record.routing_key,
        record.arguments.sorted_raw(),
    )
