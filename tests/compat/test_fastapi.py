"""A FastAPI application that publishes tasks with pika, and a worker that carries them out."""

import json
from collections.abc import Iterator

import pika
import pytest
from compat.clients import (
    Server,
    deleted_afterwards,
    message_count,
    parameters,
    pika_channel,
    run_until,
    unique,
)
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pika.adapters.blocking_connection import BlockingChannel
from pydantic import BaseModel


class Task(BaseModel):
    """What a caller of the application asks for."""

    recipient: str
    text: str


def application(server: Server, queue: str) -> FastAPI:
    """An application with one endpoint, which hands its work to a queue."""
    app = FastAPI()

    @app.post("/tasks", status_code=202)
    def create_task(task: Task) -> dict[str, str]:
        with pika.BlockingConnection(parameters(server)) as connection:
            channel = connection.channel()
            channel.queue_declare(queue, durable=True)
            channel.confirm_delivery()
            channel.basic_publish(
                exchange="",
                routing_key=queue,
                body=task.model_dump_json().encode(),
                properties=pika.BasicProperties(
                    delivery_mode=2, content_type="application/json", message_id=unique("task")
                ),
                mandatory=True,
            )
        return {"status": "queued"}

    return app


@pytest.fixture
def queue(server: Server) -> Iterator[str]:
    """The name of a queue that is deleted after the test."""
    name = unique("tasks")
    with deleted_afterwards(server, queues=(name,)):
        yield name


def work(channel: BlockingChannel, queue: str, count: int) -> list[Task]:
    """Carry out a number of tasks, one at a time."""
    done: list[Task] = []

    def on_task(
        channel: BlockingChannel,
        method: pika.spec.Basic.Deliver,
        properties: pika.BasicProperties,
        body: bytes,
    ) -> None:
        assert properties.content_type == "application/json"
        done.append(Task(**json.loads(body)))
        channel.basic_ack(method.delivery_tag)

    channel.queue_declare(queue, durable=True)
    channel.basic_qos(prefetch_count=1)
    channel.basic_consume(queue, on_task)
    run_until(channel, lambda: len(done) == count)
    return done


def test_endpoint_publishes_and_worker_consumes(server: Server, queue: str) -> None:
    """Each request becomes a task that a worker receives in order."""
    client = TestClient(application(server, queue))
    texts = [f"text {number}" for number in range(5)]

    for text in texts:
        response = client.post("/tasks", json={"recipient": "somebody", "text": text})
        assert response.status_code == 202
        assert response.json() == {"status": "queued"}

    with pika_channel(server) as channel:
        assert message_count(channel, queue) == 5
        assert [task.text for task in work(channel, queue, 5)] == texts


def test_worker_may_be_there_first(server: Server, queue: str) -> None:
    """A worker that already waits gets the task as soon as the endpoint has published it."""
    client = TestClient(application(server, queue))
    received: list[bytes] = []
    with pika_channel(server) as channel:
        channel.queue_declare(queue, durable=True)
        channel.basic_consume(queue, lambda *message: received.append(message[-1]), auto_ack=True)

        client.post("/tasks", json={"recipient": "somebody", "text": "at once"})
        run_until(channel, lambda: bool(received))

    assert [json.loads(body)["text"] for body in received] == ["at once"]


def test_bad_request_publishes_nothing(server: Server, queue: str) -> None:
    """A request that the application refuses leaves no task behind."""
    client = TestClient(application(server, queue))

    assert client.post("/tasks", json={"recipient": "somebody"}).status_code == 422

    with pika_channel(server) as channel:
        channel.queue_declare(queue, durable=True)
        assert message_count(channel, queue) == 0
