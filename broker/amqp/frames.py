"""Frames: their layout, and the texts RabbitMQ uses when they are wrong.

A frame is `type:u8 channel:u16 size:u32 payload 0xCE` (standard, section 2.3.5).
"""

from struct import Struct
from typing import Final

from broker.core.terms import bytes_term

METHOD: Final = 1
HEADER: Final = 2
BODY: Final = 3
HEARTBEAT: Final = 8

#: Octets of a frame that are not payload.
OVERHEAD: Final = 8
#: No limit agreed on by the peers may be lower than this.
FRAME_BYTES_MIN: Final = 4096

FRAME_END: Final = 0xCE

#: type, channel, size
FRAME_HEAD: Final = Struct(">BHI")
#: A method frame up to and with its ids: type, channel, size, class << 16 | method
METHOD_HEAD: Final = Struct(">BHII")
#: type, channel, size, class, weight, body size, flags: the fixed part of a header frame
CONTENT_HEAD: Final = Struct(">BHIHHQH")
#: The least a header frame carries: everything in front of the properties.
CONTENT_HEADER_BYTES_MIN: Final = 14
#: class << 16 | method, delivery tag, bits: basic.ack, basic.nack and basic.reject
SETTLEMENT: Final = Struct(">IQB")
SETTLEMENT_BYTES: Final = 13

HEARTBEAT_FRAME: Final = b"\x08\x00\x00\x00\x00\x00\x00\xce"


def octets(payload: bytes) -> str:
    """`payload` as RabbitMQ shows it in an error: all of it, or its first 16 octets."""
    if len(payload) <= 16:
        return f"all octets = {bytes_term(payload)}"
    return f"first 16 octets = {bytes_term(payload[:16])}"


def method_frame(channel: int, payload: bytes) -> bytes:
    """A whole method frame."""
    return FRAME_HEAD.pack(METHOD, channel, len(payload)) + payload + b"\xce"


def content_frames(
    channel: int, header_frame: bytes, body_frame: bytes, payload_bytes_max: int
) -> list[bytes | memoryview]:
    """The header and body frames of a message for one channel.

    Arguments:
        header_frame, body_frame: in frame form (see `broker.core.message`). payload_bytes_max: the
        most a body frame may carry on this connection; larger bodies are split.
    """
    number = channel.to_bytes(2, "big")
    pieces: list[bytes | memoryview] = [b"\x02" + number, header_frame]
    size = len(body_frame) - 5
    if size <= 0:
        return pieces
    if size <= payload_bytes_max:
        pieces += (b"\x03" + number, body_frame)
        return pieces
    body = memoryview(body_frame)
    for start in range(4, 4 + size, payload_bytes_max):
        part = body[start : min(start + payload_bytes_max, 4 + size)]
        pieces += (FRAME_HEAD.pack(BODY, channel, len(part)), part, b"\xce")
    return pieces
