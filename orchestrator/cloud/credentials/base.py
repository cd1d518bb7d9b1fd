"""Credentials, their renewal, and helpers that several credential sources share."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import anyio

from orchestrator.clock import iso
from orchestrator.cloud.clock_skew import ServerClock
from orchestrator.errors import CredentialError

KEY = re.compile(r"[!-~]+")
"""Valid characters of a SecretId, SecretKey or token: printable ASCII without spaces, as HTTP
headers need it."""

_RENEW_AFTER = 2 / 3
"""Share of the lifetime after which a new credential is fetched. If that fails, the last third
leaves time for many retries."""

_RETRY_DELAY = 10.0
"""Seconds between a failed fetch and the next: a service that is down must not be flooded."""

_MAX_SLEEP = 30.0
_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Credential:
    """One API key of the vendor; only temporary ones have ``token`` and ``expires_at``."""

    secret_id: str
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Role:
    """A CAM role to assume, by its ARN.

    Args:
        external_id: what the role's owner has agreed on with this account, if it asks for it.
        seconds: lifetime of the credentials to request.
    """

    arn: str
    session_name: str = "orchestrator"
    external_id: str | None = field(default=None, repr=False)
    seconds: int = 7200


class CredentialSource:
    """Fetch credentials, one fetch at a time, and renew them when they are refused or expire.

    Args:
        fetch: returns a new credential or raises `CredentialError`.
        clock: the server's clock, which decides whether a credential has expired.
        notify: called with a sentence for the user when renewals before the expiry begin to fail.
        ahead: whether `keep_fresh` renews ahead of the expiry.
        origin: where the credentials come from, for messages.
    """

    def __init__(
        self,
        fetch: Callable[[], Awaitable[Credential]],
        clock: ServerClock,
        notify: Callable[[str], None],
        *,
        ahead: bool = True,
        origin: str = "",
    ) -> None:
        self.origin = origin
        self._fetch = fetch
        self._clock = clock
        self._notify = notify
        self._ahead = ahead
        self._lock = anyio.Lock()
        self._fetches = 0
        self._credential: Credential | None = None
        self._renew_at = datetime.min.replace(tzinfo=UTC)
        self._error: CredentialError | None = None
        """Why the latest fetch failed."""
        self._retry_at = 0.0
        """Earliest time of the next fetch, on the event loop's clock."""

    async def current(self) -> Credential:
        """Return the credential; fetch one first if there is none or it has expired."""
        credential = self._credential
        if credential is None or _expiry(credential) <= self._clock.now():
            return await self.renew()
        return credential

    async def renew(self) -> Credential:
        """Fetch a new credential; concurrent callers share one fetch and its result."""
        fetches = self._fetches
        async with self._lock:
            # another caller may have fetched while this one waited for the lock
            if fetches == self._fetches and anyio.current_time() >= self._retry_at:
                await self._fetch_now()
        if self._error is not None:
            # a new exception for each caller: raising one object again extends its traceback
            raise CredentialError(self._error.message, self._error.remedy)
        assert self._credential is not None
        return self._credential

    async def keep_fresh(self) -> None:
        """Renew the credential before each expiry; notify once when this begins to fail.

        Does nothing if ``ahead`` is false.
        """
        is_failing = False
        while self._ahead:
            left = (self._renew_at - self._clock.now()).total_seconds()
            if left > 0:
                # sleep in short steps: the server's clock may change in the meantime
                await anyio.sleep(min(max(1.0, left), _MAX_SLEEP))
                continue
            try:
                await self.renew()
                is_failing = False
            except CredentialError as error:
                if not is_failing:
                    self._notify(
                        f"Cannot renew the credential; retrying every {_RETRY_DELAY:.0f} seconds: "
                        f"{error.message}"
                    )
                is_failing = True
                await anyio.sleep(_RETRY_DELAY)

    async def _fetch_now(self) -> None:
        try:
            credential = await self._fetch()
            expires_at, now = _expiry(credential), self._clock.now()
            if expires_at <= now:
                raise CredentialError(
                    f"The temporary credential had already expired at {iso(expires_at)}.",
                    "Synchronize this machine's clock (NTP); if it is right, report this to "
                    "Tencent Cloud.",
                )
        except CredentialError as error:
            self._error = error
            self._retry_at = anyio.current_time() + _RETRY_DELAY
        else:
            self._error = None
            self._credential = credential
            self._renew_at = now + _RENEW_AFTER * (expires_at - now)
        self._fetches += 1


def parse_temporary_credential(key: Any, answer: Any) -> Credential | None:
    """Return the credential in a service's answer.

    Args:
        key: holds ``TmpSecretId``, ``TmpSecretKey`` and ``Token``.
        answer: holds ``ExpiredTime``, in seconds since 1970.

    Returns:
        The credential; ``None`` if a part of it is missing or invalid.
    """
    try:
        parts = key["TmpSecretId"], key["TmpSecretKey"], key["Token"]
        if not all(KEY.fullmatch(part) for part in parts):
            return None
        return Credential(*parts, datetime.fromtimestamp(int(answer["ExpiredTime"]), UTC))
    except (LookupError, TypeError, ValueError, OverflowError, OSError):
        return None


def service_error(service: str, problem: str | Exception, remedy: str) -> CredentialError:
    """Return the error for a service that did not provide a credential.

    Args:
        service: its name and address.
        problem: what it did, as in "answered with HTTP 502"; or why no answer came.
    """
    if isinstance(problem, Exception):
        problem = f"cannot be reached: {str(problem) or type(problem).__name__}"
    return CredentialError(f"{service} {problem}.", remedy)


def _expiry(credential: Credential) -> datetime:
    return credential.expires_at or _NEVER
