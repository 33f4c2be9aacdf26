"""Output that waits, and what a connection does when there is too much of it."""

import pytest
from pamqp.commands import Basic, Connection
from session_support import Session, World
from wire_methods import (
    basic_ack,
    basic_consume,
    basic_get,
    basic_publish,
    basic_qos,
    channel_open,
    confirm_select,
    connection_close,
    frames,
    queue_declare,
)

from broker.amqp.output import Output
from broker.core.reply import REPLY_TO
from broker.core.turn import Session as TurnSession
from broker.core.turn import Turn


class Listed(TurnSession):
    """Something that can stand in a turn's list of outputs."""

    def lost(self) -> None: ...

    def resume_input(self) -> None: ...

    def store_advanced(self) -> None: ...

    def alarms_changed(self) -> None: ...

    def end_turn(self) -> None: ...


def output(high_bytes: int = 100, bytes_max: int = 1000) -> tuple[Output, Turn]:
    """An empty output and its turn."""
    turn = Turn(lambda: None)
    return Output(Listed(), turn, high_bytes, bytes_max), turn


def test_output_is_noted_once() -> None:
    """However much is sent, the session stands in the turn's list once."""
    out, turn = output()
    out.send(b"one")
    out.send(b"two")

    assert len(turn.outputs) == 1
    assert out.take() == [b"one", b"two"]
    assert out.size_bytes == 0


def test_taken_pieces_belong_to_the_taker() -> None:
    """What is sent after `take` goes to a list of its own."""
    out, _ = output()
    out.send(b"one")
    taken = out.take()
    out.send(b"two")

    assert taken == [b"one"]
    assert out.take() == [b"two"]


def test_marks_count_what_the_socket_holds() -> None:
    """What the peer has not read counts like what was not written."""
    out, _ = output(high_bytes=100, bytes_max=1000)
    out.flushed(500, backlog_bytes=60)
    out.count(40)
    assert not out.is_over_limit()
    out.count(1)
    assert out.is_over_limit()
    assert not out.is_over_max()
    out.count(899)
    assert not out.is_over_max()
    out.count(1)

    assert out.is_over_max()
    assert out.sent_octets == 500


@pytest.mark.parametrize(
    ("backlog_bytes", "drained"), [(0, True), (49, True), (50, True), (51, False), (100, False)]
)
def test_drained_means_half_of_the_high_mark(backlog_bytes: int, drained: bool) -> None:
    """At half of the mark deliveries go on: just where the socket stops reporting its backlog."""
    out, _ = output(high_bytes=100)

    out.flushed(0, backlog_bytes)

    assert out.has_drained() is drained


# Through a connection

HIGH = 4096
MAX = 40_960


@pytest.fixture
def world() -> World:
    """A node whose connections hold little."""
    return World(write_buffer_high_bytes=HIGH, write_buffer_bytes_max=MAX, write_stall_ms=5000)


@pytest.fixture
def client(world: World) -> Session:
    """A client with channels 1 and 2 open, and the queue `q`."""
    client = world.connect(1, 2)
    client.call(1, queue_declare("q"))
    return client


def fill(world: World, count: int, size: int = 1000) -> None:
    """Put numbered messages into `q`."""
    publisher = world.connect(1)
    for number in range(count):
        publisher.publish(1, "", "q", body=number.to_bytes(4, "big") + bytes(size - 4))
    publisher.hang_up()


def numbers(client: Session) -> list[int]:
    """The numbers of the messages delivered and not looked at."""
    bodies = [frame.payload for frame in client.read_frames() if frame.type == 3]
    return [int.from_bytes(body[:4], "big") for body in bodies]


def held_bytes(client: Session) -> int:
    """What the connection holds for a client that does not read."""
    return client.connection.output.size_bytes + len(client.wire.backlog)


def test_consumer_that_does_not_read_gets_no_more(world: World, client: Session) -> None:
    """Deliveries stop at the high mark; the rest stays in the queue."""
    client.call(1, basic_consume("q", no_ack=True))
    client.wire.stalled = True

    fill(world, 100)

    assert HIGH < held_bytes(client) < HIGH + 2000
    assert world.queue("q").ready_count > 90
    assert client.is_read()


