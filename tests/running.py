"""A real broker for tests: in a thread of its own, or one that somebody else runs."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

from broker import Broker, Config

Result = TypeVar("Result")


class RunningBroker:
    """A Broker in a thread and loop of its own, for clients that block."""

    def __init__(self, broker: Broker, loop: asyncio.AbstractEventLoop) -> None:
        self.broker = broker
        self.loop = loop
        self.host = "127.0.0.1"
        self.port = broker.port
        self.url = broker.url

    def call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """The result of `function`, run on the broker's loop, where the core may be touched."""
        result: Future[Result] = Future()

        def run() -> None:
            try:
                result.set_result(function(*arguments))
            except BaseException as error:
                result.set_exception(error)

        self.loop.call_soon_threadsafe(run)
        return result.result(timeout=10)


class ExternalBroker:
    """A broker that somebody else runs, to check these tests against the reference."""

    def __init__(self, port: int) -> None:
        self.host = "127.0.0.1"
        self.port = port
        self.url = f"amqp://guest:guest@127.0.0.1:{port}/"


@contextmanager
def running_broker(**settings: Any) -> Iterator[RunningBroker]:
    """Run a broker in a thread until the block ends; settings are those of `Config`."""
    settings = {"host": ("127.0.0.1",), "port": 0, "data_dir": None, **settings}
    started: Future[RunningBroker] = Future()
    finish: list[Callable[[], object]] = []

    async def serve() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        finish.append(lambda: loop.call_soon_threadsafe(stop.set))
        async with Broker(Config(**settings)) as broker:
            started.set_result(RunningBroker(broker, loop))
            await stop.wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield started.result(timeout=10)
    finally:
        finish[0]()
        thread.join(timeout=20)
        assert not thread.is_alive(), "the broker did not stop"
