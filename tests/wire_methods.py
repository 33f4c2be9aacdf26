"""Methods and field tables encoded by hand, for tests that choose every type tag and every bit.

pamqp picks the type tag of a table value by its size and refuses names that the standard forbids.
A broker has to answer for all of them, so requests are built here field by field, while replies are
still decoded by pamqp: an independent reader of what the broker under test wrote.

Field values are written as `(tag, value)`, table entries as `(name, tag, value)`:

    table(("x-message-ttl", "I", 5000), ("x-overflow", "S", "drop-head"))
    table(("CC", "A", (("S", "one"), ("S", "two"))))
    table(("nested", "F", (("inside", "V", None),)))
"""

import struct
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

NUMBER_FORMATS: Final = {
    "t": ">?", "b": ">b", "B": ">B", "s": ">h", "u": ">H", "I": ">i", "i": ">I",
    "l": ">q", "L": ">q", "f": ">f", "d": ">d", "T": ">Q",
}  # fmt: skip


class Method(NamedTuple):
    """One method as it goes into a frame: its two ids and its encoded arguments."""

    class_id: int
    method_id: int
    arguments: bytes = b""

    @property
    def ids(self) -> tuple[int, int]:
        """Class and method id, as close methods repeat them."""
        return self.class_id, self.method_id

    @property
    def payload(self) -> bytes:
        """The payload of a method frame."""
        return struct.pack(">HH", self.class_id, self.method_id) + self.arguments


def shortstr(text: str | bytes) -> bytes:
    """Up to 255 bytes behind a length octet."""
    octets = text.encode() if isinstance(text, str) else text
    return struct.pack(">B", len(octets)) + octets


def longstr(text: str | bytes) -> bytes:
    """Any number of bytes behind a 32-bit length."""
    octets = text.encode() if isinstance(text, str) else text
    return struct.pack(">I", len(octets)) + octets


def bits(*flags: bool) -> bytes:
    """Up to eight flags in one octet, the first in the lowest bit."""
    return bytes([sum(1 << position for position, flag in enumerate(flags) if flag)])


def field(tag: str, value: Any) -> bytes:
    """One tagged value, as it stands in a table after its name or in an array."""
    if tag in NUMBER_FORMATS:
        encoded = struct.pack(NUMBER_FORMATS[tag], value)
    elif tag == "D":
        encoded = struct.pack(">BI", *value)
    elif tag in "Sx":
        encoded = longstr(value)
    elif tag == "F":
        encoded = table(*value)
    elif tag == "A":
        encoded = longstr(b"".join(field(*element) for element in value))
    elif tag == "V":
        encoded = b""
    else:
        raise ValueError(f"unknown tag {tag!r}")
    return tag.encode() + encoded


def table_content(*entries: tuple[str, str, Any]) -> bytes:
    """A table's entries in the order given, without the table's length."""
    return b"".join(shortstr(name) + field(tag, value) for name, tag, value in entries)


def table(*entries: tuple[str, str, Any]) -> bytes:
    """A table behind its 32-bit length."""
    return longstr(table_content(*entries))


def parse_table(content: bytes) -> list[tuple[str, str, Any]]:
    """The entries of a table without its length, in order, in the form `table` takes them."""
    entries = []
    position = 0
    while position < len(content):
        name_end = position + 1 + content[position]
        name = content[position + 1 : name_end].decode()
        tag, value, position = _parse_field(content, name_end)
        entries.append((name, tag, value))
    return entries


def _parse_field(octets: bytes, position: int) -> tuple[str, Any, int]:
    """The tag and value at `position`, and where the next one begins."""
    tag = chr(octets[position])
    position += 1
    if tag in NUMBER_FORMATS:
        (number,) = struct.unpack_from(NUMBER_FORMATS[tag], octets, position)
        return tag, number, position + struct.calcsize(NUMBER_FORMATS[tag])
    if tag == "D":
        return tag, struct.unpack_from(">BI", octets, position), position + 5
    if tag == "V":
        return tag, None, position
    (size,) = struct.unpack_from(">I", octets, position)
    content = octets[position + 4 : position + 4 + size]
    position += 4 + size
    if tag == "F":
        return tag, tuple(parse_table(content)), position
    if tag == "A":
        elements = []
        start = 0
        while start < size:
            kind, value, start = _parse_field(content, start)
            elements.append((kind, value))
        return tag, tuple(elements), position
    assert tag in "Sx", f"unknown tag {tag!r}"
    return tag, content, position


NO_ARGUMENTS: Final = table()

# The 16-bit ticket that opens most methods; brokers ignore it.
TICKET: Final = b"\x00\x00"


def connection_start_ok(
    mechanism: str,
    response: bytes,
    *,
    capabilities: Sequence[str] = (),
    client_properties: Sequence[tuple[str, str, Any]] = (),
) -> Method:
    """connection.start-ok; the capabilities named are sent as true."""
    offered = tuple((name, "t", True) for name in capabilities)
    client = table(("capabilities", "F", offered), *client_properties)
    return Method(10, 11, client + shortstr(mechanism) + longstr(response) + shortstr("en_US"))


