"""A transaction of one channel: what is gathered between tx.select and commit or rollback.

Publishes are checked and routed when they come, and only their arrival in the queues waits. A
delivery settled in a transaction leaves the channel's unacknowledged ones at once, but its queue
hears of it at commit; rollback gives it back under the same tag.
"""

from enum import Enum

from broker.core.message import Message
from broker.core.queue import Entry, Queue
from broker.core.records import Record, Settled


class Settlement(Enum):
    """What becomes of a delivery."""

    ACK = "ack"
    REJECT = "reject"
    REQUEUE = "requeue"


class Transaction:
    """See the module's theory."""

    __slots__ = ("publishes", "settlements", "tags", "unroutable")

    def __init__(self) -> None:
        self.publishes: list[tuple[Message, tuple[Queue, ...]]] = []
        self.settlements: list[tuple[Entry, Settlement]] = []
        #: mandatory messages without a queue, to be returned at commit
        self.unroutable: list[Message] = []
        #: delivery tags of `settlements`, to give back at rollback
        self.tags: list[int] = []

    def publish(self, message: Message, targets: tuple[Queue, ...]) -> None:
        """Remember a routed message."""
        self.publishes.append((message, targets))

    def settle(self, tag: int, entry: Entry, settlement: Settlement) -> None:
        """Remember what the client said of a delivery."""
        self.settlements.append((entry, settlement))
        self.tags.append(tag)

    def settled_records(self) -> list[Record]:
        """The settlements that the history must know of, one record per queue."""
        by_queue: dict[Queue, list[int]] = {}
        for entry, settlement in self.settlements:
            queue = entry.queue
            if (
                settlement is not Settlement.REQUEUE
                and queue.durable
                and not queue.deleted
                and entry.message.persistent
            ):
                by_queue.setdefault(queue, []).append(entry.message.message_id)
        return [Settled(queue.queue_id, ids) for queue, ids in by_queue.items()]
