"""From the protocol header to connection.open-ok.

The client speaks first, with eight octets; then start, tune and open are asked and answered in
turn. A client that has not logged in is told nothing when it errs: there is a pause and the socket
closes (the pause slows down guessing). The one exception is the refusal of a login, to clients that
say they want to know (`authentication_failure_close`). RabbitMQ, `rabbit_reader`.
"""

from typing import TYPE_CHECKING, Final

from pamqp import commands

from broker.amqp import input, methods, sasl
from broker.amqp.frames import FRAME_BYTES_MIN, HEARTBEAT, METHOD, octets
from broker.amqp.state import State
from broker.core.table import Field, Table
from broker.core.terms import bytes_term
from broker.errors import AMQPError, ChannelError, LoginRefused, NotAllowed, UnexpectedFrame

if TYPE_CHECKING:
    from broker.amqp.connection import Connection
    from broker.auth import User

#: What a client must begin with, and what is answered when it does not.
PROTOCOL_HEADER: Final = b"AMQP\x00\x00\x09\x01"
#: The header of 0-9, which means the same.
_PROTOCOL_HEADER_0_9: Final = b"AMQP\x01\x01\x00\x09"

#: What this server can do, in the order RabbitMQ lists it.
CAPABILITIES: Final = (
    "publisher_confirms",
    "exchange_exchange_bindings",
    "basic.nack",
    "consumer_cancel_notify",
    "connection.blocked",
    "consumer_priorities",
    "authentication_failure_close",
    "per_consumer_qos",
    "direct_reply_to",
)

#: frame-max 0 agreed by both sides: no limit but what the size of a frame can say.
_FRAME_BYTES_UNLIMITED: Final = 2**31 - 1


def receive_protocol_header(connection: "Connection", header: bytes) -> None:
    """Answer the first eight octets of a client."""
    if header in (PROTOCOL_HEADER, _PROTOCOL_HEADER_0_9):
        connection.state = State.STARTING
        connection.journal.accepted()
        _send_start(connection)
    else:
        connection.journal.dropped(f"{{bad_header,{bytes_term(header)}}}")
        connection.send(PROTOCOL_HEADER)
        connection.finish()


def _text(value: str) -> Field:
    return Field("S", value.encode())


def _send_start(connection: "Connection") -> None:
    says = connection.announcement
    capabilities = Table.encode([(name, Field("t", True)) for name in CAPABILITIES])
    properties = Table.encode(
        [
            ("capabilities", Field("F", capabilities)),
            ("cluster_name", _text(says.cluster_name)),
            ("copyright", _text(says.copyright)),
            ("information", _text(says.information)),
            ("platform", _text(says.platform)),
            ("product", _text(says.product)),
            ("version", _text(says.version)),
        ]
    )
    connection.send(
        methods.encode(
            commands.Connection.Start,
            0,
            version_major=0,
            version_minor=9,
            server_properties=properties,
            mechanisms=" ".join(sasl.MECHANISMS).encode(),
            locales=b"en_US",
        )
    )


def receive_frame(connection: "Connection", kind: int, number: int, payload: bytes) -> None:
    """Handle a frame of a connection that is not running yet."""
    if connection.state == State.OPENING:
        _receive_open(connection, kind, number, payload)
        return
    if kind == HEARTBEAT and not number and not payload:
        return
    state = connection.state
    try:
        if kind != METHOD or number or len(payload) < 4:
            connection.end_silently(f"{{unexpected_frame,type {kind}, {octets(payload)}}}")
            return
        method = methods.decode(payload, connection.table_limits)
    except AMQPError as error:
        connection.end_silently(error.reply_text)
        return
    if state == State.STARTING and isinstance(method, commands.Connection.StartOk):
        _receive_start_ok(connection, method)
    elif state == State.TUNING and isinstance(method, commands.Connection.TuneOk):
        _receive_tune_ok(connection, method)
    else:
        connection.end_silently(f"{{unexpected_method,{method.name}}}")


