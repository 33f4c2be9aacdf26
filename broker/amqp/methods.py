"""Methods by name: every one that is not on the hot path is decoded and encoded here.

pamqp is the catalogue: its command classes say which method has which id, and which arguments of
which wire type in which order. The octets are read and written by a few functions of our own,
because pamqp's decoder gives tables without the type tags that RabbitMQ compares and reports,
accepts trailing octets, and checks values (names, lengths) where RabbitMQ does not.
"""

from struct import Struct, error
from typing import Final, TypeVar

from pamqp import base, commands

from broker.amqp.frames import FRAME_HEAD, METHOD
from broker.core.table import Table, TableError, check_table
from broker.core.terms import bytes_term
from broker.errors import CommandInvalid, FrameError

Command = TypeVar("Command", bound=base.Frame)

_SHORT: Final = Struct(">H")
_LONG: Final = Struct(">I")
_LONG_LONG: Final = Struct(">Q")


class AccessRequest(base.Frame):
    """access.request, which the standard dropped and old clients still send."""

    __slots__ = ("active", "exclusive", "passive", "read", "realm", "write")

    frame_id = 10
    index = 0x001E000A
    name = "Access.Request"
    _realm = "shortstr"
    _exclusive = "bit"
    _passive = "bit"
    _active = "bit"
    _write = "bit"
    _read = "bit"

    @classmethod
    def attributes(cls) -> list[str]:
        return ["realm", "exclusive", "passive", "active", "write", "read"]


class AccessRequestOk(base.Frame):
    """access.request-ok"""

    __slots__ = ("ticket",)

    frame_id = 11
    index = 0x001E000B
    name = "Access.RequestOk"
    _ticket = "short"

    @classmethod
    def attributes(cls) -> list[str]:
        return ["ticket"]


def _signature(command: type[base.Frame]) -> tuple[tuple[str, str], ...]:
    return tuple((name, command.amqp_type(name)) for name in command.attributes())


#: Arguments of each method, (name, wire type) in wire order, by class << 16 | method.
_COMMANDS: Final[dict[int, type[base.Frame]]] = {
    **commands.INDEX_MAPPING,
    AccessRequest.index: AccessRequest,
    AccessRequestOk.index: AccessRequestOk,
}
_SIGNATURES: Final = {index: _signature(command) for index, command in _COMMANDS.items()}
# pamqp calls it a short string; RabbitMQ and every client read a long one.
_SIGNATURES[commands.Channel.OpenOk.index] = (("channel_id", "longstr"),)


class TableLimits:
    """What a field table of a client may hold."""

    __slots__ = ("depth_max", "fields_max")

    def __init__(self, depth_max: int, fields_max: int) -> None:
        self.depth_max = depth_max
        self.fields_max = fields_max


class MalformedText(FrameError):
    """A short string that is not UTF-8; RabbitMQ names no method for it."""


def name_of(index: int) -> str:
    """`queue.declare` for 0x0032000A, as RabbitMQ's log has it; `none` for what is no method."""
    command = _COMMANDS.get(index)
    if command is None:
        return "none"
    words = command.name.split(".")
    method = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in words[1])
    return f"{words[0].lower()}.{method.lstrip('_')}"


def decode(payload: bytes, limits: TableLimits) -> base.Frame:
    """The method in `payload`, as an instance of pamqp's class for it.

    Tables become `Table`; read them with `table_of`. Raises CommandInvalid for an unknown method
    and FrameError, in RabbitMQ's words, for arguments that are short, too long or not UTF-8.
    """
    index = _LONG.unpack_from(payload, 0)[0] if len(payload) >= 4 else 0
    command = _COMMANDS.get(index)
    if command is None:
        raise CommandInvalid("unimplemented method")
    decoded = command.__new__(command)
    at = 4
    bit = 0
    try:
        for name, kind in _SIGNATURES[index]:
            if kind == "bit":
                if not bit:
                    at += 1
                setattr(decoded, name, bool(payload[at - 1] & 1 << bit))
                bit = (bit + 1) & 7
                continue
            bit = 0
            value, at = _read(payload, at, kind, limits)
            setattr(decoded, name, value)
    except (IndexError, error, TableError):
        raise _undecodable(payload) from None
    except UnicodeDecodeError:
        raise MalformedText("Malformed UTF-8 in shortstr") from None
    if at != len(payload):
        raise _undecodable(payload)
    return decoded


def _undecodable(payload: bytes) -> FrameError:
    return FrameError(f"cannot decode {bytes_term(payload[4:])}")


def _read(payload: bytes, at: int, kind: str, limits: TableLimits) -> tuple[object, int]:
    if kind == "shortstr":
        end = at + 1 + payload[at]
        if end > len(payload):
            raise IndexError
        return payload[at + 1 : end].decode(), end
    if kind == "short":
        return _SHORT.unpack_from(payload, at)[0], at + 2
    if kind == "long":
        return _LONG.unpack_from(payload, at)[0], at + 4
    if kind == "longlong":
        return _LONG_LONG.unpack_from(payload, at)[0], at + 8
    if kind == "octet":
        return payload[at], at + 1
    end = at + 4 + _LONG.unpack_from(payload, at)[0]
    if end > len(payload):
        raise IndexError
    if kind == "longstr":
        return payload[at + 4 : end], end
    assert kind == "table", f"no method has an argument of type {kind}"
    check_table(payload, at + 4, end, limits.depth_max, limits.fields_max)
    return Table.trusted(payload[at + 4 : end]), end


def table_of(method: base.Frame, name: str = "arguments") -> Table:
    """A table argument of a decoded method."""
    value = getattr(method, name)
    assert isinstance(value, Table), f"{method.name} was decoded here"
    return value


def encode(command: type[base.Frame], channel: int, **arguments: object) -> bytes:
    """A whole method frame.

    Arguments:
        arguments: by name, all of them; tables as `Table`, longstrs as bytes.
    """
    payload = bytearray(_LONG.pack(command.index))
    bit = 0
    for name, kind in _SIGNATURES[command.index]:
        value = arguments[name]
        if kind == "bit":
            if not bit:
                payload.append(0)
            if value:
                payload[-1] |= 1 << bit
            bit = (bit + 1) & 7
            continue
        bit = 0
        _write(payload, kind, value)
    return FRAME_HEAD.pack(METHOD, channel, len(payload)) + bytes(payload) + b"\xce"


def _write(payload: bytearray, kind: str, value: object) -> None:
    if isinstance(value, Table):
        payload += _LONG.pack(len(value.raw)) + value.raw
    elif kind == "shortstr":
        assert isinstance(value, str), "a shortstr is given as text"
        raw = value.encode("utf-8", "surrogateescape")
        assert len(raw) < 256, "a shortstr has at most 255 octets"
        payload.append(len(raw))
        payload += raw
    elif kind == "longstr":
        assert isinstance(value, bytes), "a longstr is given as bytes"
        payload += _LONG.pack(len(value)) + value
    else:
        assert isinstance(value, int), f"an argument of type {kind} is an integer"
        payload += value.to_bytes(_WIDTHS[kind], "big")


_WIDTHS: Final = {"octet": 1, "short": 2, "long": 4, "longlong": 8}
