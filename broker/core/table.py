"""Field tables: the typed name-value lists of arguments, headers and client properties.

A table stays the bytes it arrived as. Its type tags and the order of its entries are visible to
clients (a header published as a short must come back as a short), so turning it into a Python
dict and back would lose what has to be kept. `Table` holds the bytes and decodes its fields the
first time someone asks; most tables pass through the broker and nobody ever does.

Bytes from a client are checked once, by `check_table`, when they enter: bounds, known tags, depth
and number of fields. It builds no objects, so that the check costs little enough to be made for
every published message. Whatever passed may be wrapped by `Table.trusted` and decoded later
without further checks; `Table.parse` does both steps.

The tags are those RabbitMQ uses, which is the list known as the "RabbitMQ/Qpid errata" rather than
the one printed in the AMQP 0-9-1 standard, section 4.2.1: `s` is a signed 16-bit integer, `l` and
`L` are both signed 64-bit, `x` is binary, and `U` does not exist. Tags inside arrays are the same,
without names.
"""

from struct import Struct
from typing import ClassVar, Final, TypeAlias

FieldValue: TypeAlias = (
    "bool | int | float | bytes | tuple[int, int] | Table | tuple[Field, ...] | None"
)

# What comparable() gives: a class of types and a value that is hashable and compares within it.
Comparable: TypeAlias = tuple[str, object]

# How deep Table.parse lets tables and arrays nest; the outermost table is the first level.
DEPTH_MAX: Final = 64

# Tags whose value is an integer for the arguments of queues, exchanges and consumers.
INTEGER_TAGS: Final = "bBsuIilL"

# Tag byte -> width of its value in bytes, or one of the four codes below.
_BYTES: Final = 252
_TABLE: Final = 253
_ARRAY: Final = 254
_UNKNOWN: Final = 255

_TYPE_NAMES: Final = {
    "t": "bool",
    "b": "byte",
    "B": "unsignedbyte",
    "s": "short",
    "u": "unsignedshort",
    "I": "signedint",
    "i": "unsignedint",
    "l": "long",
    "L": "long",
    "f": "float",
    "d": "double",
    "D": "decimal",
    "S": "longstr",
    "x": "binary",
    "T": "timestamp",
    "F": "table",
    "A": "array",
    "V": "void",
}

_COMPARABLE_CLASSES: Final = {
    "t": "bool",
    "b": "integer",
    "B": "integer",
    "s": "integer",
    "u": "integer",
    "I": "integer",
    "i": "integer",
    "l": "integer",
    "L": "integer",
    "D": "integer",
    "f": "float",
    "d": "float",
    "S": "string",
    "x": "string",
    "T": "timestamp",
    "F": "table",
    "A": "array",
    "V": "void",
}


def _widths() -> bytes:
    """Return the lookup from tag byte to width or code."""
    widths = bytearray([_UNKNOWN]) * 256
    for tag in b"V":
        widths[tag] = 0
    for tag in b"tbB":
        widths[tag] = 1
    for tag in b"su":
        widths[tag] = 2
    for tag in b"Iif":
        widths[tag] = 4
    for tag in b"D":
        widths[tag] = 5
    for tag in b"lLdT":
        widths[tag] = 8
    for tag in b"Sx":
        widths[tag] = _BYTES
    for tag in b"F":
        widths[tag] = _TABLE
    for tag in b"A":
        widths[tag] = _ARRAY
    return bytes(widths)


_WIDTHS: Final = _widths()
_SIGNED_TAGS: Final = b"bsIlL"
_FLOAT: Final = Struct(">f")
_DOUBLE: Final = Struct(">d")


class TableError(ValueError):
    """A field table is malformed, exceeds a limit, or cannot be encoded."""


class Field:
    """One value of a table or array, with the type tag it was sent with.

    The value is a bool for `t`; an int for `b B s u I i l L T` (for `T`, seconds since 1970); a
    float for `f d`; (scale, mantissa) for `D`; bytes for `S x`; a `Table` for `F`; a tuple of
    fields for `A`; None for `V`.
    """

    __slots__ = ("tag", "value")

    def __init__(self, tag: str, value: FieldValue) -> None:
        self.tag: Final = tag
        self.value: Final = value

    @property
    def type_name(self) -> str:
        """The type's name as it appears in reply texts."""
        return _TYPE_NAMES[self.tag]

    def comparable(self) -> Comparable:
        """Return (class, value) as the headers exchange compares values.

        Two fields match when these are equal: integers of any width, floats of either width, and
        strings and binaries compare by value alone; tables and arrays compare structurally, with
        the types of what they hold. The result is hashable.
        """
        value = self.value
        if isinstance(value, (Table, tuple)):
            return _COMPARABLE_CLASSES[self.tag], _structure(self)
        return _COMPARABLE_CLASSES[self.tag], value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Field):
            return NotImplemented
        return self.tag == other.tag and self.value == other.value

    def __hash__(self) -> int:
        return hash((self.tag, self.value))

    def __repr__(self) -> str:
        return f"Field({self.tag!r}, {self.value!r})"


