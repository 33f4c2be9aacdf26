"""From the history to the present: what a broker has to bring back after a restart.

The fold goes over the surviving records once, in order, and keeps the final state only: definitions
by what names them, and for each message the queues that still hold it. The rules, and why they
suffice:

- A later record for the same message replaces an earlier one. Cleaning copies a message forward
  before it drops the original, so a crash in between leaves two of one id; the later names its
  holders.
- A Settled takes a queue's hold on a message away. Segments go in order, so a Settled always
  outlives the Published it cancels, and one that finds nothing has nothing to cancel.
- A queue that is gone holds nothing: one declared again under the same name has another id and
  inherits nothing. This is looked at in the end, because cleaning says a definition again, so that
  its first surviving record may lie behind the messages and bindings that need it.
- For the same reason what ends an exchange or a queue ends all its bindings by name, whether or not
  the record that began it survives.
- Recovery never routes. Bindings and policies may have changed since; a message stays where it was.
"""

from collections.abc import Iterable, Sequence

from broker.core.columns import Columns
from broker.core.message import Message
from broker.core.records import (
    BindingRecord,
    Bound,
    Committed,
    Counters,
    Definition,
    Delivered,
    ExchangeDeclared,
    ExchangeDeleted,
    Published,
    PublishedTogether,
    QueueDeclared,
    QueueDeleted,
    Record,
    Settled,
    Started,
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
        "columns",
        "definition_bytes",
        "delivered",
        "exchanges",
        "last_message_id",
        "last_queue_id",
        "queues",
        "shared",
        "stopped",
    )

    def __init__(self) -> None:
        self.exchanges: dict[tuple[str, str], ExchangeDeclared] = {}
        self.queues: dict[int, QueueDeclared] = {}
        self.bindings: dict[BindingKey, Bound] = {}
        #: the bindings at each end, for when it goes
        self.bindings_at: dict[End, dict[BindingKey, None]] = {}
        #: octets of the records of all these definitions
        self.definition_bytes = 0
        #: messages written for several queues, by id; `queue_ids` has those that hold them
        self.shared: dict[int, Published] = {}
        #: messages written for one queue, by its id
        self.columns: dict[int, Columns] = {}
        self.last_message_id = 0
        self.last_queue_id = 0
        #: whether the history ends with a clean stop
        self.stopped = False
        #: after a clean stop, exactly the messages of each queue that had been delivered
        self.delivered: dict[int, frozenset[int]] = {}

    @property
    def messages(self) -> dict[int, Published]:
        """All messages that some queue holds, by id, as objects: for those who have few."""
        messages = dict(self.shared)
        for queue_id, columns in self.columns.items():
            for message_id, position, body_size in columns.rows():
                message = Message(b"", b"", b"", body_size, True)
                message.message_id = message_id
                message.position = position
                message.holders = 1
                messages[message_id] = Published(message, (queue_id,))
        return messages

    def without_messages(self) -> "State":
        """The same definitions and counters, kept on behalf of a history that goes on."""
        state = State()
        state.exchanges = self.exchanges
        state.queues = self.queues
        state.bindings = self.bindings
        state.bindings_at = self.bindings_at
        state.definition_bytes = self.definition_bytes
        state.last_message_id = self.last_message_id
        state.last_queue_id = self.last_queue_id
        return state

    def definitions_before(self, position: int) -> list[Definition]:
        """The definitions that hold and were recorded before `position`."""
        definitions: list[Definition] = []
        definitions += self.exchanges.values()
        definitions += self.queues.values()
        definitions += self.bindings.values()
        return [definition for definition in definitions if definition.position < position]

    def holds(self, definition: Definition) -> bool:
        """Whether this very definition still holds."""
        current: Definition | None
        if isinstance(definition, QueueDeclared):
            current = self.queues.get(definition.queue_id)
        elif isinstance(definition, ExchangeDeclared):
            current = self.exchanges.get((definition.vhost, definition.name))
        else:
            assert isinstance(definition, Bound), "nothing else is remembered"
            current = self.bindings.get(binding_key(definition))
        return current is definition

    def is_redelivered(self, queue_id: int, message_id: int) -> bool:
        """Whether a recovered message may have been delivered before.

        After a clean stop that is known; after a crash it is assumed of all, since a delivery
        leaves no trace of its own.
        """
        return not self.stopped or message_id in self.delivered.get(queue_id, ())


def fold(records: Iterable[Record]) -> State:
    """The state after `records`."""
    state = State()
    for record in records:
        if state.stopped:
            state.stopped = False
            state.delivered.clear()
        _apply(state, record)
    _drop_orphans(state)
    return state


def _apply(state: State, record: Record) -> None:
    if isinstance(record, Published):
        _publish(state, record)
    elif isinstance(record, PublishedTogether):
        _publish_together(state, record)
    elif isinstance(record, Settled):
        for message_id in record.message_ids:
            _settle(state, record.queue_id, message_id)
            state.last_message_id = max(state.last_message_id, message_id)
    elif isinstance(record, Committed):
        for inner in record.records:
            _apply(state, inner)
    elif isinstance(record, Counters):
        state.last_message_id = max(state.last_message_id, record.message_id)
        state.last_queue_id = max(state.last_queue_id, record.queue_id)
    elif isinstance(record, Delivered):
        state.delivered[record.queue_id] = frozenset(record.message_ids)
    elif isinstance(record, Stopped):
        state.stopped = True
    elif not isinstance(record, Started):
        apply_definition(state, record)


