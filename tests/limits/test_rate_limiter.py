"""The rate limit that several processes share through one row."""

import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import anyio
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.limits import rate_limiter as rate_module
from orchestrator.limits.rate_limiter import (
    FreePermits,
    Permit,
    PermitStream,
    RateKey,
    RateLimiter,
)
from orchestrator.store import Database
from orchestrator.store.tables import rates
from tests.instant_loop import in_no_time
from tests.job_factory import EXPORT_RATE_KEY, NOON, advance_time, now

pytestmark = pytest.mark.anyio

RATE = 20.0
INTERVAL = PermitStream(NOON).interval(RATE, NOON)


def rate_limiter(
    database: Database, key: RateKey = EXPORT_RATE_KEY, rate: float = RATE
) -> RateLimiter:
    return RateLimiter(database, key, rate)


async def take_permits(
    database: Database, stream: RateLimiter, most: int = 100
) -> Sequence[datetime]:
    """Take and return the permits that are free now."""
    async with database.write() as connection:
        free = await stream.free_permits(connection, most)
        await stream.take_permits(connection, free, most)
        return free.permits


async def next_permit(database: Database) -> datetime:
    """Return the time of the next permit in the store."""
    async with database.read() as connection:
        moment: datetime = (await connection.execute(sa.select(rates.c.next_at))).scalar_one()
        return moment


async def test_processes_take_different_permits(databases: Sequence[Database]) -> None:
    """A process gets the next permit if another process has taken the first one."""
    first, second = rate_limiter(databases[0]), rate_limiter(databases[1])
    mine = await take_permits(databases[0], first, most=1)
    theirs = await take_permits(databases[1], second, most=1)
    assert theirs[0] - mine[0] >= INTERVAL


async def test_a_restart_begins_without_a_burst(databases: Sequence[Database]) -> None:
    """A process continues where the one before it ended."""
    before = await take_permits(databases[0], rate_limiter(databases[0]))
    await databases[0].close()
    assert await next_permit(databases[1]) - before[-1] == INTERVAL
    after = await take_permits(databases[1], rate_limiter(databases[1]))
    assert all(permit - before[-1] >= INTERVAL for permit in after)


async def test_a_permit_that_is_not_taken_stays_free(database: Database) -> None:
    """A claim without a job leaves the stream as it was."""
    stream = rate_limiter(database)
    async with database.write() as connection:
        free = await stream.free_permits(connection, 1)
        assert await stream.take_permits(connection, free, 0) == []
    assert [await next_permit(database)] == free.permits


OTHER = RateKey("DescribeImages", "cvm.example", "default")


async def test_each_key_has_its_own_limit(database: Database) -> None:
    """Requests of one action do not count for another."""
    assert await take_permits(database, rate_limiter(database))
    assert await take_permits(database, rate_limiter(database, OTHER))


async def test_a_slow_down_concerns_all_processes(databases: Sequence[Database]) -> None:
    """A refusal that one process receives spaces the requests of the others too."""
    async with databases[0].write() as connection:
        await rate_limiter(databases[0]).slow_down(connection)
    other = rate_limiter(databases[1])
    await advance_time(databases[0], seconds=0.1)
    permits = await take_permits(databases[1], other, most=2)
    assert permits[1] - permits[0] > 1.02 * INTERVAL


async def until_a_lock_is_waited_for(database: Database) -> None:
    """Wait until a session waits for a row; on SQLite every writer waits anyway."""
    waiting = sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    with anyio.fail_after(10):
        while not database.is_sqlite:
            async with database.read() as connection:
                if (await connection.execute(waiting)).scalar_one():
                    break


async def test_a_refusal_counts_beside_one_that_is_recorded_meanwhile(
    databases: Sequence[Database],
) -> None:
    """The transaction that waited for the row reads what the other one has written."""

    async def slow_down(database: Database) -> None:
        async with database.write() as connection:
            await rate_limiter(database).slow_down(connection)

    await slow_down(databases[0])
    async with anyio.create_task_group() as tasks, databases[0].write() as connection:
        held = await rate_limiter(databases[0]).free_permits(connection, 0)
        tasks.start_soon(slow_down, databases[1])
        await until_a_lock_is_waited_for(databases[2])
        await rate_limiter(databases[0]).slow_down(connection)
    async with databases[0].read() as connection:
        pace = (await connection.execute(sa.select(rates.c.pace))).scalar_one()
    assert held.stream.pace == pytest.approx(0.97 * RATE)
    assert pace == pytest.approx(0.97**3 * RATE, rel=0.01)


