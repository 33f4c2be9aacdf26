"""Methods: every one of the catalogue there and back, and no octets that do worse than err.

pamqp reads what is written here and writes what is read: it is an implementation of its own.
"""

import struct
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp import base, commands
from pamqp import frame as pamqp_frame
from wire_methods import access_request, shortstr, table

from broker.amqp import methods
from broker.amqp.methods import AccessRequest, AccessRequestOk, MalformedText, TableLimits
from broker.core.table import Table
from broker.errors import AMQPError, CommandInvalid, FrameError

COMMANDS: list[type[base.Frame]] = [
    *commands.INDEX_MAPPING.values(),
    AccessRequest,
    AccessRequestOk,
]
LIMITS = TableLimits(depth_max=8, fields_max=100)

SHORTSTRS = st.text(max_size=60).filter(lambda text: len(text.encode()) < 256)

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "bit": st.booleans(),
    "octet": st.integers(0, 2**8 - 1),
    "short": st.integers(0, 2**16 - 1),
    "long": st.integers(0, 2**32 - 1),
    "longlong": st.integers(0, 2**64 - 1),
    "shortstr": SHORTSTRS,
    "longstr": st.binary(max_size=300),
    "table": st.dictionaries(
        SHORTSTRS, st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), st.text(max_size=9))
    ).map(lambda content: Table.from_python({**content})),
}


def kind_of(command: type[base.Frame], name: str) -> str:
    """The wire type of an argument; of channel.open-ok's the one that is on the wire."""
    return "longstr" if command is commands.Channel.OpenOk else command.amqp_type(name)


def arguments_of(command: type[base.Frame]) -> st.SearchStrategy[dict[str, Any]]:
    """Any arguments that fit a method."""
    return st.fixed_dictionaries(
        {name: VALUES[kind_of(command, name)] for name in command.attributes()}
    )


CALLS = st.sampled_from(COMMANDS).flatmap(
    lambda command: st.tuples(st.just(command), arguments_of(command))
)


def payload_of(command: type[base.Frame], arguments: dict[str, Any]) -> bytes:
    """The payload of a method frame."""
    return methods.encode(command, 1, **arguments)[7:-1]


def values_of(method: base.Frame) -> dict[str, object]:
    """The arguments of a decoded method."""
    return {name: getattr(method, name) for name in method.attributes()}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
@settings(max_examples=20)
@given(data=st.data())
def test_every_method_round_trips(command: type[base.Frame], data: st.DataObject) -> None:
    """Whatever the arguments, what was encoded is decoded again."""
    arguments = data.draw(arguments_of(command))

    encoded = methods.encode(command, 513, **arguments)
    decoded = methods.decode(encoded[7:-1], LIMITS)

    assert encoded[:3] == b"\x01\x02\x01"
    assert struct.unpack_from(">I", encoded, 3)[0] == len(encoded) - 8
    assert encoded[-1] == 0xCE
    assert type(decoded) is command
    assert values_of(decoded) == arguments


@pytest.mark.filterwarnings("ignore:This command is deprecated")
@pytest.mark.parametrize("command", commands.INDEX_MAPPING.values(), ids=lambda each: each.name)
def test_pamqp_reads_what_we_write(command: type[base.Frame]) -> None:
    """An independent decoder finds the arguments that were encoded."""
    examples: dict[str, Any] = {
        "bit": True,
        "octet": 9,
        "short": 320,
        "long": 131072,
        "longlong": 2**40,
        "shortstr": "amq.direct",
        "longstr": b"longer",
        "table": Table.from_python({"key": "value"}),
    }
    arguments = {name: examples[kind_of(command, name)] for name in command.attributes()}
    if command is commands.Channel.OpenOk:
        arguments["channel_id"] = b""  # to pamqp this is a shortstr, which an empty one may be

    size, channel, decoded = pamqp_frame.unmarshal(methods.encode(command, 7, **arguments))

    assert isinstance(decoded, command)
    assert channel == 7
    assert size == len(methods.encode(command, 7, **arguments))
    for name, value in arguments.items():
        expected = value
        if isinstance(value, Table):
            expected = value.to_python()
        elif isinstance(value, bytes):
            expected = value.decode()
        found = getattr(decoded, name)
        assert (found.decode() if isinstance(found, bytes) else found) == expected


def test_pamqp_writes_what_we_read() -> None:
    """The bits of an independent encoder are found where it put them."""
    written = pamqp_frame.marshal(
        commands.Queue.Declare(queue="q", durable=True, auto_delete=True, arguments={"x-a": "b"}), 1
    )

    decoded = methods.decode(written[7:-1], LIMITS)

    assert isinstance(decoded, commands.Queue.Declare)
    assert (decoded.passive, decoded.durable, decoded.exclusive) == (False, True, False)
    assert (decoded.auto_delete, decoded.nowait) == (True, False)
    assert methods.table_of(decoded).to_python() == {"x-a": "b"}


