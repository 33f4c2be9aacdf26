"""Heartbeats with the clock turned by hand."""

import pytest
from pamqp import commands
from session_support import Session, World
from wire_methods import connection_close

from broker.amqp.frames import HEARTBEAT_FRAME
from broker.amqp.heartbeat import Heartbeat


class Watched:
    """A heartbeat asked at the times a test names, in milliseconds since it began."""

    def __init__(self, interval_seconds: int) -> None:
        self.heartbeat = Heartbeat(interval_seconds, 1_000_000)
        self.sent_octets = 0
        self.received_octets = 0

    def sends(self, at_ms: int) -> bool:
        """Whether a heartbeat is sent when asked at this time."""
        due = self.heartbeat.is_send_due(1_000_000 + at_ms, self.sent_octets)
        if due:
            self.sent_octets += len(HEARTBEAT_FRAME)
        return due

    def gone(self, at_ms: int, *, reading: bool = True) -> bool:
        """Whether the peer is given up when asked at this time."""
        return self.heartbeat.is_peer_gone(1_000_000 + at_ms, self.received_octets, reading)

    @property
    def deadline_ms(self) -> int:
        """When to ask next."""
        return self.heartbeat.deadline_ms() - 1_000_000


@pytest.mark.parametrize("interval_seconds", [1, 2, 60, 65535])
def test_first_look_is_after_half_an_interval(interval_seconds: int) -> None:
    """The sender looks every half interval, the receiver every whole one."""
    watched = Watched(interval_seconds)

    assert watched.deadline_ms == interval_seconds * 500


def test_silent_sender_sends_every_half_interval() -> None:
    """A connection with nothing to say sends one heartbeat per half interval."""
    watched = Watched(10)

    assert [watched.sends(at_ms) for at_ms in (5000, 10_000, 15_000)] == [True, True, True]


def test_nothing_is_sent_before_it_is_due() -> None:
    """Being asked too early changes nothing."""
    watched = Watched(10)

    assert not watched.sends(4999)
    assert watched.sends(5000)
    assert not watched.sends(5001)


def test_first_heartbeat_is_sent_whatever_was_sent() -> None:
    """Half an interval after tune-ok there is a heartbeat, even to a busy client."""
    watched = Watched(10)
    watched.sent_octets = 500

    assert watched.sends(5000)


def test_busy_sender_needs_no_heartbeat() -> None:
    """Any octet sent since the last look proves as much as a heartbeat would."""
    watched = Watched(10)
    watched.sends(5000)
    watched.sent_octets += 1

    assert not watched.sends(10_000)
    assert watched.sends(15_000)


def test_heartbeat_counts_as_no_traffic() -> None:
    """What the last look sent itself is no reason to skip the next one, nor to send it twice."""
    watched = Watched(10)
    watched.sends(5000)
    watched.sent_octets += 100
    watched.sends(10_000)
    watched.sends(15_000)

    assert watched.sends(20_000)


def test_late_sender_catches_up_without_a_burst() -> None:
    """After a long stop there is one heartbeat more at most, not one per missed look."""
    watched = Watched(10)
    late = [watched.sends(at_ms) for at_ms in range(60_000, 65_000)]

    assert late.count(True) <= 2
    assert watched.sends(65_001)


def test_peer_is_gone_after_two_silent_looks() -> None:
    """The first look takes stock; two more without an octet end the connection."""
    watched = Watched(10)
    watched.received_octets = 300

    assert [watched.gone(at_ms) for at_ms in (10_000, 20_000, 30_000)] == [False, False, True]


def test_single_octet_saves_the_peer() -> None:
    """Anything received between two looks starts the count again."""
    watched = Watched(10)
    watched.gone(10_000)
    watched.gone(20_000)
    watched.received_octets += 1

    assert [watched.gone(at_ms) for at_ms in (30_000, 40_000, 50_000)] == [False, False, True]


def test_peer_is_not_judged_early() -> None:
    """Being asked between two looks counts as neither."""
    watched = Watched(10)
    watched.gone(10_000)

    assert not any(watched.gone(at_ms) for at_ms in range(10_001, 20_000, 1000))
    assert not watched.gone(20_000)
    assert watched.gone(30_000)


