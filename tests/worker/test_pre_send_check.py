"""The last question before a request leaves: may this attempt be sent at all?"""

from datetime import timedelta

import pytest

from orchestrator.job_states import JobState
from orchestrator.model import NOT_SENT, Lease
from orchestrator.store.tables import objects
from orchestrator.verification.bucket_access import BucketAccess, VerifyMode
from orchestrator.verification.resend_policy import ResolvePolicy
from orchestrator.worker import pre_send_check as clear
from orchestrator.worker.pre_send_check import check_before_send
from tests.bench import Bench, permissions
from tests.stores import (
    change,
    claimed,
    expect,
    job,
    kinds,
    last_attempt,
    let_pass,
    make_job,
    make_jobs,
    now,
    request,
    rows,
)

pytestmark = pytest.mark.anyio

POLICY = ResolvePolicy(timedelta(seconds=120), 5, timedelta(hours=6))


async def cleared(bench: Bench, lease: Lease, seen: BucketAccess | None = None) -> bool:
    return await check_before_send(bench.database, bench.cos, seen or permissions(), lease, POLICY)


async def maybe_applied(bench: Bench) -> Lease:
    """The lease of a job that was sent before, and whose answer was lost."""
    await make_job(bench.database, maybe_applied=True, attempt=1, attempts_charged=1)
    return await claimed(bench.database)


async def test_a_first_attempt_is_sent_without_a_look(bench: Bench) -> None:
    """Nothing of a job that was never sent can be in the bucket."""
    await make_jobs(bench.database)
    assert await cleared(bench, await claimed(bench.database))
    assert bench.looks() == []


async def test_a_doubted_job_is_looked_up_before_every_send(bench: Bench) -> None:
    """Where the bucket shows nothing, it may go."""
    lease = await maybe_applied(bench)
    assert await cleared(bench, lease)
    assert bench.looks() == ["ListMultipartUploads", "GetBucket"]
    assert (await job(bench.database, lease.job_id)).state == JobState.SENDING


async def test_what_an_earlier_attempt_left_is_adopted(bench: Bench) -> None:
    """The request is not sent; the attempt says so, and the job is accepted on evidence."""
    lease = await maybe_applied(bench)
    await bench.export_unseen(lease.job_id)
    assert not await cleared(bench, lease)
    kept = await job(bench.database, lease.job_id)
    assert (kept.state, kept.owner, kept.attempts_charged) == (JobState.ACCEPTED, None, 1)
    assert (await last_attempt(bench.database, lease.job_id)).code == NOT_SENT
    assert await kinds(bench.database, lease.job_id) == ["enqueued", "claimed", "adopted"]


@pytest.mark.parametrize("how", ["denied", "blind", "off"])
async def test_without_a_look_a_doubted_job_is_not_sent(bench: Bench, how: str) -> None:
    """Where no export can be ruled out, it goes back to being unknown."""
    lease = await maybe_applied(bench)
    if how == "denied":
        bench.deny("GetBucket")
    mode = VerifyMode.OFF if how == "off" else VerifyMode.AUTO
    assert not await cleared(bench, lease, permissions(mode, unreadable=how == "blind"))
    kept = await job(bench.database, lease.job_id)
    assert (kept.state, kept.reason) == (JobState.UNKNOWN, "bucket not readable")
    assert (kept.attempts_charged, kept.maybe_applied, kept.absent_since) == (1, True, None)
    assert kept.due_at > await now(bench.database)
    assert (await last_attempt(bench.database, lease.job_id)).code == NOT_SENT


async def test_what_lies_under_an_exact_name_is_noted_first(bench: Bench) -> None:
    """The ETag of what is there, nothing for what is not, and never again once it is noted."""
    await make_jobs(bench.database, [request(prefix="web", exact_names=True)])
    lease = await claimed(bench.database)
    await bench.export_unseen(lease.job_id)
    bench.end_exports()
    there = bench.simulator.exports[0].objects[0]
    await expect(bench.database, lease.job_id, there.key, "free.raw")
    await expect(bench.database, lease.job_id, "noted.raw", baseline_etag="before")
    assert await cleared(bench, lease)
    noted = {
        row.key: row.baseline_etag for row in await rows(bench.database, objects, lease.job_id)
    }
    assert noted == {there.key: there.etag, "free.raw": "", "noted.raw": "before"}


async def test_an_exact_name_that_cannot_be_looked_at_waits(bench: Bench) -> None:
    """A job that was never sent goes back to the queue, without having spent an attempt."""
    await make_jobs(bench.database, [request(prefix="web", exact_names=True)])
    lease = await claimed(bench.database)
    await expect(bench.database, lease.job_id, "one.raw")
    bench.deny("HeadObject")
    assert not await cleared(bench, lease)
    kept = await job(bench.database, lease.job_id)
    assert (kept.state, kept.reason, kept.attempts_charged) == ("queued", "bucket not readable", 0)
    await change(bench.database, lease.job_id, due_at=await now(bench.database))
    bench.deny()
    assert await cleared(bench, await claimed(bench.database))


async def test_an_exact_name_goes_unseen_where_nothing_is_looked_at(bench: Bench) -> None:
    """With verification off nobody would compare: the first attempt is sent without a look."""
    await make_jobs(bench.database, [request(prefix="web", exact_names=True)])
    assert await cleared(bench, await claimed(bench.database), permissions(VerifyMode.OFF))
    assert bench.looks() == []


@pytest.mark.parametrize("exact", [False, True], ids=["maybe_applied", "exact names"])
async def test_a_lease_that_ends_during_a_slow_look_is_not_used(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, exact: bool
) -> None:
    """Another process may take the job over from then on: the request is not sent."""
    if exact:
        job_id = await make_job(bench.database, exact_names=True)
        await expect(bench.database, job_id, "key.raw")
        lease = await claimed(bench.database)
    else:
        lease = await maybe_applied(bench)
    name = "baselines" if exact else "look"
    look = getattr(clear, name)

    async def slow_look(*arguments: object) -> object:
        await let_pass(bench.database, seconds=60)
        return await look(*arguments)

    monkeypatch.setattr(clear, name, slow_look)
    assert not await cleared(bench, lease)
    kept = await job(bench.database, lease.job_id)
    assert kept.state == (JobState.QUEUED if exact else JobState.UNKNOWN)
    assert kept.owner is None
    assert (await last_attempt(bench.database, lease.job_id)).code == NOT_SENT
