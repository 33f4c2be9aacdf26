"""The node: vhosts by name, and alarms."""

import pytest
from core_support import RecordingSession, counted_bytes

from broker.core.clock import ManualClock
from broker.core.ids import Ids
from broker.core.node import Node
from broker.core.turn import Turn
from broker.store.memory import MemoryStore


def a_node() -> Node:
    """A node without vhosts."""
    return Node(
        "rabbit@here", ManualClock(), Ids(counted_bytes()), MemoryStore(), Turn(lambda: None)
    )


def test_a_vhost_is_found_by_its_name() -> None:
    """It comes with its predeclared exchanges."""
    node = a_node()
    vhost = node.add_vhost("/")

    assert node.vhosts == {"/": vhost}
    assert vhost.name == "/"
    assert "amq.topic" in vhost.exchanges


def test_vhosts_share_the_ids_and_nothing_else() -> None:
    """Queue ids are unique on the node; names are not."""
    node = a_node()
    queues = [node.add_vhost(name).declare_queue("q") for name in ("/", "other")]

    assert queues[0].queue_id != queues[1].queue_id
    assert [list(vhost.queues.values()) for vhost in node.vhosts.values()] == [
        [queue] for queue in queues
    ]


def test_alarms_are_listed_in_a_fixed_order() -> None:
    """Whichever was set first."""
    node = a_node()
    seen = []
    for resource, active in [("disk", True), ("memory", True), ("disk", False)]:
        node.set_alarm(resource, active)
        seen.append(node.alarms)

    assert seen == [("disk",), ("memory", "disk"), ("memory",)]


def test_only_a_change_of_alarms_is_news() -> None:
    """Setting what is set, or clearing what is clear, says False and tells nobody."""
    node = a_node()
    session = RecordingSession()
    node.sessions[session] = None
    news = [node.set_alarm("memory", active) for active in (False, True, True, False, False)]

    assert news == [False, True, False, True, False]
    assert session.told == ["alarms_changed", "alarms_changed"]


def test_sessions_hear_of_the_alarms_that_are() -> None:
    """When they are told, the node knows already."""
    node = a_node()
    seen = []

    class Looking(RecordingSession):
        def alarms_changed(self) -> None:
            seen.append(node.alarms)

    node.sessions[Looking()] = None
    node.set_alarm("disk", True)
    node.set_alarm("disk", False)

    assert seen == [("disk",), ()]


def test_a_session_may_end_while_it_is_told() -> None:
    """The others hear of the alarm nevertheless."""
    node = a_node()

    class Ending(RecordingSession):
        def alarms_changed(self) -> None:
            del node.sessions[self]

    other = RecordingSession()
    node.sessions[Ending()] = None
    node.sessions[other] = None
    node.set_alarm("memory", True)

    assert other.told == ["alarms_changed"]
    assert list(node.sessions) == [other]


def test_an_unknown_alarm_is_an_error() -> None:
    """The message names those there are."""
    with pytest.raises(ValueError, match=r"unknown alarm 'cpu'; expected one of memory, disk"):
        a_node().set_alarm("cpu", True)
