"""Headers matching: what the arguments of a binding ask, and the index over many bindings."""

import pytest
from generated_tables import fields
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.core.binding import Binding, Destination
from broker.core.headers import HeadersIndex, HeadersMatch, comparable_headers
from broker.core.table import Field, Table
from broker.errors import PreconditionFailed

Entries = list[tuple[str, Field]]

MODES = ["all", "any", "all-with-x", "any-with-x"]

INTEGER = Field("I", 1)
VOID = Field("V", None)
INNER = Table.from_python({"b": 1, "a": [True]})

# argument of the binding, header of the message: equal
EQUAL = [
    *[(INTEGER, Field(tag, 1)) for tag in "bBsuIilL"],
    *[(Field(tag, -1), Field("l", -1)) for tag in "bsIlL"],
    (Field("S", b"a"), Field("S", b"a")),
    (Field("S", b"a"), Field("x", b"a")),
    (Field("x", b"a"), Field("S", b"a")),
    (Field("S", b""), Field("S", b"")),
    (Field("f", 0.5), Field("d", 0.5)),
    (Field("t", True), Field("t", True)),
    (Field("T", 5), Field("T", 5)),
    (Field("D", (1, 10)), Field("D", (1, 10))),
    (Field("F", INNER), Field("F", INNER)),
    (Field("A", (INTEGER, VOID)), Field("A", (INTEGER, VOID))),
    (Field("A", (Field("l", 1),)), Field("A", (Field("L", 1),))),
    (VOID, INTEGER),
    (VOID, Field("S", b"")),
    (VOID, VOID),
]

DIFFERENT = [
    (INTEGER, Field("I", 2)),
    (INTEGER, Field("S", b"1")),
    (INTEGER, Field("t", True)),
    (INTEGER, Field("d", 1.0)),
    (Field("d", 1.0), INTEGER),
    (INTEGER, VOID),
    (Field("t", True), Field("t", False)),
    (Field("t", False), VOID),
    (Field("T", 5), Field("T", 6)),
    (Field("S", b"a"), Field("S", b"A")),
    (Field("D", (1, 10)), Field("D", (0, 1))),
    (Field("F", INNER), Field("F", Table.from_python({"a": [True], "b": 1}))),
    (Field("F", INNER), Field("F", Table.EMPTY)),
    (Field("A", (INTEGER,)), Field("A", (Field("l", 1),))),
    (Field("A", (Field("S", b"a"),)), Field("A", (Field("x", b"a"),))),
    (Field("A", (INTEGER, VOID)), Field("A", (VOID, INTEGER))),
]

NAMES = ["a", "b", "c", "x-a", "X-a", "x-match", ""]

VALUES = [
    INTEGER,
    Field("l", 1),
    Field("d", 1.0),
    Field("t", True),
    Field("S", b"1"),
    Field("x", b"1"),
    Field("T", 1),
    Field("A", (INTEGER,)),
    Field("A", (Field("l", 1),)),
    VOID,
]

headers_tables = st.lists(
    st.tuples(st.sampled_from(NAMES), st.one_of(st.sampled_from(VALUES), fields)), max_size=5
)

modes = st.sampled_from([None, *MODES])


def x_match(mode: str | None) -> Entries:
    """The argument that chooses a mode."""
    return [] if mode is None else [("x-match", Field("S", mode.encode()))]


# x-match first, so that it is the one that counts.
arguments_tables = st.builds(
    lambda mode, entries: (
        x_match(mode) + [entry for entry in entries if mode or entry[0] != "x-match"]
    ),
    modes,
    headers_tables,
)


def matches(arguments: Entries, headers: Entries) -> bool:
    """Whether a binding with these arguments matches a message with these headers.

    The index has to agree every time.
    """
    binding = bind(arguments)
    index = HeadersIndex()
    index.add(binding)
    table = comparable_headers(Table.encode(headers).raw)
    result = HeadersMatch(binding.arguments).matches(table)

    assert found(index, headers) == ({binding.destination} if result else set())
    return result


def bind(arguments: Entries, destination: Destination | None = None) -> Binding:
    """A binding with these arguments, to a destination of its own unless one is given."""
    destination = destination or Destination("q", durable=False)
    return Binding("headers", destination, b"", Table.encode(arguments))


def found(index: HeadersIndex, headers: Entries) -> set[Destination]:
    """Where a message with these headers goes."""
    destinations: dict[Destination, None] = {}
    index.match(comparable_headers(Table.encode(headers).raw), destinations)
    return set(destinations)


def by_definition(arguments: Entries, headers: Entries) -> bool:
    """The definition of a match, too plain to be wrong."""
    mode = next((field.value for name, field in arguments if name == "x-match"), b"all")
    assert isinstance(mode, bytes)
    checks = [
        holds(name, wanted, headers)
        for name, wanted in arguments
        if name != "x-match" and (mode.endswith(b"-with-x") or not name.startswith("x-"))
    ]
    return all(checks) if mode.startswith(b"all") else any(checks)


