"""LogStore: one ordered history on disk, committed in groups and cleaned from its head.

Theory of operation.

*Append.* A record gets its position at once; its octets gather in memory. `durable` says how far
the history is safe.

*Group commit.* While one batch is written and synced in a worker thread, the next one gathers; when
the thread is done `durable` moves, whoever waits is told, and the next batch goes. There is no
timer: an idle broker syncs the first record immediately, a busy one shares each sync among all that
came meanwhile. Before a batch goes, `on_commit` lets those add to it who hold something back: an
acknowledgement that came before a publish is never in a later batch than that publish. A failed
sync ends the broker, because the page cache can no longer be believed.

*A full disk.* Publishers are blocked and told so, while what makes room again (settlements,
deletions, the copies of cleaning) goes on in a reserve that is kept for it. Draining queues is
enough: what they held is dead, the log is cleaned, the reserve is made whole, and publishers go on.

*Cleaning.* The log is cut in segments. When too much of it is dead, the oldest segment is cleaned:
the messages in it that still live, and the definitions that still hold, are appended again, and
when the copies are durable the segment goes. It is read off the loop, in small portions, and each
message is looked at again on the loop before its copy is appended, as it may have been settled
meanwhile; the copy names the queues that hold it then. As segments go strictly in order, a Settled
record always outlives the Published it cancels, and nothing else needs to be remembered about the
dead.

*How much is too much.* The log is to stay within twice what lives and two segments. What lives may
all lie in front, so that it has to be copied before anything dead is met; meanwhile clients go on
appending. So for each octet they append three are copied, and cleaning begins a third of what lives
early: copying all of it makes room before the third is used up. (The two segments: one may have to
be copied whole before it goes, and one is being written.)

The engine below (`broker.store.engine`) owns files and octets and knows nothing of records; the
records' meaning is `broker.core.recovery`'s, reading them back is `broker.store.replay`'s. What is
here is the order of things.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from broker.core.message import Message
from broker.core.record_codec import COMMITTED, PUBLISHED, VERSION, encode, encode_published
from broker.core.records import (
    Committed,
    Counters,
    Definition,
    Delivered,
    Published,
    Purged,
    Record,
    Settled,
    Started,
    Stopped,
)
from broker.core.recovery import State, apply_definition, fold
from broker.core.store import Store
from broker.store.errors import (
    CorruptError,
    DiskFullError,
    FsyncError,
    StoreError,
    TrimmedError,
)
from broker.store.ledger import Ledger, Span
from broker.store.log_engine import LogEngine
from broker.store.replay import (
    Replay,
    message_item,
    parse_published,
    transaction_item,
    whole_item,
)
from broker.store.segment import RECORD_HEAD_BYTES, frame_record

LOGGER: Final = logging.getLogger("broker.store")

#: Cleaning copies at most so much before it lets others work.
_PORTION_BYTES: Final = 256 * 1024
_PORTION_RECORDS: Final = 500
#: Octets copied for each that clients append meanwhile.
_PACE: Final = 3
#: How often a full disk is tried again.
_ROOM_SECONDS: Final = 1.0


class LogStore(Store):
    """See the theory above.

    Arguments:
        engine: owns the octets.
        fail: called once, with a sentence, when the history cannot be kept any longer; to end the
            broker.
        tell_full: called with True when the disk is full, so that nobody publishes any more, and
            with False when there is room again.
    """

    __slots__ = (
        "_begin",
        "_clean_from",
        "_cleaner",
        "_closed",
        "_closing",
        "_committing",
        "_copied_bytes",
        "_end",
        "_engine",
        "_fail",
        "_failure",
        "_frames",
        "_full",
        "_full_told",
        "_index",
        "_ledger",
        "_loop",
        "_replay",
        "_state",
        "_tell_full",
        "_wakers",
        "_worker",
    )

    def __init__(
        self,
        engine: LogEngine,
        fail: Callable[[str], None],
        tell_full: Callable[[bool], None] | None = None,
    ) -> None:
        super().__init__()
        self._engine = engine
        self._fail = fail
        self._tell_full = tell_full
        #: the disk is full: what is appended goes to the reserve
        self._full = False
        #: whether publishers know
        self._full_told = False
        #: why nothing becomes durable any more
        self._failure: StoreError | None = None
        self._ledger = Ledger()
        self._loop: asyncio.AbstractEventLoop | None = None
        #: writes; reads have threads of the loop's own pool
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="leveret-log")
        #: where the log begins, and the position behind the last record
        self._begin = 0
        self._end = 0
        #: records appended and not yet given to the worker, and their index
        self._frames: list[bytes] = []
        self._index: list[bytes] = []
        #: the worker has a batch, or is about to be given one
        self._committing = False
        #: who waits for a position, as (position, future)
        self._wakers: list[tuple[int, asyncio.Future[None]]] = []
        self._replay: Replay | None = None
        #: the definitions that hold, and the last ids; the messages are the ledger's
        self._state = State()
        self._cleaner: asyncio.Task[None] | None = None
        #: octets that cleaning appended
        self._copied_bytes = 0
        #: after a failure: cleaning is not tried again before the log ends here
        self._clean_from = 0
        #: nothing follows a clean stop
        self._closing = False
        self._closed = False

    # Appending.

    def append(self, record: Record) -> int:
        position = self._end
        if isinstance(record, Published):
            frame, item = self._message(record, position)
        elif isinstance(record, Committed):
            frame, item = self._transaction(record, position)
        else:
            frame = self._other(record, position)
            item = whole_item(frame)
        return self._append_frame(frame, item)

    def _append_frame(self, frame: bytes, item: bytes) -> int:
        self._frames.append(frame)
        self._index.append(item)
        self._end += len(frame)
        if not self._committing:
            self._committing = True
            assert self._loop is not None, "a store is started before it is appended to"
            self._loop.call_soon(self._commit)
        return self._end

    def _message(self, record: Published, position: int) -> tuple[bytes, bytes]:
        """A message as octets with its index item, noted in the ledger."""
        message = record.message
        queue_ids = record.queue_ids
        frame = frame_record(PUBLISHED, VERSION, encode_published(record))
        message.position = position
        self._state.last_message_id = message.message_id
        self._ledger.add(message.message_id, position, len(frame), queue_ids)
        return frame, message_item(message, queue_ids, len(frame))

    def _other(self, record: Record, position: int) -> bytes:
        """Any other record as octets, and what it means to the ledger or the definitions."""
        kind, payload = encode(record)
        frame = frame_record(kind, VERSION, payload)
        if isinstance(record, Settled):
            self._ledger.settle(record.queue_id, record.message_ids)
            if isinstance(record, Purged):
                self._ledger.purge(record.message_ids)
        elif isinstance(record, Stopped):
            self._closing = True
        elif not isinstance(record, Counters | Delivered | Started):
            if isinstance(record, Definition):
                record.position = position
                record.length = len(frame)
            apply_definition(self._state, record)
        return frame

    def _transaction(self, record: Committed, position: int) -> tuple[bytes, bytes]:
        frames: list[bytes] = []
        items: list[bytes] = []
        at = position + RECORD_HEAD_BYTES
        for inner in record.records:
            if isinstance(inner, Published):
                frame, item = self._message(inner, at)
            else:
                frame = self._other(inner, at)
                item = whole_item(frame)
            frames.append(frame)
            items.append(item)
            at += len(frame)
        whole = frame_record(COMMITTED, VERSION, b"".join(frames))
        return whole, transaction_item(len(whole), items)

    # Group commit.

    def _commit(self) -> None:
        """Give the worker what has gathered."""
        if self.on_commit is not None:
            self.on_commit()
        frames, self._frames = self._frames, []
        index, self._index = self._index, []
        if not frames:
            self._committing = False
            return
        assert self._loop is not None, "a store is started before it is appended to"
        written = self._loop.run_in_executor(self._worker, self._write, frames, index)
        written.add_done_callback(self._written)

    def _write(self, frames: list[bytes], index: list[bytes]) -> int:
        """In the worker: write and sync a batch; returns the position that is durable now.

        A batch that finds the disk full goes to the reserve. Its publishes do too, which were
        accepted before anybody knew; there are no more of them once publishers are blocked.
        """
        data, items = b"".join(frames), b"".join(index)
        if not self._full:
            try:
                return self._engine.append(data, items, False)
            except DiskFullError as error:
                LOGGER.warning("%s", error)
                self._full = True
        return self._engine.append(data, items, True)

    def _written(self, written: "asyncio.Future[int]") -> None:
        error = written.exception()
        if error is not None:
            self._give_up(error)
            return
        self.durable = written.result()
        if self._full and not self._full_told:
            self._full_told = True
            if self._tell_full is not None:
                self._tell_full(True)
            self._try_room_later()
        self._wake()
        if self.on_durable is not None:
            self.on_durable()
        self._commit()
        self._clean_if_worth()

    def _try_room_later(self) -> None:
        assert self._loop is not None, "a store is started before it is appended to"
        self._loop.call_later(_ROOM_SECONDS, self._try_room)

    def _try_room(self) -> None:
        """See whether the reserve can be whole again: then there is room for publishes."""
        if self._closed or self._failure is not None:
            return
        assert self._loop is not None, "a store is started before it is appended to"
        tried = self._loop.run_in_executor(self._worker, self._engine.refill)
        tried.add_done_callback(self._tried_room)

    def _tried_room(self, tried: "asyncio.Future[bool]") -> None:
        error = tried.exception()
        if error is not None:
            self._give_up(error)
        elif tried.result():
            self._full = self._full_told = False
            if self._tell_full is not None:
                self._tell_full(False)
        else:
            self._try_room_later()

    def _wake(self) -> None:
        waiting: list[tuple[int, asyncio.Future[None]]] = []
        for position, waker in self._wakers:
            if position > self.durable:
                waiting.append((position, waker))
            elif not waker.done():
                waker.set_result(None)
        self._wakers = waiting

    def _give_up(self, error: BaseException) -> None:
        """Nothing becomes durable any more: say so once, and to everybody who waits."""
        if self._failure is not None:
            return
        if isinstance(error, StoreError):
            self._failure = error
        else:
            LOGGER.error("the log failed", exc_info=error)
            self._failure = StoreError(f"The log failed: {error!r}.")
        # `_committing` stays true, so that nothing is given to the worker again.
        self._committing = True
        wakers, self._wakers = self._wakers, []
        for _, waker in wakers:
            if not waker.done():
                waker.set_exception(self._failure)
        self._fail(str(self._failure))

    async def wait_durable(self, position: int) -> None:
        """Wait until everything before `position` is safe. Raises StoreError when it never is."""
        if position > self.durable:
            if self._failure is not None:
                raise self._failure
            assert self._loop is not None, "a store is started before it is waited for"
            waker = self._loop.create_future()
            self._wakers.append((position, waker))
            await waker

    # Reading.

    async def fetch(self, messages: Sequence[Message]) -> None:
        """Bring back the contents of `messages`.

        A record that cannot be read leaves its message without content (`header_frame` empty); it
        is logged and stays in the log for repair. So does one that nobody holds any more.
        """
        assert self._loop is not None, "a store is started before it is read"
        while True:
            spans: list[Span] = []
            held: list[Message] = []
            for message in messages:
                span = self._ledger.find(message.message_id, message.position)
                if span is not None:
                    spans.append(span)
                    held.append(message)
            if not spans:
                return
            await self.wait_durable(max([span.end for span in spans]))
            try:
                contents = await self._loop.run_in_executor(None, self._read, spans)
                break
            except TrimmedError:
                # Cleaning was faster: it knows where it copied them.
                continue
        for message, content in zip(held, contents, strict=True):
            if content is not None:
                message.address = content.address
                message.published_ms = content.published_ms
                message.header_frame = content.header_frame
                message.body_frame = content.body_frame

    def _read(self, spans: list[Span]) -> list[Message | None]:
        """In a thread: the messages at `spans`; None for one that cannot be read."""
        try:
            contents = self._engine.read_many([(span.position, span.length) for span in spans])
        except CorruptError:
            contents = [self._read_one(span) for span in spans]
        messages: list[Message | None] = []
        for span, octets in zip(spans, contents, strict=True):
            record = parse_published(octets)
            if record is None:
                LOGGER.error("%s; it will not be delivered", _unreadable(span))
                messages.append(None)
            else:
                messages.append(record.message)
        return messages

    def _read_one(self, span: Span) -> bytes:
        try:
            return self._engine.read(span.position, span.length)
        except CorruptError as error:
            LOGGER.error("%s", error)
            return b""

    def release(self, message: Message) -> None:
        self._ledger.release(message.message_id, message.position)

    # Life.

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self._loop.run_in_executor(self._worker, self._engine.acquire)

    def recover(self) -> State:
        self._replay = Replay(self._engine, self._ledger)
        state = fold(self._replay.records())
        for record in state.shared.values():
            message = record.message
            self._ledger.revive(
                message.message_id, message.position, record.queue_ids, message.holders
            )
            message.holders = len(record.queue_ids)
        for columns in state.columns.values():
            for run in columns.runs():
                self._ledger.revive_run(run.positions)
        self._state = state.without_messages()
        self._begin = self._engine.begin
        self._end = self.durable = self._engine.end
        if state.stopped:
            # A delivery leaves no trace, so from here on the clean stop must not be the end.
            frame = self._other(Started(), self._end)
            self._end = self.durable = self._engine.append(frame, whole_item(frame), True)
        return state

    def recovered_share(self) -> float:
        return 0.0 if self._replay is None else self._replay.share()

    async def close(self) -> None:
        self._closing = True
        if self._loop is None or self._closed:
            return
        self._closed = True
        if self._cleaner is not None:
            await asyncio.wait([self._cleaner])
        # On a failure those who must know were told.
        with contextlib.suppress(StoreError):
            await self.wait_durable(self._end)
        await self._loop.run_in_executor(self._worker, self._engine.close)
        self._worker.shutdown()

    # Cleaning.

    def _clean_if_worth(self) -> None:
        """Begin to clean the oldest segment when too much of the log is dead."""
        if self._cleaner is not None or self._closing or self._end < self._clean_from:
            return
        live_bytes = self._ledger.live_bytes + self._state.definition_bytes
        excess_bytes = self._end - self._begin - 2 * live_bytes + live_bytes // _PACE
        if excess_bytes <= 0:
            return
        segments = self._engine.segments()
        if len(segments) < 2 or excess_bytes <= segments[0].size:
            return
        assert self._loop is not None, "a store is started before it is cleaned"
        self._cleaner = self._loop.create_task(self._clean(segments[0].end))
        self._cleaner.add_done_callback(self._cleaned)

    def _cleaned(self, cleaner: "asyncio.Task[None]") -> None:
        self._cleaner = None
        if cleaner.cancelled() or self._failure is not None:
            return
        error = cleaner.exception()
        if error is None:
            self._clean_if_worth()
        elif isinstance(error, FsyncError):
            self._give_up(error)
        else:
            # The log is whole, it only takes more room than it should.
            LOGGER.error(
                "the log could not be cleaned, which will be tried again when it has grown: %s",
                error,
                exc_info=None if isinstance(error, StoreError) else error,
            )
            self._clean_from = self._end + self._engine.segments()[0].size

    async def _clean(self, end: int) -> None:
        """Copy what lives before `end` to the end of the log, then drop what is before.

        Nothing is appended after a clean stop was, so each step looks whether to go on.
        """
        position = self._begin
        copied_before = self._copied_bytes
        appended_before = self._end - copied_before
        while not self._closing and (spans := self._next_portion(end, position)):
            await self._copy(spans)
            position = spans[-1].end
            copied = self._copied_bytes - copied_before
            appended = self._end - self._copied_bytes - appended_before
            if copied >= _PACE * appended:
                # Fast enough; the disk is for the clients.
                await self.wait_durable(self._end)
        if not self._closing:
            await self._repeat_definitions(end)
        if not self._closing:
            self.append(Counters(self._state.last_message_id, self._state.last_queue_id))
            await self._drop(end)

    def _next_portion(self, end: int, position: int) -> list[Span]:
        """What lives between `position` and `end`, as much as is copied in one go."""
        spans = self._ledger.alive_before(end, position, _PORTION_RECORDS)
        size = 0
        for number, span in enumerate(spans):
            size += span.length
            if size >= _PORTION_BYTES:
                return spans[: number + 1]
        return spans

    async def _copy(self, spans: list[Span]) -> None:
        """Append messages again, those that still live, for the queues that hold them now."""
        assert self._loop is not None, "a store is started before it is cleaned"
        contents = await self._loop.run_in_executor(
            None, self._engine.read_many, [(span.position, span.length) for span in spans]
        )
        if self._closing:
            return
        ledger = self._ledger
        queues = self._state.queues
        for span, octets in zip(spans, contents, strict=True):
            if not ledger.is_alive(span):
                continue
            written = parse_published(octets)
            if written is None:
                raise StoreError(f"{_unreadable(span)}.")
            queue_ids = [
                queue_id
                for queue_id in ledger.holders(span.message_id, written.queue_ids)
                if queue_id in queues
            ]
            if not queue_ids:
                # A purged or deleted queue releases its messages in steps, this one soon.
                ledger.release(span.message_id, span.position)
                continue
            record = Published(written.message, queue_ids)
            frame = frame_record(PUBLISHED, VERSION, encode_published(record))
            ledger.add_copy(span, self._end, len(frame))
            self._append_frame(frame, message_item(written.message, queue_ids, len(frame)))
            self._copied_bytes += len(frame)

    async def _repeat_definitions(self, end: int) -> None:
        """Append the definitions again that were made before `end` and still hold."""
        definitions = self._state.definitions_before(end)
        for number, definition in enumerate(definitions, 1):
            if self._state.holds(definition):
                self.append(definition)
                self._copied_bytes += definition.length
            if number % _PORTION_RECORDS == 0:
                await asyncio.sleep(0)
                if self._closing:
                    return

    async def _drop(self, end: int) -> None:
        """Let go of everything before `end`, once what was appended instead is safe."""
        await self.wait_durable(self._end)
        assert self._loop is not None, "a store is started before it is cleaned"
        await self._loop.run_in_executor(None, self._engine.trim, end)
        self._ledger.drop_before(end)
        self._begin = end


def _unreadable(span: Span) -> str:
    return (
        f"message {span.message_id} at position {span.position} of the log cannot be read: "
        "its checksum does not hold"
    )
