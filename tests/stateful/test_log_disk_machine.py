"""The log machine on real segment files, on a disk that keeps no more than it must.

Power fails between operations on files and within them. What was not synced is gone from any point
on, the last write is torn at any octet or scattered by sectors, and names that were not synced may
be as they were (`store.disk`).

The same checks follow a fixed workload whose power fails at each of its operations in turn.
"""

import os
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule
from stateful.log_machine import LogMachine
from store.disk import PowerCut, SimulatedDisk
from store.logs import DIRECTORY, quiet

from broker.core.transaction import Settlement
from broker.store.engine import FileLogEngine

#: Raise it to search longer.
EFFORT = int(os.environ.get("LEVERET_TEST_EFFORT", "1"))

SEGMENT_BYTES = 400


class DiskMachine(LogMachine):
    """See the module's theory."""

    disk: SimulatedDisk

    def make_disk(self) -> None:
        self.disk = SimulatedDisk()
        self.chance = Random(0)
        self.spoilt = False

    @initialize(chance=st.randoms(use_true_random=False))
    def choose(self, chance: Random) -> None:
        self.chance = chance

    def make_engine(self) -> FileLogEngine:
        return FileLogEngine(DIRECTORY, segment_bytes=SEGMENT_BYTES, files=self.disk, warn=quiet)

    def spoil_start(self) -> None:
        # The next life finds another disk: the fault is planted when it is there.
        self.spoilt = True

    def lose_power(self, kept: int, restored: int) -> None:
        # What the writer was given may have reached the disk in part.
        for number, job in enumerate(self.loop.jobs):
            if job.executor is not None and not self.dead:
                self.disk.cut_after(self.chance.randrange(12))
                self.run_job(number)
                break
        self.disk = self.disk.crash(self.chance.randrange, scatter=self.chance.random() < 0.5)
        if self.spoilt:
            self.spoilt = False
            self.disk.cut_after(self.chance.randrange(60))

    def run_job(self, number: int) -> None:
        try:
            super().run_job(number)
        except PowerCut:
            self.dead = True

    @rule(operations=st.integers(0, 60))
    def cut_power_soon(self, operations: int) -> None:
        """The power fails within one of the next operations."""
        self.disk.cut_after(operations)


TestLogDiskMachine = DiskMachine.TestCase
TestLogDiskMachine.settings = settings(
    max_examples=60 * EFFORT, stateful_step_count=50, deadline=None
)


# Every crash point.


def work(machine: LogMachine) -> None:
    """Everything that a log records, with cleaning under way."""
    every = [1, 2, 1, 4, 3, 1, 2, 5]
    machine.publish(to={0, 1, 3}, count=3, persistent=True)
    machine.publish(to={0}, count=2, persistent=False)
    machine.come_to_rest()
    machine.get(slot=0, count=2, no_ack=False)
    machine.settle_one(number=0, settlement=Settlement.ACK)
    machine.pass_through(count=8, also={0}, choices=every)
    machine.declare_or_delete(slot=1, again=True)
    machine.redefine(what="exchange", name="exchange-2", slot=0, key=b"a")
    machine.redefine(what="binding", name="exchange-1", slot=0, key=b"b")
    machine.come_to_rest()
    machine.commit(publishes=[{0, 1}, {2}], settled=[(0, Settlement.REJECT)])
    machine.publish(to={0, 1, 2}, count=2, persistent=True)
    machine.work(choices=every)
    machine.purge(slot=1, choices=every)
    machine.declare_or_delete(slot=2, again=False)
    machine.come_to_rest()
    machine.publish(to={0, 1}, count=1, persistent=True)
    machine.get(slot=0, count=1, no_ack=True)
    machine.declare_or_delete(slot=2, again=True)
    machine.pass_through(count=8, also={1}, choices=every)
    machine.come_to_rest()


def operations_of_work() -> int:
    """How many operations on files the workload takes."""
    machine = DiskMachine()
    before = len(machine.disk.operations)
    work(machine)
    assert machine.engine.segments()[0].base > 0, "something was cleaned"
    count = len(machine.disk.operations) - before
    machine.teardown()
    return count


@pytest.mark.parametrize("part", range(4))
def test_every_crash_point(part: int) -> None:
    """Wherever the power fails, what was confirmed is there, what was settled is gone, in order."""
    for operation in range(part, operations_of_work(), 4):
        machine = DiskMachine()
        machine.chance = Random(operation)
        machine.disk.cut_after(operation)
        work(machine)
        assert machine.dead
        machine.settled_before_confirmed()
        machine.crash(kept=0, restored=0)
        machine.teardown()
