"""From the history to the present, rule by rule."""

from collections.abc import Sequence

from core_support import a_message

from broker.core.records import (
    Bound,
    Committed,
    Counters,
    Delivered,
    ExchangeDeclared,
    ExchangeDeleted,
    Published,
    QueueDeclared,
    QueueDeleted,
    Record,
    Settled,
    Started,
    Stopped,
    Unbound,
)
from broker.core.recovery import State, fold
from broker.core.table import Table


def published(message_id: int, *queue_ids: int) -> Published:
    """A message with this id for these queues."""
    message = a_message(persistent=True)
    message.message_id = message_id
    return Published(message, queue_ids)


def queue(queue_id: int, name: str | None = None, vhost: str = "/") -> QueueDeclared:
    """A queue, called after its id."""
    return QueueDeclared(vhost, queue_id, name or f"queue-{queue_id}", False, Table.EMPTY)


def exchange(name: str, type_name: str = "direct", vhost: str = "/") -> ExchangeDeclared:
    """An exchange."""
    return ExchangeDeclared(vhost, name, type_name, False, False, Table.EMPTY)


def bound(
    source: str, destination: str, *, to_queue: bool = True, key: bytes = b"key", vhost: str = "/"
) -> Bound:
    """A binding."""
    return Bound(vhost, source, destination, to_queue, key, Table.EMPTY)


def unbound(binding: Bound) -> Unbound:
    """What removes `binding`."""
    return Unbound(
        binding.vhost,
        binding.source,
        binding.destination,
        binding.to_queue,
        binding.routing_key,
        binding.arguments,
    )


def holders(state: State) -> dict[int, list[int]]:
    """Which queues hold each message."""
    return {message_id: list(record.queue_ids) for message_id, record in state.messages.items()}


def places(definitions: Sequence[Record]) -> list[Record]:
    """`definitions` as a log has them: one behind the other, each ten octets long."""
    for number, definition in enumerate(definitions):
        if isinstance(definition, QueueDeclared | ExchangeDeclared | Bound):
            definition.position = number * 10
            definition.length = 10
    return list(definitions)


# Messages.


def test_a_published_message_is_in_its_queues() -> None:
    """A message is held by the queues it was published to, and by no others."""
    state = fold([queue(1), queue(2), queue(3), published(7, 1, 3)])

    assert holders(state) == {7: [1, 3]}


def test_settled_by_one_of_two_holders() -> None:
    """A settlement takes the message from its queue alone."""
    state = fold([queue(1), queue(2), published(7, 1, 2), Settled(1, [7])])

    assert holders(state) == {7: [2]}


def test_settled_by_all_holders() -> None:
    """A message that nobody holds any more is forgotten."""
    state = fold([queue(1), queue(2), published(7, 1, 2), Settled(1, [7]), Settled(2, [7])])

    assert holders(state) == {}


def test_settled_twice() -> None:
    """A settlement of what was settled before changes nothing."""
    state = fold([queue(1), queue(2), published(7, 1, 2), Settled(1, [7]), Settled(1, [7])])

    assert holders(state) == {7: [2]}


def test_settled_and_unknown() -> None:
    """A settlement outlives the message it settled, and is ignored then."""
    state = fold([queue(1), Settled(1, [5, 6]), published(7, 1)])

    assert holders(state) == {7: [1]}


def test_a_copy_replaces_the_original() -> None:
    """Of two records of one message the later names its holders, as cleaning wrote it."""
    original, copy = published(7, 1, 2), published(7, 2)
    copy.message.position = 99
    state = fold([queue(1), queue(2), original, Settled(1, [7]), copy])

    assert holders(state) == {7: [2]}
    assert state.messages[7].message.position == 99


def test_a_copy_is_settled_like_an_original() -> None:
    """What is settled after it was copied does not come back, the original included."""
    records = [queue(1), queue(2), published(7, 1, 2), Settled(1, [7]), published(7, 2)]
    state = fold([*records, Settled(2, [7])])

    assert holders(state) == {}


def test_a_copy_without_its_original() -> None:
    """The head of the log is gone: the copy is enough, and settlements before it don't matter."""
    state = fold([Settled(1, [7]), published(7, 2), queue(1), queue(2)])

    assert holders(state) == {7: [2]}


