"""Cancel jobs that wait in the queue."""

from dataclasses import dataclass

import sqlalchemy as sa

from orchestrator.job_states import JobState
from orchestrator.store import Database
from orchestrator.store.tables import jobs
from orchestrator.store.transitions import Transition, write_transitions


@dataclass(frozen=True, slots=True)
class CancelResult:
    """How many jobs were cancelled, or would be in a dry run.

    Args:
        changed: queued jobs, now cancelled.
        maybe_applied: those of them that were sent before and were not found in the bucket.
        skipped: jobs in another state; they may run already, or have ended.
    """

    changed: int = 0
    maybe_applied: int = 0
    skipped: int = 0


async def cancel(
    database: Database, wanted: sa.ColumnElement[bool], *, actor: str, dry_run: bool = False
) -> CancelResult:
    """Cancel queued jobs; an export that was requested cannot be called back.

    Args:
        wanted: which jobs, as a condition on the jobs table.
        dry_run: only count.
    """
    async with database.write() as connection:
        now = await database.now(connection)
        is_queued = jobs.c.state == JobState.QUEUED
        others = sa.select(sa.func.count()).where(wanted, ~is_queued)
        skipped = await connection.scalar(others) or 0
        columns = (jobs.c.id, jobs.c.attempt, jobs.c.maybe_applied)
        query = sa.select(*columns).where(wanted, is_queued).order_by(jobs.c.id).with_for_update()
        rows = (await connection.execute(query)).all()
        transitions = [
            Transition(
                row.id,
                JobState.QUEUED,
                JobState.CANCELLED,
                kind="cancelled",
                reason="given up",
                actor=actor,
                attempt=row.attempt,
            )
            for row in rows
        ]
        if not dry_run:
            await write_transitions(connection, transitions, at=now)
    return CancelResult(len(rows), sum(row.maybe_applied for row in rows), skipped)