@given(CALLS, st.data())
def test_truncated_method_is_an_error(
    call: tuple[type[base.Frame], dict[str, Any]], data: st.DataObject
) -> None:
    """A payload cut anywhere raises an AMQPError, and nothing else."""
    payload = payload_of(*call)
    length = data.draw(st.integers(0, len(payload) - 1))

    with pytest.raises(AMQPError):
        methods.decode(payload[:length], LIMITS)


@given(CALLS, st.binary(min_size=1, max_size=40))
def test_extended_method_is_an_error(
    call: tuple[type[base.Frame], dict[str, Any]], more: bytes
) -> None:
    """Octets behind the last argument raise an AMQPError."""
    with pytest.raises(FrameError, match="cannot decode"):
        methods.decode(payload_of(*call) + more, LIMITS)


@given(st.sampled_from(COMMANDS), st.binary(max_size=120))
def test_any_arguments_decode_or_err(command: type[base.Frame], arguments: bytes) -> None:
    """Random arguments raise an AMQPError, or they are arguments that can be encoded again."""
    try:
        decoded = methods.decode(struct.pack(">I", command.index) + arguments, LIMITS)
    except AMQPError:
        return
    again = methods.decode(payload_of(command, values_of(decoded)), LIMITS)
    assert values_of(again) == values_of(decoded)


@given(CALLS, st.data())
def test_altered_method_decodes_or_errs(
    call: tuple[type[base.Frame], dict[str, Any]], data: st.DataObject
) -> None:
    """An octet changed anywhere raises an AMQPError or gives another method."""
    payload = bytearray(payload_of(*call))
    payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))

    with suppress(AMQPError):
        methods.decode(bytes(payload), LIMITS)


@pytest.mark.parametrize("payload", [b"", b"\0", b"\0\x0a\0", b"\xff\xff\xff\xff", b"\0\x0a\0\x63"])
def test_unknown_method(payload: bytes) -> None:
    """What is in no catalogue is refused before its arguments are looked at."""
    with pytest.raises(CommandInvalid, match="unimplemented method"):
        methods.decode(payload, LIMITS)


def test_text_that_is_not_utf_8() -> None:
    """A shortstr of other octets has an error of its own, which names no method."""
    with pytest.raises(MalformedText, match="Malformed UTF-8 in shortstr"):
        methods.decode(b"\0\x32\0\x0a\0\0" + shortstr(b"\xff\xfe") + b"\0" + table(), LIMITS)


def test_undecodable_arguments_are_quoted() -> None:
    """The error shows the arguments without the ids of their method."""
    with pytest.raises(FrameError, match=r"^cannot decode <<1,2,3>>$"):
        methods.decode(b"\0\x3c\0\x50\x01\x02\x03", LIMITS)


@pytest.mark.parametrize(
    "arguments",
    [
        b"\0\0\0\x05\x01aU\0\x01",
        b"\0\0\0\x09\x01aS\0\0\0\x09xx",
        table(*[(str(number), "t", True) for number in range(101)]),
    ],
    ids=["unknown-tag", "past-the-end", "too-many-fields"],
)
def test_table_that_is_refused(arguments: bytes) -> None:
    """A table that does not add up, or exceeds the limits, makes its method undecodable."""
    with pytest.raises(FrameError, match="cannot decode"):
        methods.decode(b"\0\x32\0\x0a\0\0" + shortstr("q") + b"\0" + arguments, LIMITS)


def test_table_that_is_too_deep() -> None:
    """Nesting is limited, so that no table can exhaust the stack."""
    nested: tuple[tuple[str, str, Any], ...] = ()
    for _ in range(9):
        nested = (("t", "F", nested),)
    with pytest.raises(FrameError, match="cannot decode"):
        methods.decode(b"\0\x32\0\x0a\0\0" + shortstr("q") + b"\0" + table(*nested), LIMITS)


def test_table_keeps_its_octets() -> None:
    """Tags and order of a table's entries are those of the client."""
    raw = table(("b", "s", 1), ("a", "L", 2), ("b", "V", None))

    decoded = methods.decode(b"\0\x32\0\x0a\0\0" + shortstr("q") + b"\0" + raw, LIMITS)

    assert methods.table_of(decoded).raw == raw[4:]


def test_access_request() -> None:
    """The method that the standard dropped is read as old clients write it."""
    decoded = methods.decode(access_request("/data").payload, LIMITS)

    assert isinstance(decoded, AccessRequest)
    assert values_of(decoded) == {
        "realm": "/data",
        "exclusive": True,
        "passive": True,
        "active": True,
        "write": True,
        "read": True,
    }


@pytest.mark.parametrize(
    ("index", "name"),
    [
        (0x0032000A, "queue.declare"),
        (0x0032000B, "queue.declare_ok"),
        (0x000A0046, "connection.update_secret"),
        (0x003C0064, "basic.recover_async"),
        (0x001E000A, "access.request"),
        (0, "none"),
        (0xFFFFFFFF, "none"),
    ],
)
def test_names_of_methods(index: int, name: str) -> None:
    """A method is called what RabbitMQ's log calls it."""
    assert methods.name_of(index) == name
