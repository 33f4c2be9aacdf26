"""A vhost: exchanges, queues, bindings and consumers, and what is recorded of their changes."""

from collections.abc import Callable
from functools import partial

import pytest
from core_support import (
    Core,
    RecordingSink,
    ReleasingStore,
    a_message,
    held_core,
    memory_core,
    recorded,
)

from broker.core.binding import Destination
from broker.core.queue import Queue
from broker.core.records import (
    Bound,
    ExchangeDeclared,
    ExchangeDeleted,
    Published,
    QueueDeclared,
    QueueDeleted,
    Unbound,
)
from broker.core.table import Field, Table
from broker.core.vhost import VirtualHost
from broker.errors import (
    AccessRefused,
    AMQPError,
    NotFound,
    NotImplemented_,
    PreconditionFailed,
    ResourceLocked,
)
from broker.store.memory import HeldStore

LOCKED = (
    "cannot obtain exclusive access to locked queue 'q' in vhost '/'. It could be originally "
    "declared on another connection or the exclusive property value does not match that of the "
    "original declaration."
)


def a_vhost() -> VirtualHost:
    """An empty vhost."""
    return memory_core().vhost


def table(**values: object) -> Table:
    """Arguments, with dashes where names here have underscores."""
    return Table.from_python({name.replace("_", "-"): value for name, value in values.items()})


def kinds(core: Core[HeldStore]) -> list[str]:
    """The records of the history, by name."""
    return [type(record).__name__ for record in core.store.records]


def refusal(error: type[AMQPError], action: Callable[[], object]) -> str:
    """The text with which `action` is refused."""
    with pytest.raises(error) as refused:
        action()
    return refused.value.text


# Exchanges.


def test_a_vhost_has_the_predeclared_exchanges() -> None:
    """All are durable; only the one for tracing is internal."""
    exchanges = a_vhost().exchanges

    assert {name: exchange.type_name for name, exchange in exchanges.items()} == {
        "": "direct",
        "amq.direct": "direct",
        "amq.fanout": "fanout",
        "amq.topic": "topic",
        "amq.headers": "headers",
        "amq.match": "headers",
        "amq.rabbitmq.trace": "topic",
    }
    assert all(exchange.durable and not exchange.auto_delete for exchange in exchanges.values())
    assert [name for name, exchange in exchanges.items() if exchange.internal] == [
        "amq.rabbitmq.trace"
    ]


def test_predeclared_exchanges_are_not_recorded() -> None:
    """They are there anyway."""
    assert held_core().store.records == []


@pytest.mark.parametrize("type_name", ["direct", "fanout", "topic", "headers"])
def test_declaring_makes_an_exchange(type_name: str) -> None:
    """It has the attributes asked for and is found by its name."""
    vhost = a_vhost()
    exchange = vhost.declare_exchange(
        "x", type_name, auto_delete=True, internal=True, arguments=table(alternate_exchange="ae")
    )

    assert vhost.exchange("x") is exchange
    assert (exchange.type_name, exchange.alternate) == (type_name, "ae")
    assert (exchange.durable, exchange.auto_delete, exchange.internal) == (False, True, True)


def test_declaring_an_equal_exchange_finds_the_first() -> None:
    """Arguments that mean nothing are not compared."""
    vhost = a_vhost()
    first = vhost.declare_exchange("x", "topic", durable=True, arguments=table(mark=1))

    assert vhost.declare_exchange("x", "topic", durable=True, arguments=table(mark=2)) is first


def test_a_predeclared_exchange_may_be_declared_again() -> None:
    """The reserved prefix is refused only where something would be made."""
    vhost = a_vhost()

    assert vhost.declare_exchange("amq.topic", "topic", durable=True) is vhost.exchange("amq.topic")


@pytest.mark.parametrize(
    ("changes", "property_", "received", "current"),
    [
        ({"type_name": "fanout", "durable": True}, "type", "fanout", "topic"),
        ({"durable": True, "auto_delete": True}, "durable", "true", "false"),
        ({"auto_delete": True, "internal": True}, "auto_delete", "true", "false"),
        (
            {"internal": True, "arguments": table(alternate_exchange="b")},
            "internal",
            "true",
            "false",
        ),
        ({"arguments": table(alternate_exchange="b")}, "alternate-exchange", "b", "a"),
    ],
)
def test_the_first_attribute_that_differs_is_named(
    changes: dict[str, object], property_: str, received: str, current: str
) -> None:
    """Type, durable, auto_delete, internal, arguments: in this order."""
    vhost = a_vhost()
    attributes: dict[str, object] = {
        "type_name": "topic",
        "arguments": table(alternate_exchange="a"),
    }
    declare: Callable[..., object] = vhost.declare_exchange
    declare("x", **attributes)

    text = refusal(PreconditionFailed, lambda: declare("x", **{**attributes, **changes}))
    assert text == (
        f"inequivalent arg '{property_}' for exchange 'x' in vhost '/': "
        f"received '{received}' but current is '{current}'"
    )


def test_an_exchange_of_unknown_type_is_refused() -> None:
    """Even where an exchange of that name exists; types are case-sensitive."""
    vhost = a_vhost()

    for name in ("x", "amq.topic", ""):
        text = refusal(PreconditionFailed, partial(vhost.declare_exchange, name, "Topic"))
        assert text == "unknown exchange type 'Topic'"


