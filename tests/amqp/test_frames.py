"""Frames: the layout of contents, and payloads as error texts show them."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_methods import content_header, frame

from broker.amqp.frames import (
    BODY,
    CONTENT_HEAD,
    CONTENT_HEADER_BYTES_MIN,
    HEARTBEAT_FRAME,
    METHOD_HEAD,
    OVERHEAD,
    SETTLEMENT,
    SETTLEMENT_BYTES,
    content_frames,
    method_frame,
    octets,
)
from broker.core.message import frame_form

HEADER_PAYLOAD = content_header(0)


def joined(channel: int, body: bytes, payload_bytes_max: int) -> bytes:
    """The frames of a content with this body."""
    body_frame = frame_form(body) if body else b""
    return b"".join(
        content_frames(channel, frame_form(HEADER_PAYLOAD), body_frame, payload_bytes_max)
    )


def test_method_frame() -> None:
    """A method frame is type 1, channel, size, payload and the end octet."""
    assert (
        method_frame(258, b"\x00\x14\x00\x0b")
        == b"\x01\x01\x02\x00\x00\x00\x04\x00\x14\x00\x0b\xce"
    )


def test_heartbeat_frame() -> None:
    """A heartbeat is an empty frame of type 8 on channel 0."""
    assert frame(8, 0, b"") == HEARTBEAT_FRAME
    assert len(HEARTBEAT_FRAME) == OVERHEAD


@pytest.mark.parametrize(
    ("layout", "size"),
    [(METHOD_HEAD, 7 + 4), (CONTENT_HEAD, 7 + CONTENT_HEADER_BYTES_MIN), (SETTLEMENT, 13)],
)
def test_layouts_have_no_padding(layout: struct.Struct, size: int) -> None:
    """What is read at once is as long as its parts on the wire."""
    assert layout.size == size
    assert SETTLEMENT.size == SETTLEMENT_BYTES


def test_content_without_a_body_is_a_header_alone() -> None:
    """A body of no octets has no frame."""
    assert joined(7, b"", 100) == frame(2, 7, HEADER_PAYLOAD)


def test_small_body_is_one_frame() -> None:
    """A body as long as a frame may be is not split."""
    assert joined(7, b"x" * 100, 100) == frame(2, 7, HEADER_PAYLOAD) + frame(3, 7, b"x" * 100)


def test_large_body_is_split() -> None:
    """All frames but the last are full."""
    body = bytes(range(250))

    assert joined(65535, body, 100) == b"".join(
        [
            frame(2, 65535, HEADER_PAYLOAD),
            frame(3, 65535, body[:100]),
            frame(3, 65535, body[100:200]),
            frame(3, 65535, body[200:]),
        ]
    )


@given(st.binary(max_size=300), st.integers(1, 310), st.integers(1, 65535))
def test_body_survives_any_split(body: bytes, payload_bytes_max: int, channel: int) -> None:
    """Whatever the limit, the parts are within it, not empty, and together the body."""
    written = joined(channel, body, payload_bytes_max)

    header = frame(2, channel, HEADER_PAYLOAD)
    assert written.startswith(header)
    parts = []
    position = len(header)
    while position < len(written):
        kind, number, size = struct.unpack_from(">BHI", written, position)
        assert (kind, number) == (BODY, channel)
        assert 0 < size <= payload_bytes_max
        parts.append(written[position + 7 : position + 7 + size])
        assert written[position + 7 + size] == 0xCE
        position += size + OVERHEAD
    assert b"".join(parts) == body
    assert all(len(part) == payload_bytes_max for part in parts[:-1])


def test_whole_body_is_not_copied() -> None:
    """A delivery hands on the very body that came in."""
    body_frame = frame_form(b"x" * 100)

    pieces = content_frames(1, frame_form(HEADER_PAYLOAD), body_frame, 100)

    assert any(piece is body_frame for piece in pieces)


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (b"", "all octets = <<>>"),
        (b"x", 'all octets = <<"x">>'),
        (b"\x00\x14\x00\x0a\x00", "all octets = <<0,20,0,10,0>>"),
        (b"a" * 16, 'all octets = <<"aaaaaaaaaaaaaaaa">>'),
        (b"a" * 17, 'first 16 octets = <<"aaaaaaaaaaaaaaaa">>'),
        (b"\x00" * 20, f"first 16 octets = <<{','.join('0' * 16)}>>"),
    ],
)
def test_payload_in_an_error_text(payload: bytes, text: str) -> None:
    """A payload is shown whole up to 16 octets, as RabbitMQ shows it."""
    assert octets(payload) == text
