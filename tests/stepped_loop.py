"""An event loop that a test turns by hand, threads included.

What is given to a thread waits as a *job* until the test runs it, on the spot. So the order in
which callbacks and threads take their turns is the test's choice, and the same each time. Time
stands still until the test lets it pass.
"""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from contextvars import Context
from typing import Any, TypeVar, TypeVarTuple

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")

#: More steps than anything needs that comes to an end.
_STEPS_MAX = 100_000


class Job:
    """Something for a thread."""

    def __init__(
        self,
        executor: Executor | None,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        future: "asyncio.Future[Any]",
    ) -> None:
        self.executor = executor
        self.function = function
        self.arguments = arguments
        self.future = future

    def run(self) -> None:
        """Do it, as the thread would; who waits for it goes on with the next step."""
        try:
            result = self.function(*self.arguments)
        except Exception as error:
            if not self.future.cancelled():
                self.future.set_exception(error)
        else:
            if not self.future.cancelled():
                self.future.set_result(result)


class SteppedLoop(asyncio.SelectorEventLoop):
    """See the module's docstring. Used as `with SteppedLoop() as loop:`."""

    def __init__(self) -> None:
        super().__init__()
        #: not yet run, oldest first
        self.jobs: list[Job] = []
        self._more_to_do = False
        self._now = 0.0

    def __enter__(self) -> "SteppedLoop":
        return self

    def __exit__(self, *error: object) -> None:
        self.abandon()

    def time(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass; what is due then runs with the next step."""
        self._now += seconds
        self._more_to_do = True

    def call_soon(
        self,
        callback: Callable[[*Arguments], object],
        *args: *Arguments,
        context: Context | None = None,
    ) -> asyncio.Handle:
        self._more_to_do = True
        return super().call_soon(callback, *args, context=context)

    def run_in_executor(
        self,
        executor: Executor | None,
        func: Callable[[*Arguments], Result],
        *args: *Arguments,
    ) -> "asyncio.Future[Result]":
        future: asyncio.Future[Result] = self.create_future()
        self.jobs.append(Job(executor, func, args, future))
        return future

    def step(self) -> bool:
        """Run what is ready now, once; returns whether there is more."""
        self._more_to_do = False
        super().call_soon(self.stop)
        self.run_forever()
        return self._more_to_do

    def rest(self) -> None:
        """Step until nothing is left to do but jobs."""
        for _ in range(_STEPS_MAX):
            if not self.step():
                return
        raise AssertionError("the loop does not come to rest")

    def run_job(self, number: int = 0) -> None:
        """Run one job, the oldest unless told otherwise, and step until the loop rests."""
        self.jobs.pop(number).run()
        self.rest()

    def settle(self) -> None:
        """Run everything until there is nothing left to do."""
        self.rest()
        for _ in range(_STEPS_MAX):
            if not self.jobs:
                return
            self.run_job()
        raise AssertionError("jobs go on making jobs")

    def complete(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Run everything until `coroutine` is done, and return its result."""
        task = self.create_task(coroutine)
        self.rest()
        while not task.done():
            assert self.jobs, "it waits for something that nobody does"
            self.run_job()
        return task.result()

    def abandon(self) -> None:
        """Close it with whatever is under way, as a crash does."""
        if self.is_closed():
            return
        while tasks := asyncio.all_tasks(self):
            for task in tasks:
                task.cancel()
            self.rest()
        self.jobs.clear()
        self.close()
