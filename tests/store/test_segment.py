"""Framing of records, walking over them, and telling a torn end from damage."""

import random
from zlib import crc32

import pytest
from store.logs import batch, record

from broker.store.segment import (
    BAD,
    END,
    KINDS,
    PAYLOAD_BYTES_MAX,
    RECORD_HEAD,
    RECORD_HEAD_BYTES,
    SECTOR_BYTES,
    TORN,
    VERSIONS,
    ZEROS,
    Scan,
    frame_record,
    is_torn_tail,
    mark_batch,
    parse_record,
)


def walk(data: bytes) -> tuple[list[tuple[int, int, bytes]], int, int]:
    """The records of `data`, where the walk stopped and why."""
    scan = Scan(data, 0, len(data))
    found = []
    while scan.next():
        found.append((scan.kind, scan.version, data[scan.payload_start : scan.payload_end]))
    return found, scan.offset, scan.stop


def marked(count: int, size: int, seed: int = 0) -> bytes:
    """A batch as the engine writes it."""
    return bytes(mark_batch(batch(count, size, seed)))


def flip(data: bytes, offset: int) -> bytes:
    """`data` with one bit changed."""
    return data[:offset] + bytes([data[offset] ^ 0x10]) + data[offset + 1 :]


def test_a_record_is_framed_as_documented() -> None:
    """Length, crc over kind, version and payload, kind, version, payload."""
    framed = frame_record(7, 2, b"payload")
    assert framed == RECORD_HEAD.pack(7, crc32(b"\x07\x02payload"), 7, 2) + b"payload"


@pytest.mark.parametrize("kind", [1, KINDS - 1])
@pytest.mark.parametrize("version", [0, VERSIONS - 1])
def test_every_kind_and_version_can_be_framed(kind: int, version: int) -> None:
    """The bounds of kinds and versions are themselves allowed."""
    found = parse_record(frame_record(kind, version, b"x"))
    assert found is not None
    assert (found.kind, found.version, found.payload) == (kind, version, b"x")


def test_a_record_is_parsed_where_it_lies() -> None:
    """A record in the midst of others is found by its offset, with its whole length."""
    data = record(30, 1) + record(40, 2) + record(50, 3)
    found = parse_record(data, 30)
    assert found is not None
    assert found.length == 40
    assert found.payload == record(40, 2)[RECORD_HEAD_BYTES:]


def test_the_mark_of_a_batch_is_invisible_to_readers() -> None:
    """The first record of a batch parses as it was framed."""
    found = parse_record(marked(1, 30))
    assert found is not None
    assert (found.length, found.payload) == (30, batch(1, 30)[RECORD_HEAD_BYTES:])


@pytest.mark.parametrize("offset", [0, 3, 4, 8, 9, 10, 29])
def test_a_record_with_a_flipped_bit_is_not_parsed(offset: int) -> None:
    """Length, checksum, kind, version and payload are all covered."""
    assert parse_record(flip(record(30), offset)) is None


@pytest.mark.parametrize("length", [0, 9, 10, 29])
def test_a_record_that_is_not_whole_is_not_parsed(length: int) -> None:
    """Neither half a head nor half a payload is a record."""
    assert parse_record(record(30)[:length]) is None


def test_a_walk_meets_every_record_and_the_end() -> None:
    """Records come in order, the first of a batch is told from the others, and END follows."""
    data = marked(2, 30, 1) + marked(1, 50, 2)
    scan = Scan(data, 0, len(data))
    starts = []
    while scan.next():
        starts.append((scan.offset, scan.starts_batch))
    assert starts == [(0, True), (30, False), (60, True)]
    assert (scan.offset, scan.stop) == (110, END)


def test_a_walk_of_nothing_ends_at_once() -> None:
    """No bytes are no records."""
    assert walk(b"") == ([], 0, END)


@pytest.mark.parametrize("count", [1, 9, 10, 1000])
def test_a_walk_stops_at_zeros(count: int) -> None:
    """Preallocated space is not taken for records, however little of it there is."""
    found, offset, stop = walk(record(30) + bytes(count))
    assert (len(found), offset, stop) == (1, 30, ZEROS)


def test_zeros_within_records_are_no_end() -> None:
    """A payload of zeros, or none, is a record like others."""
    data = frame_record(1, 0, bytes(100)) + frame_record(1, 0, b"")
    found, _, stop = walk(data)
    assert ([payload for _, _, payload in found], stop) == ([bytes(100), b""], END)


