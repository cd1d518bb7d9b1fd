"""Check an attempt in the bucket and in the store before its request is sent."""

from datetime import datetime, timedelta

import httpx
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.cloud.cos import CosClient
from orchestrator.errors import CloudRefusal, OrchestratorError
from orchestrator.job_states import JobState
from orchestrator.limits.halted_scopes import bucket_location
from orchestrator.model import Effect, Lease
from orchestrator.settings import Settings
from orchestrator.store import Database
from orchestrator.store.tables import attempts, jobs
from orchestrator.store.transitions import Transition, apply_transition
from orchestrator.verification.bucket_access import BucketAccess
from orchestrator.verification.bucket_trust import calibrate
from orchestrator.verification.object_lookup import LookupResult, baselines, look
from orchestrator.verification.tracked_jobs import TrackedJob, load_tracked_job, save_baselines
from orchestrator.verification.unknown_jobs import reconcile
from orchestrator.worker.outcome_recorder import record_not_sent

_RETRY = timedelta(seconds=5)


async def check_before_send(
    database: Database,
    cos: CosClient,
    buckets: BucketAccess,
    lease: Lease,
    settings: Settings,
) -> bool:
    """Return whether the attempt may be sent; if not, the job has its new state already.

    A job that was requested before is looked up first, whatever the answer was: a refusal may come
    from a gateway that repeated a request which began the export. What is found is accepted. With
    exact names the existing objects are recorded before the first request.

    After a store error the caller repeats this check. A job that the first call put back is then
    not sent, because the process that claims it next would send it a second time.
    """
    if lease.attempt == 1 and not (lease.maybe_applied or lease.exact_names):
        return True
    async with database.read() as connection:
        was_requested = lease.maybe_applied or await _was_requested(connection, lease)
        job = await load_tracked_job(connection, lease.job_id)
    if not (was_requested or lease.exact_names):
        return True
    found, etags = LookupResult(), dict[str, str]()
    failure: str | None = None  # the text of some errors is empty
    try:
        found, etags = await _look_up(
            database, cos, buckets, lease, job, was_requested=was_requested
        )
    except (OrchestratorError, httpx.HTTPError) as error:
        if isinstance(error, CloudRefusal):
            buckets.record_refusal(bucket_location(job.region, job.bucket), error)
        failure = str(error)
    async with database.write() as connection:
        now = await database.now(connection)
        expires_at = await _held_until(connection, lease)
        if expires_at is None:
            pass  # the lease expired during the look-up, and another process has taken the job over
        elif failure is not None:
            await _put_back(connection, lease, now, reason="bucket not readable", why=failure)
        elif found:
            await reconcile(connection, job, found, settings, now, lease.owner)
        elif now >= expires_at:
            why = "The lease expired during the look-up in the bucket."
            await _put_back(connection, lease, now, reason="not sent", why=why)
        else:
            await save_baselines(connection, lease.job_id, etags)
            return True
        await record_not_sent(connection, lease, now)
        return False


async def _was_requested(connection: AsyncConnection, lease: Lease) -> bool:
    """Return whether a request of an earlier attempt may have reached the vendor."""
    may_have_arrived = (
        attempts.c.http_status.is_not(None)
        # without an answer, "no effect" means that nothing left this machine
        | attempts.c.effect.is_distinct_from(Effect.NO)
    )
    query = sa.select(attempts.c.number).where(
        attempts.c.job_id == lease.job_id, attempts.c.number < lease.attempt, may_have_arrived
    )
    return (await connection.execute(query.limit(1))).first() is not None


async def _look_up(
    database: Database,
    cos: CosClient,
    buckets: BucketAccess,
    lease: Lease,
    job: TrackedJob,
    *,
    was_requested: bool,
) -> tuple[LookupResult, dict[str, str]]:
    """Return what an earlier request left, and else the ETags under the job's exact names.

    Where look-ups show nothing reliable, a job is sent if all its earlier requests were refused.
    """
    if not buckets.may_be_readable(job.region, job.bucket):
        if lease.maybe_applied:
            raise OrchestratorError("Cannot rule out an export: the bucket is not readable.")
        return LookupResult(), {}
    trust = buckets.trust[bucket_location(job.region, job.bucket)]
    await calibrate(database, cos, trust, job)
    found = await look(cos, trust, job) if was_requested else LookupResult()
    if lease.maybe_applied and not (found or trust.listing):
        raise OrchestratorError("Cannot rule out an export: listings of the bucket are wrong.")
    if found or lease.maybe_applied or not lease.exact_names:
        return found, {}
    return found, await baselines(cos, trust, job)


async def _held_until(connection: AsyncConnection, lease: Lease) -> datetime | None:
    """Return when this lease expires, and lock its job; ``None`` if the job has moved on."""
    query = sa.select(jobs.c.expires_at).where(
        jobs.c.id == lease.job_id,
        jobs.c.state == JobState.SENDING,
        jobs.c.attempt == lease.attempt,
        jobs.c.owner == lease.owner,
    )
    expires_at: datetime | None = await connection.scalar(query.with_for_update())
    return expires_at


async def _put_back(
    connection: AsyncConnection, lease: Lease, now: datetime, *, reason: str, why: str
) -> None:
    put_back = Transition(
        lease.job_id,
        JobState.SENDING,
        JobState.UNKNOWN if lease.maybe_applied else JobState.QUEUED,
        kind="not sent",
        reason=reason,
        actor=lease.owner,
        attempt=lease.attempt,
        changes={"absent_since": None, "due_at": now + _RETRY},
        details={"message": why},
    )
    await apply_transition(connection, put_back, at=now)
