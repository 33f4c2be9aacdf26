"""Log lines: RabbitMQ's shape as text, one object per line as JSON."""

import io
import json
import logging
import re
from typing import Any

from broker.logs import make_handler

TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}\+00:00"


def logged(format: str, text: str, *arguments: object, **options: Any) -> str:
    """What a logger of its own writes for one call, in `format`."""
    stream = io.StringIO()
    logger = logging.Logger("test")
    logger.addHandler(make_handler(format, stream))
    logger.warning(text, *arguments, **options)
    return stream.getvalue()


def test_a_text_line_has_the_shape_of_rabbitmq() -> None:
    """Time with microseconds and offset, level, process, text."""
    line = logged("text", "no queue '%s'", "orders", extra={"process_id": "<0.3796.0>"})
    shape = rf"{TIME} \[warning\] <0\.3796\.0> no queue 'orders'\n"
    assert re.fullmatch(shape, line)


def test_a_line_without_process_is_about_the_broker() -> None:
    """The process of the broker itself stands in lines that name none."""
    assert logged("text", "started").endswith(" [warning] <0.1.0> started\n")


def test_the_time_is_when_it_was_logged() -> None:
    """The time is UTC, whatever the time zone of the machine."""
    record = logging.makeLogRecord({"created": 1795268030.677845, "levelname": "INFO", "msg": "x"})
    formatter = make_handler("text", io.StringIO()).formatter
    assert formatter is not None
    assert formatter.format(record) == "2026-11-21 13:33:50.677845+00:00 [info] <0.1.0> x"


def test_a_client_cannot_forge_a_line() -> None:
    """Every line of a text begins with the true time and process, and escapes are made visible."""
    lines = logged("text", "name: a\n2026 [info] b\x1b[2J", extra={"process_id": "<0.7.0>"})
    first, second = lines.splitlines()
    assert first.endswith("[warning] <0.7.0> name: a")
    assert second.endswith("[warning] <0.7.0> 2026 [info] b\\x1b[2J")


def test_an_empty_text_is_a_line() -> None:
    """A text of nothing still says when and who."""
    assert logged("text", "").endswith("[warning] <0.1.0> \n")


def test_a_traceback_follows_its_text() -> None:
    """Each line of a traceback is a log line."""
    lines = logged("text", "failed", exc_info=ValueError("why")).splitlines()
    assert lines[0].endswith("<0.1.0> failed")
    assert lines[-1].endswith("<0.1.0> ValueError: why")


def test_a_json_line_is_one_object() -> None:
    """Time, level, process, text and whatever else the caller gave."""
    line = logged(
        "json", "user '%s'\nin", "guest", extra={"process_id": "<0.9.0>", "vhost": "/", "peer": 5}
    )
    entry = json.loads(line)
    assert line.count("\n") == 1
    assert re.fullmatch(TIME, entry.pop("time"))
    assert entry == {
        "level": "warning",
        "process": "<0.9.0>",
        "msg": "user 'guest'\nin",
        "vhost": "/",
        "peer": 5,
    }


def test_a_json_line_carries_a_traceback() -> None:
    """An exception is a field of the object."""
    entry = json.loads(logged("json", "failed", exc_info=ValueError("why")))
    assert entry["exception"] == "ValueError: why"


def test_a_json_line_shows_any_value() -> None:
    """What JSON cannot say is written as text rather than losing the line."""
    entry = json.loads(logged("json", "x", extra={"body": b"a", "time": "mine"}))
    assert entry["body"] == "b'a'"
    assert entry["time"] != "mine"
