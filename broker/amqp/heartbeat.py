"""Heartbeats: proving to be alive, and noticing that a peer is not.

With an interval of T seconds (the value of tune-ok) RabbitMQ checks every T/2 whether anything was
sent since the last check and sends a heartbeat if not, and every T whether anything arrived: two
checks in a row without a single octet end the connection. Both are counted here in plain octet
counters; the two checks are the only timer a connection needs once it runs.

A check that comes more than half an interval late says that this process was held up, not that the
peer is gone, so it counts as traffic. So does a check while the broker is not reading from the
connection.
"""

from broker.amqp.frames import HEARTBEAT_FRAME


class Heartbeat:
    """The heartbeat of one connection.

    Arguments:
        interval_seconds: agreed on in tune-ok; greater than zero.
        now_ms: when it begins.
    """

    __slots__ = (
        "_interval_ms",
        "_missed",
        "_receive_at_ms",
        "_received",
        "_send_at_ms",
        "_sent",
        "interval_seconds",
    )

    def __init__(self, interval_seconds: int, now_ms: int) -> None:
        self.interval_seconds = interval_seconds
        self._interval_ms = interval_seconds * 1000
        self._send_at_ms = now_ms + self._interval_ms // 2
        self._receive_at_ms = now_ms + self._interval_ms
        # -1: the first heartbeat is sent whatever was sent before.
        self._sent = -1
        self._received = -1
        self._missed = 0

    def deadline_ms(self) -> int:
        """When to look next."""
        return min(self._send_at_ms, self._receive_at_ms)

    def is_send_due(self, now_ms: int, sent_octets: int) -> bool:
        """Whether a heartbeat must be sent now; asked at each deadline."""
        if now_ms < self._send_at_ms:
            return False
        self._send_at_ms = max(self._send_at_ms + self._interval_ms // 2, now_ms + 1)
        silent = self._sent in (-1, sent_octets)
        # A heartbeat is no traffic: the next check must not take it for some.
        self._sent = sent_octets + len(HEARTBEAT_FRAME) if silent else sent_octets
        return silent

    def is_peer_gone(self, now_ms: int, received_octets: int, reading: bool) -> bool:
        """Whether the peer has been silent for too long; asked at each deadline.

        Arguments:
            reading: whether the broker has been reading from the connection.
        """
        late_ms = now_ms - self._receive_at_ms
        if late_ms < 0:
            return False
        self._receive_at_ms = now_ms + self._interval_ms
        if received_octets != self._received or not reading or late_ms > self._interval_ms // 2:
            self._received = received_octets
            self._missed = 0
            return False
        self._missed += 1
        return self._missed >= 2
