"""The few times a header must be edited: everything here is off the hot path.

What is not edited keeps its bytes, type tags and order; RabbitMQ re-encodes whole headers in the
same places, and clients see no difference but for integers sent as `L`.
"""

from broker.core.message import FLAGS_AT, HEADERS, Properties
from broker.core.table import Field, Table
from broker.errors import PreconditionFailed


def headers_table(header_frame: bytes, found: Properties) -> Table:
    """The headers of a checked header; empty when it has none."""
    return Table.trusted(header_frame[found.headers_start : found.headers_end])


def extra_routing_keys(headers: Table, name: str) -> list[bytes]:
    """The routing keys in a CC or BCC header; elements that are not strings are ignored.

    Raises PreconditionFailed in RabbitMQ's words when the header is not an array.
    """
    field = headers.get(name)
    if field is None:
        return []
    if field.tag != "A" or not isinstance(field.value, tuple):
        raise PreconditionFailed(
            f'invalid message: {{unacceptable_type_in_header,"{name}",{field.type_name}}}'
        )
    keys: list[bytes] = []
    for element in field.value:
        if isinstance(element, Field) and element.tag == "S" and isinstance(element.value, bytes):
            keys.append(element.value)
    return keys


def without_header(header_frame: bytes, found: Properties, name: str) -> bytes:
    """The header in frame form with one entry of its headers removed."""
    headers = headers_table(header_frame, found)
    kept = Table.encode([item for item in headers.items() if item[0] != name])
    return _spliced(header_frame, found.headers_start - 4, found.headers_end, _longstr(kept.raw))


def with_reply_to(header_frame: bytes, found: Properties, reply_to: str) -> bytes:
    """The header in frame form with another reply-to."""
    value = reply_to.encode()
    return _spliced(
        header_frame, found.reply_to_start, found.reply_to_end, bytes((len(value),)) + value
    )


def message_headers(header_frame: bytes) -> bytes:
    """The inside of the headers table of a checked header; empty when it has none."""
    flags = int.from_bytes(header_frame[FLAGS_AT : FLAGS_AT + 2], "big")
    if not flags & HEADERS:
        return b""
    position = FLAGS_AT + 2
    for flag in (1 << 15, 1 << 14):
        if flags & flag:
            position += 1 + header_frame[position]
    length = int.from_bytes(header_frame[position : position + 4], "big")
    return header_frame[position + 4 : position + 4 + length]


def _longstr(value: bytes) -> bytes:
    return len(value).to_bytes(4, "big") + value


def _spliced(header_frame: bytes, start: int, end: int, replacement: bytes) -> bytes:
    payload = header_frame[4:start] + replacement + header_frame[end:-1]
    return _longstr(payload) + b"\xce"