class Table:
    """An immutable field table: its bytes, without the length before them, decoded on demand."""

    __slots__ = ("_fields", "_first", "raw")

    EMPTY: ClassVar["Table"]

    def __init__(self, raw: bytes) -> None:
        """Use `parse`, `trusted`, `encode` or `from_python` instead."""
        self.raw: Final = raw
        self._fields: list[tuple[str, Field]] | None = None
        self._first: dict[str, Field] | None = None

    @staticmethod
    def parse(raw: bytes, depth_max: int = DEPTH_MAX) -> "Table":
        """Check `raw`, the inside of a table, and wrap it; raise TableError if it is malformed."""
        check_table(raw, 0, len(raw), depth_max, len(raw))
        return Table(raw)

    @staticmethod
    def trusted(raw: bytes) -> "Table":
        """Wrap bytes that `check_table` accepted already."""
        return Table(raw)

    @staticmethod
    def encode(entries: list[tuple[str, Field]]) -> "Table":
        """Build a table from fields, keeping their tags and order.

        Raises TableError for a name longer than 255 bytes or a value that does not fit its tag.
        """
        parts: list[bytes] = []
        for name, field in entries:
            name_bytes = name.encode("utf-8", "surrogateescape")
            if len(name_bytes) > 255:
                raise TableError(f"field name of {len(name_bytes)} bytes is longer than 255")
            parts.append(bytes([len(name_bytes)]))
            parts.append(name_bytes)
            _write_field(field, parts)
        return Table(b"".join(parts))

    @staticmethod
    def from_python(values: dict[str, object]) -> "Table":
        """Build a table from Python values.

        bool becomes `t`; int `I`, or `l` if it needs more than 32 bits; float `d`; str and bytes
        `S`; None `V`; dict and `Table` `F`; list and tuple `A`. A `Field` is taken as it is.
        Raises TableError for any other type, and for what `encode` refuses.
        """
        entries: list[tuple[str, Field]] = []
        for name, value in values.items():
            entries.append((name, _field_from_python(value)))
        return Table.encode(entries)

    def get(self, name: str) -> Field | None:
        """Return the field called `name`, the first one if there are several."""
        first = self._first
        if first is None:
            first = {}
            for each_name, field in self._entries():
                if each_name not in first:
                    first[each_name] = field
            self._first = first
        return first.get(name)

    def items(self) -> list[tuple[str, Field]]:
        """Return names and fields in the order received, repeated names included.

        Names that are not UTF-8 carry their bytes as lone surrogates (`surrogateescape`).
        """
        return list(self._entries())

    def sorted_raw(self) -> bytes:
        """Return the bytes with entries sorted by name: the identity of binding arguments.

        Entries of the same name keep their order, since the first of them counts.
        """
        raw = self.raw
        entries: list[tuple[bytes, int, bytes]] = []
        position = 0
        while position < len(raw):
            name_end = position + 1 + raw[position]
            _, end = _read_field(raw, name_end)
            entries.append((raw[position + 1 : name_end], position, raw[position:end]))
            position = end
        entries.sort()
        return b"".join([entry for _, _, entry in entries])

    def to_python(self) -> dict[str, object]:
        """Return plain values for views and logs, the first of repeated names.

        Strings and binaries are decoded as UTF-8 with `surrogateescape`; timestamps are ints of
        seconds, decimals floats.
        """
        values: dict[str, object] = {}
        for name, field in self._entries():
            if name not in values:
                values[name] = _python_from_field(field)
        return values

    def _entries(self) -> list[tuple[str, Field]]:
        fields = self._fields
        if fields is None:
            fields = []
            raw = self.raw
            position = 0
            while position < len(raw):
                name_end = position + 1 + raw[position]
                name = raw[position + 1 : name_end].decode("utf-8", "surrogateescape")
                field, position = _read_field(raw, name_end)
                fields.append((name, field))
            self._fields = fields
        return fields

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Table):
            return NotImplemented
        return self.raw == other.raw

    def __hash__(self) -> int:
        return hash(self.raw)

    def __bool__(self) -> bool:
        return len(self.raw) > 0

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self._entries())

    def __repr__(self) -> str:
        return f"Table({self._entries()!r})"


