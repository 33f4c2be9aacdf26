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

from typing import Final

from pamqp import commands

from broker.amqp import channel_frames, handshake, input, methods
from broker.amqp.channel import Channel
from broker.amqp.content import Publish
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
from broker.amqp.input import Input
from broker.amqp.journal import Journal
from broker.amqp.limits import Limits
from broker.amqp.output import Output
from broker.amqp.parking import Parking
from broker.amqp.peer import Announcement, Peer, Wire
from broker.amqp.state import STATE_NAMES, State
from broker.auth import Authenticator, User
from broker.core.node import Node
from broker.core.table import Table
from broker.core.transaction import Settlement
from broker.core.turn import Session
from broker.core.vhost import VirtualHost
from broker.errors import (
    AMQPError,
    ChannelError,
    ChannelException,
    ConnectionForced,
    FrameError,
    InternalError,
    UnexpectedFrame,
)

_ACK: Final = commands.Basic.Ack.index

#: How many different basic.publish frames of a connection are remembered.
PUBLISHES_MAX: Final = 1024

#: How long a closed connection waits for its client when there is no heartbeat, in milliseconds.
_CLOSED_TIMEOUT_MS: Final = 30_000


class Connection(Session):
    """One AMQP connection.

    Arguments:
        limits: what it allows its client.
        authenticator: decides about the login.
    """

    __slots__ = (
        "_blocked_sent",
        "_closed_channels",
        "_input",
        "_opened",
        "_promising",
        "_publishes",
        "_saturated_until_ms",
        "_state_deadline_ms",
        "alarmed",
        "announcement",
        "authenticator",
        "capabilities",
        "channel_max",
        "channels",
        "client_properties",
        "connected_at_ms",
        "deadline_ms",
        "finished",
        "frame_octets_max",
        "heartbeat",
        "journal",
        "limits",
        "mechanism",
        "node",
        "output",
        "parking",
        "peer",
        "received_octets",
        "state",
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
        #: what frames of basic.publish mean, by the frame without its end octet
        self._publishes: dict[bytes, Publish] = {}
        #: channels the client closed in this turn
        self._closed_channels: list[Channel] = []
        self._input = Input()
        #: messages times queues, since the input of this turn began
        self.work = 0
        self.received_octets = 0
        # Alarms
        self.alarmed = bool(node.alarms)
        self.parking = Parking(limits.blocked_input_bytes_max)
        self._blocked_sent = False
        # Output
        self.output = Output(
            self, node.turn, limits.write_buffer_high_bytes, limits.write_buffer_bytes_max
        )
        #: when a saturated connection is given up; 0 while it is not
        self._saturated_until_ms = 0
        #: channels with promises that may be due
        self._promising: dict[Channel, None] = {}
        # Time
        self._state_deadline_ms = self.connected_at_ms + limits.handshake_timeout_ms
        #: when `expire` is to be called; 0 for never
        self.deadline_ms = self._state_deadline_ms
        #: the wire is to be closed once the output is written
        self.finished = False
        #: counted among the node's open connections
        self._opened = False
        node.sessions[self] = None

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
        return not self._input.noted and not self._input.paused and not self.parking.is_full

    def receive_data(self, data: bytes) -> None:
        """Handle what the client sent, however its frames were cut."""
        self.received_octets += len(data)
        data = self._input.add(data)
        if data:
            self._handle_or_fail(data)

    def resume_input(self) -> None:
        """Go on with what was left of the input."""
        self._input.noted = False
        data = self._input.take()
        if data:
            self._handle_or_fail(data)
        self.output.note()

    def _note_input(self) -> None:
        if not self._input.noted:
            self._input.noted = True
            self.turn.inputs.append(self)
            self.turn.note()

    def pause(self, reason: int) -> None:
        """Handle no input until `unpause`; the reasons are those of `broker.amqp.input`."""
        self._input.paused |= reason

    def repeat(self, frame: bytes) -> None:
        """Have `frame` handled before all other input, once input is handled again."""
        self._input.put_first([frame])

    def unpause(self, reason: int) -> None:
        """Go on handling input in the next turn, unless there are other reasons not to."""
        if self._input.paused & reason:
            self._input.paused &= ~reason
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
        waiting = self._input
        if self.state == State.HEADER:
            if length < len(handshake.PROTOCOL_HEADER):
                waiting.keep(data, len(handshake.PROTOCOL_HEADER))
                return
            position = len(handshake.PROTOCOL_HEADER)
            handshake.receive_protocol_header(self, data[:position])
        needed = 0
        while not waiting.paused:
            if length - position < FRAME_HEAD.size:
                needed = FRAME_HEAD.size
                break
            kind, number, size = FRAME_HEAD.unpack_from(data, position)
            end = position + 7 + size
            if size > self.frame_octets_max:
                self._refuse_frame(
                    kind, b"", f": {{frame_too_large,{size},{self.frame_octets_max - OVERHEAD}}}"
                )
                return
            if end >= length:
                needed = size + OVERHEAD
                break
            if data[end] != FRAME_END:
                self._refuse_frame(
                    kind,
                    data[position + 7 : end],
                    f": {{invalid_frame_end_marker,{data[end]}}}",
                )
                return
            if self.work >= work_max:
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
                                self.raised(error, number, _ACK)
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
                            self.raised(error, number, channel_frames.PUBLISH)
                        continue
            start, position = position, end + 1
            self._receive_frame(kind, number, data[start:position])
        if position < length:
            waiting.keep(data[position:], needed)

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
                channel_frames.receive(self, kind, number, index, frame)
            elif kind == METHOD:
                self._receive_method(payload)
            elif kind in (HEADER, BODY):
                raise UnexpectedFrame(f"type {kind}, {octets(payload)}")
            elif kind != HEARTBEAT or payload:
                raise FrameError(f"type {kind}, {octets(payload)}: unknown_frame")
        except AMQPError as error:
            self.raised(error, number, index)

    def _receive_method(self, payload: bytes) -> None:
        """A method on channel 0 of a running connection."""
        method = methods.decode(payload, self.table_limits)
        if isinstance(method, commands.Connection.Close):
            self.closed_by_client()
        elif isinstance(method, commands.Connection.UpdateSecret):
            # Passwords do not expire, so there is nothing to update.
            self.send(methods.encode(commands.Connection.UpdateSecretOk, 0))
        else:
            state = "blocked" if self._blocked_sent else "running"
            raise ChannelError(f"unexpected method in connection state {state}")

    def remember_publish(self, frame: bytes, publish: Publish) -> None:
        """Know this very frame when it comes again, but for its end octet."""
        if len(self._publishes) >= PUBLISHES_MAX:
            self._publishes.clear()
        self._publishes[frame] = publish

    # Alarms.

    def alarms_changed(self) -> None:
        """Called by the node when an alarm is set or cleared."""
        self.alarmed = bool(self.node.alarms)
        if self.alarmed or self.parking.is_empty:
            return
        self._input.put_first(self.parking.release())
        if self._blocked_sent:
            self._blocked_sent = False
            self.send(methods.encode(commands.Connection.Unblocked, 0))
        self._note_input()

    def block(self, channel: Channel) -> None:
        """Park a channel that publishes under an alarm; the client is told once."""
        if self.parking.is_empty and "connection.blocked" in self.capabilities:
            reason = "low on " + " & ".join(self.node.alarms)
            self.send(methods.encode(commands.Connection.Blocked, 0, reason=reason))
            self._blocked_sent = True
        self.parking.park(channel)

    # Errors and closing.

    def raised(self, error: AMQPError, number: int, index: int) -> None:
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
            self.finish()
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
            self.finish()

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
        self.unpause(input.LOGIN)

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
        self._ignore_input()
        self.heartbeat = None
        self.set_state_deadline(wait_ms)

    def close_channel(self, channel: Channel) -> None:
        """channel.close of the client."""
        channel.keep_promises()
        self._forget(channel)
        # Until close-ok is written, what the client had sent behind its close is ignored.
        channel.closing = True
        channel.answered = True
        self._closed_channels.append(channel)
        self.send(methods.encode(commands.Channel.CloseOk, channel.number))

    def _forget(self, channel: Channel) -> None:
        """Release `channel` and drop it from every list of this connection."""
        channel.release()
        self._promising.pop(channel, None)
        self.parking.forget(channel)
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
        self.parking.clear()
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
        self._ignore_input()
        self.output.take()
        self.node.sessions.pop(self, None)
        self.turn.waiting.pop(self, None)

    def _ignore_input(self) -> None:
        self._input.clear()
        self.pause(input.ENDED)

    # Output.

    def send(self, frame: bytes) -> None:
        """Send a frame that is no delivery."""
        self.output.send(frame)
        if self.output.size_bytes > self.output.limit_bytes:
            self.congest()

    def note_promises(self, channel: Channel) -> None:
        """Keep the promises of `channel` before the turn ends."""
        channel.noted_promises = True
        self._promising[channel] = None
        self.output.note()

    def await_store(self) -> None:
        """Be told when the store has become durable further."""
        self.turn.waiting[self] = None

    def store_advanced(self) -> None:
        """The store is durable further: look at every channel that waits for it."""
        for channel in self.channels.values():
            if channel.awaits_store:
                self._promising[channel] = None
        self.output.note()

    def end_turn(self) -> None:
        """Keep promises, then let the wire write."""
        if self._promising:
            promising, self._promising = self._promising, {}
            for channel in promising:
                channel.keep_promises()
                if channel.awaits_store:
                    self.await_store()
        if self._closed_channels:
            closed, self._closed_channels = self._closed_channels, []
            for channel in closed:
                if self.channels.get(channel.number) is channel:
                    del self.channels[channel.number]
        self.output.noted = False
        self.wire.flush()

    def tell_cancelled(self, channel: Channel, tag: str) -> None:
        """basic.cancel from the broker, for clients that understand it."""
        if "consumer_cancel_notify" in self.capabilities and self.state == State.RUNNING:
            self.send(
                methods.encode(commands.Basic.Cancel, channel.number, consumer_tag=tag, nowait=True)
            )

    def congest(self) -> None:
        """Too much waits to be written: no deliveries until it has drained."""
        output = self.output
        if not output.congested:
            output.congested = True
            for channel in self.channels.values():
                channel.accepting = False
        if not output.saturated and output.is_over_max():
            output.saturated = True
            self.pause(input.OUTPUT)
            self._saturated_until_ms = self.node.clock.now_ms() + self.limits.write_stall_ms
            self._rearm()
            for channel in self.channels.values():
                channel.saturated = True

    def flushed(self, octets_: int, backlog_bytes: int) -> None:
        """The wire took output, or passed some on.

        Arguments:
            octets_: how much it took.
            backlog_bytes: how much of everything it took has not left this machine's hands.
        """
        output = self.output
        output.flushed(octets_, backlog_bytes)
        if output.is_over_limit():
            self.congest()
        if not output.congested or not output.has_drained():
            return
        output.congested = False
        if output.saturated:
            output.saturated = False
            self._saturated_until_ms = 0
            self._rearm()
            self.unpause(input.OUTPUT)
        for channel in self.channels.values():
            channel.saturated = False
            channel.reconsider(self.turn)

    # Time.

    def set_state_deadline(self, wait_ms: int) -> None:
        """Have the present state end after `wait_ms`; 0 for never."""
        self._state_deadline_ms = self.node.clock.now_ms() + wait_ms if wait_ms else 0
        self._rearm()

    def _rearm(self) -> None:
        deadlines = [self._state_deadline_ms, self._saturated_until_ms]
        if self.heartbeat is not None:
            deadlines.append(self.heartbeat.deadline_ms())
        self.deadline_ms = min((each for each in deadlines if each), default=0)
        self.output.note()

    def start_heartbeat(self, interval_seconds: int) -> None:
        """Begin to send heartbeats and to expect them."""
        if interval_seconds:
            self.heartbeat = Heartbeat(interval_seconds, self.node.clock.now_ms())
        self._rearm()

    def expire(self) -> None:
        """Do what is due; called at `deadline_ms` or later."""
        now_ms = self.node.clock.now_ms()
        if self._state_deadline_ms and now_ms >= self._state_deadline_ms:
            self._state_deadline_ms = 0
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
            elif heartbeat.is_send_due(now_ms, self.output.sent_octets):
                self.send(HEARTBEAT_FRAME)
        self._rearm()

    def finish(self) -> None:
        """Have the wire closed, once the output is written."""
        self._release_all()
        self.state = State.CLOSED
        self._ignore_input()
        self.heartbeat = None
        self.finished = True
        self._state_deadline_ms = self._saturated_until_ms = 0
        self._rearm()


def _reply_text(error: AMQPError) -> str:
    """The reply text, cut as RabbitMQ cuts it to what a shortstr holds."""
    raw = error.reply_text.encode("utf-8", "surrogateescape")
    if len(raw) > 255:
        raw = raw[:252] + b"..."
    return raw.decode("utf-8", "surrogateescape")
