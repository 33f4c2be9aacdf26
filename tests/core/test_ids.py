"""Numbers and names that the core gives out."""

import secrets

from core_support import counted_bytes

from broker.core.ids import Ids


def test_queue_ids_are_never_given_twice() -> None:
    """They count up from 1."""
    ids = Ids(counted_bytes())

    assert [ids.next_queue_id() for _ in range(3)] == [1, 2, 3]


def test_session_ids_have_a_counter_of_their_own() -> None:
    """Connections and queues are numbered apart; 1 is the broker itself, as the log shows it."""
    ids = Ids(counted_bytes())
    ids.next_queue_id()

    assert [ids.next_session_id() for _ in range(2)] == [2, 3]


def test_a_token_is_16_random_bytes_in_22_characters() -> None:
    """URL-safe base64 without padding, as RabbitMQ names things."""
    asked: list[int] = []

    def random_bytes(count: int) -> bytes:
        asked.append(count)
        return b"\xfb\xff" + bytes(count - 2)

    assert Ids(random_bytes).token() == "-_8AAAAAAAAAAAAAAAAAAA"
    assert asked == [16]


def test_tokens_of_a_good_source_differ() -> None:
    """Nobody guesses the next from the last."""
    ids = Ids(secrets.token_bytes)

    assert len({ids.token() for _ in range(100)}) == 100