Table.EMPTY = Table(b"")


def check_table(raw: bytes, start: int, end: int, depth_max: int, fields_max: int) -> None:
    """Check that raw[start:end] is the inside of a well-formed table.

    Every length must stay within what encloses it and every tag must be known. Tables and arrays
    may nest `depth_max` levels, counting the outermost table, and there may be `fields_max` fields,
    counting those inside tables and arrays. Raises TableError otherwise.
    """
    if not 0 <= start <= end <= len(raw):
        raise TableError("table runs past the end of its frame")
    try:
        _walk(raw, start, end, depth_max, fields_max)
    except IndexError:
        raise TableError("field runs past the end of its table") from None


def _walk(raw: bytes, position: int, limit: int, depth_max: int, fields_max: int) -> None:
    """Step from field to field; raise IndexError where the bytes themselves come to an end.

    Limits are compared once per nesting level, after the last step. A step only goes forward, so
    one that read a name, tag or length beyond the limit also ended beyond it and is found out
    there. The same holds for the number of fields: the bytes bound the work of this walk, the limit
    bounds what decoding may cost later.
    """
    widths = _WIDTHS
    named = True  # Entries of a table have a name before the tag, items of an array have none.
    depth = 1
    outer_limits: list[int] = []
    outer_named: list[bool] = []
    while True:
        while position < limit:
            fields_max -= 1
            if named:
                position += 1 + raw[position]
            width = widths[raw[position]]
            if width <= 8:
                position += 1 + width
                continue
            inside = position + 5
            length = (
                raw[position + 1] << 24
                | raw[position + 2] << 16
                | raw[position + 3] << 8
                | raw[position + 4]
            )
            if width == _BYTES:
                position = inside + length
                continue
            if width == _UNKNOWN:
                raise TableError(f"unknown field type {raw[position : position + 1]!r}")
            position = inside + length
            if position > limit:
                raise TableError("field runs past the end of its table")
            if depth >= depth_max:
                raise TableError(f"table is nested deeper than {depth_max} levels")
            depth += 1
            outer_limits.append(limit)
            outer_named.append(named)
            limit = position
            position = inside
            named = width == _TABLE
        if position > limit:
            raise TableError("field runs past the end of its table")
        if fields_max < 0:
            raise TableError("table has too many fields")
        if depth == 1:
            return
        # A nested table or array ended exactly at its limit: go on with what encloses it.
        depth -= 1
        limit = outer_limits.pop()
        named = outer_named.pop()


def _read_field(raw: bytes, position: int) -> tuple[Field, int]:
    """Decode the checked field whose tag is at `position`; return it and where it ends."""
    tag = raw[position]
    width = _WIDTHS[tag]
    start = position + 1
    if width == 0:
        return Field("V", None), start
    if width <= 8:
        end = start + width
        if tag == 0x74:  # t
            return Field("t", raw[start] != 0), end
        if tag == 0x66:  # f
            return Field("f", float(_FLOAT.unpack_from(raw, start)[0])), end
        if tag == 0x64:  # d
            return Field("d", float(_DOUBLE.unpack_from(raw, start)[0])), end
        if tag == 0x44:  # D
            return Field("D", (raw[start], int.from_bytes(raw[start + 1 : end], "big"))), end
        signed = tag in _SIGNED_TAGS
        return Field(chr(tag), int.from_bytes(raw[start:end], "big", signed=signed)), end
    start += 4
    end = start + int.from_bytes(raw[position + 1 : start], "big")
    if width == _BYTES:
        return Field(chr(tag), raw[start:end]), end
    if width == _TABLE:
        return Field("F", Table(raw[start:end])), end
    items: list[Field] = []
    while start < end:
        item, start = _read_field(raw, start)
        items.append(item)
    return Field("A", tuple(items)), end


