"""The node: what all vhosts and connections share."""

from broker.core.clock import Clock
from broker.core.ids import Ids
from broker.core.paging import Memory
from broker.core.store import Store
from broker.core.turn import Session, Turn
from broker.core.vhost import VirtualHost

#: What can run low, as RabbitMQ names it in connection.blocked.
ALARMS = ("memory", "disk")


class Node:
    """Vhosts by name, the sessions of the clients, alarms, and the seams handed to all of them."""

    __slots__ = (
        "alarms",
        "clock",
        "ids",
        "memory",
        "name",
        "open_connections",
        "sessions",
        "store",
        "turn",
        "vhosts",
    )

    def __init__(
        self,
        name: str,
        clock: Clock,
        ids: Ids,
        store: Store,
        turn: Turn,
        memory: Memory | None = None,
    ) -> None:
        #: as clients and tools see it, such as rabbit@host
        self.name = name
        self.clock = clock
        self.ids = ids
        self.store = store
        self.turn = turn
        #: the budget for the contents of waiting messages
        self.memory = memory if memory is not None else Memory()
        self.vhosts: dict[str, VirtualHost] = {}
        #: the connections of clients, in the order they came
        self.sessions: dict[Session, None] = {}
        #: how many of them have opened a vhost
        self.open_connections = 0
        #: resources that run low, in the order of `ALARMS`; publishers are blocked meanwhile
        self.alarms: tuple[str, ...] = ()

    def add_vhost(self, name: str) -> VirtualHost:
        """Make a vhost with its predeclared exchanges."""
        vhost = VirtualHost(name, self.ids, self.store, self.turn, self.clock, self.memory)
        self.vhosts[name] = vhost
        return vhost

    def set_alarm(self, resource: str, active: bool) -> bool:
        """Say whether `resource` ("memory" or "disk") runs low; returns whether that is news.

        Raises ValueError for another resource.
        """
        if resource not in ALARMS:
            raise ValueError(f"unknown alarm {resource!r}; expected one of {', '.join(ALARMS)}")
        if (resource in self.alarms) is active:
            return False
        self.alarms = tuple(
            name for name in ALARMS if (active if name == resource else name in self.alarms)
        )
        for session in list(self.sessions):
            session.alarms_changed()
        return True
