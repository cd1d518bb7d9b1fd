"""When an unknown job may be sent again: what an empty bucket proves.

An empty bucket proves nothing if the vendor begins to write late, names objects in another way than
documented, or hides uploads. So absence counts only in a bucket where an accepted job was found
under its tag, and only after twice the longest time that one of the last jobs took to leave its
first trace there.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.job_states import JobState
from orchestrator.settings import ResendMode, Settings
from orchestrator.store.tables import TRACED, current, jobs
from orchestrator.verification.job_objects import TrackedJob

_SAMPLES = 50
_SAFETY_FACTOR = 2


async def required_absence(
    connection: AsyncConnection, job: TrackedJob, settings: Settings
) -> timedelta | None:
    """Return how long look-ups must find nothing before a resend; ``None`` is never."""
    if job.exact_names or settings.resend is ResendMode.NEVER:
        return None
    if settings.resend is ResendMode.ALWAYS:
        return settings.resend_after
    longest = await _longest_time_to_trace(connection, job)
    return None if longest is None else max(settings.resend_after, _SAFETY_FACTOR * longest)


async def _longest_time_to_trace(connection: AsyncConnection, job: TrackedJob) -> timedelta | None:
    """Return the longest time from request to first trace in this bucket; ``None`` if unknown."""
    query = (
        sa.select(jobs.c.sent_at, jobs.c.first_trace_at)
        .where(
            sa.text(TRACED),
            jobs.c.profile == job.profile,
            jobs.c.region == job.region,
            jobs.c.bucket == job.bucket,
        )
        .order_by(jobs.c.id.desc())
        .limit(_SAMPLES)
    )
    rows = (await connection.execute(query)).all()
    return max((row.first_trace_at - row.sent_at for row in rows), default=None)


def left_to_operator(
    settings: Settings, now: Callable[[], datetime], table: sa.FromClause = jobs
) -> sa.ColumnElement[bool]:
    """Unknown jobs that only a late object or an operator can resolve, as a condition on jobs.

    They are looked up when they are due, but no run waits for them.

    Args:
        now: returns the time of the store whenever the condition is executed.
    """
    return sa.and_(
        table.c.state == JobState.UNKNOWN,
        _is_never_resent(settings.resend, table),
        table.c.absent_since.is_not(None),
        table.c.absent_since <= current(lambda: now() - settings.resend_after),
        table.c.due_at > current(now),
    )


def _is_never_resent(mode: ResendMode, table: sa.FromClause) -> sa.ColumnElement[bool]:
    match mode:
        case ResendMode.NEVER:
            return sa.true()
        case ResendMode.ALWAYS:
            return table.c.exact_names
        case ResendMode.PROVEN:
            return sa.or_(table.c.exact_names, ~_is_bucket_proven(table))


def _is_bucket_proven(table: sa.FromClause) -> sa.ColumnElement[bool]:
    traced = jobs.alias("traced")
    found = (
        sa.select(sa.literal(1))
        .select_from(traced)
        .where(
            traced.c.first_trace_at >= traced.c.sent_at,
            traced.c.profile == table.c.profile,
            traced.c.region == table.c.region,
            traced.c.bucket == table.c.bucket,
        )
        .correlate(table)
    )
    return found.exists()


async def traced_buckets(connection: AsyncConnection, profile: str) -> set[tuple[str, str]]:
    """Return region and name of each bucket in which an accepted job was found under its tag."""
    query = (
        sa.select(jobs.c.region, jobs.c.bucket)
        .where(sa.text(TRACED), jobs.c.profile == profile)
        .distinct()
    )
    return {(row.region, row.bucket) for row in await connection.execute(query)}


async def save_first_trace(connection: AsyncConnection, job: TrackedJob, at: datetime) -> None:
    """Save the time of a job's first trace, unless one is already stored.

    A trace is an object or an open upload. Nothing is saved if the job has a newer attempt.

    Args:
        at: time of the trace, on the store's clock.
    """
    this = jobs.update().where(
        jobs.c.id == job.job_id, jobs.c.attempt == job.attempt, jobs.c.first_trace_at.is_(None)
    )
    await connection.execute(this.values(first_trace_at=at))
