"""A vhost whose topology changes at random, checked against routing by brute force.

The model is a list of bindings and two dicts of names. It routes by asking every binding, follows
deletions by looking at every exchange, and caches nothing. The vhost answers from routes that it
keeps, so a change that forgot to make them old is found at once; and what the history amounts to
must be the durable part of the model.
"""

import os
from dataclasses import dataclass, field
from typing import NamedTuple

from core_support import RecordingSink, an_address, held_core
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker.core.binding import Destination
from broker.core.consumer import Consumer
from broker.core.queue import Queue
from broker.core.recovery import fold
from broker.core.routing import Route
from broker.core.table import Table
from broker.errors import NotFound, PreconditionFailed, ResourceLocked

#: Raise it to search longer.
EFFORT = int(os.environ.get("LEVERET_TEST_EFFORT", "1"))

EXCHANGES = ["w", "x", "y", "z"]
QUEUES = ["p", "q", "r"]
BINDING_KEYS = ["", "a", "a.b", "*", "a.#", "#"]
ROUTING_KEYS = ["", "a", "a.b", "q"]
OWNERS = ["one", "other"]
SOME_HEADERS = Table.from_python({"h": 1})

exchange_names = st.sampled_from(EXCHANGES)
queue_names = st.sampled_from(QUEUES)
binding_keys = st.sampled_from(BINDING_KEYS)
routing_keys = st.sampled_from(ROUTING_KEYS)
conditions = st.sampled_from([Table.EMPTY, SOME_HEADERS])
numbers = st.integers(0, 40)


class BindingModel(NamedTuple):
    """All that makes a binding one."""

    source: str
    to_queue: bool
    destination: str
    key: str
    arguments: Table


@dataclass
class ExchangeModel:
    """An exchange, without its bindings."""

    type_name: str
    durable: bool
    auto_delete: bool
    alternate: str | None


@dataclass
class QueueModel:
    """A queue, without its bindings."""

    durable: bool
    auto_delete: bool
    owner: str | None
    consumers: list[Consumer] = field(default_factory=list)


