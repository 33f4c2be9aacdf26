"""Publishers under an alarm: held back in order while everything else goes on."""

import pytest
from pamqp.commands import Basic, Channel, Connection, Queue
from session_support import Session, World
from wire_methods import (
    basic_ack,
    basic_consume,
    basic_nack,
    basic_publish,
    basic_qos,
    channel_open,
    confirm_select,
    connection_close,
    content_header,
    frame,
    frames,
    queue_declare,
    update_secret,
)

from broker.amqp.channel import Channel as BrokerChannel
from broker.amqp.parking import Parking


@pytest.fixture
def world() -> World:
    """A node."""
    return World(blocked_input_bytes_max=10_000)


@pytest.fixture
def client(world: World) -> Session:
    """A client with channels 1 and 2 open, and the queue `q` with a message in it."""
    client = world.connect(1, 2)
    client.call(1, queue_declare("q"))
    client.publish(1, "", "q", body=b"before")
    return client


def set_alarm(world: World, active: bool = True, resource: str = "memory") -> None:
    """Set or clear an alarm, and run the turn that follows."""
    world.node.set_alarm(resource, active)
    world.run_turns()


def channel(client: Session, number: int = 1) -> BrokerChannel:
    """The broker's end of a channel."""
    return client.connection.channels[number]


def is_full(parking: Parking) -> bool:
    """Whether nothing more should be read, asked anew."""
    return parking.is_full


# By itself


def test_frames_of_several_channels_keep_their_order(client: Session) -> None:
    """What is released is what was held, in the order it came."""
    parking = Parking(100)
    one, two = channel(client, 1), channel(client, 2)
    parking.park(one)
    parking.park(two)
    parking.hold(one, b"1")
    parking.hold(two, b"2")
    parking.hold(one, b"3")

    assert parking.release() == [b"1", b"2", b"3"]
    assert parking.is_empty
    assert not one.parked and not two.parked


def test_parking_is_full_past_its_bound(client: Session) -> None:
    """The bound itself may be held."""
    parking = Parking(4)
    parking.park(channel(client))
    parking.hold(channel(client), b"four")
    assert not is_full(parking)

    parking.hold(channel(client), b"x")

    assert is_full(parking)
    parking.release()
    assert not is_full(parking)


def test_forgotten_channel_takes_its_frames_along(client: Session) -> None:
    """What others have held stays."""
    parking = Parking(2)
    one, two = channel(client, 1), channel(client, 2)
    parking.park(one)
    parking.park(two)
    parking.hold(one, b"111")
    parking.hold(two, b"2")
    assert is_full(parking)

    parking.forget(one)

    assert not is_full(parking)
    assert parking.release() == [b"2"]


def test_forgetting_a_channel_that_is_not_parked(client: Session) -> None:
    """Nothing happens."""
    parking = Parking(2)
    parking.park(channel(client, 1))
    parking.hold(channel(client, 1), b"1")

    parking.forget(channel(client, 2))

    assert parking.release() == [b"1"]


# Through a connection


def test_publish_is_held(world: World, client: Session) -> None:
    """The publish that meets the alarm waits, with all that follows it on its channel."""
    set_alarm(world)
    client.publish(1, "", "q", body=b"one")
    client.send_method(1, queue_declare("q", passive=True))

    assert client.expect(0, Connection.Blocked).reason == "low on memory"
    client.expect_nothing()
    assert world.queue("q").ready_count == 1


def test_other_channels_go_on(world: World, client: Session) -> None:
    """A channel of the same connection declares, consumes and acknowledges as ever."""
    set_alarm(world)
    client.publish(1, "", "q", body=b"one")
    client.expect(0, Connection.Blocked)

    client.call(2, queue_declare("other"))
    client.call(2, basic_consume("q", "tag"))
    delivery = client.expect_content(2, Basic.Deliver)
    client.send_method(2, basic_ack(1))
    client.send(frames(3, [channel_open()]))

    client.expect(3, Channel.OpenOk)
    assert delivery.body == b"before"
    assert world.queue("q").unacked_count == 0


