"""Report the present state: jobs, limits, the time left, warnings, what is known of the vendor."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.export_durations import latest_finished_exports, seconds_left, typical_duration
from orchestrator.job_queue.worker_registry import is_run_active
from orchestrator.job_states import LIVING, UNDER_WAY, JobState
from orchestrator.learned_vendor_facts import LearnedFact, all_facts
from orchestrator.limits.concurrency_limit import ConcurrencyLimit, concurrency_limits
from orchestrator.run_warnings import StoredWarning, stored_warnings
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
            0 if they should have finished already, ``None`` if unknown or no run is active.
    """

    profile: str
    concurrency: ConcurrencyLimit
    waiting: int
    usual_seconds: float | None
    seconds_left: float | None


@dataclass(frozen=True, slots=True)
class Status:
    """The state of the store, or of some batches, at one time.

    Args:
        is_run_active: whether a process may be working on the store; without one nothing is
            estimated, and no probe is due.
        reasons: jobs that wait, to be sent or to be looked up, by the reason.
        next_due_at: when the first waiting job may be sent; ``None`` unless all jobs wait for a
            later time.
        vendor: what the store has learned of the vendor.
        warnings: those of the runs in progress, or of the last ones.
    """

    at: datetime
    is_run_active: bool
    counts: Mapping[JobState, int]
    scopes: tuple[ScopeStatus, ...]
    reasons: Mapping[str, int]
    next_due_at: datetime | None
    vendor: tuple[LearnedFact, ...]
    warnings: tuple[StoredWarning, ...]

    @property
    def total(self) -> int:
        """Number of jobs in all states."""
        return sum(self.counts.values())

    @property
    def seconds_left(self) -> float | None:
        """Estimated time until the slowest scope is finished.

        ``None`` if it is unknown for any scope, or no run is active.
        """
        if not self.is_run_active:
            return None
        if self.next_due_at is not None:
            return (self.next_due_at - self.at).total_seconds()
        estimates = [scope.seconds_left for scope in self.scopes]
        known = [seconds for seconds in estimates if seconds is not None]
        return max(known, default=None) if len(known) == len(estimates) else None


async def status(
    database: Database,
    *,
    batches: Collection[str] | None = None,
    profile: str | None = None,
    rate: float = 0.0,
) -> Status:
    """Return the state of the store.

    Args:
        batches: count only the jobs of these; ``None`` is all.
        profile: of them count only those of this profile; ``None`` is all.
        rate: requests per second that may be sent, for the estimated time; 0 is no limit.
    """
    is_active = await is_run_active(database)
    async with database.read() as connection:
        now = await database.now(connection)
        # each reads only an index: one pass over that of scopes, or the part of that of batches
        total = sa.func.count().label("total")
        scope = [jobs.c.state, jobs.c.profile, jobs.c.region, jobs.c.reason]
        by_scope = (await connection.execute(sa.select(*scope, total).group_by(*scope))).all()
        groups: Sequence[Any] = by_scope
        is_counted: sa.ColumnElement[bool] = sa.true()
        if batches is not None:
            is_counted = jobs.c.batch.in_(sorted(batches))
            if profile is not None:
                is_counted &= jobs.c.profile == profile
            state = [jobs.c.state, jobs.c.reason]
            query = sa.select(*state, total).where(is_counted).group_by(*state)
            groups = (await connection.execute(query)).all()
        counts, reasons = dict.fromkeys(JobState, 0), Counter[str]()
        for group in groups:
            counts[JobState(group.state)] += group.total
            if group.state in {JobState.QUEUED, JobState.UNKNOWN}:
                reasons[group.reason] += group.total
        first_due: datetime | None = None
        if not any(counts[state] for state in UNDER_WAY):
            waiting = sa.select(sa.func.min(jobs.c.due_at)).where(jobs.c.state == JobState.QUEUED)
            first_due = await connection.scalar(waiting.where(is_counted))
        return Status(
            at=now,
            is_run_active=is_active,
            counts=counts,
            scopes=await _scopes(connection, by_scope, now, rate, is_active=is_active),
            reasons=reasons,
            next_due_at=first_due if first_due and first_due > now else None,
            vendor=await all_facts(connection),
            warnings=await stored_warnings(connection),
        )


async def unfinished_batches(database: Database, profile: str) -> frozenset[str]:
    """Return the batches of a profile that have a living job."""
    # an expression, so that an index of batches is read in its order instead of rows by their state
    is_living = jobs.c.state.concat("").in_(sorted(LIVING))
    query = sa.select(jobs.c.batch).where(is_living, jobs.c.profile == profile).distinct()
    async with database.read() as connection:
        return frozenset((await connection.execute(query)).scalars())


async def _scopes(
    connection: AsyncConnection,
    groups: Sequence[Any],
    now: datetime,
    rate: float,
    *,
    is_active: bool,
) -> tuple[ScopeStatus, ...]:
    waiting: Counter[tuple[str, str]] = Counter()
    for group in groups:
        if group.state == JobState.QUEUED:
            waiting[group.profile, group.region] += group.total
    query = sa.select(scopes.c.profile).distinct().order_by(scopes.c.profile)
    found: list[ScopeStatus] = []
    for profile in (await connection.execute(query)).scalars().all():
        for limit in await concurrency_limits(connection, profile, now):
            finished = await latest_finished_exports(connection, profile, limit.region, now)
            typical = typical_duration(finished)
            usual = None if typical is None else typical.total_seconds()
            queued = waiting[profile, limit.region]
            if not is_active:
                idle = replace(limit, probe_at=None)
                found.append(ScopeStatus(profile, idle, queued, usual, None))
                continue
            left = await seconds_left(
                connection,
                profile,
                limit.region,
                typical,
                now,
                waiting=queued,
                running=limit.running,
                ceiling=limit.ceiling,
                rate=rate,
            )
            found.append(ScopeStatus(profile, limit, queued, usual, left))
    return tuple(found)
