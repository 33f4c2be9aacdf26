"""Checking a damaged log, saying what would be lost, and going on without it."""

import errno
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store.disk import PowerCut, SimulatedDisk, keep_everything, keep_nothing
from store.logs import DIRECTORY, Log, batch

from broker.store.errors import FormatError, LockedError, StoreError, UnwritableError
from broker.store.files import SystemFiles
from broker.store.repair import Problem, check, repair
from broker.store.segment import HEADER_BYTES, KIND_HOLE, Scan, frame_record

#: what the log of these tests holds
DATA = b"".join(batch(4, 100, seed) for seed in range(6))
FIRST = f"{DIRECTORY}/00000000000000000000"
MIDDLE = f"{DIRECTORY}/00000000000000000800"
LAST = f"{DIRECTORY}/00000000000000001600"


def make(stop: bool) -> SimulatedDisk:
    """A disk with a log of three segments, stopped or crashed."""
    log = Log(disk := SimulatedDisk())
    for seed in range(6):
        log.append(batch(4, 100, seed))
    if stop:
        log.engine.close()
    return disk.crash(keep_nothing)


@pytest.fixture
def disk() -> SimulatedDisk:
    """Two sealed segments, and one with two batches that is not."""
    return make(stop=False)


def flip(disk: SimulatedDisk, path: str, offset: int) -> None:
    """Change one bit of a file."""
    disk.contents(path)[offset] ^= 0x04


def mend(disk: SimulatedDisk, told: Sequence[Problem] = ()) -> tuple[list[Problem], Log]:
    """Repair a log, see that nothing is left to repair, and open it.

    Arguments:
        told: problems that were found before
    """
    disk.settle()
    problems = check(DIRECTORY, files=disk)
    repair(DIRECTORY, problems, files=disk)
    left = check(DIRECTORY, files=disk)
    assert [problem for problem in left if problem.remedy] == []
    log = Log(disk.crash(keep_nothing), reindex=False)
    expect_all_but(log, [*told, *problems])
    return problems, log


def expect_all_but(log: Log, problems: list[Problem]) -> None:
    """Everything up to the end is as it was appended but for what the problems called lost."""
    contents = log.contents()
    scan = Scan(contents, 0, len(contents))
    while scan.next():
        start, end = scan.offset, scan.payload_end
        if scan.kind != KIND_HOLE:
            assert contents[start:end] == DATA[start:end]
    lost = bytearray(len(DATA))
    for problem in problems:
        if problem.lost_bytes:
            assert problem.start is not None
            assert problem.end is not None
            lost[problem.start : problem.end] = b"x" * (problem.end - problem.start)
    for position in range(0, log.engine.end, 100):
        if not lost[position : position + 100].strip(b"\0"):
            record = DATA[position : position + 100]
            assert contents[position : position + 100] == record


def kinds(problems: list[Problem]) -> list[str]:
    """What the problems are about."""
    return [problem.kind for problem in problems]


@pytest.mark.parametrize("stop", [True, False])
def test_a_sound_log_has_no_problems(stop: bool) -> None:
    """Stopped or crashed."""
    assert check(DIRECTORY, files=make(stop)) == []


def test_a_torn_end_is_no_matter_for_repair(disk: SimulatedDisk) -> None:
    """It is told with what it costs, and the next start cuts it off."""
    disk.contents(f"{LAST}.segment")[HEADER_BYTES + 750 :] = bytes(300)
    problems, log = mend(disk)
    assert kinds(problems) == ["torn"]
    assert (problems[0].start, problems[0].remedy, problems[0].stops_start) == (2300, "", False)
    assert log.engine.end == 2300


def test_a_damaged_record_is_covered_by_a_hole(disk: SimulatedDisk) -> None:
    """Only the record is lost; the sentences tell which bytes, before they are."""
    flip(disk, f"{LAST}.segment", HEADER_BYTES + 150)
    problems, log = mend(disk)
    (problem,) = problems
    assert problem.text == (
        f"{LAST}.segment is damaged from position 1700 to position 1800 "
        "(from byte 124 of the file on)."
    )
    assert problem.remedy == "A hole takes the place of what is damaged."
    assert problem.loss == "100 bytes are lost, positions 1700 to 1800."
    assert problem.stops_start
    assert log.engine.end == len(DATA)


def test_a_damaged_length_costs_the_rest_of_its_batch(disk: SimulatedDisk) -> None:
    """What follows within the batch could be the inside of the damaged record."""
    flip(disk, f"{LAST}.segment", HEADER_BYTES + 102)
    problems, _ = mend(disk)
    assert [(problem.start, problem.end) for problem in problems] == [(1700, 2000)]


