"""The order of what waits: by sequence, wherever it came from."""

from core_support import a_message, memory_core
from hypothesis import given
from hypothesis import strategies as st

from broker.core.queue import Entry
from broker.core.ready import Ready

QUEUE = memory_core().vhost.declare_queue("q")


def an_entry(sequence: int) -> Entry:
    """An entry with this place."""
    return Entry(QUEUE, a_message(), sequence)


def filled(count: int) -> Ready:
    """New entries 0, 1, 2, ..."""
    ready = Ready()
    for sequence in range(count):
        ready.push(an_entry(sequence))
    return ready


def drained(ready: Ready) -> list[int]:
    """The sequences of everything that waits, in order."""
    return [ready.pop().sequence for _ in range(len(ready))]


def test_first_in_first_out() -> None:
    """New entries leave in the order they came."""
    assert drained(filled(4)) == [0, 1, 2, 3]


def test_a_returned_entry_goes_back_to_its_place() -> None:
    """A return is before what came later and behind what came earlier and still waits."""
    ready = filled(5)
    first, second, third = ready.pop(), ready.pop(), ready.pop()
    ready.put_back(second)

    assert drained(ready) == [1, 3, 4]
    ready.put_back(third)
    ready.put_back(first)
    assert drained(ready) == [0, 2]


def test_a_returned_entry_may_belong_behind_new_ones() -> None:
    """The place counts, not the return: a later message doesn't overtake."""
    ready = filled(2)
    ready.put_back(an_entry(7))

    assert drained(ready) == [0, 1, 7]


def test_head_is_what_pop_would_give() -> None:
    """Looking takes nothing away, and nothing waits in an empty line."""
    ready = filled(2)
    head = ready.head()

    assert head is not None
    assert head is ready.pop()
    ready.put_back(head)
    assert ready.head() is head
    drained(ready)
    assert ready.head() is None


def test_entries_are_everything_that_waits() -> None:
    """New and returned ones are listed alike, and stay."""
    ready = filled(3)
    ready.put_back(ready.pop())

    assert sorted(entry.sequence for entry in ready.entries()) == [0, 1, 2]
    assert len(ready) == 3


def test_detach_takes_everything() -> None:
    """What is detached keeps its order, and what is left is empty and usable."""
    ready = filled(3)
    ready.put_back(ready.pop())
    detached = ready.detach()

    assert (len(ready), ready.head()) == (0, None)
    ready.push(an_entry(9))
    assert drained(detached) == [0, 1, 2]
    assert drained(ready) == [9]


@given(st.lists(st.one_of(st.just("push"), st.just("pop"), st.integers(0, 20)), max_size=60))
def test_order_is_by_sequence_whatever_happens(steps: list[str | int]) -> None:
    """Pushes, pops and returns in any mix: always the lowest sequence that waits comes first."""
    ready = Ready()
    waiting: list[Entry] = []
    taken: list[Entry] = []
    for number, step in enumerate(steps):
        if step == "push":
            entry = an_entry(number)
            ready.push(entry)
            waiting.append(entry)
        elif step == "pop":
            if waiting:
                first = min(waiting, key=lambda entry: entry.sequence)
                assert ready.head() is first
                assert ready.pop() is first
                waiting.remove(first)
                taken.append(first)
        elif taken and isinstance(step, int):
            entry = taken.pop(step % len(taken))
            ready.put_back(entry)
            waiting.append(entry)
        assert len(ready) == len(waiting)
