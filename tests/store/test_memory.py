"""The stores that keep nothing: positions, and when they are durable."""

from core_support import a_message

from broker.core.records import Settled
from broker.store.memory import HeldStore, MemoryStore


async def test_a_memory_store_is_durable_at_once() -> None:
    """What it is given is as safe as it will ever be; positions rise by one."""
    store = MemoryStore()
    await store.start()
    positions = [store.append(Settled(1, [number])) for number in range(3)]

    assert positions == [1, 2, 3]
    assert store.durable == 3
    await store.close()


async def test_a_memory_store_tells_nobody() -> None:
    """Nobody ever waits for it, so there is nothing to tell."""
    store = MemoryStore()
    told: list[int] = []
    store.on_durable = lambda: told.append(store.durable)
    store.append(Settled(1, [1]))
    await store.close()

    assert told == []


async def test_a_memory_store_lets_no_body_go() -> None:
    """Fetching and releasing leave a message as it is."""
    store = MemoryStore()
    message = a_message(b"body", persistent=True)
    await store.fetch([message])
    store.release(message)

    assert message.body == b"body"


def test_a_memory_store_recovers_nothing() -> None:
    """Whatever it was given before."""
    store = MemoryStore()
    store.append(Settled(1, [1]))
    state = store.recover()

    assert (state.exchanges, state.queues, state.bindings, state.messages) == ({}, {}, {}, {})


def test_a_held_store_keeps_its_records() -> None:
    """In order; the position of a record is its number, and none is durable yet."""
    store = HeldStore()
    records = [Settled(1, [number]) for number in range(3)]

    assert [store.append(record) for record in records] == [1, 2, 3]
    assert store.records == records
    assert store.durable == 0


def test_a_held_store_is_durable_when_told() -> None:
    """As far as it is told, or up to its end; each time it says so."""
    store = HeldStore()
    for number in range(3):
        store.append(Settled(1, [number]))
    told: list[int] = []
    store.on_durable = lambda: told.append(store.durable)
    store.sync(2)
    store.sync()

    assert told == [2, 3]


def test_a_held_store_needs_nobody_to_tell() -> None:
    """A test may look at `durable` itself."""
    store = HeldStore()
    store.append(Settled(1, [1]))
    store.sync()

    assert store.durable == 1
