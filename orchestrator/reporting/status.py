"""Report the present state: jobs by state, the limits of each scope, and the time left."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.forecast import latest_finished_exports, seconds_left, typical_duration
from orchestrator.job_states import UNDER_WAY, JobState
from orchestrator.limits.concurrency_limit import ConcurrencyLimit, concurrency_limits
from orchestrator.store import Database
from orchestrator.store.tables import jobs, scopes


@dataclass(frozen=True, slots=True)
class ScopeStatus:
    """One profile in one region.

    Args:
        waiting: queued jobs.
        usual_seconds: median duration of the latest exports, from acceptance to verification;
            ``None`` before the first has finished.
        seconds_left: estimated time until all jobs are finished at the present concurrency limit;
            0 if they should have finished already, ``None`` if unknown.
    """

    profile: str
    concurrency: ConcurrencyLimit
    waiting: int
    usual_seconds: float | None
    seconds_left: float | None


@dataclass(frozen=True, slots=True)
class Status:
    """The state of the store, or of one batch, at one time.

    Args:
        reasons: jobs that wait, to be sent or to be looked up, by the reason.
        next_due_at: when the first waiting job may be sent; ``None`` unless all jobs wait for a
            later time.
    """

    at: datetime
    counts: Mapping[JobState, int]
    scopes: tuple[ScopeStatus, ...]
    reasons: Mapping[str, int]
    next_due_at: datetime | None

    @property
    def total(self) -> int:
        """Number of jobs in all states."""
        return sum(self.counts.values())

    @property
    def seconds_left(self) -> float | None:
        """Estimated time until the slowest scope is finished; ``None`` if unknown for any scope."""
        if self.next_due_at is not None:
            return (self.next_due_at - self.at).total_seconds()
        estimates: list[float] = []
        for scope in self.scopes:
            if scope.seconds_left is None:
                return None
            estimates.append(scope.seconds_left)
        return max(estimates, default=None)


async def status(database: Database, *, batch: str | None = None, rate: float = 0.0) -> Status:
    """Return the state of the store; with ``batch``, the counts of this batch only.

    Args:
        rate: requests per second that may be sent, for the estimated time; 0 is no limit.
    """
    async with database.read() as connection:
        now = await database.now(connection)
        all_groups = (await connection.execute(_GROUPS)).all()
        groups = all_groups if batch is None else await _groups_of_batch(connection, batch)
        counts = _sum_by(groups, "state")
        return Status(
            at=now,
            counts={state: counts[state] for state in JobState},
            scopes=await _scopes(connection, all_groups, now, rate),
            reasons=_sum_by(_in_state(groups, JobState.QUEUED, JobState.UNKNOWN), "reason"),
            next_due_at=await _next_due_at(connection, counts, batch, now),
        )


_GROUP_COLUMNS = (jobs.c.state, jobs.c.profile, jobs.c.region, jobs.c.reason)
_GROUPS = sa.select(*_GROUP_COLUMNS, sa.func.count().label("total")).group_by(*_GROUP_COLUMNS)
"""Counts of jobs that are equal in these columns: one pass over an index that has only these."""


async def _groups_of_batch(connection: AsyncConnection, batch: str) -> Sequence[Any]:
    """Count the jobs of one batch by state and reason; its index has only these columns."""
    columns = (jobs.c.state, jobs.c.reason)
    query = sa.select(*columns, sa.func.count().label("total")).where(jobs.c.batch == batch)
    return (await connection.execute(query.group_by(*columns))).all()


def _sum_by(groups: Iterable[Any], column: str) -> Counter[str]:
    """Sum the counts of the groups that are equal in one column."""
    sums: Counter[str] = Counter()
    for group in groups:
        sums[getattr(group, column)] += group.total
    return sums


def _in_state(groups: Iterable[Any], *states: JobState) -> list[Any]:
    return [group for group in groups if group.state in states]


async def _next_due_at(
    connection: AsyncConnection, counts: Mapping[str, int], batch: str | None, now: datetime
) -> datetime | None:
    """Return when the first queued job may be sent; ``None`` if there is anything to do now."""
    if any(counts[state] for state in UNDER_WAY):
        return None
    of_batch = sa.true() if batch is None else jobs.c.batch == batch
    waiting = sa.and_(jobs.c.state == JobState.QUEUED, of_batch)
    due = sa.select(sa.literal(1)).where(waiting, jobs.c.due_at <= now).limit(1)
    if await connection.scalar(due) is not None:
        return None
    first: datetime | None = await connection.scalar(
        sa.select(sa.func.min(jobs.c.due_at)).where(waiting)
    )
    return first


async def _scopes(
    connection: AsyncConnection, groups: Iterable[Any], now: datetime, rate: float
) -> tuple[ScopeStatus, ...]:
    waiting: Counter[tuple[str, str]] = Counter()
    for group in _in_state(groups, JobState.QUEUED):
        waiting[group.profile, group.region] += group.total
    query = sa.select(scopes.c.profile).distinct().order_by(scopes.c.profile)
    found: list[ScopeStatus] = []
    for profile in (await connection.execute(query)).scalars().all():
        for concurrency in await concurrency_limits(connection, profile, now):
            region = concurrency.region
            finished = await latest_finished_exports(connection, profile, region, now)
            typical = typical_duration(finished)
            left = await seconds_left(
                connection,
                profile,
                region,
                typical,
                now,
                waiting=waiting[profile, region],
                running=concurrency.running,
                ceiling=concurrency.ceiling,
                rate=rate,
            )
            found.append(
                ScopeStatus(
                    profile,
                    concurrency,
                    waiting[profile, region],
                    usual_seconds=None if typical is None else typical.total_seconds(),
                    seconds_left=left,
                )
            )
    return tuple(found)
