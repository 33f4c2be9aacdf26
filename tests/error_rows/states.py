"""Frames and methods that can be read but do not belong where they come."""

from pamqp.commands import Basic, Channel, Queue
from wire import FRAME_BODY, FRAME_HEADER, FRAME_METHOD
from wire_methods import (
    Method,
    basic_ack,
    basic_publish,
    channel_close,
    channel_flow,
    channel_open,
    connection_close,
    connection_open,
    connection_start_ok,
    connection_tune_ok,
    content_header,
    longstr,
    queue_declare,
    shortstr,
    update_secret,
)

from error_rows import Act, Scene, connection_error, sends


def publish_then(*frames: tuple[int, bytes]) -> Act:
    """Send a basic.publish and then frames that may not be its content."""

    def act(s: Scene) -> None:
        s.send(basic_publish("", s.q))
        for frame_type, payload in frames:
            s.send_frame(frame_type, payload)

    return act


# Methods only a broker sends, with arguments that decode; the last three carry content.
SERVER_METHODS: list[tuple[str, Method]] = [
    ("channel.open-ok", Method(20, 11, longstr(""))),
    ("channel.flow-ok", Method(20, 21, b"\x01")),
    ("access.request-ok", Method(30, 11, b"\x00\x01")),
    ("exchange.declare-ok", Method(40, 11)),
    ("exchange.delete-ok", Method(40, 21)),
    ("exchange.bind-ok", Method(40, 31)),
    ("exchange.unbind-ok", Method(40, 51)),
    ("queue.declare-ok", Method(50, 11, shortstr("q") + bytes(8))),
    ("queue.bind-ok", Method(50, 21)),
    ("queue.purge-ok", Method(50, 31, bytes(4))),
    ("queue.delete-ok", Method(50, 41, bytes(4))),
    ("queue.unbind-ok", Method(50, 51)),
    ("basic.qos-ok", Method(60, 11)),
    ("basic.consume-ok", Method(60, 21, shortstr("tag"))),
    ("basic.get-empty", Method(60, 72, shortstr(""))),
    ("basic.recover-ok", Method(60, 111)),
    ("confirm.select-ok", Method(85, 11)),
    ("tx.select-ok", Method(90, 11)),
    ("tx.commit-ok", Method(90, 21)),
    ("tx.rollback-ok", Method(90, 31)),
    ("basic.return", Method(60, 50, bytes(2) + shortstr("") * 3)),
    ("basic.deliver", Method(60, 60, shortstr("tag") + bytes(9) + shortstr("") * 2)),
    ("basic.get-ok", Method(60, 71, bytes(9) + shortstr("") * 2 + bytes(4))),
]


def send_server_method(method: Method) -> Act:
    """Send a method no client sends, with an empty content where one belongs."""
    if method.ids in ((60, 50), (60, 60), (60, 71)):
        return lambda s: s.send(method).send_frame(FRAME_HEADER, content_header(0))
    return sends(method)


WRONG_HEADER = "expected content header for class 60, got non content header frame instead"
WRONG_BODY = "expected content body, got non content body frame instead"
NO_METHOD = "expected method frame, got non method frame instead"
OTHER_METHOD = queue_declare("", passive=True).payload


