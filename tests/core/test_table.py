"""Field tables: bytes in, typed fields out, nothing lost on the way."""

import pytest
from generated_tables import entries, fields
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.core.table import DEPTH_MAX, Field, FieldValue, Table, TableError, check_table

# tag, value on the wire, value in Python, name in reply texts
EVERY_TYPE: list[tuple[str, bytes, FieldValue, str]] = [
    ("t", b"\x01", True, "bool"),
    ("b", b"\xff", -1, "byte"),
    ("B", b"\xff", 255, "unsignedbyte"),
    ("s", b"\xff\xfe", -2, "short"),
    ("u", b"\xff\xfe", 65534, "unsignedshort"),
    ("I", b"\xff\xff\xff\xfe", -2, "signedint"),
    ("i", b"\xff\xff\xff\xfe", 4294967294, "unsignedint"),
    ("l", b"\xff" * 8, -1, "long"),
    ("L", b"\xff" * 8, -1, "long"),
    ("f", b"\x3f\xc0\x00\x00", 1.5, "float"),
    ("d", b"\x3f\xf8\x00\x00\x00\x00\x00\x00", 1.5, "double"),
    ("D", b"\x02\xff\xff\xff\xff", (2, 4294967295), "decimal"),
    ("S", b"\x00\x00\x00\x02hi", b"hi", "longstr"),
    ("x", b"\x00\x00\x00\x02\x00\xff", b"\x00\xff", "binary"),
    ("T", b"\xff" * 8, 18446744073709551615, "timestamp"),
    ("F", b"\x00\x00\x00\x04\x01at\x01", Table(b"\x01at\x01"), "table"),
    ("A", b"\x00\x00\x00\x03t\x00V", (Field("t", False), Field("V", None)), "array"),
    ("V", b"", None, "void"),
]

TAGS = [tag for tag, _, _, _ in EVERY_TYPE]


def check(raw: bytes, depth_max: int = 10, fields_max: int = 100) -> None:
    """Check the whole of `raw`."""
    check_table(raw, 0, len(raw), depth_max, fields_max)


@pytest.mark.parametrize(("tag", "wire", "value", "type_name"), EVERY_TYPE, ids=TAGS)
class TestEveryType:
    def test_decodes(self, tag: str, wire: bytes, value: FieldValue, type_name: str) -> None:
        """Each tag is read as RabbitMQ reads it and carries RabbitMQ's name."""
        _, field = Table.parse(b"\x01k" + tag.encode() + wire).items()[0]

        assert field == Field(tag, value)
        assert field.type_name == type_name

    def test_encodes(self, tag: str, wire: bytes, value: FieldValue, type_name: str) -> None:
        """Encoding a field gives back the bytes it was read from."""
        assert Table.encode([("k", Field(tag, value))]).raw == b"\x01k" + tag.encode() + wire

    def test_in_array(self, tag: str, wire: bytes, value: FieldValue, type_name: str) -> None:
        """Items of an array carry the same tags, without names."""
        item = tag.encode() + wire
        raw = b"\x01kA" + len(item).to_bytes(4, "big") + item

        assert Table.parse(raw).get("k") == Field("A", (Field(tag, value),))

    def test_cut_short(self, tag: str, wire: bytes, value: FieldValue, type_name: str) -> None:
        """A table that ends in the middle of a field is malformed, wherever it was cut."""
        raw = b"\x01k" + tag.encode() + wire

        for length in range(1, len(raw)):
            with pytest.raises(TableError):
                Table.parse(raw[:length])


