"""A connection's states and deadlines, with the clock turned by hand."""

import logging

import pytest
from pamqp.commands import Basic, Channel, Connection
from session_support import PEER, Session, World
from wire import CAPABILITIES, PLAIN_GUEST, PROTOCOL_HEADER
from wire_methods import (
    CHANNEL_CLOSE_OK,
    CONNECTION_CLOSE_OK,
    basic_ack,
    basic_consume,
    basic_publish,
    basic_qos,
    channel_close,
    channel_open,
    connection_close,
    connection_open,
    connection_start_ok,
    connection_tune_ok,
    content_header,
    exchange_declare,
    frame,
    frames,
    queue_declare,
    shortstr,
    table,
)

from broker.amqp.state import STATE_NAMES, State
from broker.auth import Authenticator, Done, User

START_OK = frames(0, [connection_start_ok("PLAIN", PLAIN_GUEST, capabilities=CAPABILITIES)])
TUNE_OK = frames(0, [connection_tune_ok(2047, 131072, 0)])
OPEN = frames(0, [connection_open("/")])

#: What a client says to be let in, step by step, and the state each step leads to.
STEPS = [
    (b"", State.HEADER),
    (PROTOCOL_HEADER, State.STARTING),
    (START_OK, State.TUNING),
    (TUNE_OK, State.OPENING),
    (OPEN, State.RUNNING),
]


@pytest.fixture
def world() -> World:
    """A node."""
    return World(handshake_timeout_ms=10_000, silent_close_pause_ms=3000)


def in_state(world: World, state: int) -> Session:
    """A client that has come so far."""
    session = world.accept()
    for octets, reached in STEPS[: [each for _, each in STEPS].index(state) + 1]:
        session.send(octets)
        assert session.connection.state == reached
    session.drop_unread()
    return session


# States


def test_states_have_names() -> None:
    """Every state has a word for logs and error texts."""
    assert len(STATE_NAMES) == State.CLOSED + 1
    assert STATE_NAMES[State.RUNNING] == "running"


def test_handshake_in_one_read(world: World) -> None:
    """A client need not wait for the server's side of the handshake."""
    client = world.accept()

    client.send(PROTOCOL_HEADER + START_OK + TUNE_OK + OPEN + frames(1, [channel_open()]))

    client.expect(0, Connection.Start)
    client.expect(0, Connection.Tune)
    client.expect(0, Connection.OpenOk)
    client.expect(1, Channel.OpenOk)


def test_opened_connections_are_counted(world: World) -> None:
    """A connection counts from open to its end, once."""
    first, second = world.connect(), world.connect()
    world.accept()
    assert world.node.open_connections == 2

    first.send_method(0, connection_close())
    assert world.node.open_connections == 1
    first.hang_up()
    second.hang_up()

    assert world.node.open_connections == 0


def test_lost_connection_leaves_no_trace(world: World) -> None:
    """Exclusive queues, consumers, unsettled messages and lists: all of it is undone."""
    world.connect(1).call(1, queue_declare("shared"))
    client = world.connect(1, 2)
    client.declare_queue()
    client.call(1, basic_consume("shared", "tag"))
    client.publish(2, "", "shared", body=b"one")
    client.send_method(2, basic_publish("", "shared"))

    client.hang_up()

    assert list(world.vhost.queues) == ["shared"]
    queue = world.queue("shared")
    assert (queue.ready_count, queue.unacked_count, len(queue.consumers)) == (1, 0, 0)
    assert client.connection not in world.node.sessions
    assert not client.connection.channels


def test_losing_a_connection_twice_does_no_harm(world: World) -> None:
    """Its wire may report the end after the client's close."""
    client = world.connect(1)
    client.send_method(0, connection_close())
    client.hang_up()
    client.hang_up()

    assert world.node.open_connections == 0


