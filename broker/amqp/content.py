"""Contents: a basic.publish with its header and bodies, frame by frame.

Only what `Connection` cannot take at once comes this way: the first publish of its kind, one whose
frames have not all arrived, one without a body or with a body in several frames, and anything
irregular.
"""

from typing import TYPE_CHECKING

from pamqp import commands

from broker.amqp import methods
from broker.amqp.frames import BODY, CONTENT_HEAD, HEADER, OVERHEAD
from broker.core.message import MESSAGE_BYTES_HARD_MAX
from broker.core.routing import Route
from broker.errors import FrameError, UnexpectedFrame

if TYPE_CHECKING:
    from broker.amqp.channel import Channel

#: Where the address begins in a basic.publish frame: behind the head, the ids and the ticket.
_ADDRESS_AT = 13


class Publish:
    """A basic.publish as it was parsed: what stays the same while a publisher repeats it."""

    __slots__ = ("channel", "immediate", "mandatory", "route")

    def __init__(self, channel: "Channel", route: Route, mandatory: bool, immediate: bool) -> None:
        self.channel = channel
        self.route = route
        self.mandatory = mandatory
        self.immediate = immediate


class Content:
    """A publish whose header and bodies are still arriving."""

    __slots__ = ("body_size", "flags", "header_frame", "missing", "parts", "publish")

    def __init__(self, publish: Publish) -> None:
        self.publish = publish
        #: b"" until the header has come
        self.header_frame = b""
        self.flags = 0
        self.body_size = 0
        #: octets of the body that have not come
        self.missing = 0
        #: None when the body is too large to be kept and only counted off
        self.parts: list[bytes] | None = []

    def receive_header(self, kind: int, frame: bytes) -> None:
        """Take the header; raises UnexpectedFrame or FrameError in RabbitMQ's words."""
        if kind != HEADER:
            raise UnexpectedFrame(
                "expected content header for class 60, got non content header frame instead"
            )
        class_id, weight, body_size, flags = CONTENT_HEAD.unpack_from(frame)[3:]
        if class_id != 60:
            raise UnexpectedFrame(
                f"expected content header for class 60, got one for class {class_id} instead"
            )
        if weight:
            raise UnexpectedFrame(
                "expected content header for class 60, got non content header frame instead"
            )
        if body_size > MESSAGE_BYTES_HARD_MAX:
            raise FrameError(
                f"content body size {body_size} exceeds maximum allowed size "
                f"{MESSAGE_BYTES_HARD_MAX}"
            )
        self.header_frame = frame[3:]
        self.flags = flags
        self.body_size = self.missing = body_size

    def receive_body(self, kind: int, frame: bytes) -> None:
        """Take a part of the body; raises UnexpectedFrame or FrameError."""
        if kind != BODY:
            raise UnexpectedFrame("expected content body, got non content body frame instead")
        size = len(frame) - OVERHEAD
        if size > self.missing:
            raise FrameError("content body frame exceeds remaining content size")
        self.missing -= size
        if self.parts is not None and size:
            self.parts.append(frame[3:] if size == self.body_size else frame[7:-1])

    def body_frame(self) -> bytes:
        """The whole body in frame form, joined if it came in parts."""
        if not self.parts:
            return b""
        if len(self.parts) == 1:
            return self.parts[0]
        return b"".join((self.body_size.to_bytes(4, "big"), *self.parts, b"\xce"))


def parse_publish(channel: "Channel", frame: bytes, limits: methods.TableLimits) -> Publish:
    """What a basic.publish frame says; raises FrameError when it does not add up."""
    method = methods.decode(frame[7:-1], limits)
    assert isinstance(method, commands.Basic.Publish), "called for that method"
    # The address is kept as it came: exchange and routing key with their length octets.
    key_at = _ADDRESS_AT + 1 + frame[_ADDRESS_AT]
    address = frame[_ADDRESS_AT : key_at + 1 + frame[key_at]]
    return Publish(channel, Route(address), bool(method.mandatory), bool(method.immediate))
