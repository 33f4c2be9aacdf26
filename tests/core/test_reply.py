"""Direct reply-to: the waiting end of a requester."""

import pytest
from core_support import RecordingSink, a_message, an_address, held_core, memory_core

from broker.core.reply import REPLY_TO, REPLY_TO_PREFIX, ReplyQueue
from broker.core.routing import Route


def test_a_waiting_end_has_a_name_nobody_can_guess() -> None:
    """The name begins as responders expect, and each end has its own."""
    core = memory_core()
    consumers = [core.vhost.consume_replies("", RecordingSink(core.turn)) for _ in range(2)]
    names = [consumer.queue.name for consumer in consumers]

    assert names[0] != names[1]
    for consumer in consumers:
        assert consumer.queue.name.startswith(REPLY_TO_PREFIX)
        assert len(consumer.queue.name) == len(REPLY_TO_PREFIX) + 22
        assert consumer.no_ack
    assert list(core.vhost.reply_queues) == names


def test_a_waiting_end_is_no_queue_of_the_vhost() -> None:
    """It is not found among the queues, and leaves no record."""
    core = held_core()
    core.vhost.consume_replies("", RecordingSink(core.turn))

    assert core.vhost.queues == {}
    assert core.store.records == []


def test_the_tag_is_the_clients_or_made_up() -> None:
    """As with every consumer."""
    core = memory_core()

    assert core.vhost.consume_replies("mine", RecordingSink(core.turn)).tag == "mine"
    made_up = core.vhost.consume_replies("", RecordingSink(core.turn)).tag
    assert made_up.startswith("amq.ctag-")


def test_a_reply_goes_through_the_default_exchange() -> None:
    """The name of the waiting end is the routing key of the reply."""
    core = memory_core()
    sink = RecordingSink(core.turn)
    consumer = core.vhost.consume_replies("", sink)
    targets = core.vhost.resolve(Route(an_address("", consumer.queue.name)))
    assert targets == (consumer.queue,)
    message = a_message(b"reply", routing_key=consumer.queue.name)
    core.vhost.publish(message, targets)

    (delivery,) = sink.deliveries
    assert (delivery.consumer, delivery.message, delivery.entry) == (consumer, message, None)


def test_a_reply_is_never_stored() -> None:
    """However persistent it is."""
    core = held_core()
    consumer = core.vhost.consume_replies("", RecordingSink(core.turn))

    assert core.vhost.publish(a_message(persistent=True), (consumer.queue,)) == 0
    core.run_turns()
    assert core.store.records == []


def test_no_limit_holds_a_reply_back() -> None:
    """A channel that accepts no deliveries still gets replies."""
    core = memory_core()
    sink = RecordingSink(core.turn)
    consumer = core.vhost.consume_replies("", sink)
    sink.set_able(False)
    consumer.queue.push(a_message())

    assert len(sink.deliveries) == 1


def test_a_reply_to_a_saturated_sink_is_dropped() -> None:
    """A requester that doesn't read must not fill the memory; it waits for nothing later."""
    core = memory_core()
    sink = RecordingSink(core.turn)
    consumer = core.vhost.consume_replies("", sink)
    sink.saturated = True
    consumer.queue.push(a_message())
    sink.saturated = False
    core.run_turns()

    assert sink.deliveries == []
    assert consumer.queue.ready_count == 0


def test_a_cancelled_end_is_gone() -> None:
    """Replies that come later are unroutable, also by a route that was resolved before."""
    core = memory_core()
    sink = RecordingSink(core.turn)
    consumer = core.vhost.consume_replies("", sink)
    route = Route(an_address("", consumer.queue.name))
    targets = core.vhost.resolve(route)
    assert targets
    core.vhost.cancel(consumer)

    assert core.vhost.reply_queues == {}
    assert route.generation != core.vhost.generation
    assert core.vhost.resolve(route) == ()
    core.vhost.publish(a_message(), targets)
    assert sink.deliveries == []


@pytest.mark.parametrize("name", [REPLY_TO, REPLY_TO_PREFIX, REPLY_TO_PREFIX + "guessed"])
def test_a_reply_to_nobody_is_unroutable(name: str) -> None:
    """The name must be that of an end that waits."""
    core = memory_core()
    core.vhost.consume_replies("", RecordingSink(core.turn))

    assert core.vhost.resolve(Route(an_address("", name))) == ()


def test_replies_keep_their_order() -> None:
    """Each is delivered when it comes."""
    core = memory_core()
    sink = RecordingSink(core.turn)
    queue = core.vhost.consume_replies("", sink).queue
    assert isinstance(queue, ReplyQueue)
    for body in (b"1", b"2", b"3"):
        queue.push(a_message(body))

    assert sink.bodies == [b"1", b"2", b"3"]
