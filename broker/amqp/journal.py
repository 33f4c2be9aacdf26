"""What is logged of a connection, in RabbitMQ's words: scripts and people search for them."""

import logging
from typing import Final

from broker.amqp import methods
from broker.errors import AMQPError

LOGGER: Final = logging.getLogger("broker.connection")


class Journal:
    """The log lines of one connection.

    Arguments:
        process: how the log names it, such as `<0.7.0>`.
        name: `peer:port -> host:port`.
    """

    __slots__ = ("_extra", "name", "process", "user", "vhost")

    def __init__(self, process: str, name: str) -> None:
        self.process = process
        self.name = name
        self.user = ""
        self.vhost = ""
        self._extra = {"process_id": process}

    def _who(self) -> str:
        if not self.user:
            return self.name
        return f"{self.name}, vhost: '{self.vhost or 'none'}', user: '{self.user}'"

    def info(self, text: str) -> None:
        """Log what happens in the ordinary course."""
        LOGGER.info(text, extra=self._extra)

    def warning(self, text: str) -> None:
        """Log what the client's owner may want to know."""
        LOGGER.warning(text, extra=self._extra)

    def error(self, text: str) -> None:
        """Log what somebody should look at."""
        LOGGER.error(text, extra=self._extra)

    def accepted(self) -> None:
        """A client connected and began to speak; probes that say nothing are not logged."""
        self.info(f"accepting AMQP connection {self.process} ({self.name})")

    def opened(self, connection_name: str | None) -> None:
        """The client is in."""
        if connection_name:
            self.info(
                f"connection {self.process} ({self.name}) has a client-provided name: "
                f"{connection_name}"
            )
        self.info(
            f"connection {self.process} ({self.name}): user '{self.user}' authenticated and "
            f"granted access to vhost '{self.vhost}'"
        )

    def refused(self, mechanism: str, reason: str) -> None:
        """A login failed."""
        self.error(
            f"Error on AMQP connection {self.process} ({self.name}, state: starting): {mechanism} "
            f"login refused: {reason}"
        )

    def closed(self) -> None:
        """The client left as it should."""
        self.info(f"closing AMQP connection {self.process} ({self._who()})")

    def lost(self) -> None:
        """The client left without a word."""
        self.warning(
            f"closing AMQP connection {self.process} ({self._who()}):\n"
            "client unexpectedly closed TCP connection"
        )

    def missed_heartbeats(self, interval_seconds: int) -> None:
        """The client is silent."""
        self.error(
            f"closing AMQP connection {self.process} ({self._who()}):\n"
            f"missed heartbeats from client, timeout: {interval_seconds}s"
        )

    def dropped(self, reason: str) -> None:
        """The connection is ended without a frame."""
        self.error(f"closing AMQP connection {self.process} ({self._who()}):\n{reason}")

    def connection_error(self, state: str, channel: int, index: int, error: AMQPError) -> None:
        """A hard error."""
        self.error(
            f"Error on AMQP connection {self.process} ({self._who()}, state: {state}), "
            f"channel {channel}:\n operation {methods.name_of(index)} caused a connection "
            f"exception {error.name.lower()}: {error.text}"
        )

    def channel_error(self, channel: int, index: int, error: AMQPError) -> None:
        """A soft error."""
        self.error(
            f"Channel error on connection {self.process} ({self._who()}), channel {channel}:\n "
            f"operation {methods.name_of(index)} caused a channel exception {error.name.lower()}: "
            f"{error.text}"
        )

    def fault(self, index: int) -> None:
        """A fault of this broker, with its traceback."""
        LOGGER.exception(
            "internal error on AMQP connection %s (%s), operation %s",
            self.process,
            self._who(),
            methods.name_of(index),
            extra=self._extra,
        )