def test_an_exchange_of_no_type_is_refused() -> None:
    """The empty word is none that could be a type."""
    text = refusal(PreconditionFailed, lambda: a_vhost().declare_exchange("x", ""))

    assert text == "invalid exchange type ''"


def test_the_default_exchange_cannot_be_declared() -> None:
    """Nor can anything else be done to it."""
    text = refusal(AccessRefused, lambda: a_vhost().declare_exchange("", "direct", durable=True))

    assert text == "operation not permitted on the default exchange"


def test_a_new_exchange_may_not_have_a_reserved_name() -> None:
    """What begins with amq. is the broker's."""
    text = refusal(AccessRefused, lambda: a_vhost().declare_exchange("amq.foo", "direct"))

    assert text == "exchange name 'amq.foo' contains reserved prefix 'amq.*'"


def test_an_alternate_exchange_must_be_a_string() -> None:
    """It need not exist, but it must be a name; nothing is made of a refused declaration."""
    vhost = a_vhost()
    text = refusal(
        PreconditionFailed,
        lambda: vhost.declare_exchange("x", "direct", arguments=table(alternate_exchange=5)),
    )

    assert text == (
        "invalid type 'signedint' for arg 'alternate-exchange' in exchange 'x' in vhost '/'"
    )
    assert "x" not in vhost.exchanges


def test_a_missing_exchange_is_not_found() -> None:
    """In RabbitMQ's words."""
    assert refusal(NotFound, lambda: a_vhost().exchange("x")) == "no exchange 'x' in vhost '/'"


def test_deleting_an_exchange_removes_its_bindings() -> None:
    """Those that lead from it and those that lead to it."""
    vhost = a_vhost()
    source = vhost.declare_exchange("source", "fanout")
    exchange = vhost.declare_exchange("x", "fanout")
    queue = vhost.declare_queue("q")
    vhost.bind("source", exchange, b"", Table.EMPTY)
    vhost.bind("x", queue, b"", Table.EMPTY)
    vhost.delete_exchange("x")

    assert "x" not in vhost.exchanges
    assert exchange.deleted
    assert (source.outgoing, queue.bindings) == ({}, {})


def test_deleting_a_missing_exchange_is_fine() -> None:
    """It is gone, which is all that was asked for."""
    assert a_vhost().delete_exchange("x", if_unused=True) == 0


def test_predeclared_exchanges_cannot_be_deleted() -> None:
    """Nor any other of a reserved name, whether there is one or not."""
    vhost = a_vhost()

    for name in ("amq.direct", "amq.missing"):
        text = refusal(AccessRefused, partial(vhost.delete_exchange, name))
        assert text == f"deletion of system exchange '{name}' in vhost '/' not allowed"
    text = refusal(AccessRefused, lambda: vhost.delete_exchange(""))
    assert text == "operation not permitted on the default exchange"


def test_an_exchange_in_use_is_not_deleted_if_unused() -> None:
    """In use is what a binding leads from; being led to is no use."""
    vhost = a_vhost()
    vhost.declare_exchange("source", "fanout")
    vhost.bind("source", vhost.declare_exchange("x", "fanout"), b"", Table.EMPTY)
    text = refusal(PreconditionFailed, lambda: vhost.delete_exchange("source", if_unused=True))

    assert text == "exchange 'source' in vhost '/' in use"
    vhost.delete_exchange("x", if_unused=True)
    vhost.delete_exchange("source", if_unused=True)
    assert not vhost.exchanges.keys() & {"source", "x"}


def test_a_deleted_exchange_may_be_declared_otherwise() -> None:
    """The name is free, and nothing is inherited."""
    vhost = a_vhost()
    vhost.declare_exchange("x", "fanout")
    vhost.bind("x", vhost.declare_queue("q"), b"", Table.EMPTY)
    vhost.delete_exchange("x")

    assert not vhost.declare_exchange("x", "direct").outgoing


# Auto-delete exchanges.


def an_auto_delete_vhost() -> VirtualHost:
    """A vhost with an auto-delete exchange "x" that one queue "q" is bound to."""
    vhost = a_vhost()
    vhost.declare_exchange("x", "fanout", auto_delete=True)
    vhost.bind("x", vhost.declare_queue("q"), b"", Table.EMPTY)
    return vhost


def test_an_auto_delete_exchange_goes_with_its_last_binding() -> None:
    """Not before the last."""
    vhost = an_auto_delete_vhost()
    exchange, queue = vhost.exchange("x"), vhost.queues["q"]
    vhost.bind("x", queue, b"k", Table.EMPTY)
    vhost.unbind(exchange, queue, b"", Table.EMPTY)
    assert "x" in vhost.exchanges
    vhost.unbind(exchange, queue, b"k", Table.EMPTY)

    assert "x" not in vhost.exchanges


def test_an_auto_delete_exchange_without_a_binding_stays() -> None:
    """It goes when it loses the last one, so it must have had one."""
    vhost = an_auto_delete_vhost()
    vhost.declare_exchange("unused", "fanout", auto_delete=True)
    exchange, queue = vhost.exchange("unused"), vhost.queues["q"]
    vhost.unbind(exchange, queue, b"never bound", Table.EMPTY)
    vhost.delete_queue(queue)

    assert "unused" in vhost.exchanges


