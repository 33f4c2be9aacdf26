"""Names of queues and exchanges: rendering, stripping, the reserved prefix."""

import pytest

from broker.core.names import (
    check_exchange_name,
    check_queue_name,
    exchange_resource,
    is_reserved,
    queue_resource,
    strip_name,
)
from broker.errors import AccessRefused


def test_resources() -> None:
    """Texts name a thing by its kind, its name and its vhost."""
    assert queue_resource("q", "/") == "queue 'q' in vhost '/'"
    assert exchange_resource("x", "v1") == "exchange 'x' in vhost 'v1'"


@pytest.mark.parametrize(
    ("name", "stripped"),
    [
        ("", ""),
        ("plain", "plain"),
        ("\r\na\nb\r", "ab"),
        ("\n", ""),
        (" a\tb ", " a\tb "),
        ("ü\u2028x", "ü\u2028x"),
    ],
)
def test_strip_name(name: str, stripped: str) -> None:
    """Carriage returns and line feeds vanish wherever they are, nothing else does."""
    assert strip_name(name) == stripped


@pytest.mark.parametrize(
    ("name", "reserved"),
    [
        ("amq.", True),
        ("amq.gen-x", True),
        ("amq", False),
        ("AMQ.x", False),
        ("x.amq.", False),
        ("", False),
    ],
)
def test_is_reserved(name: str, reserved: bool) -> None:
    """A name is reserved by its first four characters, in this case only."""
    assert is_reserved(name) is reserved


def test_reserved_queue_name() -> None:
    """A queue whose name starts with `amq.` is refused in RabbitMQ's words."""
    check_queue_name("q")
    with pytest.raises(AccessRefused) as refusal:
        check_queue_name("amq.foo")

    assert refusal.value.text == "queue name 'amq.foo' contains reserved prefix 'amq.*'"


def test_reserved_exchange_name() -> None:
    """An exchange whose name starts with `amq.` is refused in RabbitMQ's words."""
    check_exchange_name("x")
    with pytest.raises(AccessRefused) as refusal:
        check_exchange_name("amq.foo")

    assert refusal.value.text == "exchange name 'amq.foo' contains reserved prefix 'amq.*'"
