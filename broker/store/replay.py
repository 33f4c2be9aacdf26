"""Reading the history back, from indexes where there are any.

The engine keeps, for each batch, an index whose octets mean nothing to it. To us they are *items*,
one for each record, and they say of it what recovery wants to know. Of a message that is everything
but its content, so that a sealed segment is recovered without being read. A definition or a
settlement is small, and its item holds the whole record. A transaction holds the items of its
records.

    item:         tag u8 | length of the record u32
    MESSAGE:      item | message id u64 | published at (ms) u64 | body size u32
                  | number of queues u16 | queue ids u64...
    WHOLE:        item | the record
    TRANSACTION:  item | length of the items u32 | items
    HOLE:         item

Positions are not said; each record lies behind the one before it.

Where the engine has no index, at the end of a log that was not closed, the records themselves are
read, and items are made of them for the next time.
"""

from collections.abc import Iterator, Sequence
from struct import Struct
from typing import Final

from broker.core.message import Message
from broker.core.record_codec import COMMITTED, PUBLISHED, UnreadableRecord, decode
from broker.core.records import Committed, Definition, Published, PublishedTogether, Record
from broker.store.errors import FormatError
from broker.store.ledger import Ledger
from broker.store.log_engine import LogEngine
from broker.store.segment import KIND_HOLE, RECORD_HEAD_BYTES, Scan

_MESSAGE: Final = 1
_WHOLE: Final = 2
_TRANSACTION: Final = 3
_HOLE: Final = 4

_ITEM: Final = Struct(">BI")
_MESSAGE_ITEM: Final = Struct(">BIQQIH")
#: the same with its one queue id behind
_ONE_QUEUE_ITEM: Final = Struct(">BIQQIHQ")
_QUEUE_ID: Final = Struct(">Q")
_INNER_BYTES: Final = Struct(">I")


def message_item(message: Message, queue_ids: Sequence[int], length: int) -> bytes:
    """What the index says of a message; `length` is that of its record."""
    count = len(queue_ids)
    if count == 1:
        return _ONE_QUEUE_ITEM.pack(
            _MESSAGE,
            length,
            message.message_id,
            message.published_ms,
            message.body_size,
            1,
            queue_ids[0],
        )
    return _MESSAGE_ITEM.pack(
        _MESSAGE, length, message.message_id, message.published_ms, message.body_size, count
    ) + Struct(f">{count}Q").pack(*queue_ids)


def whole_item(frame: bytes) -> bytes:
    """An item that holds the record itself."""
    return _ITEM.pack(_WHOLE, len(frame)) + frame


def transaction_item(length: int, items: Sequence[bytes]) -> bytes:
    """What the index says of a transaction; `items` are those of its records."""
    inner = b"".join(items)
    return b"".join((_ITEM.pack(_TRANSACTION, length), _INNER_BYTES.pack(len(inner)), inner))


def parse_published(octets: bytes) -> Published | None:
    """The message that `octets` are the record of; None when that cannot be read."""
    scan = Scan(octets, 0, len(octets))
    if not scan.next() or scan.kind != PUBLISHED:
        return None
    try:
        record = decode(scan.kind, scan.version, octets[scan.payload_start : scan.payload_end])
    except UnreadableRecord:
        return None
    assert isinstance(record, Published), "the kind says so"
    return record