def test_an_auto_delete_exchange_goes_with_the_queue_it_led_to() -> None:
    """However the binding goes."""
    vhost = an_auto_delete_vhost()
    vhost.delete_queue(vhost.queues["q"])

    assert "x" not in vhost.exchanges


def test_an_auto_delete_exchange_goes_with_the_exchange_it_led_to() -> None:
    """Probed with RabbitMQ; being unbound as a destination triggers nothing."""
    vhost = a_vhost()
    vhost.declare_exchange("adx", "fanout", auto_delete=True)
    inner = vhost.declare_exchange("adx2", "fanout", auto_delete=True)
    vhost.bind("adx", inner, b"", Table.EMPTY)
    vhost.unbind(vhost.exchange("adx"), inner, b"", Table.EMPTY)

    assert "adx" not in vhost.exchanges
    assert "adx2" in vhost.exchanges


def test_auto_deletion_goes_from_exchange_to_exchange() -> None:
    """Each that loses its last binding takes the one before it along."""
    vhost = an_auto_delete_vhost()
    vhost.declare_exchange("y", "fanout", auto_delete=True)
    vhost.declare_exchange("z", "fanout", auto_delete=True)
    vhost.declare_exchange("kept", "fanout")
    vhost.bind("y", vhost.exchange("x"), b"", Table.EMPTY)
    vhost.bind("z", vhost.exchange("y"), b"", Table.EMPTY)
    vhost.bind("kept", vhost.exchange("y"), b"", Table.EMPTY)
    vhost.delete_queue(vhost.queues["q"])

    assert not vhost.exchanges.keys() & {"x", "y", "z"}
    assert not vhost.exchange("kept").outgoing


def test_auto_deletion_ends_in_a_cycle() -> None:
    """An exchange bound to itself, or to one that is going already, goes once."""
    vhost = an_auto_delete_vhost()
    exchange, queue = vhost.exchange("x"), vhost.queues["q"]
    vhost.declare_exchange("y", "fanout", auto_delete=True)
    vhost.bind("x", vhost.exchange("y"), b"", Table.EMPTY)
    vhost.bind("y", exchange, b"", Table.EMPTY)
    vhost.bind("x", exchange, b"", Table.EMPTY)
    vhost.delete_queue(queue)
    assert "x" in vhost.exchanges
    vhost.delete_exchange("x")

    assert not vhost.exchanges.keys() & {"x", "y"}


# Queues.


def test_declaring_makes_a_queue() -> None:
    """It has the attributes asked for, and belongs to nobody unless exclusive."""
    vhost = a_vhost()
    queue = vhost.declare_queue(
        "q", durable=True, auto_delete=True, arguments=table(x_max_length=5), owner="me"
    )

    assert vhost.queue("q", "somebody else") is queue
    assert (queue.durable, queue.auto_delete, queue.owner) == (True, True, None)
    assert queue.arguments.max_length == 5


def test_declaring_an_equal_queue_finds_the_first() -> None:
    """Unknown arguments are not compared, and integers of any width are equal."""
    vhost = a_vhost()
    first = vhost.declare_queue("q", arguments=table(x_max_length=5, mark=1))
    again = Table.encode([("x-max-length", Field("b", 5))])

    assert vhost.declare_queue("q", arguments=again) is first


def test_a_queue_without_a_name_gets_one() -> None:
    """It begins with amq.gen- and cannot be guessed."""
    vhost = a_vhost()
    queue = vhost.declare_queue("")

    assert queue.name == "amq.gen-AAAAAAAAAAAAAAAAAAAAAQ"
    assert vhost.declare_queue("").name != queue.name


def test_a_queue_may_not_be_declared_with_a_reserved_name() -> None:
    """Even when it exists."""
    vhost = a_vhost()
    name = vhost.declare_queue("").name
    text = refusal(AccessRefused, lambda: vhost.declare_queue(name))

    assert text == f"queue name '{name}' contains reserved prefix 'amq.*'"


@pytest.mark.parametrize(
    ("changes", "property_", "received", "current"),
    [
        ({"durable": True, "auto_delete": True}, "durable", "true", "false"),
        ({"auto_delete": True, "arguments": table(x_max_length=6)}, "auto_delete", "true", "false"),
        ({"arguments": table(x_max_length=6)}, "x-max-length", "6", "5"),
    ],
)
def test_the_first_attribute_of_a_queue_that_differs_is_named(
    changes: dict[str, object], property_: str, received: str, current: str
) -> None:
    """Durable, auto_delete, arguments: in this order."""
    vhost = a_vhost()
    declare: Callable[..., object] = vhost.declare_queue
    attributes: dict[str, object] = {"arguments": table(x_max_length=5)}
    declare("q", **attributes)

    text = refusal(PreconditionFailed, lambda: declare("q", **{**attributes, **changes}))
    assert text == (
        f"inequivalent arg '{property_}' for queue 'q' in vhost '/': "
        f"received '{received}' but current is '{current}'"
    )


def test_a_queue_with_bad_arguments_is_not_made() -> None:
    """The refusal names the argument, and the name is still free."""
    vhost = a_vhost()
    text = refusal(
        PreconditionFailed, lambda: vhost.declare_queue("q", arguments=table(x_expires=0))
    )

    assert text == "invalid arg 'x-expires' for queue 'q' in vhost '/': {value_zero,0}"
    assert "q" not in vhost.queues


def test_a_missing_queue_is_not_found() -> None:
    """In RabbitMQ's words."""
    assert refusal(NotFound, lambda: a_vhost().queue("q", None)) == "no queue 'q' in vhost '/'"