def connection_tune_ok(channel_max: int, frame_max: int, heartbeat: int = 0) -> Method:
    """connection.tune-ok; `heartbeat` is in seconds."""
    return Method(10, 31, struct.pack(">HIH", channel_max, frame_max, heartbeat))


def connection_open(vhost: str) -> Method:
    """connection.open."""
    return Method(10, 40, shortstr(vhost) + shortstr("") + bits())


def connection_close(code: int = 200, text: str = "done") -> Method:
    """connection.close."""
    return Method(10, 50, struct.pack(">H", code) + shortstr(text) + struct.pack(">HH", 0, 0))


def update_secret(secret: str, reason: str = "") -> Method:
    """connection.update-secret."""
    return Method(10, 70, longstr(secret) + shortstr(reason))


def channel_open() -> Method:
    """channel.open."""
    return Method(20, 10, shortstr(""))


def channel_flow(active: bool) -> Method:
    """channel.flow."""
    return Method(20, 20, bits(active))


def channel_close(code: int = 200, text: str = "done") -> Method:
    """channel.close."""
    return Method(20, 40, struct.pack(">H", code) + shortstr(text) + struct.pack(">HH", 0, 0))


def access_request(realm: str) -> Method:
    """access.request, asking for everything."""
    return Method(30, 10, shortstr(realm) + bits(True, True, True, True, True))


def exchange_declare(
    exchange: str,
    kind: str = "direct",
    *,
    passive: bool = False,
    durable: bool = False,
    auto_delete: bool = False,
    internal: bool = False,
    nowait: bool = False,
    arguments: bytes = NO_ARGUMENTS,
) -> Method:
    """exchange.declare."""
    flags = bits(passive, durable, auto_delete, internal, nowait)
    return Method(40, 10, TICKET + shortstr(exchange) + shortstr(kind) + flags + arguments)


def exchange_delete(exchange: str, *, if_unused: bool = False, nowait: bool = False) -> Method:
    """exchange.delete."""
    return Method(40, 20, TICKET + shortstr(exchange) + bits(if_unused, nowait))


def _exchange_binding(
    destination: str, source: str, routing_key: str, nowait: bool, arguments: bytes
) -> bytes:
    names = shortstr(destination) + shortstr(source) + shortstr(routing_key)
    return TICKET + names + bits(nowait) + arguments


def exchange_bind(
    destination: str,
    source: str,
    routing_key: str = "",
    *,
    nowait: bool = False,
    arguments: bytes = NO_ARGUMENTS,
) -> Method:
    """exchange.bind."""
    return Method(40, 30, _exchange_binding(destination, source, routing_key, nowait, arguments))


def exchange_unbind(
    destination: str,
    source: str,
    routing_key: str = "",
    *,
    nowait: bool = False,
    arguments: bytes = NO_ARGUMENTS,
) -> Method:
    """exchange.unbind."""
    return Method(40, 40, _exchange_binding(destination, source, routing_key, nowait, arguments))


def queue_declare(
    queue: str | bytes,
    *,
    passive: bool = False,
    durable: bool = False,
    exclusive: bool = False,
    auto_delete: bool = False,
    nowait: bool = False,
    arguments: bytes = NO_ARGUMENTS,
) -> Method:
    """queue.declare."""
    flags = bits(passive, durable, exclusive, auto_delete, nowait)
    return Method(50, 10, TICKET + shortstr(queue) + flags + arguments)


def queue_bind(
    queue: str,
    exchange: str,
    routing_key: str = "",
    *,
    nowait: bool = False,
    arguments: bytes = NO_ARGUMENTS,
) -> Method:
    """queue.bind."""
    names = shortstr(queue) + shortstr(exchange) + shortstr(routing_key)
    return Method(50, 20, TICKET + names + bits(nowait) + arguments)


def queue_unbind(
    queue: str, exchange: str, routing_key: str = "", *, arguments: bytes = NO_ARGUMENTS
) -> Method:
    """queue.unbind, the one binding method without a nowait bit."""
    names = shortstr(queue) + shortstr(exchange) + shortstr(routing_key)
    return Method(50, 50, TICKET + names + arguments)


def queue_purge(queue: str, *, nowait: bool = False) -> Method:
    """queue.purge."""
    return Method(50, 30, TICKET + shortstr(queue) + bits(nowait))


def queue_delete(
    queue: str, *, if_unused: bool = False, if_empty: bool = False, nowait: bool = False
) -> Method:
    """queue.delete."""
    return Method(50, 40, TICKET + shortstr(queue) + bits(if_unused, if_empty, nowait))


