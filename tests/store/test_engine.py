"""The log engine in good days: appending, rolling, reading, trimming, stopping and starting."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from store.disk import SimulatedDisk, keep_everything, keep_nothing
from store.logs import DIRECTORY, Log, batch, index_of, record

from broker.store.engine import FileLogEngine
from broker.store.errors import FormatError, LockedError, StoreError, TrimmedError, UnwritableError
from broker.store.files import SystemFiles
from broker.store.log_engine import LogEngine, SegmentSpan


@pytest.fixture
def disk() -> SimulatedDisk:
    """An empty disk."""
    return SimulatedDisk()


def test_a_new_log_is_empty(disk: SimulatedDisk) -> None:
    """It begins at position 0 and its directory is made."""
    log = Log(disk)
    assert isinstance(log.engine, LogEngine)
    assert log.batches == []
    assert (log.engine.begin, log.engine.end, log.engine.segments()) == (0, 0, [])
    assert disk.paths() == [
        f"{DIRECTORY}/format",
        f"{DIRECTORY}/lock",
        f"{DIRECTORY}/reserve-0",
        f"{DIRECTORY}/reserve-1",
    ]


def test_append_returns_the_end(disk: SimulatedDisk) -> None:
    """Positions count the bytes of records and nothing else."""
    log = Log(disk)
    assert log.append(batch(3, 40)) == 120
    assert log.append(batch(1, 50)) == 170
    assert log.engine.end == 170


def test_what_was_appended_is_durable(disk: SimulatedDisk) -> None:
    """When append has returned, a crash takes nothing of it."""
    log = Log(disk)
    log.append(batch(3, 40))
    found = Log(disk.crash(keep_nothing))
    assert found.contents() == batch(3, 40)


def test_what_was_appended_is_read(disk: SimulatedDisk) -> None:
    """Any record by its position and length, or a part of it."""
    log = Log(disk)
    log.append(record(30, 1) + record(40, 2))
    log.append(record(50, 3))
    assert log.engine.read(30, 40) == record(40, 2)
    assert log.engine.read(70, 50)[10:] == record(50, 3)[10:]
    assert log.engine.read(100, 20) == record(50, 3)[30:]


def test_many_spans_are_read_in_the_order_asked(disk: SimulatedDisk) -> None:
    """Over all segments, with spans that repeat and overlap."""
    log = Log(disk)
    data = b"".join(batch(3, 100, seed) for seed in range(10))
    for seed in range(10):
        log.append(batch(3, 100, seed))
    spans = [(2800, 100), (100, 100), (0, 100), (100, 200), (1400, 100), (100, 100)]
    for (position, length), found in zip(spans, log.engine.read_many(spans), strict=True):
        assert found[1:] == data[position + 1 : position + length]
    assert log.engine.read_many([]) == []


def test_neighbours_are_read_together(disk: SimulatedDisk) -> None:
    """A backlog that was written sequentially is read with few operations."""
    log = Log(disk, segment_bytes=100_000)
    log.append(batch(500, 100))
    before = len(disk.operations)
    log.engine.read_many([(position, 100) for position in range(0, 50_000, 200)])
    assert disk.operations[before:] == ["read"]


def test_a_segment_that_has_no_room_is_followed_by_another(disk: SimulatedDisk) -> None:
    """A batch lies in one file; the file is named after its first position."""
    log = Log(disk, segment_bytes=1000)
    for _ in range(4):
        log.append(batch(4, 100))
    assert log.engine.segments() == [SegmentSpan(0, 800, True), SegmentSpan(800, 1600, False)]
    assert disk.paths(".segment") == [
        f"{DIRECTORY}/00000000000000000000.segment",
        f"{DIRECTORY}/00000000000000000800.segment",
    ]
    assert disk.paths(".index") == [f"{DIRECTORY}/00000000000000000000.index"]


def test_a_batch_larger_than_a_segment_has_a_file_of_its_own(disk: SimulatedDisk) -> None:
    """It is neither split nor refused."""
    log = Log(disk, segment_bytes=1000)
    log.append(batch(1, 100, 1))
    log.append(batch(50, 100, 2))
    log.append(batch(1, 100, 3))
    spans = [(span.base, span.end) for span in log.engine.segments()]
    assert spans == [(0, 100), (100, 5100), (5100, 5200)]
    assert log.contents()[1000:1100] == batch(50, 100, 2)[900:1000]
    log.engine.close()
    assert Log(disk).engine.end == 5200


def test_a_clean_stop_leaves_nothing_to_replay(disk: SimulatedDisk) -> None:
    """The next start reads indexes, not records, and gets them as they were given."""
    log = Log(disk)
    batches = [batch(2, 150, seed) for seed in range(8)]
    for data in batches:
        log.append(data)
    log.engine.close()
    found = Log(disk)
    assert [(b.position, b.end, b.index, b.data) for b in found.batches] == [
        (300 * number, 300 * number + 300, index_of(data), None)
        for number, data in enumerate(batches)
    ]
    assert all(span.sealed for span in found.engine.segments())
    assert found.engine.end == 2400


def test_a_clean_stop_is_durable(disk: SimulatedDisk) -> None:
    """When close has returned, the indexes survive a power cut too."""
    log = Log(disk)
    log.append(batch(2, 100))
    log.engine.close()
    found = Log(disk.crash(keep_nothing))
    assert [b.index for b in found.batches] == [index_of(batch(2, 100))]


def test_a_stopped_log_gives_back_what_was_preallocated(disk: SimulatedDisk) -> None:
    """The last segment is cut behind its last batch."""
    log = Log(disk, segment_bytes=10_000)
    log.append(batch(2, 100))
    assert len(disk.contents(disk.paths(".segment")[0])) > 10_000
    log.engine.close()
    assert len(disk.contents(disk.paths(".segment")[0])) < 300


def test_a_start_goes_on_in_a_new_segment(disk: SimulatedDisk) -> None:
    """What was written by an earlier start is not written to again."""
    log = Log(disk)
    log.append(batch(1, 100, 1))
    log.engine.close()
    log = Log(disk)
    log.append(batch(1, 100, 2))
    assert log.engine.segments() == [SegmentSpan(0, 100, True), SegmentSpan(100, 200, False)]


def test_without_a_clean_stop_the_last_segment_is_read(disk: SimulatedDisk) -> None:
    """Sealed segments give their indexes, the last one its records in pieces."""
    log = Log(disk)
    for seed in range(5):
        log.append(batch(3, 100, seed))
    found = Log(disk.crash(keep_nothing), reindex=False)
    assert [b.index is None for b in found.batches] == [False, False, False, True]
    last = found.batches[-1]
    assert (last.position, last.end) == (900, 1500)
    assert last.data == batch(3, 100, 3) + batch(3, 100, 4)


def test_an_index_given_during_recovery_is_kept(disk: SimulatedDisk) -> None:
    """What was read once is found by its index at the next start."""
    log = Log(disk)
    log.append(batch(3, 100))
    disk = disk.crash(keep_nothing)
    Log(disk)
    found = Log(disk.crash(keep_everything))
    assert [b.index for b in found.batches] == [index_of(batch(3, 100))]


def test_without_an_index_the_records_are_read_again(disk: SimulatedDisk) -> None:
    """A reader that gives none back only makes the next start slower."""
    log = Log(disk)
    log.append(batch(3, 100, 1))
    log = Log(disk.crash(keep_nothing), reindex=False)
    log.append(batch(3, 100, 2))
    log.engine.close()
    log = Log(log_disk(log), reindex=False)
    assert [(b.position, b.index is None) for b in log.batches] == [(0, True), (300, False)]


def log_disk(log: Log) -> SimulatedDisk:
    """The disk of a log."""
    files = log.engine._files
    assert isinstance(files, SimulatedDisk)
    return files


@pytest.mark.parametrize("what", ["lost", "never named"])
def test_a_lost_index_of_a_sealed_segment_is_made_again(disk: SimulatedDisk, what: str) -> None:
    """An index is a cache: the segment is read instead, and the index written anew."""
    log = Log(disk)
    for seed in range(8):
        log.append(batch(3, 100, seed))
    log.engine.close()
    index = disk.paths(".index")[1]
    if what == "lost":
        disk.remove(index)
    else:
        disk.rename(index, f"{index}.new")
    found = Log(disk)
    assert [b.index is None for b in found.batches[3:]] == [False] * len(found.batches[3:])
    assert found.engine.end == 2400
    assert index in disk.paths(".index")
    assert f"{index}.new" not in disk.paths()


def test_pieces_of_recovery_are_bounded(tmp_path: Path) -> None:
    """An unsealed segment is read in pieces of whole records, whatever their sizes."""
    log = Log(SystemFiles(), str(tmp_path), segment_bytes=32 << 20)
    large = record(5 << 20, 3)
    data = batch(3000, 1999, 1) + large + batch(10, 100_000, 2)
    log.append(data)
    log.engine._directory.unlock()
    found = Log(SystemFiles(), str(tmp_path), reindex=False)
    pieces = [b.data for b in found.batches if b.data is not None]
    assert b"".join(pieces) == data
    assert max(len(piece) for piece in pieces if large not in piece) <= 4 << 20
    found.engine.close()
    log.engine.close()


def test_segments_before_a_position_are_trimmed(disk: SimulatedDisk) -> None:
    """Whole segments go, with their indexes; what lies behind stays where it is."""
    log = Log(disk)
    data = b"".join(batch(5, 100, seed) for seed in range(8))
    for seed in range(8):
        log.append(batch(5, 100, seed))
    log.engine.trim(2500)
    assert log.engine.begin == 2000
    assert log.engine.segments()[0] == SegmentSpan(2000, 3000, True)
    assert disk.paths(".index") == [f"{DIRECTORY}/00000000000000002000.index"]
    assert log.engine.read(2100, 100) == data[2100:2200]
    found = Log(disk.crash(keep_nothing))
    assert (found.engine.begin, found.engine.end) == (2000, 4000)


def test_a_trimmed_position_can_not_be_read(disk: SimulatedDisk) -> None:
    """The error says which position."""
    log = Log(disk)
    for seed in range(4):
        log.append(batch(5, 100, seed))
    log.engine.trim(1000)
    with pytest.raises(TrimmedError, match="before 1000") as caught:
        log.engine.read_many([(1000, 100), (900, 100)])
    assert caught.value.position == 900


def test_the_newest_segment_is_never_trimmed(disk: SimulatedDisk) -> None:
    """It remembers the position, also over a stop at which all before it was trimmed."""
    log = Log(disk)
    for seed in range(4):
        log.append(batch(5, 100, seed))
    log.engine.trim(2000)
    assert log.engine.segments() == [SegmentSpan(1000, 2000, False)]
    log.engine.close()
    log = Log(disk)
    log.engine.trim(2000)
    assert log.engine.end == 2000
    assert log.append(batch(1, 100)) == 2100
    log.engine.trim(2000)
    assert log.engine.segments() == [SegmentSpan(2000, 2100, False)]


def test_the_position_survives_an_empty_segment(disk: SimulatedDisk) -> None:
    """A segment that was begun and got no batch still says where the log is."""
    log = Log(disk)
    log.append(batch(5, 100))
    log.append(batch(5, 100))
    disk.fail_after(disk_operations_of_a_roll(), 28)  # the write behind the roll: no space
    with pytest.raises(StoreError):
        log.append(batch(5, 100))
    assert log.engine.segments() == [SegmentSpan(0, 1000, True), SegmentSpan(1000, 1000, False)]
    log.engine.trim(1000)
    assert log.engine.segments() == [SegmentSpan(1000, 1000, False)]
    found = Log(disk.crash(keep_nothing))
    assert (found.engine.begin, found.engine.end) == (1000, 1000)
    assert found.append(batch(1, 100)) == 1100
    assert found.engine.segments() == [SegmentSpan(1000, 1100, False)]


def disk_operations_of_a_roll() -> int:
    """How many operations an append that rolls does before it writes its batch."""
    disk = SimulatedDisk()
    log = Log(disk)
    log.append(batch(5, 100))
    log.append(batch(5, 100))
    before = len(disk.operations)
    log.append(batch(5, 100))
    operations = disk.operations[before:]
    return len(operations) - 1 - operations[::-1].index("write")


def test_a_trim_waits_for_reads(tmp_path: Path) -> None:
    """A file is not removed while somebody reads it."""
    reading = threading.Event()
    go_on = threading.Event()

    class SlowFiles(SystemFiles):
        """Reads when told to."""

        def read(self, handle: int, offset: int, length: int) -> bytes:
            if length == 77:
                reading.set()
                assert go_on.wait(10)
            return super().read(handle, offset, length)

    log = Log(SlowFiles(), str(tmp_path))
    for seed in range(4):
        log.append(batch(5, 100, seed))
    first = tmp_path / "00000000000000000000.segment"
    with ThreadPoolExecutor(2) as threads:
        read = threads.submit(log.engine.read, 100, 77)
        assert reading.wait(10)
        trimmed = threads.submit(log.engine.trim, 1000)
        while log.engine.begin == 0:
            go_on.wait(0.001)
        assert first.exists()
        with pytest.raises(TrimmedError):
            log.engine.read(100, 50)
        go_on.set()
        assert read.result() == batch(5, 100, 0)[100:177]
        trimmed.result()
    assert not first.exists()
    log.engine.close()


def test_reads_go_on_beside_appends_and_trims(tmp_path: Path) -> None:
    """Whatever is durable and not trimmed can be read from any thread, many files or few."""
    log = Log(SystemFiles(), str(tmp_path), segment_bytes=300)
    data = [batch(2, 100, seed) for seed in range(200)]
    done = threading.Event()

    def read_all() -> int:
        count = 0
        while not done.is_set() or not count:
            begin, end = log.engine.begin, log.engine.end
            spans = [(position + 100, 100) for position in range(begin, end, 200)]
            try:
                found = log.engine.read_many(spans)
            except TrimmedError:
                continue
            for (position, _), octets in zip(spans, found, strict=True):
                assert octets == data[position // 200][100:]
            count += 1
        return count

    with ThreadPoolExecutor(2) as threads:
        readers = [threads.submit(read_all) for _ in range(2)]
        try:
            for number, octets in enumerate(data):
                log.append(octets)
                if number % 50 == 49:
                    log.engine.trim(200 * (number - 20))
        finally:
            done.set()
        assert all(reader.result() for reader in readers)
    log.engine.close()


def test_no_more_files_are_open_than_are_wanted(tmp_path: Path) -> None:
    """A long log does not use up the file handles of the process."""
    log = Log(SystemFiles(), str(tmp_path), segment_bytes=200)
    for seed in range(100):
        log.append(batch(2, 100, seed))
    log.engine.read_many([(position, 100) for position in range(0, 20_000, 200)])
    assert sum(segment.handle is not None for segment in log.engine._segments.all()) < 70
    log.engine.close()


def test_size_is_that_of_records_headers_and_indexes(disk: SimulatedDisk) -> None:
    """Preallocated space and the reserve do not count."""
    log = Log(disk, segment_bytes=1000)
    for seed in range(5):
        log.append(batch(5, 100, seed))
    log.engine.close()
    log = Log(disk)
    files = disk.paths(".segment") + disk.paths(".index")
    assert log.engine.size_bytes == sum(len(disk.contents(path)) for path in files)


# Who may open it.


def test_each_writer_has_a_higher_epoch(disk: SimulatedDisk) -> None:
    """Durably so: not even a crash brings one back."""
    epochs = []
    for _ in range(5):
        log = Log(disk)
        epochs.append(log.epoch)
        disk = disk.crash(keep_nothing)
    assert epochs == [1, 2, 3, 4, 5]


def test_a_second_broker_is_refused(tmp_path: Path) -> None:
    """The sentence names the directory and the process that has it; later it may come."""
    first = Log(SystemFiles(), str(tmp_path))
    with pytest.raises(LockedError, match=rf"{tmp_path} is used .*process {os.getpid()}\)"):
        Log(SystemFiles(), str(tmp_path))
    first.engine.close()
    Log(SystemFiles(), str(tmp_path)).engine.close()


def test_a_newer_format_is_refused(disk: SimulatedDisk) -> None:
    """Nothing is changed, and the sentence tells both versions."""
    log = Log(disk)
    log.append(batch(1, 100))
    log.engine.close()
    log.engine._directory.write_format(7, 3)
    before = {path: bytes(disk.contents(path)) for path in disk.paths() if "lock" not in path}
    with pytest.raises(FormatError, match=r"format 7.*up to 1"):
        Log(disk)
    after = {path: bytes(disk.contents(path)) for path in disk.paths() if "lock" not in path}
    assert after == before


def test_a_refused_directory_is_not_left_locked(disk: SimulatedDisk) -> None:
    """Another version, or a repair, may open it."""
    log = Log(disk)
    log.engine.close()
    log.engine._directory.write_format(7, 3)
    engine = FileLogEngine(DIRECTORY, files=disk)
    for _ in range(2):
        with pytest.raises(FormatError):
            engine.acquire()
    log.engine._directory.write_format(1, 3)
    assert engine.acquire() == 4


def test_an_older_format_is_migrated(disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Step by step, each version written when its step is done."""
    from broker.store import directory

    log = Log(disk)
    log.engine.close()
    steps = []
    monkeypatch.setattr(directory, "FORMAT_VERSION", 3)
    monkeypatch.setitem(directory.MIGRATIONS, 1, lambda place: steps.append(1))
    monkeypatch.setitem(directory.MIGRATIONS, 2, lambda place: steps.append(2))
    assert Log(disk).epoch == 2
    assert steps == [1, 2]
    found = log.engine._directory.read_format()
    assert found is not None
    assert found[0] == 3


