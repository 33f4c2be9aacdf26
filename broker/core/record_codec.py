"""Records as bytes: what each kind looks like in the log, and back.

A record is a kind, a version of that kind, and a payload; how it is framed and checked is the
storage's affair. Integers are big-endian and a text is its length as u16 with its UTF-8. A kind
never changes its meaning: what must be said differently gets a new version, and old versions stay
readable for ever. `docs/storage.md` has the layouts byte by byte.

Only `Published` is written for every message, so only its encoding counts: one pack and one join,
with the address, the header and the body as they lie in the message.
"""

from collections.abc import Sequence
from struct import Struct, error
from typing import Final

from broker.core.message import FRAME_OVERHEAD, Message
from broker.core.records import (
    Bound,
    Counters,
    Delivered,
    ExchangeDeclared,
    ExchangeDeleted,
    Published,
    QueueDeclared,
    QueueDeleted,
    Record,
    Settled,
    Started,
    Stopped,
    Unbound,
)
from broker.core.table import Table, TableError

PUBLISHED: Final = 1
SETTLED: Final = 2
QUEUE_DECLARED: Final = 3
QUEUE_DELETED: Final = 4
EXCHANGE_DECLARED: Final = 5
EXCHANGE_DELETED: Final = 6
BOUND: Final = 7
UNBOUND: Final = 8
#: Holds whole framed records, so what encodes and decodes it is the storage.
COMMITTED: Final = 9
STOPPED: Final = 10
COUNTERS: Final = 11
DELIVERED: Final = 12
STARTED: Final = 13

#: The version of every kind so far.
VERSION: Final = 1

#: message id, published at (ms), number of queues, length of the address, body size
_PUBLISHED_HEAD: Final = Struct(">QQHHI")
#: the same with its one queue id behind
_PUBLISHED_ONE: Final = Struct(">QQHHIQ")
_QUEUE: Final = Struct(">Q")


class UnreadableRecord(ValueError):
    """A record whose checksum holds but whose content this version cannot read."""


def encode(record: Record) -> tuple[int, bytes]:
    """The kind and the payload of `record`."""
    if isinstance(record, Published):
        return PUBLISHED, encode_published(record)
    if isinstance(record, Settled | Delivered):
        ids = record.message_ids
        kind = SETTLED if isinstance(record, Settled) else DELIVERED
        return kind, Struct(f">QI{len(ids)}Q").pack(record.queue_id, len(ids), *ids)
    writer = _Writer()
    if isinstance(record, QueueDeclared):
        kind = QUEUE_DECLARED
        writer.text(record.vhost).number(record.queue_id).text(record.name)
        writer.flags(record.auto_delete).table(record.arguments)
    elif isinstance(record, QueueDeleted):
        kind = QUEUE_DELETED
        writer.text(record.vhost).number(record.queue_id).text(record.name)
    elif isinstance(record, ExchangeDeclared):
        kind = EXCHANGE_DECLARED
        writer.text(record.vhost).text(record.name).text(record.type_name)
        writer.flags(record.auto_delete, record.internal).table(record.arguments)
    elif isinstance(record, ExchangeDeleted):
        kind = EXCHANGE_DELETED
        writer.text(record.vhost).text(record.name)
    elif isinstance(record, Bound | Unbound):
        kind = BOUND if isinstance(record, Bound) else UNBOUND
        writer.text(record.vhost).text(record.source).text(record.destination)
        writer.flags(record.to_queue).octets(record.routing_key).table(record.arguments)
    elif isinstance(record, Counters):
        kind = COUNTERS
        writer.number(record.message_id).number(record.queue_id)
    elif isinstance(record, Started):
        kind = STARTED
    else:
        assert isinstance(record, Stopped), f"a record of kind {type(record).__name__} has a layout"
        kind = STOPPED
    return kind, writer.payload()


def encode_published(record: Published) -> bytes:
    """The payload of a message; the hot one."""
    message = record.message
    queue_ids = record.queue_ids
    address = message.address
    if len(queue_ids) == 1:
        head = _PUBLISHED_ONE.pack(
            message.message_id,
            message.published_ms,
            1,
            len(address),
            message.body_size,
            queue_ids[0],
        )
    else:
        head = _PUBLISHED_HEAD.pack(
            message.message_id,
            message.published_ms,
            len(queue_ids),
            len(address),
            message.body_size,
        ) + Struct(f">{len(queue_ids)}Q").pack(*queue_ids)
    return b"".join((head, address, message.header_frame, message.body_frame))


def decode(kind: int, version: int, payload: bytes) -> Record:
    """The record in `payload`; raises UnreadableRecord."""
    if version != VERSION:
        raise UnreadableRecord(f"record of kind {kind} has version {version}, not {VERSION}")
    try:
        return _decode(kind, payload)
    except (IndexError, error, TableError) as cause:
        raise UnreadableRecord(f"record of kind {kind} does not add up: {cause}") from None