def test_deliveries_go_on_in_order_when_it_reads_again(world: World, client: Session) -> None:
    """Nothing is lost, doubled or out of order."""
    client.call(1, basic_consume("q", no_ack=True))
    client.wire.stalled = True
    fill(world, 100)

    client.wire.drain()
    world.run_turns()

    assert numbers(client) == list(range(100))
    assert world.queue("q").ready_count == 0


def test_other_consumer_gets_the_rest(world: World, client: Session) -> None:
    """A consumer that does not read leaves the rotation and holds up nobody."""
    other = world.connect(1)
    client.call(1, basic_consume("q", no_ack=True))
    other.call(1, basic_consume("q", no_ack=True))
    client.wire.stalled = True

    fill(world, 100)
    theirs = numbers(other)
    client.wire.drain()
    ours = numbers(client)

    assert len(ours) < 10
    assert sorted(ours + theirs) == list(range(100))
    assert ours == sorted(ours) and theirs == sorted(theirs)


def test_every_channel_of_a_congested_connection_waits(world: World, client: Session) -> None:
    """The mark is the connection's: a second channel does not double it."""
    client.call(1, basic_consume("q", no_ack=True))
    client.call(2, basic_consume("q", no_ack=True))
    client.wire.stalled = True

    fill(world, 100)

    assert held_bytes(client) < HIGH + 2000


def test_channel_opened_while_congested_waits_too(world: World, client: Session) -> None:
    """A new channel gets no deliveries before the connection has drained."""
    client.call(1, basic_consume("q", no_ack=True))
    client.wire.stalled = True
    fill(world, 100)
    held = held_bytes(client)

    client.send(client_opens(3))
    assert held_bytes(client) < held + 200

    client.wire.drain()
    world.run_turns()
    assert numbers(client) == list(range(100))


def client_opens(channel: int) -> bytes:
    """channel.open and basic.consume in one read."""
    return frames(channel, [channel_open(), basic_consume("q", no_ack=True)])


def test_acknowledgements_are_read_while_deliveries_wait(world: World, client: Session) -> None:
    """Reading never stops because of deliveries, so that a client may ack before it reads."""
    client.call(1, basic_consume("q", "tag"))
    client.wire.stalled = True
    fill(world, 100)
    unacked = world.queue("q").unacked_count

    client.send_method(1, basic_ack(unacked, multiple=True))

    assert world.queue("q").unacked_count == 0
    client.wire.drain()
    world.run_turns()
    assert numbers(client) == list(range(100))