def test_damage_in_a_sealed_segment_does_not_stop_the_start(disk: SimulatedDisk) -> None:
    """It is found all the same, and repair makes recovery read around it."""
    flip(disk, f"{FIRST}.segment", HEADER_BYTES + 250)
    problems, log = mend(disk)
    assert [(p.kind, p.start, p.end, p.stops_start) for p in problems] == [
        ("records", 200, 300, False)
    ]
    assert log.batches[0].data is not None


def test_a_damaged_end_is_cut_off(disk: SimulatedDisk) -> None:
    """Behind the damage in the last batch there is nothing that can be trusted."""
    flip(disk, f"{LAST}.segment", HEADER_BYTES + 502)
    problems, log = mend(disk)
    assert kinds(problems) == ["ending"]
    assert log.engine.end == 2100


@pytest.mark.parametrize("stop", [True, False])
def test_a_damaged_index_is_removed(stop: bool) -> None:
    """Nothing is lost by that."""
    flip(disk := make(stop), f"{FIRST}.index", 70)
    problems, log = mend(disk)
    assert [(p.kind, p.loss) for p in problems] == [("index", "Nothing is lost.")]
    assert log.contents() == DATA


def test_an_index_of_another_segment_is_removed(disk: SimulatedDisk) -> None:
    """Its checksums hold, but it does not fit."""
    disk.put(f"{FIRST}.index", bytes(disk.contents(f"{MIDDLE}.index")))
    problems, _ = mend(disk)
    assert kinds(problems) == ["index"]


def test_a_damaged_header_is_written_anew(disk: SimulatedDisk) -> None:
    """All that it says is known."""
    flip(disk, f"{MIDDLE}.segment", 3)
    problems, log = mend(disk)
    assert [(p.kind, p.loss) for p in problems] == [("header", "Nothing is lost.")]
    assert log.contents() == DATA


@pytest.mark.parametrize("with_index", [True, False])
def test_a_missing_segment_becomes_a_hole(disk: SimulatedDisk, with_index: bool) -> None:
    """What was in it is lost, what is behind it keeps its positions."""
    disk.remove(f"{MIDDLE}.segment")
    if not with_index:
        disk.remove(f"{MIDDLE}.index")
    problems, log = mend(disk)
    assert [(p.kind, p.start, p.end) for p in problems] == [("missing", 800, 1600)]
    assert log.engine.end == len(DATA)


def test_a_missing_last_segment_becomes_a_hole() -> None:
    """Its index knows how long it was."""
    disk = make(stop=True)
    disk.remove(f"{LAST}.segment")
    problems, log = mend(disk)
    assert [(p.kind, p.start, p.end) for p in problems] == [("missing", 1600, 2400)]
    assert log.engine.end == 2400


@pytest.mark.parametrize("with_index", [True, False])
def test_a_short_segment_is_filled_up_with_a_hole(disk: SimulatedDisk, with_index: bool) -> None:
    """The records that are there stay."""
    del disk.contents(f"{FIRST}.segment")[HEADER_BYTES + 450 :]
    if not with_index:
        disk.remove(f"{FIRST}.index")
    problems, _ = mend(disk)
    assert [(p.start, p.end, p.stops_start) for p in problems] == [(400, 800, True)]


def test_holes_are_read_in_portions(tmp_path: Path) -> None:
    """A missing file of many megabytes does not have to fit into memory."""
    log = Log(SystemFiles(), str(tmp_path), segment_bytes=3 << 20)
    for _ in range(5):
        log.append(frame_record(1, 1, bytes((2 << 20) + 5)))
    log.engine.close()
    segments = sorted(tmp_path.glob("*.segment"))
    segments[2].unlink()
    repair(tmp_path, check(tmp_path))
    assert check(tmp_path) == []
    log = Log(SystemFiles(), str(tmp_path), segment_bytes=3 << 20, reindex=False)
    holes = [found.data for found in log.batches if found.data is not None]
    data = b"".join(holes)
    scan = Scan(data, 0, len(data))
    sizes = []
    while scan.next():
        sizes.append(scan.payload_end - scan.offset)
    assert sum(sizes) == (2 << 20) + 15
    assert max(sizes) <= 1 << 20
    assert segments[2].stat().st_blocks * 512 < 1 << 20
    log.engine.close()