def test_queues_and_exchanges_have_names_of_their_own() -> None:
    """The same name may mean one of each."""
    vhost = a_vhost()
    queue, exchange = vhost.declare_queue("same"), vhost.declare_exchange("same", "fanout")
    vhost.bind("same", queue, b"", Table.EMPTY)
    vhost.bind("same", exchange, b"", Table.EMPTY)

    assert len(exchange.outgoing) == 2


def test_deleting_a_queue_removes_its_bindings() -> None:
    """No exchange leads to it any more."""
    vhost = a_vhost()
    exchange = vhost.declare_exchange("x", "topic")
    queue = vhost.declare_queue("q")
    for key in (b"a", b"#"):
        vhost.bind("x", queue, key, Table.EMPTY)
    vhost.delete_queue(queue)

    assert queue.deleted
    assert "q" not in vhost.queues
    assert (exchange.outgoing, queue.bindings) == ({}, {})


def test_deleting_a_queue_tells_its_consumers() -> None:
    """Each sink is told of its consumers, in order, after all is done."""
    core = memory_core()
    sink = RecordingSink(core.turn)
    queue = core.vhost.declare_queue("q")
    consumers = [core.consume(queue, sink) for _ in range(2)]
    core.vhost.delete_queue(queue)

    assert sink.told == consumers


def test_deleting_a_queue_twice_does_nothing() -> None:
    """A second queue of its name is not touched."""
    vhost = a_vhost()
    queue = vhost.declare_queue("q")
    vhost.delete_queue(queue)
    successor = vhost.declare_queue("q")
    vhost.delete_queue(queue)

    assert vhost.queues["q"] is successor
    assert successor.queue_id != queue.queue_id


def test_a_queue_that_is_not_empty_is_not_deleted_if_empty() -> None:
    """Unsettled messages don't count; emptiness is checked before use."""
    core = memory_core()
    queue = core.vhost.declare_queue("q")
    consumer = core.consume(queue, RecordingSink(core.turn), prefetch_count=1)
    core.fill(queue, 2)

    def check() -> None:
        core.vhost.check_deletable(queue, if_unused=True, if_empty=True)

    assert refusal(PreconditionFailed, check) == "queue 'q' in vhost '/' not empty"
    queue.purge()
    assert refusal(PreconditionFailed, check) == "queue 'q' in vhost '/' in use"
    core.cancel(consumer)
    check()


def test_a_queue_in_use_may_be_deleted_without_conditions() -> None:
    """What wasn't asked isn't checked."""
    core = memory_core()
    queue = core.vhost.declare_queue("q")
    core.consume(queue, RecordingSink(core.turn), prefetch_count=1)
    core.fill(queue, 2)

    core.vhost.check_deletable(queue, if_unused=False, if_empty=False)


@pytest.mark.parametrize(("if_unused", "if_empty"), [(True, False), (False, True)])
def test_quorum_queues_know_no_conditions(if_unused: bool, if_empty: bool) -> None:
    """As with RabbitMQ the connection pays for it."""
    vhost = a_vhost()
    queue = vhost.declare_queue("q", durable=True, arguments=table(x_queue_type="quorum"))
    flag = "if-unused" if if_unused else "if-empty"
    text = refusal(
        NotImplemented_,
        lambda: vhost.check_deletable(queue, if_unused=if_unused, if_empty=if_empty),
    )

    assert text == (
        f"cannot delete queue 'q' in vhost '/'. queue.delete operations with {flag} flag set are "
        "not supported by quorum queues"
    )


def test_basic_get_is_refused_behind_a_single_active_consumer_of_a_quorum_queue() -> None:
    """Classic queues allow it."""
    vhost = a_vhost()
    classic = vhost.declare_queue("c", arguments=table(x_single_active_consumer=True))
    quorum = vhost.declare_queue(
        "q", durable=True, arguments=table(x_queue_type="quorum", x_single_active_consumer=True)
    )
    vhost.check_gettable(classic)
    text = refusal(ResourceLocked, lambda: vhost.check_gettable(quorum))

    assert text == (
        "cannot obtain access to locked queue 'q' in vhost '/'. basic.get operations are not "
        "supported by quorum queues with single active consumer"
    )


# Exclusive queues.


def test_an_exclusive_queue_belongs_to_its_connection() -> None:
    """Others are kept off, in RabbitMQ's words."""
    vhost = a_vhost()
    queue = vhost.declare_queue("q", exclusive=True, owner="me")

    assert vhost.queue("q", "me") is queue
    assert refusal(ResourceLocked, lambda: vhost.queue("q", "you")) == LOCKED
    assert refusal(ResourceLocked, lambda: vhost.check_owner(queue, "you")) == LOCKED


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((True, "me"), (True, "you")),
        ((True, "me"), (False, "you")),
        ((True, "me"), (False, "me")),
        ((False, "me"), (True, "me")),
    ],
)
def test_exclusiveness_is_compared_first(first: tuple[bool, str], second: tuple[bool, str]) -> None:
    """Another owner, or another flag, is refused before any other difference."""
    vhost = a_vhost()
    vhost.declare_queue("q", exclusive=first[0], owner=first[1])
    text = refusal(
        ResourceLocked,
        lambda: vhost.declare_queue("q", auto_delete=True, exclusive=second[0], owner=second[1]),
    )

    assert text == LOCKED


