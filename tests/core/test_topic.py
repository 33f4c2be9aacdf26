"""Topic matching: words, `*` and `#`, and the trie they live in."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.core.binding import Binding, Destination
from broker.core.table import Table
from broker.core.topic import TopicTrie

CASES: list[tuple[str, list[str], list[str]]] = [
    # binding key, routing keys it matches, routing keys it doesn't
    ("#", ["", "a", "a.b", ".", "a.b.c.d"], []),
    ("*", ["a"], ["", "a.b", "."]),
    ("a.*", ["a.b", "a.", "a.*", "a.#"], ["a", "a.b.c", "b.a", "", "a.."]),
    ("a.#", ["a", "a.", "a.b.c"], ["ab", "", "b.a", ".a"]),
    ("a.*.b", ["a..b", "a.x.b"], ["a.b", "a.x.y.b", "a.x.c"]),
    ("#.a", ["a", "b.a", ".a", "a.a", "b.c.a"], ["", "ab", "a.b"]),
    ("*.#", ["a", "a.b", "."], [""]),
    ("#.*", ["a", "a.b", "."], [""]),
    ("", [""], ["a", "."]),
    ("#.#", ["", "a", "a.b"], []),
    ("*.*", [".", "a.", ".a", "a.b"], ["", "a", "a.b.c", ".."]),
    ("#.b.#", ["b", "a.b.c", "b.b", "a.b", "b.c", "a.b.c.b"], ["bb", "", "a"]),
    ("a.#.b", ["a.b", "a.x.b", "a.b.b", "a..b"], ["a", "b", "ab", "a.b.c"]),
    ("#.a.*.b.#", ["a.x.b", "a.a.b.b", "x.a.b.b.y"], ["a.b", "a.x.y.b"]),
    ("a*", ["a*"], ["a", "ab"]),
    ("#a.b", ["#a.b"], ["a.b", "x.a.b"]),
    ("a.**", ["a.**"], ["a.b", "a.b.c"]),
    ("a.b", ["a.b"], ["a", "a.b.", ".a.b", "A.b", "a.c"]),
    (".", ["."], ["", ".."]),
    ("a..*", ["a..b", "a.."], ["a.b"]),
]

WORDS = ["", "a", "b", "*", "#"]

binding_keys = st.lists(st.sampled_from(WORDS), max_size=5).map(".".join)
routing_keys = st.lists(st.sampled_from(["", "a", "b", "c"]), max_size=6).map(".".join)


def a_queue() -> Destination:
    """Somewhere to lead to; told from others by being another object."""
    return Destination("q", durable=False)


def bind(binding_key: str, destination: Destination | None = None) -> Binding:
    """A binding with this key, to a destination of its own unless one is given."""
    return Binding("topics", destination or a_queue(), binding_key.encode(), Table.EMPTY)


def match(trie: TopicTrie, routing_key: str) -> set[Destination]:
    """Where a message with this key goes."""
    found: dict[Destination, None] = {}
    trie.match(routing_key.encode(), found)
    return set(found)


def matches(pattern: list[str], words: list[str]) -> bool:
    """The definition of a match, too slow and too plain to be wrong."""
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(matches(pattern[1:], words[skipped:]) for skipped in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and matches(pattern[1:], words[1:])


def expected(bindings: list[Binding], routing_key: str) -> set[Destination]:
    """Where a message goes by the definition."""
    return {
        binding.destination
        for binding in bindings
        if matches(split(binding.routing_key.decode()), split(routing_key))
    }


def split(key: str) -> list[str]:
    """The words of a key; the empty key has none."""
    return key.split(".") if key else []


class TestMatch:
    @pytest.mark.parametrize(
        ("binding_key", "routing_key"),
        [(binding_key, key) for binding_key, keys, _ in CASES for key in keys],
    )
    def test_matches(self, binding_key: str, routing_key: str) -> None:
        """These keys match, as they do in RabbitMQ."""
        trie = TopicTrie()
        binding = bind(binding_key)
        trie.add(binding)

        assert match(trie, routing_key) == {binding.destination}
        assert matches(split(binding_key), split(routing_key))

    @pytest.mark.parametrize(
        ("binding_key", "routing_key"),
        [(binding_key, key) for binding_key, _, keys in CASES for key in keys],
    )
    def test_does_not_match(self, binding_key: str, routing_key: str) -> None:
        """These keys don't match, as they don't in RabbitMQ."""
        trie = TopicTrie()
        trie.add(bind(binding_key))

        assert match(trie, routing_key) == set()
        assert not matches(split(binding_key), split(routing_key))

    def test_no_bindings(self) -> None:
        """Nothing matches where nothing is bound."""
        assert match(TopicTrie(), "a.b") == set()

    def test_all_that_match_are_found(self) -> None:
        """Every matching binding contributes its destination, whatever others match."""
        trie = TopicTrie()
        bindings = {binding_key: bind(binding_key) for binding_key, _, _ in CASES}
        for binding in bindings.values():
            trie.add(binding)

        matching = ["#", "a.*", "a.#", "*.#", "#.*", "#.#", "*.*", "#.b.#", "a.#.b", "a.b"]
        assert match(trie, "a.b") == {bindings[key].destination for key in matching}

    def test_a_destination_is_found_once(self) -> None:
        """A destination bound by several matching keys is one destination."""
        trie = TopicTrie()
        queue = a_queue()
        for binding_key in ["a.b", "a.*", "#", "#.b"]:
            trie.add(bind(binding_key, queue))

        assert match(trie, "a.b") == {queue}

    def test_adds_to_what_was_found(self) -> None:
        """Destinations found elsewhere stay, so that several keys and exchanges can share a set."""
        trie = TopicTrie()
        binding = bind("a.*")
        trie.add(binding)
        earlier = a_queue()
        found: dict[Destination, None] = {earlier: None}
        trie.match(b"a.b", found)

        assert list(found) == [earlier, binding.destination]

    def test_keys_need_not_be_text(self) -> None:
        """Keys are compared as bytes."""
        trie = TopicTrie()
        binding = Binding("topics", a_queue(), b"\xff.*", Table.EMPTY)
        trie.add(binding)
        found: dict[Destination, None] = {}
        trie.match(b"\xff.\xfe", found)

        assert list(found) == [binding.destination]

    @settings(deadline=None)
    @given(st.lists(binding_keys, max_size=10), st.lists(routing_keys, max_size=10))
    def test_by_definition(self, binding_keys: list[str], routing_keys: list[str]) -> None:
        """Any set of bindings matches any key as the definition says."""
        trie = TopicTrie()
        bindings = [bind(binding_key) for binding_key in binding_keys]
        for binding in bindings:
            trie.add(binding)

        for routing_key in routing_keys:
            assert match(trie, routing_key) == expected(bindings, routing_key)

    def test_hostile_patterns(self) -> None:
        """Many wildcards and many words end: no way of sharing words out is tried twice."""
        trie = TopicTrie()
        matching = bind(".".join(["#"] * 128))
        trie.add(matching)
        trie.add(bind(".".join(["#", "a"] * 64) + ".b"))
        trie.add(bind(".".join(["#", "*"] * 64) + ".b"))

        assert match(trie, ".".join(["a"] * 128)) == {matching.destination}


class TestAddAndRemove:
    def test_adding_twice(self) -> None:
        """A binding added twice is gone when removed once."""
        trie = TopicTrie()
        for binding in [bind("a"), bind("a.#")]:
            trie.add(binding)
            trie.add(binding)
            trie.remove(binding)

        assert trie.is_empty()

    def test_others_of_the_same_key_stay(self) -> None:
        """Removing a binding leaves the others of its key."""
        for binding_key in ["a", "a.*", "#"]:
            trie = TopicTrie()
            gone, stays = bind(binding_key), bind(binding_key)
            trie.add(gone)
            trie.add(stays)
            trie.remove(gone)

            assert match(trie, "a") | match(trie, "a.b") == {stays.destination}

    def test_same_destination_by_two_bindings(self) -> None:
        """A destination bound twice by one key, with other arguments, is found until both go."""
        trie = TopicTrie()
        queue = a_queue()
        one = Binding("topics", queue, b"a.*", Table.from_python({"k": 1}))
        two = Binding("topics", queue, b"a.*", Table.from_python({"k": 2}))
        trie.add(one)
        trie.add(two)
        trie.remove(one)

        assert match(trie, "a.b") == {queue}
        trie.remove(two)
        assert match(trie, "a.b") == set()

    def test_removing_what_is_not_there(self) -> None:
        """Removing an unknown binding is an error and changes nothing."""
        trie = TopicTrie()
        binding = bind("a.*.b")
        trie.add(binding)
        for binding_key in ["a.*.b", "a.*", "a.*.b.c", "x.*", "a", "#", "a.#.b"]:
            with pytest.raises(KeyError):
                trie.remove(bind(binding_key))

        assert match(trie, "a.x.b") == {binding.destination}

    def test_a_prefix_survives(self) -> None:
        """Removing a longer pattern keeps the shorter one on its path, and the other way round."""
        for gone, stays in [(bind("a.#.*"), bind("a.#")), (bind("a.#"), bind("a.#.*"))]:
            trie = TopicTrie()
            trie.add(gone)
            trie.add(stays)
            trie.remove(gone)

            assert match(trie, "a.b") == {stays.destination}

    @settings(deadline=None)
    @given(
        st.lists(binding_keys, min_size=1, max_size=8),
        st.lists(st.integers(0, 7), max_size=30),
        st.lists(routing_keys, min_size=1, max_size=4),
    )
    def test_any_sequence(
        self, binding_keys: list[str], steps: list[int], routing_keys: list[str]
    ) -> None:
        """After any sequence of adding and removing, what matches is what is there."""
        bindings = [bind(binding_key) for binding_key in binding_keys]
        trie = TopicTrie()
        present: list[Binding] = []
        for step in steps:
            binding = bindings[step % len(bindings)]
            if binding in present:
                present.remove(binding)
                trie.remove(binding)
            else:
                present.append(binding)
                trie.add(binding)
            for routing_key in routing_keys:
                assert match(trie, routing_key) == expected(present, routing_key)

        for binding in present:
            trie.remove(binding)
        assert trie.is_empty()
