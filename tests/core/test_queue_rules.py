"""The declaration of queue arguments itself: nothing twice, nothing forgotten."""

from broker.core.queue_rules import CHECKED, COMPARED, REFUSED, RULES


def names(queue_type: str) -> list[str]:
    return [rule.name for rule in COMPARED[queue_type]]


def test_each_argument_is_declared_once() -> None:
    """No two rules are about the same argument."""
    declared = [rule.name for rule in RULES]

    assert len(declared) == len(set(declared))


def test_what_is_checked_is_compared() -> None:
    """A type of queue compares exactly the arguments it knows."""
    for queue_type in ("classic", "quorum"):
        assert set(CHECKED[queue_type]) == set(COMPARED[queue_type])
        assert not REFUSED[queue_type] & {rule.name for rule in CHECKED[queue_type]}


def test_order_of_comparison_for_classic_queues() -> None:
    """RabbitMQ's classic queues compare in the order in which they check."""
    assert [name for name in names("classic") if name in OF_RABBITMQ] == [
        "x-expires",
        "x-message-ttl",
        "x-dead-letter-exchange",
        "x-dead-letter-routing-key",
        "x-max-length",
        "x-max-length-bytes",
        "x-max-priority",
        "x-overflow",
        "x-queue-mode",
        "x-queue-version",
        "x-single-active-consumer",
        "x-queue-type",
        "x-queue-master-locator",
        "x-queue-leader-locator",
    ]


def test_order_of_comparison_for_quorum_queues() -> None:
    """RabbitMQ's quorum queues compare times to live late, after the type of the queue."""
    assert names("quorum")[: -len(ADDED)] == [
        "x-dead-letter-exchange",
        "x-dead-letter-routing-key",
        "x-dead-letter-strategy",
        "x-expires",
        "x-max-length",
        "x-max-length-bytes",
        "x-max-in-memory-length",
        "x-max-in-memory-bytes",
        "x-overflow",
        "x-single-active-consumer",
        "x-queue-type",
        "x-quorum-initial-group-size",
        "x-delivery-limit",
        "x-message-ttl",
        "x-queue-leader-locator",
        "x-consumer-disconnected-timeout",
        "x-consumer-timeout",
        "x-delayed-retry-type",
        "x-delayed-retry-min",
        "x-delayed-retry-max",
    ]


ADDED = {
    "x-delayed-retry-backoff",
    "x-message-deduplication",
    "x-cache-size",
    "x-cache-ttl",
    "x-cache-persistence",
}

# Delivery limit and delayed retry are no arguments of RabbitMQ's classic queues.
OF_RABBITMQ = (
    {rule.name for rule in RULES}
    - ADDED
    - {
        "x-delivery-limit",
        "x-delayed-retry-type",
        "x-delayed-retry-min",
        "x-delayed-retry-max",
    }
)
