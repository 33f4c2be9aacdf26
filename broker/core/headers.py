"""How the headers exchange matches messages: the condition of one binding, and an index of many.

The arguments of a binding are its conditions: each asks that the message carry a header of that
name with an equal value, or, where the argument is void, with any value. `x-match` says whether all
conditions must hold or one suffices, and whether names that begin with `x-` are conditions too.

Headers of a message are compared in the form `Field.comparable` gives, decoded once per publish by
`comparable_headers`, however many bindings look at them.

The index makes a publish look at the bindings its headers point to rather than at every one. A
binding that needs any of its conditions is filed under each of them, and finding it there is a
match. A binding that needs all of them is filed under only one, since without that one it cannot
match, and is examined in full when found there. Which one is free to choose: the one that the
fewest other bindings are filed under, so that a condition they all share ("format" = "pdf") does
not gather them all in one place.
"""

from typing import Final

from broker.core.binding import Binding, Destination
from broker.core.table import Comparable, Table
from broker.core.terms import bytes_term, field_term
from broker.errors import PreconditionFailed

# x-match value -> (all conditions must hold, names beginning with x- are conditions too)
_MODES: Final = {
    b"all": (True, False),
    b"any": (False, False),
    b"all-with-x": (True, True),
    b"any-with-x": (False, True),
}


def comparable_headers(raw: bytes) -> dict[str, Comparable]:
    """Decode the headers table of a message, already checked, for matching.

    The first of several headers of one name counts.
    """
    headers: dict[str, Comparable] = {}
    for name, field in Table.trusted(raw).items():
        if name not in headers:
            headers[name] = field.comparable()
    return headers


class HeadersMatch:
    """What the arguments of one binding ask of a message's headers.

    `conditions` are the header names with the value each must have, None standing for any value;
    `match_all` says whether all must hold or one suffices. Raises PreconditionFailed if `x-match`
    is none of the four strings it may be.
    """

    __slots__ = ("conditions", "match_all")

    def __init__(self, arguments: Table) -> None:
        match_all, with_x = _mode(arguments)
        self.match_all: Final = match_all
        self.conditions: Final[list[tuple[str, Comparable | None]]] = []
        for name, field in arguments.items():
            if name != "x-match" and (with_x or not name.startswith("x-")):
                value = None if field.tag == "V" else field.comparable()
                self.conditions.append((name, value))

    def matches(self, headers: dict[str, Comparable]) -> bool:
        """Whether a message with these headers matches.

        Without conditions, every message has all of them and none has any of them.
        """
        match_all = self.match_all
        for name, value in self.conditions:
            header = headers.get(name)
            holds = header is not None and (value is None or header == value)
            if holds != match_all:
                return holds
        return match_all


class _Named:
    """The bindings filed under one header name: by the value they ask for, or for any value."""

    __slots__ = ("any_value", "by_value")

    def __init__(self) -> None:
        self.by_value: dict[Comparable, dict[Binding, HeadersMatch]] = {}
        self.any_value: dict[Binding, HeadersMatch] = {}


class HeadersIndex:
    """The bindings of one headers exchange, found by a message's headers."""

    __slots__ = ("_by_name", "_filed", "_unconditional")

    def __init__(self) -> None:
        self._by_name: dict[str, _Named] = {}
        # Bindings that match every message.
        self._unconditional: dict[Binding, None] = {}
        # Every binding, with the conditions it is filed under.
        self._filed: dict[Binding, list[tuple[str, Comparable | None]]] = {}

    def add(self, binding: Binding) -> None:
        """Add a binding; raise PreconditionFailed if its arguments are not acceptable.

        Adding it again changes nothing.
        """
        if binding in self._filed:
            return
        match = HeadersMatch(binding.arguments)
        filed = match.conditions
        if match.match_all:
            if filed:
                filed = [self._least_used(filed)]
            else:
                self._unconditional[binding] = None
        for name, value in filed:
            named = self._by_name.get(name)
            if named is None:
                named = _Named()
                self._by_name[name] = named
            if value is None:
                named.any_value[binding] = match
            else:
                same_value = named.by_value.get(value)
                if same_value is None:
                    same_value = {}
                    named.by_value[value] = same_value
                same_value[binding] = match
        self._filed[binding] = filed

    def remove(self, binding: Binding) -> None:
        """Remove a binding; raise KeyError if it is not here."""
        filed = self._filed.pop(binding)
        self._unconditional.pop(binding, None)
        for name, value in filed:
            named = self._by_name.get(name)
            if named is None:
                continue  # Repeated in the arguments, and gone with its first mention.
            if value is None:
                named.any_value.pop(binding, None)
            else:
                same_value = named.by_value.get(value)
                if same_value is not None:
                    same_value.pop(binding, None)
                    if not same_value:
                        del named.by_value[value]
            if not named.by_value and not named.any_value:
                del self._by_name[name]

    def is_empty(self) -> bool:
        """Whether there is no binding."""
        return not self._filed and not self._by_name and not self._unconditional

    def match(self, headers: dict[str, Comparable], found: dict[Destination, None]) -> None:
        """Add the destination of every binding that matches `headers` to `found`."""
        for binding in self._unconditional:
            found[binding.destination] = None
        by_name = self._by_name
        for name, value in headers.items():
            named = by_name.get(name)
            if named is None:
                continue
            same_value = named.by_value.get(value)
            if same_value is not None:
                _match_filed(same_value, headers, found)
            if named.any_value:
                _match_filed(named.any_value, headers, found)

    def _least_used(
        self, conditions: list[tuple[str, Comparable | None]]
    ) -> tuple[str, Comparable | None]:
        """Return the condition that the fewest bindings are filed under, a value before any value.

        Any message that has the header meets a condition without a value, so that one comes last.
        """
        chosen = conditions[0]
        chosen_rank = self._rank(chosen)
        for condition in conditions:
            rank = self._rank(condition)
            if rank < chosen_rank:
                chosen = condition
                chosen_rank = rank
        return chosen

    def _rank(self, condition: tuple[str, Comparable | None]) -> tuple[bool, int]:
        name, value = condition
        named = self._by_name.get(name)
        if value is None:
            return True, 0 if named is None else len(named.any_value)
        same_value = None if named is None else named.by_value.get(value)
        return False, 0 if same_value is None else len(same_value)


def _match_filed(
    filed: dict[Binding, HeadersMatch],
    headers: dict[str, Comparable],
    found: dict[Destination, None],
) -> None:
    """Add the bindings filed under a condition that holds, if their other conditions allow it."""
    for binding, match in filed.items():
        if not match.match_all or len(match.conditions) == 1 or match.matches(headers):
            found[binding.destination] = None


def _mode(arguments: Table) -> tuple[bool, bool]:
    """Read `x-match`; return whether all must hold, and whether x- names count."""
    field = arguments.get("x-match")
    if field is None:
        return True, False
    value = field.value
    if field.tag != "S" or not isinstance(value, bytes):
        raise PreconditionFailed(
            f"Invalid x-match field type {field.type_name} "
            f"(value {field_term(field)}); expected longstr"
        )
    mode = _MODES.get(value)
    if mode is None:
        raise PreconditionFailed(
            f"Invalid x-match field value {bytes_term(value)}; "
            "expected all, any, all-with-x, or any-with-x"
        )
    return mode
