"""Input that cannot be handled yet: half a frame, or more than the broker may handle now."""

from typing import Final

#: Why input is not handled, as bits: several may hold at once.
LOGIN: Final = 1
OUTPUT: Final = 2
REPLIES: Final = 4
ENDED: Final = 8
FETCH: Final = 16


class Input:
    """The octets of one connection that wait.

    They wait for one of three things: the rest of a frame (then `needed` octets make the next look
    worth while, so that a large frame in small pieces is not looked at for each), the next turn, or
    the end of a pause.
    """

    __slots__ = ("_needed", "_waiting", "noted", "paused")

    def __init__(self) -> None:
        self._waiting = bytearray()
        self._needed = 0
        #: reasons to handle nothing at all
        self.paused = 0
        #: in the turn's list of inputs
        self.noted = False

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, data: bytes) -> bytes:
        """What should be handled now that `data` has come; empty when nothing should."""
        if not self._waiting and not self.paused and not self.noted:
            return data
        self._waiting += data
        if self.paused or self.noted or len(self._waiting) < self._needed:
            return b""
        return self.take()

    def take(self) -> bytes:
        """All that waits, unless there is a pause."""
        if self.paused:
            return b""
        data = bytes(self._waiting)
        self._waiting.clear()
        return data

    def keep(self, rest: bytes, needed: int = 0) -> None:
        """Keep what was not handled, until there are `needed` octets of it."""
        self._waiting += rest
        self._needed = needed

    def put_first(self, frames: list[bytes]) -> None:
        """Have `frames` handled before anything that waits."""
        self._waiting[:0] = b"".join(frames)

    def clear(self) -> None:
        """Forget what waits."""
        self._waiting.clear()