def _publish(state: State, record: Published) -> None:
    message = record.message
    message_id = message.message_id
    queue_ids = record.queue_ids
    if message_id <= state.last_message_id:
        # It was written before: this is a copy, or several queues come to know of it late.
        state.shared.pop(message_id, None)
        for columns in state.columns.values() if len(queue_ids) > 1 else ():
            columns.remove(message_id)
    if len(queue_ids) > 1:
        state.shared[message_id] = record
    else:
        queue_id = queue_ids[0]
        columns = state.columns.get(queue_id) or state.columns.setdefault(queue_id, Columns())
        if message_id <= state.last_message_id:
            columns.remove(message_id)
        columns.add(message_id, message.position, message.body_size)
    state.last_message_id = max(state.last_message_id, message_id)


def _publish_together(state: State, record: PublishedTogether) -> None:
    ids = record.message_ids
    queue_id = record.queue_id
    columns = state.columns.get(queue_id) or state.columns.setdefault(queue_id, Columns())
    if ids[0] > state.last_message_id and columns.extend(ids, record.positions, record.body_sizes):
        state.last_message_id = ids[-1]
        return
    for message_id, position, body_size in zip(
        ids, record.positions, record.body_sizes, strict=True
    ):
        if message_id <= state.last_message_id:
            state.shared.pop(message_id, None)
            columns.remove(message_id)
        columns.add(message_id, position, body_size)
        state.last_message_id = max(state.last_message_id, message_id)


def _settle(state: State, queue_id: int, message_id: int) -> None:
    columns = state.columns.get(queue_id)
    if columns is not None and columns.remove(message_id):
        return
    record = state.shared.get(message_id)
    if record is not None:
        _hold(state, record, [holder for holder in record.queue_ids if holder != queue_id])


def _hold(state: State, record: Published, queue_ids: Sequence[int]) -> None:
    """These queues hold a message; with none of them it is forgotten."""
    if queue_ids:
        record.queue_ids = queue_ids
    else:
        del state.shared[record.message.message_id]


def _drop_orphans(state: State) -> None:
    """A queue that is gone took its messages with it."""
    queues = state.queues
    for queue_id in [queue_id for queue_id in state.columns if queue_id not in queues]:
        del state.columns[queue_id]
    for columns in state.columns.values():
        columns.settle()
    orphans: list[Published] = []
    for record in state.shared.values():
        for queue_id in record.queue_ids:
            if queue_id not in queues:
                orphans.append(record)
                break
    for record in orphans:
        _hold(state, record, [queue_id for queue_id in record.queue_ids if queue_id in queues])


def apply_definition(state: State, record: Record) -> None:
    """Have `state` know a definition, or forget what `record` ends."""
    if isinstance(record, QueueDeclared):
        _replace(state, state.queues.get(record.queue_id), record)
        state.queues[record.queue_id] = record
        state.last_queue_id = max(state.last_queue_id, record.queue_id)
    elif isinstance(record, QueueDeleted):
        _replace(state, state.queues.pop(record.queue_id, None), None)
        state.last_queue_id = max(state.last_queue_id, record.queue_id)
        _delete_end(state, (record.vhost, True, record.name))
    elif isinstance(record, ExchangeDeclared):
        key = (record.vhost, record.name)
        _replace(state, state.exchanges.get(key), record)
        state.exchanges[key] = record
    elif isinstance(record, ExchangeDeleted):
        _replace(state, state.exchanges.pop((record.vhost, record.name), None), None)
        _delete_end(state, (record.vhost, False, record.name))
    elif isinstance(record, Bound):
        _bind(state, record)
    elif isinstance(record, Unbound):
        _unbind(state, binding_key(record))
    else:
        raise AssertionError(f"the fold knows every record, but not {type(record).__name__}")


def _replace(state: State, old: Definition | None, new: Definition | None) -> None:
    """Count the octets of `new` instead of those of `old`."""
    if old is not None:
        state.definition_bytes -= old.length
    if new is not None:
        state.definition_bytes += new.length


def _bind(state: State, bound: Bound) -> None:
    key = binding_key(bound)
    _replace(state, state.bindings.get(key), bound)
    state.bindings[key] = bound
    for end in _ends(key):
        state.bindings_at.setdefault(end, {})[key] = None


def _unbind(state: State, key: BindingKey) -> None:
    bound = state.bindings.pop(key, None)
    if bound is not None:
        _replace(state, bound, None)
        for end in _ends(key):
            bindings = state.bindings_at.get(end)
            if bindings is not None:
                bindings.pop(key, None)
                if not bindings:
                    del state.bindings_at[end]


def _delete_end(state: State, end: End) -> None:
    """Remove the bindings of an exchange or a queue that was deleted."""
    for key in state.bindings_at.pop(end, ()):
        _unbind(state, key)


def _ends(key: BindingKey) -> tuple[End, End]:
    vhost, source, to_queue, destination, _, _ = key
    return (vhost, False, source), (vhost, to_queue, destination)


def binding_key(record: BindingRecord) -> BindingKey:
    """What makes the binding of `record` one binding."""
    return (
        record.vhost,
        record.source,
        record.to_queue,
        record.destination,
        record.routing_key,
        record.arguments.sorted_raw(),
    )
