"""Following bindings between exchanges, alternates, and extra routing keys."""

import pytest
from core_support import Core, an_address, memory_core

from broker.core.binding import Destination
from broker.core.headers import comparable_headers
from broker.core.queue import Queue
from broker.core.routing import Route, follow
from broker.core.table import Table
from broker.errors import AccessRefused, NotFound
from broker.store.memory import MemoryStore


class Topology:
    """A vhost whose exchanges and queues are made by what is said of them."""

    def __init__(self) -> None:
        self.core: Core[MemoryStore] = memory_core()
        self.vhost = self.core.vhost

    def exchange(
        self, name: str, type_name: str = "fanout", alternate: str | None = None
    ) -> "Topology":
        """Declare an exchange."""
        arguments = Table.EMPTY
        if alternate is not None:
            arguments = Table.from_python({"alternate-exchange": alternate})
        self.vhost.declare_exchange(name, type_name, arguments=arguments)
        return self

    def bind(
        self, source: str, destination: str, key: str = "", arguments: Table = Table.EMPTY
    ) -> "Topology":
        """Bind the exchange of that name, or else the queue, which is made if need be."""
        end: Destination | None = self.vhost.exchanges.get(destination)
        if end is None:
            end = self.vhost.declare_queue(destination)
        self.vhost.bind(source, end, key.encode(), arguments)
        return self

    def routed(self, exchange: str, *keys: str, **headers: object) -> list[str]:
        """The queues that a message goes to, sorted; None headers are looked at."""
        queues = follow(
            self.vhost.exchanges[exchange],
            self.vhost.exchanges,
            [key.encode() for key in keys or ("",)],
            comparable_headers(Table.from_python(headers).raw),
        )
        assert queues is not None
        assert len(queues) == len(set(queues)), "one copy per queue"
        return sorted(queue.name for queue in queues)


def names(queues: tuple[Queue, ...] | None) -> list[str] | None:
    """The names of queues, sorted."""
    return sorted(queue.name for queue in queues) if queues is not None else None


# Bindings between exchanges.


def test_messages_follow_bindings_between_exchanges() -> None:
    """What an exchange passes on is routed by the next with the same key."""
    topology = Topology().exchange("first").exchange("second", "direct")
    topology.bind("first", "second").bind("first", "a").bind("second", "b", "k")

    assert topology.routed("first", "k") == ["a", "b"]
    assert topology.routed("first", "other") == ["a"]
    assert topology.routed("second", "k") == ["b"]


def test_a_cycle_ends() -> None:
    """Each exchange is visited once per message."""
    topology = Topology().exchange("a").exchange("b").exchange("c")
    topology.bind("a", "b").bind("b", "c").bind("c", "a")
    for name in "abc":
        topology.bind(name, f"q{name}")

    for name in "abc":
        assert topology.routed(name) == ["qa", "qb", "qc"]


def test_an_exchange_may_be_bound_to_itself() -> None:
    """It passes a message on to itself once, that is, not at all."""
    topology = Topology().exchange("a").bind("a", "a").bind("a", "q")

    assert topology.routed("a") == ["q"]


def test_several_ways_lead_to_one_copy() -> None:
    """A queue gets a message once, however it is reached."""
    topology = Topology().exchange("a").exchange("b").exchange("c")
    topology.bind("a", "b").bind("a", "c").bind("a", "q").bind("b", "q").bind("c", "q")

    assert topology.routed("a") == ["q"]


# Alternate exchanges.


def test_the_alternate_gets_what_matches_no_binding() -> None:
    """Only then, and by its own rules."""
    topology = Topology().exchange("x", "direct", alternate="ae").exchange("ae")
    topology.bind("x", "q", "k").bind("ae", "rest")

    assert topology.routed("x", "k") == ["q"]
    assert topology.routed("x", "other") == ["rest"]


def test_alternates_have_alternates() -> None:
    """The chain goes on while nothing matches."""
    topology = Topology().exchange("x", "direct", alternate="y")
    topology.exchange("y", "direct", alternate="z").exchange("z").bind("z", "last")

    assert topology.routed("x", "k") == ["last"]


def test_alternates_may_form_a_cycle() -> None:
    """Each is visited once; then the message is unroutable."""
    topology = Topology().exchange("x", "direct", alternate="y").exchange("y", "direct", "x")

    assert topology.routed("x", "k") == []


