"""Writes down what came of an attempt: fenced by the attempt, and not torn by a cancellation."""

from datetime import datetime, timedelta
from typing import Any

import anyio
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator import audit
from orchestrator.db import Database
from orchestrator.model import NOT_SENT, Decision, Effect, JobState, Lease, Outcome, Reaction
from orchestrator.pace import gate
from orchestrator.settle.objects import keep_cos_paths
from orchestrator.tables import attempts, jobs
from orchestrator.transition import may_move, move


async def record(
    database: Database,
    lease: Lease,
    outcome: Outcome,
    decision: Decision,
    export_deadline: timedelta,
) -> None:
    """Keeps the answer with its attempt, moves the job, and tells the gate.

    A job that has meanwhile been taken over is left where it is; its late TaskId is kept.

    Args:
        export_deadline: how long an accepted export may take before it counts as lost.
    """
    with anyio.CancelScope(shield=True):
        async with database.write() as connection:
            now = await database.now(connection)
            await _keep_answer(connection, lease, outcome, now)
            changes = _changes(lease, outcome, decision, now, export_deadline)
            moved = await _settle(connection, lease, decision, changes, now)
            if outcome.code.reaction is Reaction.ACCEPT:
                if not moved:
                    await _late_answer(connection, lease, outcome, changes, now)
                await keep_cos_paths(connection, lease.job_id, outcome.cos_paths)
            await _tell_gate(connection, lease, outcome, now)


async def keep_not_sent(connection: AsyncConnection, lease: Lease, now: datetime) -> None:
    """Keeps with the attempt that its request never left."""
    await connection.execute(
        _this_attempt(lease).values(answered_at=now, code=NOT_SENT, effect=Effect.NO)
    )
    await gate.answered(connection, lease, now, accepted=False)


async def _keep_answer(
    connection: AsyncConnection, lease: Lease, outcome: Outcome, now: datetime
) -> None:
    await connection.execute(
        _this_attempt(lease).values(
            answered_at=now,
            code=outcome.code.name,
            reaction=outcome.code.reaction,
            effect=outcome.code.effect,
            message=outcome.message,
            http_status=outcome.http_status,
            request_id=outcome.request_id,
            task_id=_text(outcome.task_id),
        )
    )


def _changes(
    lease: Lease, outcome: Outcome, decision: Decision, now: datetime, deadline: timedelta
) -> dict[str, Any]:
    """The job's columns after this outcome."""
    changes: dict[str, Any] = {
        "due_at": now + decision.delay,
        "spent": lease.spent + decision.spends,
        "waits": 0 if decision.spends else lease.waits + 1,
        "doubted": decision.doubted,
        "request_id": outcome.request_id,
    }
    if decision.state is JobState.ACCEPTED:
        return changes | {
            "task_id": _text(outcome.task_id),
            "accepted_at": now,
            "deadline_at": now + deadline,
            "code": None,
            "message": None,
            "remedy": None,
        }
    if decision.state is JobState.UNKNOWN:
        changes |= {"clean_since": None, "fenced_until": None}
    return changes | {
        "code": outcome.code.name,
        "message": outcome.message,
        "remedy": outcome.code.remedy,
    }


async def _settle(
    connection: AsyncConnection,
    lease: Lease,
    decision: Decision,
    changes: dict[str, Any],
    now: datetime,
) -> bool:
    kind = decision.state if decision.state is not JobState.QUEUED else "postponed"
    return await move(
        connection,
        lease.job_id,
        JobState.SENDING,
        decision.state,
        kind=kind,
        reason=decision.reason,
        at=now,
        actor=lease.owner,
        attempt=lease.attempt,
        changes=changes,
        details=_evidence(changes),
    )


async def _late_answer(
    connection: AsyncConnection,
    lease: Lease,
    outcome: Outcome,
    changes: dict[str, Any],
    now: datetime,
) -> None:
    """A TaskId for a job that was taken over: it settles the job, or it is kept as a warning.

    Of the latest attempt that had an effect it settles what nobody else has settled, or names the
    task of what was found in the bucket. Of an older one it says that the image may have been
    exported twice.
    """
    job = (await connection.execute(sa.select(jobs).where(jobs.c.id == lease.job_id))).one()
    state = JobState(job.state)
    is_latest = not await _may_have_begun_later(connection, lease)
    # one that was accepted before, by what lay in the bucket, stays where that has led it
    if is_latest and job.accepted_at is None and may_move(state, JobState.ACCEPTED):
        await move(
            connection,
            lease.job_id,
            state,
            JobState.ACCEPTED,
            kind="late answer",
            reason="exporting",
            at=now,
            actor=lease.owner,
            attempt=job.attempt,
            changes=changes,
            details=_evidence(changes),
        )
        return
    if is_latest and job.task_id is None:
        task_id = {"task_id": _text(outcome.task_id), "request_id": outcome.request_id}
        await connection.execute(jobs.update().where(jobs.c.id == lease.job_id).values(task_id))
    await audit.append(
        connection,
        "late answer" if is_latest else "possible duplicate",
        at=now,
        actor=lease.owner,
        job_id=lease.job_id,
        attempt=lease.attempt,
        details={"task_id": _text(outcome.task_id), "request_id": outcome.request_id},
    )


async def _may_have_begun_later(connection: AsyncConnection, lease: Lease) -> bool:
    """Whether a later attempt is in the air, or may have left an export of its own."""
    later = (attempts.c.job_id == lease.job_id) & (attempts.c.number > lease.attempt)
    query = sa.select(attempts.c.number).where(later, attempts.c.effect.is_distinct_from(Effect.NO))
    return (await connection.execute(query.limit(1))).first() is not None


async def _tell_gate(
    connection: AsyncConnection, lease: Lease, outcome: Outcome, now: datetime
) -> None:
    if outcome.code.reaction is Reaction.CAPACITY:
        await gate.refused(connection, lease, now)
    else:
        accepted = outcome.code.reaction is Reaction.ACCEPT
        await gate.answered(connection, lease, now, accepted=accepted)


def _this_attempt(lease: Lease) -> sa.Update:
    return attempts.update().where(
        attempts.c.job_id == lease.job_id, attempts.c.number == lease.attempt
    )


def _evidence(changes: dict[str, Any]) -> dict[str, object]:
    kept = ("task_id", "request_id", "code", "message")
    return {name: changes[name] for name in kept if changes.get(name)}


def _text(task_id: int | None) -> str | None:
    return None if task_id is None else str(task_id)
