"""The log engine on a full disk: what takes room is refused, what makes room goes on."""

import errno

import pytest
from store.disk import SimulatedDisk, keep_everything, keep_nothing
from store.logs import DIRECTORY, History, Log, batch

from broker.store.errors import DiskFullError, FsyncError
from broker.store.segment import HEADER_BYTES

SEGMENT_BYTES = 1000
FILE_BYTES = HEADER_BYTES + SEGMENT_BYTES
#: of format and lock
OTHER_BYTES = 4096 + 24 + 20


def disk_for(files: float, preallocates: bool = True) -> SimulatedDisk:
    """A disk with room for so many files of the size of a segment, the reserve among them."""
    return SimulatedDisk(OTHER_BYTES + int(files * FILE_BYTES), preallocates)


def fill(log: Log, history: History, reserve: bool = False) -> None:
    """Append until it is refused."""
    for seed in range(100):
        try:
            history.append(log, batch(3, 100, seed), reserve)
        except DiskFullError:
            return
    pytest.fail("the disk is never full")


@pytest.mark.parametrize("preallocates", [True, False])
def test_publishes_are_refused_before_the_reserve_is_touched(preallocates: bool) -> None:
    """The sentence names the directory, and nothing of the batch is kept."""
    log, history = Log(disk := disk_for(4.5, preallocates)), History()
    fill(log, history)
    assert log.engine.reserve_is_whole
    assert len(disk.contents(f"{DIRECTORY}/reserve-0")) == FILE_BYTES
    assert len(disk.contents(f"{DIRECTORY}/reserve-1")) == FILE_BYTES
    with pytest.raises(DiskFullError, match=f"The disk of {DIRECTORY} is full"):
        log.append(batch(3, 100))
    history.check(Log(disk.crash(keep_everything)))


@pytest.mark.parametrize("preallocates", [True, False])
def test_what_makes_room_goes_on_in_the_reserve(preallocates: bool) -> None:
    """Two segments long, for settlements, deletes and copies of cleaning."""
    log, history = Log(disk := disk_for(4.5, preallocates)), History()
    fill(log, history)
    for seed in range(6):
        history.append(log, batch(3, 100, seed), reserve=True)
    assert not log.engine.reserve_is_whole
    history.check(Log(disk.crash(keep_nothing)))


@pytest.mark.parametrize("preallocates", [True, False])
def test_the_reserve_ends_too(preallocates: bool) -> None:
    """Then settlements are refused as well, and nothing is lost."""
    log, history = Log(disk := disk_for(4.5, preallocates)), History()
    fill(log, history)
    fill(log, history, reserve=True)
    history.check(Log(disk.crash(keep_nothing)))


def test_publishes_wait_until_the_reserve_is_whole() -> None:
    """Room in the segment of the moment is no reason to take it from what makes room."""
    log, history = Log(disk_for(4.5)), History()
    fill(log, history)
    while log.engine.reserve_is_whole:
        history.append(log, batch(3, 100, 1), reserve=True)
    with pytest.raises(DiskFullError):
        history.append(log, batch(1, 100, 2))
    assert not log.engine.refill()
    history.append(log, batch(1, 100, 3), reserve=True)


@pytest.mark.parametrize("preallocates", [True, False])
def test_trimming_makes_room_and_the_reserve_whole_again(preallocates: bool) -> None:
    """Then publishes are taken again, without a restart."""
    log, history = Log(disk := disk_for(4.5, preallocates)), History()
    fill(log, history)
    for seed in range(6):
        history.append(log, batch(3, 100, seed), reserve=True)
    history.trim(log, log.engine.segments()[-1].base)
    assert log.engine.refill()
    assert log.engine.reserve_is_whole
    history.append(log, batch(3, 100, 7))
    log.engine.close()
    history.check(Log(disk))


def test_a_publish_refills_the_reserve_itself() -> None:
    """Nobody needs to ask for it when there is room again."""
    log, history = Log(disk := disk_for(4.5)), History()
    fill(log, history)
    while log.engine.reserve_is_whole:
        history.append(log, batch(3, 100, 1), reserve=True)
    disk.capacity_bytes = None
    history.append(log, batch(3, 100, 2))
    assert log.engine.reserve_is_whole


