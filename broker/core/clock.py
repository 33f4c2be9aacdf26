"""Time as the core sees it: a number somebody hands in.

Deadlines must survive restarts and must never jump, so a real clock reads the wall once and counts
monotonic milliseconds from there (`broker.broker.SystemClock`); tests turn a `ManualClock` by hand.
"""

from abc import ABC, abstractmethod


class Clock(ABC):
    """Tells the time in milliseconds since the epoch."""

    __slots__ = ()

    @abstractmethod
    def now_ms(self) -> int:
        """Milliseconds since the epoch; never less than it said before."""


class ManualClock(Clock):
    """A clock that stands still until a test moves it."""

    __slots__ = ("_now_ms",)

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self._now_ms = now_ms

    def now_ms(self) -> int:
        return self._now_ms

    def advance(self, milliseconds: int) -> None:
        """Let `milliseconds` pass; a negative number is refused, as time does not go back."""
        assert milliseconds >= 0, "a clock does not go back"
        self._now_ms += milliseconds
