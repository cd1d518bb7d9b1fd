"""Unknown jobs: settled by evidence from the bucket, or sent again after a time of clean looks."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.clock import iso
from orchestrator.cloud.cos import CosClient
from orchestrator.db import Database
from orchestrator.model import JobState
from orchestrator.settle.look import Traces, look
from orchestrator.settle.objects import Watched, keep_cos_paths, keep_seen
from orchestrator.tables import Moment, jobs
from orchestrator.transition import Move, move


@dataclass(frozen=True, slots=True)
class ResolvePolicy:
    """When an unknown job may be sent again.

    Args:
        resend_after: time of clean looks.
        max_attempts: attempts that count before the job fails instead.
        export_deadline: how long an adopted export may take before it counts as lost.
    """

    resend_after: timedelta
    max_attempts: int
    export_deadline: timedelta


async def resolve(
    database: Database, cos: CosClient, job: Watched, policy: ResolvePolicy, actor: str
) -> JobState:
    """Looks once for traces of an unknown job; returns the state it is in after it.

    Raises:
        CloudRefusal, httpx.HTTPError: the look failed, which says nothing; nothing is changed.
    """
    traces = await look(cos, job)
    async with database.write() as connection:
        now = await database.now(connection)
        if traces:
            return await adopt(connection, job, traces, policy, now, actor)
        return await _clean_look(connection, job, policy, now, actor)


async def adopt(
    connection: AsyncConnection,
    job: Watched,
    traces: Traces,
    policy: ResolvePolicy,
    now: datetime,
    actor: str,
) -> JobState:
    """Takes what was found in the bucket for the answer that is not held: no TaskId, but keys."""
    adopted = Move(
        job.job_id,
        job.state,
        JobState.ACCEPTED,
        kind="adopted",
        reason="found in the bucket",
        actor=actor,
        attempt=job.attempt,
        changes={
            "accepted_at": now,
            "deadline_at": now + policy.export_deadline,
            "due_at": now,
            "code": None,
            "message": None,
            "remedy": None,
        },
        details={
            "uploads": list(traces.uploads),
            "objects": [facts.key for facts in traces.objects],
        },
    )
    if not await move(connection, adopted, at=now):
        return job.state
    await keep_cos_paths(connection, [(job.job_id, f"/{key}") for key in traces.keys])
    await keep_seen(connection, [(job.job_id, facts) for facts in traces.objects], now)
    return JobState.ACCEPTED


async def _clean_look(
    connection: AsyncConnection, job: Watched, policy: ResolvePolicy, now: datetime, actor: str
) -> JobState:
    if job.clean_since is None:
        this = jobs.update().where(jobs.c.id == job.job_id, jobs.c.attempt == job.attempt)
        await connection.execute(this.values(clean_since=now))
        return job.state
    # what a sleeper sends at the last moment leaves its trace only after a time of grace of its own
    begun = max(job.clean_since, job.fenced_until or job.clean_since)
    if job.exact_names or now - begun < policy.resend_after:
        return job.state
    gives_up = job.spent >= policy.max_attempts
    target = JobState.FAILED if gives_up else JobState.QUEUED
    absent = Move(
        job.job_id,
        JobState.UNKNOWN,
        target,
        kind="absent",
        reason="not in the bucket",
        actor=actor,
        attempt=job.attempt,
        known={"clean_since": job.clean_since},
        changes={"due_at": now} | (_given_up(job) if gives_up else {}),
        details={"clean_since": iso(job.clean_since), "attempts": job.spent},
    )
    return target if await move(connection, absent, at=now) else job.state


def _given_up(job: Watched) -> dict[str, str]:
    return {
        "message": f"{job.spent} requests were left without an answer, and the bucket holds "
        "nothing of them.",
        "remedy": "Look at the image's state in the console; then `orchestrator retry "
        f"--job {job.job_id}`, which looks for a late object first.",
    }


def left_to_a_person(
    policy: ResolvePolicy, now: Callable[[], datetime], table: sa.FromClause = jobs
) -> sa.ColumnElement[bool]:
    """Unknown jobs that only a late object can still settle, as a condition on the table of jobs.

    Under an exact name they are never sent again by themselves; once the time of clean looks is
    over they are looked at whenever they are due, and keep no run alive.

    Args:
        now: tells the time of the store whenever the condition is put to use.
    """
    return sa.and_(
        table.c.state == JobState.UNKNOWN,
        table.c.exact_names,
        table.c.clean_since.is_not(None),
        table.c.clean_since <= _by(lambda: now() - policy.resend_after),
        table.c.due_at > _by(now),
    )


def _by(moment: Callable[[], datetime]) -> sa.BindParameter[datetime]:
    return sa.bindparam("moment", callable_=moment, type_=Moment, unique=True)