def _write_field(field: Field, parts: list[bytes]) -> None:
    """Append the tag and value of `field` to `parts`; raise TableError if they do not agree."""
    tag = field.tag
    value = field.value
    if len(tag) != 1 or tag not in _TYPE_NAMES:
        raise TableError(f"unknown field type {tag!r}")
    tag_byte = tag.encode("ascii")
    parts.append(tag_byte)
    if tag == "V" and value is None:
        return
    if tag == "t" and isinstance(value, bool):
        parts.append(b"\x01" if value else b"\x00")
    elif tag in "Sx" and isinstance(value, bytes):
        _write_long(value, parts)
    elif tag == "F" and isinstance(value, Table):
        _write_long(value.raw, parts)
    elif tag == "A" and isinstance(value, tuple):
        items: list[bytes] = []
        for item in value:
            if not isinstance(item, Field):
                raise TableError(f"{item!r} is not a field")
            _write_field(item, items)
        _write_long(b"".join(items), parts)
    elif tag == "D" and isinstance(value, tuple):
        parts.append(_decimal_bytes(value))
    elif tag in "fd" and isinstance(value, float):
        try:
            parts.append(_FLOAT.pack(value) if tag == "f" else _DOUBLE.pack(value))
        except OverflowError:
            raise TableError(f"{value!r} does not fit field type {tag!r}") from None
    elif (tag in INTEGER_TAGS or tag == "T") and isinstance(value, int):
        parts.append(_integer_bytes(tag_byte, value))
    else:
        raise TableError(f"{value!r} does not fit field type {tag!r}")


def _write_long(value: bytes, parts: list[bytes]) -> None:
    """Append a 32-bit length and the bytes."""
    parts.append(len(value).to_bytes(4, "big"))
    parts.append(value)


def _integer_bytes(tag_byte: bytes, value: int) -> bytes:
    """Return the value in the width and sign of its tag."""
    signed = tag_byte in _SIGNED_TAGS
    try:
        return value.to_bytes(_WIDTHS[tag_byte[0]], "big", signed=signed)
    except OverflowError:
        tag = tag_byte.decode("ascii")
        raise TableError(f"{value!r} does not fit field type {tag!r}") from None


def _decimal_bytes(value: tuple[object, ...]) -> bytes:
    """Return a scale of one byte and an unsigned mantissa of four."""
    if len(value) == 2:
        scale, mantissa = value
        if isinstance(scale, int) and isinstance(mantissa, int):
            return _integer_bytes(b"B", scale) + _integer_bytes(b"i", mantissa)
    raise TableError(f"{value!r} does not fit field type 'D'")


def _structure(field: Field) -> object:
    """Return the value for structural comparison, with the type names of all it holds.

    Type names rather than tags, because `l` and `L` are one type.
    """
    value = field.value
    if isinstance(value, Table):
        entries: list[tuple[str, str, object]] = []
        for name, inner in value.items():
            entries.append((name, inner.type_name, _structure(inner)))
        return tuple(entries)
    if field.tag == "A" and isinstance(value, tuple):
        items: list[tuple[str, object]] = []
        for item in value:
            if isinstance(item, Field):
                items.append((item.type_name, _structure(item)))
        return tuple(items)
    return value


def _field_from_python(value: object) -> Field:
    """Return the field `Table.from_python` chooses for a value."""
    if isinstance(value, Field):
        return value
    if isinstance(value, bool):
        return Field("t", value)
    if isinstance(value, int):
        return Field("I" if -0x80000000 <= value <= 0x7FFFFFFF else "l", value)
    if isinstance(value, float):
        return Field("d", value)
    if isinstance(value, str):
        return Field("S", value.encode("utf-8", "surrogateescape"))
    if isinstance(value, bytes):
        return Field("S", value)
    if value is None:
        return Field("V", None)
    if isinstance(value, Table):
        return Field("F", value)
    if isinstance(value, dict):
        return Field("F", Table.from_python(value))
    if isinstance(value, (list, tuple)):
        items: list[Field] = []
        for item in value:
            items.append(_field_from_python(item))
        return Field("A", tuple(items))
    raise TableError(f"no field type for {type(value).__name__}")


def _python_from_field(field: Field) -> object:
    """Return the value `Table.to_python` gives for a field."""
    value = field.value
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, Table):
        return value.to_python()
    if field.tag == "A" and isinstance(value, tuple):
        items: list[object] = []
        for item in value:
            if isinstance(item, Field):
                items.append(_python_from_field(item))
        return items
    if field.tag == "D" and isinstance(value, tuple):
        scale, mantissa = value
        if isinstance(scale, int) and isinstance(mantissa, int):
            return mantissa / 10**scale
    return value
