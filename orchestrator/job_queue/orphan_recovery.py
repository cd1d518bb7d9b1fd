"""Recover orphaned jobs: they become unknown, because their requests may have been sent."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from orchestrator.cloud import clock_skew
from orchestrator.job_queue import worker_registry
from orchestrator.job_states import JobState
from orchestrator.store import Database
from orchestrator.store.tables import attempts, instances, jobs
from orchestrator.store.transitions import Transition, apply_transitions

LOST = "Client.AnswerLost"
_MESSAGE = "The process that sent this request ended before it recorded an answer."


async def recover_orphans(database: Database, me: str) -> int:
    """Set orphaned jobs to unknown; return their number.

    A job in state sending is orphaned if its lease has expired, or if the liveness lock of its
    process is free. Unless that process is certainly dead, it may still send a request that it has
    signed. The job is then not sent again before this signature has expired. Processes that are
    gone are recorded as ended, and their lock files are removed.
    """
    async with database.write() as connection:
        now = await database.now(connection)
        is_current = (attempts.c.job_id == jobs.c.id) & (attempts.c.number == jobs.c.attempt)
        may_be_orphan = (jobs.c.owner != me) | (jobs.c.expires_at <= now)
        sending = sa.select(jobs, attempts.c.claimed_at).join(attempts, is_current)
        sending = sending.where(jobs.c.state == JobState.SENDING, may_be_orphan)
        held = (await connection.execute(sending)).all()
        # an ended process may still hold a job
        at_work = instances.c.ended_at.is_(None) | instances.c.id.in_({row.owner for row in held})
        query = sa.select(instances).where(at_work, instances.c.id != me)
        others = (await connection.execute(query)).all()
        proofs = {
            row.id: await worker_registry.why_gone(database, connection, row) for row in others
        }
        orphaned = [
            _to_unknown(row, me, now, proofs.get(row.owner))
            for row in held
            if proofs.get(row.owner) is not None or row.expires_at <= now
        ]
        recovered = await apply_transitions(connection, orphaned, at=now)
        gone = {name for name, proof in proofs.items() if proof is not None}
        this = instances.update().where(instances.c.id.in_(gone))
        await connection.execute(this.values(ended_at=now))
    worker_registry.remove_free_lock_files(database, keep={me, *proofs} - gone)
    return sum(recovered)


def _to_unknown(
    row: Any, me: str, now: datetime, proof: worker_registry.GoneReason | None
) -> Transition:
    is_dead = proof is worker_registry.GoneReason.DEAD
    return Transition(
        row.id,
        JobState.SENDING,
        JobState.UNKNOWN,
        kind="recovered",
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
            "remedy": "Nothing to do: the bucket is searched before anything is sent again.",
        },
        details={"owner": row.owner, "proof": proof or "lease expired"},
    )