@pytest.mark.parametrize("damage", ["both slots", "missing"])
def test_the_format_is_written_anew(disk: SimulatedDisk, damage: str) -> None:
    """No epoch is given twice."""
    if damage == "missing":
        disk.remove(f"{DIRECTORY}/format")
    else:
        flip(disk, f"{DIRECTORY}/format", 1)
        flip(disk, f"{DIRECTORY}/format", 4097)
    problems, log = mend(disk)
    assert kinds(problems) == ["format"]
    assert log.contents() == DATA
    assert log.epoch > 1_000_000


def test_what_the_disk_can_not_read_is_not_repaired(disk: SimulatedDisk) -> None:
    """It is told; the operator copies the disk."""
    check(DIRECTORY, files=disk)
    last_read = len(disk.operations) - 1 - disk.operations[::-1].index("read")
    disk.faults[len(disk.operations) + last_read] = errno.EIO
    (problem,) = check(DIRECTORY, files=disk)
    assert problem.kind == "unreadable"
    assert problem.text == f"{LAST}.segment can't be read: Input/output error."
    assert problem.remedy == ""


def test_a_log_in_use_is_neither_checked_nor_repaired(disk: SimulatedDisk) -> None:
    """A broker that runs would not like it."""
    Log(disk)
    with pytest.raises(LockedError):
        check(DIRECTORY, files=disk)
    with pytest.raises(LockedError):
        repair(DIRECTORY, [], files=disk)


def test_where_there_is_no_log_nothing_is_checked(tmp_path: Path) -> None:
    """A mistyped directory is not called sound, nor is one made."""
    with pytest.raises(StoreError, match="There is no log in"):
        check(tmp_path)
    with pytest.raises(UnwritableError, match="No such file"):
        check(tmp_path / "missing")
    assert list(tmp_path.iterdir()) == []


def test_a_newer_format_is_not_repaired(disk: SimulatedDisk) -> None:
    """What isn't understood isn't touched."""
    log = Log(disk)
    log.engine._directory.write_format(9, 1)
    log.engine.close()
    with pytest.raises(FormatError):
        check(DIRECTORY, files=disk)


def test_only_what_was_told_is_repaired(disk: SimulatedDisk) -> None:
    """When the log changed since it was checked, nothing is done."""
    problems = check(DIRECTORY, files=disk)
    flip(disk, f"{LAST}.segment", HEADER_BYTES + 150)
    before = bytes(disk.contents(f"{LAST}.segment"))
    with pytest.raises(StoreError, match="Nothing was changed"):
        repair(DIRECTORY, problems, files=disk)
    assert disk.contents(f"{LAST}.segment") == before


def test_an_interrupted_repair_is_begun_again(disk: SimulatedDisk) -> None:
    """Whatever of it survived a power cut, checking and repairing again leads to the same end."""
    flip(disk, f"{FIRST}.segment", HEADER_BYTES + 250)
    flip(disk, f"{LAST}.segment", HEADER_BYTES + 150)
    disk.remove(f"{MIDDLE}.segment")
    disk.settle()
    for number in range(200):
        damaged = disk.crash(keep_nothing)
        problems = check(DIRECTORY, files=damaged)
        damaged.cut_after(number)
        try:
            repair(DIRECTORY, problems, files=damaged)
        except PowerCut:
            mend(damaged.crash(keep_nothing), problems)
            mend(damaged.crash(keep_everything), problems)
        else:
            return
    pytest.fail("a repair takes less operations")


damages = st.lists(
    st.tuples(
        st.sampled_from(["flip", "flip", "flip", "zero", "cut", "remove"]),
        st.sampled_from([FIRST, MIDDLE, LAST]),
        st.sampled_from([".segment", ".segment", ".index"]),
        st.integers(0, 1000),
        st.integers(1, 300),
    ),
    max_size=5,
)


@given(stop=st.booleans(), damages=damages)
@settings(max_examples=200, deadline=None)
def test_whatever_is_damaged_can_be_repaired(
    stop: bool, damages: list[tuple[str, str, str, int, int]]
) -> None:
    """Then the log opens, and all is there that was not called lost."""
    disk = make(stop)
    for what, file, suffix, offset, length in damages:
        path = file + suffix
        if path not in disk.paths():
            continue
        contents = disk.contents(path)
        if what == "remove":
            disk.remove(path)
        elif what == "cut":
            del contents[offset:]
        elif what == "zero":
            contents[offset : offset + length] = bytes(len(contents[offset : offset + length]))
        elif offset < len(contents):
            contents[offset] ^= 1 << length % 8
    if not any(path.endswith(".segment") for path in disk.paths()):
        return
    if FIRST + ".segment" not in disk.paths():
        return
    if LAST + ".segment" not in disk.paths() and LAST + ".index" not in disk.paths():
        return
    mend(disk)
