"""Writes down what came of an attempt: fenced by the attempt, and not torn by a cancellation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import compress
from typing import Any

import anyio
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.job_states import JobState
from orchestrator.limits import concurrency_limit
from orchestrator.limits.rate_limiter import RateLimiter
from orchestrator.model import NOT_SENT, Decision, Effect, Lease, Outcome, Reaction
from orchestrator.store import Database
from orchestrator.store import events as audit
from orchestrator.store.tables import attempts, jobs
from orchestrator.store.transitions import (
    Transition,
    apply_transition,
    apply_transitions,
    is_allowed,
)
from orchestrator.verification.expected_objects import names_job_or_image, save_cos_paths
from orchestrator.worker.outcome_policy import own_deferrals


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one attempt, and what is to be done about it.

    Args:
        lane: the stream of requests in which it was sent.
        sighted: the end of its export will be seen, as far as is known.
    """

    lease: Lease
    outcome: Outcome
    decision: Decision
    rate_limiter: RateLimiter
    is_end_visible: bool = False


async def record(
    database: Database, answers: Sequence[Answer], export_deadline: timedelta
) -> list[bool]:
    """Keeps each answer with its attempt, moves its job, tells gate and rate: one transaction.

    A job that has meanwhile been taken over is left where it is; its late TaskId is kept. An answer
    that is recorded already changes nothing: after a commit that seemed to fail the caller repeats
    this, although the commit may have been applied.

    Args:
        export_deadline: how long an accepted export may take before it counts as lost.

    Returns:
        For each answer whether it has moved its job just now.
    """
    with anyio.CancelScope(shield=True):
        async with database.write() as connection:
            # lock order: attempts, rates by key, jobs, scopes by region. A claim uses the same one
            # and skips locked jobs, so the two cannot deadlock
            are_new = await _are_new(connection, answers)
            new = list(compress(answers, are_new))
            moved = iter(await _record_new(database, connection, new, export_deadline))
    return [is_new and next(moved) for is_new in are_new]


async def _record_new(
    database: Database,
    connection: AsyncConnection,
    answers: Sequence[Answer],
    export_deadline: timedelta,
) -> list[bool]:
    """Record answers that are not recorded yet; return for each whether it moved its job."""
    if not answers:
        return []
    slowed = [one.rate_limiter for one in answers if one.outcome.code.reaction is Reaction.SLOW]
    for rate_limiter in sorted(slowed, key=lambda rate_limiter: rate_limiter.key):
        await rate_limiter.slow_down(connection)
    now = await database.now(connection)
    await _keep_answers(connection, answers, now)
    moves = [_move(one, now, export_deadline) for one in answers]
    moved = await apply_transitions(connection, moves, at=now)
    for one, intended, is_moved in zip(answers, moves, moved, strict=True):
        if not is_moved and _is_accepted(one):
            await _late_answer(connection, one, intended.changes, now)
    paths = [(one.lease.job_id, path) for one in answers for path in one.outcome.cos_paths]
    await save_cos_paths(connection, paths)
    for one in sorted(answers, key=_region):
        await _update_concurrency_limit(connection, one, now)
    return moved


async def _are_new(connection: AsyncConnection, answers: Sequence[Answer]) -> list[bool]:
    """Return for each answer whether its attempt does not hold it yet; lock the attempts.

    The lock waits for a transaction of our own whose connection was lost while it committed.
    """
    these = [(one.lease.job_id, one.lease.attempt) for one in answers]
    job_ids, numbers = zip(*these, strict=True)
    rows = (await connection.execute(_ATTEMPTS, {"jobs": job_ids, "numbers": numbers})).all()
    held = {(row.job_id, row.number): (row.code, row.task_id) for row in rows if row.answered_at}
    return [
        held.get(this) != (one.outcome.code.name, _text(one.outcome.task_id))
        for this, one in zip(these, answers, strict=True)
    ]


_ATTEMPTS = (
    sa.select(
        attempts.c.job_id,
        attempts.c.number,
        attempts.c.answered_at,
        attempts.c.code,
        attempts.c.task_id,
    )
    # a few too many, perhaps: for pairs SQLite would read the whole table
    .where(
        attempts.c.job_id.in_(sa.bindparam("jobs", expanding=True)),
        attempts.c.number.in_(sa.bindparam("numbers", expanding=True)),
    )
    .order_by(attempts.c.job_id, attempts.c.number)
    .with_for_update()
)


async def record_not_sent(connection: AsyncConnection, lease: Lease, now: datetime) -> None:
    """Keeps with the attempt that its request never left, unless it holds an answer."""
    this = attempts.update().where(
        attempts.c.job_id == lease.job_id,
        attempts.c.number == lease.attempt,
        attempts.c.answered_at.is_(None),
    )
    await connection.execute(this.values(answered_at=now, code=NOT_SENT, effect=Effect.NO))
    await concurrency_limit.record_answer(connection, lease, now, accepted=False)


async def _keep_answers(
    connection: AsyncConnection, answers: Sequence[Answer], now: datetime
) -> None:
    rows = [
        {
            "this_job": one.lease.job_id,
            "this_number": one.lease.attempt,
            "new_answered_at": now,
            "new_code": one.outcome.code.name,
            "new_reaction": one.outcome.code.reaction,
            "new_effect": one.outcome.code.effect,
            "new_message": one.outcome.message,
            "new_http_status": one.outcome.http_status,
            "new_request_id": one.outcome.request_id,
            "new_task_id": _text(one.outcome.task_id),
        }
        for one in answers
    ]
    await connection.execute(_KEEP_ANSWER, rows)


