"""The log machine on an engine in memory, which keeps any number of unsynced records.

Two faults are planted to see that it finds what would break the promises.
"""

import os

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test
from stateful.log_machine import SEGMENT_BYTES, LogMachine, WatchedStore
from store.engine_double import Disk, MemoryLogEngine, PowerCut

from broker.core.records import Counters
from broker.store.log_engine import SegmentSpan

#: Raise it to search longer.
EFFORT = int(os.environ.get("LEVERET_TEST_EFFORT", "1"))


class MemoryMachine(LogMachine):
    """Crashes at the borders of records, each as likely as the others."""

    disk: Disk
    engine: MemoryLogEngine
    engine_class: type[MemoryLogEngine] = MemoryLogEngine

    def make_disk(self) -> None:
        self.disk = Disk(SEGMENT_BYTES)
        self.spoilt = False

    def make_engine(self) -> MemoryLogEngine:
        engine = self.engine_class(self.disk)
        engine.cut_power, self.spoilt = self.spoilt, False
        return engine

    def spoil_start(self) -> None:
        self.spoilt = True

    def try_start(self) -> bool:
        try:
            return super().try_start()
        except PowerCut:
            return False

    def lose_power(self, kept: int, restored: int) -> None:
        # What the writer was given may have reached the disk in part.
        for job in self.loop.jobs:
            if job.executor is not None:
                self.engine.cut_power = True
                job.run()
                break
        self.disk.crash(kept, restored)

    @rule(indexed=st.booleans())
    def lose_indexes(self, indexed: bool) -> None:
        """The next recovery reads the records themselves, or does so no more."""
        self.disk.indexed = indexed


TestLogMachine = MemoryMachine.TestCase
TestLogMachine.settings = settings(max_examples=250 * EFFORT, stateful_step_count=60, deadline=None)


# A test of the test: the machine finds what would break the promises.


class HastyStore(WatchedStore):
    """Drops the head of the log before the copies of what lived there are durable."""

    async def _clean(self, end: int) -> None:
        await self._copy(self._ledger.alive_before(end, self._begin, 1000))
        if not self._closing:
            await self._repeat_definitions(end)
            self.append(Counters(self._state.last_message_id, self._state.last_queue_id))
            assert self._loop is not None
            await self._loop.run_in_executor(None, self._engine.trim, end)
            self._ledger.drop_before(end)
            self._begin = end


class SkippingEngine(MemoryLogEngine):
    """Drops the second segment instead of the first."""

    def segments(self) -> list[SegmentSpan]:
        segments = super().segments()
        return segments[1:] if len(segments) > 2 else segments

    def trim(self, before: int) -> None:
        segments = self.disk.segments
        segments[:] = [segment for segment in segments if segment.end != before]


class HastyMachine(MemoryMachine):
    store_class = HastyStore


class SkippingMachine(MemoryMachine):
    engine_class = SkippingEngine


@pytest.mark.parametrize(
    ("machine", "finding"),
    [
        (HastyMachine, "a confirmed message was lost|what was declared is there"),
        (SkippingMachine, "a settled message came back|and nothing else"),
    ],
)
def test_planted_faults_are_found(machine: type[LogMachine], finding: str) -> None:
    """A head dropped too early loses messages, a middle dropped brings settled ones back."""
    with pytest.raises(AssertionError, match=finding):
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=1000,
                stateful_step_count=60,
                deadline=None,
                derandomize=True,
                database=None,
                phases=(Phase.generate,),
                report_multiple_bugs=False,
            ),
        )
