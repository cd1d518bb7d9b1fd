"""The last question before a request leaves: may this attempt be sent at all?"""

from datetime import timedelta

import httpx

from orchestrator.cloud.cos import CosClient
from orchestrator.db import Database
from orchestrator.errors import CloudRefusal, OrchestratorError
from orchestrator.model import JobState, Lease
from orchestrator.pace.stops import place_of
from orchestrator.settle.absence import ResolvePolicy
from orchestrator.settle.look import look, note_baseline
from orchestrator.settle.objects import Watched, watched
from orchestrator.settle.record import keep_not_sent
from orchestrator.settle.resolve import adopt
from orchestrator.settle.sight import Sight
from orchestrator.transition import Move, move

_RETRY = timedelta(seconds=5)


async def clear_to_send(
    database: Database, cos: CosClient, sight: Sight, lease: Lease, policy: ResolvePolicy
) -> bool:
    """Whether the attempt may be sent; where not, the job has been put where it belongs.

    A doubted job is looked up once more: what an earlier attempt left is adopted. Under an exact
    name it is first noted what lies there.
    """
    if not lease.doubted and not lease.exact_names:
        return True
    if not await _look_first(database, cos, sight, lease, policy):
        return False
    # the look may have taken long: an expired lease is another process's to take over
    return await _is_still_held(database, lease)


async def _look_first(
    database: Database, cos: CosClient, sight: Sight, lease: Lease, policy: ResolvePolicy
) -> bool:
    seen = sight.sees(lease.order.region, lease.order.bucket)
    if not seen and not lease.doubted:
        return True
    try:
        if not seen:
            raise OrchestratorError("The bucket may not be read, so no export can be ruled out.")
        if lease.doubted:
            return not await _adopted(database, cos, lease, policy)
        await note_baseline(database, cos, lease.job_id)
    except (OrchestratorError, httpx.HTTPError) as error:
        if isinstance(error, CloudRefusal):
            sight.refused(place_of(lease.order.region, lease.order.bucket), error)
        await _put_back(database, lease, str(error))
        return False
    return True


async def _adopted(database: Database, cos: CosClient, lease: Lease, policy: ResolvePolicy) -> bool:
    """Whether the job has got its answer by what lies in the bucket."""
    async with database.read() as connection:
        job = await watched(connection, lease.job_id)
    if not _is_ours(job, lease) or not (traces := await look(cos, job)):
        return False
    async with database.write() as connection:
        now = await database.now(connection)
        await adopt(connection, job, traces, policy, now, lease.owner)
        await keep_not_sent(connection, lease, now)
    return True


async def _is_still_held(database: Database, lease: Lease) -> bool:
    """Whether the lease is still in force; where it has expired, the job is put back."""
    async with database.read() as connection:
        now = await database.now(connection)
        job = await watched(connection, lease.job_id)
    if _is_ours(job, lease) and now < lease.expires_at:
        return True
    why = "The lease ended while the bucket was being looked into."
    await _put_back(database, lease, why, reason="not sent")
    return False


def _is_ours(job: Watched, lease: Lease) -> bool:
    return job.state is JobState.SENDING and job.attempt == lease.attempt


async def _put_back(
    database: Database, lease: Lease, why: str, *, reason: str = "bucket not readable"
) -> None:
    async with database.write() as connection:
        now = await database.now(connection)
        put_back = Move(
            lease.job_id,
            JobState.SENDING,
            JobState.UNKNOWN if lease.doubted else JobState.QUEUED,
            kind="not sent",
            reason=reason,
            actor=lease.owner,
            attempt=lease.attempt,
            changes={"clean_since": None, "due_at": now + _RETRY},
            details={"message": why},
        )
        await move(connection, put_back, at=now)
        await keep_not_sent(connection, lease, now)
