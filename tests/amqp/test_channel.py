"""A channel: delivery tags, acknowledgements, limits and transactions."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp.commands import Basic, Channel, Tx
from session_support import Session, World
from wire_methods import (
    TX_COMMIT,
    TX_ROLLBACK,
    TX_SELECT,
    Method,
    Properties,
    basic_ack,
    basic_cancel,
    basic_consume,
    basic_get,
    basic_nack,
    basic_qos,
    basic_recover,
    basic_reject,
    confirm_select,
    exchange_declare,
    frames,
    longstr,
    properties,
    queue_bind,
    queue_declare,
    queue_delete,
    table,
)

from broker.amqp.channel import Channel as BrokerChannel
from broker.core.queue import Queue


@pytest.fixture
def world() -> World:
    """A node."""
    return World()


@pytest.fixture
def client(world: World) -> Session:
    """A client with channels 1 and 2 open, and the queue `q`."""
    client = world.connect(1, 2)
    client.call(1, queue_declare("q"))
    return client


@pytest.fixture
def queue(world: World, client: Session) -> Queue:
    """The queue `q`."""
    return world.queue("q")


def channel(client: Session, number: int = 1) -> BrokerChannel:
    """The broker's end of a channel."""
    return client.connection.channels[number]


def fill(client: Session, count: int) -> None:
    """Publish messages numbered from 1 on channel 2."""
    for number in range(1, count + 1):
        client.publish(2, "", "q", body=str(number).encode())


def delivered(client: Session, number: int = 1) -> list[tuple[int, bytes]]:
    """Tags and bodies of the deliveries on a channel that nobody has looked at."""
    found = []
    while client.unread:
        content = client.expect_content(number, Basic.Deliver)
        found.append((content.method.delivery_tag or 0, content.body))
    return found


def take(client: Session, count: int) -> None:
    """Have `count` messages delivered on channel 1, with tags from 1."""
    fill(client, count)
    client.call(1, basic_consume("q", "tag"))
    assert [tag for tag, _ in delivered(client)] == list(range(1, count + 1))


def outstanding(client: Session) -> list[int]:
    """The delivery tags of channel 1 that are not settled."""
    return sorted(channel(client).unacked)


# Settling


def test_ack_settles_one(client: Session, queue: Queue) -> None:
    """A tag is settled alone, wherever it stands."""
    take(client, 5)

    client.send_method(1, basic_ack(3))

    assert outstanding(client) == [1, 2, 4, 5]
    assert queue.unacked_count == 4


def test_ack_multiple_settles_all_up_to_its_tag(client: Session, queue: Queue) -> None:
    """The tag and everything before it that is outstanding."""
    take(client, 6)

    client.send_methods(1, basic_ack(2), basic_ack(4, multiple=True))

    assert outstanding(client) == [5, 6]
    assert channel(client).lowest_unacked == 5


def test_ack_of_zero_settles_all(client: Session, queue: Queue) -> None:
    """Tag zero with multiple stands for every delivery so far, be there any or none."""
    client.send_method(1, basic_ack(0, multiple=True))
    take(client, 3)

    client.send_methods(1, basic_ack(0, multiple=True), basic_ack(0, multiple=True))

    assert outstanding(client) == []
    assert (queue.ready_count, queue.unacked_count) == (0, 0)


@pytest.mark.parametrize("multiple", [False, True])
@pytest.mark.parametrize("tag", [4, 2, 2**63])
def test_ack_of_what_is_not_outstanding(client: Session, tag: int, multiple: bool) -> None:
    """A tag that never was, or is settled, closes the channel, and nothing is settled by it."""
    take(client, 3)
    client.send_method(1, basic_ack(2))

    client.send_method(1, basic_ack(tag, multiple=multiple))

    client.expect_channel_close(1, 406, f"unknown delivery tag {tag}", 60, 80)
    assert client.world.queue("q").ready_count == 2


