"""Input that waits: for the rest of a frame, for the next turn, or for the end of a pause."""

from session_support import World
from wire_methods import basic_publish, basic_qos, content_header, frame, frames, queue_declare

from broker.amqp.input import ENDED, LOGIN, OUTPUT, REPLIES, Input
from broker.core.table import Table


def test_input_passes_through_when_nothing_waits() -> None:
    """What comes while nothing waits is handed on as it is, without a copy."""
    data = b"octets"

    assert Input().add(data) is data


def test_half_a_frame_waits_for_its_rest() -> None:
    """Less than is needed is not looked at again."""
    waiting = Input()
    waiting.keep(b"abc", 6)

    assert waiting.add(b"de") == b""
    assert waiting.add(b"f") == b"abcdef"
    assert len(waiting) == 0


def test_more_than_is_needed_is_given_at_once() -> None:
    """The next frame comes along with the end of this one."""
    waiting = Input()
    waiting.keep(b"abc", 4)

    assert waiting.add(b"defgh") == b"abcdefgh"


def test_need_ends_with_what_it_was_for() -> None:
    """A frame that was large says nothing about the next one."""
    waiting = Input()
    waiting.keep(b"a", 100)
    waiting.take()

    assert waiting.add(b"b") == b"b"


def test_input_waits_for_its_turn() -> None:
    """While the session is in the turn's list, what comes is kept behind what waits."""
    waiting = Input()
    waiting.noted = True

    assert waiting.add(b"abc") == b""
    assert waiting.add(b"def") == b""
    waiting.noted = False
    assert waiting.take() == b"abcdef"


def test_input_waits_while_there_is_any_reason() -> None:
    """Several reasons may hold at once, and each must end."""
    waiting = Input()
    waiting.paused = OUTPUT | REPLIES

    assert waiting.add(b"abc") == b""
    waiting.paused &= ~OUTPUT
    assert waiting.take() == b""
    waiting.paused &= ~REPLIES
    assert waiting.take() == b"abc"


def test_reasons_are_bits_of_their_own() -> None:
    """No reason to pause is part of another."""
    reasons = [LOGIN, OUTPUT, REPLIES, ENDED]

    assert sum(reasons) == LOGIN | OUTPUT | REPLIES | ENDED


def test_frames_put_first_come_first() -> None:
    """What was held back comes before what arrived since."""
    waiting = Input()
    waiting.keep(b"later", 100)
    waiting.put_first([b"one", b"two"])

    assert waiting.take() == b"onetwolater"


def test_cleared_input_is_forgotten() -> None:
    """Nothing is left after clear."""
    waiting = Input()
    waiting.keep(b"abc")
    waiting.clear()

    assert len(waiting) == 0
    assert waiting.take() == b""


# Through a connection


def test_large_frame_in_small_pieces() -> None:
    """A frame is handled once, when its last octet is there."""
    world = World()
    client = world.connect(1)
    queue = client.declare_queue()
    octets = client.encode_content(1, basic_publish("", queue), body=bytes(100_000))
    for start in range(0, len(octets) - 1, 1000):
        client.send(octets[start : min(start + 1000, len(octets) - 1)])
    assert world.queue(queue).ready_count == 0

    client.send(octets[-1:])

    assert world.queue(queue).ready_bytes == 100_000


def test_work_beyond_the_budget_waits_for_the_next_turn() -> None:
    """One read may cause so much in one turn; the rest takes its turn again."""
    world = World(input_work_per_turn=10)
    client = world.connect(1)
    queue = client.declare_queue()
    client.runs_turns = False

    client.send(client.encode_content(1, basic_publish("", queue), body=b"x") * 25)
    seen = []
    while world.awake:
        seen.append((world.queue(queue).ready_count, client.is_read()))
        world.run_turn()

    assert seen == [(10, False), (20, False), (25, True)]


def test_work_counts_the_queues_of_a_message() -> None:
    """A message to a hundred queues is as much work as a hundred to one."""
    world = World(input_work_per_turn=100)
    client = world.connect(1)
    names = [f"queue-{number}" for number in range(100)]
    client.send_methods(1, *[queue_declare(name) for name in names])
    for name in names:
        world.vhost.bind("amq.fanout", world.queue(name), b"", Table.EMPTY)
    client.drop_unread()
    client.runs_turns = False

    client.send(client.encode_content(1, basic_publish("amq.fanout"), body=b"x") * 3)
    world.turns = 0
    world.run_turns()

    assert world.turns == 3
    assert {world.queue(name).ready_count for name in names} == {3}


def test_what_arrives_meanwhile_is_handled_behind_what_waits() -> None:
    """Order survives the budget, even when the wire has one more read to hand over."""
    world = World(input_work_per_turn=1)
    client = world.connect(1)
    client.runs_turns = False

    client.send_methods(1, *[queue_declare(name) for name in "abc"])
    client.send_methods(1, *[queue_declare(name) for name in "def"])
    world.run_turns()

    assert list(world.vhost.queues) == list("abcdef")


def test_other_connections_go_on_while_one_waits_for_its_turn() -> None:
    """Between two turns of a busy connection everybody else is served."""
    world = World(input_work_per_turn=1)
    busy, other = world.connect(1), world.connect(1)
    busy.runs_turns = other.runs_turns = False
    busy.send_methods(1, *[queue_declare(f"busy-{number}") for number in range(50)])

    replies = 0
    while world.awake:
        other.send_methods(1, basic_qos(prefetch_count=1))
        world.run_turn()
        assert other.unread
        other.drop_unread()
        replies += 1

    assert replies >= 49


def test_input_of_a_lost_connection_is_forgotten() -> None:
    """A connection that goes in the middle of its input does nothing more."""
    world = World(input_work_per_turn=1)
    client = world.connect(1)
    client.runs_turns = False
    client.send_methods(1, *[queue_declare(name) for name in "abc"])

    client.hang_up()

    assert list(world.vhost.queues) == ["a"]


def test_frame_behind_an_error_is_not_handled() -> None:
    """What a client sent behind its mistake is ignored, in the same read and in the next."""
    world = World()
    client = world.connect(1)
    client.send(
        frames(1, [queue_declare("a"), queue_declare("b")]).replace(b"\x00\xce", b"\x00\xcd")
    )

    client.send_methods(1, queue_declare("c"))

    assert not world.vhost.queues
    assert not client.is_read()


def test_empty_body_frames_are_nothing() -> None:
    """Body frames without octets count for nothing while a body is missing."""
    world = World()
    client = world.connect(1)
    queue = client.declare_queue()
    client.send_method(1, basic_publish("", queue))
    client.send(frame(2, 1, content_header(3)) + frame(3, 1, b"") * 100 + frame(3, 1, b"abc"))

    assert client.get(1, queue).body == b"abc"
