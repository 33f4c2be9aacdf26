"""How records lie in a segment: framing, checksums, and walking over them.

A segment file is a fixed header and then records, one against the other:

    length u32 | crc u32 | kind u8 | version u8 | payload

`length` counts the payload; `crc` is that of zlib over kind, version and payload. All numbers are
big-endian. Nothing stands between records. What follows the last one is the end of the file or
zeros, because files are preallocated: no record begins with ten zero bytes, as the checksum of an
empty record of kind 0 and version 0 is not zero.

The topmost bit of `length` marks the first record of a *batch*, the run of records that was written
and synced at once. The engine sets it while writing, and what parses records here passes over it.
(A record that was read is framed anew before it is appended again: the mark must not move with it.)
It answers one question after a crash: is a damaged record the torn end of a batch that nobody was
told about, or has something that was durable gone bad? A batch is written only after the batch
before it was synced, so a batch that begins behind the damage proves the second. A whole record
*of the same batch* behind it proves nothing: until the sync returns, a disk may write the pages of
a batch in any order. What it has not written reads as zeros, though, up to the border of a sector,
and that is how such a gap is told from a flipped bit (`is_torn_tail`).

Kind 0 is a hole: repair puts it over what it gave up. It says nothing and is skipped.
"""

import re
from struct import Struct
from typing import Final
from zlib import crc32

#: length of the payload (with `BATCH_START`), crc, kind, version
RECORD_HEAD: Final = Struct(">IIBB")
RECORD_HEAD_BYTES: Final = 10
#: the bit of `length` that marks the first record of a batch
BATCH_START: Final = 0x8000_0000
PAYLOAD_BYTES_MAX: Final = 0x7FFF_FFFF

#: records of this kind say nothing
KIND_HOLE: Final = 0
#: kinds are below this
KINDS: Final = 128
#: record versions are below this
VERSIONS: Final = 32

#: file type, format version, base position, crc of what stands before
SEGMENT_HEADER: Final = Struct(">8sIQI")
SEGMENT_MAGIC: Final = b"LVRTsegm"
SEGMENT_VERSION: Final = 1
#: bytes of a segment file before its first record
HEADER_BYTES: Final = 24

#: what a disk writes whole or not at all
SECTOR_BYTES: Final = 512

#: why a walk over records stopped
GOING: Final = 0
END: Final = 1
ZEROS: Final = 2
TORN: Final = 3
BAD: Final = 4

#: where a record could begin: a length below 128 MiB, any crc, a kind that is not a hole, a version
_CANDIDATE: Final = re.compile(rb"(?=[\x00-\x07\x80-\x87].{7}[\x01-\x7f][\x00-\x1f])", re.DOTALL)

_CRC_SEEDS: Final = [
    crc32(bytes((kind, version))) for kind in range(KINDS) for version in range(VERSIONS)
]


def frame_record(kind: int, version: int, payload: bytes) -> bytes:
    """`payload` as a record.

    Arguments:
        kind: 1 to 127 (0 is a hole)
        version: 0 to 31
        payload: less than 2 GiB
    """
    seed = _CRC_SEEDS[kind * VERSIONS + version]
    return RECORD_HEAD.pack(len(payload), crc32(payload, seed), kind, version) + payload


class FoundRecord:
    """A record as it lies in the log.

    Attributes:
        length: bytes of the whole record, with its head
    """

    __slots__ = ("kind", "length", "payload", "version")

    def __init__(self, kind: int, version: int, payload: bytes, length: int) -> None:
        self.kind = kind
        self.version = version
        self.payload = payload
        self.length = length


def parse_record(data: bytes, start: int = 0) -> FoundRecord | None:
    """The record at `start`; None when it is not whole or its checksum does not hold."""
    body = start + RECORD_HEAD_BYTES
    if body > len(data):
        return None
    length, crc, kind, version = RECORD_HEAD.unpack_from(data, start)
    record_end = body + (length & PAYLOAD_BYTES_MAX)
    if record_end > len(data) or crc32(memoryview(data)[start + 8 : record_end]) != crc:
        return None
    return FoundRecord(kind, version, data[body:record_end], record_end - start)