class TestDecode:
    def test_any_non_zero_byte_is_true(self) -> None:
        """A bool is false only when its byte is zero."""
        assert Table.parse(b"\x01kt\x02").get("k") == Field("t", True)
        assert Table.parse(b"\x01kt\x00").get("k") == Field("t", False)

    def test_keeps_order_and_repeats(self) -> None:
        """Entries come in the order received, repeated names included."""
        table = Table.parse(b"\x01bV\x01at\x01\x01bt\x00")

        assert [name for name, _ in table.items()] == ["b", "a", "b"]
        assert len(table) == 3

    def test_first_of_repeated_names_counts(self) -> None:
        """Looking up a repeated name finds the first entry."""
        table = Table.parse(b"\x01kB\x01\x01kB\x02")

        assert table.get("k") == Field("B", 1)
        assert table.to_python() == {"k": 1}

    def test_missing_name(self) -> None:
        """Looking up a name that is not there finds nothing."""
        assert Table.parse(b"\x01kV").get("K") is None

    def test_names_that_are_not_utf8_survive(self) -> None:
        """A name is any bytes; those that are no text come back as they were."""
        raw = b"\x02\xff\xc3V"

        assert Table.encode(Table.parse(raw).items()).raw == raw

    def test_empty(self) -> None:
        """A table without entries is false and has length zero."""
        assert not Table.EMPTY
        assert len(Table.EMPTY) == 0
        assert Table.parse(b"") == Table.EMPTY
        assert Table.parse(b"\x00V")

    def test_items_are_a_copy(self) -> None:
        """Changing the list of items does not change the table."""
        table = Table.parse(b"\x01kV")
        table.items().clear()

        assert len(table) == 1

    def test_equal_by_bytes(self) -> None:
        """Tables are equal when their bytes are: order and types count."""
        assert Table.from_python({"a": 1, "b": 2}) == Table.from_python({"a": 1, "b": 2})
        assert Table.from_python({"a": 1, "b": 2}) != Table.from_python({"b": 2, "a": 1})
        assert len({Table(b"\x01kV"), Table(b"\x01kV")}) == 1
        assert Table(b"") != b""


class TestEncode:
    @settings(deadline=None)
    @given(entries)
    def test_round_trip(self, entries: list[tuple[str, Field]]) -> None:
        """Whatever is encoded is well-formed and decodes to the same fields."""
        table = Table.parse(Table.encode(entries).raw)

        assert table.items() == entries

    @pytest.mark.parametrize(
        ("tag", "value"),
        [
            ("b", 128),
            ("B", -1),
            ("B", 256),
            ("s", 32768),
            ("u", -1),
            ("I", 2**31),
            ("i", -1),
            ("l", 2**63),
            ("L", -(2**63) - 1),
            ("T", -1),
            ("f", 1e300),
            ("D", (256, 0)),
            ("D", (0, 2**32)),
            ("D", (Field("B", 1),)),
            ("A", (1, 2)),
            ("t", 1),
            ("S", None),
            ("V", 0),
            ("F", b""),
            ("U", 1),
            ("", None),
            ("SS", b""),
        ],
    )
    def test_refuses_what_does_not_fit(self, tag: str, value: FieldValue) -> None:
        """A value its tag cannot carry is refused rather than sent as something else."""
        with pytest.raises(TableError):
            Table.encode([("k", Field(tag, value))])

    def test_refuses_long_names(self) -> None:
        """A name takes at most 255 bytes, not characters."""
        assert len(Table.encode([("k" * 255, Field("V", None))])) == 1
        with pytest.raises(TableError):
            Table.encode([("é" * 128, Field("V", None))])

    def test_from_python(self) -> None:
        """Python values get the tags clients expect."""
        table = Table.from_python(
            {
                "bool": True,
                "small": -(2**31),
                "large": 2**31,
                "float": 0.5,
                "text": "é",
                "bytes": b"\xff",
                "none": None,
                "dict": {"inner": 1},
                "list": [1, "a"],
                "table": Table.EMPTY,
                "field": Field("T", 5),
            }
        )

        assert table.items() == [
            ("bool", Field("t", True)),
            ("small", Field("I", -(2**31))),
            ("large", Field("l", 2**31)),
            ("float", Field("d", 0.5)),
            ("text", Field("S", "é".encode())),
            ("bytes", Field("S", b"\xff")),
            ("none", Field("V", None)),
            ("dict", Field("F", Table.from_python({"inner": 1}))),
            ("list", Field("A", (Field("I", 1), Field("S", b"a")))),
            ("table", Field("F", Table.EMPTY)),
            ("field", Field("T", 5)),
        ]

    def test_from_python_refuses_other_types(self) -> None:
        """A value no field type stands for is refused."""
        with pytest.raises(TableError):
            Table.from_python({"k": object()})
        with pytest.raises(TableError):
            Table.from_python({"k": 2**63})

    def test_to_python(self) -> None:
        """Plain values lose their types and keep what people can read."""
        table = Table.encode(
            [
                ("text", Field("S", "é".encode())),
                ("binary", Field("x", b"\xff")),
                ("decimal", Field("D", (2, 314))),
                ("array", Field("A", (Field("b", 1), Field("F", Table(b"\x01kV"))))),
                ("void", Field("V", None)),
            ]
        )

        assert table.to_python() == {
            "text": "é",
            "binary": "\udcff",
            "decimal": 3.14,
            "array": [1, {"k": None}],
            "void": None,
        }


