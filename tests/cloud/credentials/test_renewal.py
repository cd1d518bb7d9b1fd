"""Temporary credentials: when they are fetched again, and what happens if that fails."""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import anyio
import pytest

from orchestrator.cloud.clock_skew import ServerClock
from orchestrator.cloud.credentials.base import Credential, CredentialSource
from orchestrator.errors import CredentialError
from tests.cloud.scripted_server import NOON
from tests.instant_loop import in_no_time

HOUR = timedelta(hours=1)


class LoopClock:
    """A clock that follows the event loop's."""

    def now(self) -> datetime:
        """Return noon plus the time since the loop started."""
        return NOON + timedelta(seconds=anyio.current_time())


class Service:
    """Issue credentials and count the fetches; each takes a tenth of a second."""

    def __init__(self, lifetime: timedelta = HOUR) -> None:
        self.clock = LoopClock()
        self.lifetime = lifetime
        self.expires_at: datetime | None = None
        self.fetches = 0
        self.is_down = False
        self.notes: list[str] = []
        self.source = CredentialSource(self.issue, ServerClock(self.clock), self.notes.append)

    async def issue(self) -> Credential:
        """Return a new credential, or the same one as long as ``expires_at`` is set."""
        self.fetches += 1
        await anyio.sleep(0.1)
        if self.is_down:
            raise CredentialError("STS is down.", "Wait.")
        name = "same" if self.expires_at else str(self.fetches)
        return Credential(
            f"AKID{name}", "x", "t", self.expires_at or self.clock.now() + self.lifetime
        )


async def concurrently(call: Callable[[], Awaitable[Credential]]) -> list[str]:
    """Return what twenty concurrent callers get: the SecretId, or the message."""
    results: list[str] = []

    async def one() -> None:
        try:
            results.append((await call()).secret_id)
        except CredentialError as error:
            results.append(error.message)

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(one)
    return results


def test_concurrent_callers_share_one_fetch_and_its_result() -> None:
    """Twenty concurrent callers get a credential, or an error, from one fetch."""
    service = Service()

    async def work() -> None:
        assert await concurrently(service.source.current) == ["AKID1"] * 20
        assert await concurrently(service.source.renew) == ["AKID2"] * 20
        await anyio.sleep(HOUR.total_seconds())
        service.is_down = True
        assert await concurrently(service.source.current) == ["STS is down."] * 20
        assert await concurrently(service.source.current) == ["STS is down."] * 20

    in_no_time(work)
    assert service.fetches == 3


def test_failing_service_is_called_rarely() -> None:
    """A failing service is called only every ten seconds.

    Callers in between get the last error again.
    """
    service = Service()
    service.is_down = True

    async def work() -> None:
        for _ in range(600):
            with pytest.raises(CredentialError, match="STS is down"):
                await service.source.current()
            await anyio.sleep(0.5)
        service.is_down = False
        await anyio.sleep(10)
        assert (await service.source.current()).secret_id.startswith("AKID")

    in_no_time(work)
    assert 25 <= service.fetches <= 32


def test_credential_is_renewed_ahead_of_its_expiry() -> None:
    """A credential of one hour is renewed every 40 minutes, and no caller waits."""
    service = Service()

    async def work() -> None:
        await service.source.current()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(service.source.keep_fresh)
            for _ in range(600):
                await anyio.sleep(60)
                started_at = anyio.current_time()
                credential = await service.source.current()
                assert anyio.current_time() - started_at < 0.001
                assert credential.expires_at is not None
                assert credential.expires_at > service.clock.now()
            tasks.cancel_scope.cancel()

    in_no_time(work)
    assert 14 <= service.fetches <= 16


def test_credential_is_used_until_it_expires_while_renewal_fails() -> None:
    """The failure is notified once; only an expired credential is an error."""
    service = Service()

    async def work() -> None:
        await service.source.current()
        service.is_down = True
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(service.source.keep_fresh)
            await anyio.sleep(3590)
            assert (await service.source.current()).secret_id == "AKID1"
            await anyio.sleep(20)
            with pytest.raises(CredentialError, match="STS is down"):
                await service.source.current()
            service.is_down = False
            await anyio.sleep(30)
            assert (await service.source.current()).secret_id != "AKID1"
            tasks.cancel_scope.cancel()

    in_no_time(work)
    assert service.notes == ["Cannot renew the credential; retrying every 10 seconds: STS is down."]


def test_service_that_returns_the_same_credential_is_called_rarely() -> None:
    """A service that keeps returning one credential is not called in a tight loop.

    This is also true after the credential has expired.
    """
    service = Service()
    service.expires_at = NOON + HOUR

    async def work() -> None:
        with anyio.move_on_after(2 * HOUR.total_seconds()):
            await service.source.keep_fresh()
        with pytest.raises(CredentialError, match="had already expired at 2026-03-01T13:00"):
            await service.source.current()

    in_no_time(work)
    assert service.fetches < 400
    assert len(service.notes) == 1