class ReadOnlyFiles(SystemFiles):
    """A file system mounted for reading."""

    def open(self, path: str, write: bool, create: bool = False) -> int:
        if write:
            raise OSError(30, "Read-only file system")
        return super().open(path, write, create)


def test_a_read_only_directory_is_refused(tmp_path: Path) -> None:
    """The sentence names the directory and the reason."""
    with pytest.raises(UnwritableError, match=rf"{tmp_path} can't be used.*Read-only file system"):
        Log(ReadOnlyFiles(), str(tmp_path))


def test_a_directory_that_can_not_be_made_is_refused(tmp_path: Path) -> None:
    """A file in its place, for instance."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UnwritableError, match="file/log can't be used for the log"):
        Log(SystemFiles(), str(tmp_path / "file" / "log"))


def test_other_files_are_left_alone(disk: SimulatedDisk) -> None:
    """What the log has not named is not the log's."""
    Log(disk).engine.close()
    for name in ("notes.txt", "1.segment", "segment", "0000000000000000000x.index"):
        disk.put(f"{DIRECTORY}/{name}", b"mine")
    Log(disk).engine.close()
    assert disk.contents(f"{DIRECTORY}/notes.txt") == b"mine"
    assert disk.contents(f"{DIRECTORY}/1.segment") == b"mine"


def test_a_closed_log_refuses(disk: SimulatedDisk) -> None:
    """Closing twice is nothing; reading and writing after it is an error with a sentence."""
    log = Log(disk)
    log.append(batch(1, 100))
    log.engine.close()
    log.engine.close()
    with pytest.raises(StoreError, match="not open"):
        log.append(batch(1, 100))
    with pytest.raises(StoreError, match="not open"):
        log.engine.read(0, 100)