class TestSortedRaw:
    def test_sorts_by_name(self) -> None:
        """The order entries were sent in does not show in the identity."""
        one = Table.from_python({"b": 1, "a": [1, 2], "": None})
        other = Table.from_python({"": None, "a": [1, 2], "b": 1})

        assert one.sorted_raw() == other.raw
        assert other.sorted_raw() == other.raw

    def test_keeps_order_of_repeated_names(self) -> None:
        """Entries of one name stay in order, because the first of them counts."""
        assert Table(b"\x01kB\x02\x01kB\x01").sorted_raw() == b"\x01kB\x02\x01kB\x01"

    @settings(deadline=None)
    @given(entries)
    def test_same_entries(self, entries: list[tuple[str, Field]]) -> None:
        """Sorting moves entries and changes none."""
        raw = Table.encode(entries).sorted_raw()

        by_name = sorted(entries, key=lambda entry: entry[0].encode())
        assert Table.parse(raw).items() == by_name


class TestCheckTable:
    def test_looks_only_at_the_given_part(self) -> None:
        """What lies before and after the table in the frame does not matter."""
        check_table(b"??\x01kV??", 2, 5, 1, 1)

        for start, end in [(2, 4), (2, 6), (1, 5), (-1, 5), (5, 2), (2, 99)]:
            with pytest.raises(TableError):
                check_table(b"??\x01kV??", start, end, 1, 1)

    def test_every_unknown_tag(self) -> None:
        """A tag outside the list is refused, the standard's `U` among them."""
        for tag in range(256):
            if chr(tag) not in TAGS:
                with pytest.raises(TableError):
                    check(b"\x01k" + bytes([tag]) + bytes(20))

    @pytest.mark.parametrize("tag", ["S", "x", "F", "A"])
    @pytest.mark.parametrize("length", [1, 2, 255, 2**31, 2**32 - 1])
    def test_length_past_the_end(self, tag: str, length: int) -> None:
        """A length may not reach beyond the table it stands in."""
        with pytest.raises(TableError):
            check(b"\x01k" + tag.encode() + length.to_bytes(4, "big"))

    def test_length_past_the_enclosing_table(self) -> None:
        """A field inside a nested table may not reach into what follows that table."""
        inner = b"\x01kS\x00\x00\x00\x03"
        raw = b"\x01tF\x00\x00\x00\x07" + inner + b"\x01vV"

        with pytest.raises(TableError):
            check(raw)

    def test_name_past_the_enclosing_table(self) -> None:
        """A name inside a nested table may not reach into what follows that table."""
        raw = b"\x01tF\x00\x00\x00\x01" + b"\x01" + b"vV\x01vV"

        with pytest.raises(TableError):
            check(raw)

    def test_long_strings(self) -> None:
        """All four bytes of a length count."""
        for length in [0x100, 0x10000, 0x1000000]:
            check(b"\x01kS" + length.to_bytes(4, "big") + bytes(length))

    def test_depth(self) -> None:
        """Tables and arrays nest as deep as allowed and no deeper."""
        item = b"V"
        for depth in range(1, 10):
            raw = b"\x01k" + item

            check(raw, depth_max=depth)
            if depth > 1:
                with pytest.raises(TableError):
                    check(raw, depth_max=depth - 1)
            item = b"A" + len(item).to_bytes(4, "big") + item

    def test_depth_of_siblings(self) -> None:
        """Fields beside each other are at one depth."""
        check(b"\x01kF\x00\x00\x00\x00\x01kA\x00\x00\x00\x00" * 20, depth_max=2)

    def test_very_deep(self) -> None:
        """Depth costs no recursion: a table nested thousands of levels is refused."""
        item = b"V"
        for _ in range(3000):
            item = b"A" + len(item).to_bytes(4, "big") + item

        with pytest.raises(TableError):
            Table.parse(b"\x01k" + item)
        check(b"\x01k" + item, depth_max=5000, fields_max=5000)

    def test_depth_of_parse(self) -> None:
        """Table.parse accepts DEPTH_MAX levels unless told otherwise."""
        item = b"V"
        for _ in range(DEPTH_MAX - 1):
            item = b"A" + len(item).to_bytes(4, "big") + item
        deepest = b"\x01k" + item

        assert len(Table.parse(deepest)) == 1
        with pytest.raises(TableError):
            Table.parse(deepest, depth_max=DEPTH_MAX - 1)

    def test_number_of_fields(self) -> None:
        """Entries and items count together against the limit, wherever they are."""
        raw = b"\x01kA\x00\x00\x00\x03VVV\x01kF\x00\x00\x00\x03\x01kV"

        check(raw, fields_max=6)
        with pytest.raises(TableError):
            check(raw, fields_max=5)

    def test_empty_table_has_no_fields(self) -> None:
        """The empty table passes the strictest limits."""
        check(b"", depth_max=1, fields_max=0)

    def test_cut_anywhere(self) -> None:
        """A table of every type is well-formed when cut between entries, and nowhere else."""
        all_types = b""
        between = {0}
        for tag, wire, _, _ in EVERY_TYPE:
            all_types += b"\x01k" + tag.encode() + wire
            between.add(len(all_types))

        for length in range(len(all_types) + 1):
            if length in between:
                check(all_types[:length])
            else:
                with pytest.raises(TableError):
                    check(all_types[:length])

    @settings(deadline=None)
    @given(st.binary(max_size=40))
    def test_any_bytes(self, raw: bytes) -> None:
        """Any bytes are either refused or decode in full."""
        try:
            table = Table.parse(raw)
        except TableError:
            return

        table.to_python()
        assert len(table.sorted_raw()) == len(raw)

    @settings(deadline=None)
    @given(entries, st.data())
    def test_one_changed_byte(self, entries: list[tuple[str, Field]], data: st.DataObject) -> None:
        """A well-formed table with one byte changed is either refused or decodes in full."""
        raw = bytearray(Table.encode([("k", Field("V", None)), *entries]).raw)
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
        try:
            table = Table.parse(bytes(raw))
        except TableError:
            return

        table.to_python()
        assert len(table.sorted_raw()) == len(raw)


