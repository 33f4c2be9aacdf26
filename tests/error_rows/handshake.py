"""Logging in, tuning and opening."""

from pamqp.commands import Channel, Connection
from wire_methods import Method, channel_open, connection_open, connection_tune_ok, table_content

from error_rows import Act, Scene, connection_error


def open_and_send(channel: int, method: Method) -> Act:
    """Log in and tune, then send a method where connection.open belongs."""

    def act(s: Scene) -> None:
        s.client.log_in()
        s.client.expect(0, Connection.Tune)
        s.client.tune_ok(10, 131072, 0)
        s.client.send_method(channel, method)

    return act


def log_in_with(mechanism: str, response: bytes) -> Act:
    """Offer credentials that are well formed and wrong."""

    def act(s: Scene) -> None:
        s.client.send_protocol_header()
        s.client.expect(0, Connection.Start)
        s.client.start_ok(mechanism, response)

    return act


def open_one_too_many(s: Scene) -> None:
    """Open a second connection where one is allowed."""
    open_and_send(0, connection_open("/"))(s.connect_again())


def open_channels(count: int) -> Act:
    """Open channels next to channel 1; the last one is not waited for."""

    def act(s: Scene) -> None:
        for channel in range(2, count + 1):
            s.client.open_channel(channel)
        s.client.send_method(count + 1, channel_open())

    return act


LOGIN_REFUSED = (
    "Login was refused using authentication mechanism {}. For details see the broker logfile."
)


# fmt: off
HANDSHAKE_ROWS = [
    *(
        connection_error(f"login-{case}", 403, LOGIN_REFUSED.format(mechanism), None,
            log_in_with(mechanism, response), connected=False)
        for case, mechanism, response in [
            ("wrong-password", "PLAIN", b"\0guest\0wrong"),
            ("empty-password", "PLAIN", b"\0guest\0"),
            ("unknown-user", "PLAIN", b"\0nobody\0guest"),
            ("empty-user", "PLAIN", b"\0\0guest"),
            ("amqplain-wrong-password", "AMQPLAIN",
                table_content(("LOGIN", "S", "guest"), ("PASSWORD", "S", "wrong"))),
            ("amqplain-unknown-user", "AMQPLAIN",
                table_content(("LOGIN", "S", "nobody"), ("PASSWORD", "S", "guest"))),
        ]
    ),
    connection_error("open-missing-vhost", 530, "vhost no-such-vhost not found", Connection.Open,
        open_and_send(0, connection_open("no-such-vhost")), connected=False),
    connection_error("open-empty-vhost", 530, "vhost  not found", Connection.Open,
        open_and_send(0, connection_open("")), connected=False),
    connection_error("open-vhost-name-is-verbatim", 530, "vhost // not found", Connection.Open,
        open_and_send(0, connection_open("//")), connected=False),
    connection_error("opening-channel-frame", 505, "type 1, all octets = <<0,20,0,10,0>>", None,
        open_and_send(1, channel_open()), connected=False),
    connection_error("opening-other-method", 504, "unexpected method in connection state opening",
        Channel.Open, open_and_send(0, channel_open()), connected=False),
    connection_error("opening-second-tune-ok", 504, "unexpected method in connection state opening",
        Connection.TuneOk, open_and_send(0, connection_tune_ok(10, 131072)),
        connected=False),
    connection_error("too-many-channels", 530,
        "number of channels opened (2) has reached the negotiated channel_max (2)", None,
        open_channels(2), channel_max=2),
    connection_error("too-many-channels-of-one", 530,
        "number of channels opened (1) has reached the negotiated channel_max (1)", None,
        open_channels(1), channel_max=1),
    connection_error("too-many-connections", 530,
        "connection refused: node connection limit (1) is reached", Connection.Open,
        open_one_too_many, connected=False, settings={"connections_max": 1}),
]
# fmt: on