@pytest.mark.parametrize("durable", [True, False])
def test_an_exclusive_queue_is_never_durable(durable: bool) -> None:
    """It ends with its connection, so either flag is the same."""
    core = held_core()
    queue = core.vhost.declare_queue("q", durable=durable, exclusive=True, owner="me")

    assert not queue.durable
    assert core.store.records == []
    again = core.vhost.declare_queue("q", durable=not durable, exclusive=True, owner="me")
    assert again is queue


def test_exclusive_queues_end_with_their_connection() -> None:
    """Those of others stay, and so do those that are not exclusive."""
    vhost = a_vhost()
    for name in ("a", "b"):
        vhost.declare_queue(name, exclusive=True, owner="me")
    vhost.declare_queue("kept", owner="me")
    vhost.declare_queue("yours", exclusive=True, owner="you")
    vhost.release_owner("me")
    vhost.release_owner("me")

    assert list(vhost.queues) == ["kept", "yours"]


def test_an_exclusive_queue_may_be_deleted_before_its_connection_ends() -> None:
    """Nothing is left of it for later."""
    vhost = a_vhost()
    vhost.delete_queue(vhost.declare_queue("q", exclusive=True, owner="me"))
    successor = vhost.declare_queue("q", owner="you")
    vhost.release_owner("me")

    assert vhost.queues["q"] is successor


def test_an_exclusive_queue_takes_its_auto_delete_exchange_along() -> None:
    """Its bindings end with it."""
    vhost = a_vhost()
    vhost.declare_exchange("x", "fanout", auto_delete=True)
    queue = vhost.declare_queue("", exclusive=True, owner="me")
    vhost.bind("x", queue, b"", Table.EMPTY)
    vhost.release_owner("me")

    assert "x" not in vhost.exchanges


# Bindings.


def test_binding_twice_makes_one_binding() -> None:
    """Whatever the order of the arguments; unbinding once removes it."""
    vhost = a_vhost()
    exchange, queue = vhost.declare_exchange("x", "direct"), vhost.declare_queue("q")
    vhost.bind("x", queue, b"k", table(a=1, b=2))
    vhost.bind("x", queue, b"k", table(b=2, a=1))

    assert len(exchange.outgoing) == len(queue.bindings) == 1
    vhost.unbind(exchange, queue, b"k", table(b=2, a=1))
    assert (exchange.outgoing, queue.bindings) == ({}, {})


def test_bindings_with_other_arguments_are_others() -> None:
    """Even for a type that doesn't look at them."""
    vhost = a_vhost()
    exchange, queue = vhost.declare_exchange("x", "direct"), vhost.declare_queue("q")
    vhost.bind("x", queue, b"k", Table.EMPTY)
    vhost.bind("x", queue, b"k", table(a=1))

    assert len(exchange.outgoing) == 2
    assert vhost.is_bound(exchange, queue, b"k", table(a=1))
    assert not vhost.is_bound(exchange, queue, b"k", table(a=2))


def test_binding_to_a_missing_exchange_is_refused() -> None:
    """The source must be there."""
    vhost = a_vhost()
    queue = vhost.declare_queue("q")

    text = refusal(NotFound, lambda: vhost.bind("x", queue, b"", Table.EMPTY))
    assert text == "no exchange 'x' in vhost '/'"


def test_a_binding_the_exchange_refuses_is_not_made() -> None:
    """Neither end knows of it, nor the history, and routes stay as they are."""
    core = held_core()
    core.vhost.declare_exchange("x", "headers", durable=True)
    queue = core.vhost.declare_queue("q", durable=True)
    generation = core.vhost.generation
    arguments = table(x_match="nope")

    assert refusal(
        PreconditionFailed, lambda: core.vhost.bind("x", queue, b"", arguments)
    ).startswith("Invalid x-match field value")
    assert not queue.bindings
    assert core.vhost.generation == generation
    assert not recorded(core.store, Bound)


def test_unbinding_what_is_not_bound_is_fine() -> None:
    """It is not bound, which is all that was asked for."""
    core = held_core()
    exchange = core.vhost.declare_exchange("x", "direct", durable=True)
    queue = core.vhost.declare_queue("q", durable=True)
    generation = core.vhost.generation

    assert core.vhost.unbind(exchange, queue, b"k", Table.EMPTY) == 0
    assert core.vhost.generation == generation
    assert not recorded(core.store, Unbound)


def test_check_not_default() -> None:
    """The exchange with no name can't be bound, from or to."""
    vhost = a_vhost()
    vhost.check_not_default("x")

    text = refusal(AccessRefused, lambda: vhost.check_not_default(""))
    assert text == "operation not permitted on the default exchange"


def test_names_that_are_not_utf_8_reach_no_queue() -> None:
    """Any octets may be a routing key, but not all are a name."""
    vhost = a_vhost()
    found: dict[Destination, None] = {}
    vhost.exchange("").route(b"\xff\xfe", found)

    assert found == {}


# Consumers.


def test_a_consumer_without_a_tag_gets_one() -> None:
    """It begins with amq.ctag-; a tag that was chosen is kept."""
    core = memory_core()
    queue = core.vhost.declare_queue("q")

    assert core.consume(queue, RecordingSink(core.turn)).tag == "amq.ctag-AAAAAAAAAAAAAAAAAAAAAQ"
    assert core.consume(queue, RecordingSink(core.turn), "mine").tag == "mine"