@pytest.mark.parametrize("state", [State.STARTING, State.TUNING])
@pytest.mark.parametrize(
    "octets",
    [
        OPEN,
        frames(0, [connection_close()]),
        frames(1, [channel_open()]),
        frames(0, [basic_qos()]),
        frame(2, 0, content_header(0)),
        frame(3, 0, b"body"),
        frame(1, 0, b"\0\x0a"),
        frame(1, 0, b"\0\x0a\0\x0b\xff"),
        frame(9, 0, b""),
        frame(8, 1, b""),
        frame(8, 0, b"x"),
        frame(1, 0, b"\0\x0a\0\x0b")[:-1] + b"\xcd",
        b"\x01\0\0\xff\xff\xff\xff",
    ],
    ids=range(13),
)
def test_mistake_before_login_is_met_with_silence(world: World, state: int, octets: bytes) -> None:
    """A client that errs before it is in is told nothing, and dropped after a pause."""
    client = in_state(world, state)

    client.send(octets)

    client.expect_nothing()
    world.advance(2999)
    assert not client.ended()
    world.advance(1)
    client.expect_end()


@pytest.mark.parametrize("state", [State.STARTING, State.TUNING, State.OPENING, State.RUNNING])
def test_heartbeat_is_welcome_in_every_state(world: World, state: int) -> None:
    """A heartbeat is nothing to react to."""
    client = in_state(world, state)

    client.send(frame(8, 0, b""))

    assert client.connection.state == state
    client.expect_nothing()


def test_what_follows_a_silent_mistake_is_not_handled(world: World) -> None:
    """Nobody gets in behind a frame that was refused."""
    client = in_state(world, State.STARTING)

    client.send(OPEN + START_OK + TUNE_OK + OPEN)
    client.send(START_OK)

    assert client.connection.state == State.CLOSED
    client.expect_nothing()


@pytest.mark.parametrize(
    ("channel_max", "frame_max"),
    [(0, 131072), (2048, 131072), (2047, 0), (2047, 131073), (1, 4095)],
)
def test_tuning_beyond_the_offer(world: World, channel_max: int, frame_max: int) -> None:
    """More than was offered, or less than is possible, is met with silence."""
    client = in_state(world, State.TUNING)

    client.send_method(0, connection_tune_ok(channel_max, frame_max))

    client.expect_nothing()
    world.advance(3000)
    client.expect_end()


def test_tuning_without_limits() -> None:
    """Where the server offers no limit, none may be agreed on."""
    world = World(channel_max=0, frame_max_bytes=0)
    client = world.accept()
    client.log_in()
    client.expect(0, Connection.Tune)
    client.tune_ok(0, 0, 0)
    client.send_method(0, connection_open("/"))
    client.expect(0, Connection.OpenOk)
    client.open_channel(65535)

    client.call(65535, queue_declare("q"))
    client.send(client.encode_content(65535, basic_publish("", "q"), body=bytes(1 << 20)))

    assert len(client.get(65535, "q").body_frames) == 1


def test_protocol_header_octet_by_octet(world: World) -> None:
    """Eight octets are waited for, however they come."""
    client = world.accept()
    for octet in PROTOCOL_HEADER:
        client.expect_nothing()
        client.send(bytes((octet,)))

    client.expect(0, Connection.Start)


@pytest.mark.parametrize(
    "header", [b"AMQP\x00\x00\x0a\x00", b"GET / HT", b"\x16\x03\x01\x02\0\x01\0\x01"]
)
def test_wrong_protocol_header(world: World, header: bytes) -> None:
    """Whoever speaks something else is told what is spoken here, and that is all."""
    client = world.accept()

    client.send(header + b"and more of it")

    assert client.unread == PROTOCOL_HEADER
    assert client.ended()
    assert client.connection.deadline_ms == 0


# The time of a handshake


@pytest.mark.parametrize(
    "state", [State.HEADER, State.STARTING, State.TUNING, State.OPENING], ids=str
)
def test_handshake_must_end_in_time(world: World, state: int) -> None:
    """Ten seconds after it connected a client must have opened its connection."""
    client = in_state(world, state)
    world.advance(9999)
    assert not client.ended()

    world.advance(1)

    client.expect_end()


