"""Cancel jobs that wait in the queue."""

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from orchestrator.job_states import JobState
from orchestrator.store import Database
from orchestrator.store.tables import jobs
from orchestrator.store.transitions import Transition, write_transitions


@dataclass(frozen=True, slots=True)
class Cancel:
    """What becomes of jobs that are given up.

    Args:
        changed: jobs that waited, and are cancelled.
        doubted: of these, jobs that were sent before, and of which nothing was found.
        untouched: jobs in another state: they may run already, or have ended.
    """

    changed: int = 0
    maybe_applied: int = 0
    untouched: int = 0


async def cancel(
    database: Database, wanted: sa.ColumnElement[bool], *, actor: str, dry_run: bool = False
) -> Cancel:
    """Gives up jobs that wait in the queue; what was sent cannot be called back.

    Args:
        wanted: which jobs, as a condition on the table of jobs.
        dry_run: say what would become of them, and change nothing.
    """
    async with database.write() as connection:
        now = await database.now(connection)
        is_queued = jobs.c.state == JobState.QUEUED
        others = sa.select(sa.func.count()).where(wanted, ~is_queued)
        untouched = int((await connection.execute(others)).scalar_one())
        needed = (jobs.c.id, jobs.c.attempt, jobs.c.maybe_applied)
        query = sa.select(*needed).where(wanted, is_queued).order_by(jobs.c.id).with_for_update()
        rows = (await connection.execute(query)).all()
        if not dry_run:
            for first in range(0, len(rows), _AT_A_TIME):
                given_up = [_cancelled(row, actor) for row in rows[first : first + _AT_A_TIME]]
                await write_transitions(connection, given_up, at=now)
    return Cancel(len(rows), sum(row.maybe_applied for row in rows), untouched)


_AT_A_TIME = 1000
"""Jobs whose moves and events are made together: they weigh more than the jobs' numbers."""


def _cancelled(row: Any, actor: str) -> Transition:
    return Transition(
        row.id,
        JobState.QUEUED,
        JobState.CANCELLED,
        kind="cancelled",
        reason="given up",
        actor=actor,
        attempt=row.attempt,
    )