@pytest.mark.parametrize("cut", range(1, 30))
def test_a_walk_stops_at_a_record_that_runs_beyond_the_end(cut: int) -> None:
    """It says how far the record would go, as far as its head tells."""
    data = record(20) + record(30)[:cut]
    scan = Scan(data, 0, len(data))
    while scan.next():
        pass
    if not data[20:].strip(b"\0"):
        assert scan.stop == ZEROS
    else:
        assert (scan.offset, scan.stop) == (20, TORN)
        assert scan.wanted == (50 if cut >= RECORD_HEAD_BYTES else 20 + RECORD_HEAD_BYTES)


def test_a_walk_stops_at_a_bad_checksum() -> None:
    """The records before the damage are met, those behind it are not."""
    found, offset, stop = walk(record(30, 1) + flip(record(30, 2), 20) + record(30, 3))
    assert (len(found), offset, stop) == (1, 30, BAD)


def test_an_unchecked_walk_trusts_the_lengths() -> None:
    """Records whose checksums were compared before need not be compared again."""
    data = flip(record(30), 20)
    scan = Scan(data, 0, len(data), checked=False)
    assert scan.next()
    assert not scan.next()
    assert scan.stop == END


def test_a_walk_may_begin_and_end_anywhere() -> None:
    """A part of a buffer is walked without copying it."""
    data = b"xxx" + record(30) + b"yyy"
    scan = Scan(memoryview(data), 3, 33)
    assert scan.next()
    assert (scan.offset, scan.payload_end) == (3, 33)
    assert not scan.next()
    assert scan.stop == END


# Torn or damaged.


@pytest.mark.parametrize("cut", range(1, 90, 7))
def test_the_beginning_of_a_batch_is_a_torn_tail(cut: int) -> None:
    """A batch that ends at any byte, with zeros or nothing behind it, was cut by a crash."""
    whole = marked(3, 30)
    first_torn = cut // 30 * 30
    rest = whole[first_torn:cut]
    assert is_torn_tail(rest, 24)
    assert is_torn_tail(rest + bytes(200), 24)


def test_a_batch_behind_the_damage_proves_that_it_was_durable() -> None:
    """What is followed by a later batch had been synced, so it is damaged and not torn."""
    data = flip(marked(2, 30, 1), 40)[30:] + marked(2, 30, 2)
    assert not is_torn_tail(data, 24)


def test_a_record_behind_a_flipped_bit_tells_damage() -> None:
    """Within one batch, a whole record behind a bad one of which nothing is missing is damage."""
    data = flip(batch(3, 30), 15)
    assert not is_torn_tail(data, 24)


@pytest.mark.parametrize("lost", [0, 1, 2, 5])
def test_sectors_that_were_not_written_are_torn_out_of_a_batch(lost: int) -> None:
    """Before its sync returns, a batch may be on the disk with any sector missing."""
    file_offset = 24 + 300
    whole = bytearray(mark_batch(batch(40, 100)))
    start = max(0, lost * SECTOR_BYTES - file_offset % SECTOR_BYTES)
    end = (lost + 1) * SECTOR_BYTES - file_offset % SECTOR_BYTES
    whole[start:end] = bytes(end - start)
    first_bad = start // 100 * 100
    assert is_torn_tail(bytes(whole[first_bad:]), file_offset + first_bad)


def test_missing_sectors_do_not_excuse_what_a_later_batch_proves() -> None:
    """Zeros in a batch that was synced are damage."""
    whole = bytearray(marked(40, 100, 1) + marked(2, 100, 2))
    whole[488:1000] = bytes(512)
    assert not is_torn_tail(bytes(whole[400:]), 424)


@pytest.mark.parametrize("cut", [50, 60, 70, 110, 140])
def test_records_inside_a_torn_record_prove_nothing(cut: int) -> None:
    """The inside of a record may look like records: those of a transaction do."""
    transaction = mark_batch(frame_record(9, 1, batch(4, 30)))
    assert is_torn_tail(bytes(transaction[:cut]), 24)
    assert is_torn_tail(bytes(transaction[:cut]) + bytes(512), 24)


def test_garbage_is_judged_in_reasonable_time() -> None:
    """Megabytes that hold nothing whole are searched without computing a checksum everywhere."""
    data = random.Random(1).randbytes(1_000_000)
    assert is_torn_tail(b"\x80\x20\x00\x00" + data, 24)


def test_a_damaged_length_does_not_hide_what_follows() -> None:
    """A length that points beyond everything is not believed when batches follow."""
    head = RECORD_HEAD.pack(PAYLOAD_BYTES_MAX // 32, 1, 1, 1)
    assert not is_torn_tail(head + record(30)[10:] + marked(1, 30, 1) + bytes(100), 24)