class Replay:
    """The surviving records of a log in their order; its messages are noted in a ledger, as dead.

    Messages come without content: it is fetched when it is wanted, as a long log must not fill the
    memory. Their `holders` says how many queues their record names.
    """

    def __init__(self, engine: LogEngine, ledger: Ledger) -> None:
        self._engine = engine
        self._ledger = ledger
        #: how far it has come
        self._position = 0

    def share(self) -> float:
        """How much of the log was gone over, from 0 to 1."""
        segments = self._engine.segments()
        if not segments:
            return 0.0
        # Where the last segment ends is not known before it was read.
        begin, end = segments[0].base, max(segments[-1].end, self._position)
        return (self._position - begin) / max(1, end - begin)

    def records(self) -> Iterator[Record]:
        """Every record. Raises FormatError and what the engine raises."""
        for batch in self._engine.batches():
            self._position = batch.position
            if batch.index is not None:
                yield from self._from_index(batch.index, batch.position)
            else:
                assert batch.data is not None, "a batch has an index or its records"
                items: list[bytes] = []
                yield from self._from_records(batch.data, batch.position, items)
                batch.index = b"".join(items)

    # From records.

    def _from_records(self, data: bytes, position: int, items: list[bytes]) -> Iterator[Record]:
        """The records in `data`, whose checksums were compared; `items` is to get theirs."""
        scan = Scan(data, 0, len(data), checked=False)
        while scan.next():
            at = position + scan.offset
            length = scan.payload_end - scan.offset
            payload = data[scan.payload_start : scan.payload_end]
            if scan.kind == KIND_HOLE:
                items.append(_ITEM.pack(_HOLE, length))
            elif scan.kind == COMMITTED:
                inner_items: list[bytes] = []
                inner = self._from_records(payload, at + RECORD_HEAD_BYTES, inner_items)
                yield Committed(list(inner))
                items.append(transaction_item(length, inner_items))
            else:
                record = _decode(scan.kind, scan.version, payload, at)
                if isinstance(record, Published):
                    message = record.message
                    message.address = message.header_frame = message.body_frame = b""
                    self._found(message, at, length, len(record.queue_ids))
                    items.append(message_item(message, record.queue_ids, length))
                else:
                    _place(record, at, length)
                    items.append(whole_item(data[scan.offset : scan.payload_end]))
                yield record

    # From indexes.

    def _from_index(self, index: bytes, position: int) -> Iterator[Record]:
        """The records of a batch, from its items."""
        at = 0
        together: PublishedTogether | None = None
        while at < len(index):
            tag, length = _ITEM.unpack_from(index, at)
            if tag == _MESSAGE:
                _, _, message_id, _, body_size, count = _MESSAGE_ITEM.unpack_from(index, at)
                at += _MESSAGE_ITEM.size
                if count == 1:
                    (queue_id,) = _QUEUE_ID.unpack_from(index, at)
                    at += 8
                    if together is None or together.queue_id != queue_id:
                        if together is not None:
                            yield self._found_together(together)
                        together = PublishedTogether(queue_id)
                    together.message_ids.append(message_id)
                    together.positions.append(position)
                    together.body_sizes.append(body_size)
                    together.lengths.append(length)
                    position += length
                    continue
                if together is not None:
                    yield self._found_together(together)
                    together = None
                queue_ids = Struct(f">{count}Q").unpack_from(index, at)
                at += 8 * count
                message = Message(b"", b"", b"", body_size, True)
                # When it was published comes back with its content.
                message.message_id = message_id
                self._found(message, position, length, count)
                yield Published(message, queue_ids)
            elif tag == _WHOLE:
                if together is not None:
                    yield self._found_together(together)
                    together = None
                start = at + _ITEM.size
                at = start + length
                scan = Scan(index, start, at, checked=False)
                whole = scan.next()
                assert whole, "the engine checked the index"
                payload = index[scan.payload_start : scan.payload_end]
                record = _decode(scan.kind, scan.version, payload, position)
                _place(record, position, length)
                yield record
            elif tag == _TRANSACTION:
                if together is not None:
                    yield self._found_together(together)
                    together = None
                (inner_bytes,) = _INNER_BYTES.unpack_from(index, at + _ITEM.size)
                start = at + _ITEM.size + _INNER_BYTES.size
                at = start + inner_bytes
                inner = self._from_index(index[start:at], position + RECORD_HEAD_BYTES)
                yield Committed(list(inner))
            else:
                assert tag == _HOLE, "the engine checked the index"
                at += _ITEM.size
            position += length
        if together is not None:
            yield self._found_together(together)

    def _found_together(self, record: PublishedTogether) -> PublishedTogether:
        self._ledger.add_recovered_run(record.message_ids, record.positions, record.lengths)
        return record

    def _found(self, message: Message, position: int, length: int, queues: int) -> None:
        message.position = position
        message.holders = queues
        self._ledger.add_recovered(message.message_id, position, length)


def _place(record: Record, position: int, length: int) -> None:
    if isinstance(record, Definition):
        record.position = position
        record.length = length


def _decode(kind: int, version: int, payload: bytes, position: int) -> Record:
    try:
        return decode(kind, version, payload)
    except UnreadableRecord as error:
        raise FormatError(
            f"The log has something at position {position} that this version of the broker does "
            f"not understand: {error}. Start it with the version that wrote it, or a newer one."
        ) from error
