"""The budget for the contents of waiting messages.

Theory. A message that waits in a durable queue is in the log already, so its content may be let go
of and read again when its turn comes nearer. Memory is bounded by a budget over all queues. Above
it, what waits behind the head of a queue is packed (`broker.core.ready`, `broker.core.packed`),
oldest first, in bounded steps; the head of every queue stays. Nothing is read while a consumer
waits for it if that can be avoided: when less than half a window is left at the head, the next
block is asked for, in one mostly sequential read off the loop, and the queue goes on delivering
meanwhile. A queue whose head has no content yet delivers nothing, and is dispatched when it
arrives. After a restart everything is packed, and the first deliveries bring contents in by the
same way.

Two kinds of contents stay: those that the log does not have (of transient messages, or with a store
in memory), and those of messages that several queues hold, as each of them counts on it.
"""

from typing import TYPE_CHECKING, Final

from broker.core.message import Message

if TYPE_CHECKING:
    from broker.core.queue import Queue

#: Messages at the head of a long queue that stay in memory.
WINDOW: Final = 2048

#: What a content takes beside the octets of the body, roughly.
CONTENT_OVERHEAD_BYTES: Final = 500


def content_bytes(message: Message) -> int:
    """What `message` takes in memory, roughly."""
    return message.body_size + CONTENT_OVERHEAD_BYTES


class Memory:
    """The budget of one node.

    Arguments:
        budget_bytes: 0 for no limit; then nothing is ever packed.
        window: how many messages at the head of a long queue stay, and are fetched together.
    """

    __slots__ = ("_queues", "budget_bytes", "used_bytes", "window")

    def __init__(self, budget_bytes: int = 0, window: int = WINDOW) -> None:
        self.budget_bytes = budget_bytes
        self.window = window if budget_bytes else 0
        #: waiting messages that are in memory, roughly
        self.used_bytes = 0
        #: queues with messages that may go
        self._queues: dict[Queue, None] = {}

    @property
    def is_exceeded(self) -> bool:
        """Whether contents should be let go."""
        return 0 < self.budget_bytes < self.used_bytes

    def note(self, queue: "Queue") -> None:
        """`queue` has messages behind its head."""
        self._queues[queue] = None

    def relieve(self, durable: int, count: int) -> bool:
        """Let go of up to `count` contents that are safe in the log.

        Returns whether to go on in the next turn. What is not safe yet is tried again when the log
        has advanced, as whatever waits for that brings turns.
        """
        for queue in list(self._queues):
            gone = queue.let_go_contents(durable, count)
            count -= gone
            if not queue.ready.has_tail:
                del self._queues[queue]
            if not self.is_exceeded:
                return False
            if count <= 0:
                return True
        return False