def test_connection_methods_and_heartbeats_go_on(world: World) -> None:
    """What is not a channel's is never held."""
    client = world.connect(1, heartbeat=10)
    set_alarm(world)
    client.publish(1, "", "q", body=b"one")
    client.expect(0, Connection.Blocked)

    client.send_method(0, update_secret("secret"))
    client.expect(0, Connection.UpdateSecretOk)
    for _ in range(10):
        world.advance(10_000)
        client.send_frame(8, 0, b"")
    client.drop_unread()
    assert not client.ended()
    client.send_method(0, connection_close())
    client.expect(0, Connection.CloseOk)


def test_deliveries_to_a_parked_channel_go_on(world: World, client: Session) -> None:
    """Its consumers are served; only its input waits."""
    client.get(2, "q")
    client.call(1, basic_consume("q", "tag"))
    set_alarm(world)
    client.publish(1, "", "q", body=b"one")
    client.expect(0, Connection.Blocked)

    client.send_method(2, basic_nack(1, requeue=True))

    assert client.expect_content(1, Basic.Deliver).body == b"before"


def test_release_is_in_order(world: World, client: Session) -> None:
    """After the alarm everything held is handled as it came, and nothing is lost."""
    set_alarm(world)
    bodies = [f"{number}".encode() for number in range(20)]
    for number, body in enumerate(bodies):
        client.publish(1 + number % 2, "", "q", body=body)
    client.send_method(1, queue_declare("q", passive=True))
    client.expect(0, Connection.Blocked)
    client.expect_nothing()

    set_alarm(world, False)

    client.expect(0, Connection.Unblocked)
    assert client.expect(1, Queue.DeclareOk).message_count == 21
    assert [client.get(2, "q").body for _ in range(21)] == [b"before", *bodies]


def test_what_is_held_comes_before_what_arrives_in_the_turn_of_the_release(
    world: World, client: Session
) -> None:
    """Between the end of the alarm and the next turn nothing overtakes."""
    set_alarm(world)
    client.publish(1, "", "q", body=b"held")
    client.runs_turns = False
    world.node.set_alarm("memory", False)

    client.publish(1, "", "q", body=b"later")
    world.run_turns()

    client.drop_unread()
    client.runs_turns = True
    assert [client.get(1, "q").body for _ in range(3)] == [b"before", b"held", b"later"]


def test_half_a_frame_stays_behind_what_is_released(world: World, client: Session) -> None:
    """A frame that had arrived in part when the alarm ended is completed behind the others."""
    set_alarm(world)
    client.publish(1, "", "q", body=b"held")
    octets = client.encode_content(1, basic_publish("", "q"), body=b"later")
    client.send(octets[:-3])

    set_alarm(world, False)
    client.send(octets[-3:])

    client.drop_unread()
    assert [client.get(1, "q").body for _ in range(3)] == [b"before", b"held", b"later"]


def test_alarm_in_the_middle_of_a_content(world: World, client: Session) -> None:
    """A message whose header had come before the alarm is completed; the next one waits."""
    client.send_method(1, basic_publish("", "q"))
    client.send(frame(2, 1, content_header(3)))
    set_alarm(world)
    client.send(frame(3, 1, b"one"))
    client.publish(1, "", "q", body=b"two")
    assert world.queue("q").ready_count == 2

    set_alarm(world, False)

    assert world.queue("q").ready_count == 3


def test_alarm_between_method_and_header(world: World, client: Session) -> None:
    """A method whose header meets the alarm is held with it."""
    client.send_method(1, basic_publish("", "q"))
    set_alarm(world)
    client.send(frame(2, 1, content_header(3)) + frame(3, 1, b"one"))
    client.expect(0, Connection.Blocked)
    assert world.queue("q").ready_count == 1

    set_alarm(world, False)

    client.expect(0, Connection.Unblocked)
    assert world.queue("q").ready_count == 2


def test_message_without_a_body_passes(world: World, client: Session) -> None:
    """It is complete with its header; what follows it is held."""
    set_alarm(world)
    client.publish(1, "", "q")
    client.publish(1, "", "q")

    client.expect(0, Connection.Blocked)
    assert world.queue("q").ready_count == 2
    set_alarm(world, False)
    assert world.queue("q").ready_count == 3