def _decode(kind: int, payload: bytes) -> Record:
    if kind == PUBLISHED:
        return decode_published(payload)
    reader = _Reader(payload)
    record = _decode_other(kind, reader)
    reader.check_end()
    return record


def _decode_other(kind: int, reader: "_Reader") -> Record:
    if kind == SETTLED:
        return Settled(reader.number(), reader.numbers())
    if kind == DELIVERED:
        return Delivered(reader.number(), reader.numbers())
    if kind == QUEUE_DECLARED:
        vhost, queue_id, name = reader.text(), reader.number(), reader.text()
        flags = reader.flags()
        return QueueDeclared(vhost, queue_id, name, bool(flags & 1), reader.table())
    if kind == QUEUE_DELETED:
        return QueueDeleted(reader.text(), reader.number(), reader.text())
    if kind == EXCHANGE_DECLARED:
        vhost, name, type_name = reader.text(), reader.text(), reader.text()
        flags = reader.flags()
        return ExchangeDeclared(
            vhost, name, type_name, bool(flags & 1), bool(flags & 2), reader.table()
        )
    if kind == EXCHANGE_DELETED:
        return ExchangeDeleted(reader.text(), reader.text())
    if kind in (BOUND, UNBOUND):
        vhost, source, destination = reader.text(), reader.text(), reader.text()
        flags = reader.flags()
        made = Bound if kind == BOUND else Unbound
        return made(vhost, source, destination, bool(flags & 1), reader.octets(), reader.table())
    if kind == COUNTERS:
        return Counters(reader.number(), reader.number())
    if kind == STARTED:
        return Started()
    if kind == STOPPED:
        return Stopped()
    raise UnreadableRecord(f"unknown record kind {kind}")


def decode_published(payload: bytes) -> Published:
    """The message in `payload`; its properties are not peeked at.

    Raises IndexError or `struct.error` when it does not add up.
    """
    message_id, published_ms, count, address_length, body_size = _PUBLISHED_HEAD.unpack_from(
        payload
    )
    at = _PUBLISHED_HEAD.size
    if count == 1:
        queue_ids = _QUEUE.unpack_from(payload, at)
    else:
        queue_ids = Struct(f">{count}Q").unpack_from(payload, at)
    at += 8 * count
    header_at = at + address_length
    body_at = header_at + FRAME_OVERHEAD + int.from_bytes(payload[header_at : header_at + 4], "big")
    if body_at + (body_size + FRAME_OVERHEAD if body_size else 0) != len(payload):
        raise IndexError("the content is not as long as it says")
    message = Message(
        payload[at:header_at], payload[header_at:body_at], payload[body_at:], body_size, True
    )
    message.message_id = message_id
    message.published_ms = published_ms
    return Published(message, queue_ids)


class _Writer:
    """Builds the payload of a definition."""

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def octets(self, value: bytes) -> "_Writer":
        self._parts += (len(value).to_bytes(2, "big"), value)
        return self

    def text(self, value: str) -> "_Writer":
        return self.octets(value.encode("utf-8", "surrogateescape"))

    def number(self, value: int) -> "_Writer":
        self._parts.append(_QUEUE.pack(value))
        return self

    def flags(self, *values: bool) -> "_Writer":
        octet = 0
        for bit, value in enumerate(values):
            octet |= value << bit
        self._parts.append(bytes((octet,)))
        return self

    def table(self, value: Table) -> "_Writer":
        self._parts += (len(value.raw).to_bytes(4, "big"), value.raw)
        return self

    def payload(self) -> bytes:
        return b"".join(self._parts)


class _Reader:
    """Reads the payload of a definition."""

    __slots__ = ("_at", "_payload")

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self._at = 0

    def _take(self, length: int) -> bytes:
        end = self._at + length
        if end > len(self._payload):
            raise IndexError("a field runs past the end of the record")
        value = self._payload[self._at : end]
        self._at = end
        return value

    def octets(self) -> bytes:
        return self._take(int.from_bytes(self._take(2), "big"))

    def text(self) -> str:
        return self.octets().decode("utf-8", "surrogateescape")

    def number(self) -> int:
        return int.from_bytes(self._take(8), "big")

    def numbers(self) -> Sequence[int]:
        count = int.from_bytes(self._take(4), "big")
        return Struct(f">{count}Q").unpack(self._take(8 * count))

    def flags(self) -> int:
        return self._take(1)[0]

    def check_end(self) -> None:
        if self._at != len(self._payload):
            raise IndexError("the record is longer than its fields")

    def table(self) -> Table:
        return Table.parse(self._take(int.from_bytes(self._take(4), "big")))
