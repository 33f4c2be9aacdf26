"""The log engine in bad days: torn and damaged files, failing syncs, crashes at every step."""

import errno
import random
from collections.abc import Callable
from contextlib import suppress

import pytest
from store.disk import Choose, PowerCut, SimulatedDisk, keep_everything, keep_nothing
from store.logs import DIRECTORY, History, Log, batch

from broker.store.errors import (
    CorruptError,
    FsyncError,
    StoreError,
    UnreadableError,
    UnwritableError,
)
from broker.store.segment import HEADER_BYTES, parse_record

FIRST = f"{DIRECTORY}/00000000000000000000"


@pytest.fixture
def disk() -> SimulatedDisk:
    """An empty disk."""
    return SimulatedDisk()


def disk_of(log: Log) -> SimulatedDisk:
    """The disk of a log."""
    files = log.engine._files
    assert isinstance(files, SimulatedDisk)
    return files


def flip(disk: SimulatedDisk, path: str, offset: int) -> None:
    """Change one bit of a file."""
    disk.contents(path)[offset] ^= 0x04


# Torn ends.


@pytest.mark.parametrize("kept", [0, 1, 50, 100, 104, 250, 299])
def test_a_torn_batch_is_cut_off_with_one_warning(disk: SimulatedDisk, kept: int) -> None:
    """Its whole records stay, the rest goes for good, and appending goes on there."""
    log = Log(disk)
    log.append(batch(2, 100, 1))
    disk.cut_after(1)  # write, then sync
    with pytest.raises(PowerCut):
        log.append(batch(3, 100, 2))
    warnings: list[str] = []
    found = Log(
        disk.crash(lambda count: kept if count == 301 else 0),  # bytes of the write
        warn=warnings.append,
    )
    whole = 200 + kept // 100 * 100
    assert found.engine.end == whole
    assert found.contents() == (batch(2, 100, 1) + batch(3, 100, 2))[:whole]
    assert len(warnings) == (1 if kept % 100 else 0)
    if warnings:
        assert f"{FIRST}.segment is cut off at position {whole}" in warnings.pop()
    again = Log(disk_of(found).crash(keep_nothing), warn=warnings.append)
    assert (again.engine.end, warnings) == (whole, [])
    assert again.append(batch(1, 100, 3)) == whole + 100
    assert again.contents()[whole:] == batch(1, 100, 3)


def test_a_batch_whose_sectors_came_out_of_order_is_torn() -> None:
    """Whole records behind missing sectors of the last batch don't make a damaged log."""
    chance = random.Random(5)
    for _ in range(50):
        disk = SimulatedDisk()
        log = Log(disk, segment_bytes=20_000)
        log.append(batch(5, 100, 1))
        disk.cut_after(1)
        with pytest.raises(PowerCut):
            log.append(batch(50, 100, 2))
        found = Log(disk.crash(chance.randrange, scatter=True), segment_bytes=20_000)
        assert found.engine.end >= 500
        whole = batch(5, 100, 1) + batch(50, 100, 2)
        assert found.contents() == whole[: found.engine.end]


# Damaged files.


@pytest.fixture
def crashed(disk: SimulatedDisk) -> SimulatedDisk:
    """A disk with two sealed segments and one of two batches that is not."""
    log = Log(disk)
    for seed in range(6):
        log.append(batch(4, 100, seed))
    return disk.crash(keep_nothing)


LAST = f"{DIRECTORY}/00000000000000001600"


@pytest.mark.parametrize("offset", [0, 3, 4, 8, 9, 50, 99])
def test_damage_before_the_last_batch_stops_the_start(crashed: SimulatedDisk, offset: int) -> None:
    """A record that a later batch proves durable is not cut off."""
    flip(crashed, f"{LAST}.segment", HEADER_BYTES + 100 + offset)
    with pytest.raises(CorruptError) as caught:
        Log(crashed)
    assert caught.value.position == 1700


def test_damage_before_whole_records_of_the_last_batch_stops_the_start(
    crashed: SimulatedDisk,
) -> None:
    """No crash flips a bit in the midst of a batch."""
    flip(crashed, f"{LAST}.segment", HEADER_BYTES + 550)
    with pytest.raises(CorruptError):
        Log(crashed)


