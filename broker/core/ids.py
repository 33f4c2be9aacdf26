"""Numbers and names the core gives out; what is random comes from a source handed in."""

from base64 import urlsafe_b64encode
from collections.abc import Callable


class Ids:
    """The counters of one node.

    Arguments:
        random_bytes: gives that many unguessable bytes (`secrets.token_bytes` outside tests).
    """

    __slots__ = ("message_id", "queue_id", "random_bytes", "session_id")

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        #: gives that many unguessable bytes
        self.random_bytes = random_bytes
        #: the last message id given; also the last sequence, as both come from one counter
        self.message_id = 0
        self.queue_id = 0
        #: of the last session; 1 is the broker itself in the log
        self.session_id = 1

    def next_queue_id(self) -> int:
        """An id that no queue of this node had or will have."""
        self.queue_id += 1
        return self.queue_id

    def next_session_id(self) -> int:
        """A number for a connection, as the log shows it."""
        self.session_id += 1
        return self.session_id

    def token(self) -> str:
        """22 characters of URL-safe base64: how RabbitMQ names queues and consumers of its own."""
        return urlsafe_b64encode(self.random_bytes(16)).rstrip(b"=").decode()