def test_one_old_tag_held_while_many_are_settled(client: Session, queue: Queue) -> None:
    """A client that keeps its first message for long pays nothing for it, nor does the broker."""
    client.call(1, basic_consume("q", "tag"))
    fill(client, 1000)
    client.drop_unread()
    for tag in range(2, 1001):
        client.send_method(1, basic_ack(tag))
    assert outstanding(client) == [1]
    assert channel(client).lowest_unacked == 1

    fill(client, 2)
    client.send_method(1, basic_ack(1001, multiple=True))

    assert outstanding(client) == [1002]
    assert channel(client).lowest_unacked == 1002
    client.send_method(1, basic_ack(1002, multiple=True))
    assert queue.unacked_count == 0


def test_settled_tags_are_not_walked_again(client: Session) -> None:
    """The lowest tag moves along with every multiple ack."""
    client.call(1, basic_consume("q", "tag"))
    for round_ in range(1, 11):
        fill(client, 10)
        client.send_method(1, basic_ack(round_ * 10, multiple=True))
        assert channel(client).lowest_unacked == round_ * 10 + 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 22), st.booleans()), max_size=12))
def test_settling_agrees_with_a_model(steps: list[tuple[int, bool]]) -> None:
    """Any sequence of acks leaves what a set of numbers would have left."""
    world = World()
    client = world.connect(1, 2)
    client.call(1, queue_declare("q"))
    take(client, 20)
    model = set(range(1, 21))
    for tag, multiple in steps:
        client.send_method(1, basic_ack(tag, multiple=multiple))
        if tag not in model and not (multiple and tag == 0):
            client.expect_channel_close(1, 406, f"unknown delivery tag {tag}", 60, 80)
            assert world.queue("q").ready_count == len(model)
            return
        if not multiple:
            model.remove(tag)
        else:
            model = {each for each in model if tag and each > tag}
        assert outstanding(client) == sorted(model)
        assert all(each >= channel(client).lowest_unacked for each in model)
        assert world.queue("q").unacked_count == len(model)


@pytest.mark.parametrize("method", [basic_nack(1), basic_reject(1)], ids=["nack", "reject"])
def test_rejected_message_is_gone(client: Session, queue: Queue, method: Method) -> None:
    """Without requeue a refused message is dropped."""
    take(client, 1)

    client.send_method(1, method)

    assert (queue.ready_count, queue.unacked_count) == (0, 0)


def test_requeued_messages_return_in_their_order(client: Session) -> None:
    """Whatever the order of the nacks, the queue has its old order again."""
    take(client, 5)
    client.call(1, basic_cancel("tag"))

    client.send_methods(1, *[basic_nack(tag, requeue=True) for tag in (4, 1, 5, 2, 3)])

    assert [client.get(1, "q").body for _ in range(5)] == [b"1", b"2", b"3", b"4", b"5"]


def test_nack_multiple(client: Session, queue: Queue) -> None:
    """nack takes many at once, as ack does."""
    take(client, 4)
    client.call(1, basic_cancel("tag"))

    client.send_method(1, basic_nack(3, multiple=True, requeue=True))

    assert queue.ready_count == 3
    assert outstanding(client) == [4]


def test_recover_requeues_everything(client: Session) -> None:
    """After recover all of it is delivered anew, under new tags."""
    take(client, 3)

    client.send_method(1, basic_recover(requeue=True))

    client.expect(1, Basic.RecoverOk)
    assert delivered(client) == [(4, b"1"), (5, b"2"), (6, b"3")]
    assert outstanding(client) == [4, 5, 6]


def test_tags_count_gets_and_deliveries(client: Session) -> None:
    """One count for all that is handed out on a channel, whether it needs an ack or not."""
    fill(client, 3)
    assert client.get(1, "q", no_ack=True).method.delivery_tag == 1
    assert client.get(1, "q").method.delivery_tag == 2
    client.call(1, basic_consume("q", "tag", no_ack=True))

    assert delivered(client) == [(3, b"3")]
    assert outstanding(client) == [2]


def test_message_of_a_deleted_queue_can_be_settled(client: Session) -> None:
    """Acks, nacks and requeues for a queue that is gone are accepted silently."""
    take(client, 3)
    client.send_method(2, queue_delete("q"))
    client.drop_unread()

    client.send_methods(1, basic_ack(1), basic_nack(2, requeue=True), basic_reject(3))

    client.call(1, basic_qos())
    assert outstanding(client) == []


