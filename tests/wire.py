"""An AMQP client that speaks bytes, for tests that must see, and choose, every one of them.

`WireClient` is a blocking socket with a timeout on every read. Nothing happens behind its back: the
handshake is a method per step, a close is answered only when the test says so, and frames come out
in the order the broker wrote them. `expect` therefore also asserts that *nothing else* came first.

Requests are built by `wire_methods` or by pamqp; replies are decoded by pamqp.
"""

import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Generic, NamedTuple, Self, TypeVar

from pamqp import base, commands, exceptions
from pamqp import frame as pamqp_frame
from wire_methods import (
    CHANNEL_CLOSE_OK,
    CONNECTION_CLOSE_OK,
    NO_PROPERTIES,
    Method,
    Properties,
    basic_get,
    basic_publish,
    channel_close,
    channel_open,
    confirm_select,
    connection_close,
    connection_open,
    connection_start_ok,
    connection_tune_ok,
    content_header,
    frame,
    queue_declare,
    table_content,
)

FRAME_METHOD: Final = 1
FRAME_HEADER: Final = 2
FRAME_BODY: Final = 3
FRAME_HEARTBEAT: Final = 8

PROTOCOL_HEADER: Final = b"AMQP\x00\x00\x09\x01"

# A frame's type, channel, size and end octet.
FRAME_OVERHEAD: Final = 8

REPLY_NAMES: Final = {
    311: "CONTENT_TOO_LARGE",
    320: "CONNECTION_FORCED",
    403: "ACCESS_REFUSED",
    404: "NOT_FOUND",
    405: "RESOURCE_LOCKED",
    406: "PRECONDITION_FAILED",
    501: "FRAME_ERROR",
    502: "SYNTAX_ERROR",
    503: "COMMAND_INVALID",
    504: "CHANNEL_ERROR",
    505: "UNEXPECTED_FRAME",
    506: "RESOURCE_ERROR",
    530: "NOT_ALLOWED",
    540: "NOT_IMPLEMENTED",
    541: "INTERNAL_ERROR",
}

# Every capability that changes what the broker sends to this client.
CAPABILITIES: Final = (
    "authentication_failure_close",
    "consumer_cancel_notify",
    "connection.blocked",
)

PLAIN_GUEST: Final = b"\x00guest\x00guest"
AMQPLAIN_GUEST: Final = table_content(("LOGIN", "S", "guest"), ("PASSWORD", "S", "guest"))

Command = TypeVar("Command", bound=base.Frame)


class ConnectionEnded(AssertionError):
    """The broker closed the socket where a test waited for bytes."""


class Frame(NamedTuple):
    """One frame as it came."""

    type: int
    channel: int
    payload: bytes

    def __str__(self) -> str:
        if self.type == FRAME_METHOD:
            try:
                command = decode_method(self.payload)
            except exceptions.UnmarshalingException:
                return f"undecodable method on channel {self.channel}: {self.payload!r}"
            values = ", ".join(f"{name}={value!r}" for name, value in command)
            return f"{command.name}({values}) on channel {self.channel}"
        return f"frame of type {self.type} on channel {self.channel}: {self.payload[:64]!r}"


@dataclass(frozen=True)
class Content(Generic[Command]):
    """A method with the content that followed it."""

    method: Command
    header: bytes
    body_frames: tuple[bytes, ...]

    @property
    def body(self) -> bytes:
        """The whole body, whatever frames it came in."""
        return b"".join(self.body_frames)

    @property
    def properties(self) -> bytes:
        """The flags word and the property list, as they came."""
        return self.header[12:]


def decode_method(payload: bytes) -> base.Frame:
    """Decode a method frame's payload, whatever method it is."""
    _, _, command = pamqp_frame.unmarshal(frame(FRAME_METHOD, 0, payload))
    assert isinstance(command, base.Frame)
    return command


def reply_text(code: int, explanation: str) -> str:
    """A close's reply text: name and explanation, cut to 255 characters as RabbitMQ cuts it."""
    text = f"{REPLY_NAMES[code]} - {explanation}"
    return text if len(text) <= 255 else text[:252] + "..."