def test_a_consumer_has_what_it_asked_for() -> None:
    """Priority is read from the arguments, which are kept."""
    core = memory_core()
    queue = core.vhost.declare_queue("q")
    arguments = table(x_priority=7, mark="m")
    consumer = core.vhost.consume(
        queue,
        "c",
        RecordingSink(core.turn),
        no_ack=False,
        exclusive=True,
        prefetch_count=3,
        arguments=arguments,
    )

    assert (consumer.priority, consumer.credit, consumer.exclusive) == (7, 3, True)
    assert consumer.arguments is arguments


def test_bad_consumer_arguments_are_refused_before_exclusive_use() -> None:
    """The arguments are looked at first."""
    core = memory_core()
    queue = core.vhost.declare_queue("q")
    core.consume(queue, RecordingSink(core.turn), exclusive=True)
    text = refusal(
        PreconditionFailed,
        lambda: core.vhost.consume(
            queue,
            "",
            RecordingSink(core.turn),
            no_ack=False,
            exclusive=False,
            prefetch_count=0,
            arguments=table(x_priority="high"),
        ),
    )

    assert text == (
        "invalid arg 'x-priority' for queue 'q' in vhost '/': \"expected integer, got longstr\""
    )


@pytest.mark.parametrize(("first", "second"), [(True, False), (True, True), (False, True)])
def test_exclusive_use_stands_against_others(first: bool, second: bool) -> None:
    """An exclusive consumer must be and stay the only one."""
    core = memory_core()
    queue = core.vhost.declare_queue("q")
    consumer = core.consume(queue, RecordingSink(core.turn), exclusive=first)

    def consume() -> object:
        return core.consume(queue, RecordingSink(core.turn), exclusive=second)

    assert refusal(AccessRefused, consume) == "queue 'q' in vhost '/' in exclusive use"
    core.cancel(consumer)
    consume()


def test_a_queue_with_a_single_active_consumer_knows_no_exclusive_use() -> None:
    """The two contradict each other."""
    core = memory_core()
    queue = core.vhost.declare_queue("q", arguments=table(x_single_active_consumer=True))

    assert refusal(
        AccessRefused, lambda: core.consume(queue, RecordingSink(core.turn), exclusive=True)
    )
    core.consume(queue, RecordingSink(core.turn))


def test_an_auto_delete_queue_goes_with_its_last_consumer() -> None:
    """Not with the first, and its messages go with it."""
    core = memory_core()
    queue = core.vhost.declare_queue("q", auto_delete=True)
    consumers = [core.consume(queue, RecordingSink(core.turn)) for _ in range(2)]
    core.cancel(consumers[0])
    assert "q" in core.vhost.queues
    core.cancel(consumers[1])

    assert "q" not in core.vhost.queues


def test_an_auto_delete_queue_that_never_had_a_consumer_stays() -> None:
    """basic.get is no consumer."""
    core = memory_core()
    queue = core.vhost.declare_queue("q", auto_delete=True)
    core.publish(queue)
    queue.get(no_ack=True)

    assert "q" in core.vhost.queues


def test_a_queue_that_is_not_auto_delete_stays_without_consumers() -> None:
    """Its messages wait for another."""
    core = memory_core()
    queue = core.vhost.declare_queue("q")
    core.cancel(core.consume(queue, RecordingSink(core.turn)))

    assert "q" in core.vhost.queues


def test_cancelling_after_the_queue_is_gone_does_nothing() -> None:
    """A channel may end later than its queue; a successor of that name is not touched."""
    core = memory_core()
    queue = core.vhost.declare_queue("q", auto_delete=True)
    consumer = core.consume(queue, RecordingSink(core.turn))
    core.vhost.delete_queue(queue)
    successor = core.vhost.declare_queue("q", auto_delete=True)
    core.cancel(consumer)

    assert core.vhost.queues["q"] is successor


# Publishing.


def test_message_ids_rise() -> None:
    """Every message has one, stored or not, over all queues."""
    core = memory_core()
    one, other = core.vhost.declare_queue("one"), core.vhost.declare_queue("other")
    messages = [core.publish(one), core.publish(other, persistent=True), core.publish(one)]

    assert [message.message_id for message in messages] == [1, 2, 3]


def test_a_message_for_several_durable_queues_is_stored_once() -> None:
    """One record names them all; queues that are not durable are not named."""
    core = held_core()
    durable = [core.vhost.declare_queue(name, durable=True) for name in ("a", "b")]
    transient = core.vhost.declare_queue("t")
    message = a_message(b"body", persistent=True)
    position = core.vhost.publish(message, (durable[0], transient, durable[1]))
    (published,) = recorded(core.store, Published)

    assert position == len(core.store.records)
    assert published.message is message
    assert published.queue_ids == [queue.queue_id for queue in durable]
    assert message.holders == 2
    assert all(queue.ready_count == 1 for queue in (*durable, transient))


def test_a_stored_message_knows_when_it_was_published() -> None:
    """Its time is that of the clock."""
    core = held_core()
    core.clock.advance(5)
    message = core.publish(core.vhost.declare_queue("q", durable=True), persistent=True)

    assert message.published_ms == core.clock.now_ms()


