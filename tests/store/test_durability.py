"""What outlives a broker, seen by a client: once after a stop in good order, once after kill -9.

The broker that is stopped runs in this process, the one that is killed in its own; both have their
data in a real directory.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pika
import pika.exceptions
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from running import running_broker

from broker import Broker, Config
from broker.store.errors import LockedError

ROOT = Path(__file__).parent.parent.parent
SEGMENT_BYTES = 64 * 1024
PERSISTENT = pika.BasicProperties(delivery_mode=2)
TRANSIENT = pika.BasicProperties(delivery_mode=1)


class Lives:
    """A broker that lives again and again on one data directory.

    Arguments:
        killed: whether its lives end by kill -9; else by a stop in good order.
    """

    def __init__(self, directory: Path, killed: bool) -> None:
        self.directory = directory / "data"
        self.killed = killed
        self._config = directory / "leveret.toml"
        self._config.write_text(f"segment_bytes = {SEGMENT_BYTES}\n")

    @contextmanager
    def life(self) -> Iterator[BlockingChannel]:
        """One life, with a channel in confirm mode; ends as it should end."""
        with self.port() as port:
            connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port))
            channel = connection.channel()
            channel.confirm_delivery()
            yield channel
            if not self.killed:
                connection.close()
        with suppress(pika.exceptions.AMQPError):
            connection.close()

    @contextmanager
    def port(self) -> Iterator[int]:
        """The port of a living broker."""
        if self.killed:
            with self._process() as port:
                yield port
        else:
            with running_broker(
                data_dir=str(self.directory), segment_bytes=SEGMENT_BYTES
            ) as server:
                yield server.port

    @contextmanager
    def _process(self) -> Iterator[int]:
        arguments = ("--port", "0", "--config", self._config, "--data-dir", self.directory)
        with subprocess.Popen(
            [sys.executable, "-m", "broker", "serve", *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:
            try:
                assert process.stdout is not None
                ready = process.stdout.readline()
                assert "ready on " in ready
                yield int(ready.partition("ready on ")[2].split(",")[0].rpartition(":")[2])
            finally:
                process.kill()

    def log_bytes(self) -> int:
        """What the log's segments take; exact after a stop in good order."""
        return sum(path.stat().st_size for path in self.directory.glob("*.segment"))


@pytest.fixture(params=["stopped", "killed"])
def lives(request: pytest.FixtureRequest, tmp_path: Path) -> Lives:
    """A broker on a directory of its own, for each way to end."""
    return Lives(tmp_path, request.param == "killed")


@pytest.fixture
def stopped_lives(tmp_path: Path) -> Lives:
    """A broker whose lives end in good order."""
    return Lives(tmp_path, killed=False)


def publish(channel: BlockingChannel, queue: str, *bodies: bytes) -> None:
    """Persistent messages, each confirmed."""
    for body in bodies:
        channel.basic_publish("", queue, body, PERSISTENT)


def everything(channel: BlockingChannel, queue: str) -> list[bytes]:
    """Take all that waits, and settle it."""
    bodies: list[bytes] = []
    while True:
        _, _, body = channel.basic_get(queue, auto_ack=True)
        if body is None:
            return bodies
        bodies.append(body)


def exists(channel: BlockingChannel, declare: Callable[[BlockingChannel], object]) -> bool:
    """Whether a passive declaration succeeds; on a channel of its own, as it may close it."""
    other = channel.connection.channel()
    try:
        declare(other)
    except pika.exceptions.ChannelClosedByBroker as error:
        if error.reply_code != 404:
            raise
        return False
    other.close()
    return True


def has_queue(channel: BlockingChannel, name: str) -> bool:
    return exists(channel, lambda other: other.queue_declare(name, passive=True))


def has_exchange(channel: BlockingChannel, name: str) -> bool:
    return exists(channel, lambda other: other.exchange_declare(name, passive=True))


# Messages.


def test_confirmed_messages_survive_in_order(lives: Lives) -> None:
    """Persistent messages in durable queues are there again, in the order they came."""
    bodies = [b"message %d" % number for number in range(50)]
    with lives.life() as channel:
        channel.queue_declare("durable", durable=True)
        publish(channel, "durable", *bodies)
    with lives.life() as channel:
        count = channel.queue_declare("durable", passive=True).method.message_count
        assert count == 50
        assert everything(channel, "durable") == bodies


def test_messages_survive_octet_for_octet(lives: Lives) -> None:
    """Properties and bodies come back as they were, from none to many frames of octets."""
    properties = pika.BasicProperties(
        content_type="text/plain",
        content_encoding="utf-8",
        headers={"a": 1, "b": ["x", {"c": None}], "d": "ü"},
        delivery_mode=2,
        priority=3,
        correlation_id="correlation",
        reply_to="reply",
        message_id="id",
        timestamp=1_700_000_000,
        type="type",
        app_id="application",
    )
    bodies = [b"", b"x", os.urandom(131_072 - 8), os.urandom(500_000)]
    with lives.life() as channel:
        channel.queue_declare("durable", durable=True)
        for body in bodies:
            channel.basic_publish("", "durable", body, properties)
    with lives.life() as channel:
        for body in bodies:
            method, found, content = channel.basic_get("durable", auto_ack=True)
            assert method is not None
            assert (method.exchange, method.routing_key) == ("", "durable")
            assert found == properties
            assert content == body


