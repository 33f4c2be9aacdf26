"""The clock that tests turn by hand."""

import pytest

from broker.core.clock import ManualClock


def test_a_manual_clock_stands_still() -> None:
    """It says what it was set to, however often it is asked."""
    clock = ManualClock(1000)

    assert (clock.now_ms(), clock.now_ms()) == (1000, 1000)


def test_a_manual_clock_advances() -> None:
    """By as many milliseconds as it is told, none included."""
    clock = ManualClock(1000)
    clock.advance(5)
    clock.advance(0)

    assert clock.now_ms() == 1005


def test_a_manual_clock_does_not_go_back() -> None:
    """Time doesn't, so a test that tries is wrong."""
    with pytest.raises(AssertionError, match="does not go back"):
        ManualClock().advance(-1)
