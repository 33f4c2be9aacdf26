"""The operations of the system's files, and of the disk that tests use, mean the same."""

import errno
import os
from pathlib import Path

import pytest
from store.disk import PowerCut, SimulatedDisk, keep_everything, keep_nothing

from broker.store.files import Files, SystemFiles, is_full


@pytest.fixture(params=["system", "simulated"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Files, str]:
    """Files, and a directory in them."""
    if request.param == "system":
        return SystemFiles(), str(tmp_path)
    disk = SimulatedDisk()
    disk.make_directory("/place")
    return disk, "/place"


def make(files: Files, path: str, data: bytes = b"") -> int:
    """A handle of a new file that holds `data`."""
    handle = files.open(path, write=True, create=True)
    if data:
        files.write(handle, 0, data)
    return handle


def test_what_is_written_is_read(place: tuple[Files, str]) -> None:
    """At any offset, less only at the end of the file."""
    files, directory = place
    handle = make(files, f"{directory}/a", b"0123456789")
    files.write(handle, 4, b"xy")
    assert files.read(handle, 2, 5) == b"23xy6"
    assert files.read(handle, 8, 5) == b"89"
    assert files.read(handle, 20, 5) == b""
    files.sync(handle)
    assert files.size(handle) == 10
    files.close(handle)


def test_a_gap_reads_as_zeros(place: tuple[Files, str]) -> None:
    """A write behind the end makes the file that long."""
    files, directory = place
    handle = make(files, f"{directory}/a")
    files.write(handle, 3, b"x")
    assert files.read(handle, 0, 10) == b"\0\0\0x"
    files.close(handle)


def test_preallocated_space_reads_as_zeros(place: tuple[Files, str]) -> None:
    """It changes the size, keeps what there is, and never makes a file shorter."""
    files, directory = place
    handle = make(files, f"{directory}/a", b"abc")
    assert files.preallocate(handle, 10)
    assert files.read(handle, 0, 20) == b"abc" + bytes(7)
    assert files.preallocate(handle, 5)
    assert files.size(handle) == 10
    files.close(handle)


def test_a_file_is_cut(place: tuple[Files, str]) -> None:
    """What is behind the new size is gone."""
    files, directory = place
    handle = make(files, f"{directory}/a", b"abcdef")
    files.truncate(handle, 2)
    assert files.read(handle, 0, 10) == b"ab"
    files.close(handle)


def test_names_come_and_go(place: tuple[Files, str]) -> None:
    """Created, renamed over another, removed."""
    files, directory = place
    files.close(make(files, f"{directory}/a", b"a"))
    files.close(make(files, f"{directory}/b", b"b"))
    files.close(make(files, f"{directory}/c", b"c"))
    files.rename(f"{directory}/a", f"{directory}/b")
    files.remove(f"{directory}/c")
    files.sync_directory(directory)
    assert files.names(directory) == ["b"]
    handle = files.open(f"{directory}/b", write=False)
    assert files.read(handle, 0, 10) == b"a"
    files.close(handle)


def test_a_removed_file_is_read_through_its_handle(place: tuple[Files, str]) -> None:
    """Removing takes the name; what is open stays readable."""
    files, directory = place
    handle = make(files, f"{directory}/a", b"abc")
    files.remove(f"{directory}/a")
    assert files.read(handle, 0, 3) == b"abc"
    files.close(handle)


def test_what_is_not_there_is_not_opened(place: tuple[Files, str]) -> None:
    """Opening creates only when asked to."""
    files, directory = place
    with pytest.raises(FileNotFoundError):
        files.open(f"{directory}/missing", write=True)
    with pytest.raises(FileNotFoundError):
        files.remove(f"{directory}/missing")


def test_a_directory_is_created_once_with_those_above_it(place: tuple[Files, str]) -> None:
    """It is said whether it was created."""
    files, directory = place
    assert files.make_directory(f"{directory}/x/y")
    assert not files.make_directory(f"{directory}/x/y")
    files.close(make(files, f"{directory}/x/y/z"))
    assert files.names(f"{directory}/x/y") == ["z"]


def test_a_lock_keeps_others_out_until_it_is_closed(place: tuple[Files, str]) -> None:
    """Even another handle of the same process."""
    files, directory = place
    first = make(files, f"{directory}/lock")
    second = files.open(f"{directory}/lock", write=True)
    assert files.lock(first)
    assert not files.lock(second)
    files.close(first)
    assert files.lock(second)
    files.close(second)


def test_a_full_disk_and_a_full_quota_are_told_from_other_errors() -> None:
    """Both mean that room may come back."""
    assert is_full(OSError(errno.ENOSPC, ""))
    assert is_full(OSError(errno.EDQUOT, ""))
    assert not is_full(OSError(errno.EIO, ""))


class Stuttering(SystemFiles):
    """Reads and writes at most three bytes at a time."""

    def _read_some(self, handle: int, offset: int, length: int) -> bytes:
        return super()._read_some(handle, offset, min(length, 3))

    def _write_some(self, handle: int, offset: int, data: bytes | bytearray | memoryview) -> int:
        return super()._write_some(handle, offset, data[:3])


def test_short_reads_and_writes_are_gone_on_with(tmp_path: Path) -> None:
    """A system may do less than asked; the rest follows."""
    files = Stuttering()
    handle = make(files, str(tmp_path / "a"), b"0123456789")
    assert files.read(handle, 1, 8) == b"12345678"
    assert files.read(handle, 5, 80) == b"56789"
    files.close(handle)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
def test_a_full_device_says_so() -> None:
    """The error of a real full disk is recognised."""
    handle = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(OSError) as caught:
        SystemFiles().write(handle, 0, b"x")
    os.close(handle)
    assert is_full(caught.value)


# The simulated disk itself.


def test_unsynced_writes_may_be_lost_and_torn() -> None:
    """A crash keeps what was synced, and of the rest a beginning that is chosen."""
    disk = SimulatedDisk()
    handle = make(disk, "/a", b"synced")
    disk.sync(handle)
    disk.sync_directory("/")
    disk.write(handle, 6, b"-one")
    disk.write(handle, 10, b"-two")
    assert disk.crash(keep_nothing).contents("/a") == b"synced"
    assert disk.crash(keep_everything).contents("/a") == b"synced-one-two"
    choices = iter([1, 2])  # one write whole, two bytes of the next
    assert disk.crash(lambda count: next(choices)).contents("/a") == b"synced-one-t"


def test_a_torn_write_may_be_scattered() -> None:
    """With `scatter` any sectors of the torn write are there, and zeros between them."""
    disk = SimulatedDisk()
    handle = make(disk, "/a")
    disk.sync_directory("/")
    disk.write(handle, 0, b"x" * 1536)
    choices = iter([0, 0, 1, 0])
    found = disk.crash(lambda count: next(choices), scatter=True).contents("/a")
    assert found == bytes(512) + b"x" * 512


def test_unsynced_names_may_be_forgotten() -> None:
    """Created, renamed and removed names are only certain when the directory was synced."""
    disk = SimulatedDisk()
    make(disk, "/kept")
    disk.sync_directory("/")
    disk.remove("/kept")
    make(disk, "/made")
    assert disk.crash(keep_nothing).paths() == ["/kept"]
    assert disk.crash(keep_everything).paths() == ["/made"]
    disk.rename("/made", "/renamed")
    disk.sync_directory("/")
    assert disk.crash(keep_nothing).paths() == ["/renamed"]


def test_a_disk_runs_full_in_the_middle_of_a_write() -> None:
    """What fits is written, then the error; preallocated space is not refused later."""
    disk = SimulatedDisk(capacity_bytes=10)
    handle = make(disk, "/a", b"12345")
    with pytest.raises(OSError):
        disk.preallocate(handle, 11)
    assert disk.preallocate(handle, 10)
    other = make(disk, "/b")
    with pytest.raises(OSError):
        disk.write(other, 0, b"x")
    disk.write(handle, 5, b"67890")
    disk.truncate(handle, 4)
    with pytest.raises(OSError):
        disk.write(other, 0, b"1234567")
    assert disk.contents("/b") == b"123456"


def test_a_process_dies_in_an_operation_and_does_nothing_after() -> None:
    """What was being written may be there, what was being synced is not safe."""
    disk = SimulatedDisk()
    handle = make(disk, "/a")
    disk.sync_directory("/")
    disk.cut_after(1)
    disk.write(handle, 0, b"x")
    with pytest.raises(PowerCut):
        disk.sync(handle)
    with pytest.raises(PowerCut):
        disk.close(handle)
    assert disk.crash(keep_nothing).contents("/a") == b""
    assert disk.crash(keep_everything).contents("/a") == b"x"
