"""Waiting messages as columns: a few octets each instead of objects.

A message whose content was let go is a number in the log and a place in its queue; a million of
them as objects would take more room than their contents did. So they are rows of a block: id,
position, size of the body and whether it was delivered before. A message that cannot be let go
keeps its entry, in the row that its place is.
"""

from array import array
from typing import TYPE_CHECKING

from broker.core.message import Message

if TYPE_CHECKING:
    from broker.core.queue import Entry


class Row:
    """A packed message, on its way to be an entry again."""

    __slots__ = ("entry", "message", "redelivered", "was_absent")

    def __init__(
        self, message: Message, redelivered: bool, entry: "Entry | None", was_absent: bool
    ) -> None:
        self.message = message
        self.redelivered = redelivered
        #: of a message that was not packed
        self.entry = entry
        #: it was put here without its content, which another queue may have fetched meanwhile
        self.was_absent = was_absent


class Block:
    """Some waiting messages in their order: packed one by one, unpacked and fetched together.

    Arguments:
        rows_max: how many they may be.
    """

    __slots__ = (
        "_absent_entries",
        "_body_sizes",
        "_entries",
        "_ids",
        "_positions",
        "_redelivered",
        "_rows_max",
    )

    def __init__(self, rows_max: int) -> None:
        self._rows_max = rows_max
        self._ids = array("Q")
        self._positions = array("Q")
        self._body_sizes = array("I")
        self._redelivered = bytearray()
        #: entries that could not be packed, by their row
        self._entries: dict[int, Entry] = {}
        #: those of them that had no content
        self._absent_entries: set[int] = set()

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def is_full(self) -> bool:
        """Whether the next message needs another block."""
        return len(self._ids) >= self._rows_max

    @property
    def room(self) -> int:
        """How many more messages it takes."""
        return self._rows_max - len(self._ids)

    def append(self, message_id: int, position: int, body_size: int, redelivered: bool) -> None:
        """Pack a message that the log has and only this queue holds."""
        self._ids.append(message_id)
        self._positions.append(position)
        self._body_sizes.append(body_size)
        self._redelivered.append(redelivered)

    def extend(
        self, ids: "array[int]", positions: "array[int]", body_sizes: "array[int]", marks: bytes
    ) -> None:
        """Pack many such messages; `marks` says of each whether it was delivered before."""
        self._ids.extend(ids)
        self._positions.extend(positions)
        self._body_sizes.extend(body_sizes)
        self._redelivered.extend(marks)

    def append_entry(self, entry: "Entry") -> None:
        """Keep an entry as it is, in its place."""
        message = entry.message
        row = len(self._ids)
        self._entries[row] = entry
        if not message.header_frame:
            self._absent_entries.add(row)
        self.append(message.message_id, message.position, message.body_size, entry.redelivered)

    def persistent_ids(self) -> list[int]:
        """The ids of the rows whose messages the log may have to be told of."""
        return [
            message_id
            for row, message_id in enumerate(self._ids)
            if row not in self._entries or self._entries[row].message.persistent
        ]

    def redelivered_ids(self) -> list[int]:
        """The ids of messages that were delivered before, of those the log has."""
        return [
            message_id
            for row, message_id in enumerate(self._ids)
            if self._redelivered[row]
            and (row not in self._entries or self._entries[row].message.persistent)
        ]

    def rows(self) -> list[Row]:
        """The messages as objects; those that were packed have no content."""
        rows: list[Row] = []
        for row, message_id in enumerate(self._ids):
            entry = self._entries.get(row)
            if entry is not None:
                was_absent = row in self._absent_entries
                rows.append(Row(entry.message, entry.redelivered, entry, was_absent))
                continue
            message = Message(b"", b"", b"", self._body_sizes[row], True)
            message.message_id = message_id
            message.position = self._positions[row]
            message.holders = 1
            rows.append(Row(message, bool(self._redelivered[row]), None, True))
        return rows
