"""Leveret: a message broker that speaks AMQP 0-9-1 as RabbitMQ does."""

from broker._version import __version__
from broker.broker import Broker
from broker.config import Config, ConfigError
from broker.transport import ListenError

__all__ = ["Broker", "Config", "ConfigError", "ListenError", "__version__"]
