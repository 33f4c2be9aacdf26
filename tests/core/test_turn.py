"""A turn: what was noted is done once, within its budget, and nobody waits for ever."""

from core_support import (
    PLENTY,
    RecordingSession,
    RecordingSink,
    held_core,
    memory_core,
    recorded,
    run_turn,
)

from broker.core.records import Settled
from broker.core.turn import Turn


def test_the_first_note_wakes() -> None:
    """However much is noted, one turn is asked for."""
    wakes: list[None] = []
    turn = Turn(lambda: wakes.append(None))
    turn.note()
    turn.note()

    assert len(wakes) == 1


def test_a_note_during_a_turn_asks_for_another() -> None:
    """A turn begins with a clean slate."""
    wakes: list[None] = []
    turn = Turn(lambda: wakes.append(None))
    turn.note()
    turn.begin()
    turn.note()

    assert len(wakes) == 2


def test_an_idle_turn_asks_for_nothing() -> None:
    """With nothing noted there is no other turn."""
    core = memory_core()
    core.run_turn()

    assert core.wakes == 0


def test_a_queue_is_noted_once() -> None:
    """However many messages come back, the queue is dispatched once."""
    core = memory_core()
    queue = core.vhost.declare_queue("q")
    core.fill(queue, 3)
    for entry in [queue.get(no_ack=False) for _ in range(3)]:
        assert entry is not None
        queue.requeue(entry)

    assert list(core.turn.queues) == [queue]
    assert core.wakes == 1


def test_dispatch_keeps_to_its_budget_of_messages() -> None:
    """No more is delivered in a turn, and the rest asks for another."""
    core = memory_core()
    sink = RecordingSink(core.turn)
    queue = core.vhost.declare_queue("q")
    core.fill(queue, 5)
    core.consume(queue, sink)
    core.run_turn(messages=2)

    assert len(sink.deliveries) == 2
    assert core.awake
    assert core.run_turns() == 1
    assert len(sink.deliveries) == 5


def test_dispatch_keeps_to_its_budget_of_bytes() -> None:
    """Delivery ends with the message that uses the budget up."""
    core = memory_core()
    sink = RecordingSink(core.turn)
    queue = core.vhost.declare_queue("q")
    for _ in range(4):
        core.publish(queue, body=b"0123456789")
    core.consume(queue, sink)
    core.run_turn(bytes_=15)

    assert len(sink.deliveries) == 2
    assert queue.noted


def test_queues_share_the_budget_in_turn() -> None:
    """A queue that used the budget up is behind the others in the next turn."""
    core = memory_core()
    sink = RecordingSink(core.turn)
    for name in ("a", "b", "c"):
        queue = core.vhost.declare_queue(name)
        core.fill(queue, 4)
        core.consume(queue, sink)
    for _ in range(4):
        core.run_turn(messages=2)

    assert sink.queue_names == ["a", "a", "b", "b", "c", "c", "a", "a"]


def test_sinks_come_before_queues() -> None:
    """What a sink refused is older than what is new."""
    core = memory_core()
    sink, other = RecordingSink(core.turn), RecordingSink(core.turn)
    queue = core.vhost.declare_queue("q")
    late = core.vhost.declare_queue("late")
    core.consume(queue, sink)
    sink.set_able(False)
    core.fill(queue, 1)
    core.fill(late, 1)
    core.consume(late, other)
    sink.set_able(True)
    core.run_turn(messages=1)

    assert (len(sink.deliveries), len(other.deliveries)) == (1, 0)


def test_sinks_share_the_budget_in_turn() -> None:
    """A sink that was served only in part is behind the others in the next turn."""
    core = memory_core()
    sinks = [RecordingSink(core.turn) for _ in range(2)]
    for number, sink in enumerate(sinks):
        for part in range(2):
            queue = core.vhost.declare_queue(f"q{number}{part}")
            core.consume(queue, sink)
            sink.set_able(False)
            core.publish(queue)
    for sink in sinks:
        sink.set_able(True)
    served = []
    for _ in range(4):
        core.run_turn(messages=1)
        served.append([len(sink.deliveries) for sink in sinks])

    assert served == [[1, 0], [1, 1], [2, 1], [2, 2]]


def test_a_sink_that_got_nothing_keeps_its_place() -> None:
    """Without budget nobody is asked, so nobody loses its turn."""
    core = memory_core()
    sinks = [RecordingSink(core.turn) for _ in range(3)]
    for number, sink in enumerate(sinks):
        queue = core.vhost.declare_queue(f"q{number}")
        core.consume(queue, sink)
        sink.set_able(False)
        core.publish(queue)
        sink.set_able(True)
    core.run_turn(messages=1)

    assert list(core.turn.sinks) == sinks[1:]
    assert all(sink.noted for sink in sinks[1:])
    assert core.awake