def test_a_missing_alternate_is_ignored() -> None:
    """It may be declared later, and counts from then on."""
    topology = Topology().exchange("x", "direct", alternate="later")
    assert topology.routed("x", "k") == []
    topology.exchange("later").bind("later", "q")

    assert topology.routed("x", "k") == ["q"]


def test_the_default_exchange_is_no_alternate() -> None:
    """As with RabbitMQ: its bindings are only implied, so nothing is found in it."""
    topology = Topology().exchange("x", "direct", alternate="")
    topology.vhost.declare_queue("q")

    assert topology.routed("x", "q") == []


def test_an_alternate_is_not_used_when_a_binding_to_an_exchange_matched() -> None:
    """Though that exchange leads nowhere: the message is unroutable."""
    topology = Topology().exchange("x", alternate="ae").exchange("empty", "direct").exchange("ae")
    topology.bind("x", "empty").bind("ae", "rest")

    assert topology.routed("x", "k") == []


def test_the_alternate_of_the_exchange_that_led_nowhere_is_used() -> None:
    """Each exchange answers for what came to it."""
    topology = Topology().exchange("x", alternate="ae")
    topology.exchange("empty", "direct", alternate="other").exchange("ae").exchange("other")
    topology.bind("x", "empty").bind("ae", "rest").bind("other", "caught")

    assert topology.routed("x", "k") == ["caught"]


def test_an_alternate_that_was_visited_before_is_not_visited_again() -> None:
    """The rule of one visit holds for alternates too."""
    topology = Topology().exchange("x").exchange("empty", "direct", alternate="x")
    topology.bind("x", "empty").bind("x", "q")

    assert topology.routed("x", "k") == ["q"]


def test_an_internal_exchange_may_be_an_alternate() -> None:
    """Clients can't publish to it; messages may be led to it."""
    topology = Topology().exchange("x", "direct", alternate="inside")
    topology.vhost.declare_exchange("inside", "fanout", internal=True)
    topology.bind("inside", "q")

    assert topology.routed("x", "k") == ["q"]


# Extra routing keys and headers.


def test_any_of_several_keys_may_match() -> None:
    """The keys of CC and BCC count like the first, and a queue still gets one copy."""
    topology = Topology().exchange("x", "direct").exchange("t", "topic")
    topology.bind("x", "a", "1").bind("x", "b", "2").bind("x", "b", "3").bind("t", "c", "*.y")

    assert topology.routed("x", "1", "2", "3") == ["a", "b"]
    assert topology.routed("t", "x", "x.y") == ["c"]


def test_an_alternate_is_used_only_when_no_key_matches() -> None:
    """One that matches is enough."""
    topology = Topology().exchange("x", "direct", alternate="ae").exchange("ae")
    topology.bind("x", "a", "1").bind("ae", "rest")

    assert topology.routed("x", "0", "1") == ["a"]
    assert topology.routed("x", "0", "2") == ["rest"]


def test_extra_keys_name_queues_in_the_default_exchange() -> None:
    """Each key of the message may be the name of a queue."""
    topology = Topology()
    for name in ("a", "b", "c"):
        topology.vhost.declare_queue(name)

    assert topology.routed("", "a", "c", "missing") == ["a", "c"]


def test_headers_are_asked_for_only_on_a_way_that_needs_them() -> None:
    """Without headers at hand there's no answer for a headers exchange, and one for all others."""
    topology = Topology().exchange("x", "direct").exchange("h", "headers").bind("x", "h", "by-h")
    topology.bind("x", "q", "plain").bind("h", "matched", arguments=Table.from_python({"a": 1}))
    exchanges = topology.vhost.exchanges

    assert names(follow(exchanges["x"], exchanges, [b"plain"], None)) == ["q"]
    assert follow(exchanges["x"], exchanges, [b"by-h"], None) is None
    assert topology.routed("x", "by-h", a=1) == ["matched"]
    assert topology.routed("x", "by-h", a=2) == []


def test_a_headers_exchange_may_have_an_alternate() -> None:
    """What matches none of its bindings goes there."""
    topology = Topology().exchange("h", "headers", alternate="ae").exchange("ae")
    topology.bind("h", "q", arguments=Table.from_python({"a": 1})).bind("ae", "rest")

    assert topology.routed("h", a=1) == ["q"]
    assert topology.routed("h", a=2) == ["rest"]


