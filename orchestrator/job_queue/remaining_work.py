"""Whether a run still has something to wait for."""

from datetime import timedelta

import sqlalchemy as sa

from orchestrator.job_states import JobState
from orchestrator.store import Database
from orchestrator.store.tables import jobs


async def has_remaining_work(
    database: Database,
    mine: sa.ColumnElement[bool],
    *,
    sendable: sa.ColumnElement[bool],
    watched: sa.ColumnElement[bool],
    within: float | None,
) -> bool:
    """Whether any job of a run can still come further.

    Args:
        mine: the jobs of the run.
        sendable: those that no stop holds up.
        watched: those whose end the run will see.
        within: seconds; what is due later is out of the run's reach. ``None`` reaches anything.
    """
    async with database.read() as connection:
        queued = sa.and_(mine, sendable, jobs.c.state == JobState.QUEUED)
        if within is not None:
            horizon = await database.now(connection) + timedelta(seconds=within)
            queued = sa.and_(queued, jobs.c.due_at <= horizon)
        in_the_air = sa.and_(mine, jobs.c.state == JobState.SENDING)
        open_ends = [JobState.UNKNOWN, JobState.ACCEPTED]
        to_come = sa.and_(mine, watched, jobs.c.state.in_(open_ends))
        for condition in (in_the_air, queued, to_come):
            query = sa.select(sa.literal(1)).select_from(jobs).where(condition).limit(1)
            if (await connection.execute(query)).first() is not None:
                return True
    return False
