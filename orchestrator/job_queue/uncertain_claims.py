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
) -> None:
    """Put back jobs that are claimed for this process but unknown to it.

    They are queued again, or unknown if an earlier attempt may have been applied.

    Args:
        owner: registration of this process.
        regions: regions in which this process is not claiming at the moment.
        unrecorded: job and number of its attempts that are not recorded yet.
    """
    async with database.write() as connection:
        # a claim locks these rows: this waits for one that the server is still committing
        of_regions = sa.select(scopes.c.region).where(scopes.c.region.in_(regions))
        in_order = of_regions.order_by(scopes.c.profile, scopes.c.region)
        await connection.execute(in_order.with_for_update())
        query = sa.select(jobs).where(
            jobs.c.state == JobState.SENDING,
            jobs.c.owner == owner,
            jobs.c.region.in_(regions),
            sa.tuple_(jobs.c.id, jobs.c.attempt).not_in(list(unrecorded)),
        )
        held = (await connection.execute(query.order_by(jobs.c.id).with_for_update())).all()
        if held:
            now = await database.now(connection)
            await write_transitions(connection, [_back(row, owner, now) for row in held], at=now)
            these = sa.tuple_(attempts.c.job_id, attempts.c.number).in_(
                [(row.id, row.attempt) for row in held]
            )
            not_sent = {"answered_at": now, "code": NOT_SENT, "effect": Effect.NO}
            unanswered = attempts.update().where(these, attempts.c.answered_at.is_(None))
            await connection.execute(unanswered.values(not_sent))
            # a probe that was not sent must not delay the next one until the end of its lease
            probed = scopes.c.probe_at.in_([row.expires_at for row in held])
            await connection.execute(scopes.update().where(probed).values(probe_at=now))


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