def test_what_is_transient_does_not_survive(lives: Lives) -> None:
    """Transient messages, and messages of transient and exclusive queues, are gone."""
    with lives.life() as channel:
        channel.queue_declare("durable", durable=True)
        channel.queue_declare("transient")
        channel.queue_declare("exclusive", durable=True, exclusive=True)
        channel.basic_publish("", "durable", b"transient", TRANSIENT)
        for queue in ("transient", "exclusive", "durable"):
            publish(channel, queue, b"persistent")
    with lives.life() as channel:
        assert everything(channel, "durable") == [b"persistent"]
        assert not has_queue(channel, "transient")
        assert not has_queue(channel, "exclusive")


def test_acknowledged_messages_stay_away(lives: Lives) -> None:
    """An ack before a confirmed publish is as safe as the publish."""
    with lives.life() as channel:
        channel.queue_declare("durable", durable=True)
        publish(channel, "durable", *[b"%d" % number for number in range(10)])
        for number in range(6):
            method, _, _ = channel.basic_get("durable")
            assert method is not None
            if number % 2:
                channel.basic_ack(method.delivery_tag)
            elif number == 4:
                channel.basic_reject(method.delivery_tag, requeue=False)
        publish(channel, "durable", b"later")
    with lives.life() as channel:
        left = [b"0", b"2", b"6", b"7", b"8", b"9", b"later"]
        assert everything(channel, "durable") == left


def test_a_fan_out_is_written_once(lives: Lives) -> None:
    """Twenty queues hold a message that the log has once; each has it after a restart."""
    queues = [f"queue-{number}" for number in range(20)]
    body = os.urandom(40_000)
    with lives.life() as channel:
        for queue in queues:
            channel.queue_declare(queue, durable=True)
            channel.queue_bind(queue, "amq.fanout")
        channel.basic_publish("amq.fanout", "", body, PERSISTENT)
        method, _, _ = channel.basic_get("queue-3")
        assert method is not None
        channel.basic_ack(method.delivery_tag)
        publish(channel, "queue-0", b"later")
    with lives.life() as channel:
        for queue in queues[1:]:
            assert everything(channel, queue) == ([] if queue == "queue-3" else [body])
    if not lives.killed:
        assert lives.log_bytes() < 2 * len(body)


def test_redelivered_after_a_restart(lives: Lives) -> None:
    """After a stop it is known what had been delivered; after a crash everything may have been."""
    with lives.life() as channel:
        channel.queue_declare("durable", durable=True)
        publish(channel, "durable", b"delivered", b"waiting")
        channel.basic_get("durable")
    with lives.life() as channel:
        flags = [channel.basic_get("durable")[0].redelivered for _ in range(2)]
        assert flags == [True, lives.killed]


# Transactions.


def test_transactions_survive_when_committed(lives: Lives) -> None:
    """What was committed is there; what was rolled back, or never committed, is not."""
    with lives.life() as channel:
        channel.queue_declare("durable", durable=True)
        publish(channel, "durable", b"old")
        other = channel.connection.channel()
        other.tx_select()
        method, _, _ = other.basic_get("durable")
        assert method is not None
        other.basic_ack(method.delivery_tag)
        publish(other, "durable", b"one", b"two")
        other.tx_commit()
        publish(other, "durable", b"rolled back")
        other.tx_rollback()
        publish(other, "durable", b"never committed")
    with lives.life() as channel:
        assert everything(channel, "durable") == [b"one", b"two"]


# Definitions.


def test_exchanges_and_bindings_survive(lives: Lives) -> None:
    """Exchanges of every type, their bindings to queues and to each other, and what they do."""
    with lives.life() as channel:
        channel.queue_declare("q", durable=True)
        channel.queue_declare("other", durable=True)
        for kind in ("direct", "fanout", "topic", "headers"):
            channel.exchange_declare(kind, kind, durable=True)
        channel.exchange_declare(
            "spare", "direct", durable=True, arguments={"alternate-exchange": "fanout"}
        )
        channel.queue_bind("q", "topic", "a.#")
        channel.queue_bind("q", "headers", arguments={"x-match": "all", "wanted": 1})
        channel.queue_bind("other", "fanout")
        channel.exchange_bind("topic", "direct", "a.b")
    with lives.life() as channel:
        wanted = pika.BasicProperties(delivery_mode=2, headers={"wanted": 1})
        channel.basic_publish("direct", "a.b", b"by two exchanges", PERSISTENT)
        channel.basic_publish("direct", "a.c", b"nowhere", PERSISTENT)
        channel.basic_publish("headers", "", b"by headers", wanted)
        channel.basic_publish("spare", "", b"by the alternate", PERSISTENT)
        assert everything(channel, "q") == [b"by two exchanges", b"by headers"]
        assert everything(channel, "other") == [b"by the alternate"]


