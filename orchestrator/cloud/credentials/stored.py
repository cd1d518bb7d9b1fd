"""Credentials that are stored in the environment or in a file."""

from collections.abc import Callable

from anyio import to_thread

from orchestrator.clock import Clock, iso
from orchestrator.cloud.credentials.base import Credential
from orchestrator.errors import CredentialError


class StaticCredentials:
    """Read a stored credential, and read it again when it is refused or has expired.

    Args:
        place: where it is stored, for messages.
        read: returns what is stored there now, ``None`` if there is nothing.

    Raises:
        CredentialError: nothing usable is stored there now.
    """

    def __init__(self, place: str, read: Callable[[], Credential | None], clock: Clock) -> None:
        self._place = place
        self._read = read
        self._clock = clock
        self._credential = self._load()

    async def current(self) -> Credential:
        """Return the credential that was read last; read it again once it has expired."""
        return await self.renew() if self._has_expired(self._credential) else self._credential

    async def renew(self) -> Credential:
        """Read what is stored now: another program may have written a new credential."""
        self._credential = await to_thread.run_sync(self._load)
        return self._credential

    async def keep_fresh(self) -> None:
        """Return at once: only the program that wrote the credential can renew it."""

    def _load(self) -> Credential:
        credential = self._read()
        if credential is None:
            raise CredentialError(
                f"The credential is gone from {self._place}.", "Store a credential there again."
            )
        if credential.expires_at is not None and self._has_expired(credential):
            raise CredentialError(
                f"The login in {self._place} expired at {iso(credential.expires_at)}.",
                "Log in again with: tccli auth login (or: tccli sso login)",
            )
        return credential

    def _has_expired(self, credential: Credential) -> bool:
        return credential.expires_at is not None and credential.expires_at <= self._clock.now()