def test_error_of_a_channel_requeues_in_order(client: Session, queue: Queue) -> None:
    """What a channel held when it erred is back in its place."""
    take(client, 3)
    client.send_method(1, basic_ack(9))
    client.expect(1, Channel.Close)

    assert [client.get(2, "q").body for _ in range(3)] == [b"1", b"2", b"3"]


# Limits


def test_prefetch_of_a_consumer(client: Session) -> None:
    """A consumer holds so many messages at a time, and gets one for each it settles."""
    fill(client, 5)
    client.call(1, basic_qos(prefetch_count=2))
    client.call(1, basic_consume("q", "tag"))
    assert delivered(client) == [(1, b"1"), (2, b"2")]

    client.send_method(1, basic_ack(1))
    assert delivered(client) == [(3, b"3")]
    client.send_method(1, basic_ack(3, multiple=True))

    assert delivered(client) == [(4, b"4"), (5, b"5")]


def test_prefetch_is_of_consumers_that_start_later(client: Session) -> None:
    """Changing it leaves the consumers there are as they are."""
    client.call(1, basic_qos(prefetch_count=1))
    client.call(1, basic_consume("q", "old"))
    client.call(1, basic_qos(prefetch_count=0))
    fill(client, 3)
    assert delivered(client) == [(1, b"1")]

    client.call(1, basic_consume("q", "new"))

    assert delivered(client) == [(2, b"2"), (3, b"3")]


def test_shared_prefetch(client: Session) -> None:
    """All consumers of a channel together hold no more than the limit."""
    fill(client, 5)
    client.call(1, basic_qos(prefetch_count=2, shared=True))
    client.send_methods(1, basic_consume("q", "one"), basic_consume("q", "two"))
    client.expect(1, Basic.ConsumeOk)
    client.expect(1, Basic.ConsumeOk)
    assert [tag for tag, _ in delivered(client)] == [1, 2]

    client.send_method(1, basic_ack(2))
    assert [tag for tag, _ in delivered(client)] == [3]
    client.send_method(1, basic_ack(3, multiple=True))

    assert [tag for tag, _ in delivered(client)] == [4, 5]


def test_shared_prefetch_counts_what_is_outstanding_when_it_is_set(client: Session) -> None:
    """Deliveries and gets from before count; each makes room when it is settled."""
    fill(client, 6)
    client.get(1, "q")
    client.call(1, basic_qos(prefetch_count=1))
    client.call(1, basic_consume("q", "tag"))
    assert [tag for tag, _ in delivered(client)] == [2]
    client.call(1, basic_cancel("tag"))
    client.call(1, basic_qos(prefetch_count=2, shared=True))
    client.call(1, basic_qos(prefetch_count=0))
    client.call(1, basic_qos(prefetch_count=2, shared=True))
    client.call(1, basic_consume("q", "tag"))
    assert channel(client).limited == 2
    client.expect_nothing()

    client.send_method(1, basic_ack(1))
    assert [tag for tag, _ in delivered(client)] == [3]
    client.send_method(1, basic_ack(2))

    assert [tag for tag, _ in delivered(client)] == [4]


def test_get_is_not_limited(client: Session) -> None:
    """basic.get neither asks the shared limit nor takes from it."""
    fill(client, 5)
    client.call(1, basic_qos(prefetch_count=1, shared=True))
    client.call(1, basic_consume("q", "tag"))
    assert [tag for tag, _ in delivered(client)] == [1]
    assert [client.get(1, "q").method.delivery_tag for _ in range(2)] == [2, 3]

    client.send_methods(1, basic_ack(2), basic_ack(3))
    client.expect_nothing()
    assert channel(client).limited == 1
    client.send_method(1, basic_ack(1))

    assert [tag for tag, _ in delivered(client)] == [4]


