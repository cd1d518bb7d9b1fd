"""Check an attempt in the bucket and in the store before its request is sent."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta

import anyio
import httpx
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.cloud.cos import CosClient
from orchestrator.errors import CloudRefusal, OrchestratorError
from orchestrator.job_states import JobState
from orchestrator.model import Effect, Lease, bucket_location
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
_RETRY_FAILING = timedelta(seconds=60)
"""The same while the bucket gives no answer: each round costs a permit and a row of the store."""

_MAX_LOOKUP = 10.0
"""Maximum seconds for all look-ups of one check. The lease must outlive them, or the job would
count as sent."""


ReportRefusal = Callable[[str, CloudRefusal], Awaitable[None]]
"""Takes a bucket location, and why COS refused to show the bucket."""


async def check_before_send(
    database: Database,
    cos: CosClient,
    buckets: BucketAccess,
    lease: Lease,
    settings: Settings,
    report_refusal: ReportRefusal,
) -> bool:
    """Return whether the attempt may be sent.

    If not, the job has its new state already.

    A job that was requested before is looked up first, whatever the answer was: a refusal may come
    from a gateway that repeated a request which began the export. What is found is accepted. With
    exact names the existing objects are recorded before the first request.

    After a store error the caller repeats this check. A job that the first call put back is then
    not sent, because the process that claims it next would send it a second time.

    Args:
        report_refusal: receives a refusal of COS, which may concern the whole account.
    """
    if lease.attempt == 1 and not (lease.maybe_applied or lease.exact_names):
        return True
    async with database.read() as connection:
        was_requested = lease.maybe_applied or await _was_requested(connection, lease)
        job = await load_tracked_job(connection, lease.job_id)
    if not (was_requested or lease.exact_names):
        return True
    found, etags, failure = await _look_up(
        database, cos, buckets, lease, job, report_refusal, was_requested=was_requested
    )
    async with database.write() as connection:
        now = await database.now(connection)
        expires_at = await _held_until(connection, lease)
        if expires_at is None:
            pass  # the lease expired during the look-up, and another process has taken the job over
        elif failure is not None:
            is_failing = bucket_location(job.region, job.bucket) in buckets.failing_buckets()
            delay = _RETRY_FAILING if is_failing else _RETRY
            reason = "bucket not readable"
            await _put_back(connection, lease, now, reason=reason, why=failure, delay=delay)
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
    report_refusal: ReportRefusal,
    *,
    was_requested: bool,
) -> tuple[LookupResult, dict[str, str], str | None]:
    """Return what `_search` returns, and why it failed; ``None`` if it did not."""
    bucket = bucket_location(job.region, job.bucket)
    found, etags = LookupResult(), dict[str, str]()
    is_probe = bucket in buckets.failing_buckets()
    if is_probe and not buckets.admit_probe(bucket):
        return found, etags, "The bucket gives no answer; another look-up tries it."
    try:
        with anyio.fail_after(_MAX_LOOKUP):
            found, etags = await _search(
                database, cos, buckets, lease, job, was_requested=was_requested
            )
    except CloudRefusal as refusal:
        buckets.record_refusal(bucket, refusal)
        await report_refusal(bucket, refusal)
        return found, etags, str(refusal)
    except (httpx.HTTPError, TimeoutError) as error:
        failure = str(error) or "COS gave no answer in time."
        buckets.record_failure(bucket, failure)
        return found, etags, failure
    except OrchestratorError as error:
        return found, etags, str(error)
    finally:
        if is_probe:
            buckets.release_probe(bucket)  # unless its result was recorded
    return found, etags, None


async def _search(
    database: Database,
    cos: CosClient,
    buckets: BucketAccess,
    lease: Lease,
    job: TrackedJob,
    *,
    was_requested: bool,
) -> tuple[LookupResult, dict[str, str]]:
    """Return what an earlier request left, or else the ETags under exact names.

    Where look-ups show nothing reliable, a job is sent if all its earlier requests were refused.
    """
    is_readable = buckets.may_be_readable(job.region, job.bucket)
    if not (is_readable and job.is_locatable):
        if lease.maybe_applied:
            what = "object keys are not known" if is_readable else "bucket is not readable"
            raise OrchestratorError(f"Cannot rule out an export: the {what}.")
        return LookupResult(), {}
    trust = buckets.trust[bucket_location(job.region, job.bucket)]
    await calibrate(database, cos, trust, job)
    found = LookupResult()
    if was_requested:
        try:
            found = await look(cos, trust, job)
        except CloudRefusal as refusal:
            has_keys = any(job.is_tagged(key.key) for key in job.keys)
            is_of_listing = refusal.http_status == 403 and trust.is_listing_refused
            if lease.maybe_applied or lease.exact_names or has_keys or not is_of_listing:
                raise
            return found, {}
    etags: dict[str, str] = {}
    if lease.exact_names and not lease.maybe_applied:
        # an upload under an exact name may be an old one that nobody has ended
        found = replace(found, uploads=())
        etags = {} if found else await baselines(cos, trust, job)
    buckets.record_success(bucket_location(job.region, job.bucket))
    if lease.maybe_applied and not (found or (found.is_listed and trust.is_listing_trusted)):
        problem = "wrong" if found.is_listed else "refused"
        raise OrchestratorError(f"Cannot rule out an export: listings of the bucket are {problem}.")
    return found, etags


async def _held_until(connection: AsyncConnection, lease: Lease) -> datetime | None:
    """Lock the job and return when this lease expires; ``None`` if it is lost."""
    query = sa.select(jobs.c.expires_at).where(
        jobs.c.id == lease.job_id,
        jobs.c.state == JobState.SENDING,
        jobs.c.attempt == lease.attempt,
        jobs.c.owner == lease.owner,
    )
    expires_at: datetime | None = await connection.scalar(query.with_for_update())
    return expires_at


async def _put_back(
    connection: AsyncConnection,
    lease: Lease,
    now: datetime,
    *,
    reason: str,
    why: str,
    delay: timedelta = _RETRY,
) -> None:
    put_back = Transition(
        lease.job_id,
        JobState.SENDING,
        JobState.UNKNOWN if lease.maybe_applied else JobState.QUEUED,
        kind="not sent",
        reason=reason,
        actor=lease.owner,
        attempt=lease.attempt,
        changes={"absent_since": None, "due_at": now + delay},
        details={"message": why},
    )
    await apply_transition(connection, put_back, at=now)
