"""Contents frame by frame: what is taken apart is put together, what is irregular is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp.commands import Basic
from session_support import Session, World
from wire_methods import (
    Properties,
    basic_publish,
    content_header,
    frame,
    longstr,
    properties,
    queue_declare,
    queue_purge,
    shortstr,
)

from broker.amqp.content import Content, Publish, parse_publish
from broker.amqp.methods import TableLimits
from broker.core.message import MESSAGE_BYTES_HARD_MAX, frame_form
from broker.core.table import Table
from broker.errors import AMQPError, FrameError, UnexpectedFrame

LIMITS = TableLimits(8, 100)


@pytest.fixture
def client() -> Session:
    """A client with channel 1 open, and the queue `q`."""
    client = World().connect(1)
    client.call(1, queue_declare("q"))
    return client


def content() -> Content:
    """A content whose method has come."""
    channel = World().connect(1).connection.channels[1]
    return Content(parse_publish(channel, frame(1, 1, basic_publish("", "q").payload), LIMITS))


def parsed(octets: bytes) -> Publish:
    """A basic.publish with these arguments, parsed."""
    channel = World().connect(1).connection.channels[1]
    return parse_publish(channel, frame(1, 1, b"\0\x3c\0\x28" + octets), LIMITS)


@pytest.mark.parametrize("mandatory", [False, True])
@pytest.mark.parametrize("immediate", [False, True])
def test_publish_keeps_its_address(mandatory: bool, immediate: bool) -> None:
    """Exchange and routing key stay the octets they came as, whatever is behind them."""
    method = basic_publish("exchange", "routing.key", mandatory=mandatory, immediate=immediate)

    publish = parsed(method.arguments)

    assert publish.route.address == shortstr("exchange") + shortstr("routing.key")
    assert (publish.mandatory, publish.immediate) == (mandatory, immediate)


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"\0\0",
        b"\0\0\x05ab",
        b"\0\0" + shortstr("x") + b"\x05ab",
        b"\0\0" + shortstr("x") + shortstr("k"),
        b"\0\0" + shortstr("x") + shortstr("k") + b"\0\0",
        b"\0\0" + shortstr(b"\xff") + shortstr("k") + b"\0",
        b"\0\0" + shortstr("x") + shortstr(b"\xff") + b"\0",
    ],
)
def test_publish_that_does_not_add_up(octets: bytes) -> None:
    """Arguments that are short, too long or not text are refused."""
    with pytest.raises(FrameError):
        parsed(octets)


@given(st.binary(max_size=40))
def test_any_publish_is_parsed_or_refused(octets: bytes) -> None:
    """No arguments do anything but make a publish or raise an AMQPError."""
    try:
        publish = parsed(octets)
    except AMQPError:
        return
    assert publish.route.address in octets


def test_body_in_one_frame_is_kept_as_it_is() -> None:
    """A body that came whole is the frame it came in, less type and channel."""
    taken = content()
    taken.receive_header(2, frame(2, 1, content_header(3)))
    taken.receive_body(3, frame(3, 1, b"abc"))

    assert not taken.missing
    assert taken.header_frame == frame_form(content_header(3))
    assert taken.body_frame() == frame_form(b"abc")


@given(st.lists(st.binary(max_size=20), max_size=8))
def test_body_in_any_frames_is_joined(parts: list[bytes]) -> None:
    """However it was cut, empty parts included, the body is the same."""
    body = b"".join(parts)
    taken = content()
    taken.receive_header(2, frame(2, 1, content_header(len(body))))
    for part in parts:
        taken.receive_body(3, frame(3, 1, part))

    assert not taken.missing
    assert taken.body_frame() == (frame_form(body) if body else b"")


def test_body_that_is_only_counted() -> None:
    """A body too large to be kept is counted off all the same."""
    taken = content()
    taken.receive_header(2, frame(2, 1, content_header(6)))
    taken.parts = None
    taken.receive_body(3, frame(3, 1, b"abc"))
    assert taken.missing == 3
    taken.receive_body(3, frame(3, 1, b"def"))

    assert not taken.missing
    assert taken.body_frame() == b""


def test_body_longer_than_announced() -> None:
    """One octet too many is an error, in the first frame as in a later one."""
    taken = content()
    taken.receive_header(2, frame(2, 1, content_header(4)))
    taken.receive_body(3, frame(3, 1, b"abc"))

    with pytest.raises(FrameError, match="content body frame exceeds remaining content size"):
        taken.receive_body(3, frame(3, 1, b"de"))


@pytest.mark.parametrize("kind", [1, 3, 8])
def test_header_must_come_first(kind: int) -> None:
    """What is no header frame is refused where one is expected."""
    with pytest.raises(UnexpectedFrame, match="got non content header frame instead"):
        content().receive_header(kind, frame(kind, 1, content_header(1)))


def test_header_of_another_class() -> None:
    """Only class 60 has contents."""
    with pytest.raises(UnexpectedFrame, match="got one for class 50 instead"):
        content().receive_header(2, frame(2, 1, content_header(1, class_id=50)))


def test_header_with_a_weight() -> None:
    """The weight is always zero."""
    with pytest.raises(UnexpectedFrame, match="got non content header frame instead"):
        content().receive_header(2, frame(2, 1, content_header(1, weight=1)))


def test_header_that_announces_too_much() -> None:
    """No setting allows more than RabbitMQ ever does."""
    content().receive_header(2, frame(2, 1, content_header(MESSAGE_BYTES_HARD_MAX)))

    with pytest.raises(FrameError, match="exceeds maximum allowed size 536870912"):
        content().receive_header(2, frame(2, 1, content_header(MESSAGE_BYTES_HARD_MAX + 1)))


@pytest.mark.parametrize("kind", [1, 2])
def test_body_must_follow(kind: int) -> None:
    """While octets are missing only bodies are expected."""
    taken = content()
    taken.receive_header(2, frame(2, 1, content_header(3)))

    with pytest.raises(UnexpectedFrame, match="expected content body"):
        taken.receive_body(kind, frame(kind, 1, b"abc"))


# Through a connection

CONTENTS = [
    (Properties(), b""),
    (Properties(), b"x"),
    (Properties(), bytes(5000)),
    (properties(delivery_mode=1), b"transient"),
    (properties(delivery_mode=2), b"persistent"),
    (properties(content_type="text/plain", headers=longstr(b"\x01kI\0\0\0\x01")), b"{}" * 3000),
    (properties(cluster_id="", timestamp=2**64 - 1, type="", app_id="a" * 255), b""),
]


@pytest.mark.parametrize("size", [1, 7, 8, 9, 100, 4096, 1 << 20])
def test_contents_are_the_same_however_they_arrive(size: int) -> None:
    """The quick way and the general one, whole reads and single octets, come to the same."""
    client = World().connect(1, frame_max=4096)
    client.call(1, queue_declare("q"))
    method = basic_publish("", "q")
    # Twice, as the quick way is for what was seen before.
    octets = b"".join(client.encode_content(1, method, *each) for each in CONTENTS * 2)
    for start in range(0, len(octets), size):
        client.connection.receive_data(octets[start : start + size])
    client.world.run_turns()

    for expected, body in CONTENTS * 2:
        got = client.get(1, "q")
        assert (got.properties, got.body) == (expected.encoded, body)
    assert client.world.queue("q").ready_count == 0


@pytest.mark.parametrize("repeated", [False, True])
def test_mandatory_is_heeded_each_time(client: Session, repeated: bool) -> None:
    """A publish known from before is mandatory or not as it was then."""
    plain = client.encode_content(1, basic_publish("", "none"), body=b"plain")
    mandatory = client.encode_content(1, basic_publish("", "none", mandatory=True), body=b"back")
    client.send((plain + mandatory) * (3 if repeated else 1))

    for _ in range(3 if repeated else 1):
        assert client.expect_content(1, Basic.Return).body == b"back"
    client.expect_nothing()


def test_known_publish_follows_the_topology(client: Session) -> None:
    """A publish that repeats itself goes where the bindings of the moment say."""
    octets = client.encode_content(1, basic_publish("", "later"), body=b"x")
    client.send(octets * 2)
    client.call(1, queue_declare("later"))
    client.send(octets * 2)

    assert client.world.queue("later").ready_count == 2


def test_known_publish_is_forgotten_with_its_channel(client: Session) -> None:
    """The same frame on a channel opened anew belongs to the new one."""
    octets = client.encode_content(1, basic_publish("", "q"), body=b"x")
    client.send(octets * 2)
    client.close_channel(1)
    client.send(octets)

    client.expect_connection_close(504, "expected 'channel.open'", 60, 40)


def test_many_different_publishes(client: Session) -> None:
    """Only so many publishes are remembered, and all of them are right."""
    queue = client.world.queue("q")
    keys = [f"key-{number}" for number in range(1500)]
    for key in keys:
        client.world.vhost.bind("amq.direct", queue, key.encode(), Table.EMPTY)
    for _ in range(2):
        for key in keys:
            client.publish(1, "amq.direct", key, body=key.encode())

    assert queue.ready_count == 3000
    assert [client.get(1, "q").body.decode() for _ in range(1500)] == keys


HEAD = frame(1, 1, basic_publish("", "q").payload)
BODY = frame(3, 1, b"abc")


@pytest.mark.parametrize(
    "octets",
    [
        frame(2, 1, content_header(3, weight=1)) + BODY,
        frame(2, 1, content_header(3, class_id=50)) + BODY,
        frame(2, 2, content_header(3)) + BODY,
        frame(3, 1, content_header(3)) + BODY,
        frame(2, 1, content_header(3)[:-1]) + BODY,
        frame(2, 1, content_header(3))[:-1] + b"\xcd" + BODY,
        frame(2, 1, content_header(3)) + BODY[:-1] + b"\xcd",
        frame(2, 1, content_header(3)) + frame(3, 2, b"abc"),
        frame(2, 1, content_header(3)) + frame(2, 1, b"abc"),
        frame(2, 1, content_header(3)) + frame(3, 1, b"abcd"),
        frame(2, 1, content_header(3)) + frame(3, 1, b"ab") + frame(8, 0, b"") + frame(3, 1, b"c"),
        frame(2, 1, content_header(3)) + frame(8, 0, b"") + BODY,
        frame(2, 1, content_header(5000)) + frame(3, 1, bytes(5000)),
        frame(2, 1, content_header(2**63)) + BODY,
        frame(2, 1, content_header(0)) + frame(3, 1, b""),
        frame(2, 1, content_header(0)) + HEAD,
        HEAD,
        frame(3, 1, b"abc"),
        frame(8, 0, b""),
    ],
    ids=range(19),
)
def test_irregular_content_of_a_known_publish(octets: bytes) -> None:
    """What is answered to an irregular content does not depend on what was published before."""
    answers = []
    for repeated in (False, True):
        client = World().connect(1, 2, frame_max=4096)
        client.call(1, queue_declare("q"))
        regular = frame(2, 1, content_header(3)) + BODY
        client.send((HEAD + regular) * 2 if repeated else b"")
        client.call(2, queue_purge("q"))
        client.drop_unread()

        client.send(HEAD + octets + HEAD + regular)

        answers.append((client.read_frames(), client.world.queue("q").ready_count))
    assert answers[0] == answers[1]
