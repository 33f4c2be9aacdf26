"""Exchange types: which destinations a routing key, or headers, lead to."""

import pytest

from broker.core.binding import Binding, Destination
from broker.core.exchange import (
    EXCHANGE_TYPES,
    DirectExchange,
    Exchange,
    FanoutExchange,
    HeadersExchange,
    TopicExchange,
)
from broker.core.headers import comparable_headers
from broker.core.table import Table
from broker.errors import PreconditionFailed


def bind(
    exchange: Exchange,
    key: str = "",
    arguments: Table = Table.EMPTY,
    destination: Destination | None = None,
) -> Binding:
    """Bind a destination, one of its own unless given, and return the binding."""
    if destination is None:
        destination = Destination("q", durable=False)
    binding = Binding(exchange.name, destination, key.encode(), arguments)
    exchange.bind(binding)
    return binding


def routed(exchange: Exchange, key: str) -> list[Destination]:
    """Where a message with this key goes."""
    found: dict[Destination, None] = {}
    exchange.route(key.encode(), found)
    return list(found)


def routed_by_headers(exchange: Exchange, **headers: object) -> list[Destination]:
    """Where a message with these headers goes."""
    found: dict[Destination, None] = {}
    exchange.route_headers(comparable_headers(Table.from_python(headers).raw), found)
    return list(found)


def test_the_four_types_of_the_standard() -> None:
    """These can be declared, by these names."""
    kinds = [DirectExchange, FanoutExchange, TopicExchange, HeadersExchange]

    assert list(EXCHANGE_TYPES) == ["direct", "fanout", "topic", "headers"]
    assert list(EXCHANGE_TYPES.values()) == kinds


def test_only_headers_exchanges_look_at_headers() -> None:
    """For all others the address of a message says where it goes."""
    assert [kind.type_name for kind in EXCHANGE_TYPES.values() if kind.uses_headers] == ["headers"]


@pytest.mark.parametrize("kind", [DirectExchange, FanoutExchange, TopicExchange])
def test_without_bindings_nothing_matches(kind: type[Exchange]) -> None:
    """A new exchange leads nowhere."""
    assert routed(kind("x"), "key") == []


def test_direct_compares_keys() -> None:
    """Only equal keys match; wildcards are ordinary characters."""
    exchange = DirectExchange("x")
    bindings = {key: bind(exchange, key).destination for key in ("a", "a.*", "")}

    assert routed(exchange, "a") == [bindings["a"]]
    assert routed(exchange, "a.*") == [bindings["a.*"]]
    assert routed(exchange, "") == [bindings[""]]
    assert routed(exchange, "a.b") == []


def test_direct_leads_to_all_with_the_key() -> None:
    """Several destinations may share a key."""
    exchange = DirectExchange("x")
    destinations = [bind(exchange, "k").destination for _ in range(3)]

    assert routed(exchange, "k") == destinations


def test_fanout_ignores_the_key() -> None:
    """Every binding matches."""
    exchange = FanoutExchange("x")
    destinations = [bind(exchange, key).destination for key in ("a", "b")]

    assert routed(exchange, "anything") == destinations


def test_topic_matches_patterns() -> None:
    """Binding keys are patterns over words."""
    exchange = TopicExchange("x")
    star = bind(exchange, "a.*").destination
    hash_ = bind(exchange, "a.#").destination
    exact = bind(exchange, "a.b").destination

    assert set(routed(exchange, "a.b")) == {star, hash_, exact}
    assert routed(exchange, "a.b.c") == [hash_]


def test_headers_match_arguments() -> None:
    """The arguments of a binding are compared with the headers of a message."""
    exchange = HeadersExchange("x")
    destination = bind(exchange, arguments=Table.from_python({"a": 1})).destination

    assert routed_by_headers(exchange, a=1, b=2) == [destination]
    assert routed_by_headers(exchange, a=2) == []


@pytest.mark.parametrize("kind", [DirectExchange, FanoutExchange, TopicExchange])
def test_a_destination_is_found_once(kind: type[Exchange]) -> None:
    """However many of its bindings match, by key or by arguments."""
    exchange = kind("x")
    destination = Destination("q", durable=False)
    bind(exchange, "k", destination=destination)
    bind(exchange, "k", Table.from_python({"a": 1}), destination)

    assert routed(exchange, "k") == [destination]


@pytest.mark.parametrize("kind", [DirectExchange, FanoutExchange, TopicExchange])
def test_one_of_two_bindings_of_a_key_remains(kind: type[Exchange]) -> None:
    """Bindings that differ in their arguments alone are two, and go one by one."""
    exchange = kind("x")
    destination = Destination("q", durable=False)
    first = bind(exchange, "k", destination=destination)
    second = bind(exchange, "k", Table.from_python({"a": 1}), destination)
    exchange.unbind(first)

    assert routed(exchange, "k") == [destination]
    exchange.unbind(second)
    assert routed(exchange, "k") == []
    assert not exchange.outgoing


def test_unbound_headers_match_no_more() -> None:
    """The index forgets the binding too."""
    exchange = HeadersExchange("x")
    exchange.unbind(bind(exchange, arguments=Table.from_python({"a": 1})))

    assert routed_by_headers(exchange, a=1) == []


def test_outgoing_bindings_are_found_by_what_makes_them_one() -> None:
    """Destination and identity lead to the binding, in the order they were made."""
    exchange = FanoutExchange("x")
    bindings = [bind(exchange, "k") for _ in range(3)]

    assert list(exchange.outgoing.values()) == bindings
    for binding in bindings:
        assert exchange.outgoing[binding.destination, binding.identity] is binding


def test_a_binding_that_is_refused_leaves_no_trace() -> None:
    """A bad x-match is an error, and the exchange stays as it was."""
    exchange = HeadersExchange("x")

    with pytest.raises(PreconditionFailed):
        bind(exchange, arguments=Table.from_python({"x-match": "some"}))
    assert not exchange.outgoing
    assert routed_by_headers(exchange) == []