def test_the_error_tells_file_position_and_how_to_go_on(crashed: SimulatedDisk) -> None:
    """An operator needs no more than the sentence."""
    flip(crashed, f"{LAST}.segment", HEADER_BYTES + 150)
    with pytest.raises(CorruptError) as caught:
        Log(crashed)
    assert caught.value.file == f"{LAST}.segment"
    assert str(caught.value) == (
        f"{LAST}.segment has a damaged record at position 1700 (byte 124 of the file). "
        f"`leveret log check --data-dir {DIRECTORY}` says what is damaged, "
        f"`leveret log repair --data-dir {DIRECTORY}` goes on without it."
    )


def test_damage_in_a_sealed_segment_is_found_when_it_is_read(crashed: SimulatedDisk) -> None:
    """The start does not read it; the record does not parse, its neighbours do."""
    flip(crashed, f"{FIRST}.segment", HEADER_BYTES + 150)
    log = Log(crashed)
    found = log.engine.read_many([(0, 100), (100, 100), (200, 100)])
    assert [parse_record(data) is None for data in found] == [False, True, False]


@pytest.mark.parametrize("offset", [0, 8, 12, 20, 28, 35, 36, 44, 48, 60, 86, 100])
def test_damage_in_an_index_stops_the_start(crashed: SimulatedDisk, offset: int) -> None:
    """Header, fields and bytes of an index are covered by checksums."""
    flip(crashed, f"{FIRST}.index", offset)
    with pytest.raises(CorruptError) as caught:
        Log(crashed)
    assert caught.value.file == f"{FIRST}.index"


@pytest.mark.parametrize("size", [0, 20, 36, 40, 60])
def test_a_short_index_stops_the_start(crashed: SimulatedDisk, size: int) -> None:
    """An index of that name was once whole."""
    del crashed.contents(f"{FIRST}.index")[size:]
    with pytest.raises(CorruptError) as caught:
        Log(crashed)
    assert caught.value.file == f"{FIRST}.index"


def test_an_index_that_is_too_long_stops_the_start(crashed: SimulatedDisk) -> None:
    """Nothing follows the last entry."""
    crashed.contents(f"{FIRST}.index").extend(b"x")
    with pytest.raises(CorruptError, match="has not the entries"):
        Log(crashed)


@pytest.mark.parametrize("offset", [0, 8, 12, 20])
def test_damage_in_the_header_of_a_segment_stops_the_start(
    crashed: SimulatedDisk, offset: int
) -> None:
    """A file of that name had its whole header from the beginning."""
    flip(crashed, f"{FIRST}.segment", offset)
    with pytest.raises(CorruptError, match="has a damaged header") as caught:
        Log(crashed)
    assert (caught.value.file, caught.value.position) == (f"{FIRST}.segment", 0)


@pytest.mark.parametrize("slot", [0, 4096])
@pytest.mark.parametrize("offset", [0, 8, 12, 19, 20])
def test_one_damaged_slot_of_the_format_is_survived(
    crashed: SimulatedDisk, slot: int, offset: int
) -> None:
    """The other slot counts, and no epoch is given twice."""
    Log(disk := crashed.crash(keep_everything))
    disk = disk.crash(keep_everything)
    flip(disk, f"{DIRECTORY}/format", slot + offset)
    found = Log(disk)
    assert found.epoch > 2
    assert Log(disk_of(found).crash(keep_nothing)).epoch == found.epoch + 1


def test_two_damaged_slots_of_the_format_stop_the_start(crashed: SimulatedDisk) -> None:
    """Nobody can tell the version then."""
    flip(crashed, f"{DIRECTORY}/format", 1)
    flip(crashed, f"{DIRECTORY}/format", 4097)
    with pytest.raises(CorruptError, match="format is damaged"):
        Log(crashed)


def test_a_missing_format_file_stops_the_start(crashed: SimulatedDisk) -> None:
    """A log without one is not taken for a new one."""
    crashed.remove(f"{DIRECTORY}/format")
    with pytest.raises(CorruptError, match="format is missing"):
        Log(crashed)


