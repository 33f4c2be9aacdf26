"""Every error a client can provoke with the protocol alone, in RabbitMQ's words.

The table is in `error_rows`: one row per way of going wrong. A channel error must leave the
connection and the channel number usable; a connection error must end in EOF once the client has
answered it. Some errors are answered by nothing at all, and the end of the connection comes after
a pause: those are the silent ones, played all at once.

The texts are those of the version this broker announces. Where RabbitMQ 3.10 says or does something
else the row is marked `differs_on_310`, so that with LEVERET_TEST_PORT naming such a broker all the
other rows can be checked against the original.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from error_rows import Row, Scene
from error_rows.arguments import ARGUMENT_ROWS, REDECLARE_ROWS
from error_rows.consuming import CONSUME_ROWS, SETTLE_ROWS
from error_rows.exchanges import BINDING_ROWS, EXCHANGE_ROWS
from error_rows.framing import FRAMING_ROWS
from error_rows.handshake import HANDSHAKE_ROWS
from error_rows.publishing import CONFIRM_ROWS, PUBLISH_ROWS
from error_rows.queues import DELETE_ROWS, NAME_ROWS, OWNER_ROWS, PROPERTY_ROWS
from error_rows.states import STATE_ROWS
from pamqp import base
from pamqp.commands import Connection
from running import ExternalBroker, RunningBroker, running_broker
from wire import FRAME_BODY, FRAME_METHOD, PLAIN_GUEST, PROTOCOL_HEADER, WireClient
from wire_methods import (
    CONNECTION_CLOSE_OK,
    Method,
    channel_open,
    connection_close,
    connection_open,
    connection_start_ok,
    connection_tune_ok,
    frame,
    table_content,
)

EXTERNAL_PORT = os.environ.get("LEVERET_TEST_PORT")

Server = RunningBroker | ExternalBroker

ROWS = [
    *HANDSHAKE_ROWS,
    *FRAMING_ROWS,
    *STATE_ROWS,
    *EXCHANGE_ROWS,
    *BINDING_ROWS,
    *NAME_ROWS,
    *OWNER_ROWS,
    *PROPERTY_ROWS,
    *REDECLARE_ROWS,
    *ARGUMENT_ROWS,
    *DELETE_ROWS,
    *PUBLISH_ROWS,
    *CONFIRM_ROWS,
    *CONSUME_ROWS,
    *SETTLE_ROWS,
]


@contextmanager
def broker_with(**settings: Any) -> Iterator[Server]:
    """A broker with these settings, or the external one as it is."""
    if EXTERNAL_PORT:
        yield ExternalBroker(int(EXTERNAL_PORT))
    else:
        with running_broker(**settings) as broker:
            yield broker


@pytest.fixture(scope="module")
def shared_server() -> Iterator[Server]:
    """One broker for all rows: each has names of its own, and none may harm the next."""
    with broker_with() as broker:
        yield broker


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_error(row: Row, shared_server: Server, tmp_path: Path) -> None:
    """The broker closes channel or connection with exactly the code and words of the table."""
    if EXTERNAL_PORT and row.differs_on_310:
        pytest.skip("RabbitMQ 3.10 differs")
    if EXTERNAL_PORT and row.settings:
        pytest.skip("needs settings the external broker does not have")

    if row.settings or row.durable:
        directory = str(tmp_path) if row.durable else None
        with broker_with(data_dir=directory, **row.settings) as server:
            check(row, server)
    else:
        check(row, shared_server)


def check(row: Row, server: Server) -> None:
    """Play the row, compare what comes back, and see that the right thing has ended."""
    scene = Scene(row, server.host, server.port)
    try:
        row.act(scene)
        if row.scope == "channel":
            check_channel_closed(row, scene)
        else:
            check_connection_closed(row, scene)
    finally:
        scene.end()
        if isinstance(server, ExternalBroker):
            scene.clean_up()


def check_channel_closed(row: Row, scene: Scene) -> None:
    """Channel 1 is closed as the row says; its number and the connection live on."""
    assert row.text is not None
    client = scene.client
    client.expect_channel_close(1, row.codes[0], scene.expand(row.text), *row.ids)
    client.channel_close_ok()
    client.open_channel()
    client.close()


def check_connection_closed(row: Row, scene: Scene) -> None:
    """The connection is closed as the row says, and ends once the client has answered."""
    client = scene.client
    if row.text is not None:
        client.expect_connection_close(row.codes[0], scene.expand(row.text), *row.ids)
    else:
        close = client.expect(0, Connection.Close)
        assert close.reply_code in row.codes
        assert (close.class_id, close.method_id) in (row.ids, (0, 0))
    if not row.deaf:
        client.connection_close_ok()
        client.expect_eof()


def test_rows_have_names_of_their_own() -> None:
    """A row can be named without ambiguity."""
    ids = [row.id for row in ROWS]

    assert len(set(ids)) == len(ids), sorted({id for id in ids if ids.count(id) > 1})


# fmt: off
BAD_HEADERS = [
    b"AMQP\x00\x00\x0a\x00",  # 0-10
    b"AMQP\x00\x00\x09\x02",
    b"AMQP\x00\x00\x00\x00",
    b"AMQP\x01\x01\x00\x0a",
    b"AMQP\x00\x01\x00\x00",  # 1.0
    b"AMQP\x03\x01\x00\x00",  # 1.0 with SASL
    b"AMQP\x02\x01\x00\x00",  # 1.0 with TLS
    b"AMQP\xff\xff\xff\xff",
    b"amqp\x00\x00\x09\x01",
    b"GET / HTTP/1.1\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
    bytes(8),
]
HEADERS_OF_0_8 = [b"AMQP\x01\x01\x08\x00", b"AMQP\x01\x01\x09\x01"]
# fmt: on


@pytest.mark.parametrize("header", [*BAD_HEADERS, *HEADERS_OF_0_8], ids=lambda header: header[:8])
def test_bad_protocol_header(header: bytes, shared_server: Server) -> None:
    """Any other protocol is answered by the header of the one we speak, and the end."""
    if EXTERNAL_PORT and header in HEADERS_OF_0_8:
        pytest.skip("RabbitMQ 3.10 still speaks 0-8")

    with WireClient(shared_server.host, shared_server.port) as client:
        client.send(header)

        assert client.read_exactly(8) == PROTOCOL_HEADER
        client.expect_eof()


def start_ok(mechanism: str, response: bytes, *capabilities: str) -> bytes:
    """A start-ok frame; without capabilities a refused login is not told so."""
    return method(0, connection_start_ok(mechanism, response, capabilities=capabilities))


def amqplain(*entries: tuple[str, str, Any]) -> bytes:
    """A start-ok frame with these fields to log in, which asks to be told of a failure."""
    return start_ok("AMQPLAIN", table_content(*entries), TELL)


def tune_ok(channel_max: int, frame_max: int) -> bytes:
    """A tune-ok frame and what a client sends right after it."""
    tuned = method(0, connection_tune_ok(channel_max, frame_max))
    return tuned + method(0, connection_open("/"))


def method(channel: int, content: Method) -> bytes:
    """A method frame."""
    return frame(FRAME_METHOD, channel, content.payload)


# The capability of a client that wants to be told why its login failed.
TELL = "authentication_failure_close"

# How far the handshake goes, and what is sent then.
# fmt: off
SILENT_ENDS: dict[str, tuple[str, bytes]] = {
    # Too slow
    "nothing-sent": ("connected", b""),
    "half-a-protocol-header": ("connected", PROTOCOL_HEADER[:4]),
    "no-start-ok": ("started", b""),
    "half-a-start-ok": ("started", start_ok("PLAIN", PLAIN_GUEST)[:20]),
    "no-tune-ok": ("tuned", b""),
    "no-open": ("tuned", method(0, connection_tune_ok(10, 131072))),
    # Credentials that make no sense
    "plain-empty": ("started", start_ok("PLAIN", b"", TELL)),
    "plain-one-part": ("started", start_ok("PLAIN", b"\0guest", TELL)),
    "plain-three-parts": ("started", start_ok("PLAIN", b"\0guest\0guest\0", TELL)),
    "plain-without-nul": ("started", start_ok("PLAIN", b"guest", TELL)),
    "plain-identity-first": ("started", start_ok("PLAIN", b"guest\0guest\0guest", TELL)),
    "amqplain-empty": ("started", amqplain()),
    "amqplain-without-password": ("started", amqplain(("LOGIN", "S", "guest"))),
    "amqplain-without-login": ("started", amqplain(("PASSWORD", "S", "guest"))),
    "amqplain-login-a-number": ("started", amqplain(("LOGIN", "I", 5), ("PASSWORD", "S", "guest"))),
    "amqplain-not-a-table": ("started", start_ok("AMQPLAIN", PLAIN_GUEST, TELL)),
    "mechanism-unknown": ("started", start_ok("CRAM-MD5", PLAIN_GUEST, TELL)),
    "mechanism-empty": ("started", start_ok("", PLAIN_GUEST, TELL)),
    "mechanism-in-lower-case": ("started", start_ok("plain", PLAIN_GUEST, TELL)),
    "mechanism-external": ("started", start_ok("EXTERNAL", b"", TELL)),
    # Credentials that are wrong, of a client that cannot be told
    "wrong-password": ("started", start_ok("PLAIN", b"\0guest\0wrong")),
    "unknown-user": ("started", start_ok("PLAIN", b"\0nobody\0guest")),
    "wrong-password-amqplain":
        ("started", start_ok("AMQPLAIN", table_content(
            ("LOGIN", "S", "guest"), ("PASSWORD", "S", "wrong")))),
    "wrong-password-other-capability":
        ("started", start_ok("PLAIN", b"\0guest\0wrong", "consumer_cancel_notify")),
    # Out of order
    "tune-ok-for-start-ok": ("started", method(0, connection_tune_ok(10, 131072))),
    "open-for-start-ok": ("started", method(0, connection_open("/"))),
    "close-for-start-ok": ("started", method(0, connection_close())),
    "channel-open-for-start-ok": ("started", method(1, channel_open())),
    "body-for-start-ok": ("started", frame(FRAME_BODY, 1, b"x")),
    "unknown-frame-for-start-ok": ("started", frame(9, 0, b"x")),
    "wrong-frame-end-for-start-ok": ("started", frame(FRAME_METHOD, 0, b"abcd")[:-1] + b"\0"),
    "undecodable-start-ok": ("started", frame(FRAME_METHOD, 0, b"\0\x0a\0\x0b\0\0\0\x09")),
    "start-ok-for-tune-ok": ("tuned", start_ok("PLAIN", PLAIN_GUEST)),
    "open-for-tune-ok": ("tuned", method(0, connection_open("/"))),
    "close-for-tune-ok": ("tuned", method(0, connection_close())),
    "channel-open-for-tune-ok": ("tuned", method(1, channel_open())),
    # Beyond the limits
    "start-ok-too-large": ("started", start_ok("PLAIN", b"\0guest\0" + b"g" * 9000)),
    "frame-max-below-minimum": ("tuned", tune_ok(10, 4095)),
    "frame-max-of-one": ("tuned", tune_ok(10, 1)),
    "frame-max-unlimited": ("tuned", tune_ok(10, 0)),
    "frame-max-above-offered": ("tuned", tune_ok(10, 131073)),
    "channel-max-unlimited": ("tuned", tune_ok(0, 131072)),
    "channel-max-above-offered": ("tuned", tune_ok(2048, 131072)),
    # After a close that is not answered, or answered in vain
    "refused-login-unanswered": ("started", start_ok("PLAIN", b"\0guest\0wrong", TELL)),
    "error-unanswered": ("open", method(0, channel_open())),
    "close-and-stay": ("open", method(0, connection_close())),
    "wrong-frame-end":
        ("open", frame(FRAME_BODY, 1, b"x")[:-1] + b"\0" + method(0, CONNECTION_CLOSE_OK)),
    # No sign of life
    "no-heartbeats": ("open", b""),
}
# fmt: on

# What the broker still says before it falls silent.
LAST_WORDS: dict[str, type[base.Frame]] = {
    "refused-login-unanswered": Connection.Close,
    "error-unanswered": Connection.Close,
    "close-and-stay": Connection.CloseOk,
    "wrong-frame-end": Connection.Close,
}


def test_silent_end() -> None:
    """Where the broker does not explain itself it sends nothing, and the connection ends."""
    with broker_with(silent_close_pause_ms=100, handshake_timeout_ms=1000) as server:
        with ThreadPoolExecutor(len(SILENT_ENDS)) as threads:
            ends = {name: threads.submit(end_silently, server, name) for name in SILENT_ENDS}
        failures = {name: end.exception() for name, end in ends.items() if end.exception()}

    assert not failures


def end_silently(server: Server, name: str) -> None:
    """Play one silent end: no frame may come after the last words."""
    stage, octets = SILENT_ENDS[name]
    with WireClient(server.host, server.port) as client:
        if stage == "open":
            client.handshake(heartbeat=1)
        elif stage == "tuned":
            client.log_in()
            client.expect(0, Connection.Tune)
        elif stage == "started":
            client.send_protocol_header()
            client.expect(0, Connection.Start)
        client.send(octets)
        if name in LAST_WORDS:
            client.expect(0, LAST_WORDS[name])
        client.expect_eof(timeout=15)
