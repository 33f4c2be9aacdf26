"""Output that the wire has not taken yet, and the marks that keep it bounded.

Frames gather in `pieces` until the turn ends, so that everything a connection is sent in a turn
leaves in one call. What counts against the marks is all that was encoded and has not reached the
peer: the pieces of this turn and the backlog of the socket. Above the high mark the connection is
*congested* and gets no deliveries; above the maximum, which replies and returns can reach as they
have no queue to wait in, it is *saturated*, and nothing more is read from it until it has drained.
"""

from broker.core.turn import Session, Turn


class Output:
    """The output of one session.

    Arguments:
        high_bytes: above it the connection is congested.
        bytes_max: above it the connection is saturated.
    """

    __slots__ = (
        "_bytes_max",
        "_high_bytes",
        "_session",
        "_turn",
        "congested",
        "limit_bytes",
        "noted",
        "pieces",
        "saturated",
        "sent_octets",
        "size_bytes",
    )

    def __init__(self, session: Session, turn: Turn, high_bytes: int, bytes_max: int) -> None:
        self._session = session
        self._turn = turn
        self._high_bytes = high_bytes
        self._bytes_max = bytes_max
        self.pieces: list[bytes | memoryview] = []
        #: octets in `pieces`, roughly
        self.size_bytes = 0
        #: the high mark, less what the socket still holds
        self.limit_bytes = high_bytes
        self.congested = False
        self.saturated = False
        #: in the turn's list of outputs
        self.noted = False
        #: octets taken by the wire since the connection began
        self.sent_octets = 0

    def send(self, frame: bytes) -> None:
        """Add a whole frame."""
        self.pieces.append(frame)
        self.count(len(frame))

    def count(self, octets: int) -> None:
        """Count what was added to `pieces`, and have it written before the turn ends."""
        self.size_bytes += octets
        if not self.noted:
            self.note()

    def note(self) -> None:
        """Have the wire look at the session before the turn ends."""
        if not self.noted:
            self.noted = True
            self._turn.outputs.append(self._session)
            self._turn.note()

    def take(self) -> list[bytes | memoryview]:
        """All pieces; they are the caller's from now on."""
        pieces, self.pieces = self.pieces, []
        self.size_bytes = 0
        return pieces

    def is_over_limit(self) -> bool:
        """Whether deliveries must stop."""
        return self.size_bytes > self.limit_bytes

    def is_over_max(self) -> bool:
        """Whether reading must stop."""
        return self.size_bytes + self._high_bytes - self.limit_bytes > self._bytes_max

    def has_drained(self) -> bool:
        """Whether so little is left that a congested connection may go on."""
        # At exactly half the socket is below its own mark already, and will not report again.
        return self.limit_bytes - self.size_bytes >= self._high_bytes // 2

    def flushed(self, octets: int, backlog_bytes: int) -> None:
        """The wire took `octets` and now holds `backlog_bytes` that the peer has not read."""
        self.sent_octets += octets
        self.limit_bytes = self._high_bytes - backlog_bytes