def test_shared_prefetch_can_be_raised_and_lowered(client: Session) -> None:
    """More room is used at once; less is waited for."""
    fill(client, 9)
    client.call(1, basic_qos(prefetch_count=1, shared=True))
    client.call(1, basic_consume("q", "tag"))
    assert len(delivered(client)) == 1

    client.send_method(1, basic_qos(prefetch_count=4, shared=True))
    client.expect(1, Basic.QosOk)
    assert len(delivered(client)) == 3

    client.call(1, basic_qos(prefetch_count=2, shared=True))
    client.send_method(1, basic_ack(2, multiple=True))
    client.expect_nothing()
    client.send_method(1, basic_ack(3))
    assert len(delivered(client)) == 1

    client.send_method(1, basic_qos(prefetch_count=0, shared=True))
    client.expect(1, Basic.QosOk)
    assert len(delivered(client)) == 4


def test_consumers_without_acks_wait_for_the_shared_limit_but_do_not_count(
    client: Session,
) -> None:
    """While the limit is reached nobody on the channel gets anything."""
    client.call(1, queue_declare("free"))
    client.call(1, basic_qos(prefetch_count=1, shared=True))
    client.call(1, basic_consume("q", "tag"))
    client.call(1, basic_consume("free", "free", no_ack=True))
    for _ in range(2):
        client.publish(2, "", "free", body=b"free")
    assert len(delivered(client)) == 2
    fill(client, 1)
    assert len(delivered(client)) == 1
    client.publish(2, "", "free", body=b"free")
    client.expect_nothing()

    client.send_method(1, basic_ack(3))

    assert delivered(client) == [(4, b"free")]


def test_recover_frees_the_shared_limit(client: Session) -> None:
    """What was given back is not held any more."""
    fill(client, 2)
    client.call(1, basic_qos(prefetch_count=2, shared=True))
    client.call(1, basic_consume("q", "tag"))
    assert len(delivered(client)) == 2

    client.send_method(1, basic_recover(requeue=True))

    client.expect(1, Basic.RecoverOk)
    assert len(delivered(client)) == 2
    assert channel(client).limited == 2


@pytest.mark.parametrize("prefetch_count", [1, 3])
def test_shared_limit_starves_no_queue(world: World, client: Session, prefetch_count: int) -> None:
    """A channel that consumes from five queues gets from each in turn."""
    for number in range(5):
        client.call(1, queue_declare(f"q{number}"))
        for _ in range(20):
            client.publish(2, "", f"q{number}", body=str(number).encode())
    client.call(1, basic_qos(prefetch_count=prefetch_count, shared=True))
    client.send_methods(1, *[basic_consume(f"q{number}", f"t{number}") for number in range(5)])
    for _ in range(5):
        client.expect(1, Basic.ConsumeOk)
    order: list[bytes] = []
    while got := delivered(client):
        assert len(got) <= prefetch_count
        order += [body for _, body in got]
        client.send_methods(1, *[basic_ack(tag) for tag, _ in got])

    assert sorted(order) == sorted([b"0", b"1", b"2", b"3", b"4"] * 20)
    for start in range(0, 80, 20):
        assert set(order[start : start + 20]) == {b"0", b"1", b"2", b"3", b"4"}


# Transactions


def test_rollback_restores_tags(client: Session, queue: Queue) -> None:
    """What was settled in a transaction is outstanding again, under the tags it had."""
    take(client, 5)
    client.call(1, TX_SELECT)
    client.send_methods(1, basic_ack(1), basic_nack(3), basic_ack(4, multiple=True))
    assert outstanding(client) == [5]

    client.call(1, TX_ROLLBACK)

    assert outstanding(client) == [1, 2, 3, 4, 5]
    assert channel(client).lowest_unacked == 1
    assert queue.unacked_count == 5
    client.send_method(1, basic_ack(5, multiple=True))
    client.call(1, TX_COMMIT)
    assert queue.unacked_count == 0


def test_commit_settles(client: Session, queue: Queue) -> None:
    """Acks, rejections and requeues take effect together, at commit."""
    take(client, 4)
    client.call(1, basic_cancel("tag"))
    client.call(1, TX_SELECT)
    client.send_methods(1, basic_ack(1), basic_nack(2, requeue=True), basic_reject(3))
    assert (queue.ready_count, queue.unacked_count) == (0, 4)

    client.call(1, TX_COMMIT)

    assert (queue.ready_count, queue.unacked_count) == (1, 1)
    assert client.get(2, "q").body == b"2"