class TestComparable:
    @pytest.mark.parametrize(
        ("one", "other"),
        [
            (Field("I", 10), Field("l", 10)),
            (Field("B", 10), Field("u", 10)),
            (Field("f", 1.5), Field("d", 1.5)),
            (Field("S", b"a"), Field("x", b"a")),
            (Field("T", 5), Field("T", 5)),
            (Field("D", (1, 5)), Field("D", (1, 5))),
            (Field("V", None), Field("V", None)),
            (Field("A", (Field("l", 1),)), Field("A", (Field("L", 1),))),
        ],
    )
    def test_equal(self, one: Field, other: Field) -> None:
        """The width of a number and the kind of a string make no difference."""
        assert one.comparable() == other.comparable()
        assert hash(one.comparable()) == hash(other.comparable())

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            (Field("I", 1), Field("t", True)),
            (Field("I", 1), Field("d", 1.0)),
            (Field("I", 1), Field("S", b"1")),
            (Field("I", 1), Field("I", 2)),
            (Field("D", (0, 1)), Field("I", 1)),
            (Field("D", (1, 10)), Field("D", (0, 1))),
            (Field("T", 5), Field("I", 5)),
            (Field("V", None), Field("t", False)),
            (Field("A", ()), Field("F", Table.EMPTY)),
            (Field("A", (Field("I", 1),)), Field("A", (Field("l", 1),))),
            (Field("A", (Field("I", 1),)), Field("A", (Field("d", 1.0),))),
            (Field("A", (Field("S", b"a"),)), Field("A", (Field("x", b"a"),))),
            (
                Field("F", Table.from_python({"a": 1, "b": 2})),
                Field("F", Table.from_python({"b": 2, "a": 1})),
            ),
            (
                Field("F", Table.from_python({"a": Field("I", 1)})),
                Field("F", Table.from_python({"a": Field("B", 1)})),
            ),
        ],
    )
    def test_different(self, one: Field, other: Field) -> None:
        """Kinds of types differ; inside tables and arrays every type and the order count."""
        assert one.comparable() != other.comparable()

    @settings(deadline=None)
    @given(fields)
    def test_hashable(self, field: Field) -> None:
        """What is compared can be a key of a dict."""
        assert {field.comparable(): 1} == {field.comparable(): 1}
