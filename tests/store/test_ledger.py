"""Which messages of the log live, where they are and who holds them."""

from hypothesis import given
from hypothesis import strategies as st

from broker.store.ledger import Ledger, Span


def filled(*lengths: int) -> tuple[Ledger, list[Span]]:
    """A ledger with messages 1, 2, 3... of these lengths, each for queue 1."""
    ledger = Ledger()
    spans: list[Span] = []
    position = 0
    for message_id, length in enumerate(lengths, 1):
        ledger.add(message_id, position, length, [1])
        spans.append(Span(message_id, position, length))
        position += length
    return ledger, spans


def living(ledger: Ledger, end: int = 1 << 60) -> list[Span]:
    """Every living record before `end`."""
    return ledger.alive_before(end, 0, 1000)


def test_a_message_lives_until_it_is_released() -> None:
    """Octets count as long as some queue holds the message."""
    ledger, spans = filled(10, 20, 30)
    assert ledger.live_bytes == 60
    assert living(ledger) == spans

    ledger.release(2, spans[1].position)
    assert ledger.live_bytes == 40
    assert living(ledger) == [spans[0], spans[2]]
    assert ledger.find(2, spans[1].position) is None
    assert not ledger.is_alive(spans[1])


def test_a_release_counts_once() -> None:
    """Releasing what is dead or unknown changes nothing."""
    ledger, spans = filled(10, 20)
    ledger.release(1, spans[0].position)
    ledger.release(1, spans[0].position)
    ledger.release(9, 5)

    assert ledger.live_bytes == 20


def test_a_copy_takes_the_place_of_its_original() -> None:
    """A message is found where it was copied to, by the position it was first written at."""
    ledger, spans = filled(10, 20)
    ledger.add_copy(spans[0], 30, 8)

    assert ledger.find(1, 0) == Span(1, 30, 8)
    assert not ledger.is_alive(spans[0])
    assert ledger.live_bytes == 28
    assert living(ledger) == [spans[1], Span(1, 30, 8)]


def test_a_copy_is_copied() -> None:
    """A message may move again and again, and is released wherever it is."""
    ledger, spans = filled(10)
    ledger.add_copy(spans[0], 10, 10)
    ledger.add_copy(Span(1, 10, 10), 20, 10)
    assert living(ledger) == [Span(1, 20, 10)]

    ledger.release(1, 0)
    assert living(ledger) == []
    assert ledger.live_bytes == 0


def test_the_only_holder_is_the_one_written() -> None:
    """Of a message for one queue nothing is remembered but that it lives."""
    ledger, _ = filled(10)
    ledger.settle(2, [1])

    assert list(ledger.holders(1, [1])) == [1]


def test_several_holders_are_remembered() -> None:
    """Each queue that lets go of a message is a holder less, whatever its record names."""
    ledger = Ledger()
    ledger.add(1, 0, 10, [3, 1, 2])
    ledger.settle(3, [1, 99])
    assert list(ledger.holders(1, [3, 1, 2])) == [1, 2]

    ledger.settle(1, [1])
    assert list(ledger.holders(1, [3, 1, 2])) == [2]


def test_several_holders_go_with_the_message() -> None:
    """A settlement that comes after the release finds nothing."""
    ledger = Ledger()
    ledger.add(1, 0, 10, [1, 2])
    ledger.release(1, 0)
    ledger.settle(1, [1])

    assert list(ledger.holders(1, [7])) == [7]


def test_a_recovered_message_is_dead_until_it_is_revived() -> None:
    """Records are met one by one, and only the fold knows which of them count."""
    ledger = Ledger()
    ledger.add_recovered(1, 0, 10)
    ledger.add_recovered(2, 10, 10)
    assert ledger.live_bytes == 0

    ledger.revive(2, 10, [1], 1)
    assert living(ledger) == [Span(2, 10, 10)]
    assert ledger.live_bytes == 10


def test_a_recovered_message_remembers_who_let_go_of_it() -> None:
    """Its record names two queues and one of them holds it: a copy must name that one alone."""
    ledger = Ledger()
    ledger.add_recovered(1, 0, 10)
    ledger.revive(1, 0, [2], 2)

    assert list(ledger.holders(1, [1, 2])) == [2]


def test_a_purged_message_is_nobodys_before_it_is_released() -> None:
    """A purge is one record and its messages are released in steps: no copy may name the queue."""
    ledger = Ledger()
    ledger.add(1, 0, 10, [1])
    ledger.add(2, 10, 10, [1, 2])
    ledger.add(3, 20, 10, [1])
    ledger.settle(1, [1, 2])
    ledger.purge([1, 2])

    assert [list(ledger.holders(each, [1])) for each in (1, 2, 3)] == [[], [2], [1]]

    ledger.release(1, 0)
    assert list(ledger.holders(1, [1])) == [1], "nothing is remembered of what was released"


def test_living_records_come_in_portions() -> None:
    """The head of the log is looked through from where the last portion ended."""
    ledger, spans = filled(*[10] * 7)
    ledger.release(3, spans[2].position)

    first = ledger.alive_before(60, 0, 3)
    assert first == [spans[0], spans[1], spans[3]]
    assert ledger.alive_before(60, first[-1].end, 3) == [spans[4], spans[5]]


def test_the_head_is_dropped() -> None:
    """What lay before the new beginning is unknown, what lies behind it is as it was."""
    ledger, spans = filled(10, 20, 30)
    ledger.add_copy(spans[0], 60, 10)
    ledger.release(2, spans[1].position)
    ledger.drop_before(30)

    assert living(ledger) == [spans[2], Span(1, 60, 10)]
    assert ledger.find(1, 0) == Span(1, 60, 10)
    assert ledger.find(2, 10) is None
    assert ledger.live_bytes == 40


@given(st.data())
def test_against_a_dictionary(data: st.DataObject) -> None:
    """Whatever happens to messages, the living ones and their octets are those of a dictionary."""
    ledger = Ledger()
    first: dict[int, int] = {}
    model: dict[int, Span] = {}
    end = begin = 0
    for message_id in range(1, data.draw(st.integers(1, 30)) + 1):
        length = data.draw(st.integers(1, 50))
        ledger.add(message_id, end, length, [1])
        first[message_id] = end
        model[message_id] = Span(message_id, end, length)
        end += length
        for victim in data.draw(st.lists(st.sampled_from(sorted(model)), max_size=2, unique=True)):
            del model[victim]
            ledger.release(victim, first[victim])
        if data.draw(st.booleans()) and model:
            oldest = min(model.values(), key=lambda span: span.position)
            ledger.add_copy(oldest, end, oldest.length)
            model[oldest.message_id] = oldest._replace(position=end)
            end += oldest.length
        if data.draw(st.booleans()):
            begin = min([span.position for span in model.values()], default=end)
            ledger.drop_before(begin)

        assert ledger.live_bytes == sum(span.length for span in model.values())
        assert living(ledger) == sorted(model.values(), key=lambda span: span.position)
        for each, position in first.items():
            assert ledger.find(each, position) == model.get(each)