def test_transaction_of_a_closed_channel_is_rolled_back(client: Session, queue: Queue) -> None:
    """What it published is nowhere, what it settled is back in its queue."""
    take(client, 2)
    client.call(1, TX_SELECT)
    client.send_method(1, basic_ack(1))
    client.publish(1, "", "q", body=b"never")

    client.close_channel(1)

    assert [client.get(2, "q").body for _ in range(2)] == [b"1", b"2"]
    assert queue.ready_count == 0


def test_returns_of_a_transaction_come_before_commit_ok(client: Session) -> None:
    """Mandatory messages without a queue are returned at commit, and only then."""
    client.call(1, TX_SELECT)
    client.publish(1, "", "none", body=b"back", mandatory=True)
    client.expect_nothing()

    client.send_method(1, TX_COMMIT)

    assert client.expect_content(1, Basic.Return).body == b"back"
    client.expect(1, Tx.CommitOk)


def test_transactions_follow_each_other(client: Session, queue: Queue) -> None:
    """After commit or rollback the next one has begun."""
    client.call(1, TX_SELECT)
    for end in (TX_COMMIT, TX_ROLLBACK, TX_COMMIT):
        client.publish(1, "", "q", body=b"x")
        client.call(1, end)

    assert queue.ready_count == 2


def test_shared_limit_in_a_transaction(client: Session) -> None:
    """What is settled in a transaction makes room at commit, and none at rollback."""
    fill(client, 6)
    client.call(1, basic_qos(prefetch_count=2, shared=True))
    client.call(1, basic_consume("q", "tag"))
    assert len(delivered(client)) == 2
    client.call(1, TX_SELECT)
    client.send_method(1, basic_ack(2, multiple=True))
    client.expect_nothing()
    client.call(1, TX_ROLLBACK)
    client.expect_nothing()
    client.send_method(1, basic_ack(2, multiple=True))

    client.send_method(1, TX_COMMIT)

    client.expect(1, Tx.CommitOk)
    assert len(delivered(client)) == 2
    assert channel(client).limited == 2


def test_shared_limit_set_in_a_transaction(client: Session) -> None:
    """What is settled but not committed is outstanding, and counts."""
    take(client, 2)
    client.call(1, TX_SELECT)
    client.send_method(1, basic_ack(2, multiple=True))
    client.call(1, basic_qos(prefetch_count=2, shared=True))
    client.call(1, TX_COMMIT)
    assert channel(client).limited == 0
    fill(client, 5)

    assert len(delivered(client)) == 2


def test_recover_in_a_transaction_and_the_shared_limit(client: Session) -> None:
    """Only what is given back makes room; what waits for commit still counts."""
    fill(client, 9)
    client.call(1, basic_qos(prefetch_count=3, shared=True))
    client.call(1, basic_consume("q", "tag"))
    assert len(delivered(client)) == 3
    client.call(1, TX_SELECT)
    client.send_method(1, basic_ack(2, multiple=True))

    client.send_method(1, basic_recover(requeue=True))
    client.expect(1, Basic.RecoverOk)
    assert delivered(client) == [(4, b"3")]

    client.send_method(1, TX_COMMIT)
    client.expect(1, Tx.CommitOk)
    assert delivered(client) == [(5, b"4"), (6, b"5")]
    assert channel(client).limited == 3


# Publishing


@pytest.mark.parametrize("confirming", [False, True])
def test_message_published_to_nowhere(client: Session, confirming: bool) -> None:
    """A message that no queue takes is dropped, returned if mandatory, and confirmed."""
    if confirming:
        client.call(1, confirm_select())
    client.publish(1, "", "none", body=b"dropped")
    client.publish(1, "", "none", body=b"returned", mandatory=True)

    returned = client.expect_content(1, Basic.Return) if not confirming else None
    if confirming:
        assert client.expect(1, Basic.Ack).delivery_tag == 1
        returned = client.expect_content(1, Basic.Return)
        assert client.expect(1, Basic.Ack).delivery_tag == 2
    assert returned is not None
    assert (returned.method.reply_code, returned.method.reply_text) == (312, "NO_ROUTE")
    assert returned.body == b"returned"
    client.expect_nothing()


