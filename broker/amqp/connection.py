"""A connection: bytes in, bytes out, and the channels between.

Theory. `receive_data` splits what arrived into frames and handles each to the end; whatever is to
be sent gathers in `out` until the turn of the loop ends and the wire takes it. The session never
waits, reads no clock but the one it was given, and owns no timer: `deadline_ms` says when it wants
`expire`.

Three kinds of frames carry the load, and they are handled in the loop itself: a publish whose
method frame was seen before (publishers repeat themselves, so the whole frame is the key to what it
means) with the header and the body behind it, and acknowledgements. Everything else goes frame by
frame through `_receive_frame`; so does every publish that is not plain, or has not arrived whole,
or is wrong.

Input is bounded: past `input_work_per_turn` the rest waits for the next turn and the wire stops
reading, so one busy connection cannot starve the others. Output is bounded: past
`write_buffer_high_bytes` the channels accept no deliveries, past `write_buffer_bytes_max` nothing
more is read.

Under an alarm only publishing stops: the channel that publishes is *parked* with its frames from
there on, in order, and they are fed again when the alarm clears. Other channels, heartbeats and the
connection's own methods go on, until `blocked_input_bytes_max` is held.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Final

from pamqp import base, commands

from broker.amqp import handshake, methods
from broker.amqp.channel import Channel, Content, Publish
from broker.amqp.dispatch import HANDLERS
from broker.amqp.frames import (
    BODY,
    CONTENT_HEAD,
    CONTENT_HEADER_BYTES_MIN,
    FRAME_END,
    FRAME_HEAD,
    HEADER,
    HEARTBEAT,
    HEARTBEAT_FRAME,
    METHOD,
    OVERHEAD,
    SETTLEMENT,
    SETTLEMENT_BYTES,
    octets,
)
from broker.amqp.heartbeat import Heartbeat
from broker.amqp.journal import Journal
from broker.amqp.limits import Limits
from broker.amqp.state import STATE_NAMES, State
from broker.auth import Authenticator, User
from broker.core.message import MESSAGE_BYTES_HARD_MAX
from broker.core.node import Node
from broker.core.routing import Route
from broker.core.table import Table
from broker.core.transaction import Settlement
from broker.core.turn import Session
from broker.core.vhost import VirtualHost
from broker.errors import (
    AMQPError,
    ChannelError,
    ChannelException,
    CommandInvalid,
    ConnectionForced,
    FrameError,
    InternalError,
    NotAllowed,
    UnexpectedFrame,
)

_PUBLISH: Final = commands.Basic.Publish.index
_ACK: Final = commands.Basic.Ack.index
_CHANNEL_OPEN: Final = commands.Channel.Open.index
_CHANNEL_CLOSE: Final = commands.Channel.Close.index
_CHANNEL_CLOSE_OK: Final = commands.Channel.CloseOk.index

#: How many different basic.publish frames of a connection are remembered.
PUBLISHES_MAX: Final = 1024

#: How long a closed connection waits for its client when there is no heartbeat, in milliseconds.
_CLOSED_TIMEOUT_MS: Final = 30_000


class Wire(ABC):
    """What carries a session's bytes: a socket, or a test."""

    __slots__ = ()

    @abstractmethod
    def flush(self) -> None:
        """Take the session's output and heed its state: `reading`, `finished`, `deadline_ms`."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end."""

    #: `host:port -> host:port`
    name: str
    host: str
    port: int
    #: whether it is on this machine
    is_loopback: bool


@dataclass(frozen=True, slots=True)
class Announcement:
    """What a server says of itself in connection.start."""

    product: str
    version: str
    platform: str
    cluster_name: str
    copyright: str
    information: str