def test_busy_sinks_do_not_starve_a_queue() -> None:
    """Channels that come back hungry every turn leave room for a queue that is new."""
    core = memory_core()
    busy = core.vhost.declare_queue("busy")
    core.fill(busy, 500)
    sinks = [RecordingSink(core.turn, limit=4) for _ in range(2)]
    for sink in sinks:
        core.consume(busy, sink)
    core.run_turns()
    late = core.vhost.declare_queue("late")
    core.fill(late, 1)
    new = RecordingSink(core.turn)
    core.consume(late, new)
    turns = 0
    while not new.deliveries:
        for sink in sinks:
            sink.ack(len(sink.unsettled))
        core.run_turn(messages=7)
        turns += 1
        assert turns < 10, "the queue is never reached"


def test_busy_queues_do_not_starve_a_sink() -> None:
    """Backlogs that use up every turn leave room for a channel that accepts again."""
    core = memory_core()
    waiting = RecordingSink(core.turn, limit=1)
    queue = core.vhost.declare_queue("q")
    core.fill(queue, 2)
    core.consume(queue, waiting)
    core.run_turns()
    greedy = RecordingSink(core.turn)
    for number in range(3):
        backlog = core.vhost.declare_queue(f"backlog{number}")
        core.fill(backlog, 100)
        core.consume(backlog, greedy)
    core.run_turn(messages=2)
    waiting.ack()
    core.run_turn(messages=2)
    core.run_turn(messages=2)

    assert len(waiting.deliveries) == 2


def test_settlements_are_recorded_once_a_turn() -> None:
    """All that a queue settled since the last turn is one record."""
    core = held_core()
    sink = RecordingSink(core.turn)
    queue = core.vhost.declare_queue("q", durable=True)
    core.consume(queue, sink)
    messages = [core.publish(queue, persistent=True) for _ in range(3)]
    sink.ack(3)
    assert not recorded(core.store, Settled)
    core.run_turn()
    (settled,) = recorded(core.store, Settled)

    assert settled.queue_id == queue.queue_id
    assert settled.message_ids == [message.message_id for message in messages]


def test_a_turn_without_settlements_records_nothing() -> None:
    """What was recorded is not recorded again."""
    core = held_core()
    sink = RecordingSink(core.turn)
    queue = core.vhost.declare_queue("q", durable=True)
    core.consume(queue, sink, no_ack=True)
    core.publish(queue, persistent=True)
    core.run_turns()
    count = len(core.store.records)
    core.run_turn()

    assert len(core.store.records) == count


def test_remains_are_dropped_in_steps() -> None:
    """What purges left behind goes a bounded number at a time, oldest purge first."""
    core = memory_core()
    queues = [core.vhost.declare_queue(name) for name in ("a", "b")]
    for queue in queues:
        core.fill(queue, 3)
        queue.purge()
    core.turn.begin()
    core.turn.drop_remains(4)

    assert [len(remains.entries) for remains in core.turn.remains] == [2]
    assert core.wakes == 2
    core.turn.drop_remains(2)
    assert not core.turn.remains


def test_sessions_left_over_from_input_go_on_first() -> None:
    """Input is resumed once per turn, output ended last."""
    turn = Turn(lambda: None)
    session = RecordingSession()
    turn.inputs.append(session)
    turn.outputs.append(session)
    run_turn(turn)
    run_turn(turn)

    assert session.told == ["resume_input", "end_turn"]


def test_the_store_tells_those_who_wait_once() -> None:
    """Sessions wait for one advance at a time."""
    turn = Turn(lambda: None)
    waiting, other = RecordingSession(), RecordingSession()
    turn.waiting[waiting] = None
    turn.store_advanced()
    turn.store_advanced()

    assert (waiting.told, other.told) == (["store_advanced"], [])


def test_a_session_may_wait_again_while_it_is_told() -> None:
    """Whoever is not satisfied by this advance is told of the next."""
    turn = Turn(lambda: None)

    class Patient(RecordingSession):
        def store_advanced(self) -> None:
            super().store_advanced()
            turn.waiting[self] = None

    session = Patient()
    turn.waiting[session] = None
    turn.store_advanced()
    turn.store_advanced()

    assert session.told == ["store_advanced", "store_advanced"]


def test_a_budget_of_plenty_is_one_turn() -> None:
    """Everything that can be delivered is, and nothing is left to ask for."""
    core = memory_core()
    sink = RecordingSink(core.turn)
    queue = core.vhost.declare_queue("q")
    core.fill(queue, 100)
    core.consume(queue, sink)
    core.run_turn(messages=PLENTY)

    assert len(sink.deliveries) == 100
    assert not core.awake
