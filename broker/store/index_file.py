"""The index of a sealed segment: what recovery wants to know of each batch, without the batches.

    header: magic 8 bytes | version u32 | base u64 | end u64 | entries u32 | crc u32
    entry:  end u64 | length u32 | crc u32 | length bytes

One entry for each batch, in order; a batch begins where the one before it ends, the first at
`base`. What the bytes of an entry mean is not known here. The crc of the header covers what stands
before it, that of an entry its end, its length and its bytes.

An index is a cache of its segment. It is written under another name and renamed when it is whole
and synced, so a file of this name is complete or it was damaged later.
"""

from collections.abc import Iterator
from struct import Struct
from typing import Final
from zlib import crc32

from broker.store.files import Files

INDEX_MAGIC: Final = b"LVRTindx"
INDEX_VERSION: Final = 1

_HEADER: Final = Struct(">8sIQQI")
_CRC: Final = Struct(">I")
_ENTRY: Final = Struct(">QII")
_ENTRY_FIELDS: Final = Struct(">QI")
INDEX_HEADER_BYTES: Final = _HEADER.size + _CRC.size
#: how much of an index is read at once
_PIECE_BYTES: Final = 1024 * 1024


class IndexDamage(Exception):
    """An index does not hold what was written.

    Attributes:
        position: where in the log the first batch begins whose entry can't be read
    """

    def __init__(self, text: str, position: int) -> None:
        super().__init__(text)
        self.position = position


class IndexBuilder:
    """Gathers the entries of a segment while it is written.

    Arguments:
        base: the first position of the segment
    """

    __slots__ = ("_base", "_body", "_end", "_entries")

    def __init__(self, base: int) -> None:
        self._base = base
        self._end = base
        self._entries = 0
        self._body = bytearray()

    def add(self, end: int, index: bytes) -> None:
        """A batch that ends at `end` was appended."""
        crc = crc32(index, crc32(_ENTRY_FIELDS.pack(end, len(index))))
        self._body += _ENTRY.pack(end, len(index), crc)
        self._body += index
        self._end = end
        self._entries += 1

    def pieces(self) -> tuple[bytes, bytearray]:
        """The whole file, in two pieces so that nothing large is copied."""
        header = _HEADER.pack(INDEX_MAGIC, INDEX_VERSION, self._base, self._end, self._entries)
        return header + _CRC.pack(crc32(header)), self._body


class IndexReader:
    """An index file, read piece by piece: that of a large segment is large itself.

    Arguments:
        files, handle: the file, which stays open while it is read
        base: the base of the segment by the name of the file

    Raises IndexDamage when the header is not that of this segment or does not hold.
    """

    __slots__ = ("_entries", "_files", "_handle", "base", "end")

    def __init__(self, files: Files, handle: int, base: int) -> None:
        header = files.read(handle, 0, INDEX_HEADER_BYTES)
        if len(header) < INDEX_HEADER_BYTES:
            raise IndexDamage("is shorter than its header", base)
        magic, version, header_base, end, entries = _HEADER.unpack_from(header)
        (crc,) = _CRC.unpack_from(header, _HEADER.size)
        if magic != INDEX_MAGIC or crc != crc32(header[: _HEADER.size]):
            raise IndexDamage("has a damaged header", base)
        if version != INDEX_VERSION:
            raise IndexDamage(f"has version {version}, which is not known", base)
        if header_base != base:
            raise IndexDamage(f"says that it begins at position {header_base}", base)
        self._files = files
        self._handle = handle
        self._entries: int = entries
        self.base = base
        #: where the segment ends
        self.end: int = end

    def __iter__(self) -> Iterator[tuple[int, int, bytes]]:
        """`(position, end, index)` of each batch. Raises IndexDamage where an entry is damaged."""
        position = self.base
        offset = INDEX_HEADER_BYTES
        data = b""
        start = 0
        for _ in range(self._entries):
            body = start + _ENTRY.size
            if body > len(data):
                data = self._read_on(data[start:], offset + start, _ENTRY.size)
                offset += start
                start, body = 0, _ENTRY.size
                if body > len(data):
                    raise IndexDamage("ends early", position)
            end, length, crc = _ENTRY.unpack_from(data, start)
            if body + length > len(data):
                data = self._read_on(data[start:], offset + start, _ENTRY.size + length)
                offset += start
                start, body = 0, _ENTRY.size
            index = data[body : body + length]
            if crc != crc32(index, crc32(_ENTRY_FIELDS.pack(end, length))) or end < position:
                raise IndexDamage("has a damaged entry", position)
            yield position, end, index
            position = end
            start = body + length
        if position != self.end or self._files.size(self._handle) != offset + start:
            raise IndexDamage("has not the entries that its header promises", position)

    def _read_on(self, data: bytes, offset: int, wanted: int) -> bytes:
        """`data`, which lies at `offset`, and what follows it, up to `wanted` bytes or more."""
        # A damaged length may want more than there is.
        left = self._files.size(self._handle) - offset - len(data)
        length = min(max(wanted - len(data), _PIECE_BYTES), left)
        return data + self._files.read(self._handle, offset + len(data), length)