def test_lock_and_reserve_hold_nothing_that_could_be_damaged(crashed: SimulatedDisk) -> None:
    """Their contents don't matter."""
    for name in ("lock", "reserve-0", "reserve-1"):
        crashed.put(f"{DIRECTORY}/{name}", b"nonsense")
    assert Log(crashed).engine.reserve_is_whole


@pytest.mark.parametrize("with_index", [True, False])
def test_a_missing_segment_stops_the_start(crashed: SimulatedDisk, with_index: bool) -> None:
    """The log has no gaps."""
    middle = f"{DIRECTORY}/00000000000000000800"
    crashed.remove(f"{middle}.segment")
    if not with_index:
        crashed.remove(f"{middle}.index")
    with pytest.raises(CorruptError, match="is missing") as caught:
        Log(crashed)
    assert (caught.value.file, caught.value.position) == (f"{middle}.segment", 800)


def test_a_missing_last_segment_stops_the_start(disk: SimulatedDisk) -> None:
    """Its index tells that it was there."""
    log = Log(disk)
    for seed in range(6):
        log.append(batch(4, 100, seed))
    log.engine.close()
    disk.remove(f"{LAST}.segment")
    with pytest.raises(CorruptError, match=r"1600\.segment is missing"):
        Log(disk)


@pytest.mark.parametrize("with_index", [True, False])
def test_a_short_segment_stops_the_start(crashed: SimulatedDisk, with_index: bool) -> None:
    """A sealed segment has all its batches."""
    del crashed.contents(f"{FIRST}.segment")[HEADER_BYTES + 450 :]
    if not with_index:
        crashed.remove(f"{FIRST}.index")
    with pytest.raises(CorruptError) as caught:
        Log(crashed)
    assert caught.value.file == f"{FIRST}.segment"
    assert caught.value.position == (450 if with_index else 400)


def test_damage_in_a_sealed_segment_without_index_stops_the_start(
    crashed: SimulatedDisk,
) -> None:
    """It was synced before the next segment was begun, so nothing in it can be torn."""
    crashed.remove(f"{FIRST}.index")
    flip(crashed, f"{FIRST}.segment", HEADER_BYTES + 799)
    with pytest.raises(CorruptError) as caught:
        Log(crashed)
    assert caught.value.position == 700


# Failing operations.


def test_a_failed_sync_is_the_end(disk: SimulatedDisk) -> None:
    """After it everything is refused, for the same reason, until the log is opened anew."""
    log = Log(disk)
    log.append(batch(1, 100, 1))
    disk.fail_after(1, errno.EIO)
    with pytest.raises(FsyncError, match=rf"{DIRECTORY} can't be synced: Input/output error"):
        log.append(batch(1, 100, 2))
    refused: list[Callable[[], object]] = [
        lambda: log.append(batch(1, 100, 2)),
        lambda: log.engine.read(0, 100),
        lambda: log.engine.trim(0),
        log.engine.refill,
    ]
    for verb in refused:
        with pytest.raises(FsyncError, match="Input/output error"):
            verb()
    log.engine.close()
    assert Log(disk.crash(keep_nothing)).contents() == batch(1, 100, 1)


def test_a_failed_write_is_the_end_too(disk: SimulatedDisk) -> None:
    """Unless it failed for want of space, nobody knows what it did."""
    log = Log(disk)
    log.append(batch(1, 100, 1))
    disk.fail_after(0, errno.EIO)
    with pytest.raises(FsyncError):
        log.append(batch(2, 100, 2))
    log.engine.close()
    survived = batch(1, 100, 1) + batch(2, 100, 2)[:100]
    assert Log(disk.crash(keep_everything)).contents() == survived


def test_an_unreadable_sector_is_damage(disk: SimulatedDisk) -> None:
    """The error names file and position, and the log goes on."""
    log = Log(disk)
    log.append(batch(3, 100))
    disk.fail_after(0, errno.EIO)
    with pytest.raises(CorruptError, match="can't be read: Input/output error") as caught:
        log.engine.read(100, 100)
    assert (caught.value.file, caught.value.position) == (f"{FIRST}.segment", 100)
    assert log.engine.read(100, 100) == batch(3, 100)[100:200]


