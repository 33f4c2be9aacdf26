"""Users and who of them may log in."""

import pytest
from session_support import CountingBytes

from broker.auth import User, Users
from broker.core.ids import Ids


def users(*loopback_users: str) -> Users:
    """guest and admin, each with a password of its own."""
    made = Users(Ids(CountingBytes()), loopback_users)
    made.add("guest", b"guest")
    made.add("admin", b"secret", ("administrator",))
    return made


def log_in(
    checked: Users, name: str, password: bytes, *, from_loopback: bool = True
) -> tuple[User | None, str]:
    """The outcome of a login; there is exactly one."""
    outcomes: list[tuple[User | None, str]] = []
    checked.authenticate(
        name, password, from_loopback, lambda user, reason: outcomes.append((user, reason))
    )
    (outcome,) = outcomes
    return outcome


def test_right_password() -> None:
    """Name and password of a user let it in, with its tags."""
    user, reason = log_in(users(), "admin", b"secret")

    assert user is not None
    assert (user.name, user.tags, reason) == ("admin", ("administrator",), "")


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("admin", b"guest"),
        ("admin", b""),
        ("admin", b"secret\0"),
        ("admin", b"Secret"),
        ("Admin", b"secret"),
        ("nobody", b"secret"),
        ("nobody", b""),
        ("", b""),
        ("", b"guest"),
    ],
)
def test_wrong_login(name: str, password: bytes) -> None:
    """Unknown names and wrong passwords are refused alike; the log says no more than that."""
    assert log_in(users(), name, password) == (None, f"user '{name}' - invalid credentials")


def test_blank_password_never_logs_in() -> None:
    """A user whose password is empty cannot log in with it, nor with any other."""
    checked = users()
    checked.add("blank", b"")

    assert log_in(checked, "blank", b"")[0] is None
    assert log_in(checked, "blank", b"x")[0] is None


def test_loopback_users_are_refused_from_elsewhere() -> None:
    """guest may log in from this machine only; the password is checked first."""
    checked = users("guest")

    assert log_in(checked, "guest", b"guest")[0] is not None
    assert log_in(checked, "guest", b"guest", from_loopback=False) == (
        None,
        "user 'guest' can only connect via localhost",
    )
    assert log_in(checked, "guest", b"no", from_loopback=False)[1].endswith("invalid credentials")
    assert log_in(checked, "admin", b"secret", from_loopback=False)[0] is not None


def test_user_added_again_has_the_new_password() -> None:
    """A user of a name that exists takes its place."""
    checked = users()
    checked.add("admin", b"changed")

    assert log_in(checked, "admin", b"secret")[0] is None
    user, _ = log_in(checked, "admin", b"changed")
    assert user is not None and user.tags == ()


def test_password_is_not_kept() -> None:
    """What a user remembers is salted: equal passwords do not look alike."""
    one, two = (User("name", b"secret", (), salt) for salt in (b"aaaa", b"bbbb"))

    assert one.is_password(b"secret") and two.is_password(b"secret")
    hashes = [user._hash for user in (one, two)]
    assert hashes[0] != hashes[1]
    assert not any(b"secret" in each for each in hashes)


def test_name_may_be_any_octets() -> None:
    """A name that is no text comes from the wire with its octets escaped, and matches nobody."""
    assert log_in(users(), "\udcff", b"guest")[0] is None