class Connection(Session):
    """One AMQP connection.

    Arguments:
        limits: what it allows its client.
        authenticator: decides about the login.
    """

    __slots__ = (
        "_blocked_sent",
        "_held_bytes",
        "_needed",
        "_opened",
        "_parked",
        "_paused",
        "_pending",
        "_promising",
        "_publishes",
        "_saturated_until_ms",
        "alarmed",
        "announcement",
        "authenticator",
        "awaits_store",
        "capabilities",
        "channel_max",
        "channels",
        "client_properties",
        "congested",
        "connected_at_ms",
        "deadline_ms",
        "finished",
        "frame_octets_max",
        "heartbeat",
        "journal",
        "limits",
        "mechanism",
        "node",
        "noted_input",
        "noted_output",
        "out",
        "out_bytes",
        "out_bytes_high",
        "peer",
        "received_octets",
        "saturated",
        "sent_octets",
        "state",
        "state_deadline_ms",
        "store",
        "table_limits",
        "turn",
        "user",
        "vhost",
        "wire",
        "work",
    )

    user: User
    vhost: VirtualHost

    def __init__(
        self,
        node: Node,
        wire: Wire,
        peer: Peer,
        limits: Limits,
        authenticator: Authenticator,
        announcement: Announcement,
    ) -> None:
        self.node = node
        self.turn = node.turn
        self.store = node.store
        self.wire = wire
        self.peer = peer
        self.limits = limits
        self.table_limits = methods.TableLimits(limits.header_depth_max, limits.header_fields_max)
        self.authenticator = authenticator
        self.announcement = announcement
        self.journal = Journal(f"<0.{node.ids.next_session_id()}.0>", peer.name)
        self.connected_at_ms = node.clock.now_ms()
        # Agreed on in the handshake
        self.state = State.HEADER
        self.mechanism = ""
        self.client_properties = Table.EMPTY
        #: what the client says it understands
        self.capabilities: frozenset[str] = frozenset()
        self.channel_max = limits.channel_max
        #: the largest frame either side may send, its overhead included
        self.frame_octets_max = limits.frame_max_initial_bytes
        self.heartbeat: Heartbeat | None = None
        # Input
        self.channels: dict[int, Channel] = {}
        self._publishes: dict[bytes, Publish] = {}
        #: input not handled yet: an incomplete frame, or what exceeded a budget
        self._pending = bytearray()
        #: how much of it makes the next attempt worth while
        self._needed = 0
        #: handling input waits for something other than more input
        self._paused = False
        self.noted_input = False
        #: messages times queues, since the input of this turn began
        self.work = 0
        self.received_octets = 0
        # Alarms
        self.alarmed = bool(node.alarms)
        self._blocked_sent = False
        self._parked: dict[Channel, None] = {}
        self._held_bytes = 0
        # Output
        self.out: list[bytes | memoryview] = []
        #: octets in `out`, roughly
        self.out_bytes = 0
        #: above this the connection is congested; lower while the socket still holds something
        self.out_bytes_high = limits.write_buffer_high_bytes
        self.congested = False
        self.saturated = False
        self._saturated_until_ms = 0
        self.noted_output = False
        self.sent_octets = 0
        self._promising: dict[Channel, None] = {}
        #: some promise waits for the store
        self.awaits_store = False
        # Time
        self.state_deadline_ms = self.connected_at_ms + limits.handshake_timeout_ms
        self.deadline_ms = self.state_deadline_ms
        #: the wire is to be closed once the output is written
        self.finished = False
        #: counted among the node's open connections
        self._opened = False
        node.sessions[self] = None
        self.journal.accepted()

    def opened(self, vhost: VirtualHost) -> None:
        """The client may work in `vhost` from now on."""
        self.vhost = vhost
        self.state = State.RUNNING
        self._opened = True
        self.node.open_connections += 1
        self.set_state_deadline(0)
        self.journal.user = self.user.name
        self.journal.vhost = vhost.name
        self.journal.opened(self.client_provided_name())

    # Input.

    @property
    def reading(self) -> bool:
        """Whether the wire should go on reading."""
        return (
            not self.noted_input
            and not self._paused
            and self._held_bytes <= self.limits.blocked_input_bytes_max
        )

    def receive_data(self, data: bytes) -> None:
        """Handle what the client sent, however its frames were cut."""
        self.received_octets += len(data)
        if self.finished:
            return
        if self._pending or self._paused:
            self._pending += data
            if self._paused or self.noted_input or len(self._pending) < self._needed:
                return
            data = bytes(self._pending)
            self._pending.clear()
        self._handle_or_fail(data)

    def resume_input(self) -> None:
        """Go on with what was left of the input."""
        self.noted_input = False
        if not self._paused and self._pending:
            data = bytes(self._pending)
            self._pending.clear()
            self._handle_or_fail(data)
        self.note_output()

    def need(self, octets_: int) -> None:
        """Do not look at the pending input again before it has so many octets."""
        self._needed = octets_

    def _note_input(self) -> None:
        if not self.noted_input:
            self.noted_input = True
            self.turn.inputs.append(self)
            self.turn.note()

    def pause(self) -> None:
        """Handle no input until `unpause`."""
        self._paused = True

    def unpause(self) -> None:
        """Go on handling input in the next turn."""
        if self._paused:
            self._paused = False
            self._note_input()

    def _handle_or_fail(self, data: bytes) -> None:
        try:
            self._handle(data)
        except Exception:
            # A fault of ours must not take the other clients down with it.
            self.journal.fault(0)
            self.fail(InternalError(), 0, 0)

    def _handle(self, data: bytes) -> None:
        position = 0
        length = len(data)
        publishes = self._publishes
        channels = self.channels
        work_max = self.limits.input_work_per_turn
        self.work = 0
        if self.state == State.HEADER:
            position = handshake.receive_protocol_header(self, data)
            if not position:
                self._pending += data
            if self.state == State.HEADER or self.finished:
                return
        while not self._paused:
            if length - position < FRAME_HEAD.size:
                self._needed = FRAME_HEAD.size
                break
            kind, number, size = FRAME_HEAD.unpack_from(data, position)
            end = position + 7 + size
            if size > self.frame_octets_max:
                self._refuse_frame(
                    kind, b"", f": {{frame_too_large,{size},{self.frame_octets_max - OVERHEAD}}}"
                )
                return
            if end >= length:
                self._needed = size + OVERHEAD
                break
            if data[end] != FRAME_END:
                self._refuse_frame(
                    kind,
                    data[position + 7 : end],
                    f": {{invalid_frame_end_marker,{data[end]}}}",
                )
                return
            if self.work >= work_max:
                self._needed = 0
                self._note_input()
                break
            if kind == METHOD:
                if size == SETTLEMENT_BYTES:
                    index, tag, bits = SETTLEMENT.unpack_from(data, position + 7)
                    if index == _ACK:
                        channel = channels.get(number)
                        if channel is not None and channel.direct:
                            position = end + 1
                            self.work += 1
                            try:
                                channel.settle(tag, bits & 1 == 1, Settlement.ACK)
                            except AMQPError as error:
                                self._raised(error, number, _ACK)
                            continue
                publish = publishes.get(data[position:end])
                if (
                    publish is not None
                    and publish.channel.direct
                    and not self.alarmed
                    and length - end > CONTENT_HEAD.size
                ):
                    # A publish seen before. If its header and its one body frame are here and
                    # regular, take all three at once; whatever is not is left to the general way.
                    start = end + 1
                    content, also, header_size, class_id, weight, body_size, flags = (
                        CONTENT_HEAD.unpack_from(data, start)
                    )
                    header_end = start + 7 + header_size
                    body_end = header_end + 8 + body_size
                    if (
                        content == HEADER
                        and also == number
                        and class_id == 60
                        and not weight
                        and CONTENT_HEADER_BYTES_MIN <= header_size <= self.frame_octets_max
                        and 0 < body_size <= self.frame_octets_max
                        and body_end < length
                        and data[header_end] == FRAME_END
                        and data[body_end] == FRAME_END
                        and FRAME_HEAD.unpack_from(data, header_end + 1)
                        == (BODY, number, body_size)
                    ):
                        position = body_end + 1
                        try:
                            publish.channel.publish(
                                publish,
                                data[start + 3 : header_end + 1],
                                flags,
                                data[header_end + 4 : position],
                                body_size,
                            )
                        except AMQPError as error:
                            self._raised(error, number, _PUBLISH)
                        continue
            start, position = position, end + 1
            self._receive_frame(kind, number, data[start:position])
            if self.finished:
                return
        if position < length:
            self._pending += data[position:]

    def _receive_frame(self, kind: int, number: int, frame: bytes) -> None:
        """Handle one whole frame of any kind."""
        payload = frame[7:-1]
        if self.state >= State.CLOSING:
            self._receive_while_closing(kind, number, payload)
            return
        if self.state < State.RUNNING:
            handshake.receive_frame(self, kind, number, payload)
            return
        index = int.from_bytes(payload[:4], "big") if kind == METHOD and len(payload) >= 4 else 0
        try:
            if (kind == METHOD and len(payload) < 4) or (
                kind == HEADER and len(payload) < CONTENT_HEADER_BYTES_MIN
            ):
                raise FrameError(f"type {kind}, {octets(payload)}: unknown_frame")
            if number:
                self._receive_channel_frame(kind, number, index, frame)
            elif kind == METHOD:
                self._receive_method(index, payload)
            elif kind == HEARTBEAT and not payload:
                pass
            elif kind in (HEADER, BODY):
                raise UnexpectedFrame(f"type {kind}, {octets(payload)}")
            else:
                raise FrameError(f"type {kind}, {octets(payload)}: unknown_frame")
        except AMQPError as error:
            self._raised(error, number, index)

    def _receive_channel_frame(self, kind: int, number: int, index: int, frame: bytes) -> None:
        payload = frame[7:-1]
        if kind == HEARTBEAT:
            raise UnexpectedFrame(f"type {kind}, {octets(payload)}")
        if kind not in (METHOD, HEADER, BODY):
            raise FrameError(f"type {kind}, {octets(payload)}: unknown_frame")
        channel = self.channels.get(number)
        if channel is None:
            self._receive_without_channel(kind, number, index, payload)
        elif channel.closing:
            self._receive_while_channel_closing(channel, index, payload)
        elif channel.parked is not None:
            self._hold(channel, frame)
        elif channel.content is not None:
            self._receive_content(channel, kind, index, frame)
        elif kind != METHOD:
            raise UnexpectedFrame("expected method frame, got non method frame instead")
        elif channel.committing:
            self._decode(payload)
            raise ChannelError("unexpected command while processing 'tx.commit'")
        elif index == _PUBLISH:
            self._receive_publish(channel, frame)
        elif index == _CHANNEL_CLOSE:
            self._decode(payload)
            self._close_channel(channel)
        elif index == _CHANNEL_OPEN:
            raise ChannelError("second 'channel.open' seen")
        else:
            self._receive_channel_method(channel, index, payload)

    def _receive_channel_method(self, channel: Channel, index: int, payload: bytes) -> None:
        self.work += 1
        method = self._decode(payload)
        handler = HANDLERS.get(index)
        if handler is None:
            raise CommandInvalid("unimplemented method")
        handler(channel, method)

    def _receive_without_channel(self, kind: int, number: int, index: int, payload: bytes) -> None:
        if kind != METHOD:
            raise UnexpectedFrame("expected method frame, got non method frame instead")
        self._decode(payload)
        if index != _CHANNEL_OPEN:
            raise ChannelError("expected 'channel.open'")
        if len(self.channels) >= self.channel_max > 0:
            index = 0
            self._raised(
                NotAllowed(
                    f"number of channels opened ({len(self.channels)}) has reached the negotiated "
                    f"channel_max ({self.channel_max})"
                ),
                0,
                0,
            )
            return
        channel = Channel(self, number)
        self.channels[number] = channel
        channel.reply(commands.Channel.OpenOk, channel_id=b"")

    def _receive_while_channel_closing(self, channel: Channel, index: int, payload: bytes) -> None:
        """After channel.close only its answer counts, or a close of the client that crossed it."""
        if index == _CHANNEL_CLOSE_OK:
            del self.channels[channel.number]
        elif index == _CHANNEL_CLOSE:
            del self.channels[channel.number]
            self.send(methods.encode(commands.Channel.CloseOk, channel.number))
        elif index == _CHANNEL_OPEN:
            raise ChannelError("second 'channel.open' seen")

    def _receive_method(self, index: int, payload: bytes) -> None:
        """A method on channel 0 of a running connection."""
        method = self._decode(payload)
        if isinstance(method, commands.Connection.Close):
            self.closed_by_client()
        elif isinstance(method, commands.Connection.UpdateSecret):
            # Passwords do not expire, so there is nothing to update.
            self.send(methods.encode(commands.Connection.UpdateSecretOk, 0))
        else:
            state = "blocked" if self._blocked_sent else "running"
            raise ChannelError(f"unexpected method in connection state {state}")

    def _decode(self, payload: bytes) -> base.Frame:
        return methods.decode(payload, self.table_limits)

    # Contents.

    def _receive_publish(self, channel: Channel, frame: bytes) -> None:
        method = self._decode(frame[7:-1])
        assert isinstance(method, commands.Basic.Publish), "decoded by its index"
        # The address is copied as it came: exchange and routing key with their length octets.
        key_at = 14 + frame[13]
        address = frame[13 : key_at + 1 + frame[key_at]]
        publish = Publish(channel, Route(address), bool(method.mandatory), bool(method.immediate))
        publishes = self._publishes
        if len(publishes) >= PUBLISHES_MAX:
            publishes.clear()
        publishes[frame[:-1]] = publish
        channel.begin_content(publish)

    def _receive_content(self, channel: Channel, kind: int, index: int, frame: bytes) -> None:
        """A frame on a channel that waits for the header or body of a publish."""
        content = channel.content
        assert content is not None, "asked only while a content is incomplete"
        try:
            if content.header_frame:
                self._receive_body(channel, content, kind, frame)
            else:
                self._receive_header(channel, content, kind, frame)
        except AMQPError as error:
            channel.end_content()
            self._raised(error, channel.number, _PUBLISH)

    def _receive_header(self, channel: Channel, content: Content, kind: int, frame: bytes) -> None:
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
        if self.alarmed and body_size:
            self._block(channel)
            self._hold(channel, frame)
            return
        content.header_frame = frame[3:]
        content.flags = flags
        content.body_size = content.missing = body_size
        if body_size > self.limits.message_bytes_max:
            content.parts = None
        if not body_size:
            self._publish(channel, content)
            if self.alarmed:
                self._block(channel)

    def _receive_body(self, channel: Channel, content: Content, kind: int, frame: bytes) -> None:
        if kind != BODY:
            raise UnexpectedFrame("expected content body, got non content body frame instead")
        size = len(frame) - OVERHEAD
        if size > content.missing:
            raise FrameError("content body frame exceeds remaining content size")
        content.missing -= size
        if content.parts is not None and size:
            content.parts.append(frame[3:] if size == content.body_size else frame[7:-1])
        if not content.missing:
            self._publish(channel, content)

    def _publish(self, channel: Channel, content: Content) -> None:
        """The content is whole."""
        channel.end_content()
        parts = content.parts
        body_frame = b""
        if parts:
            if len(parts) == 1:
                body_frame = parts[0]
            else:
                size = content.body_size.to_bytes(4, "big")
                body_frame = b"".join((size, *parts, b"\xce"))
        channel.publish(
            content.publish, content.header_frame, content.flags, body_frame, content.body_size
        )

    # Alarms.

    def alarms_changed(self) -> None:
        """Called by the node when an alarm is set or cleared."""
        self.alarmed = bool(self.node.alarms)
        if self.alarmed or not self._parked:
            return
        held: list[bytes] = []
        for channel in self._parked:
            held += channel.unpark()
        self._parked.clear()
        self._held_bytes = 0
        self._pending[:0] = b"".join(held)
        if self._blocked_sent:
            self._blocked_sent = False
            self.send(methods.encode(commands.Connection.Unblocked, 0))
        self._note_input()
        self.note_output()

    def _block(self, channel: Channel) -> None:
        """Park a channel that publishes under an alarm, and say so once."""
        channel.park()
        if not self._parked and "connection.blocked" in self.capabilities:
            reason = "low on " + " & ".join(self.node.alarms)
            self.send(methods.encode(commands.Connection.Blocked, 0, reason=reason))
            self._blocked_sent = True
        self._parked[channel] = None

    def _hold(self, channel: Channel, frame: bytes) -> None:
        assert channel.parked is not None, "only the frames of parked channels are held"
        channel.parked.append(frame)
        self._held_bytes += len(frame)

    # Errors and closing.

    def _raised(self, error: AMQPError, number: int, index: int) -> None:
        """Answer an error: the one place where exceptions become closing frames."""
        channel = self.channels.get(number)
        if isinstance(error, ChannelException) and channel is not None:
            self.journal.channel_error(number, index, error)
            self._forget(channel)
            channel.closing = True
            self.send(
                methods.encode(
                    commands.Channel.Close,
                    number,
                    reply_code=error.code,
                    reply_text=_reply_text(error),
                    class_id=index >> 16,
                    method_id=index & 0xFFFF,
                )
            )
        else:
            self.fail(error, number, index)

    def _refuse_frame(self, kind: int, payload: bytes, what: str) -> None:
        """A frame that cannot be understood: nothing behind it can be, either."""
        if self.state < State.RUNNING:
            self.end_silently(f"{{frame_error,type {kind}, {octets(payload)}{what}}}")
            return
        self.fail(FrameError(f"type {kind}, {octets(payload)}{what}"), 0, 0)
        self._ignore_until(self.limits.silent_close_pause_ms)

    def fail(self, error: AMQPError, number: int, index: int) -> None:
        """Close the connection for `error`, and tell the client."""
        if self.state >= State.CLOSING:
            return
        state = "blocked" if self._blocked_sent else STATE_NAMES[self.state]
        self.journal.connection_error(state, number, index, error)
        self._send_close(error, 0 if isinstance(error, methods.MalformedText) else index)

    def close(self, reason: str) -> None:
        """Close the connection on behalf of the operator or a stopping broker."""
        if self.state < State.OPENING:
            self.finished = True
            self.note_output()
        elif self.state < State.CLOSING:
            self.journal.dropped(f"connection closed by the broker: {reason}")
            self._send_close(ConnectionForced(reason), 0)

    def _send_close(self, error: AMQPError, index: int) -> None:
        self._release_all()
        self.send(
            methods.encode(
                commands.Connection.Close,
                0,
                reply_code=error.code,
                reply_text=_reply_text(error),
                class_id=index >> 16,
                method_id=index & 0xFFFF,
            )
        )
        self.state = State.CLOSING
        self._await_close()

    def _await_close(self) -> None:
        interval_seconds = self.heartbeat.interval_seconds if self.heartbeat is not None else 0
        self.heartbeat = None
        wait_ms = min(interval_seconds * 1000, _CLOSED_TIMEOUT_MS) or _CLOSED_TIMEOUT_MS
        self.set_state_deadline(wait_ms)

    def _receive_while_closing(self, kind: int, number: int, payload: bytes) -> None:
        if kind != METHOD or number:
            return
        index = int.from_bytes(payload[:4], "big")
        if index == commands.Connection.Close.index:
            self.send(methods.encode(commands.Connection.CloseOk, 0))
        elif index == commands.Connection.CloseOk.index and self.state == State.CLOSING:
            self.finished = True
            self.note_output()

    def closed_by_client(self) -> None:
        """connection.close of the client."""
        self.journal.closed()
        self._release_all()
        self.send(methods.encode(commands.Connection.CloseOk, 0))
        self.state = State.CLOSED
        self._await_close()

    def authenticated(self, user: User | None, reason: str) -> None:
        """Called with the outcome of the login."""
        handshake.finish_login(self, user, reason)

    def refuse_login(self, error: AMQPError) -> None:
        """Close for a failed login; the client has little time to answer."""
        self._send_close(error, 0)
        self.set_state_deadline(self.limits.silent_close_pause_ms)
        self.unpause()

    def client_provided_name(self) -> str | None:
        """`connection_name` of the client's properties."""
        field = self.client_properties.get("connection_name")
        if field is None or not isinstance(field.value, bytes):
            return None
        return field.value.decode("utf-8", "replace")

    def end_silently(self, reason: str) -> None:
        """End a connection whose client must not be told why: a pause, then the socket closes."""
        self.journal.dropped(reason)
        self.go_silent()

    def go_silent(self) -> None:
        """Ignore the client from now on; the socket closes after a pause."""
        self._ignore_until(self.limits.silent_close_pause_ms)

    def _ignore_until(self, wait_ms: int) -> None:
        self.state = State.CLOSED
        self._paused = True
        self._pending.clear()
        self.heartbeat = None
        self.set_state_deadline(wait_ms)

    def _close_channel(self, channel: Channel) -> None:
        """channel.close of the client."""
        channel.keep_confirms()
        self._forget(channel)
        del self.channels[channel.number]
        self.send(methods.encode(commands.Channel.CloseOk, channel.number))

    def _forget(self, channel: Channel) -> None:
        """Release `channel` and drop it from every list of this connection."""
        channel.release()
        self._promising.pop(channel, None)
        if channel in self._parked:
            del self._parked[channel]
        if self._publishes:
            kept = {
                frame: publish
                for frame, publish in self._publishes.items()
                if publish.channel is not channel
            }
            self._publishes.clear()
            self._publishes.update(kept)

    def _release_all(self) -> None:
        """Undo all that the connection holds in the core; safe to call twice."""
        self._publishes.clear()
        self._promising.clear()
        self._parked.clear()
        self._held_bytes = 0
        channels = list(self.channels.values())
        self.channels.clear()
        for channel in channels:
            if not channel.closing:
                channel.release()
        if self._opened:
            self._opened = False
            self.node.open_connections -= 1
            self.vhost.release_owner(self)

    def lost(self) -> None:
        """The wire is gone. Everything the connection held returns to the core."""
        if State.STARTING <= self.state <= State.RUNNING and not self.finished:
            self.journal.lost()
        self._release_all()
        self.state = State.CLOSED
        self.finished = True
        self._pending.clear()
        self.out.clear()
        self.node.sessions.pop(self, None)
        self.turn.waiting.pop(self, None)

    # Output.

    def send(self, frame: bytes) -> None:
        """Send a frame that is no delivery."""
        self.out.append(frame)
        self.sent(len(frame))

    def sent(self, octets_: int) -> None:
        """Count what was added to `out`, and have it written before the turn ends."""
        self.out_bytes += octets_
        if not self.noted_output:
            self.note_output()

    def note_output(self) -> None:
        """Have the wire look at this session before the turn ends."""
        if not self.noted_output:
            self.noted_output = True
            self.turn.outputs.append(self)
            self.turn.note()

    def note_promises(self, channel: Channel) -> None:
        """Keep the promises of `channel` before the turn ends."""
        channel.noted_promises = True
        self._promising[channel] = None
        self.note_output()

    def await_store(self) -> None:
        """Be told when the store has become durable further."""
        self.awaits_store = True
        self.turn.waiting[self] = None

    def store_advanced(self) -> None:
        """The store is durable further: look at every channel that waits for it."""
        self.awaits_store = False
        for channel in self.channels.values():
            if channel.awaits_store:
                self._promising[channel] = None
        self.note_output()

    def end_turn(self) -> None:
        """Keep promises, then let the wire write."""
        self.noted_output = False
        if self._promising:
            promising, self._promising = self._promising, {}
            for channel in promising:
                channel.keep_promises()
                if channel.awaits_store:
                    self.await_store()
        self.noted_output = False
        self.wire.flush()

    def tell_cancelled(self, channel: Channel, tag: str) -> None:
        """basic.cancel from the broker, for clients that understand it."""
        if "consumer_cancel_notify" in self.capabilities and self.state == State.RUNNING:
            self.send(
                methods.encode(commands.Basic.Cancel, channel.number, consumer_tag=tag, nowait=True)
            )

    def congest(self) -> None:
        """Too much is waiting to be written: no deliveries until it has drained."""
        self.congested = True
        for channel in self.channels.values():
            channel.accepting = False
        if self.out_bytes > self.limits.write_buffer_bytes_max:
            self._saturate()

    def _saturate(self) -> None:
        if not self.saturated:
            self.saturated = True
            self.pause()
            self._saturated_until_ms = self.node.clock.now_ms() + self.limits.write_stall_ms
            self._rearm()
            for channel in self.channels.values():
                channel.saturated = True

    def flushed(self, octets_: int, backlog: int) -> None:
        """The wire took the output.

        Arguments:
            octets_: how much it was.
            backlog: how much of everything given to it the wire has not yet passed on.
        """
        limits = self.limits
        self.sent_octets += octets_
        self.out_bytes = 0
        self.out_bytes_high = limits.write_buffer_high_bytes - backlog
        if self.congested and self.out_bytes_high > limits.write_buffer_high_bytes // 2:
            self.congested = False
            for channel in self.channels.values():
                channel.reconsider(self.turn)
        elif backlog > limits.write_buffer_high_bytes and not self.congested:
            self.congest()
        if backlog > limits.write_buffer_bytes_max:
            self._saturate()
        elif self.saturated and backlog <= limits.write_buffer_high_bytes:
            self.saturated = False
            self._saturated_until_ms = 0
            for channel in self.channels.values():
                channel.saturated = False
            self._rearm()
            if self.state < State.CLOSED:
                self.unpause()

    # Time.

    def set_state_deadline(self, wait_ms: int) -> None:
        """Have the present state end after `wait_ms`; 0 for never."""
        self.state_deadline_ms = self.node.clock.now_ms() + wait_ms if wait_ms else 0
        self._rearm()
        self.note_output()

    def _rearm(self) -> None:
        deadlines = [self.state_deadline_ms, self._saturated_until_ms]
        if self.heartbeat is not None:
            deadlines.append(self.heartbeat.deadline_ms())
        self.deadline_ms = min((each for each in deadlines if each), default=0)

    def start_heartbeat(self, interval_seconds: int) -> None:
        """Begin to send heartbeats and to expect them."""
        if interval_seconds:
            self.heartbeat = Heartbeat(interval_seconds, self.node.clock.now_ms())
        self._rearm()

    def expire(self) -> None:
        """Do what is due; called at `deadline_ms` or later."""
        now_ms = self.node.clock.now_ms()
        if self.state_deadline_ms and now_ms >= self.state_deadline_ms:
            self.state_deadline_ms = 0
            if self.state < State.RUNNING:
                self.journal.dropped("{handshake_timeout,frame_header}")
            self.finish()
        elif self._saturated_until_ms and now_ms >= self._saturated_until_ms:
            self.journal.dropped("the client does not read what is sent to it")
            self.finish()
        heartbeat = self.heartbeat
        if heartbeat is not None and not self.finished:
            if heartbeat.is_peer_gone(now_ms, self.received_octets, self.reading):
                self.journal.missed_heartbeats(heartbeat.interval_seconds)
                self.finish()
            elif heartbeat.is_send_due(now_ms, self.sent_octets):
                self.send(HEARTBEAT_FRAME)
        self._rearm()

    def finish(self) -> None:
        """Drop the wire."""
        self._release_all()
        self.state = State.CLOSED
        self.heartbeat = None
        self.finished = True
        self.note_output()


def _reply_text(error: AMQPError) -> str:
    """The reply text, cut as RabbitMQ cuts it to what a shortstr holds."""
    raw = error.reply_text.encode("utf-8", "surrogateescape")
    if len(raw) > 255:
        raw = raw[:252] + b"..."
    return raw.decode("utf-8", "surrogateescape")
