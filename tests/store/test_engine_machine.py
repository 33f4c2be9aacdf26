"""Anything a log may live through, in any order, beside a thing too simple to be wrong.

Hypothesis chooses batches, trims, stops, full disks, errors, crashes between and within operations
(those of recovery too), and what each crash keeps. After each start the log is compared with what
it was given. Two disks that lie show that the comparison finds what it is there to find.
"""

import errno
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)
from store.disk import PowerCut, SimulatedDisk
from store.logs import History, Log, batch

from broker.store.errors import DiskFullError, StoreError

SEGMENT_BYTES = 3000

batches = st.builds(
    batch,
    count=st.integers(1, 8),
    size=st.sampled_from([10, 60, 200, 700]),
    seed=st.integers(0, 1_000_000),
)


class LogMachine(RuleBasedStateMachine):
    """A log on a disk, and what it must hold."""

    disk: SimulatedDisk
    history: History
    log: Log
    chance: Random

    def new_disk(self, preallocates: bool) -> SimulatedDisk:
        return SimulatedDisk(preallocates=preallocates)

    @initialize(preallocates=st.booleans(), chance=st.randoms(use_true_random=False))
    def begin(self, preallocates: bool, chance: Random) -> None:
        self.disk = self.new_disk(preallocates)
        self.history = History()
        self.chance = chance
        self.start()

    def start(self) -> None:
        """Open the log, which may take several starts when the power is bad."""
        while True:
            try:
                self.log = Log(
                    self.disk,
                    segment_bytes=SEGMENT_BYTES,
                    reindex=self.chance.random() < 0.7,
                )
            except PowerCut:
                self.lose_power()
            else:
                break
        self.disk.cut_at = None
        self.history.check(self.log)

    def lose_power(self) -> None:
        """A later process finds what the disk kept; its power may be bad as well."""
        self.disk = self.disk.crash(self.chance.randrange, self.chance.random() < 0.5)
        if self.chance.random() < 0.3:
            self.disk.cut_after(self.chance.randrange(40))

    def live(self, action: Callable[[], None]) -> None:
        """Do something; what can't be gone on from ends in a new start."""
        try:
            action()
        except DiskFullError:
            pass
        except (StoreError, PowerCut):
            self.lose_power()
            self.start()

    # What is done with it.

    @rule(data=batches, reserve=st.booleans())
    def append_one(self, data: bytes, reserve: bool) -> None:
        self.append(data, reserve)

    def append(self, data: bytes, reserve: bool) -> None:
        self.live(lambda: self.history.append(self.log, data, reserve))

    @rule(several=st.lists(batches, min_size=5, max_size=20))
    def append_several(self, several: list[bytes]) -> None:
        for data in several:
            self.append(data, False)

    @rule(part=st.floats(0, 1))
    def trim(self, part: float) -> None:
        before = int(self.log.engine.end * part)
        self.live(lambda: self.history.trim(self.log, before))

    @rule()
    def compare(self) -> None:
        begin = self.log.engine.begin

        def compare() -> None:
            assert self.log.contents() == self.history.data[begin:]

        self.live(compare)

    @rule()
    def stop(self) -> None:
        def stop() -> None:
            self.log.engine.close()
            self.start()

        self.live(stop)

    # What comes over it.

    @rule(room=st.none() | st.integers(0, 12_000))
    def fill_the_disk(self, room: int | None) -> None:
        self.disk.capacity_bytes = None if room is None else self.disk.used_bytes + room

    @rule(
        after=st.integers(0, 15),
        number=st.sampled_from([errno.EIO, errno.ENOSPC, errno.EMFILE]),
    )
    def arrange_an_error(self, after: int, number: int) -> None:
        self.disk.fail_after(after, number)

    @rule(after=st.integers(0, 25))
    def arrange_a_power_cut(self, after: int) -> None:
        self.disk.cut_after(after)

    @rule()
    def crash(self) -> None:
        self.lose_power()
        self.start()


MACHINE_SETTINGS = settings(
    max_examples=120,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def test_a_log_keeps_what_it_acknowledged() -> None:
    """Whatever happens: a prefix of all that was appended, with all that was acknowledged."""
    run_state_machine_as_test(LogMachine, settings=MACHINE_SETTINGS)


class ForgetfulDisk(SimulatedDisk):
    """Says that files are synced and does nothing."""

    def sync(self, handle: int) -> None:
        self._step("sync")


class NamelessDisk(SimulatedDisk):
    """Says that directories are synced and does nothing."""

    def sync_directory(self, path: str) -> None:
        self._step("sync_directory")


@pytest.mark.parametrize("disk", [ForgetfulDisk, NamelessDisk])
def test_a_lying_disk_is_found_out(disk: type[SimulatedDisk]) -> None:
    """The machine finds what a log loses that does not wait for its disk."""

    class LyingMachine(LogMachine):
        def new_disk(self, preallocates: bool) -> SimulatedDisk:
            return disk(preallocates=preallocates)

    with pytest.raises((AssertionError, StoreError)):
        run_state_machine_as_test(
            LyingMachine,
            settings=settings(
                MACHINE_SETTINGS,
                database=None,
                derandomize=True,
                phases=[Phase.generate],
                report_multiple_bugs=False,
            ),
        )