def test_handshake_time_ends_with_open(world: World) -> None:
    """An open connection has no deadline but its heartbeat's."""
    client = in_state(world, State.RUNNING)

    world.advance(1_000_000)

    assert not client.ended()
    assert client.connection.deadline_ms == 0


def test_half_a_header_does_not_extend_the_time(world: World) -> None:
    """Dribbling octets earns nobody more time."""
    client = world.accept()
    for octet in PROTOCOL_HEADER[:7]:
        world.advance(1400)
        client.send(bytes((octet,)))

    world.advance(200)

    client.expect_end()


# Logging in


class SlowAuthenticator(Authenticator):
    """Decides when the test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, bytes, bool]] = []
        self.done: list[Done] = []

    def authenticate(self, name: str, password: bytes, from_loopback: bool, done: Done) -> None:
        self.asked.append((name, password, from_loopback))
        self.done.append(done)


GUEST = User("guest", b"guest", (), b"salt")


def test_login_may_take_its_time() -> None:
    """What a client sends while its password is checked waits, and is handled then."""
    authenticator = SlowAuthenticator()
    world = World(authenticator=authenticator)
    client = world.accept()
    client.send(PROTOCOL_HEADER + START_OK + TUNE_OK)
    client.send(OPEN)
    client.expect(0, Connection.Start)
    client.expect_nothing()
    assert not client.is_read()

    authenticator.done[0](GUEST, "")
    world.run_turns()

    client.expect(0, Connection.Tune)
    client.expect(0, Connection.OpenOk)
    assert authenticator.asked == [("guest", b"guest", True)]
    assert client.is_read()


def test_login_that_is_decided_too_late() -> None:
    """A client that was dropped meanwhile is not let in."""
    authenticator = SlowAuthenticator()
    world = World(authenticator=authenticator)
    client = world.accept()
    client.send(PROTOCOL_HEADER + START_OK)
    client.expect(0, Connection.Start)
    world.advance(10_000)
    client.expect_end()

    authenticator.done[0](GUEST, "")
    world.run_turns()

    client.expect_nothing()
    assert client.connection.state == State.CLOSED


@pytest.mark.parametrize("told", [True, False])
def test_login_that_is_refused_later(told: bool) -> None:
    """The refusal is told to clients that want to know, and the others are dropped in silence."""
    authenticator = SlowAuthenticator()
    world = World(authenticator=authenticator)
    client = world.accept()
    client.send_protocol_header()
    client.expect(0, Connection.Start)
    client.start_ok(capabilities=CAPABILITIES if told else ())
    authenticator.done[0](None, "wrong")
    world.run_turns()

    if told:
        client.expect_connection_close(
            403,
            "Login was refused using authentication mechanism PLAIN. "
            "For details see the broker logfile.",
        )
    client.expect_nothing()
    world.advance(2999)
    assert not client.ended()
    world.advance(1)
    client.expect_end()


def test_refused_client_that_answers_is_dropped_at_once(world: World) -> None:
    """close-ok ends the wait."""
    client = world.accept()
    client.send_protocol_header()
    client.expect(0, Connection.Start)
    client.start_ok(response=b"\0guest\0wrong")
    client.expect(0, Connection.Close)

    client.connection_close_ok()

    client.expect_end()


def test_client_knows_where_it_comes_from() -> None:
    """The authenticator is told whether the client is on this machine."""
    authenticator = SlowAuthenticator()
    world = World(authenticator=authenticator)
    far = type(PEER)("192.0.2.1:5 -> 192.0.2.2:5672", "192.0.2.1", 5, is_loopback=False)
    world.accept(far).send(PROTOCOL_HEADER + START_OK)

    assert authenticator.asked == [("guest", b"guest", False)]


# Closing


def test_closed_connection_waits_for_the_client_to_go(world: World) -> None:
    """After close-ok the client hangs up; one that does not is dropped after 30 seconds."""
    client = world.connect(1)
    client.send_method(0, connection_close())
    client.expect(0, Connection.CloseOk)
    world.advance(29_999)
    assert not client.ended()

    world.advance(1)

    client.expect_end()


@pytest.mark.parametrize(("heartbeat", "wait_ms"), [(0, 30_000), (5, 5000), (60, 30_000)])
def test_close_that_is_not_answered(world: World, heartbeat: int, wait_ms: int) -> None:
    """The broker waits for close-ok for one heartbeat interval, and at most 30 seconds."""
    client = world.connect(1, heartbeat=heartbeat)
    client.send_method(0, basic_qos())
    client.expect(0, Connection.Close)
    world.advance(wait_ms - 1)
    assert not client.ended()

    world.advance(1)

    client.expect_end()


def test_close_that_is_answered(world: World) -> None:
    """close-ok ends the connection at once."""
    client = world.connect(1)
    client.send_method(0, basic_qos())
    client.expect(0, Connection.Close)

    client.send_method(0, CONNECTION_CLOSE_OK)

    client.expect_end()


def test_close_ok_nobody_asked_for(world: World) -> None:
    """In a running connection it is a method that was not expected."""
    client = world.connect(1)

    client.send_method(0, CONNECTION_CLOSE_OK)

    client.expect_connection_close(504, "unexpected method in connection state running", 10, 51)


def test_close_ok_after_our_own_close_ok(world: World) -> None:
    """A client that answers the answer to its own close is ignored."""
    client = world.connect(1)
    client.send_method(0, connection_close())
    client.expect(0, Connection.CloseOk)

    client.send_method(0, CONNECTION_CLOSE_OK)

    client.expect_nothing()
    assert not client.ended()


def test_everything_is_released_before_a_close_is_sent(world: World) -> None:
    """When the client reads of its mistake, what it held is free already."""
    client = world.connect(1)
    client.declare_queue()
    client.runs_turns = False
    client.send_method(0, basic_qos())

    assert not world.vhost.queues
    assert world.node.open_connections == 0


def test_second_error_is_not_told(world: World) -> None:
    """A connection is closed once; what comes behind the first mistake is ignored."""
    client = world.connect(1)
    client.send(frames(0, [basic_qos()]) + frames(1, [basic_ack(1)]) + frame(9, 0, b""))

    client.expect(0, Connection.Close)
    client.expect_nothing()


def test_frames_that_cannot_be_understood_end_in_silence(world: World) -> None:
    """After a broken frame nothing is read, not even close-ok, and the socket closes soon."""
    client = world.connect(1)
    client.send(b"\x01\0\x01\xff\xff\xff\xff")
    client.expect_connection_close(
        501, "type 1, all octets = <<>>: {frame_too_large,4294967295,131064}"
    )
    client.connection_close_ok()
    assert not client.is_read()
    world.advance(2999)
    assert not client.ended()

    world.advance(1)

    client.expect_end()


def test_broken_frame_while_closing(world: World) -> None:
    """A client that answers our close with rubbish is dropped after the pause."""
    client = world.connect(1)
    client.send_method(0, basic_qos())
    client.expect(0, Connection.Close)

    client.send(b"\x01\0\x01\xff\xff\xff\xff")

    client.expect_nothing()
    world.advance(3000)
    client.expect_end()


@pytest.mark.parametrize("state", [State.HEADER, State.STARTING, State.TUNING], ids=str)
def test_operator_drops_who_is_not_in(world: World, state: int) -> None:
    """A connection that has not logged in is ended without a word."""
    client = in_state(world, state)

    client.connection.close("shutdown")
    world.run_turns()

    client.expect_end()


def test_operator_closes_a_connection(world: World) -> None:
    """A running one is told why, and has time to answer."""
    client = world.connect(1)

    client.connection.close("because")
    client.connection.close("twice")
    world.run_turns()

    client.expect_connection_close(320, "because")
    client.expect_nothing()
    assert not client.ended()
    client.connection_close_ok()
    client.expect_end()


def test_finished_connection_has_no_deadline(world: World) -> None:
    """Nothing wakes a session that waits for its wire to close."""
    client = world.connect(1, heartbeat=10)
    client.connection.close("because")
    client.connection.finish()

    assert client.connection.deadline_ms == 0


def test_error_text_is_cut(world: World) -> None:
    """A reply text longer than a shortstr is cut at 255 octets, ending in dots."""
    client = world.connect(1)
    name = "q" * 255
    client.send_method(1, queue_declare(name, passive=True))

    text = str(client.expect(1, Channel.Close).reply_text)

    assert len(text) == 255
    assert text.endswith("qqq...")


# Faults of our own


class BrokenAuthenticator(Authenticator):
    """Fails in a way nobody expects."""

    def authenticate(self, name: str, password: bytes, from_loopback: bool, done: Done) -> None:
        raise ZeroDivisionError("a fault")


def test_fault_closes_only_its_connection(caplog: pytest.LogCaptureFixture) -> None:
    """A fault of the broker's is logged with its traceback; the client learns no details."""
    world = World(authenticator=BrokenAuthenticator())
    client = world.accept()

    client.send(PROTOCOL_HEADER + START_OK)

    client.expect(0, Connection.Start)
    close = client.expect(0, Connection.Close)
    assert (close.reply_code, close.reply_text) == (541, "INTERNAL_ERROR")
    assert "ZeroDivisionError" in caplog.text


