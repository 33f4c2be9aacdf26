"""Index files: whatever was put in comes out, however large it is."""

import random
from zlib import crc32

import pytest
from store.disk import SimulatedDisk

from broker.store.index_file import IndexBuilder, IndexDamage, IndexReader

PATH = "/index"


def write(entries: list[tuple[int, bytes]], base: int = 1000) -> SimulatedDisk:
    """A disk with an index file."""
    builder = IndexBuilder(base)
    for end, index in entries:
        builder.add(end, index)
    disk = SimulatedDisk()
    disk.put(PATH, b"".join(builder.pieces()))
    return disk


def read(disk: SimulatedDisk, base: int = 1000) -> list[tuple[int, int, bytes]]:
    """What an index file says."""
    return list(IndexReader(disk, disk.open(PATH, write=False), base))


@pytest.mark.parametrize(
    "sizes",
    [
        [],
        [0],
        [0, 10, 0],
        [100] * 20_000,
        [3_000_000],
        [10, 3_000_000, 10, 1_048_576, 0, 1_048_560, 5],
    ],
)
def test_entries_come_out_as_they_went_in(sizes: list[int]) -> None:
    """None, empty ones, many, large ones, whatever the pieces in which the file is read."""
    chance = random.Random(1)
    entries = [(1000 + 50 * number, chance.randbytes(size)) for number, size in enumerate(sizes, 1)]
    assert read(write(entries)) == [(end - 50, end, index) for end, index in entries]


def test_a_large_index_is_read_in_pieces() -> None:
    """Its size does not decide how much memory a start takes."""
    disk = write([(2000 + number, bytes(1000)) for number in range(5000)])
    longest = 0

    class Watching(SimulatedDisk):
        def read(self, handle: int, offset: int, length: int) -> bytes:
            nonlocal longest
            longest = max(longest, length)
            return super().read(handle, offset, length)

    watching = Watching()
    watching.put(PATH, bytes(disk.contents(PATH)))
    assert len(read(watching)) == 5000
    assert 0 < longest <= 1024 * 1024


@pytest.mark.parametrize("offset", range(89))
def test_any_flipped_bit_is_noticed(offset: int) -> None:
    """In the header, in the fields of an entry, in its bytes."""
    disk = write([(1050, b"index of a batch"), (1100, b"index")])
    disk.contents(PATH)[offset] ^= 0x80
    with pytest.raises(IndexDamage):
        read(disk)


@pytest.mark.parametrize("size", range(89))
def test_any_cut_is_noticed(size: int) -> None:
    """Wherever the file ends too early."""
    disk = write([(1050, b"index of a batch"), (1100, b"index")])
    del disk.contents(PATH)[size:]
    with pytest.raises(IndexDamage):
        read(disk)


def test_damage_tells_which_batch_it_hides() -> None:
    """The position where the first unreadable entry's batch begins."""
    disk = write([(1050, b"one"), (1100, b"two"), (1150, b"three")])
    disk.contents(PATH)[36 + 16 + 3 + 17] ^= 1
    with pytest.raises(IndexDamage, match="damaged entry") as caught:
        read(disk)
    assert caught.value.position == 1050


def test_an_index_belongs_to_its_segment() -> None:
    """By its name it is that of another one."""
    with pytest.raises(IndexDamage, match="begins at position 1000"):
        read(write([(1050, b"one")]), base=2000)


def test_an_index_of_another_version_is_not_read() -> None:
    """Even if its checksum holds."""
    disk = write([(1050, b"one")])
    header = bytearray(disk.contents(PATH)[:32])
    header[11] = 9
    crc = crc32(header).to_bytes(4, "big")
    disk.contents(PATH)[:36] = bytes(header) + crc
    with pytest.raises(IndexDamage, match="version 9"):
        read(disk)
