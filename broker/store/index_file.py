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

INDEX_MAGIC: Final = b"LVRTindx"
INDEX_VERSION: Final = 1

_HEADER: Final = Struct(">8sIQQI")
_CRC: Final = Struct(">I")
_ENTRY: Final = Struct(">QII")
_ENTRY_FIELDS: Final = Struct(">QI")
INDEX_HEADER_BYTES: Final = _HEADER.size + _CRC.size


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

    def encode(self) -> bytes:
        """The whole file."""
        header = _HEADER.pack(INDEX_MAGIC, INDEX_VERSION, self._base, self._end, self._entries)
        return b"".join((header, _CRC.pack(crc32(header)), self._body))


class IndexReader:
    """The contents of an index file.

    Arguments:
        data: the whole file
        base: the base of the segment by the name of the file

    Raises IndexDamage when the header is not that of this segment or does not hold.
    """

    __slots__ = ("_data", "base", "end", "entries")

    def __init__(self, data: bytes, base: int) -> None:
        if len(data) < INDEX_HEADER_BYTES:
            raise IndexDamage("is shorter than its header", base)
        magic, version, header_base, end, entries = _HEADER.unpack_from(data)
        (crc,) = _CRC.unpack_from(data, _HEADER.size)
        if magic != INDEX_MAGIC or crc != crc32(data[: _HEADER.size]):
            raise IndexDamage("has a damaged header", base)
        if version != INDEX_VERSION:
            raise IndexDamage(f"has version {version}, which is not known", base)
        if header_base != base:
            raise IndexDamage(f"says that it begins at position {header_base}", base)
        self._data = data
        self.base = base
        self.end: int = end
        self.entries: int = entries

    def __iter__(self) -> Iterator[tuple[int, int, bytes]]:
        """`(position, end, index)` of each batch. Raises IndexDamage where an entry is damaged."""
        data = self._data
        position = self.base
        start = INDEX_HEADER_BYTES
        for _ in range(self.entries):
            body = start + _ENTRY.size
            if body > len(data):
                raise IndexDamage("ends early", position)
            end, length, crc = _ENTRY.unpack_from(data, start)
            start = body + length
            index = data[body:start]
            if crc != crc32(index, crc32(_ENTRY_FIELDS.pack(end, length))) or end < position:
                raise IndexDamage("has a damaged entry", position)
            yield position, end, index
            position = end
        if position != self.end or start != len(data):
            raise IndexDamage("has not the entries that its header promises", position)