def holds(name: str, wanted: Field, headers: Entries) -> bool:
    """Whether the message has this header, with this value unless any will do."""
    header = next((field for each, field in headers if each == name), None)
    return header is not None and (wanted.tag == "V" or equal(wanted, header))


def equal(one: Field, other: Field) -> bool:
    """Whether two headers are equal: by kind of type and value."""
    for kind in ["bBsuIilL", "fd", "Sx"]:
        if one.tag in kind:
            return other.tag in kind and one.value == other.value
    return identical(one, other)


def identical(one: Field, other: Field) -> bool:
    """Whether two fields inside a table or array are equal: by exact type and value."""
    if one.type_name != other.type_name:
        return False
    mine, theirs = one.value, other.value
    if isinstance(mine, Table) and isinstance(theirs, Table):
        return len(mine) == len(theirs) and all(
            my_name == their_name and identical(my_field, their_field)
            for (my_name, my_field), (their_name, their_field) in zip(
                mine.items(), theirs.items(), strict=True
            )
        )
    if one.tag == "A" and isinstance(mine, tuple) and isinstance(theirs, tuple):
        return len(mine) == len(theirs) and all(
            isinstance(my_item, Field)
            and isinstance(their_item, Field)
            and identical(my_item, their_item)
            for my_item, their_item in zip(mine, theirs, strict=True)
        )
    return mine == theirs


class TestValues:
    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize(("wanted", "header"), EQUAL)
    def test_equal(self, mode: str, wanted: Field, header: Field) -> None:
        """Values are equal whatever the width of numbers or kind of string; void asks presence."""
        assert matches([*x_match(mode), ("k", wanted)], [("k", header)])
        assert by_definition([*x_match(mode), ("k", wanted)], [("k", header)])

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize(("wanted", "header"), DIFFERENT)
    def test_different(self, mode: str, wanted: Field, header: Field) -> None:
        """Kinds of values are never equal, and inside tables and arrays every type counts."""
        assert not matches([*x_match(mode), ("k", wanted)], [("k", header)])
        assert not by_definition([*x_match(mode), ("k", wanted)], [("k", header)])

    @pytest.mark.parametrize("mode", MODES)
    def test_absent(self, mode: str) -> None:
        """A header that is not there has no value, not even void."""
        for wanted in [VOID, INTEGER]:
            assert not matches([*x_match(mode), ("k", wanted)], [])
            assert not matches([*x_match(mode), ("k", wanted)], [("K", wanted)])

    def test_any_non_zero_bool_is_true(self) -> None:
        """A bool header of another non-zero byte is as true as one."""
        match = HeadersMatch(Table.from_python({"k": True}))

        assert match.matches(comparable_headers(b"\x01kt\x02"))


class TestMode:
    A, B = ("a", INTEGER), ("b", INTEGER)

    def test_all_is_the_default(self) -> None:
        """Without x-match every condition must hold."""
        assert matches([self.A, self.B], [self.B, self.A, ("c", INTEGER)])
        assert not matches([self.A, self.B], [self.A])

    def test_all(self) -> None:
        """With `all` every condition must hold, whatever else the message carries."""
        arguments = [*x_match("all"), self.A, self.B]

        assert matches(arguments, [self.A, self.B, ("c", INTEGER)])
        assert not matches(arguments, [self.A, ("b", Field("I", 2))])
        assert not matches(arguments, [])

    def test_any(self) -> None:
        """With `any` one condition is enough."""
        arguments = [*x_match("any"), self.A, self.B]

        assert matches(arguments, [self.A])
        assert matches(arguments, [("a", Field("I", 2)), self.B])
        assert not matches(arguments, [("a", Field("I", 2)), ("c", INTEGER)])
        assert not matches(arguments, [])

    def test_without_conditions(self) -> None:
        """All of no conditions hold for every message, any of none for no message."""
        for headers in [[], [self.A]]:
            assert matches([], headers)
            assert matches(x_match("all"), headers)
            assert matches(x_match("all-with-x"), headers)
            assert not matches(x_match("any"), headers)
            assert not matches(x_match("any-with-x"), headers)

    def test_names_beginning_with_x(self) -> None:
        """Arguments named x-... are conditions only for the modes that say so."""
        x_a = ("x-a", INTEGER)

        assert matches([*x_match("all"), x_a], [])
        assert not matches([*x_match("any"), x_a], [x_a])
        assert not matches([*x_match("all-with-x"), x_a], [])
        assert matches([*x_match("all-with-x"), x_a], [x_a])
        assert matches([*x_match("any-with-x"), x_a], [x_a])
        assert not matches([("X-a", INTEGER)], [])

    def test_x_match_is_never_a_condition(self) -> None:
        """A header named x-match is not looked at in any mode."""
        for mode in MODES:
            assert matches(x_match(mode), x_match(mode)) == mode.startswith("all")

    def test_repeated_arguments(self) -> None:
        """Each of several arguments of one name is a condition; the first x-match counts."""
        one, two = ("a", Field("I", 1)), ("a", Field("I", 2))

        assert not matches([one, two], [one])
        assert matches([*x_match("any"), one, two], [two])
        assert matches([*x_match("all"), *x_match("any")], [])

    def test_repeated_headers(self) -> None:
        """The first of several headers of one name counts."""
        one, two = ("a", Field("I", 1)), ("a", Field("I", 2))

        assert matches([one], [one, two])
        assert not matches([one], [two, one])

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (
                Field("S", b"foo"),
                'Invalid x-match field value <<"foo">>; '
                "expected all, any, all-with-x, or any-with-x",
            ),
            (
                Field("S", b""),
                "Invalid x-match field value <<>>; expected all, any, all-with-x, or any-with-x",
            ),
            (
                Field("I", 5),
                "Invalid x-match field type signedint (value 5); expected longstr",
            ),
            (
                Field("t", True),
                "Invalid x-match field type bool (value true); expected longstr",
            ),
            (
                Field("x", b"all"),
                'Invalid x-match field type binary (value <<"all">>); expected longstr',
            ),
            (
                VOID,
                "Invalid x-match field type void (value undefined); expected longstr",
            ),
        ],
    )
    def test_refused(self, value: Field, text: str) -> None:
        """An x-match that is none of the four strings is refused, in RabbitMQ's words."""
        index = HeadersIndex()
        with pytest.raises(PreconditionFailed) as error:
            index.add(bind([("x-match", value), self.A]))

        assert error.value.text == text
        assert index.is_empty()