class Scan:
    """A walk over the records of `data`, from `start` to `end`.

        scan = Scan(data, 0, len(data))
        while scan.next():
            ... scan.kind, scan.version, data[scan.payload_start : scan.payload_end]

    After `next` said no, `stop` tells why and `offset` where:

    - END: `data` ends behind a whole record;
    - ZEROS: zeros begin where a record would: nothing was written here;
    - TORN: the record runs beyond `end`, up to `wanted` (behind its head while that is not whole);
      it may only mean that `data` is a piece of something longer;
    - BAD: the checksum of the record does not hold.

    Arguments:
        checked: compare checksums; False trusts them, for records that were just checked
    """

    __slots__ = (
        "_view",
        "checked",
        "end",
        "kind",
        "offset",
        "payload_end",
        "payload_start",
        "starts_batch",
        "stop",
        "version",
        "wanted",
    )

    def __init__(
        self, data: bytes | memoryview, start: int, end: int, checked: bool = True
    ) -> None:
        self._view = memoryview(data)
        self.checked = checked
        self.end = end
        #: where the record begins; once stopped, where it would
        self.offset = start
        self.kind = 0
        self.version = 0
        self.payload_start = start
        #: where the payload and the record end
        self.payload_end = start
        #: the record is the first of its batch
        self.starts_batch = False
        self.stop = GOING
        self.wanted = 0

    def next(self) -> bool:
        """Step to the next record; False when there is none."""
        start = self.payload_end
        self.offset = start
        body = start + RECORD_HEAD_BYTES
        if body > self.end:
            return self._stop_at_rest(start)
        length, crc, kind, version = RECORD_HEAD.unpack_from(self._view, start)
        starts_batch = length >= BATCH_START
        if starts_batch:
            length -= BATCH_START
        record_end = body + length
        if length == 0 and crc == 0 and kind == 0 and version == 0:
            self.stop = ZEROS
            return False
        if record_end > self.end:
            self.stop = TORN
            self.wanted = record_end
            return False
        if self.checked and crc32(self._view[start + 8 : record_end]) != crc:
            self.stop = BAD
            return False
        self.starts_batch = starts_batch
        self.kind = kind
        self.version = version
        self.payload_start = body
        self.payload_end = record_end
        return True

    def _stop_at_rest(self, start: int) -> bool:
        """Fewer bytes than a head are left: nothing, zeros, or the beginning of a record."""
        rest = bytes(self._view[start : self.end])
        if not rest:
            self.stop = END
        elif rest.count(0) == len(rest):
            self.stop = ZEROS
        else:
            self.stop = TORN
            self.wanted = start + RECORD_HEAD_BYTES
        return False


def segment_header(base: int) -> bytes:
    """What a segment file that holds the log from position `base` on begins with."""
    head = SEGMENT_HEADER.pack(SEGMENT_MAGIC, SEGMENT_VERSION, base, 0)[:-4]
    return head + crc32(head).to_bytes(4, "big")


def mark_batch(data: bytes) -> bytearray:
    """A copy of the records of a batch with the first one marked."""
    marked = bytearray(data)
    marked[0] |= 0x80
    return marked


def unmark_batches(data: bytes, starts: list[int]) -> bytes:
    """Records as they were framed: without the marks at `starts`."""
    if not starts:
        return data
    unmarked = bytearray(data)
    for start in starts:
        unmarked[start] &= 0x7F
    return bytes(unmarked)


def is_torn_tail(data: bytes, file_offset: int) -> bool:
    """Whether a log that can't be read on just ends here; False when something durable is damaged.

    Arguments:
        data: the unsealed end of the log, from the record that is not whole on
        file_offset: where `data` begins in its file, which says where sectors begin
    """
    filled = len(data.rstrip(b"\0"))
    first = -1
    start = RECORD_HEAD_BYTES
    while True:
        start = _find_whole(data, start)
        if start < 0:
            break
        if first < 0:
            first = start
        scan = Scan(data, start, len(data))
        while scan.next():
            if scan.starts_batch:
                return False
        start = scan.offset + RECORD_HEAD_BYTES
    if first < 0:
        return True
    # What follows is of the same batch, or the inside of this record: records may hold records.
    claimed = _claimed_end(data)
    if first == RECORD_HEAD_BYTES and claimed >= filled:
        return True
    return _has_unwritten_sector(data, file_offset, min(max(first, claimed), filled))


def find_batch(data: bytes, start: int) -> int:
    """Where the next batch with a whole first record begins, from `start` on; -1 for nowhere."""
    while True:
        start = _find_whole(data, start)
        if start < 0 or data[start] >= 0x80:
            return start
        start += RECORD_HEAD_BYTES


def _find_whole(data: bytes, start: int) -> int:
    """Where the next whole record begins; -1 when there is none."""
    view = memoryview(data)
    while True:
        match = _CANDIDATE.search(data, start)
        if match is None:
            return -1
        start = match.start()
        length, crc, _, _ = RECORD_HEAD.unpack_from(data, start)
        record_end = start + RECORD_HEAD_BYTES + (length & PAYLOAD_BYTES_MAX)
        # The cheap test first: what looks like a record by chance is rarely followed by another.
        if (
            record_end <= len(data)
            and _may_follow(data, record_end)
            and crc32(view[start + 8 : record_end]) == crc
        ):
            return start
        start += 1


def _may_follow(data: bytes, start: int) -> bool:
    """Whether a record, zeros or the end may be at `start`."""
    if start + RECORD_HEAD_BYTES > len(data):
        return True
    head = data[start : start + RECORD_HEAD_BYTES]
    return _CANDIDATE.match(data, start) is not None or not head.strip(b"\0")


def _claimed_end(data: bytes) -> int:
    """Where the record at the beginning of `data` says that it ends; 0 when it says nothing."""
    if _CANDIDATE.match(data) is None:
        return 0
    length, _, _, _ = RECORD_HEAD.unpack_from(data, 0)
    return int(length & PAYLOAD_BYTES_MAX) + RECORD_HEAD_BYTES


def _has_unwritten_sector(data: bytes, file_offset: int, end: int) -> bool:
    """Whether a sector that overlaps with `data` before `end` reads as zeros."""
    start = 0
    border = SECTOR_BYTES - file_offset % SECTOR_BYTES
    while start < end:
        if not data[start:border].strip(b"\0"):
            return True
        start = border
        border += SECTOR_BYTES
    return False
