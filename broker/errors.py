"""AMQP errors as exceptions that carry their reply code and scope.

Raise the class named after what went wrong; nobody needs an `if` to choose a reply code. Two places
turn these into answers: `broker.amqp.connection` into channel.close and connection.close, and the
HTTP API into a status. Soft errors (403–406) close the channel, hard errors the connection; the
standard, section 1.5.2.5, and RabbitMQ agree on which is which.
"""

from typing import ClassVar


class AMQPError(Exception):
    """An error with a reply code of the standard.

    Arguments:
        text: the explanation alone; `reply_text` puts the name of the code before it.
    """

    code: ClassVar[int] = 541
    name: ClassVar[str] = "INTERNAL_ERROR"

    def __init__(self, text: str = "") -> None:
        super().__init__(text)
        self.text = text

    @property
    def reply_text(self) -> str:
        """`NAME - explanation` as it goes on the wire; a bare name when nothing explains it."""
        return f"{self.name} - {self.text}" if self.text else self.name


class ChannelException(AMQPError):
    """A soft error: the channel is closed, its connection goes on."""


class ConnectionException(AMQPError):
    """A hard error: the connection is closed."""


class AccessRefused(ChannelException):
    """403"""

    code = 403
    name = "ACCESS_REFUSED"


class NotFound(ChannelException):
    """404"""

    code = 404
    name = "NOT_FOUND"


class ResourceLocked(ChannelException):
    """405"""

    code = 405
    name = "RESOURCE_LOCKED"


class PreconditionFailed(ChannelException):
    """406"""

    code = 406
    name = "PRECONDITION_FAILED"


class ConnectionForced(ConnectionException):
    """320: the operator or a stopping broker closes the connection."""

    code = 320
    name = "CONNECTION_FORCED"


class LoginRefused(ConnectionException):
    """403 in its one use on a connection: credentials that did not authenticate."""

    code = 403
    name = "ACCESS_REFUSED"


class FrameError(ConnectionException):
    """501"""

    code = 501
    name = "FRAME_ERROR"


class SyntaxError_(ConnectionException):
    """502"""

    code = 502
    name = "SYNTAX_ERROR"


class CommandInvalid(ConnectionException):
    """503"""

    code = 503
    name = "COMMAND_INVALID"


class ChannelError(ConnectionException):
    """504"""

    code = 504
    name = "CHANNEL_ERROR"


class UnexpectedFrame(ConnectionException):
    """505"""

    code = 505
    name = "UNEXPECTED_FRAME"


class ResourceError(ConnectionException):
    """506"""

    code = 506
    name = "RESOURCE_ERROR"


class NotAllowed(ConnectionException):
    """530"""

    code = 530
    name = "NOT_ALLOWED"


class NotImplemented_(ConnectionException):
    """540"""

    code = 540
    name = "NOT_IMPLEMENTED"


class InternalError(ConnectionException):
    """541"""

    code = 541
    name = "INTERNAL_ERROR"