def test_publish_seen_before_is_held_like_any(world: World, client: Session) -> None:
    """The quick way of a publish that repeats itself knows alarms, too."""
    octets = client.encode_content(1, basic_publish("", "q"), body=b"x")
    client.send(octets * 3)
    set_alarm(world)

    client.send(octets * 3)

    assert world.queue("q").ready_count == 4
    set_alarm(world, False)
    assert world.queue("q").ready_count == 7


def test_client_is_told_once(world: World, client: Session) -> None:
    """However many channels publish, and whatever other alarms come, there is one blocked."""
    set_alarm(world)
    client.publish(1, "", "q", body=b"one")
    set_alarm(world, resource="disk")
    client.publish(2, "", "q", body=b"two")
    set_alarm(world, False)

    client.expect(0, Connection.Blocked)
    client.expect_nothing()
    set_alarm(world, False, resource="disk")
    client.expect(0, Connection.Unblocked)
    client.expect_nothing()
    assert world.queue("q").ready_count == 3


def test_alarm_that_comes_back_holds_again(world: World, client: Session) -> None:
    """What is still held when the next alarm comes waits for that one's end as well."""
    set_alarm(world)
    client.publish(1, "", "q", body=b"one")
    client.publish(1, "", "q", body=b"two")
    world.node.set_alarm("memory", False)
    world.node.set_alarm("memory", True)
    world.run_turns()

    client.expect(0, Connection.Blocked)
    client.expect(0, Connection.Unblocked)
    client.expect(0, Connection.Blocked)
    assert world.queue("q").ready_count == 1
    set_alarm(world, False)
    client.expect(0, Connection.Unblocked)
    assert [client.get(2, "q").body for _ in range(3)] == [b"before", b"one", b"two"]


def test_reading_stops_when_too_much_is_held(world: World, client: Session) -> None:
    """Past the bound the wire reads no more, and after the alarm it reads again."""
    set_alarm(world)
    client.publish(1, "", "q", body=bytes(9000))
    assert client.is_read()

    client.publish(1, "", "q", body=bytes(1000))
    assert not client.is_read()

    set_alarm(world, False)
    assert client.is_read()
    assert world.queue("q").ready_count == 3


def test_confirms_of_held_publishes_come_after_the_alarm(world: World, client: Session) -> None:
    """A publish is not confirmed while it is held."""
    client.call(1, confirm_select())
    set_alarm(world)
    client.publish(1, "", "q", body=b"one")
    client.publish(1, "", "q", body=b"two")
    client.expect(0, Connection.Blocked)
    client.expect_nothing()

    set_alarm(world, False)

    client.expect(0, Connection.Unblocked)
    ack = client.expect(1, Basic.Ack)
    assert (ack.delivery_tag, ack.multiple) == (2, True)


def test_error_in_what_was_held(world: World, client: Session) -> None:
    """A mistake made under the alarm is answered after it."""
    set_alarm(world)
    client.publish(1, "no-such-exchange", "", body=b"one")
    client.publish(1, "", "q", body=b"two")
    client.expect(0, Connection.Blocked)

    set_alarm(world, False)

    client.expect(0, Connection.Unblocked)
    client.expect_channel_close(1, 404, "no exchange 'no-such-exchange' in vhost '/'", 60, 40)
    assert world.queue("q").ready_count == 1


def test_client_that_goes_takes_what_is_held_along(world: World, client: Session) -> None:
    """Nothing of a connection that ended under the alarm is published after it."""
    set_alarm(world)
    client.publish(1, "", "q", body=b"one")
    client.hang_up()

    set_alarm(world, False)

    assert world.queue("q").ready_count == 1
    assert not world.node.sessions


def test_error_text_names_the_state(world: World, client: Session) -> None:
    """An unexpected method on channel 0 finds a blocked connection in the state blocked."""
    set_alarm(world)
    client.publish(1, "", "q", body=b"one")
    client.expect(0, Connection.Blocked)

    client.send_method(0, basic_qos())

    client.expect_connection_close(504, "unexpected method in connection state blocked", 60, 10)
