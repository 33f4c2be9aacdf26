"""Hypothesis strategies for field tables of every type, however nested."""

from hypothesis import strategies as st

from broker.core.table import Field, Table

INTEGER_RANGES = {
    "b": (-(2**7), 2**7 - 1),
    "B": (0, 2**8 - 1),
    "s": (-(2**15), 2**15 - 1),
    "u": (0, 2**16 - 1),
    "I": (-(2**31), 2**31 - 1),
    "i": (0, 2**32 - 1),
    "l": (-(2**63), 2**63 - 1),
    "L": (-(2**63), 2**63 - 1),
    "T": (0, 2**64 - 1),
}

names = st.text(max_size=20)

integer_fields = st.sampled_from(sorted(INTEGER_RANGES)).flatmap(
    lambda tag: st.builds(Field, st.just(tag), st.integers(*INTEGER_RANGES[tag]))
)

plain_fields = st.one_of(
    integer_fields,
    st.builds(Field, st.just("t"), st.booleans()),
    st.builds(Field, st.just("f"), st.floats(width=32, allow_nan=False)),
    st.builds(Field, st.just("d"), st.floats(allow_nan=False)),
    st.builds(
        Field,
        st.just("D"),
        st.tuples(st.integers(0, 255), st.integers(0, 2**32 - 1)),
    ),
    st.builds(Field, st.sampled_from("Sx"), st.binary(max_size=20)),
    st.just(Field("V", None)),
)


def _entries(fields: st.SearchStrategy[Field]) -> st.SearchStrategy[list[tuple[str, Field]]]:
    return st.lists(st.tuples(names, fields), max_size=5)


def _nested(fields: st.SearchStrategy[Field]) -> st.SearchStrategy[Field]:
    return st.one_of(
        st.builds(Field, st.just("F"), _entries(fields).map(Table.encode)),
        st.builds(Field, st.just("A"), st.lists(fields, max_size=5).map(tuple)),
    )


fields = st.recursive(plain_fields, _nested, max_leaves=10)

entries = _entries(fields)