def test_a_deleted_queue_takes_its_messages_along() -> None:
    """A message is gone with the last queue that held it."""
    records = [queue(1), queue(2), published(7, 1, 2), published(8, 1)]
    state = fold([*records, QueueDeleted("/", 1, "queue-1")])

    assert holders(state) == {7: [2]}


def test_a_queue_of_the_same_name_inherits_nothing() -> None:
    """A queue declared again has another id, and the messages of the old one stay away."""
    records = [queue(1, "name"), published(7, 1), QueueDeleted("/", 1, "name"), queue(2, "name")]
    state = fold(records)

    assert holders(state) == {}
    assert [declared.queue_id for declared in state.queues.values()] == [2]


def test_a_queue_may_be_declared_behind_its_messages() -> None:
    """Cleaning says a definition again, so its first surviving record may come late."""
    state = fold([published(7, 1), Settled(1, [6]), queue(1)])

    assert holders(state) == {7: [1]}


def test_a_transaction_is_read_like_its_records() -> None:
    """A transaction publishes and settles."""
    state = fold(
        [queue(1), queue(2), published(7, 1), Committed([published(8, 1, 2), Settled(1, [7])])]
    )

    assert holders(state) == {8: [1, 2]}


# Definitions.


def test_definitions_by_what_names_them() -> None:
    """The last declaration of a name in its vhost is the one that holds."""
    state = fold(
        [
            exchange("x"),
            exchange("x", vhost="other"),
            ExchangeDeleted("/", "x"),
            exchange("x", "topic"),
            queue(1),
        ]
    )

    assert {key: each.type_name for key, each in state.exchanges.items()} == {
        ("/", "x"): "topic",
        ("other", "x"): "direct",
    }
    assert [each.name for each in state.queues.values()] == ["queue-1"]


def test_a_binding_is_one_however_often_it_is_made() -> None:
    """What makes a binding one is its ends, its key and its arguments in any order."""
    one = Bound("/", "x", "q", True, b"k", Table.from_python({"a": 1, "b": 2}))
    same = Bound("/", "x", "q", True, b"k", Table.from_python({"b": 2, "a": 1}))
    other = Bound("/", "x", "q", False, b"k", Table.from_python({"a": 1, "b": 2}))
    state = fold([one, same, other])

    assert list(state.bindings.values()) == [same, other]


def test_an_unbinding_ends_its_binding_alone() -> None:
    """Bindings of another key, to another end or in another vhost stay."""
    binding = bound("x", "q")
    others = [
        bound("x", "q", key=b"other"),
        bound("x", "q", to_queue=False),
        bound("x", "q", vhost="other"),
        bound("y", "q"),
    ]
    state = fold([binding, *others, unbound(binding)])

    assert list(state.bindings.values()) == others


def test_an_exchange_takes_its_bindings_along() -> None:
    """With an exchange go the bindings from it and to it, and no others."""
    gone = [bound("x", "q"), bound("y", "x", to_queue=False)]
    stay = [bound("y", "q"), bound("y", "x", to_queue=True)]
    state = fold([exchange("x"), exchange("y"), *gone, *stay, ExchangeDeleted("/", "x")])

    assert list(state.bindings.values()) == stay


def test_a_queue_takes_its_bindings_along() -> None:
    """A queue of the same name does not inherit the bindings of the deleted one."""
    stay = [bound("x", "other"), bound("x", "name", to_queue=False)]
    state = fold(
        [
            exchange("x"),
            queue(1, "name"),
            bound("x", "name"),
            *stay,
            QueueDeleted("/", 1, "name"),
            queue(2, "name"),
        ]
    )

    assert list(state.bindings.values()) == stay


def test_a_deletion_ends_bindings_though_the_declaration_is_cleaned_away() -> None:
    """The declaration was dead when the head was dropped; its binding lay in a later segment."""
    state = fold(
        [
            bound("x", "name"),
            bound("gone", "other"),
            QueueDeleted("/", 1, "name"),
            ExchangeDeleted("/", "gone"),
            queue(2, "name"),
            queue(3, "other"),
            exchange("gone"),
            exchange("x"),
        ]
    )

    assert state.bindings == {}


def test_nothing_is_remembered_of_bindings_that_ended() -> None:
    """Binding and unbinding again and again takes no memory."""
    records: list[Record] = [exchange("x"), queue(1, "q")]
    for number in range(10):
        binding = bound("x", "q", key=b"%d" % number)
        records += [binding, unbound(binding)]
    state = fold(records)

    assert state.bindings == {}
    assert state.bindings_at == {}