@pytest.mark.parametrize(("durable", "persistent"), [(True, False), (False, True), (False, False)])
def test_other_messages_are_not_stored(durable: bool, persistent: bool) -> None:
    """Nobody needs to wait for them: their position is 0."""
    core = held_core()
    queue = core.vhost.declare_queue("q", durable=durable)
    count = len(core.store.records)

    assert core.vhost.publish(a_message(persistent=persistent), (queue,)) == 0
    assert len(core.store.records) == count


def test_a_message_without_targets_is_dropped() -> None:
    """Nothing is stored, and nothing is to be waited for."""
    core = held_core()

    assert core.vhost.publish(a_message(persistent=True), ()) == 0
    assert core.store.records == []


def test_a_message_is_stored_before_it_is_delivered_and_settled() -> None:
    """Even when a no-ack consumer takes it at once."""
    core = Core(ReleasingStore())
    queue = core.vhost.declare_queue("q", durable=True)
    core.consume(queue, RecordingSink(core.turn), no_ack=True)
    position = core.vhost.publish(a_message(persistent=True), (queue,))
    core.run_turns()

    assert position == 2
    assert [type(record).__name__ for record in core.store.records] == [
        "QueueDeclared",
        "Published",
        "Settled",
    ]


# The history.


def test_durable_exchanges_are_recorded() -> None:
    """With all that is needed to make them again, and the position is kept for who waits."""
    core = held_core()
    arguments = table(alternate_exchange="ae")
    exchange = core.vhost.declare_exchange(
        "x", "topic", durable=True, auto_delete=True, internal=True, arguments=arguments
    )
    (declared,) = recorded(core.store, ExchangeDeclared)

    assert exchange.declared_position == 1
    assert (declared.vhost, declared.name, declared.type_name) == ("/", "x", "topic")
    assert (declared.auto_delete, declared.internal) == (True, True)
    assert declared.arguments is arguments
    assert core.vhost.delete_exchange("x") == 2
    (deleted,) = recorded(core.store, ExchangeDeleted)
    assert (deleted.vhost, deleted.name) == ("/", "x")


def test_durable_queues_are_recorded() -> None:
    """With their id, so that a successor of the name inherits nothing."""
    core = held_core()
    arguments = table(x_max_length=5)
    queue = core.vhost.declare_queue("q", durable=True, auto_delete=True, arguments=arguments)
    (declared,) = recorded(core.store, QueueDeclared)

    assert queue.declared_position == 1
    assert (declared.vhost, declared.name, declared.queue_id) == ("/", "q", queue.queue_id)
    assert declared.auto_delete
    assert declared.arguments is arguments
    assert core.vhost.delete_queue(queue) == 2
    (deleted,) = recorded(core.store, QueueDeleted)
    assert (deleted.vhost, deleted.name, deleted.queue_id) == ("/", "q", queue.queue_id)


def test_transient_things_are_not_recorded() -> None:
    """Nobody waits for them either."""
    core = held_core()
    exchange = core.vhost.declare_exchange("x", "direct")
    queue = core.vhost.declare_queue("q")
    positions = [
        exchange.declared_position,
        queue.declared_position,
        core.vhost.bind("x", queue, b"", Table.EMPTY),
        core.vhost.unbind(exchange, queue, b"", Table.EMPTY),
        core.vhost.delete_queue(queue),
        core.vhost.delete_exchange("x"),
    ]

    assert positions == [0] * 6
    assert core.store.records == []


def test_declaring_again_records_nothing() -> None:
    """And waits for the position of the first declaration."""
    core = held_core()
    core.vhost.declare_exchange("x", "direct", durable=True)
    core.vhost.declare_queue("q", durable=True)
    exchange = core.vhost.declare_exchange("x", "direct", durable=True)
    queue = core.vhost.declare_queue("q", durable=True)

    assert (exchange.declared_position, queue.declared_position) == (1, 2)
    assert kinds(core) == ["ExchangeDeclared", "QueueDeclared"]


def durable_ends(core: Core[HeldStore]) -> Queue:
    """A durable exchange "x" and a durable queue "q", recorded at 1 and 2; returns the queue."""
    core.vhost.declare_exchange("x", "topic", durable=True)
    return core.vhost.declare_queue("q", durable=True)


def test_bindings_between_durable_ends_are_recorded() -> None:
    """With all that makes them one."""
    core = held_core()
    queue = durable_ends(core)
    arguments = table(a=1)
    assert core.vhost.bind("x", queue, b"k.#", arguments) == 3
    assert core.vhost.unbind(core.vhost.exchange("x"), queue, b"k.#", arguments) == 4

    for record in (*recorded(core.store, Bound), *recorded(core.store, Unbound)):
        assert (record.vhost, record.source, record.destination) == ("/", "x", "q")
        assert (record.to_queue, record.routing_key) == (True, b"k.#")
        assert record.arguments == arguments
    assert kinds(core)[2:] == ["Bound", "Unbound"]


def test_bindings_between_durable_exchanges_are_recorded() -> None:
    """The record tells an exchange from a queue of that name."""
    core = held_core()
    durable_ends(core)
    core.vhost.bind("x", core.vhost.exchange("amq.fanout"), b"", Table.EMPTY)
    (bound,) = recorded(core.store, Bound)

    assert (bound.destination, bound.to_queue) == ("amq.fanout", False)


