"""Users, and who may log in.

`authenticate` answers through a callback, so that an implementation may hash passwords away from
the loop; a session keeps what its client sends meanwhile. Every refusal looks the same to the
client; the reason is for the log.
"""

import hashlib
import hmac
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from broker.core.ids import Ids


class User:
    """Somebody who may log in.

    Arguments:
        tags: such as `administrator`; `impersonator` lets publishers set any user-id.
    """

    __slots__ = ("_hash", "_salt", "name", "tags")

    def __init__(self, name: str, password: bytes, tags: Sequence[str], salt: bytes) -> None:
        self.name = name
        self.tags = tuple(tags)
        self._salt = salt
        self._hash = _salted(salt, password)

    def is_password(self, password: bytes) -> bool:
        """Whether `password` is this user's, in a time that does not depend on the answer."""
        return hmac.compare_digest(self._hash, _salted(self._salt, password)) and bool(password)


def _salted(salt: bytes, password: bytes) -> bytes:
    return hashlib.sha256(salt + password).digest()


#: Called with the user, or with None and the reason for the log.
Done = Callable[[User | None, str], None]


class Authenticator(ABC):
    """Decides about logins."""

    @abstractmethod
    def authenticate(self, name: str, password: bytes, from_loopback: bool, done: Done) -> None:
        """Check a login and call `done` once, now or later on the loop.

        Arguments:
            from_loopback: whether the client is on this machine.
        """


class Users(Authenticator):
    """Users in memory.

    Arguments:
        loopback_users: names that may log in from this machine only.
    """

    def __init__(self, ids: Ids, loopback_users: Sequence[str]) -> None:
        self._ids = ids
        self._users: dict[str, User] = {}
        self._loopback_users = frozenset(loopback_users)
        # Who is compared with when a name is unknown, so that it takes as long as a wrong password.
        self._nobody = User("", b"", (), self._ids.random_bytes(4))

    def add(self, name: str, password: bytes, tags: Sequence[str] = ()) -> User:
        """Add a user, or replace the one of that name."""
        user = User(name, password, tags, self._ids.random_bytes(4))
        self._users[name] = user
        return user

    def authenticate(self, name: str, password: bytes, from_loopback: bool, done: Done) -> None:
        user = self._users.get(name)
        if not (user or self._nobody).is_password(password) or user is None:
            done(None, f"user '{name}' - invalid credentials")
        elif name in self._loopback_users and not from_loopback:
            done(None, f"user '{name}' can only connect via localhost")
        else:
            done(user, "")
