"""What the core asks of storage: one ordered history, and how far of it is safe.

`append` says that something happened and answers with the position of that record. `durable` is the
position up to which everything survives a crash. Whatever is owed to a client for a durable act is
a promise holding a position (see `broker.amqp.promises`), kept once `durable` has reached it. That
is the whole contract between routing and disks; it has two implementations from the start, one that
is durable at once and one for tests that is durable when told to (`broker.store.memory`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from broker.core.message import Message
from broker.core.records import Record
from broker.core.recovery import State


class Store(ABC):
    """An append-only history of records."""

    __slots__ = ("durable", "on_commit", "on_durable")

    def __init__(self) -> None:
        #: everything up to this position survives a crash
        self.durable = 0
        #: called before records leave memory, so that what is still held back goes with them
        self.on_commit: Callable[[], None] | None = None
        #: called after `durable` moved, so that promises can be kept
        self.on_durable: Callable[[], None] | None = None

    @abstractmethod
    def append(self, record: Record) -> int:
        """Add `record` to the history and return its position."""

    @abstractmethod
    async def fetch(self, messages: Sequence[Message]) -> None:
        """Bring back the contents of `messages` that were let go.

        One that cannot be read is left without (`header_frame` empty).
        """

    @abstractmethod
    def release(self, message: Message) -> None:
        """No queue holds `message` any more."""

    @abstractmethod
    def recover(self) -> State:
        """What the surviving records amount to; its messages have no content until fetched.

        Called once, after `start`; may take long and may be called in another thread.
        """

    def recovered_share(self) -> float:
        """How much of the history `recover` has gone over, from 0 to 1; asked meanwhile."""
        return 1.0

    @abstractmethod
    async def start(self) -> None:
        """Become the only writer."""

    @abstractmethod
    async def close(self) -> None:
        """Make everything durable and let go."""