class WireClient:
    """One TCP connection to a broker, driven frame by frame.

    `timeout` (seconds) bounds every wait for the broker.
    """

    def __init__(self, host: str, port: int, timeout: float = 5.0) -> None:
        self.timeout = timeout
        self.channel_max = 0
        self.frame_max = 0
        self.heartbeat = 0
        self._buffer = b""
        self._socket = socket.create_connection((host, port), timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.disconnect()

    def disconnect(self) -> None:
        """Close the socket without a word."""
        self._socket.close()

    # Sending

    def send(self, octets: bytes) -> None:
        """Write bytes as they are."""
        self._socket.sendall(octets)

    def send_frame(self, frame_type: int, channel: int, payload: bytes) -> None:
        """Write one frame, well formed but otherwise as absurd as the test wants it."""
        self.send(frame(frame_type, channel, payload))

    def send_method(self, channel: int, method: Method | base.Frame) -> None:
        """Write one method frame."""
        if isinstance(method, Method):
            self.send_frame(FRAME_METHOD, channel, method.payload)
        else:
            self.send(pamqp_frame.marshal(method, channel))

    def send_raw_method(
        self, channel: int, class_id: int, method_id: int, arguments: bytes = b""
    ) -> None:
        """Write one method frame with arguments that need not fit the method."""
        self.send_method(channel, Method(class_id, method_id, arguments))

    def publish(
        self,
        channel: int,
        exchange: str,
        routing_key: str,
        content: Properties = NO_PROPERTIES,
        body: bytes = b"",
        *,
        mandatory: bool = False,
        immediate: bool = False,
    ) -> None:
        """Write a basic.publish with its header, and its body in as many frames as it needs."""
        method = basic_publish(exchange, routing_key, mandatory=mandatory, immediate=immediate)
        self.send(self.encode_content(channel, method, content, body))

    def encode_content(
        self,
        channel: int,
        method: Method,
        content: Properties = NO_PROPERTIES,
        body: bytes = b"",
    ) -> bytes:
        """The frames of a method with content, split at the frame size agreed on."""
        size = (self.frame_max or len(body) + FRAME_OVERHEAD) - FRAME_OVERHEAD
        parts = [
            frame(FRAME_METHOD, channel, method.payload),
            frame(FRAME_HEADER, channel, content_header(len(body), content)),
        ]
        for start in range(0, len(body), max(size, 1)):
            parts.append(frame(FRAME_BODY, channel, body[start : start + size]))
        return b"".join(parts)

    # Reading

    def read_exactly(self, size: int, timeout: float | None = None) -> bytes:
        """The next `size` bytes, or `ConnectionEnded`; a silent broker fails the test."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while len(self._buffer) < size:
            received = self._receive(deadline)
            if not received:
                raise ConnectionEnded(f"the broker closed the connection; unread {self._buffer!r}")
            self._buffer += received
        octets, self._buffer = self._buffer[:size], self._buffer[size:]
        return octets

    def _receive(self, deadline: float) -> bytes:
        """Whatever bytes come before `deadline`; none when the connection has ended."""
        self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            return self._socket.recv(65536)
        except ConnectionError:
            return b""
        except TimeoutError:
            raise AssertionError("the broker sent nothing in time") from None
        finally:
            self._socket.settimeout(self.timeout)

    def read_any_frame(self, timeout: float | None = None) -> Frame:
        """The next frame, be it a heartbeat."""
        frame_type, channel, size = struct.unpack(">BHI", self.read_exactly(7, timeout))
        payload = self.read_exactly(size + 1, timeout)
        assert payload[-1:] == b"\xce", f"frame without its end octet: {payload[-1:]!r}"
        return Frame(frame_type, channel, payload[:-1])

    def read_frame(self, timeout: float | None = None) -> Frame:
        """The next frame that is not a heartbeat."""
        while True:
            received = self.read_any_frame(timeout)
            if received.type != FRAME_HEARTBEAT:
                return received

    def expect(self, channel: int, expected: type[Command]) -> Command:
        """Assert that the next frame is this method on this channel, and return it decoded."""
        received = self.read_frame()
        assert received.type == FRAME_METHOD and received.channel == channel, (
            f"expected {expected.name} on channel {channel}, got {received}"
        )
        command = decode_method(received.payload)
        assert isinstance(command, expected), f"expected {expected.name}, got {received}"
        return command

    def expect_content(self, channel: int, expected: type[Command]) -> Content[Command]:
        """Assert that a method with content comes next, its frames in one piece, and return it."""
        method = self.expect(channel, expected)
        header = self.read_frame()
        assert (header.type, header.channel) == (FRAME_HEADER, channel), str(header)
        class_id, weight, size = struct.unpack_from(">HHQ", header.payload)
        assert (class_id, weight) == (60, 0)
        body_frames: list[bytes] = []
        while sum(map(len, body_frames)) < size:
            body = self.read_frame()
            assert (body.type, body.channel) == (FRAME_BODY, channel), str(body)
            body_frames.append(body.payload)
        assert sum(map(len, body_frames)) == size
        return Content(method, header.payload, tuple(body_frames))

    def expect_channel_close(
        self, channel: int, code: int, text: str, class_id: int, method_id: int
    ) -> None:
        """Assert that the broker closes the channel in exactly these words.

        `text` is the explanation, without the name of the code before it.
        """
        close = self.expect(channel, commands.Channel.Close)
        _check_close(close, code, text, class_id, method_id)

    def expect_connection_close(
        self, code: int, text: str, class_id: int = 0, method_id: int = 0
    ) -> None:
        """Assert that the broker closes the connection in exactly these words."""
        close = self.expect(0, commands.Connection.Close)
        _check_close(close, code, text, class_id, method_id)

    def expect_eof(self, timeout: float | None = None) -> float:
        """Assert that the broker ends the connection without another frame.

        A reset counts as an end, and a heartbeat is not counted as a frame. Returns the seconds
        it took.
        """
        started = time.monotonic()
        deadline = started + (self.timeout if timeout is None else timeout)
        while True:
            received = self._receive(deadline)
            if not received:
                break
            self._buffer += received
        while self._buffer:
            assert self.read_any_frame().type == FRAME_HEARTBEAT, "a frame before the end"
        return time.monotonic() - started

    # The handshake, step by step

    def send_protocol_header(self, header: bytes = PROTOCOL_HEADER) -> None:
        """Open the conversation."""
        self.send(header)

    def start_ok(
        self,
        mechanism: str = "PLAIN",
        response: bytes = PLAIN_GUEST,
        *,
        capabilities: Sequence[str] = CAPABILITIES,
        client_properties: Sequence[tuple[str, str, Any]] = (),
    ) -> None:
        """Answer connection.start."""
        start_ok = connection_start_ok(
            mechanism, response, capabilities=capabilities, client_properties=client_properties
        )
        self.send_method(0, start_ok)

    def tune_ok(self, channel_max: int, frame_max: int, heartbeat: int) -> None:
        """Answer connection.tune."""
        self.channel_max = channel_max
        self.frame_max = frame_max
        self.heartbeat = heartbeat
        self.send_method(0, connection_tune_ok(channel_max, frame_max, heartbeat))

    def handshake(
        self,
        *,
        vhost: str = "/",
        capabilities: Sequence[str] = CAPABILITIES,
        channel_max: int | None = None,
        frame_max: int | None = None,
        heartbeat: int = 0,
    ) -> Self:
        """All of it, as guest; limits left out are those the broker offers."""
        self.log_in(capabilities=capabilities)
        tune = self.expect(0, commands.Connection.Tune)
        self.tune_ok(
            tune.channel_max if channel_max is None else channel_max,
            tune.frame_max if frame_max is None else frame_max,
            heartbeat,
        )
        self.send_method(0, connection_open(vhost))
        self.expect(0, commands.Connection.OpenOk)
        return self

    def log_in(self, *, capabilities: Sequence[str] = CAPABILITIES) -> None:
        """The handshake as far as start-ok: connection.tune comes next."""
        self.send_protocol_header()
        self.expect(0, commands.Connection.Start)
        self.start_ok(capabilities=capabilities)

    # What nearly every test does

    def open_channel(self, channel: int = 1) -> None:
        """Open a channel."""
        self.send_method(channel, channel_open())
        self.expect(channel, commands.Channel.OpenOk)

    def close_channel(self, channel: int = 1) -> None:
        """Close a channel."""
        self.send_method(channel, channel_close())
        self.expect(channel, commands.Channel.CloseOk)

    def close(self) -> None:
        """Close the connection as a polite client does."""
        self.send_method(0, connection_close())
        self.expect(0, commands.Connection.CloseOk)
        self.disconnect()

    def declare_queue(self, channel: int = 1, *, exclusive: bool = True) -> str:
        """Declare a queue and return the name the broker gave it."""
        declared = self.call(channel, queue_declare("", exclusive=exclusive))
        assert isinstance(declared, commands.Queue.DeclareOk)
        return str(declared.queue)

    def fill(self, queue: str, *bodies: bytes) -> None:
        """Publish to a queue on a channel of its own, and wait until it holds the messages."""
        channel = 65535
        self.open_channel(channel)
        self.call(channel, confirm_select())
        for body in bodies:
            self.publish(channel, "", queue, body=body)
        while self.expect(channel, commands.Basic.Ack).delivery_tag != len(bodies):
            pass
        self.close_channel(channel)

    def channel_close_ok(self, channel: int = 1) -> None:
        """Answer the broker's channel.close."""
        self.send_method(channel, CHANNEL_CLOSE_OK)

    def connection_close_ok(self) -> None:
        """Answer the broker's connection.close."""
        self.send_method(0, CONNECTION_CLOSE_OK)

    def call(self, channel: int, method: Method) -> base.Frame:
        """Send a method and read its reply; get-empty is a reply to basic.get."""
        self.send_method(channel, method)
        received = self.read_frame()
        replies = _reply_ids(method)
        assert received.type == FRAME_METHOD and received.channel == channel, str(received)
        assert struct.unpack_from(">HH", received.payload) in replies, str(received)
        return decode_method(received.payload)

    def get(
        self, channel: int, queue: str, *, no_ack: bool = False
    ) -> Content[commands.Basic.GetOk]:
        """Fetch one message with basic.get; there must be one."""
        self.send_method(channel, basic_get(queue, no_ack=no_ack))
        return self.expect_content(channel, commands.Basic.GetOk)


def _check_close(
    close: commands.Channel.Close | commands.Connection.Close,
    code: int,
    text: str,
    class_id: int,
    method_id: int,
) -> None:
    expected = (code, reply_text(code, text), class_id, method_id)
    received = (close.reply_code, close.reply_text, close.class_id, close.method_id)
    assert received == expected, f"expected {expected}, got {received}"


def _reply_ids(method: Method) -> tuple[tuple[int, int], ...]:
    """Ids of the methods that may answer `method`."""
    class_id, method_id = method.ids
    if method.ids == (40, 40):
        return ((40, 51),)  # exchange.unbind-ok has an id of its own making
    if method.ids == (60, 70):
        return ((60, 71), (60, 72))
    return ((class_id, method_id + 1),)