def basic_qos(*, prefetch_size: int = 0, prefetch_count: int = 0, shared: bool = False) -> Method:
    """basic.qos; `shared` is the bit named global."""
    return Method(60, 10, struct.pack(">IH", prefetch_size, prefetch_count) + bits(shared))


def basic_consume(
    queue: str,
    consumer_tag: str = "",
    *,
    no_local: bool = False,
    no_ack: bool = False,
    exclusive: bool = False,
    nowait: bool = False,
    arguments: bytes = NO_ARGUMENTS,
) -> Method:
    """basic.consume."""
    flags = bits(no_local, no_ack, exclusive, nowait)
    return Method(60, 20, TICKET + shortstr(queue) + shortstr(consumer_tag) + flags + arguments)


def basic_cancel(consumer_tag: str, *, nowait: bool = False) -> Method:
    """basic.cancel."""
    return Method(60, 30, shortstr(consumer_tag) + bits(nowait))


def basic_publish(
    exchange: str = "", routing_key: str = "", *, mandatory: bool = False, immediate: bool = False
) -> Method:
    """basic.publish; its content header and body follow in frames of their own."""
    names = shortstr(exchange) + shortstr(routing_key)
    return Method(60, 40, TICKET + names + bits(mandatory, immediate))


def basic_get(queue: str, *, no_ack: bool = False) -> Method:
    """basic.get."""
    return Method(60, 70, TICKET + shortstr(queue) + bits(no_ack))


def basic_ack(delivery_tag: int, *, multiple: bool = False) -> Method:
    """basic.ack."""
    return Method(60, 80, struct.pack(">Q", delivery_tag) + bits(multiple))


def basic_reject(delivery_tag: int, *, requeue: bool = False) -> Method:
    """basic.reject."""
    return Method(60, 90, struct.pack(">Q", delivery_tag) + bits(requeue))


def basic_nack(delivery_tag: int, *, multiple: bool = False, requeue: bool = False) -> Method:
    """basic.nack."""
    return Method(60, 120, struct.pack(">Q", delivery_tag) + bits(multiple, requeue))


def basic_recover(*, requeue: bool) -> Method:
    """basic.recover."""
    return Method(60, 110, bits(requeue))


def basic_recover_async(*, requeue: bool) -> Method:
    """basic.recover-async, which has no reply."""
    return Method(60, 100, bits(requeue))


def confirm_select(*, nowait: bool = False) -> Method:
    """confirm.select."""
    return Method(85, 10, bits(nowait))


TX_SELECT: Final = Method(90, 10)
TX_COMMIT: Final = Method(90, 20)
TX_ROLLBACK: Final = Method(90, 30)
CONNECTION_CLOSE_OK: Final = Method(10, 51)
CHANNEL_CLOSE_OK: Final = Method(20, 41)


class Properties(NamedTuple):
    """A content header's flags word and the encoded properties it announces."""

    flags: int = 0
    values: bytes = b""

    @property
    def encoded(self) -> bytes:
        """The bytes that follow the body size in a content header."""
        return struct.pack(">H", self.flags) + self.values


NO_PROPERTIES: Final = Properties()

# The properties in the order of their flags, highest bit first; the type is shortstr unless named.
PROPERTY_NAMES: Final = (
    "content_type", "content_encoding", "headers", "delivery_mode", "priority", "correlation_id",
    "reply_to", "expiration", "message_id", "timestamp", "type", "user_id", "app_id", "cluster_id",
)  # fmt: skip


def properties(**values: Any) -> Properties:
    """Content properties by name; `headers` is a table already encoded by `table`."""
    unknown = values.keys() - set(PROPERTY_NAMES)
    if unknown:
        raise ValueError(f"unknown properties: {sorted(unknown)}")
    flags = 0
    encoded: list[bytes] = []
    for position, name in enumerate(PROPERTY_NAMES):
        if name not in values:
            continue
        flags |= 1 << (15 - position)
        value = values[name]
        if name == "headers":
            encoded.append(value)
        elif name in ("delivery_mode", "priority"):
            encoded.append(struct.pack(">B", value))
        elif name == "timestamp":
            encoded.append(struct.pack(">Q", value))
        else:
            encoded.append(shortstr(value))
    return Properties(flags, b"".join(encoded))


def content_header(
    body_size: int, content: Properties = NO_PROPERTIES, *, class_id: int = 60, weight: int = 0
) -> bytes:
    """The payload of a content header frame."""
    return struct.pack(">HHQ", class_id, weight, body_size) + content.encoded


def frame(frame_type: int, channel: int, payload: bytes) -> bytes:
    """A whole frame: type, channel, size, payload and end octet."""
    return struct.pack(">BHI", frame_type, channel, len(payload)) + payload + b"\xce"


def frames(channel: int, methods: Sequence[Method]) -> bytes:
    """Several method frames of one channel back to back."""
    return b"".join(frame(1, channel, method.payload) for method in methods)
