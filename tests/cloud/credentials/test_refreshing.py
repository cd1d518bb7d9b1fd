"""Keys that are lent for a while: when others are fetched, and what a lender in trouble does."""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import anyio
import pytest

from orchestrator.cloud.clock_skew import ServerClock
from orchestrator.cloud.credentials.base import Credential
from orchestrator.cloud.credentials.refreshing import RefreshingCredentials
from orchestrator.errors import CredentialError
from tests.cloud.scripted import NOON
from tests.limits.instant import in_no_time

HOUR = timedelta(hours=1)


class PassingClock:
    """Goes on with the event loop."""

    def now(self) -> datetime:
        """Noon, and what has passed since the loop began."""
        return NOON + timedelta(seconds=anyio.current_time())


class Lender:
    """Lends keys and counts how often it is asked; each time takes a tenth of a second."""

    def __init__(self, lasts: timedelta = HOUR) -> None:
        self.clock = PassingClock()
        self.lasts = lasts
        self.until: datetime | None = None
        self.asked = 0
        self.is_down = False
        self.said: list[str] = []
        self.source = RefreshingCredentials(self.lend, ServerClock(self.clock), self.said.append)

    async def lend(self) -> Credential:
        """Others each time, unless there is a time until which all are good."""
        self.asked += 1
        await anyio.sleep(0.1)
        if self.is_down:
            raise CredentialError("STS is down.", "Wait.")
        name = "same" if self.until else str(self.asked)
        return Credential(f"AKID{name}", "x", "t", self.until or self.clock.now() + self.lasts)


async def all_at_once(call: Callable[[], Awaitable[Credential]]) -> list[str]:
    """What twenty callers get: the id, or the message."""
    got: list[str] = []

    async def one() -> None:
        try:
            got.append((await call()).secret_id)
        except CredentialError as error:
            got.append(error.message)

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(one)
    return got


def test_callers_of_one_moment_share_one_fetch_and_what_came_of_it() -> None:
    """Keys or a fault: twenty who ask at once have it after one fetch, not after twenty."""
    lender = Lender()

    async def ask() -> None:
        assert await all_at_once(lender.source.current) == ["AKID1"] * 20
        assert await all_at_once(lender.source.renew) == ["AKID2"] * 20
        await anyio.sleep(HOUR.total_seconds())
        lender.is_down = True
        assert await all_at_once(lender.source.current) == ["STS is down."] * 20
        assert await all_at_once(lender.source.current) == ["STS is down."] * 20

    in_no_time(ask)
    assert lender.asked == 3


def test_a_lender_that_is_down_is_not_stormed() -> None:
    """Whoever keeps asking hears the last fault again, and the lender is asked now and then."""
    lender = Lender()
    lender.is_down = True

    async def ask() -> None:
        for _ in range(600):
            with pytest.raises(CredentialError, match="STS is down"):
                await lender.source.current()
            await anyio.sleep(0.5)
        lender.is_down = False
        await anyio.sleep(10)
        assert (await lender.source.current()).secret_id.startswith("AKID")

    in_no_time(ask)
    assert 25 <= lender.asked <= 32


def test_keys_are_fetched_once_in_a_life_and_never_by_who_asks() -> None:
    """With keys of an hour, ten hours cost a fetch every forty minutes, and no caller waits."""
    lender = Lender()

    async def ask() -> None:
        await lender.source.current()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lender.source.keep_fresh)
            for _ in range(600):
                await anyio.sleep(60)
                asked_at = anyio.current_time()
                keys = await lender.source.current()
                assert anyio.current_time() - asked_at < 0.001
                assert keys.expires_at is not None
                assert keys.expires_at > lender.clock.now()
            tasks.cancel_scope.cancel()

    in_no_time(ask)
    assert 14 <= lender.asked <= 16


def test_what_is_held_serves_on_while_the_lender_is_down() -> None:
    """That they cannot be renewed is said once; only keys that have run out are an error."""
    lender = Lender()

    async def ask() -> None:
        await lender.source.current()
        lender.is_down = True
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lender.source.keep_fresh)
            await anyio.sleep(3590)
            assert (await lender.source.current()).secret_id == "AKID1"
            await anyio.sleep(20)
            with pytest.raises(CredentialError, match="STS is down"):
                await lender.source.current()
            lender.is_down = False
            await anyio.sleep(30)
            assert (await lender.source.current()).secret_id != "AKID1"
            tasks.cancel_scope.cancel()

    in_no_time(ask)
    assert lender.said == ["The keys cannot be renewed, trying again: STS is down."]


def test_the_same_keys_again_are_no_reason_to_ask_in_a_loop() -> None:
    """A lender that hands out the same keys to their end, and beyond, is asked moderately."""
    lender = Lender()
    lender.until = NOON + HOUR

    async def ask() -> None:
        with anyio.move_on_after(2 * HOUR.total_seconds()):
            await lender.source.keep_fresh()
        with pytest.raises(CredentialError, match="have run out already, at 2026-03-01T13:00"):
            await lender.source.current()

    in_no_time(ask)
    assert lender.asked < 400
    assert len(lender.said) == 1
