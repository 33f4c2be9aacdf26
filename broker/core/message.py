"""A message, kept as the bytes it came as.

Theory. A broker forwards messages; it does not read them. So `address`, the header and the body
stay slices of what the publisher sent, and a delivery is concatenation:

- `address` is *exchange shortstr + routing-key shortstr*. The two lie side by side in basic.publish
  and in the same form in basic.deliver, basic.return and basic.get-ok.
- `header_frame` and `body_frame` are in *frame form*: the u32 length, the payload and the end
  octet, that is, a frame without its type and channel. Those three octets are all that differs
  between the connection a frame came from and the one it leaves by. A body that came in several
  frames is joined once into the same form; a body of no octets has no frame at all (`b""`).

A few properties decide what the broker does. They are found by stepping over the property list
(`peek_properties`), never by decoding it; every step is checked against the end, and a headers
table is walked once for structure, so that a malformed table can never reach a consumer.
"""

from typing import Final

from broker.core.table import check_table

FRAME_END: Final = 0xCE
#: Octets of the frame form around a payload.
FRAME_OVERHEAD: Final = 5

# Where things lie in a header in frame form: u32 length, u16 class, u16 weight, u64 body size, u16
# flags, then the properties in the order of their flags (standard, section 2.3.5.2).
FLAGS_AT: Final = 16
PROPERTIES_AT: Final = 18

CONTENT_TYPE: Final = 1 << 15
CONTENT_ENCODING: Final = 1 << 14
HEADERS: Final = 1 << 13
DELIVERY_MODE: Final = 1 << 12
PRIORITY: Final = 1 << 11
CORRELATION_ID: Final = 1 << 10
REPLY_TO: Final = 1 << 9
EXPIRATION: Final = 1 << 8
MESSAGE_ID: Final = 1 << 7
TIMESTAMP: Final = 1 << 6
TYPE: Final = 1 << 5
USER_ID: Final = 1 << 4
APP_ID: Final = 1 << 3
CLUSTER_ID: Final = 1 << 2

#: Properties that the broker acts on; a header without any of them needs no second look.
ACTED_ON: Final = HEADERS | PRIORITY | REPLY_TO | EXPIRATION | USER_ID
#: Every property behind priority: most messages have few of them.
_AFTER_PRIORITY: Final = 0x07FC

PERSISTENT: Final = 2

#: No message is larger, whatever the settings say (RabbitMQ's own limit).
MESSAGE_BYTES_HARD_MAX: Final = 536_870_912


class MalformedHeader(ValueError):
    """A content header whose properties do not add up."""


class Properties:
    """What a peek found: the few properties the broker acts on.

    `headers_start` and `headers_end` span the inside of the headers table in the header frame, and
    `reply_to_start`, `reply_to_end` the reply-to with its length octet; zero when absent.
    """

    __slots__ = (
        "delivery_mode",
        "expiration",
        "headers_end",
        "headers_start",
        "priority",
        "reply_to",
        "reply_to_end",
        "reply_to_start",
        "user_id",
    )

    def __init__(self) -> None:
        self.delivery_mode = 0
        self.priority = 0
        self.headers_start = 0
        self.headers_end = 0
        self.reply_to: bytes | None = None
        self.reply_to_start = 0
        self.reply_to_end = 0
        self.expiration: bytes | None = None
        self.user_id: bytes | None = None


def _shortstr_end(frame: bytes, position: int, end: int) -> int:
    """Where the shortstr at `position` ends; raises MalformedHeader when that is behind `end`."""
    if position >= end:
        raise MalformedHeader("a property runs past the end of the header")
    after = position + 1 + frame[position]
    if after > end:
        raise MalformedHeader("a property runs past the end of the header")
    return after