def test_consumer_waits_until_half_has_drained(world: World, client: Session) -> None:
    """A client that reads a little is not given a little more: that would be a trickle."""
    client.call(1, basic_consume("q", no_ack=True))
    client.wire.stalled = True
    fill(world, 100)
    waiting = world.queue("q").ready_count

    client.connection.flushed(0, HIGH // 2 + 1)
    world.run_turns()
    assert world.queue("q").ready_count == waiting

    client.connection.flushed(0, HIGH // 2)
    world.run_turns()
    assert world.queue("q").ready_count < waiting


def is_finished(client: Session) -> bool:
    """Whether the wire is to be closed."""
    return client.connection.finished


def saturate(client: Session, count: int = 100) -> None:
    """Have so much returned that the connection takes no more, in one read."""
    content = client.encode_content(1, basic_publish("", "none", mandatory=True), body=bytes(1000))
    client.wire.stalled = True
    client.send(content * count)


def test_client_that_does_not_read_its_returns_is_not_read(world: World, client: Session) -> None:
    """Replies and returns have no queue to wait in, so above the maximum their cause stops."""
    saturate(client)

    assert not client.is_read()
    assert MAX < held_bytes(client) < MAX + 2000


def test_saturated_client_that_reads_again_is_read_again(world: World, client: Session) -> None:
    """What was sent meanwhile is handled in its order, all of it."""
    saturate(client)
    client.send_methods(1, basic_qos(prefetch_count=1))

    while not client.is_read():
        client.wire.drain()
        world.run_turns()

    for _ in range(100):
        client.expect_content(1, Basic.Return)
    client.expect(1, Basic.QosOk)
    client.expect_nothing()


def test_saturated_client_that_never_reads_is_dropped(world: World, client: Session) -> None:
    """A client that does not drain in time is finished without another word."""
    saturate(client)
    world.advance(4999)
    assert not is_finished(client)

    world.advance(1)

    assert is_finished(client)
    assert client.connection.deadline_ms == 0
    world.advance(1_000_000)
    client.wire.drain()
    assert client.ended()


def test_saturated_client_that_drains_in_time_stays(world: World, client: Session) -> None:
    """The time counts from the moment of saturation, each time anew."""
    for _ in range(3):
        saturate(client)
        world.advance(4999)
        while not client.is_read():
            client.wire.drain()
            world.run_turns()
        client.drop_unread()

    world.advance(1_000_000)
    assert not client.ended()


def test_gets_saturate_like_returns(world: World, client: Session) -> None:
    """basic.get-ok is a reply, too."""
    fill(world, 100)
    client.wire.stalled = True

    client.send_methods(1, *[basic_get("q")] * 100)

    assert not client.is_read()
    assert held_bytes(client) < MAX + 2000
    assert world.queue("q").ready_count > 50


def test_direct_reply_to_a_saturated_client_is_dropped(world: World, client: Session) -> None:
    """A requester that does not read is treated as one that is gone; the responder is not told."""
    requester, responder = client, world.connect(1)
    requester.call(1, basic_consume(REPLY_TO, no_ack=True))
    (name,) = world.vhost.reply_queues
    saturate(requester)
    held = held_bytes(requester)

    responder.publish(1, "", name, body=b"lost", mandatory=True)

    responder.expect_nothing()
    assert held_bytes(requester) == held


def test_direct_reply_reaches_a_congested_client(world: World, client: Session) -> None:
    """Between the marks replies are still taken: they are what the requester waits for."""
    responder = world.connect(1)
    client.call(1, basic_consume(REPLY_TO, no_ack=True))
    client.call(1, basic_consume("q", no_ack=True))
    (name,) = world.vhost.reply_queues
    client.wire.stalled = True
    fill(world, 100)

    responder.publish(1, "", name, body=b"reply")

    assert b"reply" in client.wire.backlog


def test_direct_replies_come_again_after_draining(world: World, client: Session) -> None:
    """Once the requester reads, it is there again."""
    responder = world.connect(1)
    client.call(1, basic_consume(REPLY_TO, no_ack=True))
    (name,) = world.vhost.reply_queues
    saturate(client)
    while not client.is_read():
        client.wire.drain()
        world.run_turns()
    client.drop_unread()

    responder.publish(1, "", name, body=b"reply")

    assert client.expect_content(1, Basic.Deliver).body == b"reply"


def test_confirms_of_a_client_that_does_not_read_are_few(world: World, client: Session) -> None:
    """Confirms of one turn are one frame, so a publisher that reads none costs little."""
    client.call(1, confirm_select())
    client.wire.stalled = True
    content = client.encode_content(1, basic_publish("", "q"), body=b"x")
    for _ in range(10):
        client.send(content * 1000)

    assert held_bytes(client) == 10 * 21
    assert world.queue("q").ready_count == 10_000


def test_closing_a_saturated_connection(world: World, client: Session) -> None:
    """The operator's close reaches the client when it reads; its answer is read then, too."""
    saturate(client)
    client.connection.close("why not")
    client.wire.drain()
    world.run_turns()

    client.drop_unread()
    client.connection_close_ok()

    client.expect_end()


def test_output_of_a_lost_connection_is_forgotten(world: World, client: Session) -> None:
    """A connection that goes holds nothing, and its messages are back in their queue."""
    client.call(1, basic_consume("q", "tag"))
    client.wire.stalled = True
    fill(world, 100)

    client.hang_up()

    assert client.connection.output.size_bytes == 0
    assert world.queue("q").ready_count == 100
    assert not world.queue("q").consumers


def test_close_is_written_behind_everything(world: World, client: Session) -> None:
    """close-ok is the last frame, whatever was waiting before it."""
    fill(world, 3)
    client.send_methods(1, basic_consume("q", no_ack=True))
    client.send_method(0, connection_close())

    kinds = client.read_frames()

    assert kinds[-1] == (1, 0, Connection.CloseOk.index.to_bytes(4, "big"))
    assert "q" in world.vhost.queues
