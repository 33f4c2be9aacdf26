"""The work queue of the tutorials, with workers that are real processes and can be killed."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from threading import Thread

import pika
from compat.clients import (
    TIMEOUT_S,
    Server,
    deleted_afterwards,
    drain,
    message_count,
    pika_channel,
    unique,
)

WORKER = Path(__file__).with_name("work_queue_worker.py")


class Worker:
    """A worker process: its reports can be awaited, its tasks finished, its life ended."""

    def __init__(self, server: Server, queue: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER), server.host, str(server.port), queue],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.reports: Queue[str] = Queue()
        self.reader = Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.reports.put(line.strip())

    def report(self) -> str:
        """The next line that the worker writes."""
        return self.reports.get(timeout=TIMEOUT_S)

    def finish_task(self) -> None:
        """Let the worker acknowledge the task that it holds."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        """End the worker with SIGKILL, in the middle of whatever it does."""
        self.process.kill()
        self.process.wait(TIMEOUT_S)
        self.reader.join(TIMEOUT_S)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


@contextmanager
def two_workers(server: Server, queue: str) -> Iterator[tuple[Worker, Worker]]:
    """Two workers that already consume from the queue."""
    workers = Worker(server, queue), Worker(server, queue)
    try:
        assert [worker.report() for worker in workers] == ["ready", "ready"]
        yield workers
    finally:
        for worker in workers:
            if worker.process.returncode is None:
                worker.kill()


def test_two_workers_share_the_load_and_a_killed_one_loses_nothing(server: Server) -> None:
    """A worker killed in mid-task gives its message to the other one, marked as redelivered."""
    queue = unique("work")
    persistent = pika.BasicProperties(delivery_mode=2)
    with (
        deleted_afterwards(server, queues=(queue,)),
        pika_channel(server) as channel,
        two_workers(server, queue) as workers,
    ):
        channel.queue_declare(queue, durable=True)
        for number in range(2):
            channel.basic_publish("", queue, b"task%d" % number, persistent)
        first_reports = [worker.report() for worker in workers]
        assert sorted(first_reports) == ["task0 False", "task1 False"]

        victim, survivor = workers
        lost_task = first_reports[0].split()[0]
        victim.kill()
        survivor.finish_task()
        assert survivor.report() == f"{lost_task} True"

        survivor.finish_task()
        channel.basic_publish("", queue, b"task2", persistent)
        assert survivor.report() == "task2 False"


def test_a_busy_worker_gets_nothing_more(server: Server) -> None:
    """With a prefetch of one the next task goes to whoever is free, not to whose turn it is."""
    queue = unique("work")
    with (
        deleted_afterwards(server, queues=(queue,)),
        pika_channel(server) as channel,
        two_workers(server, queue) as workers,
    ):
        for number in range(4):
            channel.basic_publish("", queue, b"task%d" % number)
        first_reports = [worker.report() for worker in workers]
        assert sorted(first_reports) == ["task0 False", "task1 False"]

        busy, free = workers
        free.finish_task()
        assert free.report() == "task2 False"
        free.finish_task()
        assert free.report() == "task3 False"
        assert busy.reports.empty()


def test_durable_queue_keeps_what_no_worker_took(server: Server) -> None:
    """Tasks published before any worker exists wait in their order."""
    queue = unique("work")
    with deleted_afterwards(server, queues=(queue,)), pika_channel(server) as channel:
        channel.queue_declare(queue, durable=True)
        channel.confirm_delivery()
        for number in range(3):
            channel.basic_publish(
                "", queue, b"%d" % number, pika.BasicProperties(delivery_mode=2), mandatory=True
            )

        assert message_count(channel, queue) == 3
        assert drain(channel, queue) == [b"0", b"1", b"2"]
