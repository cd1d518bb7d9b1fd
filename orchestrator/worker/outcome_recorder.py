"""Record the outcomes of attempts: answers, new states of the jobs, and limits.

A record is fenced by the attempt's number and may be repeated: after a commit that seemed to fail
the caller tries again, although the commit may have been applied.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import compress
from typing import Any

import anyio
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.job_states import JobState
from orchestrator.learned_vendor_facts import NO, VendorFact, record_fact
from orchestrator.limits import concurrency_limit
from orchestrator.limits.rate_limiter import RateLimiter
from orchestrator.model import HALTING, NOT_SENT, Effect, Lease, Outcome, Reaction, bucket_location
from orchestrator.object_keys import key_of_cos_path, names_job_or_image
from orchestrator.store import Database, events
from orchestrator.store.tables import attempts, jobs
from orchestrator.store.transitions import (
    Transition,
    apply_transition,
    apply_transitions,
    is_allowed,
)
from orchestrator.verification.tracked_jobs import save_cos_paths
from orchestrator.worker.outcome_policy import Decision, is_maybe_applied, own_deferrals


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """The outcome of one attempt and the decision that follows from it.

    Args:
        rate_limiter: the one that gave the permit for its request.
        is_end_visible: whether the end of an accepted export can be seen in the bucket.
    """

    lease: Lease
    outcome: Outcome
    decision: Decision
    rate_limiter: RateLimiter
    is_end_visible: bool = False

    @property
    def is_accepted(self) -> bool:
        """Whether the vendor accepted the export."""
        return self.outcome.code.reaction is Reaction.ACCEPT


async def record(
    database: Database, results: Sequence[AttemptResult], export_deadline: timedelta
) -> list[bool]:
    """Record results in one transaction; return for each whether it moved its job.

    A job that another process has taken over is not changed. A late TaskId is stored with the
    attempt, and resolves the job if nothing else has resolved it.

    Args:
        export_deadline: maximum time for an accepted export.
    """
    with anyio.CancelScope(shield=True):
        async with database.write() as connection:
            # Order of locks: attempts, jobs, rates, scopes. A claim locks rates, scopes and jobs,
            # but skips locked jobs instead of waiting for them, so the two cannot deadlock.
            now = await database.now(connection)
            await connection.execute(_SAVE_ANSWER, [_answer(one, now) for one in results])
            transitions = [_transition(one, now, export_deadline) for one in results]
            moved = await apply_transitions(connection, transitions, at=now)
            for one, intended, is_moved in zip(results, transitions, moved, strict=True):
                if not is_moved and one.is_accepted:
                    await _record_late_task_id(connection, intended, one.lease, now)
            paths = [row for one in results for row in _paths(one)]
            await save_cos_paths(connection, paths)
            # only from results that are recorded for the first time
            new_results = list(compress(results, moved))
            await _record_dropped_prefixes(connection, new_results, now)
            await _update_limits(connection, new_results, now)
    return moved


async def _record_dropped_prefixes(
    connection: AsyncConnection, results: Sequence[AttemptResult], now: datetime
) -> None:
    """Record the buckets whose answers name keys without the requested tag.

    From then on an empty listing under a tag proves nothing there. The first object without the tag
    shows the same, but only when its export has ended.
    """
    dropped = {
        (one.lease.profile, bucket_location(one.lease.order.region, one.lease.order.bucket))
        for one in results
        if one.outcome.cos_paths and not one.lease.exact_names and not _is_any_tagged(one)
    }
    for profile, bucket in sorted(dropped):
        await record_fact(connection, profile, bucket, VendorFact.PREFIX_HONOURED, NO, now)


def _is_any_tagged(result: AttemptResult) -> bool:
    tag = result.lease.order.name_prefix.lower()
    return any(key.lower().startswith(tag) for _, key, _ in _paths(result))


async def record_not_sent(connection: AsyncConnection, lease: Lease, now: datetime) -> None:
    """Record that an attempt's request was not sent, unless it has an answer."""
    this = attempts.update().where(
        attempts.c.job_id == lease.job_id,
        attempts.c.number == lease.attempt,
        attempts.c.answered_at.is_(None),
    )
    await connection.execute(this.values(answered_at=now, code=NOT_SENT, effect=Effect.NO))
    await concurrency_limit.record_answer(connection, lease, now, accepted=False)


_ANSWER = (
    *("answered_at", "code", "reaction", "effect", "message", "http_status"),
    *("request_id", "task_id"),
)
"""The columns of an attempt that its answer fills."""

_SAVE_ANSWER = (
    attempts.update()
    .where(
        attempts.c.job_id == sa.bindparam("of_job"),
        attempts.c.number == sa.bindparam("of_attempt"),
        # the first answer of an attempt is not overwritten, but a TaskId is always stored
        attempts.c.answered_at.is_(None)
        | (attempts.c.task_id.is_(None) & sa.bindparam("has_task", type_=sa.Boolean)),
    )
    .values({name: sa.bindparam(name) for name in _ANSWER})
)


def _answer(result: AttemptResult, now: datetime) -> dict[str, Any]:
    lease, outcome = result.lease, result.outcome
    return {
        "of_job": lease.job_id,
        "of_attempt": lease.attempt,
        "has_task": outcome.task_id is not None,
        "answered_at": now,
        "code": outcome.code.name,
        "reaction": outcome.code.reaction,
        "effect": outcome.code.effect,
        "message": outcome.message,
        "http_status": outcome.http_status,
        "request_id": outcome.request_id,
        "task_id": _text(outcome.task_id),
    }


