"""Users with their passwords, and API keys with their secrets: only what cannot be turned back
into either is kept."""

import hashlib
import secrets
from datetime import timedelta

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import ColumnElement, delete, select
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import Session

from models.errors import KizuError
from service.identity import Role
from service.store.records import hold, now
from service.store.tables import ApiKey, LogIn, User

SHORTEST_PASSWORD = 10
# A clock that is set by no more, and set right again, ends no session for good.
_SET_BACK = timedelta(days=2)
_PREFIX = "kizu"
_HASHER = PasswordHasher()  # argon2id, by RFC 9106's choice for little memory
# What an unknown name is checked against, so that it takes as long as a known one.
_NOBODY = _HASHER.hash(secrets.token_hex())


class AccountError(KizuError):
    """A user or a key that cannot be made or found."""


def add_user(session: Session, name: str, role: Role, password: str | None) -> User:
    """Without a password, one logs in by the identity provider alone. Raises AccountError where
    the name is taken or the password too short."""
    if session.get(User, name):
        raise AccountError(
            f"There is a user {name!r} already.",
            remedy="Choose another name, or change this one's password or role.",
        )
    kept = "" if password is None else _hashed(password)  # which is no password's hash
    user = User(name=name, role=role, password=kept, created_at=now())
    session.add(user)
    return user


def change_user(
    session: Session, name: str, *, role: Role | None = None, password: str | None = None
) -> User:
    """A new role or password; whoever is logged in under that name is no longer. Raises
    AccountError."""
    user = _user(session, name)
    if password is not None:
        user.password = _hashed(password)
    if role is not None:
        user.role = role
    _log_out(session, LogIn.user_name == name)
    return user


def remove_user(session: Session, name: str) -> None:
    """What the user did stays under its name. Raises AccountError."""
    user = _user(session, name)
    _log_out(session, LogIn.user_name == name)
    session.delete(user)


def users(session: Session) -> list[User]:
    """All users, by name."""
    return list(session.scalars(select(User).order_by(User.name)))


def verified(session: Session, name: str, password: str) -> User | None:
    """The user whose password this is. Takes some ten milliseconds, whoever it is."""
    user = session.get(User, name)
    try:
        _HASHER.verify(user.password if user else _NOBODY, password)
    except (VerificationError, InvalidHashError):
        return None
    return user


def unchanged(session: Session, user: User) -> bool:
    """Whether a user is still as read, and stays so until the transaction ends: or who logs in just
    now would outlive a new password. So far the session has only read."""
    was = user.password, user.role
    try:
        hold(session, user)
    except InvalidRequestError:  # removed
        return False
    return (user.password, user.role) == was


def add_key(
    session: Session,
    name: str,
    role: Role,
    *,
    per_second: float | None = None,
    max_bytes: int | None = None,
) -> str:
    """Make an API key and return its text, which nobody can show again. Raises AccountError."""
    in_force = ApiKey.name == name, ApiKey.revoked_at.is_(None)
    if session.scalar(select(ApiKey).where(*in_force)):
        raise AccountError(
            f"There is a key {name!r} already.",
            remedy="Choose another name, or revoke that key first.",
        )
    text = f"{_PREFIX}_{secrets.token_urlsafe(32)}"
    session.add(
        ApiKey(
            digest=digest(text), name=name, role=role, created_at=now(), revoked_at=None,
            per_second=per_second, max_bytes=max_bytes,
        )
    )  # fmt: skip
    return text


def revoke_key(session: Session, name: str) -> None:
    """Let a key open nothing any more. Raises AccountError."""
    in_force = ApiKey.name == name, ApiKey.revoked_at.is_(None)
    key = session.scalar(select(ApiKey).where(*in_force))
    if key is None:
        raise AccountError(f"There is no key {name!r} in force.", remedy="See kizu key list.")
    key.revoked_at = now()


def keys(session: Session) -> list[ApiKey]:
    """All keys that are in force, by name."""
    found = select(ApiKey).where(ApiKey.revoked_at.is_(None)).order_by(ApiKey.name)
    return list(session.scalars(found))


def log_in(session: Session, user: User, lasting: timedelta) -> str:
    """Begin a session and return its token, which nobody can show again."""
    _log_out(session, LogIn.ends_at < now() - _SET_BACK)
    token = secrets.token_urlsafe(32)
    session.add(LogIn(digest=digest(token), user_name=user.name, ends_at=now() + lasting))
    return token


def logged_in(session: Session, token_digest: str, lasting: timedelta) -> User | None:
    """The user of a session that has not ended. One that would go on for much longer than any was
    begun by a clock that was wrong, and might last for ever."""
    found = select(User).join(LogIn, LogIn.user_name == User.name)
    goes_on = LogIn.ends_at > now(), LogIn.ends_at < now() + lasting + _SET_BACK
    return session.scalar(found.where(LogIn.digest == token_digest, *goes_on))


def log_out(session: Session, token_digest: str) -> None:
    """End a session, if there is one."""
    _log_out(session, LogIn.digest == token_digest)


def digest(secret: str) -> str:
    """What is kept of a secret. It is random and long: nobody can try all, so one round is enough,
    and every request of a camera needs it."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _log_out(session: Session, which: ColumnElement[bool]) -> None:
    session.execute(delete(LogIn).where(which))


def _user(session: Session, name: str) -> User:
    user = session.get(User, name, with_for_update=True)
    if user is None:
        raise AccountError(f"There is no user {name!r}.", remedy="See kizu user list.")
    return user


def _hashed(password: str) -> str:
    if len(password) < SHORTEST_PASSWORD:
        raise AccountError(
            f"A password has {SHORTEST_PASSWORD} characters at least.",
            remedy="Three words that do not belong together are easy to keep in mind.",
        )
    return _HASHER.hash(password)