def test_the_octets_of_definitions_are_counted() -> None:
    """What holds counts once, however often it was said, and no more when it ended."""
    binding = bound("x", "queue-1")
    records = places([exchange("x"), queue(1), binding, queue(1), exchange("y"), queue(2)])
    assert fold(records).definition_bytes == 50

    records.append(unbound(binding))
    assert fold(records).definition_bytes == 40

    records += [QueueDeleted("/", 1, "queue-1"), ExchangeDeleted("/", "x")]
    assert fold(records).definition_bytes == 20

    records += [QueueDeleted("/", 1, "queue-1"), ExchangeDeleted("/", "x"), unbound(binding)]
    assert fold(records).definition_bytes == 20


def test_definitions_before_a_position() -> None:
    """Cleaning asks which definitions lie in the part that is to go; the last record counts."""
    again = queue(1)
    records = places([exchange("x"), queue(1), bound("x", "queue-1"), queue(2), again])
    state = fold(records)

    assert state.definitions_before(30) == [records[0], records[2]]
    assert state.definitions_before(1000) == [records[0], again, records[3], records[2]]


def test_whether_a_definition_holds() -> None:
    """A definition holds until it ends or is said again."""
    first, again, x, binding = queue(1), queue(1), exchange("x"), bound("x", "queue-1")
    state = fold([x, first, binding, again])
    assert [state.holds(each) for each in (first, again, x, binding)] == [False, True, True, True]

    state = fold([x, first, binding, again, ExchangeDeleted("/", "x")])
    assert [state.holds(each) for each in (again, x, binding)] == [True, False, False]


# Ids.


def test_ids_are_never_given_again() -> None:
    """Whatever shows that an id was given counts, be the thing gone or not."""
    assert fold([queue(1), published(7, 1)]).last_message_id == 7
    assert fold([Settled(1, [3, 9])]).last_message_id == 9
    assert fold([queue(4), queue(2)]).last_queue_id == 4
    assert fold([QueueDeleted("/", 5, "q"), queue(2)]).last_queue_id == 5
    assert fold([Committed([published(8, 1)])]).last_message_id == 8


def test_counters_stand_for_what_was_cleaned_away() -> None:
    """Counters say the ids of records that are gone; later records may say more."""
    state = fold([Counters(50, 6), queue(7), published(40, 7)])

    assert (state.last_message_id, state.last_queue_id) == (50, 7)


# What had been delivered.


def test_after_a_clean_stop_it_is_known_what_was_delivered() -> None:
    """Exactly what the stop recorded is redelivered, queue by queue."""
    state = fold([queue(1), queue(2), published(7, 1, 2), Delivered(1, [7]), Stopped()])

    assert state.stopped
    assert state.is_redelivered(1, 7)
    assert not state.is_redelivered(2, 7)


def test_after_a_crash_everything_may_have_been_delivered() -> None:
    """A delivery leaves no trace, so without a clean stop every message is redelivered."""
    state = fold([queue(1), published(7, 1)])

    assert not state.stopped
    assert state.is_redelivered(1, 7)


def test_a_clean_stop_counts_only_at_the_end() -> None:
    """What happens after it could have delivered anything; the beginning of a life is enough."""
    records = [queue(1), published(7, 1), Stopped()]

    for after in (Started(), published(8, 1), Settled(1, [5]), queue(2)):
        state = fold([*records, after])
        assert not state.stopped
        assert state.is_redelivered(1, 7)


def test_a_clean_stop_forgets_the_one_before() -> None:
    """What the last stop says of a queue holds, also when it says nothing."""
    records = [queue(1), published(7, 1), Delivered(1, [7]), Stopped(), Started()]
    state = fold([*records, Stopped()])

    assert not state.is_redelivered(1, 7)


# What goes on.


def test_the_definitions_go_on_without_the_messages() -> None:
    """A store keeps the definitions and the counters; a long log must not stay in memory twice."""
    state = fold([*places([queue(1), exchange("x")]), published(7, 1)])
    rest = state.without_messages()

    assert rest.messages == {}
    assert rest.queues == state.queues
    assert rest.exchanges == state.exchanges
    assert rest.definition_bytes == 20
    assert (rest.last_message_id, rest.last_queue_id) == (7, 1)
