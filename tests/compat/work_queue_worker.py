"""A worker process for the work queue test: takes tasks one at a time and reports each.

Usage: work_queue_worker.py HOST PORT QUEUE. Each delivery becomes a line `BODY REDELIVERED` on
standard output; the task is finished and acknowledged when a line arrives on standard input.
"""

import sys
from typing import Any

import pika


def work(channel: Any, method: Any, properties: Any, body: bytes) -> None:
    """Report a task and hold it until told that it is finished."""
    report(f"{body.decode()} {method.redelivered}")
    if not sys.stdin.readline():
        sys.exit()
    channel.basic_ack(method.delivery_tag)


def report(line: str) -> None:
    """Write one line that the test reads at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(host: str, port: int, queue: str) -> None:
    """Consume from a durable queue with a prefetch of one until standard input ends."""
    channel = pika.BlockingConnection(pika.ConnectionParameters(host, port)).channel()
    channel.queue_declare(queue, durable=True)
    channel.basic_qos(prefetch_count=1)
    channel.basic_consume(queue, work)
    report("ready")
    channel.start_consuming()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
