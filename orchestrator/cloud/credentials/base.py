"""Keys to sign with, and what gives them."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from anyio import to_thread

from orchestrator.clock import Clock, iso
from orchestrator.errors import CredentialError

KEY = re.compile(r"[!-~]+")
"""What an id, a key or a token may be made of: each of them, or what it signs, is a header."""


@dataclass(frozen=True, slots=True)
class Credential:
    """One key pair; ``token`` and ``expires_at`` come with temporary ones."""

    secret_id: str
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)
    expires_at: datetime | None = None


class CredentialSource(Protocol):
    """Gives the keys to sign with, and fresh ones when they no longer do."""

    async def current(self) -> Credential:
        """The keys in force."""
        ...

    async def renew(self) -> Credential:
        """Keys fetched anew, whatever is held."""
        ...

    async def keep_fresh(self) -> None:
        """Fetches keys ahead of time, as long as it is let; returns where they never need it."""
        ...


class StaticCredentials:
    """Keys that stand in one place until somebody writes others there.

    Args:
        place: named in messages.
        read: what stands there now; ``None`` when nothing does any more.
    """

    def __init__(self, place: str, read: Callable[[], Credential | None], clock: Clock) -> None:
        self._place = place
        self._read = read
        self._clock = clock
        self._credential = self._load()

    async def current(self) -> Credential:
        """The keys last read; read again once they have expired."""
        return await self.renew() if self._expired(self._credential) else self._credential

    async def renew(self) -> Credential:
        """What stands there now."""
        self._credential = await to_thread.run_sync(self._load)
        return self._credential

    async def keep_fresh(self) -> None:
        """Whoever wrote the keys there renews them, too."""

    def _load(self) -> Credential:
        credential = self._read()
        if credential is None:
            raise CredentialError(f"The keys are gone from {self._place}.", "Put keys there again.")
        if credential.expires_at is not None and self._expired(credential):
            raise CredentialError(
                f"The login in {self._place} expired at {iso(credential.expires_at)}.",
                "Log in again with: tccli auth login (or: tccli sso login)",
            )
        return credential

    def _expired(self, credential: Credential) -> bool:
        return credential.expires_at is not None and credential.expires_at <= self._clock.now()


DEFAULT_SESSION_NAME = "orchestrator"


@dataclass(frozen=True, slots=True)
class AssumedRole:
    """A role that is to be assumed, by the vendor's description of it."""

    arn: str
    session_name: str = DEFAULT_SESSION_NAME


@dataclass(frozen=True, slots=True)
class Found:
    """What one place holds.

    Args:
        credential: the keys that stand there.
        by_instance: the keys are those of the instance's role.
        role: assumed with the keys.
    """

    credential: Credential | None = None
    by_instance: bool = False
    role: AssumedRole | None = None


def temporary_credential(fields: Any, until: Any) -> Credential | None:
    """The keys of an answer; ``None`` where it has none, and then nothing of it is repeated."""
    try:
        secret_id, secret_key, token = (
            fields[name] for name in ("TmpSecretId", "TmpSecretKey", "Token")
        )
        if not all(KEY.fullmatch(part) for part in (secret_id, secret_key, token)):
            return None
        return Credential(secret_id, secret_key, token, datetime.fromtimestamp(int(until), UTC))
    except (LookupError, TypeError, ValueError, OverflowError, OSError):
        return None


def make_credential(
    place: str,
    names: tuple[str, str, str],
    values: Mapping[str, Any],
    expires_at: datetime | None = None,
) -> Credential | None:
    """Make a credential of the values that stand under these names; ``None`` where none does.

    Args:
        place: prefix of the names in messages.
        names: of the key's id, the secret key and the token.

    Raises:
        CredentialError: half of a pair is missing, or a value cannot be a key.
    """
    secret_id, secret_key, token = (_key(place + name, values.get(name)) for name in names)
    if secret_id is None and secret_key is None:
        return None
    if secret_id is None or secret_key is None:
        there, missing = (names[1], names[0]) if secret_id is None else (names[0], names[1])
        raise CredentialError(f"{place}{there} is set but {missing} is not.", "Set both, or none.")
    return Credential(secret_id, secret_key, token, expires_at)


def _key(name: str, value: object) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str) or not KEY.fullmatch(value):
        padded = isinstance(value, str) and value != value.strip()
        fault = "has blanks around it" if padded else "has characters that no key has"
        raise CredentialError(f"{name} {fault}.", "Copy it again from the CAM console.")
    return value
