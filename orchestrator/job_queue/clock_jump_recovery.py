"""What waits in the store for a time that the machine's clock no longer tells."""

from collections.abc import Callable
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.job_states import LIVING, JobState
from orchestrator.store import Database
from orchestrator.store.tables import events, jobs, rates, scopes

_WORTH_TELLING = timedelta(seconds=2)


async def reset_waits_after_clock_jump(database: Database, notify: Callable[[str], None]) -> None:
    """Ends the waits and begins the times of grace anew; nobody else may be at work.

    For when the clock was set, or the machine booted, since the store was last worked on. A time
    of grace whose beginning another clock told may look long over, and a doubted job would be sent
    again too early; a wait that ends by another clock may hold a job up for hours. What a user
    wants sent no sooner than at some time of day is left alone.
    """
    async with database.write() as connection:
        now = await database.now(connection)
        newest = sa.select(events.c.at).order_by(events.c.id.desc()).limit(1)
        last = (await connection.execute(newest)).scalar_one_or_none()
        await _let_jobs_move(connection, now)
        await _let_scopes_probe(connection, now)
    if last is not None and last - now > _WORTH_TELLING:
        notify(
            f"This machine's clock was put back: the store's last event lies {last - now} ahead of "
            "it. Waits begin anew, and nothing is held up; see that the clock is right."
        )


async def _let_jobs_move(connection: AsyncConnection, now: datetime) -> None:
    living = jobs.c.state.in_(sorted(LIVING))
    users = (jobs.c.attempt == 0) & (jobs.c.due_at > jobs.c.created_at)
    ends_wait = jobs.update().where(living, ~users, jobs.c.due_at > now).values(due_at=now)
    await connection.execute(ends_wait)
    # its deadline is reckoned from here; a place is held until the export's end is seen
    under_way = jobs.update().where(jobs.c.state == JobState.ACCEPTED)
    await connection.execute(under_way.values(accepted_at=now, deadline_at=None, trace_from=None))
    # whoever might have held an unsent request is dead: the fence has nobody to keep out
    in_doubt = jobs.update().where(jobs.c.state == JobState.UNKNOWN)
    await connection.execute(
        in_doubt.values(absent_since=None, no_resend_before=None, trace_from=None)
    )


async def _let_scopes_probe(connection: AsyncConnection, now: datetime) -> None:
    waiting = scopes.update().where(scopes.c.probe_at > now)
    await connection.execute(waiting.values(probe_at=now))
    told = rates.update().where((rates.c.next_at > now) | (rates.c.slowed_at > now))
    await connection.execute(told.values(next_at=now, slowed_at=None, pace=None))