def test_extra_keys_of_a_message(client: Session) -> None:
    """CC and BCC route as the key does, and only BCC is taken out of the headers."""
    for name in ("cc", "bcc"):
        client.call(1, queue_declare(name))
    headers = table(
        ("CC", "A", (("S", "cc"), ("I", 1))), ("BCC", "A", (("S", "bcc"),)), ("kept", "s", 1)
    )

    client.publish(1, "", "q", properties(headers=headers, priority=1), b"x")

    seen = table(("CC", "A", (("S", "cc"), ("I", 1))), ("kept", "s", 1))
    for name in ("q", "cc", "bcc"):
        assert client.get(1, name).properties == properties(headers=seen, priority=1).encoded


def test_headers_decide_each_time(client: Session) -> None:
    """Through a headers exchange every message goes its own way."""
    client.call(1, exchange_declare("h", "headers"))
    client.call(1, queue_bind("q", "h", arguments=table(("k", "S", "v"))))
    for value in ("v", "w", "v"):
        headers = properties(headers=table(("k", "S", value)))
        client.publish(1, "h", "", headers, value.encode())
    client.publish(1, "h", "", body=b"none")

    assert [client.get(1, "q").body for _ in range(2)] == [b"v", b"v"]
    assert isinstance(client.call(1, basic_get("q")), Basic.GetEmpty)


@pytest.mark.parametrize(
    "content",
    [
        properties(headers=longstr(b"\x01aU\0\x01")),
        properties(headers=b"\0\0\0\x09\x01a"),
        properties(headers=longstr(b"\x01a")),
        properties()._replace(flags=1 << 12),
        properties()._replace(flags=1 << 6, values=b"\0\0"),
        properties()._replace(values=b"more"),
        properties()._replace(flags=1 << 15, values=b"\x09short"),
    ],
    ids=range(7),
)
@pytest.mark.parametrize("repeated", [False, True])
def test_header_that_does_not_add_up(client: Session, content: Properties, repeated: bool) -> None:
    """A header that cannot be trusted closes the connection and reaches no queue."""
    if repeated:
        client.publish(1, "", "q", body=b"known")
        client.get(1, "q", no_ack=True)
    client.publish(1, "", "q", content, b"x")

    client.expect_connection_close(502, "malformed properties in content header", 60, 40)
    assert client.world.queue("q").ready_count == 0


def test_delivery_heads_fit_every_address(client: Session) -> None:
    """Messages of different keys, exchanges and consumers are told apart."""
    for name in ("amq.direct", "amq.topic"):
        for key in ("k", "key", ""):
            client.call(1, queue_bind("q", name, key or "#"))
    client.call(1, basic_consume("q", "tag", no_ack=True))
    sent = [("", "q"), ("amq.direct", "k"), ("amq.direct", "key"), ("amq.topic", ""), ("", "q")]
    for exchange, key in sent:
        client.publish(2, exchange, key, body=key.encode())

    for tag, (exchange, key) in enumerate(sent, start=1):
        method = client.expect_content(1, Basic.Deliver).method
        assert (method.exchange, method.routing_key) == (exchange, key)
        assert (method.consumer_tag, method.delivery_tag) == ("tag", tag)


def test_bodies_are_split_for_the_consumer(world: World, client: Session) -> None:
    """A consumer with small frames gets in many what a publisher with large ones sent in one."""
    small = world.connect(1, frame_max=4096)
    small.call(1, basic_consume("q", "tag"))
    client.publish(1, "", "q", body=bytes(10_000))

    frames_ = small.expect_content(1, Basic.Deliver).body_frames

    assert [len(each) for each in frames_] == [4088, 4088, 1824]


def test_pipelined_consumers_start_in_order(client: Session, queue: Queue) -> None:
    """Consumers started in one read take turns from the first on."""
    client.send(frames(1, [basic_consume("q", "a"), basic_consume("q", "b")]))
    client.drop_unread()
    fill(client, 4)

    tags = [client.expect_content(1, Basic.Deliver).method.consumer_tag for _ in range(4)]

    assert tags == ["a", "b", "a", "b"]
