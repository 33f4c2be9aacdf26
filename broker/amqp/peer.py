"""The client at the other end of a connection, the wire between, and how we present ourselves."""

from abc import ABC, abstractmethod
from dataclasses import dataclass


class Wire(ABC):
    """What carries a session's bytes: a socket, or a test."""

    __slots__ = ()

    @abstractmethod
    def flush(self) -> None:
        """Take the session's output and heed its state: `reading`, `finished`, `deadline_ms`."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A client's end of a connection."""

    #: `host:port -> host:port`
    name: str
    host: str
    port: int
    #: whether it is on this machine
    is_loopback: bool


@dataclass(frozen=True, slots=True)
class Announcement:
    """What the server says of itself in connection.start."""

    product: str
    version: str
    platform: str
    cluster_name: str
    copyright: str
    information: str
