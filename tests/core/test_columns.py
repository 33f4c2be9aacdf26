"""The columns of recovery against a plain dict."""

import hypothesis.strategies as st
from hypothesis import given

from broker.core.columns import Columns


def left(columns: Columns) -> list[tuple[int, int, int]]:
    """What is left, sorted by id."""
    columns.settle()
    return sorted(columns.rows())


def test_messages_are_found_and_removed() -> None:
    """What is removed is not left; what was never there is said to be missing."""
    columns = Columns()
    for message_id in (1, 2, 3, 5):
        columns.add(message_id, message_id * 10, 7)

    assert columns.remove(2)
    assert columns.remove(3)
    assert not columns.remove(3)
    assert not columns.remove(4)
    assert left(columns) == [(1, 10, 7), (5, 50, 7)]


def test_copies_interleaved_with_new_messages_make_one_more_run() -> None:
    """However often the log changes from the one to the other."""
    columns = Columns()
    for message_id in range(1, 101):
        columns.add(message_id, message_id, 1)
    for copied in range(1, 51):
        columns.remove(copied)
        columns.add(copied, 1000 + copied, 1)
        columns.add(100 + copied, 2000 + copied, 1)
    columns.settle()

    assert [(run.ids[0], run.ids[-1]) for run in columns.runs()] == [(1, 50), (51, 150)]
    assert columns.is_in_order()


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 30)), max_size=80))
def test_any_sequence(steps: list[tuple[bool, int]]) -> None:
    """Adding, adding again and removing give what a dict gives."""
    columns = Columns()
    model: dict[int, int] = {}
    for position, (adds, message_id) in enumerate(steps):
        assert columns.remove(message_id) == (model.pop(message_id, None) is not None)
        if adds:
            columns.add(message_id, position, 1)
            model[message_id] = position

    assert left(columns) == [(each, model[each], 1) for each in sorted(model)]
    for run in columns.runs():
        assert sorted(run.ids) == list(run.ids)
        assert sorted(run.positions) == list(run.positions)
