"""How far a connection has come."""

from typing import Final


class State:
    """The states in their order; a later one is never left for an earlier one."""

    HEADER: Final = 0
    STARTING: Final = 1
    AUTHENTICATING: Final = 2
    TUNING: Final = 3
    OPENING: Final = 4
    RUNNING: Final = 5
    #: connection.close was sent; waiting for close-ok
    CLOSING: Final = 6
    #: close-ok was sent, or nothing will be: whatever comes is ignored
    CLOSED: Final = 7


#: What error texts and the log call them.
STATE_NAMES: Final = (
    "starting",
    "starting",
    "starting",
    "tuning",
    "opening",
    "running",
    "closing",
    "closed",
)
