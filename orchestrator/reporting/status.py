"""Report the present state: jobs by state, the limits of each scope, and the time left."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median_high
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.forecast import latest_finished_exports
from orchestrator.job_states import UNDER_WAY, JobState
from orchestrator.limits.concurrency_limit import ConcurrencyLimit, concurrency_limits
from orchestrator.store import Database
from orchestrator.store.tables import CLAIMABLE, jobs, scopes

_SAMPLES = 50
"""Finished exports from which the usual duration is taken."""


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
            queued = waiting[profile, concurrency.region]
            usual = await _usual_seconds(connection, profile, concurrency.region, now)
            if queued:
                last_due = await _seconds_until_last_due(
                    connection, profile, concurrency.region, now
                )
                left = _seconds_for_queue(concurrency, queued, usual, rate, last_due)
            else:
                left = await _seconds_for_running(connection, profile, concurrency, usual, now)
            found.append(ScopeStatus(profile, concurrency, queued, usual, left))
    return tuple(found)


async def _usual_seconds(
    connection: AsyncConnection, profile: str, region: str, now: datetime
) -> float | None:
    """Return the median duration of the latest exports of a scope."""
    finished = await latest_finished_exports(connection, profile, region, now, limit=_SAMPLES)
    return median_high(one.took.total_seconds() for one in finished) if finished else None


async def _seconds_until_last_due(
    connection: AsyncConnection, profile: str, region: str, now: datetime
) -> float:
    """Return the seconds until the last queued job of a scope may be sent.

    Jobs that are not described yet are not considered: no index has their times.
    """
    of_scope = (jobs.c.profile == profile) & (jobs.c.region == region)
    query = sa.select(sa.func.max(jobs.c.due_at)).where(sa.text(CLAIMABLE), of_scope)
    last: datetime | None = await connection.scalar(query)
    return 0.0 if last is None else max(0.0, (last - now).total_seconds())


def _seconds_for_queue(
    concurrency: ConcurrencyLimit,
    queued: int,
    usual: float | None,
    rate: float,
    last_due: float,
) -> float | None:
    """Estimate the seconds until the queued and running exports of a scope are finished.

    The longer of two times: exporting in rounds of as many as may run at once, or sending the last
    job and waiting for its export.

    Args:
        last_due: seconds until the last queued job may be sent.
    """
    if usual is None:
        return None
    exports = queued + concurrency.running
    at_once = exports if concurrency.ceiling is None else concurrency.ceiling
    rounds = -(-exports // max(at_once, 1))
    sending = queued / rate if rate else 0.0
    return max(usual * rounds, max(sending, last_due) + usual)


async def _seconds_for_running(
    connection: AsyncConnection,
    profile: str,
    concurrency: ConcurrencyLimit,
    usual: float | None,
    now: datetime,
) -> float | None:
    """Estimate the seconds until the export that was accepted last is finished.

    ``None`` if a job is unknown or being sent: nobody can say how long it takes to resolve it.
    """
    if not concurrency.running:
        return 0.0
    of_scope = (jobs.c.profile == profile) & (jobs.c.region == concurrency.region)
    under_way = (
        sa.select(jobs.c.state, sa.func.max(jobs.c.accepted_at))
        .where(of_scope, jobs.c.state.in_(sorted(UNDER_WAY)))
        .group_by(jobs.c.state)
    )
    accepted_at = dict((await connection.execute(under_way)).all())
    if usual is None or set(accepted_at) != {JobState.ACCEPTED}:
        return None
    age: timedelta = now - accepted_at[JobState.ACCEPTED]
    return max(0.0, usual - age.total_seconds())
