"""Check an attempt in the bucket and in the store before its request is sent."""

from collections.abc import Mapping
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
from orchestrator.verification.object_lookup import baselines, look
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
    seen = buckets.may_be_readable(lease.order.region, lease.order.bucket)
    etags: dict[str, str] = {}
    try:
        if lease.maybe_applied and not seen:
            raise OrchestratorError("Cannot rule out an export: the bucket is not readable.")
        if lease.maybe_applied and await _reconciled(database, cos, lease, settings):
            return False
        if seen and not lease.maybe_applied:
            async with database.read() as connection:
                job = await load_tracked_job(connection, lease.job_id)
            etags = await baselines(cos, job)
    except (OrchestratorError, httpx.HTTPError) as error:
        if isinstance(error, CloudRefusal):
            buckets.record_refusal(bucket_location(lease.order.region, lease.order.bucket), error)
        await _put_back(database, lease, str(error))
        return False
    return await _confirmed(database, lease, etags)


async def _confirmed(database: Database, lease: Lease, etags: Mapping[str, str]) -> bool:
    """Return whether the lease is still valid after the look-up, which may have taken long.

    Another process may take over a job whose lease has expired.

    Args:
        etags: of the objects under the job's exact names; saved with the job.
    """
    async with database.write() as connection:
        now = await database.now(connection)
        expires_at = await _held_until(connection, lease)
        if expires_at is None:
            await record_not_sent(connection, lease, now)
            return False
        if now < expires_at:
            await save_baselines(connection, lease.job_id, etags)
            return True
    why = "The lease expired during the look-up in the bucket."
    await _put_back(database, lease, why, reason="not sent")
    return False


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


async def _reconciled(database: Database, cos: CosClient, lease: Lease, settings: Settings) -> bool:
    """Return whether the job was accepted because its export was found in the bucket."""
    async with database.read() as connection:
        job = await load_tracked_job(connection, lease.job_id)
    if not _is_ours(job, lease) or not (traces := await look(cos, job)):
        return False
    async with database.write() as connection:
        now = await database.now(connection)
        await reconcile(connection, job, traces, settings, now, lease.owner)
        await record_not_sent(connection, lease, now)
    return True


def _is_ours(job: TrackedJob, lease: Lease) -> bool:
    return job.state is JobState.SENDING and job.attempt == lease.attempt


async def _put_back(
    database: Database, lease: Lease, why: str, *, reason: str = "bucket not readable"
) -> None:
    async with database.write() as connection:
        now = await database.now(connection)
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
        await record_not_sent(connection, lease, now)
