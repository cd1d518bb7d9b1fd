"""What a dead owner held becomes unknown: its requests may have left, no answer is held."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.cloud import clock_skew
from orchestrator.job_queue import worker_registry as owner
from orchestrator.job_states import LIVING, JobState
from orchestrator.store import Database
from orchestrator.store.tables import attempts, instances, jobs, scopes
from orchestrator.store.transitions import Transition, apply_transition

_LONGEST_WAIT = timedelta(hours=1)
"""No back-off, poll or probe is scheduled further ahead."""

LOST = "Client.AnswerLost"
_MESSAGE = "The process that sent this request ended before it recorded an answer."


async def recover_orphans(database: Database, me: str) -> int:
    """Takes over the jobs of owners that are gone; returns how many.

    Gone means that the owner's lock could be taken, or that its lease has run out. Unless it is
    dead for certain, a request may still be waiting to leave in a process that sleeps, so the job
    is not sent again before that request's signature has expired.
    """
    rescued = 0
    async with database.write() as connection:
        now = await database.now(connection)
        held = await _held_by_others(connection, me, now)
        others = await _other_instances(connection, me, {row.owner for row in held})
        proofs = {row.id: await owner.why_gone(database, connection, row) for row in others}
        for row in held:
            proof = proofs.get(row.owner)
            if proof is not None or row.expires_at <= now:
                rescued += await _give_up(connection, row, me, now, proof)
        gone = {name for name, proof in proofs.items() if proof is not None}
        this = instances.update().where(instances.c.id.in_(gone))
        await connection.execute(this.values(ended_at=now))
    for name in gone:
        owner.forget(database, name)
    owner.remove_stale_lock_files(database, {me, *proofs})
    return rescued


async def discard_impossible_times(database: Database) -> None:
    """Discard stored times that only a clock that was set meanwhile explains.

    A wait longer than any back-off would hold a job up for as long as the clock was ahead. The time
    from a request to its first object cannot be measured across two runs either, because the clock
    may have been set between them. What a user wants sent later stays as it is.
    """
    async with database.write() as connection:
        now = await database.now(connection)
        latest = now + _LONGEST_WAIT
        is_living = jobs.c.state.in_(sorted(LIVING))
        is_by_user = (jobs.c.attempt == 0) & (jobs.c.due_at > jobs.c.created_at)
        waits_too_long = is_living & ~is_by_user & (jobs.c.due_at > latest)
        await connection.execute(jobs.update().where(waits_too_long).values(due_at=now))
        is_untraced = is_living & jobs.c.trace_from.is_not(None) & jobs.c.first_trace_at.is_(None)
        await connection.execute(jobs.update().where(is_untraced).values(trace_from=None))
        probes_too_late = scopes.update().where(scopes.c.probe_at > latest)
        await connection.execute(probes_too_late.values(probe_at=now))
        probes_too_long = scopes.update().where(scopes.c.probe_until > latest)
        await connection.execute(probes_too_long.values(probe_job=None, probe_until=None))


async def _other_instances(connection: AsyncConnection, me: str, owners: set[str]) -> Sequence[Any]:
    """Instances that have not said goodbye, and those that hold a job all the same."""
    at_work = instances.c.ended_at.is_(None) | instances.c.id.in_(owners)
    query = sa.select(instances).where(at_work, instances.c.id != me)
    return (await connection.execute(query)).all()


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
    connection: AsyncConnection, row: Any, me: str, now: datetime, proof: owner.GoneReason | None
) -> bool:
    is_dead = proof is owner.GoneReason.DEAD
    rescued = Transition(
        row.id,
        JobState.SENDING,
        JobState.UNKNOWN,
        kind="rescued",
        reason="answer lost",
        actor=me,
        attempt=row.attempt,
        changes={
            "maybe_applied": True,
            "attempts_charged": row.attempts_charged + 1,
            "due_at": now,
            "absent_since": None,
            "no_resend_before": None if is_dead else row.claimed_at + clock_skew.SIGNATURE_LIFETIME,
            "code": LOST,
            "message": _MESSAGE,
            "remedy": "Nothing to do: the bucket is looked at before anything is sent again.",
        },
        details={"owner": row.owner, "proof": proof or "lease expired"},
    )
    return await apply_transition(connection, rescued, at=now)
