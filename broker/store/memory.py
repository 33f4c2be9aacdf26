"""Stores that keep nothing: durable at once, or when a test says so."""

from collections.abc import Sequence

from broker.core.message import Message
from broker.core.records import Record
from broker.core.recovery import State
from broker.core.store import Store


class MemoryStore(Store):
    """Counts positions and calls each durable the moment it is given.

    What is in memory is as safe as it will ever be, so nobody waits for it.
    """

    __slots__ = ()

    def append(self, record: Record) -> int:
        self.durable += 1
        return self.durable

    async def fetch(self, messages: Sequence[Message]) -> None:
        """Nothing is ever let go, so there is nothing to bring back."""

    def release(self, message: Message) -> None:
        """The message goes with its last reference."""

    def recover(self) -> State:
        return State()

    async def start(self) -> None:
        """There is nobody to lock out."""

    async def close(self) -> None:
        """There is nothing to save."""


class HeldStore(MemoryStore):
    """Keeps its records and becomes durable only by `sync`: what a test of promises needs."""

    __slots__ = ("records",)

    def __init__(self) -> None:
        super().__init__()
        self.records: list[Record] = []

    def append(self, record: Record) -> int:
        self.records.append(record)
        return len(self.records)

    def sync(self, position: int | None = None) -> None:
        """Make everything up to `position`, or everything there is, durable."""
        self.durable = len(self.records) if position is None else position
        if self.on_durable is not None:
            self.on_durable()