def test_late_look_counts_as_traffic() -> None:
    """A look more than half an interval late says that this process was held up."""
    watched = Watched(10)
    watched.gone(10_000)
    watched.gone(20_000)

    assert not watched.gone(35_001)
    assert not watched.gone(45_001)
    assert watched.gone(55_001)


def test_look_somewhat_late_counts() -> None:
    """Up to half an interval of delay is what a busy loop may cause."""
    watched = Watched(10)
    watched.gone(10_000)
    watched.gone(20_000)

    assert watched.gone(35_000)


def test_peer_is_not_blamed_while_we_do_not_read() -> None:
    """What a client sends while nobody reads cannot be seen, so its silence says nothing."""
    watched = Watched(10)
    watched.gone(10_000)
    watched.gone(20_000)

    assert not watched.gone(30_000, reading=False)
    assert not watched.gone(40_000)
    assert watched.gone(50_000)


# Through a connection


def connect(interval_seconds: int) -> tuple[World, Session]:
    """A client with this heartbeat."""
    world = World()
    session = world.connect(1, heartbeat=interval_seconds)
    return world, session


def heartbeats(session: Session) -> int:
    """How many heartbeats, and nothing else, were sent since the last look."""
    frames = session.read_frames()
    assert set(frames) <= {(8, 0, b"")}
    return len(frames)


def test_connection_sends_heartbeats() -> None:
    """A quiet connection hears from the broker twice in each interval."""
    world, session = connect(10)
    world.advance(4999)
    assert heartbeats(session) == 0

    world.advance(1)

    assert heartbeats(session) == 1
    world.advance(10_000)
    assert heartbeats(session) == 2


def test_connection_without_heartbeat_is_left_alone() -> None:
    """With an interval of zero there are no heartbeats and no end."""
    world, session = connect(0)

    world.advance(1_000_000_000)

    session.expect_nothing()
    assert not session.ended()
    assert session.connection.deadline_ms == 0


def test_silent_client_is_dropped_without_a_frame() -> None:
    """After two silent checks the socket closes, and what the client had open is released."""
    world, session = connect(10)
    session.declare_queue()
    world.advance(29_999)
    assert not session.ended()
    session.drop_unread()

    world.advance(1)

    session.expect_end()
    assert not world.vhost.queues


def test_client_that_sends_heartbeats_stays() -> None:
    """A heartbeat in each interval is enough."""
    world, session = connect(10)
    for _ in range(20):
        world.advance(10_000)
        session.send(HEARTBEAT_FRAME)

    assert not session.ended()


def test_half_a_frame_is_a_sign_of_life() -> None:
    """Octets count, not frames: a large body may take longer than an interval to arrive."""
    world, session = connect(10)
    session.send(b"\x01\x00\x01\x00\x00\x10\x00")
    for _ in range(20):
        world.advance(10_000)
        session.send(b"\x00")

    assert not session.ended()


def test_process_that_was_held_up_does_not_blame_its_clients() -> None:
    """When every timer comes an hour late, nobody is dropped for it."""
    world, session = connect(10)
    world.advance(25_000)

    world.clock.advance(3_600_000)
    world.expire()

    assert not session.ended()
    session.drop_unread()
    world.advance(19_999)
    assert not session.ended()
    world.advance(10_001)
    assert session.ended()


def test_client_that_is_not_read_is_not_dropped() -> None:
    """A connection whose input waits for its output to drain is not judged by its silence."""
    world = World(write_buffer_bytes_max=4096, write_buffer_high_bytes=1024, write_stall_ms=10**9)
    session = world.connect(1, heartbeat=10)
    session.wire.stalled = True
    session.publish(1, "", "nowhere", body=bytes(10_000), mandatory=True)
    assert not session.is_read()

    world.advance(1_000_000)
    assert not session.connection.finished

    session.wire.drain()
    world.run_turns()
    assert session.is_read()
    world.advance(30_000)
    assert session.ended()


def test_heartbeats_stop_with_the_connection() -> None:
    """A connection that is closing sends no more of them, and waits as long as its interval."""
    world, session = connect(10)
    session.send_method(0, connection_close())
    session.expect(0, commands.Connection.CloseOk)

    world.advance(9999)
    session.expect_nothing()
    assert not session.ended()

    world.advance(1)
    session.expect_end()