class TestIndex:
    def test_every_match_is_found(self) -> None:
        """Bindings of every mode are found together, beside what was found before."""
        index = HeadersIndex()
        a, b = ("a", INTEGER), ("b", INTEGER)
        earlier = Destination("q", durable=False)
        matching = [bind([]), bind([a]), bind([b, a]), bind([*x_match("any"), b, ("c", VOID)])]
        matching.append(bind([("a", VOID)]))
        for binding in matching:
            index.add(binding)
        index.add(bind([a, ("c", INTEGER)]))
        index.add(bind([*x_match("any"), ("c", INTEGER)]))
        destinations: dict[Destination, None] = {earlier: None}
        index.match(comparable_headers(Table.encode([a, b]).raw), destinations)

        assert set(destinations) == {earlier, *(binding.destination for binding in matching)}

    def test_a_destination_is_found_once(self) -> None:
        """A destination of several matching bindings stays until the last of them goes."""
        index = HeadersIndex()
        queue = Destination("q", durable=False)
        bindings = [bind([("a", VOID)], queue), bind([("a", INTEGER)], queue), bind([], queue)]
        for binding in bindings:
            index.add(binding)
        for binding in bindings:
            assert found(index, [("a", INTEGER)]) == {queue}
            index.remove(binding)

        assert found(index, [("a", INTEGER)]) == set()

    def test_adding_twice(self) -> None:
        """A binding added twice is gone when removed once."""
        for mode in MODES:
            index = HeadersIndex()
            binding = bind([*x_match(mode), ("a", INTEGER), ("a", INTEGER), ("b", VOID)])
            index.add(binding)
            index.add(binding)
            index.remove(binding)

            assert index.is_empty()

    def test_removing_what_is_not_there(self) -> None:
        """Removing an unknown binding is an error and changes nothing."""
        index = HeadersIndex()
        binding = bind([("a", INTEGER)])
        index.add(binding)
        with pytest.raises(KeyError):
            index.remove(bind([("a", INTEGER)]))

        assert found(index, [("a", INTEGER)]) == {binding.destination}

    @settings(deadline=None)
    @given(arguments_tables, headers_tables)
    def test_one_binding_by_definition(self, arguments: Entries, headers: Entries) -> None:
        """One binding matches one message as the definition says."""
        assert matches(arguments, headers) == by_definition(arguments, headers)

    @settings(deadline=None)
    @given(
        st.lists(arguments_tables, min_size=1, max_size=6),
        st.lists(st.integers(0, 5), max_size=20),
        st.lists(headers_tables, min_size=1, max_size=3),
    )
    def test_any_sequence(
        self, arguments: list[Entries], steps: list[int], messages: list[Entries]
    ) -> None:
        """After any sequence of adding and removing, what matches is what is there."""
        bindings = [(bind(entries), entries) for entries in arguments]
        index = HeadersIndex()
        present: dict[Binding, Entries] = {}
        for step in steps:
            binding, entries = bindings[step % len(bindings)]
            if binding in present:
                del present[binding]
                index.remove(binding)
            else:
                present[binding] = entries
                index.add(binding)
            for headers in messages:
                assert found(index, headers) == {
                    each.destination
                    for each, each_entries in present.items()
                    if by_definition(each_entries, headers)
                }

        for binding in present:
            index.remove(binding)
        assert index.is_empty()