def test_what_was_ended_stays_away(lives: Lives) -> None:
    """Deleted queues and exchanges, removed bindings and purged messages do not come back."""
    with lives.life() as channel:
        for queue in ("deleted", "unbound", "purged"):
            channel.queue_declare(queue, durable=True)
            channel.queue_bind(queue, "amq.direct", "key")
            publish(channel, queue, b"message")
        channel.exchange_declare("deleted", "direct", durable=True)
        channel.queue_bind("unbound", "deleted", "key")
        channel.queue_delete("deleted")
        channel.exchange_delete("deleted")
        channel.queue_unbind("unbound", "amq.direct", "key")
        channel.queue_purge("purged")
    with lives.life() as channel:
        assert not has_queue(channel, "deleted")
        assert not has_exchange(channel, "deleted")
        channel.queue_declare("deleted", durable=True)
        channel.exchange_declare("deleted", "direct", durable=True)
        channel.basic_publish("amq.direct", "key", b"later", PERSISTENT)
        channel.basic_publish("deleted", "key", b"nowhere", PERSISTENT)
        assert everything(channel, "deleted") == []
        assert everything(channel, "unbound") == [b"message"]
        assert everything(channel, "purged") == [b"later"]


def test_arguments_of_queues_survive(lives: Lives) -> None:
    """An equal declaration finds the queue, another one is told what is different."""
    with lives.life() as channel:
        channel.queue_declare("durable", durable=True, arguments={"x-max-length": 5})
    with lives.life() as channel:
        channel.queue_declare("durable", durable=True, arguments={"x-max-length": 5})
        with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="x-max-length") as error:
            channel.queue_declare("durable", durable=True, arguments={"x-max-length": 6})
        assert error.value.reply_code == 406


# The directory.


async def test_a_second_broker_is_refused(tmp_path: Path) -> None:
    """Two brokers would spoil each other's log; when the first is gone the second may come."""
    config = Config(host=("127.0.0.1",), port=0, data_dir=str(tmp_path))
    second = Broker(config)
    async with Broker(config):
        with pytest.raises(LockedError, match="another broker"):
            await second.start()
    async with Broker(config) as third:
        assert third.port


def test_a_flipped_bit_costs_one_message(stopped_lives: Lives) -> None:
    """A content that does not hold is never delivered, and the rest of its queue goes on."""
    with stopped_lives.life() as channel:
        channel.queue_declare("durable", durable=True)
        publish(channel, "durable", b"one", b"victim", b"three")
    for path in stopped_lives.directory.glob("*.segment"):
        path.write_bytes(path.read_bytes().replace(b"victim", b"victor"))
    with stopped_lives.life() as channel:
        assert everything(channel, "durable") == [b"one", b"three"]


def test_many_lives(stopped_lives: Lives) -> None:
    """Each life begins where the one before it ended."""
    for number in range(8):
        with stopped_lives.life() as channel:
            channel.queue_declare("durable", durable=True)
            publish(channel, "durable", b"%d" % number)
            if number >= 2:
                method, _, body = channel.basic_get("durable")
                assert method is not None
                assert body == b"%d" % (number - 2)
                channel.basic_ack(method.delivery_tag)
    with stopped_lives.life() as channel:
        assert everything(channel, "durable") == [b"6", b"7"]


def test_the_log_does_not_grow_with_what_passes(stopped_lives: Lives) -> None:
    """Megabytes pass through while one message waits: the log stays at a few segments."""
    with stopped_lives.life() as channel:
        channel.queue_declare("old", durable=True)
        channel.queue_declare("passing", durable=True)
        publish(channel, "old", b"old")
        channel.basic_consume("passing", lambda *_: None, auto_ack=True)
        for _ in range(300):
            channel.basic_publish("", "passing", bytes(8_000), PERSISTENT)
    assert stopped_lives.log_bytes() < 4 * SEGMENT_BYTES
    with stopped_lives.life() as channel:
        assert everything(channel, "old") == [b"old"]


def test_a_stopped_broker_can_be_asked_to_stop_by_a_signal(tmp_path: Path) -> None:
    """SIGTERM is a stop in good order: what it leaves needs no recovery beyond the indexes."""
    lives = Lives(tmp_path, killed=True)
    arguments = ("--port", "0", "--data-dir", lives.directory)
    with subprocess.Popen(
        [sys.executable, "-m", "broker", "serve", *arguments], cwd=ROOT, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0
    segments = sorted(path.stem for path in lives.directory.glob("*.segment"))
    indexes = sorted(path.stem for path in lives.directory.glob("*.index"))
    assert segments == indexes
