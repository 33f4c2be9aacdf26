"""SASL responses: which of them have a user and a password in them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_methods import table_content

from broker.amqp.sasl import MECHANISMS, MalformedResponse, credentials


def test_mechanisms_offered() -> None:
    """PLAIN comes first."""
    assert MECHANISMS == ("PLAIN", "AMQPLAIN")


@pytest.mark.parametrize(
    ("response", "user", "password"),
    [
        (b"\0guest\0guest", "guest", b"guest"),
        (b"\0guest\0", "guest", b""),
        (b"\0\0secret", "", b"secret"),
        ("\0müller\0pässwort".encode(), "müller", "pässwort".encode()),
        (b"\0\xff\xfe\0\xff", "\udcff\udcfe", b"\xff"),
        (b"\0a user\0a pass: word", "a user", b"a pass: word"),
    ],
)
def test_plain(response: bytes, user: str, password: bytes) -> None:
    """PLAIN is NUL, user, NUL, password, whatever octets the two have."""
    assert credentials("PLAIN", response) == (user, password)


@pytest.mark.parametrize(
    "response",
    [
        b"",
        b"\0",
        b"guest\0guest",
        b"\0guest",
        b"admin\0guest\0guest",
        b"\0guest\0guest\0",
        b"\0\0guest\0guest",
        b"guest",
    ],
)
def test_malformed_plain(response: bytes) -> None:
    """An authorization id, too many parts or too few make no PLAIN response."""
    with pytest.raises(MalformedResponse):
        credentials("PLAIN", response)


@pytest.mark.parametrize("tag", ["S", "x"])
@pytest.mark.parametrize("turned", [False, True])
def test_amqplain(tag: str, turned: bool) -> None:
    """AMQPLAIN is the inside of a table with LOGIN and PASSWORD, in any order among others."""
    entries = [("LOGIN", tag, b"guest"), ("more", "I", 1), ("PASSWORD", tag, b"secret")]
    if turned:
        entries.reverse()

    assert credentials("AMQPLAIN", table_content(*entries)) == ("guest", b"secret")


@pytest.mark.parametrize(
    "response",
    [
        b"",
        table_content(("LOGIN", "S", "guest")),
        table_content(("PASSWORD", "S", "guest")),
        table_content(("login", "S", "guest"), ("password", "S", "guest")),
        table_content(("LOGIN", "I", 1), ("PASSWORD", "S", "guest")),
        table_content(("LOGIN", "S", "guest"), ("PASSWORD", "V", None)),
        table_content(("LOGIN", "S", "guest"), ("PASSWORD", "S", "guest"))[:-1],
        table_content(("LOGIN", "S", "guest"), ("PASSWORD", "S", "guest")) + b"\0",
        b"\0guest\0guest",
    ],
)
def test_malformed_amqplain(response: bytes) -> None:
    """What is no table, or lacks one of the two as a string, makes no AMQPLAIN response."""
    with pytest.raises(MalformedResponse):
        credentials("AMQPLAIN", response)


@pytest.mark.parametrize("mechanism", ["", "plain", "EXTERNAL", "ANONYMOUS", "PLAIN "])
def test_mechanism_that_was_not_offered(mechanism: str) -> None:
    """Only what was offered is understood, letter by letter."""
    with pytest.raises(MalformedResponse):
        credentials(mechanism, b"\0guest\0guest")


@given(st.sampled_from(MECHANISMS), st.binary(max_size=60))
def test_any_response_is_understood_or_malformed(mechanism: str, response: bytes) -> None:
    """No response does anything but give credentials or be refused."""
    try:
        user, password = credentials(mechanism, response)
    except MalformedResponse:
        return
    assert isinstance(user, str) and isinstance(password, bytes)