# Channels of a connection


def test_channel_number_is_free_after_a_crossing_close(world: World) -> None:
    """A close of the client that crosses ours is answered, and then the number may be reused."""
    client = world.connect(1)
    client.send_methods(1, basic_ack(1), channel_close(), channel_open(), basic_qos())
    client.expect(1, Channel.Close)
    client.expect(1, Channel.CloseOk)
    client.expect(1, Channel.OpenOk)
    client.expect(1, Basic.QosOk)


def test_channel_is_closed_by_close_ok(world: World) -> None:
    """The broker's own close leaves the number taken until it is answered."""
    client = world.connect(1)
    client.send_method(1, basic_ack(1))
    client.expect(1, Channel.Close)
    assert 1 in client.connection.channels

    client.send_method(1, CHANNEL_CLOSE_OK)

    assert 1 not in client.connection.channels
    client.open_channel(1)


def test_open_before_close_ok(world: World) -> None:
    """A channel whose close is unanswered cannot be opened again."""
    client = world.connect(1)
    client.send_methods(1, basic_ack(1), channel_open())
    client.expect(1, Channel.Close)

    client.expect_connection_close(504, "second 'channel.open' seen", 20, 10)


def test_channels_closed_in_one_turn(world: World) -> None:
    """What follows a client's close in the same turn is ignored; the next turn knows no channel."""
    client = world.connect(1)
    client.send_methods(1, channel_close(), basic_qos(), exchange_declare("x"))
    client.expect(1, Channel.CloseOk)
    client.expect_nothing()
    assert 1 not in client.connection.channels

    client.send_method(1, basic_qos())

    client.expect_connection_close(504, "expected 'channel.open'", 60, 10)


