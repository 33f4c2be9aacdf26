"""Values written as Erlang terms, the form in which RabbitMQ's reply texts quote them.

Clients and their test suites compare some of these texts letter by letter.
"""

from typing import Final

from broker.core.table import Field, Table

_ESCAPES: Final = {
    0x08: "\\b",
    0x09: "\\t",
    0x0A: "\\n",
    0x0B: "\\v",
    0x0C: "\\f",
    0x0D: "\\r",
    0x1B: "\\e",
    0x22: '\\"',
    0x5C: "\\\\",
}


def bytes_term(value: bytes) -> str:
    """Return `<<"text">>`, or `<<0,1>>` when there are bytes that Latin-1 cannot print."""
    if not value:
        return "<<>>"
    for byte in value:
        printable = 0x20 <= byte <= 0x7E or byte >= 0xA0 or byte in _ESCAPES
        if not printable:
            return "<<" + ",".join([str(each) for each in value]) + ">>"
    text = value.decode("utf-8", "replace").translate(_ESCAPES)
    return f'<<"{text}">>'


def field_term(field: Field) -> str:
    """Return the value of a field without its type; fields inside it are written with theirs."""
    value = field.value
    if value is None:
        return "undefined"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return bytes_term(value)
    if isinstance(value, Table):
        parts: list[str] = []
        for name, inner in value.items():
            name_term = bytes_term(name.encode("utf-8", "surrogateescape"))
            parts.append(f"{{{name_term},{inner.type_name},{field_term(inner)}}}")
        return "[" + ",".join(parts) + "]"
    if isinstance(value, tuple):
        if field.tag == "D":
            scale, mantissa = value
            return f"{{{scale!r},{mantissa!r}}}"
        items: list[str] = []
        for item in value:
            if isinstance(item, Field):
                items.append(f"{{{item.type_name},{field_term(item)}}}")
        return "[" + ",".join(items) + "]"
    if isinstance(value, float):
        return _float_term(value)
    return str(value)


def _float_term(value: float) -> str:
    """Return the shortest digits that read back as `value`, always with a decimal point."""
    digits, exponent_mark, exponent = repr(value).partition("e")
    if not exponent_mark:
        return digits
    if "." not in digits:
        digits += ".0"
    return f"{digits}e{int(exponent)}"