def test_want_of_file_handles_is_no_damage(disk: SimulatedDisk) -> None:
    """Neither reading nor rolling condemns the log for it."""
    log = Log(disk)
    for seed in range(3):
        log.append(batch(4, 100, seed))
    log.engine.close()
    log = Log(disk)
    disk.fail_after(0, errno.EMFILE)
    with pytest.raises(UnreadableError, match="Too many open files"):
        log.engine.read(100, 100)
    disk.fail_after(0, errno.EMFILE)
    with pytest.raises(UnwritableError, match="Too many open files"):
        log.append(batch(1, 100, 3))
    assert log.append(batch(1, 100, 3)) == 1300
    assert log.contents()[1200:] == batch(1, 100, 3)


def test_a_segment_that_can_not_be_removed_is_kept(disk: SimulatedDisk) -> None:
    """The log has no gap then; a later trim may succeed."""
    log = Log(disk)
    for seed in range(6):
        log.append(batch(4, 100, seed))
    disk.fail_after(1, errno.EACCES)
    with pytest.raises(UnwritableError):
        log.engine.trim(1600)
    assert log.engine.begin == 0
    log.engine.trim(1600)
    assert log.engine.begin == 1600


# Crashes.


def work(disk: SimulatedDisk, history: History) -> None:
    """A short life of a log with everything in it."""
    log = Log(disk)
    history.append(log, batch(4, 100, 1))
    history.append(log, batch(4, 100, 2))
    history.append(log, batch(4, 100, 3), reserve=True)
    history.append(log, batch(15, 100, 4))
    history.append(log, batch(4, 100, 5))
    history.trim(log, 800)
    log.engine.read(1000, 100)
    log.engine.close()
    log = Log(disk)
    history.append(log, batch(9, 100, 6))
    history.append(log, batch(9, 100, 7))
    history.append(log, batch(9, 100, 8))
    history.trim(log, 3200)


def choices(seed: int) -> Choose:
    """What a crash keeps: nothing, everything, or anything."""
    if seed == 0:
        return keep_nothing
    if seed == 1:
        return keep_everything
    return random.Random(seed).randrange


def count_operations() -> int:
    """How many operations the work takes."""
    disk = SimulatedDisk()
    work(disk, History())
    return len(disk.operations)


@pytest.mark.parametrize("seed", range(6))
def test_a_crash_at_any_operation_loses_nothing_acknowledged(seed: int) -> None:
    """What survives is a prefix of what was appended with all that was acknowledged."""
    for number in range(count_operations()):
        disk = SimulatedDisk()
        disk.cut_at = number
        history = History()
        with pytest.raises(PowerCut):
            work(disk, history)
        found = disk.crash(choices(seed), scatter=seed % 2 == 0)
        history.check(Log(found, reindex=seed % 3 == 0))
        log = Log(found.crash(choices(seed)))
        history.check(log)
        history.append(log, batch(3, 100, 9))
        log.engine.close()
        history.check(Log(disk_of(log).crash(keep_nothing)))


@pytest.mark.parametrize("seed", range(3))
def test_a_crash_at_any_operation_of_a_recovery_loses_nothing(seed: int) -> None:
    """A start that is cut short is followed by another one that finds the same."""
    disk = SimulatedDisk()
    history = History()
    log = Log(disk)
    for number in range(5):
        history.append(log, batch(4, 100, number))
    history.attempts.append(batch(4, 100, 5))
    disk.cut_after(1)
    with pytest.raises(PowerCut):
        log.append(batch(4, 100, 5))
    crashed = disk.crash(lambda count: 250 if count == 401 else 0)
    number = 0
    while True:
        again = crashed.crash(keep_everything)
        again.cut_at = number
        try:
            Log(again)
        except PowerCut:
            pass
        else:
            break
        survived = History()
        survived.data, survived.attempts = history.data, list(history.attempts)
        survived.check(Log(again.crash(choices(seed))))
        number += 1
    assert number > 20


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EMFILE])
def test_an_error_at_any_operation_loses_nothing_acknowledged(number: int) -> None:
    """Whatever fails, what was acknowledged is there at the next start."""
    for operation in range(count_operations()):
        disk = SimulatedDisk()
        disk.faults[operation] = number
        history = History()
        with suppress(StoreError):
            work(disk, history)
        history.check(Log(disk.crash(keep_nothing)))