# fmt: off
STATE_ROWS = [
    connection_error("header-without-method", 505, NO_METHOD, None,
        lambda s: s.send_frame(FRAME_HEADER, content_header(0))),
    connection_error("body-without-method", 505, NO_METHOD, None,
        lambda s: s.send_frame(FRAME_BODY, b"x")),
    connection_error("body-after-empty-content", 505, NO_METHOD, None,
        publish_then((FRAME_HEADER, content_header(0)), (FRAME_BODY, b"x"))),
    connection_error("body-after-whole-content", 505, NO_METHOD, None,
        publish_then((FRAME_HEADER, content_header(1)), (FRAME_BODY, b"x"), (FRAME_BODY, b"y"))),
    connection_error("header-on-unopened-channel", 505, NO_METHOD, None,
        lambda s: s.send_frame(FRAME_HEADER, content_header(0), channel=5)),
    connection_error("method-for-header", 505, WRONG_HEADER, Basic.Publish,
        publish_then((1, OTHER_METHOD))),
    connection_error("body-for-header", 505, WRONG_HEADER, Basic.Publish,
        publish_then((FRAME_BODY, b"x"))),
    connection_error("header-with-weight", 505, WRONG_HEADER, Basic.Publish,
        publish_then((FRAME_HEADER, content_header(0, weight=1)))),
    connection_error("header-of-other-class", 505,
        "expected content header for class 60, got one for class 50 instead", Basic.Publish,
        publish_then((FRAME_HEADER, content_header(0, class_id=50)))),
    connection_error("method-for-body", 505, WRONG_BODY, Basic.Publish,
        publish_then((FRAME_HEADER, content_header(5)), (FRAME_METHOD, OTHER_METHOD))),
    connection_error("header-for-body", 505, WRONG_BODY, Basic.Publish,
        publish_then((FRAME_HEADER, content_header(5)), (FRAME_HEADER, content_header(5)))),
    connection_error("method-in-mid-body", 505, WRONG_BODY, Basic.Publish,
        publish_then((FRAME_HEADER, content_header(5)), (FRAME_BODY, b"12"),
            (FRAME_METHOD, OTHER_METHOD))),
    connection_error("body-longer-than-announced", 501,
        "content body frame exceeds remaining content size", Basic.Publish,
        publish_then((FRAME_HEADER, content_header(3)), (FRAME_BODY, b"1234")),
        differs_on_310=True),
    connection_error("body-longer-than-announced-in-second-frame", 501,
        "content body frame exceeds remaining content size", Basic.Publish,
        publish_then((FRAME_HEADER, content_header(3)), (FRAME_BODY, b"12"), (FRAME_BODY, b"34")),
        differs_on_310=True),
    connection_error("body-announced-beyond-any-limit", 501,
        "content body size 536870913 exceeds maximum allowed size 536870912", Basic.Publish,
        publish_then((FRAME_HEADER, content_header(536870913))), differs_on_310=True),
    *(
        connection_error(f"channel-0-{case}", 504, "unexpected method in connection state running",
            method.ids, sends(method, channel=0))
        for case, method in [
            ("channel-open", channel_open()),
            ("queue-declare", queue_declare("")),
            ("publish", basic_publish()),
            ("start-ok", connection_start_ok("PLAIN", b"")),
            ("tune-ok", connection_tune_ok(0, 0)),
            ("second-open", connection_open("/")),
            ("blocked", Method(10, 60, shortstr("why"))),
        ]
    ),
    *(
        connection_error(f"class-10-on-a-channel-{case}", 503, "unimplemented method", method.ids,
            sends(method))
        for case, method in [
            ("close", connection_close()),
            ("open", connection_open("/")),
            ("update-secret", update_secret("secret")),
        ]
    ),
    *(
        connection_error(f"unopened-channel-{case}", 504, "expected 'channel.open'", method.ids,
            sends(method, channel=7))
        for case, method in [
            ("declare", queue_declare("")),
            ("ack", basic_ack(1)),
            ("channel-close", channel_close()),
            ("channel-close-ok", Method(20, 41)),
        ]
    ),
    connection_error("unopened-channel-publish", 504, "expected 'channel.open'", Basic.Publish,
        lambda s: s.publish("", s.q, channel=7)),
    connection_error("closed-channel-declare", 504, "expected 'channel.open'", Queue.Declare,
        lambda s: s.close_channel().send(queue_declare(""))),
    connection_error("channel-open-twice", 504, "second 'channel.open' seen", Channel.Open,
        lambda s: s.send(channel_open())),
    connection_error("channel-open-before-close-ok", 504, "second 'channel.open' seen",
        Channel.Open, lambda s: s.send(basic_ack(1)).expect(Channel.Close).send(channel_open())),
    *(
        connection_error(f"server-method-{name}", 503, "unimplemented method", method.ids,
            send_server_method(method))
        for name, method in SERVER_METHODS
    ),
    connection_error("channel-flow-off", 540, "active=false", Channel.Flow,
        lambda s: s.send(channel_flow(False))),
]
# fmt: on
