"""What a dead owner held becomes unknown: its requests may have left, no answer is held."""

from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.db import Database
from orchestrator.lease import owner
from orchestrator.model import JobState
from orchestrator.tables import attempts, instances, jobs
from orchestrator.transition import move

SIGNATURE_LIFETIME = timedelta(seconds=330)
"""After this the vendor refuses a signature (300 s, and a little for the clocks)."""

LOST = "Client.AnswerLost"
_MESSAGE = "The process that sent this request ended before it recorded an answer."


async def rescue(database: Database, me: str) -> int:
    """Takes over the jobs of owners that are gone; returns how many.

    Gone means that the owner's lock could be taken, or that its lease has run out. In the second
    case a request may still be waiting to leave in a process that sleeps, so the job is not sent
    again before that request's signature has expired.
    """
    rescued = 0
    async with database.write() as connection:
        now = await database.now(connection)
        held = await _held_by_others(connection, me, now)
        others = {row.owner for row in held} | await _others_not_ended(connection, me)
        gone = {name for name in others - {me} if owner.is_proven_gone(database, name)}
        for row in held:
            if row.owner in gone or row.expires_at <= now:
                rescued += await _give_up(connection, row, me, now, gone=row.owner in gone)
        this = instances.update().where(instances.c.id.in_(gone))
        await connection.execute(this.values(ended_at=now))
    for name in gone:
        owner.forget(database, name)
    return rescued


async def _others_not_ended(connection: AsyncConnection, me: str) -> set[str]:
    """Instances that have not said goodbye, whether or not they hold a job."""
    query = sa.select(instances.c.id).where(instances.c.ended_at.is_(None), instances.c.id != me)
    return set((await connection.execute(query)).scalars())


async def _held_by_others(connection: AsyncConnection, me: str, now: datetime) -> list[Any]:
    """Jobs under another's lease, or under one of ours that has run out unrecorded."""
    query = (
        sa.select(jobs, attempts.c.claimed_at)
        .join(
            attempts, sa.and_(attempts.c.job_id == jobs.c.id, attempts.c.number == jobs.c.attempt)
        )
        .where(jobs.c.state == JobState.SENDING, (jobs.c.owner != me) | (jobs.c.expires_at <= now))
    )
    return list((await connection.execute(query)).all())


async def _give_up(
    connection: AsyncConnection, row: Any, me: str, now: datetime, *, gone: bool
) -> bool:
    return await move(
        connection,
        row.id,
        JobState.SENDING,
        JobState.UNKNOWN,
        kind="rescued",
        reason="answer lost",
        at=now,
        actor=me,
        attempt=row.attempt,
        changes={
            "doubted": True,
            "spent": row.spent + 1,
            "due_at": now,
            "clean_since": None,
            "fenced_until": None if gone else row.claimed_at + SIGNATURE_LIFETIME,
            "code": LOST,
            "message": _MESSAGE,
            "remedy": "Nothing to do: the bucket is looked at before anything is sent again.",
        },
        details={"owner": row.owner, "proof": "its lock was free" if gone else "lease expired"},
    )
