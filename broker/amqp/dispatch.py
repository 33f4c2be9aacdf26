"""Which function handles which method of an open channel."""

from collections.abc import Callable
from typing import Any, Final

from broker.amqp import basic_methods, channel_methods, exchange_methods, queue_methods
from broker.amqp.channel import Channel

#: By class << 16 | method. What is not here, a server must not be sent.
HANDLERS: Final[dict[int, Callable[[Channel, Any], None]]] = {
    **exchange_methods.HANDLERS,
    **queue_methods.HANDLERS,
    **basic_methods.HANDLERS,
    **channel_methods.HANDLERS,
}