async def test_next_permit_is_ahead_once_the_free_ones_are_taken(sqlite: Database) -> None:
    """`is_ahead` is true once all free permits are taken.

    Then the store is asked again only when a permit is near.
    """
    stream = rate_limiter(sqlite)
    assert not stream.is_ahead
    await take_permits(sqlite, stream)
    assert stream.is_ahead


async def test_a_row_from_another_clock_causes_no_wait(database: Database) -> None:
    """A permit hours ahead, as after a clock was set back, is ignored."""
    await take_permits(database, rate_limiter(database))
    async with database.write() as connection:
        ahead = await database.now(connection) + timedelta(hours=3)
        await connection.execute(rates.update().values(next_at=ahead))
    (permit,) = await take_permits(database, rate_limiter(database), most=1)
    assert permit < ahead - timedelta(hours=2)


async def test_a_permit_without_a_claim(sqlite: Database) -> None:
    """A request that needs no claim gets its permit in a transaction of its own."""
    permit = await rate_limiter(sqlite).acquire()
    await permit.wait()
    assert anyio.current_time() >= permit.at
    assert await next_permit(sqlite) == await now(sqlite) + INTERVAL


class _UnreadRow(AsyncConnection):
    """A connection whose store keeps nothing, so that every permit is always free."""

    def __init__(self) -> None: ...

    async def execute(self, *_arguments: Any, **_named: Any) -> Any:
        """Write nothing."""


def departures(closed: Database, ready: Sequence[float]) -> list[float]:
    """Return the times at which attempts are sent if all of them have permits.

    Args:
        closed: a store that is never opened.
        ready: times at which the attempts are ready, in seconds on the event loop's clock.
    """
    left: list[float] = []

    async def send(permit: Permit, moment: float) -> None:
        await anyio.sleep_until(moment)
        await permit.wait()
        left.append(anyio.current_time())

    async def work() -> None:
        free = FreePermits(PermitStream(NOON), NOON, 0.0, [NOON] * len(ready))
        permits = await rate_limiter(closed).take_permits(_UnreadRow(), free, len(ready))
        async with anyio.create_task_group() as tasks:
            for permit, moment in zip(permits, ready, strict=True):
                tasks.start_soon(send, permit, moment)

    in_no_time(work)
    return left


def test_attempts_that_are_ready_together_are_spaced(still: Database) -> None:
    """A process sends no burst, neither at the start nor after a stall."""
    left = departures(still, [0.0] * 40 + [10.0] * 40)
    gaps = [after - before for before, after in pairwise(left)]
    assert len(left) == 80
    assert min(gaps) >= 0.95 / RATE


def test_slow_claims_do_not_bunch_requests(still: Database) -> None:
    """Commits of different length bring no second over the rate."""
    rng = random.Random(7)
    interval = INTERVAL.total_seconds()
    ready = [number * interval + rng.choice((0.0, 0.01, 0.2)) for number in range(100)]
    left = departures(still, ready)
    assert max(sum(start <= time < start + 1 for time in left) for start in left) <= RATE + 1


def test_no_request_is_sent_before_its_permit(still: Database) -> None:
    """A request waits for its permit, with and without the limiter of the process."""

    async def work() -> None:
        for rate in (RATE, 0.0):
            free = FreePermits(PermitStream(NOON), NOON, anyio.current_time(), [NOON + INTERVAL])
            (permit,) = await rate_limiter(still, rate=rate).take_permits(_UnreadRow(), free, 1)
            await permit.wait()
            assert anyio.current_time() >= free.local_now + INTERVAL.total_seconds()

    in_no_time(work)


async def test_without_a_limit_there_is_no_limiter(
    sqlite: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a rate of 0 every permit is usable at once."""

    def refuse(*_: object) -> None:
        raise AssertionError("a limiter was made")

    monkeypatch.setattr(rate_module, "AsyncLimiter", refuse)
    permits = [await rate_limiter(sqlite, rate=0).acquire() for _ in range(3)]
    with anyio.fail_after(5):
        for permit in permits:
            await permit.wait()
