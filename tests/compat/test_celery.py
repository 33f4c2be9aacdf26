"""Celery: a worker that runs tasks, retries them, returns results and can be controlled."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import celery
import celery.contrib.testing.tasks
import kombu.pools
import pytest
from celery.contrib.testing.worker import start_worker
from compat.clients import (
    TIMEOUT_S,
    Server,
    deleted_afterwards,
    message_count,
    pika_channel,
    unique,
)


class Running(NamedTuple):
    """A Celery app, its running worker, and what its tasks left behind."""

    app: Any
    worker: Any
    attempts: list[int]


@contextmanager
def running_app(server: Server, name: str) -> Iterator[Running]:
    """An app with acks_late and a prefetch of one, and a worker in a thread of this process."""
    app = celery.Celery(name, broker=server.url, backend="rpc://", set_as_current=False, include=())
    app.conf.update(
        task_default_queue=name,
        task_default_exchange=name,
        task_default_routing_key=name,
        task_acks_late=True,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        control_exchange=name + ".control",
        event_exchange=name + ".events",
        broker_connection_retry_on_startup=True,
        # kombu's event loop may poll with callbacks pending, until its next timer. This one comes
        # every tenth of a second.
        broker_heartbeat=10,
        broker_heartbeat_checkrate=100,
    )
    attempts: list[int] = []

    def add(x: int, y: int) -> int:
        return x + y

    def flaky(task: Any, succeed_at: int) -> int:
        attempts.append(task.request.retries)
        if task.request.retries < succeed_at:
            raise task.retry(countdown=0, max_retries=3)
        return len(attempts)

    def fail(text: str) -> None:
        raise ValueError(text)

    app.task(add, name="add", shared=False)
    app.task(flaky, name="flaky", shared=False, bind=True)
    app.task(fail, name="fail", shared=False)
    root = logging.getLogger()
    level = root.level
    try:
        with start_worker(
            app, pool="solo", concurrency=1, ping_task_timeout=TIMEOUT_S, shutdown_timeout=TIMEOUT_S
        ) as worker:
            yield Running(app, worker, attempts)
    finally:
        # A worker sets the level of everybody's log.
        root.setLevel(level)


@pytest.fixture
def running(server: Server) -> Iterator[Running]:
    """A running app; everything that Celery left at the broker is deleted after the test."""
    name = unique("celery")
    exchanges = (
        name,
        f"{name}.control.pidbox",
        f"reply.{name}.control.pidbox",
        f"{name}.events",
    )
    with deleted_afterwards(server, queues=(name,), exchanges=exchanges):
        with running_app(server, name) as running:
            yield running
        running.app.backend.result_consumer.stop()
        running.app.close()
        kombu.pools.reset()
        with pika_channel(server) as channel:
            assert message_count(channel, name) == 0
            channel.queue_delete(running.app.thread_oid)  # where the results came to


def test_task_result(running: Running) -> None:
    """A task runs in the worker and its result comes back over rpc://."""
    result = running.app.send_task("add", (2, 3))

    assert result.get(timeout=TIMEOUT_S) == 5


def test_many_tasks_one_at_a_time(running: Running) -> None:
    """With a prefetch of one and late acks every task still runs exactly once."""
    results = [running.app.send_task("add", (number, 1)) for number in range(20)]

    assert [result.get(timeout=TIMEOUT_S) for result in results] == list(range(1, 21))


def test_retries(running: Running) -> None:
    """A task that asks for a retry is published again until it succeeds."""
    result = running.app.send_task("flaky", (2,))

    assert result.get(timeout=TIMEOUT_S) == 3
    assert running.attempts == [0, 1, 2]


def test_failure(running: Running) -> None:
    """The exception of a failed task comes back to the caller."""
    result = running.app.send_task("fail", ("because",))

    with pytest.raises(ValueError, match="because"):
        result.get(timeout=TIMEOUT_S)
    assert result.state == "FAILURE"


def test_remote_control(running: Running) -> None:
    """The worker answers a broadcast over its pidbox and tells which queue it consumes."""
    control = running.app.control
    hostname = running.worker.hostname

    assert control.ping(timeout=TIMEOUT_S, limit=1) == [{hostname: {"ok": "pong"}}]
    (reply,) = control.broadcast("active_queues", reply=True, timeout=TIMEOUT_S, limit=1)
    assert [queue["name"] for queue in reply[hostname]] == [running.app.conf.task_default_queue]
