"""Check an attempt in the bucket and in the store before its request is sent."""

from datetime import datetime, timedelta

import httpx
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.cloud.cos import CosClient
from orchestrator.errors import CloudRefusal, OrchestratorError
from orchestrator.job_states import JobState
from orchestrator.limits.halted_scopes import bucket_location
from orchestrator.model import Lease
from orchestrator.settings import Settings
from orchestrator.store import Database
from orchestrator.store.tables import jobs
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

    A job that an earlier attempt may have exported is looked up once more, and accepted if its
    export is found. With exact names the existing objects are recorded first.

    After a store error the caller repeats this check. A job that the first call put back is then
    not sent, because the process that claims it next would send it a second time.
    """
    if not lease.maybe_applied and not lease.exact_names:
        return True
    async with database.read() as connection:
        job = await load_tracked_job(connection, lease.job_id)
    found, etags = LookupResult(), dict[str, str]()
    failure: str | None = None  # the text of some errors is empty
    try:
        found, etags = await _look_up(database, cos, buckets, lease, job)
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


async def _look_up(
    database: Database, cos: CosClient, buckets: BucketAccess, lease: Lease, job: TrackedJob
) -> tuple[LookupResult, dict[str, str]]:
    """Return what an earlier attempt left, and the ETags under the exact names of a first one."""
    if not buckets.may_be_readable(job.region, job.bucket):
        if lease.maybe_applied:
            raise OrchestratorError("Cannot rule out an export: the bucket is not readable.")
        return LookupResult(), {}
    trust = buckets.trust[bucket_location(job.region, job.bucket)]
    await calibrate(database, cos, trust, job)
    if lease.maybe_applied:
        found = await look(cos, trust, job)
        if not found and not trust.listing:
            raise OrchestratorError("Cannot rule out an export: listings of the bucket are wrong.")
        return found, {}
    return LookupResult(), await baselines(cos, trust, job)


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
