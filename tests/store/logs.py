"""What the tests of the log engine share: batches to append, and opening a log again."""

import hashlib
from collections.abc import Callable

from broker.store.engine import FileLogEngine
from broker.store.files import Files
from broker.store.log_engine import Batch
from broker.store.segment import END, RECORD_HEAD_BYTES, Scan, frame_record, unmark_batches

DIRECTORY = "/data/log"


def record(size: int, seed: int = 0) -> bytes:
    """A framed record of `size` bytes in all, which looks like no other seed's."""
    length = size - RECORD_HEAD_BYTES
    payload = hashlib.shake_128(b"%d" % seed).digest(length)
    return frame_record(1 + seed % 9, 1, payload)


def batch(count: int, size: int, seed: int = 0) -> bytes:
    """Records one behind the other."""
    return b"".join(record(size, seed * 1000 + number) for number in range(count))


def index_of(data: bytes) -> bytes:
    """An index that says which bytes it is the index of."""
    return b"index of " + hashlib.sha256(data).digest()[:8]


def quiet(sentence: str) -> None:
    """Nobody is warned."""


class Log:
    """A log that was opened and recovered.

    Arguments:
        files: the disk
        reindex: give recovery's pieces their index, as a good reader does
    """

    def __init__(
        self,
        files: Files,
        directory: str = DIRECTORY,
        segment_bytes: int = 1000,
        reindex: bool = True,
        warn: Callable[[str], None] = quiet,
    ) -> None:
        self.engine = FileLogEngine(directory, segment_bytes=segment_bytes, files=files, warn=warn)
        self.epoch = self.engine.acquire()
        #: what recovery gave
        self.batches: list[Batch] = []
        for found in self.engine.batches():
            self.batches.append(found)
            if reindex and found.data is not None:
                found.index = index_of(found.data)

    def append(self, data: bytes, reserve: bool = False) -> int:
        """Append a batch with the index of its bytes."""
        return self.engine.append(data, index_of(data), reserve)

    def contents(self) -> bytes:
        """All bytes that are kept, with the marks of batches taken off."""
        spans = [(span.base, span.size) for span in self.engine.segments() if span.size]
        return unmarked(b"".join(self.engine.read_many(spans)))


def unmarked(data: bytes) -> bytes:
    """Records as they were framed."""
    scan = Scan(data, 0, len(data))
    starts = []
    while scan.next():
        if scan.starts_batch:
            starts.append(scan.offset)
    assert scan.stop == END, "these are whole records"
    return unmark_batches(data, starts)


class History:
    """What a log must hold: a thing too simple to be wrong.

    Attributes:
        data: all that was acknowledged, from position 0 on
        attempts: batches that were given to the log since and not acknowledged
        trimmed: everything from here on must be kept
    """

    def __init__(self) -> None:
        self.data = b""
        self.attempts: list[bytes] = []
        self.trimmed = 0

    def append(self, log: Log, data: bytes, reserve: bool = False) -> None:
        """Append a batch, whatever comes of it."""
        self.attempts.append(data)
        end = log.append(data, reserve)
        self.data += data
        self.attempts = []
        assert end == log.engine.end == len(self.data)

    def trim(self, log: Log, before: int) -> None:
        """Trim the log, whatever comes of it."""
        self.trimmed = max(self.trimmed, before)
        log.engine.trim(before)

    def check(self, log: Log) -> None:
        """What survived begins early enough, ends late enough, and is what was appended."""
        begin, end = log.engine.begin, log.engine.end
        assert begin <= self.trimmed, "something was lost at the beginning"
        assert end >= len(self.data), "something acknowledged was lost"
        contents = log.contents()
        assert len(contents) == end - begin
        possible = [self.data + attempt for attempt in [b"", *self.attempts]]
        survived = [whole for whole in possible if whole[begin:end] == contents]
        assert survived, "something is not as it was appended"
        whole = survived[0][:end]
        position = begin
        for found in log.batches:
            assert found.position == position, "recovery leaves nothing out"
            position = found.end
            assert found.data in (None, whole[found.position : found.end])
            assert found.index in (None, index_of(whole[found.position : found.end]))
            assert found.index is not None or found.data is not None
        assert position == end
        self.data = whole
        self.attempts = []
