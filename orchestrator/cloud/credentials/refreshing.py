"""Keys that somebody lends for a while, fetched again before they run out."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import anyio

from orchestrator.clock import iso
from orchestrator.cloud.clock_skew import ServerClock
from orchestrator.cloud.credentials.base import Credential
from orchestrator.errors import CredentialError

_FRESH = 2 / 3
"""Share of their life after which keys are fetched anew: enough is left to try again and again."""

_RETRY = 10.0
"""Seconds after a fetch that failed before the next: who lends is not stormed while it is down."""

_LONGEST_SLEEP = 30.0


class RefreshingCredentials:
    """Keys that run out, fetched again before they do, by one fetch at a time.

    Args:
        fetch: gets them, or raises `CredentialError`.
        clock: by which they run out.
        tell: takes a sentence for the user when they cannot be renewed.
    """

    def __init__(
        self,
        fetch: Callable[[], Awaitable[Credential]],
        clock: ServerClock,
        notify: Callable[[str], None],
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._notify = notify
        self._turn = anyio.Lock()
        self._fetches = 0
        self._held: Credential | None = None
        self._stale_at = datetime.min.replace(tzinfo=UTC)
        self._fault: CredentialError | None = None
        self._failed_at = 0.0

    async def current(self) -> Credential:
        """The keys held; waits for others only when there are none that are good."""
        held = self._held
        is_good = held is not None and _end(held) > self._clock.now()
        return held if held is not None and is_good else await self.renew()

    async def renew(self) -> Credential:
        """Keys fetched now; whoever asks while they are being fetched hears the same."""
        fetches = self._fetches
        async with self._turn:
            if self._fetches == fetches and not self._has_just_failed():
                await self._fetch_now()
        if self._fault is not None:
            raise CredentialError(self._fault.message, self._fault.remedy)
        assert self._held is not None
        return self._held

    async def keep_fresh(self) -> None:
        """Fetches others in good time, and tries again for as long as it fails."""
        is_told = False
        while True:
            await self._until_stale()
            try:
                await self.renew()
                is_told = False
            except CredentialError as error:
                if not is_told:
                    self._notify(f"The keys cannot be renewed, trying again: {error.message}")
                is_told = True
                await anyio.sleep(_RETRY)

    async def _until_stale(self) -> None:
        while self._stale_at > (now := self._clock.now()):
            # not in one go: the clock may be put forward
            left = (self._stale_at - now).total_seconds()
            await anyio.sleep(min(max(1.0, left), _LONGEST_SLEEP))

    async def _fetch_now(self) -> None:
        try:
            fetched = await self._fetch()
            now = self._clock.now()
            if _end(fetched) <= now:
                raise CredentialError(
                    f"The keys that the role lends have run out already, at {iso(_end(fetched))}.",
                    "Set this machine's clock right, best by NTP; else report it to the vendor.",
                )
        except CredentialError as error:
            self._fault = error
            self._failed_at = anyio.current_time()
        else:
            self._fault = None
            self._held = fetched
            self._stale_at = now + _FRESH * (_end(fetched) - now)
        self._fetches += 1

    def _has_just_failed(self) -> bool:
        return self._fault is not None and anyio.current_time() < self._failed_at + _RETRY


def _end(keys: Credential) -> datetime:
    assert keys.expires_at is not None  # nothing is lent for ever
    return keys.expires_at
