"""The trie behind the topic exchange.

A routing key is words with dots between them; the empty key has no words. A binding key is the
same, except that the word `*` stands for exactly one word (an empty one too) and `#` for any
number of words, none included. Inside a longer word both are ordinary characters.

Most binding keys of most exchanges hold no wildcard. Those match by equality, so they live in a
dict of their own and cost one lookup. Only patterns go into the trie, where each edge is one word
of a pattern: a literal, `*` or `#`.

Matching reads the routing key word by word and keeps the set of nodes that the words so far can
have led to, as one does when running a nondeterministic automaton. It never backtracks. Two facts
keep that set small and free of duplicates:

- A node behind a literal or `*` is reached by one word, from its one parent. As long as parents are
  not repeated, neither are these nodes. They are good for this word only.
- A node behind `#` is entered without reading a word, at once when its parent is reached, and then
  stays: every later word may be one of those that `#` stands for. Its parent may be reached again
  at a later word, so these nodes are kept in a dict, which takes each one once.

So each node is looked at once per word at most, whatever the patterns: `#.#.#.#.#` against a key
of a hundred words costs five nodes a hundred times, where backtracking would try millions of ways
to share the words out.
"""

from broker.core.binding import Binding, Destination


class _Node:
    """What remains to be matched after the words on the way from the root."""

    __slots__ = ("any_words", "bindings", "one_word", "words")

    def __init__(self) -> None:
        self.words: dict[bytes, _Node] = {}  # Children behind a literal word.
        self.one_word: _Node | None = None  # The child behind `*`.
        self.any_words: _Node | None = None  # The child behind `#`.
        self.bindings: dict[Binding, None] = {}  # Those whose pattern ends here.

    def child(self, word: bytes) -> "_Node | None":
        """Return the node behind one word of a pattern."""
        if word == b"#":
            return self.any_words
        if word == b"*":
            return self.one_word
        return self.words.get(word)

    def set_child(self, word: bytes, child: "_Node | None") -> None:
        """Put a node behind one word of a pattern, or remove what is there."""
        if word == b"#":
            self.any_words = child
        elif word == b"*":
            self.one_word = child
        elif child is not None:
            self.words[word] = child
        else:
            del self.words[word]

    def is_empty(self) -> bool:
        """Whether nothing ends at this node and nothing lies behind it."""
        return not (self.bindings or self.words or self.one_word or self.any_words)


class TopicTrie:
    """The bindings of one topic exchange, found by routing key."""

    __slots__ = ("_exact", "_root")

    def __init__(self) -> None:
        self._exact: dict[bytes, dict[Binding, None]] = {}
        self._root = _Node()

    def add(self, binding: Binding) -> None:
        """Add a binding; adding it again changes nothing."""
        words = _words(binding.routing_key)
        if not _is_pattern(words):
            same_key = self._exact.get(binding.routing_key)
            if same_key is None:
                same_key = {}
                self._exact[binding.routing_key] = same_key
            same_key[binding] = None
            return
        node = self._root
        for word in words:
            child = node.child(word)
            if child is None:
                child = _Node()
                node.set_child(word, child)
            node = child
        node.bindings[binding] = None

    def remove(self, binding: Binding) -> None:
        """Remove a binding, and the nodes nothing else needs; raise KeyError if it is not here."""
        words = _words(binding.routing_key)
        if not _is_pattern(words):
            same_key = self._exact[binding.routing_key]
            del same_key[binding]
            if not same_key:
                del self._exact[binding.routing_key]
            return
        path = [self._root]
        for word in words:
            child = path[-1].child(word)
            if child is None:
                raise KeyError(binding)
            path.append(child)
        del path[-1].bindings[binding]
        depth = len(words)
        while depth > 0 and path[depth].is_empty():
            depth -= 1
            path[depth].set_child(words[depth], None)

    def is_empty(self) -> bool:
        """Whether there is no binding."""
        return not self._exact and self._root.is_empty()

    def match(self, routing_key: bytes, found: dict[Destination, None]) -> None:
        """Add the destination of every binding that matches `routing_key` to `found`."""
        same_key = self._exact.get(routing_key)
        if same_key is not None:
            for binding in same_key:
                found[binding.destination] = None
        if not self._root.is_empty():
            self._match_patterns(routing_key, found)

    def _match_patterns(self, routing_key: bytes, found: dict[Destination, None]) -> None:
        """Run the words through the trie; see the top of this module."""
        reached = [self._root]
        staying: dict[_Node, None] = {}
        rest = self._root.any_words
        while rest is not None:
            staying[rest] = None
            rest = rest.any_words
        for word in _words(routing_key):
            parents = reached
            reached = []
            for node in parents:
                child = node.words.get(word)
                if child is not None:
                    reached.append(child)
                child = node.one_word
                if child is not None:
                    reached.append(child)
            for node in staying:
                child = node.words.get(word)
                if child is not None:
                    reached.append(child)
                child = node.one_word
                if child is not None:
                    reached.append(child)
            for node in reached:
                rest = node.any_words
                # If one is there already, so are those behind it.
                while rest is not None and rest not in staying:
                    staying[rest] = None
                    rest = rest.any_words
            if not reached and not staying:
                return
        for node in reached:
            for binding in node.bindings:
                found[binding.destination] = None
        for node in staying:
            for binding in node.bindings:
                found[binding.destination] = None


def _words(key: bytes) -> list[bytes]:
    """Split a key at its dots; the empty key has no words, while "." has two empty ones."""
    return key.split(b".") if key else []


def _is_pattern(words: list[bytes]) -> bool:
    """Whether a binding key of these words can match other routing keys than itself."""
    return b"*" in words or b"#" in words