# Routes.


def test_a_route_reads_its_address() -> None:
    """Exchange and key lie side by side, each behind its length."""
    route = Route(an_address("größe", "a.b"))

    assert (route.exchange_name, route.routing_key) == ("größe", b"a.b")
    assert (route.targets, route.generation) == (None, -1)


def test_resolving_a_route_keeps_the_answer() -> None:
    """The targets and the generation they belong to lie with the address."""
    topology = Topology().exchange("x").bind("x", "q")
    vhost = topology.vhost
    route = Route(an_address("x", "k"))

    assert names(vhost.resolve(route)) == ["q"]
    assert (names(route.targets), route.generation) == (["q"], vhost.generation)
    assert route.exchange is vhost.exchanges["x"]


def test_a_change_of_the_topology_makes_a_route_old() -> None:
    """It is resolved again, and then right again."""
    topology = Topology().exchange("x").bind("x", "q")
    vhost = topology.vhost
    route = Route(an_address("x", "k"))
    vhost.resolve(route)
    topology.bind("x", "r")

    assert route.generation != vhost.generation
    assert names(vhost.resolve(route)) == ["q", "r"]


def test_a_binding_made_twice_changes_nothing() -> None:
    """Routes stay current, as nothing goes elsewhere."""
    topology = Topology().exchange("x").bind("x", "q")
    generation = topology.vhost.generation
    topology.bind("x", "q")

    assert topology.vhost.generation == generation


def test_a_route_to_a_missing_exchange_is_refused() -> None:
    """Every time, until there is one."""
    topology = Topology()
    route = Route(an_address("x", "k"))
    for _ in range(2):
        with pytest.raises(NotFound, match="no exchange 'x' in vhost '/'"):
            topology.vhost.resolve(route)
    topology.exchange("x")

    assert topology.vhost.resolve(route) == ()


def test_a_route_to_an_exchange_that_went_away_is_refused() -> None:
    """An old answer doesn't outlive its exchange."""
    topology = Topology().exchange("x").bind("x", "q")
    route = Route(an_address("x", "k"))
    topology.vhost.resolve(route)
    topology.vhost.delete_exchange("x")

    assert route.generation != topology.vhost.generation
    with pytest.raises(NotFound):
        topology.vhost.resolve(route)


def test_a_route_to_an_internal_exchange_is_refused() -> None:
    """Clients may not publish to it."""
    route = Route(an_address("amq.rabbitmq.trace", "k"))

    with pytest.raises(AccessRefused) as refused:
        Topology().vhost.resolve(route)
    text = "cannot publish to internal exchange 'amq.rabbitmq.trace' in vhost '/'"
    assert refused.value.text == text


def test_a_route_over_headers_has_no_targets_of_its_own() -> None:
    """Each message is routed by its headers, and only those that have the way before them."""
    topology = Topology().exchange("h", "headers")
    topology.bind("h", "q", arguments=Table.from_python({"a": 1}))
    vhost = topology.vhost
    route = Route(an_address("h", "k"))

    assert vhost.resolve(route) is None
    assert names(vhost.route_message(route, [], Table.from_python({"a": 1}).raw)) == ["q"]
    assert vhost.route_message(route, [], b"") == ()


def test_extra_keys_are_followed_beside_that_of_the_route() -> None:
    """CC and BCC belong to one message; the route stays what it is."""
    topology = Topology().exchange("x", "direct")
    topology.bind("x", "a", "a").bind("x", "b", "b").bind("x", "c", "c")
    route = Route(an_address("x", "a"))
    topology.vhost.resolve(route)

    assert names(topology.vhost.route_message(route, [b"b", b"a"], b"")) == ["a", "b"]
    assert names(route.targets) == ["a"]


def test_extra_keys_lead_to_a_headers_exchange_too() -> None:
    """A way that needs headers may be opened by an extra key alone."""
    topology = Topology().exchange("x", "direct").exchange("h", "headers").bind("x", "h", "extra")
    topology.bind("h", "q", arguments=Table.from_python({"a": 1}))
    route = Route(an_address("x", "main"))
    headers = Table.from_python({"a": 1}).raw

    assert topology.vhost.resolve(route) == ()
    assert names(topology.vhost.route_message(route, [b"extra"], headers)) == ["q"]