def _receive_start_ok(connection: "Connection", method: commands.Connection.StartOk) -> None:
    properties = methods.table_of(method, "client_properties")
    connection.client_properties = properties
    capabilities = properties.get("capabilities")
    if capabilities is not None and isinstance(capabilities.value, Table):
        connection.capabilities = frozenset(
            name for name, field in capabilities.value.items() if field.value is True
        )
    connection.mechanism = method.mechanism
    response = _longstr(method, "response")
    try:
        name, password = sasl.credentials(method.mechanism, response)
    except sasl.MalformedResponse as error:
        connection.end_silently(f"{method.mechanism} login refused: {error}")
        return
    connection.state = State.AUTHENTICATING
    connection.pause(input.LOGIN)
    connection.authenticator.authenticate(
        name, password, connection.peer.is_loopback, connection.authenticated
    )


def _longstr(method: object, name: str) -> bytes:
    value = getattr(method, name)
    assert isinstance(value, bytes), "longstrs are decoded as bytes"
    return value


def finish_login(connection: "Connection", user: "User | None", reason: str) -> None:
    """The authenticator has decided."""
    if connection.state != State.AUTHENTICATING:
        return
    if user is None:
        connection.journal.refused(connection.mechanism, reason)
        if "authentication_failure_close" in connection.capabilities:
            connection.refuse_login(
                LoginRefused(
                    "Login was refused using authentication mechanism "
                    f"{connection.mechanism}. For details see the broker logfile."
                )
            )
        else:
            connection.go_silent()
        return
    connection.user = user
    limits = connection.limits
    connection.state = State.TUNING
    connection.send(
        methods.encode(
            commands.Connection.Tune,
            0,
            channel_max=limits.channel_max,
            frame_max=limits.frame_max_bytes,
            heartbeat=limits.heartbeat_seconds,
        )
    )
    connection.unpause(input.LOGIN)


def _receive_tune_ok(connection: "Connection", method: commands.Connection.TuneOk) -> None:
    limits = connection.limits
    refusal = _over("channel_max", method.channel_max, limits.channel_max, 1)
    refusal = refusal or _over(
        "frame_max", method.frame_max, limits.frame_max_bytes, FRAME_BYTES_MIN
    )
    if refusal:
        connection.end_silently(refusal)
        return
    connection.channel_max = method.channel_max
    connection.frame_octets_max = method.frame_max or _FRAME_BYTES_UNLIMITED
    connection.state = State.OPENING
    connection.start_heartbeat(method.heartbeat)


def _over(name: str, asked: int, allowed: int, minimum: int) -> str:
    """What RabbitMQ logs about a value of tune-ok it does not accept; empty when it does."""
    if asked and asked < minimum:
        return f"negotiated {name} = {asked} is lower than the minimum allowed value ({minimum})"
    if allowed and (not asked or asked > allowed):
        no_limit = "" if asked else " (no limit)"
        return (
            f"negotiated {name} = {asked}{no_limit} is higher than the maximum allowed value "
            f"({allowed})"
        )
    return ""


def _receive_open(connection: "Connection", kind: int, number: int, payload: bytes) -> None:
    index = int.from_bytes(payload[:4], "big") if kind == METHOD else 0
    try:
        if kind == HEARTBEAT and not number:
            return
        if kind != METHOD or number:
            index = 0
            raise UnexpectedFrame(f"type {kind}, {octets(payload)}")
        method = methods.decode(payload, connection.table_limits)
        if isinstance(method, commands.Connection.Close):
            connection.closed_by_client()
        elif isinstance(method, commands.Connection.Open):
            _open(connection, method)
        else:
            raise ChannelError("unexpected method in connection state opening")
    except AMQPError as error:
        connection.fail(error, number, index)


def _open(connection: "Connection", method: commands.Connection.Open) -> None:
    node = connection.node
    name = method.virtual_host
    limit = connection.limits.connections_max
    if limit and node.open_connections >= limit:
        raise NotAllowed(f"connection refused: node connection limit ({limit}) is reached")
    vhost = node.vhosts.get(name)
    if vhost is None:
        raise NotAllowed(f"vhost {name} not found")
    connection.opened(vhost)
    connection.send(methods.encode(commands.Connection.OpenOk, 0, known_hosts=""))