def peek_properties(
    header_frame: bytes, flags: int, table_depth_max: int, table_fields_max: int
) -> Properties:
    """Step over the whole property list once and take what the broker acts on.

    Arguments:
        header_frame: the content header in frame form.
        flags: its property flags.
        table_depth_max, table_fields_max: limits of the headers table.

    Raises MalformedHeader or `broker.core.table.TableError`, or IndexError when it ends early.
    """
    found = Properties()
    frame = header_frame
    end = len(frame) - 1
    at = PROPERTIES_AT
    if flags & CONTENT_TYPE:
        at = _shortstr_end(frame, at, end)
    if flags & CONTENT_ENCODING:
        at = _shortstr_end(frame, at, end)
    if flags & HEADERS:
        start = at + 4
        at = start + int.from_bytes(frame[at:start], "big")
        if at > end:
            raise MalformedHeader("the headers table runs past the end of the header")
        check_table(frame, start, at, table_depth_max, table_fields_max)
        found.headers_start = start
        found.headers_end = at
    if flags & DELIVERY_MODE:
        found.delivery_mode = frame[at]
        at += 1
    if flags & PRIORITY:
        found.priority = frame[at]
        at += 1
    if flags & _AFTER_PRIORITY:
        at = _peek_later(found, frame, flags, at, end)
    if at != end:
        raise MalformedHeader("the properties do not end where the header does")
    return found


def _peek_later(found: Properties, frame: bytes, flags: int, at: int, end: int) -> int:
    """The properties after priority; returns where they end."""
    if flags & CORRELATION_ID:
        at = _shortstr_end(frame, at, end)
    if flags & REPLY_TO:
        found.reply_to_start = at
        at = found.reply_to_end = _shortstr_end(frame, at, end)
        found.reply_to = frame[found.reply_to_start + 1 : at]
    if flags & EXPIRATION:
        start = at + 1
        at = _shortstr_end(frame, at, end)
        found.expiration = frame[start:at]
    if flags & MESSAGE_ID:
        at = _shortstr_end(frame, at, end)
    if flags & TIMESTAMP:
        at += 8
    if flags & TYPE:
        at = _shortstr_end(frame, at, end)
    if flags & USER_ID:
        start = at + 1
        at = _shortstr_end(frame, at, end)
        found.user_id = frame[start:at]
    if flags & APP_ID:
        at = _shortstr_end(frame, at, end)
    if flags & CLUSTER_ID:
        at = _shortstr_end(frame, at, end)
    return at


def frame_form(payload: bytes) -> bytes:
    """`payload` as a frame without its type and channel: u32 length, payload, end octet."""
    return len(payload).to_bytes(4, "big") + payload + b"\xce"


class Message:
    """A message on its way through the broker; shared by every queue that holds it."""

    __slots__ = (
        "address",
        "body_frame",
        "body_size",
        "header_frame",
        "holders",
        "message_id",
        "persistent",
        "position",
        "priority",
        "published_ms",
        "time_to_live_ms",
    )

    def __init__(
        self,
        address: bytes,
        header_frame: bytes,
        body_frame: bytes,
        body_size: int,
        persistent: bool,
        priority: int = 0,
        time_to_live_ms: int = -1,
    ) -> None:
        #: exchange shortstr + routing-key shortstr, as published
        self.address = address
        #: content header in frame form
        self.header_frame = header_frame
        #: the whole body in frame form, however many frames it came in; b"" for a body of no octets
        self.body_frame = body_frame
        #: octets of the body
        self.body_size = body_size
        #: delivery-mode 2
        self.persistent = persistent
        self.priority = priority
        #: the `expiration` property in milliseconds; -1 when there is none
        self.time_to_live_ms = time_to_live_ms
        #: increasing over the node; given when the message is accepted
        self.message_id = 0
        #: when it was accepted; 0 for a message that no store keeps
        self.published_ms = 0
        #: where the store has it
        self.position = 0
        #: how many durable queues still hold it, counted only once the store knows it
        self.holders = 0

    @property
    def exchange(self) -> str:
        """The exchange it was published to, for people."""
        return self.address[1 : 1 + self.address[0]].decode()

    @property
    def routing_key(self) -> str:
        """The routing key it was published with, for people."""
        return self.address[2 + self.address[0] :].decode()

    @property
    def header(self) -> bytes:
        """The payload of the content header."""
        return self.header_frame[4:-1]

    @property
    def body(self) -> bytes:
        """The octets of the body."""
        return self.body_frame[4:-1]
