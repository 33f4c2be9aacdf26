"""Names of queues and exchanges, and how texts speak of them."""

from typing import Final

from broker.errors import AccessRefused

#: Names that only the broker itself may give.
RESERVED_PREFIX: Final = "amq."


def queue_resource(queue: str, vhost: str) -> str:
    """Return the queue as every reply text names it."""
    return f"queue '{queue}' in vhost '{vhost}'"


def exchange_resource(exchange: str, vhost: str) -> str:
    """Return the exchange as every reply text names it."""
    return f"exchange '{exchange}' in vhost '{vhost}'"


def strip_name(name: str) -> str:
    """Return `name` without carriage returns and line feeds, which RabbitMQ drops silently."""
    return name.replace("\r", "").replace("\n", "")


def is_reserved(name: str) -> bool:
    """Tell whether `name` belongs to the broker. Case matters."""
    return name.startswith(RESERVED_PREFIX)


def check_queue_name(queue: str) -> None:
    """Refuse to declare a queue of a reserved name, even an existing one, unless passively."""
    if is_reserved(queue):
        raise AccessRefused(f"queue name '{queue}' contains reserved prefix 'amq.*'")


def check_exchange_name(exchange: str) -> None:
    """Refuse to create an exchange of a reserved name; an existing one may be redeclared."""
    if is_reserved(exchange):
        raise AccessRefused(f"exchange name '{exchange}' contains reserved prefix 'amq.*'")
