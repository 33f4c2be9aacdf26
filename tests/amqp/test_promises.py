"""Promises: confirms and replies leave when the store is durable far enough, each in its order."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp.commands import Basic, Channel, Confirm, Connection, Exchange, Queue, Tx
from session_support import Session, World
from wire_methods import (
    TX_COMMIT,
    TX_SELECT,
    Method,
    access_request,
    basic_ack,
    basic_cancel,
    basic_consume,
    basic_get,
    basic_nack,
    basic_publish,
    basic_qos,
    channel_close,
    channel_flow,
    confirm_select,
    exchange_declare,
    exchange_delete,
    frame,
    properties,
    queue_bind,
    queue_declare,
    queue_delete,
)

from broker.amqp.promises import Confirms, Replies
from broker.store.memory import HeldStore

PERSISTENT = properties(delivery_mode=2)
TRANSIENT = properties(delivery_mode=1)

# Confirms by themselves


def test_confirm_that_waits_for_nothing_is_due() -> None:
    """A publish that needs no disk is confirmed at once."""
    confirms = Confirms()

    assert confirms.add(0, durable=0)
    assert confirms.take(0) == (1, False)
    assert confirms.take(0) is None


def test_confirm_waits_for_its_position() -> None:
    """A publish at position 5 is confirmed once 5 is durable."""
    confirms = Confirms()

    assert not confirms.add(5, durable=4)
    assert confirms.is_waiting
    assert confirms.take(4) is None
    assert confirms.take(5) == (1, False)
    assert not confirms.is_waiting


def test_neighbours_are_confirmed_together() -> None:
    """What became durable together is one ack with multiple set."""
    confirms = Confirms()
    for position in (1, 2, 3, 4):
        confirms.add(position, durable=0)

    assert confirms.take(3) == (3, True)
    assert confirms.take(4) == (4, False)


def test_confirm_does_not_overtake() -> None:
    """A transient publish behind a persistent one waits for it."""
    confirms = Confirms()
    confirms.add(5, durable=4)

    assert not confirms.add(0, durable=4)
    assert confirms.take(4) is None
    assert confirms.take(5) == (2, True)


@dataclass
class ConfirmLog:
    """What a model of confirms saw: the position of each publish, and when it was confirmed."""

    positions: list[int] = field(default_factory=list)
    confirmed: int = 0


@given(st.lists(st.one_of(st.integers(0, 3), st.sampled_from(["sync", "take"])), max_size=60))
def test_every_publish_is_confirmed_once_and_in_order(steps: list[int | str]) -> None:
    """Whatever the interleaving, acks cover each number once, and none before it is durable."""
    confirms = Confirms()
    log = ConfirmLog()
    position = durable = 0

    def take() -> None:
        due = confirms.take(durable)
        if due is not None:
            tag, multiple = due
            assert tag > log.confirmed
            assert multiple is (tag - log.confirmed > 1)
            assert all(each <= durable for each in log.positions[log.confirmed : tag])
            log.confirmed = tag

    for step in steps:
        if step == "sync":
            durable = position
        elif step == "take":
            take()
        elif isinstance(step, int):
            position += step
            log.positions.append(position if step else 0)
            confirms.add(log.positions[-1], durable)
    durable = position
    take()

    assert log.confirmed == len(log.positions) == confirms.sequence
    assert not confirms.is_waiting


# Replies by themselves


def test_reply_waits_for_those_before_it() -> None:
    """A reply whose position is durable stays behind one whose position is not."""
    replies = Replies()
    replies.add(5, b"first", None)
    replies.add(0, b"second", None)

    assert len(replies) == 2
    assert replies.take(4) is None
    assert replies.take(5) == (b"first", None)
    assert replies.take(5) == (b"second", None)
    assert replies.take(5) is None
    assert not replies


# Through a connection, with a store that is durable when told to


@pytest.fixture
def store() -> HeldStore:
    """A store that is durable only up to where a test has synced it."""
    return HeldStore()


@pytest.fixture
def world(store: HeldStore) -> World:
    """A node with that store."""
    return World(store)


@pytest.fixture
def client(world: World, store: HeldStore) -> Session:
    """A client with channels 1 and 2 open, and the durable queue `q` safely declared."""
    client = world.connect(1, 2)
    client.send_method(2, queue_declare("q", durable=True))
    sync(world, store)
    client.expect(2, Queue.DeclareOk)
    return client


def sync(world: World, store: HeldStore, position: int | None = None) -> None:
    """Let the disk catch up, and the turn that follows run."""
    store.sync(position)
    world.run_turns()


def publish(client: Session, count: int = 1, channel: int = 1) -> None:
    """Persistent messages to `q`, in one read."""
    content = client.encode_content(channel, basic_publish("", "q"), PERSISTENT, b"body")
    client.send(content * count)


def test_confirms_leave_when_the_store_is_durable(
    world: World, store: HeldStore, client: Session
) -> None:
    """Not a moment earlier, and no other way than in order."""
    client.call(1, confirm_select())
    before = len(store.records)
    publish(client, 3)
    client.expect_nothing()

    sync(world, store, before + 1)
    first = client.expect(1, Basic.Ack)
    sync(world, store)
    rest = client.expect(1, Basic.Ack)

    assert (first.delivery_tag, first.multiple) == (1, False)
    assert (rest.delivery_tag, rest.multiple) == (3, True)
    client.expect_nothing()


def test_confirms_of_one_sync_are_one_ack(world: World, store: HeldStore, client: Session) -> None:
    """A hundred publishes that became durable together need one frame."""
    client.call(1, confirm_select())
    for _ in range(10):
        publish(client, 10)

    sync(world, store)

    ack = client.expect(1, Basic.Ack)
    assert (ack.delivery_tag, ack.multiple) == (100, True)
    client.expect_nothing()


def test_transient_publish_waits_behind_a_persistent_one(
    world: World, store: HeldStore, client: Session
) -> None:
    """Confirms of a channel leave in the order of its publishes."""
    client.call(1, confirm_select())
    publish(client)
    client.publish(1, "", "q", TRANSIENT)
    client.expect_nothing()

    sync(world, store)

    ack = client.expect(1, Basic.Ack)
    assert (ack.delivery_tag, ack.multiple) == (2, True)


def test_confirms_of_channels_are_apart(world: World, store: HeldStore, client: Session) -> None:
    """A channel that published nothing persistent does not wait for one that did."""
    client.call(1, confirm_select())
    client.call(2, confirm_select())
    publish(client)
    client.publish(2, "", "q", TRANSIENT)

    assert client.expect(2, Basic.Ack).delivery_tag == 1
    client.expect_nothing()
    sync(world, store)
    assert client.expect(1, Basic.Ack).delivery_tag == 1


def test_unroutable_publish_is_confirmed_after_its_return(client: Session) -> None:
    """basic.return first, then the ack; no disk is involved."""
    client.call(1, confirm_select())
    client.publish(1, "", "nowhere", PERSISTENT, mandatory=True)

    client.expect_content(1, Basic.Return)
    assert client.expect(1, Basic.Ack).delivery_tag == 1


def test_durable_declare_waits_for_its_position(
    world: World, store: HeldStore, client: Session
) -> None:
    """declare-ok promises that the queue survives, so it waits until it would."""
    client.send_method(1, queue_declare("durable", durable=True))
    client.expect_nothing()

    sync(world, store)

    assert client.expect(1, Queue.DeclareOk).queue == "durable"


@pytest.mark.parametrize(
    ("method", "reply"),
    [
        (exchange_declare("x", durable=True), Exchange.DeclareOk),
        (queue_bind("q", "amq.direct", "key"), Queue.BindOk),
        (queue_delete("q"), Queue.DeleteOk),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_every_durable_change_waits(
    world: World, store: HeldStore, client: Session, method: Method, reply: type[Exchange.DeclareOk]
) -> None:
    """So do the replies to whatever else must survive."""
    client.send_method(1, method)
    client.expect_nothing()

    sync(world, store)

    client.expect(1, reply)


@pytest.mark.parametrize(
    ("method", "reply"),
    [
        (queue_declare("transient"), Queue.DeclareOk),
        (queue_declare("exclusive", durable=True, exclusive=True), Queue.DeclareOk),
        (exchange_declare("x"), Exchange.DeclareOk),
        (queue_declare("q", passive=True), Queue.DeclareOk),
        (exchange_delete("no-such-exchange"), Exchange.DeleteOk),
        (basic_qos(prefetch_count=1), Basic.QosOk),
        (confirm_select(), Confirm.SelectOk),
        (TX_SELECT, Tx.SelectOk),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_what_is_not_durable_is_answered_at_once(
    client: Session, method: Method, reply: type[Queue.DeclareOk]
) -> None:
    """A reply that promises nothing about the disk does not wait for it."""
    client.send_method(1, method)

    client.expect(1, reply)


def test_replies_leave_in_order(world: World, store: HeldStore, client: Session) -> None:
    """A reply waits behind every earlier one of its channel."""
    client.send_methods(
        1,
        queue_declare("one", durable=True),
        basic_qos(prefetch_count=1),
        queue_declare("two", durable=True),
        basic_get("q"),
    )
    client.expect_nothing()

    sync(world, store, len(store.records) - 1)
    assert client.expect(1, Queue.DeclareOk).queue == "one"
    client.expect(1, Basic.QosOk)
    client.expect_nothing()

    sync(world, store)
    assert client.expect(1, Queue.DeclareOk).queue == "two"
    client.expect(1, Basic.GetEmpty)


def test_replies_of_channels_are_apart(world: World, store: HeldStore, client: Session) -> None:
    """A channel does not wait for what another has declared."""
    client.send_method(1, queue_declare("one", durable=True))

    client.call(2, basic_qos(prefetch_count=1))

    sync(world, store)
    client.expect(1, Queue.DeclareOk)


def test_reply_does_not_wait_for_confirms(world: World, store: HeldStore, client: Session) -> None:
    """A consume after a persistent publish does not pay for its fsync."""
    client.call(1, confirm_select())
    publish(client)

    client.call(1, basic_consume("q", "tag"))
    client.expect_content(1, Basic.Deliver)
    client.expect_nothing()

    sync(world, store)
    assert client.expect(1, Basic.Ack).delivery_tag == 1


def test_confirm_that_is_due_leaves_before_the_next_reply(client: Session) -> None:
    """A confirm that waits for nothing is not overtaken by the reply to what came behind it."""
    client.call(1, confirm_select())
    client.send(
        client.encode_content(1, basic_publish("", "q"), TRANSIENT, b"body")
        + frame(1, 1, basic_qos(prefetch_count=1).payload)
    )

    client.expect(1, Basic.Ack)
    client.expect(1, Basic.QosOk)


def test_consumer_starts_with_its_consume_ok(
    world: World, store: HeldStore, client: Session
) -> None:
    """While consume-ok waits behind an earlier reply, nothing is delivered."""
    client.publish(1, "", "q", body=b"waiting")
    client.send_methods(1, queue_declare("other", durable=True), basic_consume("q", "tag"))
    client.publish(2, "", "q", body=b"new")
    client.expect_nothing()
    assert world.queue("q").ready_count == 2

    sync(world, store)

    client.expect(1, Queue.DeclareOk)
    client.expect(1, Basic.ConsumeOk)
    assert client.expect_content(1, Basic.Deliver).body == b"waiting"
    assert client.expect_content(1, Basic.Deliver).body == b"new"


def test_consumer_cancelled_before_its_consume_ok_gets_nothing(
    world: World, store: HeldStore, client: Session
) -> None:
    """Both replies come, in order, and no delivery between them."""
    client.publish(1, "", "q", body=b"waiting")
    client.send_methods(
        1, queue_declare("other", durable=True), basic_consume("q", "tag"), basic_cancel("tag")
    )
    sync(world, store)

    client.expect(1, Queue.DeclareOk)
    client.expect(1, Basic.ConsumeOk)
    client.expect(1, Basic.CancelOk)
    client.expect_nothing()
    assert world.queue("q").ready_count == 1


@pytest.mark.parametrize("passive", [False, True])
def test_equal_declare_waits_for_the_first(
    world: World, store: HeldStore, client: Session, passive: bool
) -> None:
    """Whoever declares, or finds, a queue that is not safe yet is told when it is."""
    client.send_method(1, queue_declare("one", durable=True))
    position = len(store.records)
    client.send_method(2, queue_declare("other", durable=True))
    other = world.connect(1)
    other.send_method(1, queue_declare("one", durable=True, passive=passive))
    other.expect_nothing()

    sync(world, store, position)

    assert other.expect(1, Queue.DeclareOk).queue == "one"
    assert client.expect(1, Queue.DeclareOk).queue == "one"
    client.expect_nothing()


def test_equal_exchange_declare_waits_for_the_first(
    world: World, store: HeldStore, client: Session
) -> None:
    """Exchanges are like queues in this."""
    client.send_method(1, exchange_declare("x", durable=True))
    client.send_method(2, exchange_declare("x", durable=True))
    client.expect_nothing()

    sync(world, store)

    assert [frame.channel for frame in client.read_frames()] == [1, 2]


def test_binding_waits_for_what_it_binds(world: World, store: HeldStore, client: Session) -> None:
    """bind-ok on a second channel does not come before the queue it binds is safe."""
    client.send_method(1, queue_declare("one", durable=True))
    client.send_methods(2, exchange_declare("x"), queue_bind("one", "x", "key"))

    client.expect(2, Exchange.DeclareOk)
    client.expect_nothing()
    sync(world, store)
    client.expect(1, Queue.DeclareOk)
    client.expect(2, Queue.BindOk)


def test_consumed_before_its_commit_and_still_confirmed_once(
    world: World, store: HeldStore, client: Session
) -> None:
    """What becomes of a message meanwhile does not touch its confirm."""
    client.call(1, confirm_select())
    client.call(2, basic_consume("q", "tag"))
    publish(client)
    client.expect_content(2, Basic.Deliver)
    client.send_method(2, basic_ack(1))
    client.expect_nothing()

    sync(world, store)
    assert client.expect(1, Basic.Ack).delivery_tag == 1

    publish(client)
    client.expect_content(2, Basic.Deliver)
    sync(world, store)
    ack = client.expect(1, Basic.Ack)
    assert (ack.delivery_tag, ack.multiple) == (2, False)
    client.expect_nothing()


def test_confirm_outlives_the_queue(world: World, store: HeldStore, client: Session) -> None:
    """A queue deleted before the commit takes its messages along, not their confirms."""
    client.call(1, confirm_select())
    publish(client, 2)
    client.send_method(2, queue_delete("q"))

    sync(world, store)

    ack = client.expect(1, Basic.Ack)
    assert (ack.delivery_tag, ack.multiple) == (2, True)
    client.expect(2, Queue.DeleteOk)


# Transactions


def commit(client: Session) -> None:
    """A transaction on channel 1 whose commit waits for the disk."""
    client.call(1, TX_SELECT)
    publish(client)
    client.send_method(1, TX_COMMIT)
    client.expect_nothing()


def test_commit_waits_for_its_position(world: World, store: HeldStore, client: Session) -> None:
    """commit-ok promises that all of the transaction survives."""
    commit(client)

    sync(world, store)

    client.expect(1, Tx.CommitOk)
    client.call(1, TX_COMMIT)


def test_commit_of_nothing_durable_is_answered_at_once(client: Session) -> None:
    """A transaction of transient messages has no disk to wait for."""
    client.call(1, TX_SELECT)
    client.publish(1, "", "q", TRANSIENT)

    client.call(1, TX_COMMIT)


def test_channel_goes_on_after_its_commit(world: World, store: HeldStore, client: Session) -> None:
    """With commit-ok the channel takes publishes and acknowledgements again."""
    commit(client)
    sync(world, store)
    client.expect(1, Tx.CommitOk)

    publish(client)
    client.send_method(1, TX_COMMIT)
    sync(world, store)

    client.expect(1, Tx.CommitOk)
    assert world.queue("q").ready_count == 2


@pytest.mark.parametrize(
    "method",
    [
        queue_declare("q", passive=True),
        basic_publish("", "q"),
        basic_ack(1),
        basic_nack(1),
        basic_get("q"),
        basic_consume("q"),
        TX_COMMIT,
        TX_SELECT,
        channel_close(),
        channel_flow(True),
        access_request("/data"),
        confirm_select(nowait=True),
    ],
    ids=lambda method: f"{method.class_id}.{method.method_id}",
)
def test_command_while_committing(
    world: World, store: HeldStore, client: Session, method: Method
) -> None:
    """A channel whose commit is not answered takes no command; the error names the one it got."""
    commit(client)

    client.send_method(1, method)

    client.expect_connection_close(
        504, "unexpected command while processing 'tx.commit'", *method.ids
    )
    sync(world, store)
    client.expect_nothing()


def test_other_channels_go_on_during_a_commit(
    world: World, store: HeldStore, client: Session
) -> None:
    """Only the channel that commits has to wait."""
    commit(client)

    client.call(2, basic_qos(prefetch_count=1))

    sync(world, store)
    client.expect(1, Tx.CommitOk)


# The end


def test_closed_channel_keeps_no_promise(world: World, store: HeldStore, client: Session) -> None:
    """Confirms that wait when the client closes its channel are not sent afterwards."""
    client.call(1, confirm_select())
    publish(client, 3)

    client.close_channel(1)
    sync(world, store)

    client.expect_nothing()
    assert world.queue("q").ready_count == 3


def test_confirm_that_is_due_leaves_before_close_ok(client: Session) -> None:
    """What was kept when the close came is told before its answer."""
    client.call(1, confirm_select())
    client.send(
        client.encode_content(1, basic_publish("", "q"), TRANSIENT, b"body")
        + frame(1, 1, channel_close().payload)
    )

    client.expect(1, Basic.Ack)
    client.expect(1, Channel.CloseOk)


def test_reply_that_is_due_leaves_before_close_ok(
    world: World, store: HeldStore, client: Session
) -> None:
    """So are replies that the disk has caught up with, though no turn has passed."""
    client.send_method(1, queue_declare("one", durable=True))
    store.sync()

    client.send_method(1, channel_close())

    client.expect(1, Queue.DeclareOk)
    client.expect(1, Channel.CloseOk)
    client.expect_nothing()


def test_channel_opened_again_knows_nothing_of_old_promises(
    world: World, store: HeldStore, client: Session
) -> None:
    """The next channel of the same number starts from scratch."""
    client.call(1, confirm_select())
    publish(client, 3)
    client.close_channel(1)
    client.open_channel(1)
    client.call(1, confirm_select())
    publish(client)

    sync(world, store)

    ack = client.expect(1, Basic.Ack)
    assert (ack.delivery_tag, ack.multiple) == (1, False)
    client.expect_nothing()


def test_channel_error_keeps_no_promise(world: World, store: HeldStore, client: Session) -> None:
    """channel.close is the last frame of its channel, whatever was promised."""
    client.call(1, confirm_select())
    publish(client, 3)
    client.send_methods(1, queue_declare("one", durable=True), basic_ack(9))
    client.expect_channel_close(1, 406, "unknown delivery tag 9", 60, 80)

    sync(world, store)

    client.expect_nothing()


@pytest.mark.parametrize("politely", [True, False])
def test_connection_that_ends_keeps_no_promise(
    world: World, store: HeldStore, client: Session, politely: bool
) -> None:
    """A connection that is gone when the disk is done is not looked for."""
    client.call(1, confirm_select())
    publish(client, 3)
    client.send_method(2, queue_declare("one", durable=True))
    if politely:
        client.send_method(0, Method(10, 50, b"\0\xc8\0\0\0\0\0"))
        client.expect(0, Connection.CloseOk)
    else:
        client.hang_up()
        assert client.connection not in world.turn.waiting

    sync(world, store)

    client.expect_nothing()
    assert not world.turn.waiting
    assert {"q", "one"} == world.vhost.queues.keys()


# Limits


def test_replies_that_wait_are_limited() -> None:
    """Past the limit nothing more is read from the connection until the disk has caught up."""
    store = HeldStore()
    world = World(store, replies_waiting_max=4)
    client = world.connect(1)
    names = [f"queue-{number}" for number in range(10)]

    client.send_methods(1, *[queue_declare(name, durable=True) for name in names])
    assert len(world.vhost.queues) == 4
    assert not client.is_read()

    sync(world, store)
    assert len(world.vhost.queues) == 8
    sync(world, store)

    assert [client.expect(1, Queue.DeclareOk).queue for _ in range(8)] == names[:8]
    assert client.is_read()
    sync(world, store)
    assert [client.expect(1, Queue.DeclareOk).queue for _ in range(2)] == names[8:]


def test_input_goes_on_when_half_of_the_replies_are_out() -> None:
    """A disk that catches up a little lets in a little."""
    store = HeldStore()
    world = World(store, replies_waiting_max=4)
    client = world.connect(1)
    client.send_methods(1, *[queue_declare(str(number), durable=True) for number in range(6)])

    sync(world, store, 1)
    assert not client.is_read()
    sync(world, store, 2)

    assert len(world.vhost.queues) == 6
    assert [client.expect(1, Queue.DeclareOk).queue for _ in range(2)] == ["0", "1"]


def test_waiting_replies_of_one_client_stop_no_other() -> None:
    """The limit is one connection's own."""
    store = HeldStore()
    world = World(store, replies_waiting_max=1)
    client = world.connect(1)
    client.send_method(1, queue_declare("one", durable=True))
    assert not client.is_read()

    other = world.connect(1)

    other.call(1, basic_qos(prefetch_count=1))
