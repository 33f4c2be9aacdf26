"""Messages as bytes, and the peek at the properties that the broker acts on."""

from datetime import UTC, datetime
from typing import Any

import pytest
from core_support import a_header, an_address
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp import commands

from broker.core.message import (
    FLAGS_AT,
    HEADERS,
    MalformedHeader,
    Message,
    Properties,
    frame_form,
    peek_properties,
)
from broker.core.table import DEPTH_MAX, Field, Table, TableError

FIELDS_MAX = 1000

EVERY_PROPERTY: dict[str, Any] = {
    "content_type": "text/plain",
    "content_encoding": "utf-8",
    "headers": {"a": 1, "b": "two", "c": {"d": True}},
    "delivery_mode": 2,
    "priority": 7,
    "correlation_id": "c",
    "reply_to": "somebody",
    "expiration": "1000",
    "message_id": "m",
    "timestamp": datetime(2024, 1, 1, tzinfo=UTC),
    "message_type": "t",
    "user_id": "guest",
    "app_id": "app",
}

some_properties = st.sets(st.sampled_from(sorted(EVERY_PROPERTY))).map(
    lambda names: {name: EVERY_PROPERTY[name] for name in names}
)


def flags_of(header_frame: bytes) -> int:
    """The property flags of a header."""
    return int.from_bytes(header_frame[FLAGS_AT : FLAGS_AT + 2], "big")


def peek(
    header_frame: bytes, depth_max: int = DEPTH_MAX, fields_max: int = FIELDS_MAX
) -> Properties:
    """What a peek finds in a header in frame form."""
    return peek_properties(header_frame, flags_of(header_frame), depth_max, fields_max)


def header_with_table(raw: bytes) -> bytes:
    """A header with nothing but this headers table."""
    head = b"\x00\x3c\x00\x00" + bytes(8) + HEADERS.to_bytes(2, "big")
    return frame_form(head + len(raw).to_bytes(4, "big") + raw)


@given(some_properties)
@settings(deadline=None)
def test_peek_finds_what_the_broker_acts_on(values: dict[str, Any]) -> None:
    """Whatever else a header has, the few properties that matter are found."""
    header = a_header(commands.Basic.Properties(**values))
    found = peek(header)

    assert found.delivery_mode == values.get("delivery_mode", 0)
    assert found.priority == values.get("priority", 0)
    for name in ("reply_to", "expiration", "user_id"):
        value = values.get(name)
        assert getattr(found, name) == (value.encode() if value is not None else None)


def test_peek_says_where_headers_and_reply_to_lie() -> None:
    """The spans are those of the inside of the table, and of reply-to with its length octet."""
    header = a_header(commands.Basic.Properties(**EVERY_PROPERTY))
    found = peek(header)

    table = Table.parse(header[found.headers_start : found.headers_end])
    assert [name for name, _ in table.items()] == ["a", "b", "c"]
    assert header[found.reply_to_start : found.reply_to_end] == b"\x08somebody"


def test_absent_properties_have_no_place() -> None:
    """A header without properties gives zeros and None."""
    found = peek(a_header())

    assert (found.headers_start, found.headers_end) == (0, 0)
    assert (found.reply_to_start, found.reply_to_end) == (0, 0)
    assert (found.reply_to, found.expiration, found.user_id) == (None, None, None)


@given(some_properties.filter(bool), st.integers(1, 200))
@settings(deadline=None)
def test_a_header_that_ends_early_is_refused(values: dict[str, Any], missing: int) -> None:
    """No cut through the properties goes unnoticed, wherever it is."""
    payload = a_header(commands.Basic.Properties(**values))[4:-1]
    cut = frame_form(payload[: max(FLAGS_AT - 2, len(payload) - missing)])

    with pytest.raises((MalformedHeader, TableError, IndexError)):
        peek_properties(cut, flags_of(frame_form(payload)), DEPTH_MAX, FIELDS_MAX)


@given(some_properties)
@settings(deadline=None)
def test_octets_behind_the_properties_are_refused(values: dict[str, Any]) -> None:
    """The properties must end where the header does."""
    payload = a_header(commands.Basic.Properties(**values))[4:-1]

    with pytest.raises(MalformedHeader):
        peek(frame_form(payload + b"\x00"))


def test_a_malformed_headers_table_is_refused() -> None:
    """The inside of the table is checked, so that no consumer ever meets it."""
    with pytest.raises(TableError):
        peek(header_with_table(b"\x01a\x00"))


def test_a_headers_table_too_deep_is_refused() -> None:
    """The limit of nesting holds for headers."""
    table = Table.from_python({"a": {"b": {"c": 1}}})

    assert peek(header_with_table(table.raw), depth_max=3).headers_end
    with pytest.raises(TableError):
        peek(header_with_table(table.raw), depth_max=2)


def test_a_headers_table_with_too_many_fields_is_refused() -> None:
    """The limit of fields holds for headers."""
    table = Table.encode([(f"h{number}", Field("t", True)) for number in range(4)])

    assert peek(header_with_table(table.raw), fields_max=4).headers_end
    with pytest.raises(TableError):
        peek(header_with_table(table.raw), fields_max=3)


def test_a_headers_table_longer_than_the_header_is_refused() -> None:
    """A length that points behind the header is an error, not an invitation."""
    payload = header_with_table(b"")[4:-1]

    with pytest.raises(MalformedHeader):
        peek(frame_form(payload[:-4] + b"\xff\xff\xff\xff"))


def test_frame_form_is_a_frame_without_type_and_channel() -> None:
    """Frame form is the length, the payload and the end octet."""
    assert frame_form(b"abc") == b"\x00\x00\x00\x03abc\xce"


def test_a_message_shows_its_parts() -> None:
    """Exchange, key, header and body are read out of the bytes they came as."""
    header = a_header(commands.Basic.Properties(content_type="text/plain"), 5)
    message = Message(an_address("orders", "eu.paid"), header, frame_form(b"hello"), 5, True)

    assert message.exchange == "orders"
    assert message.routing_key == "eu.paid"
    assert frame_form(message.header) == header
    assert message.body == b"hello"


def test_a_message_may_have_neither_names_nor_body() -> None:
    """The default exchange, an empty key and no body at all are all empty."""
    message = Message(an_address(), a_header(), b"", 0, False)

    assert (message.exchange, message.routing_key, message.body) == ("", "", b"")


def test_names_need_not_be_ascii() -> None:
    """Exchange and key are UTF-8; their lengths count octets."""
    message = Message(an_address("größe", "schlüssel"), a_header(), b"", 0, False)

    assert (message.exchange, message.routing_key) == ("größe", "schlüssel")
