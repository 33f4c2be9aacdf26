"""What makes two bindings the same."""

from broker.core.binding import Binding, Destination
from broker.core.table import Table


def test_identity_ignores_the_order_of_arguments() -> None:
    """Bindings are the same when key and arguments are, in whatever order those were sent."""
    queue = Destination("q", durable=False)
    one = Binding("x", queue, b"k", Table.from_python({"a": 1, "b": 2}))
    other = Binding("x", queue, b"k", Table.from_python({"b": 2, "a": 1}))

    assert one.identity == other.identity


def test_identity_tells_key_and_arguments_apart() -> None:
    """Another key, or another argument, makes another binding."""
    queue = Destination("q", durable=False)
    arguments = [Table.EMPTY, Table.from_python({"a": 1}), Table.from_python({"a": 2})]
    identities = {
        Binding("x", queue, key, table).identity for key in (b"k", b"") for table in arguments
    }

    assert len(identities) == 6
