"""Editing a content header: what is not edited keeps its bytes."""

from typing import Any

import pytest
from core_support import a_header
from pamqp import commands, header

from broker.core.message import FLAGS_AT, Properties, frame_form, peek_properties
from broker.core.properties import (
    extra_routing_keys,
    headers_table,
    message_headers,
    with_reply_to,
    without_header,
)
from broker.core.table import Field, Table
from broker.errors import PreconditionFailed


def peek(header_frame: bytes) -> Properties:
    """What a peek finds in a header in frame form."""
    flags = int.from_bytes(header_frame[FLAGS_AT : FLAGS_AT + 2], "big")
    return peek_properties(header_frame, flags, 64, 1000)


def decoded(header_frame: bytes) -> header.ContentHeader:
    """A header in frame form as pamqp reads it."""
    content_header = header.ContentHeader()
    content_header.unmarshal(header_frame[4:-1])
    return content_header


def header_with(table: Table, **properties: Any) -> bytes:
    """A header with this very table, whatever its tags, before other properties."""
    encoded = a_header(commands.Basic.Properties(headers={"x": 1}, **properties), 9)
    found = peek(encoded)
    before, after = encoded[4 : found.headers_start - 4], encoded[found.headers_end : -1]
    return frame_form(before + len(table.raw).to_bytes(4, "big") + table.raw + after)


def an_array(*elements: Field) -> Table:
    """A table whose CC is this array."""
    return Table.encode([("CC", Field("A", elements))])


def test_headers_table_is_what_the_client_sent() -> None:
    """The table of a header is its bytes, tags and order included."""
    table = Table.encode([("b", Field("s", 1)), ("a", Field("L", 2))])
    header_frame = header_with(table, reply_to="r")

    assert headers_table(header_frame, peek(header_frame)) == table


def test_headers_table_of_a_header_without_one_is_empty() -> None:
    """No headers are no entries."""
    header_frame = a_header(commands.Basic.Properties(reply_to="r"))

    assert not headers_table(header_frame, peek(header_frame))


def test_no_extra_routing_keys_without_the_header() -> None:
    """A message without CC has no routing key but its own; the name is case-sensitive."""
    assert extra_routing_keys(Table.from_python({"cc": ["a"]}), "CC") == []


def test_extra_routing_keys_are_the_strings_of_the_array() -> None:
    """The keys come in order; elements that are not strings are ignored."""
    table = an_array(Field("S", b"a"), Field("I", 1), Field("x", b"b"), Field("S", b""))

    assert extra_routing_keys(table, "CC") == [b"a", b""]


@pytest.mark.parametrize(
    ("field", "type_name"),
    [
        (Field("S", b"key"), "longstr"),
        (Field("F", Table.EMPTY), "table"),
        (Field("V", None), "void"),
    ],
)
def test_extra_routing_keys_must_be_an_array(field: Field, type_name: str) -> None:
    """Anything but an array is refused in RabbitMQ's words."""
    with pytest.raises(PreconditionFailed) as refused:
        extra_routing_keys(Table.encode([("BCC", field)]), "BCC")

    text = f'invalid message: {{unacceptable_type_in_header,"BCC",{type_name}}}'
    assert refused.value.text == text


def test_without_header_removes_one_entry() -> None:
    """The entry goes; the other entries keep their tags and order, and the properties stay."""
    kept = [("z", Field("s", 1)), ("CC", Field("A", (Field("S", b"k"),))), ("a", Field("L", 2))]
    table = Table.encode([*kept[:2], ("BCC", Field("A", ())), *kept[2:]])
    header_frame = header_with(table, content_type="text/plain", delivery_mode=2, user_id="guest")
    edited = without_header(header_frame, peek(header_frame), "BCC")

    assert edited == header_with(
        Table.encode(kept), content_type="text/plain", delivery_mode=2, user_id="guest"
    )
    assert decoded(edited).body_size == 9


def test_without_header_removes_every_entry_of_that_name() -> None:
    """A name given twice is gone altogether, so that no receiver finds it."""
    table = Table.encode([("BCC", Field("A", ())), ("BCC", Field("A", (Field("S", b"secret"),)))])
    header_frame = header_with(table)

    assert b"secret" not in without_header(header_frame, peek(header_frame), "BCC")


def test_without_header_leaves_an_empty_table() -> None:
    """Headers that lose their only entry are an empty table, not absent."""
    header_frame = header_with(Table.from_python({"BCC": ["k"]}))
    edited = without_header(header_frame, peek(header_frame), "BCC")

    assert edited == header_with(Table.EMPTY)


def test_with_reply_to_replaces_that_property_alone() -> None:
    """The new name takes the place of the old, whatever the lengths."""
    name = "amq.rabbitmq.reply-to.AAAAAAAAAAAAAAAAAAAAAQ"
    values: dict[str, Any] = {"headers": {"a": 1}, "correlation_id": "c", "user_id": "guest"}
    original = a_header(commands.Basic.Properties(reply_to="amq.rabbitmq.reply-to", **values), 9)
    edited = with_reply_to(original, peek(original), name)

    assert edited == a_header(commands.Basic.Properties(reply_to=name, **values), 9)


@pytest.mark.parametrize("content_type", [None, "text/plain"])
@pytest.mark.parametrize("content_encoding", [None, "utf-8"])
def test_message_headers_are_found_behind_content_type_and_encoding(
    content_type: str | None, content_encoding: str | None
) -> None:
    """The inside of the headers table is found whatever stands before it."""
    header_frame = a_header(
        commands.Basic.Properties(
            content_type=content_type,
            content_encoding=content_encoding,
            headers={"a": 1},
            message_id="m",
        )
    )
    found = peek(header_frame)

    assert message_headers(header_frame) == header_frame[found.headers_start : found.headers_end]


def test_message_headers_are_empty_without_a_table() -> None:
    """A header without headers has none."""
    assert message_headers(a_header(commands.Basic.Properties(content_type="a"))) == b""