def test_a_binding_made_again_waits_for_the_first() -> None:
    """Nothing is recorded twice, and nobody is told sooner that it will last."""
    core = held_core()
    queue = durable_ends(core)
    position = core.vhost.bind("x", queue, b"k", Table.EMPTY)
    core.vhost.declare_queue("later", durable=True)

    assert core.vhost.bind("x", queue, b"k", Table.EMPTY) == position == 3
    assert len(recorded(core.store, Bound)) == 1


def test_a_binding_with_a_transient_end_is_not_recorded() -> None:
    """It can't survive; what it needs is that its exchange does."""
    core = held_core()
    queue = durable_ends(core)
    transient = core.vhost.declare_exchange("t", "fanout")
    bindings = [
        core.vhost.bind("t", queue, b"", Table.EMPTY),
        core.vhost.bind("x", core.vhost.declare_queue("tq"), b"", Table.EMPTY),
        core.vhost.bind("x", transient, b"", Table.EMPTY),
    ]

    assert bindings == [0, 1, 1]
    assert kinds(core) == ["ExchangeDeclared", "QueueDeclared"]


def test_bindings_of_a_deleted_end_go_without_a_record() -> None:
    """Its deletion says it for all of them."""
    core = held_core()
    queue = durable_ends(core)
    core.vhost.bind("x", queue, b"a", Table.EMPTY)
    core.vhost.delete_queue(queue)
    core.vhost.delete_exchange("x")

    assert not recorded(core.store, Unbound)
    assert kinds(core)[3:] == ["QueueDeleted", "ExchangeDeleted"]


def test_auto_deleted_exchanges_are_recorded() -> None:
    """Whoever waits, waits for the end of the chain."""
    core = held_core()
    queue = core.vhost.declare_queue("q", durable=True)
    inner = core.vhost.declare_exchange("inner", "fanout", durable=True, auto_delete=True)
    outer = core.vhost.declare_exchange("outer", "fanout", durable=True, auto_delete=True)
    core.vhost.bind("outer", inner, b"", Table.EMPTY)
    core.vhost.bind("inner", queue, b"", Table.EMPTY)
    position = core.vhost.unbind(inner, queue, b"", Table.EMPTY)

    assert (inner.deleted, outer.deleted) == (True, True)
    assert kinds(core)[5:] == ["Unbound", "ExchangeDeleted", "ExchangeDeleted"]
    assert position == len(core.store.records)


def test_deleting_a_queue_waits_for_the_exchanges_it_takes_along() -> None:
    """The position is that of the last of them."""
    core = held_core()
    core.vhost.declare_exchange("x", "fanout", durable=True, auto_delete=True)
    queue = core.vhost.declare_queue("q", durable=True)
    core.vhost.bind("x", queue, b"", Table.EMPTY)

    assert core.vhost.delete_queue(queue) == len(core.store.records)
    assert kinds(core)[3:] == ["QueueDeleted", "ExchangeDeleted"]


def test_a_transient_queue_may_take_a_durable_exchange_along() -> None:
    """Only what lasted is recorded, and waited for."""
    core = held_core()
    core.vhost.declare_exchange("x", "fanout", durable=True, auto_delete=True)
    queue = core.vhost.declare_queue("q")
    core.vhost.bind("x", queue, b"", Table.EMPTY)

    assert core.vhost.delete_queue(queue) == 2
    assert kinds(core) == ["ExchangeDeclared", "ExchangeDeleted"]


# After a restart.


def test_what_was_recorded_can_be_restored() -> None:
    """Exchange, queue and binding are as they were, and nothing is recorded again."""
    core, later = held_core(), held_core()
    exchange = core.vhost.declare_exchange(
        "x", "topic", durable=True, auto_delete=True, arguments=table(alternate_exchange="ae")
    )
    queue = core.vhost.declare_queue(
        "q", durable=True, auto_delete=True, arguments=table(x_max_length=5)
    )
    core.vhost.bind("x", queue, b"a.#", Table.EMPTY)
    core.vhost.bind("x", core.vhost.exchange("amq.fanout"), b"", Table.EMPTY)
    for declared in recorded(core.store, ExchangeDeclared):
        later.vhost.restore_exchange(declared)
    for each in recorded(core.store, QueueDeclared):
        later.vhost.restore_queue(each)
    for bound in recorded(core.store, Bound):
        later.vhost.restore_binding(bound)

    restored_exchange, restored_queue = later.vhost.exchange("x"), later.vhost.queues["q"]
    assert (restored_exchange.type_name, restored_exchange.alternate) == ("topic", "ae")
    assert (restored_exchange.durable, restored_exchange.auto_delete) == (True, True)
    assert (restored_queue.queue_id, restored_queue.auto_delete) == (queue.queue_id, True)
    assert restored_queue.arguments.max_length == 5
    assert len(restored_exchange.outgoing) == len(exchange.outgoing)
    assert later.store.records == []
    later.vhost.delete_queue(restored_queue)
    assert len(restored_exchange.outgoing) == 1


def test_a_binding_with_a_missing_end_is_not_restored() -> None:
    """One end may be gone by a record of its own."""
    core, later = held_core(), held_core()
    queue = durable_ends(core)
    core.vhost.bind("x", queue, b"", Table.EMPTY)
    core.vhost.bind("amq.fanout", queue, b"", Table.EMPTY)
    for bound in recorded(core.store, Bound):
        later.vhost.restore_binding(bound)

    assert not later.vhost.exchange("amq.fanout").outgoing
