"""Unknown jobs: settled by evidence from the bucket, or sent again when absence is proven."""

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.clock import iso
from orchestrator.cloud.cos import CosClient
from orchestrator.job_states import JobState
from orchestrator.model import NOT_RULED_OUT
from orchestrator.store import Database
from orchestrator.store import events as audit
from orchestrator.store.tables import jobs
from orchestrator.store.transitions import Transition, apply_transition
from orchestrator.verification.expected_objects import TrackedJob, save_cos_paths, save_seen_objects
from orchestrator.verification.object_lookup import LookupResult, look
from orchestrator.verification.resend_policy import ResendMode, ResolvePolicy, required_absence


async def resolve(
    database: Database, cos: CosClient, job: TrackedJob, policy: ResolvePolicy, actor: str
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
    job: TrackedJob,
    traces: LookupResult,
    policy: ResolvePolicy,
    now: datetime,
    actor: str,
) -> JobState:
    """Takes what was found in the bucket for the answer that is not held: no TaskId, but keys."""
    first_trace = {}
    if traces.age is not None and job.needs_first_trace:
        first_trace = {"first_trace_at": job.first_trace(now, traces.age)}
    adopted = Transition(
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
            **first_trace,
        },
        details={
            "uploads": list(traces.uploads),
            "objects": [facts.key for facts in traces.objects],
        },
    )
    if not await apply_transition(connection, adopted, at=now):
        return job.state
    await save_cos_paths(connection, [(job.job_id, f"/{key}") for key in traces.keys])
    await save_seen_objects(connection, [(job.job_id, facts) for facts in traces.objects], now)
    return JobState.ACCEPTED


async def _clean_look(
    connection: AsyncConnection, job: TrackedJob, policy: ResolvePolicy, now: datetime, actor: str
) -> JobState:
    if job.absent_since is None:
        this = jobs.update().where(jobs.c.id == job.job_id, jobs.c.attempt == job.attempt)
        await connection.execute(this.values(absent_since=now))
        return job.state
    # a request that a stopped process sends at the last moment needs the same time to leave a trace
    absent_for = now - max(job.absent_since, job.no_resend_before or job.absent_since)
    if absent_for < policy.resend_after:
        return job.state
    required = await required_absence(connection, job, policy)
    if required is None:
        await _leave_to_operator(connection, job, policy, now, actor)
    if required is None or absent_for < required:
        return job.state
    gives_up = job.attempts_charged >= policy.max_attempts
    target = JobState.FAILED if gives_up else JobState.QUEUED
    absent = Transition(
        job.job_id,
        JobState.UNKNOWN,
        target,
        kind="absent",
        reason="not in the bucket",
        actor=actor,
        attempt=job.attempt,
        known={"absent_since": job.absent_since},
        changes={"due_at": now} | (_given_up(job) if gives_up else {}),
        details={"absent_since": iso(job.absent_since), "attempts": job.attempts_charged},
    )
    return target if await apply_transition(connection, absent, at=now) else job.state


async def _leave_to_operator(
    connection: AsyncConnection, job: TrackedJob, policy: ResolvePolicy, now: datetime, actor: str
) -> None:
    """Say once, with the job, why it is not sent again by itself."""
    why = _WHY_NOT_RESENT["exact names" if job.exact_names else policy.resend]
    remedy = (
        "Look for the export in the console and in the bucket; then "
        f"`orchestrator resolve {job.job_id} --as accepted|absent --why '...'`."
    )
    this = jobs.update().where(
        jobs.c.id == job.job_id,
        jobs.c.attempt == job.attempt,
        jobs.c.state == JobState.UNKNOWN,
        jobs.c.reason != NOT_RULED_OUT,
    )
    changed = await connection.execute(
        this.values(reason=NOT_RULED_OUT, message=why, remedy=remedy)
    )
    if changed.rowcount:
        event = audit.Event(
            "not resent", actor, job.job_id, attempt=job.attempt, details={"message": why}
        )
        await audit.append(connection, event, at=now)


_WHY_NOT_RESENT = {
    "exact names": "The bucket shows nothing of this export. Under exact names that is no proof.",
    ResendMode.NEVER: "The bucket shows nothing of this export; the settings say: resend never.",
    ResendMode.PROVEN: (
        "The bucket shows nothing of this export. No accepted export of this bucket has been found "
        "under its tag yet, so that does not prove that it never began."
    ),
}


def _given_up(job: TrackedJob) -> dict[str, str]:
    return {
        "message": f"{job.attempts_charged} requests were left without an answer, and the bucket "
        "holds nothing of them.",
        "remedy": "Look at the image's state in the console; then `orchestrator retry "
        f"--job {job.job_id}`, which looks for a late object first.",
    }
