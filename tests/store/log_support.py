"""What the tests of LogStore share: one life of a store on a disk that its test decides about."""

from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from core_support import a_message
from stepped_loop import SteppedLoop
from store.engine_double import Disk, MemoryLogEngine

from broker.core.message import Message
from broker.core.records import Published, QueueDeclared, Settled, Stopped
from broker.core.recovery import State
from broker.core.table import Table
from broker.store.log import LogStore

Result = TypeVar("Result")


class Log:
    """One life of a LogStore."""

    def __init__(self, disk: Disk, loop: SteppedLoop) -> None:
        self.disk = disk
        self.loop = loop
        self.engine = MemoryLogEngine(disk)
        #: what ended it
        self.failures: list[str] = []
        #: what publishers were told of the disk
        self.told: list[bool] = []
        self.store = LogStore(self.engine, self.failures.append, self.told.append)
        self.complete(self.store.start())
        self.recovered: State = self.store.recover()
        self.last_id = self.recovered.last_message_id

    def complete(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Run everything until `coroutine` is done."""
        return self.loop.complete(coroutine)

    def close(self) -> None:
        """The end in good order."""
        self.complete(self.store.close())

    def stop(self) -> None:
        """The end that is known for one at the next start."""
        self.store.append(Stopped())
        self.close()

    # Records.

    def declare(self, *queue_ids: int) -> None:
        """Queues, each called after its id."""
        for queue_id in queue_ids:
            self.store.append(queue(queue_id))

    def publish(self, *queue_ids: int, body: bytes = b"") -> Message:
        """A message for these queues."""
        record = self.a_record(*queue_ids, body=body)
        self.store.append(record)
        return record.message

    def a_record(self, *queue_ids: int, body: bytes = b"") -> Published:
        """The record of a message with the next id, not yet appended."""
        self.last_id += 1
        message = a_message(body, persistent=True, routing_key="key")
        message.message_id = self.last_id
        message.published_ms = 1000 + self.last_id
        return Published(message, queue_ids)

    def settle(self, queue_id: int, *messages: Message, release: bool = True) -> None:
        """The queue is done with messages, and so is everybody unless told otherwise."""
        self.store.append(Settled(queue_id, [message.message_id for message in messages]))
        if release:
            for message in messages:
                self.store.release(message)

    # What became of it.

    def messages(self) -> list[Message]:
        """The recovered messages in order."""
        messages = self.recovered.messages
        return [messages[message_id].message for message_id in sorted(messages)]

    def fetched(self) -> list[bytes]:
        """The bodies of the recovered messages in order."""
        messages = self.messages()
        self.complete(self.store.fetch(messages))
        return [message.body for message in messages]

    def holders(self) -> dict[int, list[int]]:
        """The recovered messages and who holds them."""
        return {
            message_id: list(record.queue_ids)
            for message_id, record in self.recovered.messages.items()
        }

    def job_names(self) -> list[str]:
        """What waits for a thread."""
        return [job.function.__name__ for job in self.loop.jobs]


@contextmanager
def life(disk: Disk) -> Iterator[Log]:
    """A life on `disk` that ends without a word, unless the test closed it."""
    with SteppedLoop() as loop:
        yield Log(disk, loop)
        disk.crash()


def queue(queue_id: int) -> QueueDeclared:
    """A queue called after its id."""
    return QueueDeclared("/", queue_id, f"queue-{queue_id}", False, Table.EMPTY)


def pass_through(log: Log) -> None:
    """Messages that live shortly, enough to have a segment cleaned."""
    log.settle(9, *[log.publish(9, body=bytes(300)) for _ in range(20)])
    log.loop.settle()


def after(log: Log) -> dict[int, list[int]]:
    """Who holds what after a crash."""
    log.disk.crash()
    log.loop.abandon()
    with life(log.disk) as log:
        return log.holders()