_ANSWER = (
    *("answered_at", "code", "reaction", "effect", "message"),
    *("http_status", "request_id", "task_id"),
)
_KEEP_ANSWER = (
    attempts.update()
    .where(attempts.c.job_id == sa.bindparam("this_job"))
    .where(attempts.c.number == sa.bindparam("this_number"))
    .values({name: sa.bindparam(f"new_{name}") for name in _ANSWER})
)


def _region(answer: Answer) -> str:
    return answer.lease.order.region


def _is_accepted(answer: Answer) -> bool:
    return answer.outcome.code.reaction is Reaction.ACCEPT


def _move(answer: Answer, now: datetime, deadline: timedelta) -> Transition:
    decision = answer.decision
    changes = _changes(answer, now, deadline)
    return Transition(
        answer.lease.job_id,
        JobState.SENDING,
        decision.state,
        kind=decision.state if decision.state is not JobState.QUEUED else "postponed",
        reason=decision.reason,
        actor=answer.lease.owner,
        attempt=answer.lease.attempt,
        changes=changes,
        details=_evidence(changes),
    )


def _changes(answer: Answer, now: datetime, deadline: timedelta) -> dict[str, Any]:
    """The job's columns after this outcome."""
    lease, outcome, decision = answer.lease, answer.outcome, answer.decision
    changes: dict[str, Any] = {
        "due_at": now + decision.delay,
        "attempts_charged": lease.attempts_charged + decision.charges_attempt,
        "deferrals": 0 if decision.charges_attempt else own_deferrals(lease, outcome),
        "maybe_applied": decision.maybe_applied,
        "request_id": outcome.request_id,
    }
    if decision.state is JobState.ACCEPTED:
        return changes | {
            "task_id": _text(outcome.task_id),
            "accepted_at": now,
            "deadline_at": now + deadline,
            "warnings": _warnings(lease, outcome),
            "code": None,
            "message": None,
            "remedy": None,
        }
    if decision.state is JobState.UNKNOWN:
        changes |= {"absent_since": None, "no_resend_before": None}
    return changes | {
        "code": outcome.code.name,
        "message": outcome.message,
        "remedy": outcome.code.remedy,
    }


def _warnings(lease: Lease, outcome: Outcome) -> list[str] | None:
    """What is odd about an acceptance; it is one all the same, and nothing is sent again."""
    order, paths = lease.order, outcome.cos_paths
    if any(names_job_or_image(path, order.name_prefix, order.image_ids) for path in paths):
        return None
    named = ", ".join(paths)
    return [f"The answer names {named}, which bears neither the tag nor an image of this job."]


async def _late_answer(
    connection: AsyncConnection, answer: Answer, changes: Mapping[str, Any], now: datetime
) -> None:
    """A TaskId for a job that was taken over: it settles the job, or it is kept as a warning.

    Of the latest attempt that had an effect it settles what nobody else has settled, or names the
    task of what was found in the bucket. Of an older one it says that the image may have been
    exported twice.
    """
    lease, outcome = answer.lease, answer.outcome
    job = (await connection.execute(sa.select(jobs).where(jobs.c.id == lease.job_id))).one()
    state = JobState(job.state)
    is_latest = not await _may_have_begun_later(connection, lease)
    # one that was accepted before, by what lay in the bucket, stays where that has led it
    if is_latest and job.accepted_at is None and is_allowed(state, JobState.ACCEPTED):
        late = Transition(
            lease.job_id,
            state,
            JobState.ACCEPTED,
            kind="late answer",
            reason="exporting",
            actor=lease.owner,
            attempt=job.attempt,
            changes=changes,
            details=_evidence(changes),
        )
        await apply_transition(connection, late, at=now)
        return
    if is_latest and job.task_id is None:
        task_id = {"task_id": _text(outcome.task_id), "request_id": outcome.request_id}
        await connection.execute(jobs.update().where(jobs.c.id == lease.job_id).values(task_id))
    kept = audit.Event(
        "late answer" if is_latest else "possible duplicate",
        lease.owner,
        lease.job_id,
        attempt=lease.attempt,
        details={"task_id": _text(outcome.task_id), "request_id": outcome.request_id},
    )
    await audit.append(connection, kept, at=now)


async def _may_have_begun_later(connection: AsyncConnection, lease: Lease) -> bool:
    """Whether a later attempt is in the air, or may have left an export of its own."""
    later = (attempts.c.job_id == lease.job_id) & (attempts.c.number > lease.attempt)
    query = sa.select(attempts.c.number).where(later, attempts.c.effect.is_distinct_from(Effect.NO))
    return (await connection.execute(query.limit(1))).first() is not None


async def _update_concurrency_limit(
    connection: AsyncConnection, answer: Answer, now: datetime
) -> None:
    lease, is_end_visible = answer.lease, answer.is_end_visible
    if answer.outcome.code.reaction is Reaction.CAPACITY:
        await concurrency_limit.record_refusal(
            connection, lease, now, is_end_visible=is_end_visible
        )
    else:
        await concurrency_limit.record_answer(connection, lease, now, accepted=_is_accepted(answer))


def _evidence(changes: Mapping[str, Any]) -> dict[str, object]:
    kept = ("task_id", "request_id", "code", "message", "warnings")
    return {name: changes[name] for name in kept if changes.get(name)}


def _text(task_id: int | None) -> str | None:
    return None if task_id is None else str(task_id)
