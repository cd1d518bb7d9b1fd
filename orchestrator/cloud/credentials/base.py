"""Keys to sign with, and what gives them."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

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
