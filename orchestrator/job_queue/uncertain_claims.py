"""Put back the jobs of a claim that was committed although it seemed to fail.

A connection can be lost while a claim commits. This process then does not know that it holds the
jobs, and never sends them. Without this step they would become unknown when their lease expires.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from orchestrator.job_states import JobState
from orchestrator.model import NOT_SENT, Effect
from orchestrator.store import Database
from orchestrator.store.tables import attempts, jobs, scopes
from orchestrator.store.transitions import Transition, write_transitions


async def put_back_unsent(
    database: Database,
    owner: str,
    regions: Sequence[str],
    unrecorded: Collection[tuple[int, int]],
) -> int:
    """Put back jobs that are claimed for this process but unknown to it; return how many.

    They are queued again, or unknown if an earlier attempt may have been applied.

    Args:
        owner: registration of this process.
        regions: regions in which this process is not claiming at the moment.
        unrecorded: job and number of its attempts that are not recorded yet.
    """
    async with database.write() as connection:
        # a claim locks these rows: this waits for one that the server is still committing
        await connection.execute(_LOCK_SCOPES, {"regions": regions})
        asked = {"owner": owner, "regions": regions, "unrecorded": list(unrecorded)}
        held = (await connection.execute(_HELD, asked)).all()
        if held:
            now = await database.now(connection)
            await write_transitions(connection, [_back(row, owner, now) for row in held], at=now)
            these = [{"this_job": row.id, "this_number": row.attempt, "at": now} for row in held]
            await connection.execute(_NOT_SENT, these)
            # a probe that was not sent must not delay the next one until the end of its lease
            probed = scopes.c.probe_at.in_([row.expires_at for row in held])
            await connection.execute(scopes.update().where(probed).values(probe_at=now))
    return len(held)


def _back(row: Any, owner: str, now: datetime) -> Transition:
    return Transition(
        row.id,
        JobState.SENDING,
        JobState.UNKNOWN if row.maybe_applied else JobState.QUEUED,
        kind="not sent",
        reason="not sent",
        actor=owner,
        attempt=row.attempt,
        changes={"absent_since": None, "due_at": now},
        details={"message": "The store failed during the claim, so no request was sent."},
    )


_REGIONS = sa.bindparam("regions", type_=sa.Text, expanding=True)
_LOCK_SCOPES = (
    sa.select(scopes.c.region)
    .where(scopes.c.region.in_(_REGIONS))
    .order_by(scopes.c.profile, scopes.c.region)
    .with_for_update()
)
_HELD = (
    sa.select(jobs.c.id, jobs.c.attempt, jobs.c.maybe_applied, jobs.c.expires_at)
    .where(
        jobs.c.state == JobState.SENDING,
        jobs.c.owner == sa.bindparam("owner"),
        jobs.c.region.in_(_REGIONS),
        sa.tuple_(jobs.c.id, jobs.c.attempt).not_in(sa.bindparam("unrecorded", expanding=True)),
    )
    .order_by(jobs.c.id)
    .with_for_update()
)
_NOT_SENT = (
    attempts.update()
    .where(
        attempts.c.job_id == sa.bindparam("this_job"),
        attempts.c.number == sa.bindparam("this_number"),
        attempts.c.answered_at.is_(None),
    )
    .values(answered_at=sa.bindparam("at"), code=NOT_SENT, effect=Effect.NO)
)