def matches(pattern: list[str], words: list[str]) -> bool:
    """The definition of a topic match."""
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(matches(pattern[1:], words[skip:]) for skip in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and matches(pattern[1:], words[1:])


def words(key: str) -> list[str]:
    """The words of a key; the empty one has none."""
    return key.split(".") if key else []


class Model:
    """Names and a list."""

    def __init__(self) -> None:
        self.exchanges = {
            "": ExchangeModel("direct", True, False, None),
            "amq.fanout": ExchangeModel("fanout", True, False, None),
        }
        self.queues: dict[str, QueueModel] = {}
        self.bindings: list[BindingModel] = []

    def matches(self, binding: BindingModel, keys: list[str], headers: Table) -> bool:
        """Whether a message follows a binding."""
        type_name = self.exchanges[binding.source].type_name
        if type_name == "direct":
            return binding.key in keys
        if type_name == "topic":
            return any(matches(words(binding.key), words(key)) for key in keys)
        if type_name == "headers":
            return not binding.arguments or binding.arguments == headers
        return True

    def route(self, exchange: str, keys: list[str], headers: Table) -> tuple[set[str], bool]:
        """The queues a message goes to, and whether its headers were looked at."""
        queues: set[str] = set()
        visited: list[str] = []
        waiting = [exchange]
        while waiting:
            name = waiting.pop()
            if name in visited or name not in self.exchanges:
                continue
            visited.append(name)
            matched = [
                binding
                for binding in self.bindings
                if binding.source == name and self.matches(binding, keys, headers)
            ]
            queues.update(binding.destination for binding in matched if binding.to_queue)
            waiting += [binding.destination for binding in matched if not binding.to_queue]
            if name == "":
                queues.update(key for key in keys if key in self.queues)
            elif not matched:
                waiting += [self.exchanges[name].alternate or "nowhere"]
        types = {self.exchanges[name].type_name for name in visited}
        return queues, "headers" in types

    def remove(self, doomed: list[BindingModel]) -> None:
        """Remove bindings, and what goes with them."""
        self.bindings = [binding for binding in self.bindings if binding not in doomed]
        for source in {binding.source for binding in doomed}:
            exchange = self.exchanges.get(source)
            if exchange is not None and exchange.auto_delete and not self.leading_from(source):
                self.delete_exchange(source)

    def leading_from(self, exchange: str) -> list[BindingModel]:
        return [binding for binding in self.bindings if binding.source == exchange]

    def delete_exchange(self, name: str) -> None:
        del self.exchanges[name]
        self.bindings = [binding for binding in self.bindings if binding.source != name]
        self.remove([each for each in self.bindings if each[1:3] == (False, name)])

    def delete_queue(self, name: str) -> None:
        del self.queues[name]
        self.remove([each for each in self.bindings if each[1:3] == (True, name)])

    def is_durable(self, binding: BindingModel) -> bool:
        """Whether both ends of a binding last."""
        ends: dict[str, QueueModel] | dict[str, ExchangeModel]
        ends = self.queues if binding.to_queue else self.exchanges
        return self.exchanges[binding.source].durable and ends[binding.destination].durable


class VhostMachine(RuleBasedStateMachine):
    """See the module's theory."""

    def __init__(self) -> None:
        super().__init__()
        self.core = held_core()
        self.vhost = self.core.vhost
        self.records = self.core.store.records
        self.sink = RecordingSink(self.core.turn)
        self.model = Model()
        #: what publishers keep
        self.routes = [
            Route(an_address(exchange, key))
            for exchange in ["", "amq.fanout", *EXCHANGES]
            for key in ROUTING_KEYS
        ]

    def check_position(self, position: int, before: int) -> None:
        """What was recorded by one call is what its caller waits for, and nothing else is."""
        appended = len(self.records) - before
        assert position == (len(self.records) if appended else 0)

    # What clients do.

    @rule(
        name=exchange_names,
        type_name=st.sampled_from(["direct", "fanout", "fanout", "topic", "headers"]),
        durable=st.booleans(),
        auto_delete=st.booleans(),
        alternate=st.sampled_from([None, None, "", *EXCHANGES]),
    )
    def declare_exchange(
        self, name: str, type_name: str, durable: bool, auto_delete: bool, alternate: str | None
    ) -> None:
        wanted = ExchangeModel(type_name, durable, auto_delete, alternate)
        existing = self.model.exchanges.get(name)
        arguments = {} if alternate is None else {"alternate-exchange": alternate}
        before = len(self.records)
        try:
            exchange = self.vhost.declare_exchange(
                name,
                type_name,
                durable=durable,
                auto_delete=auto_delete,
                arguments=Table.from_python({**arguments}),
            )
        except PreconditionFailed:
            assert existing is not None
            assert existing != wanted
            return
        assert existing in (None, wanted)
        self.model.exchanges[name] = wanted
        if existing is None:
            self.check_position(exchange.declared_position, before)
        else:
            assert len(self.records) == before

    @rule(name=exchange_names, if_unused=st.booleans())
    def delete_exchange(self, name: str, if_unused: bool) -> None:
        before = len(self.records)
        used = self.model.leading_from(name)
        try:
            position = self.vhost.delete_exchange(name, if_unused=if_unused)
        except PreconditionFailed:
            assert if_unused
            assert used
            return
        assert not (if_unused and used)
        self.check_position(position, before)
        if name in self.model.exchanges:
            self.model.delete_exchange(name)

    @rule(
        name=queue_names,
        durable=st.booleans(),
        auto_delete=st.booleans(),
        owner=st.sampled_from([None, None, *OWNERS]),
    )
    def declare_queue(self, name: str, durable: bool, auto_delete: bool, owner: str | None) -> None:
        wanted = QueueModel(durable and owner is None, auto_delete, owner)
        existing = self.model.queues.get(name)
        before = len(self.records)
        try:
            queue = self.vhost.declare_queue(
                name,
                durable=durable,
                auto_delete=auto_delete,
                exclusive=owner is not None,
                owner=owner,
            )
        except ResourceLocked:
            assert existing is not None
            assert existing.owner != owner
        except PreconditionFailed:
            assert existing is not None
            assert existing.owner == owner
            assert (existing.durable, existing.auto_delete) != (wanted.durable, auto_delete)
        else:
            if existing is None:
                self.model.queues[name] = wanted
                self.check_position(queue.declared_position, before)
            else:
                attributes = (existing.durable, existing.auto_delete, existing.owner)
                assert attributes == (wanted.durable, auto_delete, owner)
                assert len(self.records) == before

    @precondition(lambda self: self.model.queues)
    @rule(number=numbers)
    def delete_queue(self, number: int) -> None:
        name = self.some_queue(number)
        told = len(self.sink.told)
        before = len(self.records)
        self.check_position(self.vhost.delete_queue(self.vhost.queues[name]), before)
        assert self.sink.told[told:] == self.model.queues[name].consumers
        self.model.delete_queue(name)

    def some_queue(self, number: int) -> str:
        return sorted(self.model.queues)[number % len(self.model.queues)]

    def destination(self, binding: BindingModel) -> Destination | None:
        if binding.to_queue:
            return self.vhost.queues.get(binding.destination)
        return self.vhost.exchanges.get(binding.destination)

    @rule(
        source=st.sampled_from(["amq.fanout", *EXCHANGES, *EXCHANGES]),
        to=st.one_of(queue_names, exchange_names),
        key=binding_keys,
        arguments=conditions,
    )
    def bind(self, source: str, to: str, key: str, arguments: Table) -> None:
        binding = BindingModel(source, to in QUEUES, to, key, arguments)
        destination = self.destination(binding)
        if destination is None:
            return
        before = len(self.records)
        try:
            position = self.vhost.bind(source, destination, key.encode(), arguments)
        except NotFound:
            assert source not in self.model.exchanges
            return
        if binding in self.model.bindings:
            assert len(self.records) == before
        else:
            self.model.bindings.append(binding)
            assert len(self.records) - before == self.model.is_durable(binding)
        if self.model.is_durable(binding) and len(self.records) > before:
            assert position == len(self.records)
        assert position >= self.vhost.exchanges[source].declared_position

    @rule(
        source=exchange_names,
        to=st.one_of(queue_names, exchange_names),
        key=binding_keys,
        arguments=conditions,
    )
    def unbind_any(self, source: str, to: str, key: str, arguments: Table) -> None:
        self.unbind(BindingModel(source, to in QUEUES, to, key, arguments))

    @precondition(lambda self: self.model.bindings)
    @rule(number=numbers)
    def unbind_one(self, number: int) -> None:
        self.unbind(self.model.bindings[number % len(self.model.bindings)])

    def unbind(self, binding: BindingModel) -> None:
        exchange = self.vhost.exchanges.get(binding.source)
        destination = self.destination(binding)
        if exchange is None or destination is None:
            assert binding not in self.model.bindings
            return
        key = binding.key.encode()
        bound = self.vhost.is_bound(exchange, destination, key, binding.arguments)
        assert bound is (binding in self.model.bindings)
        before = len(self.records)
        position = self.vhost.unbind(exchange, destination, key, binding.arguments)
        self.check_position(position, before)
        if bound:
            self.model.remove([binding])

    @precondition(lambda self: self.model.queues)
    @rule(number=numbers)
    def consume(self, number: int) -> None:
        name = self.some_queue(number)
        consumer = self.core.consume(self.vhost.queues[name], self.sink)
        self.model.queues[name].consumers.append(consumer)

    @precondition(lambda self: any(queue.consumers for queue in self.model.queues.values()))
    @rule(number=numbers)
    def cancel(self, number: int) -> None:
        consumers = [each for queue in self.model.queues.values() for each in queue.consumers]
        consumer = consumers[number % len(consumers)]
        name = consumer.queue.name
        queue = self.model.queues[name]
        queue.consumers.remove(consumer)
        self.core.cancel(consumer)
        if queue.auto_delete and not queue.consumers:
            self.model.delete_queue(name)

    @rule(owner=st.sampled_from(OWNERS))
    def end_connection(self, owner: str) -> None:
        self.vhost.release_owner(owner)
        owned = [name for name, queue in self.model.queues.items() if queue.owner == owner]
        for name in owned:
            self.model.delete_queue(name)

    @rule(number=numbers, extra_key=routing_keys, headers=conditions)
    def publish_with_extra_key(self, number: int, extra_key: str, headers: Table) -> None:
        """A message with CC: never answered from what is kept."""
        route = self.routes[number % len(self.routes)]
        if route.exchange_name in self.model.exchanges:
            self.vhost.resolve(route)
            targets = self.vhost.route_message(route, [extra_key.encode()], headers.raw)
            keys = [route.routing_key.decode(), extra_key]
            self.check_targets(targets, self.model.route(route.exchange_name, keys, headers)[0])

    def check_targets(self, targets: tuple[Queue, ...], names: set[str]) -> None:
        assert len(targets) == len(names), "one copy per queue"
        assert set(targets) == {self.vhost.queues[name] for name in names}

    # What always holds.

    @invariant()
    def routes_are_right(self) -> None:
        """A route is answered from what is kept when it is current, as publishers do."""
        for route in self.routes:
            if route.exchange_name not in self.model.exchanges:
                assert route.generation != self.vhost.generation
                continue
            if route.generation != self.vhost.generation:
                self.vhost.resolve(route)
            key = route.routing_key.decode()
            names, by_headers = self.model.route(route.exchange_name, [key], Table.EMPTY)
            assert (route.targets is None) is by_headers
            if route.targets is not None:
                self.check_targets(route.targets, names)
                continue
            self.check_targets(self.vhost.route_message(route, [], b""), names)
            names, _ = self.model.route(route.exchange_name, [key], SOME_HEADERS)
            self.check_targets(self.vhost.route_message(route, [], SOME_HEADERS.raw), names)

    @invariant()
    def names_agree(self) -> None:
        """There is what should be, and no more; bindings are known at both ends."""
        vhost = self.vhost
        present = {name for name in vhost.exchanges if not name.startswith("amq.")}
        assert present == self.model.exchanges.keys() - {"amq.fanout"}
        assert vhost.queues.keys() == self.model.queues.keys()
        outgoing = [each for one in vhost.exchanges.values() for each in one.outgoing.values()]
        incoming = [
            binding
            for ends in (vhost.exchanges, vhost.queues)
            for end in ends.values()
            for binding in end.bindings
        ]
        assert len(outgoing) == len(incoming) == len(self.model.bindings)
        assert set(outgoing) == set(incoming)
        for name, queue in self.model.queues.items():
            assert list(vhost.queues[name].consumers) == queue.consumers

    @invariant()
    def history_is_the_durable_part(self) -> None:
        """After a crash, recovery would find exactly what should have lasted."""
        model = self.model
        state = fold(self.records)
        exchanges = {name for name, each in model.exchanges.items() if each.durable}
        assert {name for _, name in state.exchanges} == exchanges - {"", "amq.fanout"}
        queues = {name for name, each in model.queues.items() if each.durable}
        assert {each.name for each in state.queues.values()} == queues
        assert state.queues.keys() == {self.vhost.queues[name].queue_id for name in queues}
        found = {
            BindingModel(
                each.source,
                each.to_queue,
                each.destination,
                each.routing_key.decode(),
                each.arguments,
            )
            for each in state.bindings.values()
        }
        assert found == {each for each in model.bindings if model.is_durable(each)}


TestVhostMachine = VhostMachine.TestCase
TestVhostMachine.settings = settings(
    max_examples=150 * EFFORT, stateful_step_count=40, deadline=None
)