def test_closing_channels_do_not_count_against_the_limit() -> None:
    """A channel that was closed makes room at once, though its number may still linger."""
    world = World(channel_max=2)
    client = world.connect(1, 2)

    client.send(frames(1, [channel_close()]) + frames(3, [channel_open()]))

    client.expect(1, Channel.CloseOk)
    client.expect(3, Channel.OpenOk)


def test_limit_of_connections(world: World) -> None:
    """One more than allowed is refused at open; one that leaves makes room."""
    world = World(connections_max=1)
    first = world.connect()
    second = world.accept()
    second.log_in()
    second.expect(0, Connection.Tune)
    second.tune_ok(10, 131072, 0)
    second.send_method(0, connection_open("/"))
    second.expect_connection_close(
        530, "connection refused: node connection limit (1) is reached", 10, 40
    )
    first.hang_up()

    world.connect(1)


# What is said in the log


def log_lines(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    """Level and text of what connections logged."""
    return [(each.levelno, each.getMessage()) for each in caplog.records]


def test_life_of_a_connection_in_the_log(caplog: pytest.LogCaptureFixture, world: World) -> None:
    """Who comes, under which name, and goes, in RabbitMQ's words."""
    caplog.set_level(logging.DEBUG, "broker.connection")
    client = world.accept()
    client.send_protocol_header()
    client.expect(0, Connection.Start)
    client.start_ok(client_properties=[("connection_name", "S", "my name")])
    client.send(TUNE_OK + OPEN + frames(0, [connection_close()]))

    who = f"{client.connection.journal.process} ({PEER.name}"
    assert log_lines(caplog) == [
        (logging.INFO, f"accepting AMQP connection {who})"),
        (logging.INFO, f"connection {who}) has a client-provided name: my name"),
        (
            logging.INFO,
            f"connection {who}): user 'guest' authenticated and granted access to vhost '/'",
        ),
        (logging.INFO, f"closing AMQP connection {who}, vhost: '/', user: 'guest')"),
    ]


def test_probe_is_not_worth_a_line(caplog: pytest.LogCaptureFixture, world: World) -> None:
    """A health check that connects and goes leaves nothing above debug."""
    caplog.set_level(logging.INFO, "broker.connection")
    world.accept().hang_up()

    assert not caplog.records


def test_client_that_vanishes_is_a_warning(caplog: pytest.LogCaptureFixture, world: World) -> None:
    """Hanging up without close is not how it should be."""
    client = world.connect(1)
    caplog.clear()
    client.hang_up()

    ((level, text),) = log_lines(caplog)
    assert level == logging.WARNING
    assert text.endswith("client unexpectedly closed TCP connection")


def test_errors_in_the_log(caplog: pytest.LogCaptureFixture, world: World) -> None:
    """Channel and connection errors name their operation and their reason."""
    client = world.connect(1)
    caplog.clear()
    client.send_method(1, queue_declare("none", passive=True))
    client.send_method(0, basic_qos())

    texts = [text for level, text in log_lines(caplog) if level == logging.ERROR]
    assert len(texts) == 2
    assert (
        "operation queue.declare caused a channel exception not_found: no queue 'none'" in texts[0]
    )
    assert (
        "operation basic.qos caused a connection exception channel_error: unexpected method in "
        "connection state running" in texts[1]
    )


def test_name_given_by_the_client_may_be_anything(world: World) -> None:
    """A connection name that is no text is read as well as can be, or ignored."""
    for tag, value in (("S", b"\xff"), ("I", 1), ("V", None), ("F", ())):
        client = world.accept()
        client.send_protocol_header()
        client.expect(0, Connection.Start)
        client.start_ok(client_properties=[("connection_name", tag, value)])
        client.send(TUNE_OK + OPEN)
        client.expect(0, Connection.Tune)
        client.expect(0, Connection.OpenOk)


def test_capabilities_must_be_true(world: World) -> None:
    """A capability that is named but not true is not one."""
    client = world.accept()
    client.send_protocol_header()
    client.expect(0, Connection.Start)
    offered = (("consumer_cancel_notify", "t", False), ("connection.blocked", "I", 1))
    arguments = table(("capabilities", "F", offered)) + shortstr("PLAIN")
    arguments += len(PLAIN_GUEST).to_bytes(4, "big") + PLAIN_GUEST + shortstr("")
    client.send_raw_method(0, 10, 11, arguments)
    client.send(TUNE_OK + OPEN)

    assert client.connection.capabilities == frozenset()


def test_cancel_is_told_to_those_who_understand_it(world: World) -> None:
    """A consumer whose queue is deleted hears of it only if its client said so."""
    knowing = world.connect(1)
    ignorant = world.connect(1, capabilities=())
    for client in (knowing, ignorant):
        client.call(1, queue_declare("q"))
        client.call(1, basic_consume("q", "tag"))
    world.vhost.delete_queue(world.queue("q"))
    world.run_turns()

    assert knowing.expect(1, Basic.Cancel).consumer_tag == "tag"
    ignorant.expect_nothing()
    assert not ignorant.connection.channels[1].consumers
    knowing.call(1, queue_declare("q"))
    assert isinstance(ignorant.call(1, basic_consume("q", "tag")), Basic.ConsumeOk)