def _transition(result: AttemptResult, now: datetime, deadline: timedelta) -> Transition:
    lease, outcome, decision = result.lease, result.outcome, result.decision
    changes: dict[str, Any] = {
        "due_at": now + decision.delay,
        "attempts_charged": lease.attempts_charged + decision.charges_attempt,
        "deferrals": 0 if decision.charges_attempt else own_deferrals(lease, outcome),
        "maybe_applied": is_maybe_applied(lease, decision),
        "request_id": outcome.request_id,
        "code": None if result.is_accepted else outcome.code.name,
        "message": None if result.is_accepted else outcome.message,
        "remedy": None if result.is_accepted else outcome.code.remedy,
    }
    if result.is_accepted:
        changes |= {
            "task_id": _text(outcome.task_id),
            "accepted_at": now,
            "deadline_at": now + deadline,
            "warnings": _warnings(lease, outcome),
        }
    if outcome.code.reaction in HALTING and not lease.images_shown:
        # what halts exports, such as a wrong key, may have been refused to DescribeImages too
        changes["described_at"] = None
    if decision.state is JobState.UNKNOWN:
        changes |= {"absent_since": None, "no_resend_before": None}
    return Transition(
        lease.job_id,
        JobState.SENDING,
        decision.state,
        kind=decision.state if decision.state is not JobState.QUEUED else "postponed",
        reason=decision.reason,
        actor=lease.owner,
        attempt=lease.attempt,
        changes=changes,
        details={name: changes[name] for name in _EVIDENCE if changes.get(name)},
    )


_EVIDENCE = ("task_id", "request_id", "code", "message", "warnings")
"""Columns that the event repeats."""


def _paths(result: AttemptResult) -> Iterator[tuple[int, str, str]]:
    """Yield job, key and text of each CosPath."""
    lease = result.lease
    for path in result.outcome.cos_paths:
        yield lease.job_id, key_of_cos_path(path, lease.order), path


def _warnings(lease: Lease, outcome: Outcome) -> list[str] | None:
    """Return the warnings about an acceptance; ``None`` if there are none.

    The job is accepted in any case, and never resent.
    """
    order, paths = lease.order, outcome.cos_paths
    if any(names_job_or_image(path, order.name_prefix, order.image_ids) for path in paths):
        return None
    named = ", ".join(paths)
    return [f"The answer names {named}, without the tag or an image id of this job."]


async def _record_late_task_id(
    connection: AsyncConnection, intended: Transition, lease: Lease, now: datetime
) -> None:
    """Record a TaskId for a job that has moved on since it was claimed.

    From the latest attempt that had an effect it accepts the job, or names the task of an export
    that was found in the bucket. From an older attempt it is a warning: the image may have been
    exported twice.
    """
    named = {name: intended.changes[name] for name in ("task_id", "request_id")}
    query = sa.select(jobs).where(jobs.c.id == lease.job_id).with_for_update()
    job = (await connection.execute(query)).one()
    if job.task_id == named["task_id"]:
        return  # recorded already, by a commit that seemed to fail
    state = JobState(job.state)
    is_latest = not await _may_have_begun_later(connection, lease)
    # the state of a job that was found in the bucket before is not changed
    if is_latest and job.accepted_at is None and is_allowed(state, JobState.ACCEPTED):
        late = replace(intended, source=state, kind="late answer", attempt=job.attempt)
        await apply_transition(connection, late, at=now)
        return
    if is_latest and job.task_id is None:
        await connection.execute(jobs.update().where(jobs.c.id == lease.job_id).values(named))
    event = events.Event(
        "late answer" if is_latest else "possible duplicate",
        lease.owner,
        lease.job_id,
        attempt=lease.attempt,
        details=named,
    )
    await events.append(connection, event, at=now)


async def _may_have_begun_later(connection: AsyncConnection, lease: Lease) -> bool:
    """Return whether a later attempt is in flight, or may have started an export."""
    later = (attempts.c.job_id == lease.job_id) & (attempts.c.number > lease.attempt)
    query = sa.select(attempts.c.number).where(later, attempts.c.effect.is_distinct_from(Effect.NO))
    return (await connection.execute(query.limit(1))).first() is not None


async def _update_limits(
    connection: AsyncConnection, results: Sequence[AttemptResult], now: datetime
) -> None:
    """Update the rate limit and the concurrency limit of each region from results."""
    refused_for_rate = [one for one in results if one.outcome.code.reaction is Reaction.SLOW]
    for one in sorted(refused_for_rate, key=lambda one: one.rate_limiter.key):
        await one.rate_limiter.slow_down(connection)
    for one in sorted(results, key=lambda one: one.lease.order.region):
        reaction = one.outcome.code.reaction
        if reaction in {Reaction.CAPACITY, Reaction.SUSPECT_REGION}:
            await concurrency_limit.record_refusal(
                connection,
                one.lease,
                now,
                is_end_visible=one.is_end_visible,
                is_suspected=reaction is Reaction.SUSPECT_REGION,
            )
        else:
            await concurrency_limit.record_answer(
                connection, one.lease, now, accepted=one.is_accepted
            )


def _text(task_id: int | None) -> str | None:
    return None if task_id is None else str(task_id)
