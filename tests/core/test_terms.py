"""Values quoted in reply texts the way RabbitMQ quotes them."""

import pytest

from broker.core.table import Field, Table
from broker.core.terms import bytes_term, field_term


@pytest.mark.parametrize(
    ("value", "term"),
    [
        (b"", "<<>>"),
        (b"foo", '<<"foo">>'),
        (b"\x00\x01", "<<0,1>>"),
        (b"a\x7f", "<<97,127>>"),
        (b'a"b\\c\n', '<<"a\\"b\\\\c\\n">>'),
        (b"a\tb\x1b\x08\x0b\x0c\r", '<<"a\\tb\\e\\b\\v\\f\\r">>'),
        ("é".encode(), '<<"é">>'),
    ],
)
def test_bytes(value: bytes, term: str) -> None:
    """Bytes are a quoted string where they print, and a list of numbers otherwise."""
    assert bytes_term(value) == term


@pytest.mark.parametrize(
    ("field", "term"),
    [
        (Field("I", -5), "-5"),
        (Field("T", 5), "5"),
        (Field("t", True), "true"),
        (Field("t", False), "false"),
        (Field("V", None), "undefined"),
        (Field("d", 1.0), "1.0"),
        (Field("d", 1e100), "1.0e100"),
        (Field("d", 1.5e-7), "1.5e-7"),
        (Field("f", 0.10000000149011612), "0.10000000149011612"),
        (Field("D", (1, 2)), "{1,2}"),
        (Field("x", b"all"), '<<"all">>'),
        (Field("A", ()), "[]"),
        (Field("A", (Field("I", 1), Field("S", b"a"))), '[{signedint,1},{longstr,<<"a">>}]'),
        (Field("F", Table.from_python({"a": 1})), '[{<<"a">>,signedint,1}]'),
    ],
)
def test_fields(field: Field, term: str) -> None:
    """A field is quoted without its type, what it holds with theirs."""
    assert field_term(field) == term
