"""SASL: from a mechanism and its response to a user and a password.

A response that does not have the form of its mechanism is answered by silence and a closed socket,
as nothing is said to a peer that has not logged in.
"""

from typing import Final

from broker.core.table import Table, TableError

#: What connection.start offers, in the order of preference.
MECHANISMS: Final = ("PLAIN", "AMQPLAIN")


class MalformedResponse(ValueError):
    """The response does not have the form its mechanism prescribes."""


def credentials(mechanism: str, response: bytes) -> tuple[str, bytes]:
    """User name and password from a response.

    Raises MalformedResponse, also for a mechanism that was not offered.
    """
    if mechanism == "PLAIN":
        parts = response.split(b"\0")
        if len(parts) != 3 or parts[0]:
            raise MalformedResponse("a PLAIN response is NUL, user, NUL, password")
        return parts[1].decode("utf-8", "surrogateescape"), parts[2]
    if mechanism == "AMQPLAIN":
        return _amqplain(response)
    raise MalformedResponse(f"mechanism {mechanism!r} was not offered")


def _amqplain(response: bytes) -> tuple[str, bytes]:
    try:
        table = Table.parse(response)
    except TableError as error:
        raise MalformedResponse(f"an AMQPLAIN response is the inside of a table: {error}") from None
    login = table.get("LOGIN")
    password = table.get("PASSWORD")
    if (
        login is None
        or password is None
        or not isinstance(login.value, bytes)
        or not isinstance(password.value, bytes)
    ):
        raise MalformedResponse("an AMQPLAIN response has LOGIN and PASSWORD as strings")
    return login.value.decode("utf-8", "surrogateescape"), password.value
