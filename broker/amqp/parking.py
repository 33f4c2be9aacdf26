"""Publishers under an alarm: held back without holding up anything else.

RabbitMQ stops reading from a connection that publishes while memory or disk is low. Here only the
channel that publishes stops: from its first content on, its frames are held in order and fed again
when the alarm clears, while acknowledgements on other channels, heartbeats and the connection's own
methods go on. What is held is bounded; past the bound reading stops as it does in RabbitMQ.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from broker.amqp.channel import Channel


class Parking:
    """The parked channels of one connection and their frames."""

    __slots__ = ("_channels", "_frames", "_size_bytes", "_size_bytes_max")

    def __init__(self, size_bytes_max: int) -> None:
        self._channels: dict[Channel, None] = {}
        #: frames of all parked channels in the order they came
        self._frames: list[tuple[Channel, bytes]] = []
        self._size_bytes = 0
        self._size_bytes_max = size_bytes_max

    @property
    def is_full(self) -> bool:
        """Whether nothing more should be read."""
        return self._size_bytes > self._size_bytes_max

    @property
    def is_empty(self) -> bool:
        """Whether no channel is parked."""
        return not self._channels

    def park(self, channel: "Channel") -> None:
        """Hold back what `channel` is sent from now on."""
        channel.park()
        self._channels[channel] = None

    def hold(self, channel: "Channel", frame: bytes) -> None:
        """Keep a frame of a parked channel."""
        self._frames.append((channel, frame))
        self._size_bytes += len(frame)

    def forget(self, channel: "Channel") -> None:
        """Drop a channel that closes, with its frames."""
        if self._channels.pop(channel, channel) is None:
            self._frames = [each for each in self._frames if each[0] is not channel]
            self._size_bytes = sum([len(frame) for _, frame in self._frames])

    def release(self) -> list[bytes]:
        """Let all channels go on; their frames are the caller's to handle."""
        for channel in self._channels:
            channel.unpark()
        frames = [frame for _, frame in self._frames]
        self.clear()
        return frames

    def clear(self) -> None:
        """Forget everything."""
        self._channels.clear()
        self._frames.clear()
        self._size_bytes = 0