def test_a_write_that_fails_is_cut_back() -> None:
    """On a disk that doesn't keep its word, no torn bytes stay before the next batch."""
    disk = SimulatedDisk()
    log, history = Log(disk), History()
    history.append(log, batch(2, 100, 1))
    disk.fail_after(0, errno.ENOSPC)  # half of it is written
    with pytest.raises(DiskFullError):
        history.append(log, batch(3, 100, 2))
    segment = disk.contents(disk.paths(".segment")[0])
    assert not segment[HEADER_BYTES + 200 :].strip(b"\0")
    assert log.engine.end == 200
    history.append(log, batch(3, 100, 2))
    history.check(Log(disk.crash(keep_nothing)))


def test_a_full_quota_is_a_full_disk() -> None:
    """Both may pass."""
    disk = SimulatedDisk()
    log = Log(disk)
    log.append(batch(2, 100, 1))
    disk.fail_after(0, errno.EDQUOT)
    with pytest.raises(DiskFullError):
        log.append(batch(3, 100, 2))


def test_a_full_disk_can_be_opened() -> None:
    """A restart in need works, with what makes room, and publishes wait."""
    log, history = Log(disk := disk_for(4.5)), History()
    fill(log, history)
    history.append(log, batch(3, 100, 1), reserve=True)
    history.append(log, batch(3, 100, 2), reserve=True)
    disk.capacity_bytes = disk.used_bytes
    disk = disk.crash(keep_nothing)
    log = Log(disk)
    history.check(log)
    while log.engine.begin < log.engine.segments()[-1].base:
        history.append(log, batch(1, 100, 3), reserve=True)
        history.trim(log, log.engine.segments()[0].end)
    disk.capacity_bytes = disk.used_bytes + 3 * FILE_BYTES
    assert log.engine.refill()
    history.append(log, batch(3, 100, 4))


def test_an_index_waits_for_room() -> None:
    """A segment is sealed without it on a full disk; it is written when there is room."""
    disk = SimulatedDisk()
    log, history = Log(disk), History()
    history.append(log, batch(10, 100, 1))
    disk.capacity_bytes = disk.used_bytes + FILE_BYTES
    history.append(log, batch(10, 100, 2))
    assert disk.paths(".index") == []
    assert log.engine.segments()[0].sealed
    disk.capacity_bytes = None
    history.append(log, batch(10, 100, 3))
    assert len(disk.paths(".index")) == 2
    history.check(Log(disk.crash(keep_everything)))


def test_a_clean_stop_on_a_full_disk_still_writes_the_indexes() -> None:
    """For which it takes of the reserve, so that the next start is quick."""
    log, history = Log(disk := disk_for(4.1)), History()
    fill(log, history)
    disk.capacity_bytes = disk.used_bytes
    log.engine.close()
    found = Log(disk)
    history.check(found)
    assert all(b.index is not None for b in found.batches)


def test_a_huge_batch_may_use_all_of_the_reserve() -> None:
    """A batch that fits in no reserve file gets the room of both."""
    log, history = Log(disk_for(4.5)), History()
    fill(log, history)
    history.append(log, batch(15, 100, 1), reserve=True)
    history.check(Log(log_disk(log).crash(keep_nothing)))


def log_disk(log: Log) -> SimulatedDisk:
    """The disk of a log."""
    files = log.engine._files
    assert isinstance(files, SimulatedDisk)
    return files


def test_a_reserve_of_another_size_is_made_anew() -> None:
    """The setting was changed since."""
    disk = SimulatedDisk()
    Log(disk).engine.close()
    Log(disk, segment_bytes=2000).engine.close()
    assert len(disk.contents(f"{DIRECTORY}/reserve-1")) == HEADER_BYTES + 2000
    Log(disk, segment_bytes=500).engine.close()
    assert len(disk.contents(f"{DIRECTORY}/reserve-0")) == HEADER_BYTES + 500


@pytest.mark.parametrize("preallocates", [True, False])
def test_every_operation_may_find_the_disk_full(preallocates: bool) -> None:
    """Unless a sync fails, the batch was kept whole or not at all, and can be tried again."""
    for number in range(100):
        disk = SimulatedDisk(preallocates=preallocates)
        log, history = Log(disk), History()
        start = len(disk.operations)
        disk.faults[start + number] = errno.ENOSPC
        for seed in range(5):
            data = batch(4, 100, seed)
            try:
                history.append(log, data, reserve=bool(seed % 2))
            except DiskFullError:
                history.append(log, data, reserve=bool(seed % 2))
            except FsyncError:
                # A sync, or what never needs room: opening a file that is there.
                assert disk.operations[start + number] in ("sync", "sync_directory", "open")
                break
        if len(disk.operations) < start + number:
            return
        history.check(Log(disk.crash(keep_nothing)))
    pytest.fail("five appends take less operations")
