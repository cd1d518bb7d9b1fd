"""The check directly before a request is sent."""

from datetime import timedelta

import anyio
import httpx
import pytest

from orchestrator.errors import CloudRefusal
from orchestrator.job_states import JobState
from orchestrator.model import NOT_SENT, Lease, Outcome
from orchestrator.settings import VerifyMode
from orchestrator.simulator import Fault
from orchestrator.store.tables import objects
from orchestrator.verification import bucket_trust
from orchestrator.verification.bucket_access import BucketAccess
from orchestrator.worker import pre_send_check
from orchestrator.worker.pre_send_check import check_before_send
from orchestrator.worker.send import NOT_SENT_FOR_NOW, outcome_of_exception
from tests.job_factory import (
    BUCKET,
    IMAGE_BUSY,
    REGION,
    SETTINGS,
    add_expected_objects,
    advance_time,
    claim_one,
    make_job,
    make_jobs,
    make_refusal,
    make_request,
    now,
    read_event_kinds,
    read_job,
    read_last_attempt,
    read_rows,
    record_outcome,
    update_job,
)
from tests.store_and_cloud import StoreAndCloud, ignore_refusal, make_bucket_access

pytestmark = pytest.mark.anyio


async def cleared(setup: StoreAndCloud, lease: Lease, seen: BucketAccess | None = None) -> bool:
    return await check_before_send(
        setup.database, setup.cos, seen or make_bucket_access(), lease, SETTINGS, ignore_refusal
    )


async def maybe_applied(setup: StoreAndCloud) -> Lease:
    """Return the lease of a job that was sent before, and whose answer was lost."""
    await make_job(setup.database, maybe_applied=True, attempt=1, attempts_charged=1)
    return await claim_one(setup.database)


async def test_a_first_attempt_is_sent_without_a_look_up(setup: StoreAndCloud) -> None:
    """A job that was never sent cannot have objects in the bucket."""
    await make_jobs(setup.database)
    assert await cleared(setup, await claim_one(setup.database))
    assert setup.lookup_actions() == []


async def test_a_maybe_applied_job_is_looked_up_before_every_send(setup: StoreAndCloud) -> None:
    """If the bucket shows nothing, the request may be sent."""
    lease = await maybe_applied(setup)
    assert await cleared(setup, lease)
    assert setup.lookup_actions() == ["ListMultipartUploads", "GetBucket"]
    assert (await read_job(setup.database, lease.job_id)).state == JobState.SENDING


async def answered(setup: StoreAndCloud, outcome: Outcome | None = None) -> Lease:
    """Return the second lease of a job whose first request had this outcome.

    Args:
        outcome: by default the request was refused.
    """
    (job_id,) = await make_jobs(setup.database)
    first = await claim_one(setup.database)
    await record_outcome(setup.database, first, outcome or make_refusal(IMAGE_BUSY))
    await update_job(setup.database, job_id, due_at=await now(setup.database))
    return await claim_one(setup.database)


async def test_a_refused_job_is_looked_up_before_its_second_request(setup: StoreAndCloud) -> None:
    """After a refusal, one look-up that finds nothing is enough to send again.

    The vendor has said that no export began.
    """
    assert await cleared(setup, await answered(setup))
    assert setup.lookup_actions() == ["ListMultipartUploads", "GetBucket"]


async def test_an_export_that_was_refused_all_the_same_is_reconciled(setup: StoreAndCloud) -> None:
    """An export that is found after a refusal is reconciled and not sent again.

    A gateway may repeat a request: the first one began the export, the second one was refused.
    """
    lease = await answered(setup)
    await setup.export_without_answer(lease.job_id)
    assert not await cleared(setup, lease)
    assert (await read_job(setup.database, lease.job_id)).state == JobState.ACCEPTED
    assert (await read_last_attempt(setup.database, lease.job_id)).code == NOT_SENT


@pytest.mark.parametrize(
    "outcome", [NOT_SENT_FOR_NOW, outcome_of_exception(httpx.ConnectError("no route"))]
)
async def test_a_job_whose_request_never_left_needs_no_look_up(
    setup: StoreAndCloud, outcome: Outcome
) -> None:
    """Nothing can be in the bucket, and the bucket is not asked."""
    assert await cleared(setup, await answered(setup, outcome))
    assert setup.lookup_actions() == []


async def test_a_refused_job_waits_for_a_look_up_that_fails(setup: StoreAndCloud) -> None:
    """A failed look-up is no look-up: the job is put back, and no attempt is charged."""
    lease = await answered(setup)
    setup.deny("GetBucket")
    assert not await cleared(setup, lease)
    kept = await read_job(setup.database, lease.job_id)
    assert (kept.state, kept.reason, kept.attempts_charged) == ("queued", "bucket not readable", 0)
    assert kept.due_at > await now(setup.database)


@pytest.mark.parametrize("how", ["blind", "off"])
async def test_a_refused_job_is_sent_where_the_bucket_may_not_be_read(
    setup: StoreAndCloud, how: str
) -> None:
    """There the vendor's word has to be enough."""
    mode = VerifyMode.OFF if how == "off" else VerifyMode.AUTO
    buckets = make_bucket_access(mode, unreadable=how == "blind")
    assert await cleared(setup, await answered(setup), buckets)
    assert setup.lookup_actions() == []


async def test_the_export_of_an_earlier_attempt_is_reconciled(setup: StoreAndCloud) -> None:
    """The request is not sent, its attempt is marked, and the job is accepted."""
    lease = await maybe_applied(setup)
    await setup.export_without_answer(lease.job_id)
    assert not await cleared(setup, lease)
    kept = await read_job(setup.database, lease.job_id)
    assert (kept.state, kept.owner, kept.attempts_charged) == (JobState.ACCEPTED, None, 1)
    assert (await read_last_attempt(setup.database, lease.job_id)).code == NOT_SENT
    assert await read_event_kinds(setup.database, lease.job_id) == [
        "enqueued",
        "claimed",
        "reconciled",
    ]


@pytest.mark.parametrize("how", ["denied", "blind", "off"])
async def test_a_maybe_applied_job_needs_a_look_up(setup: StoreAndCloud, how: str) -> None:
    """If an export cannot be ruled out, the job becomes unknown again."""
    lease = await maybe_applied(setup)
    if how == "denied":
        setup.deny("GetBucket")
    mode = VerifyMode.OFF if how == "off" else VerifyMode.AUTO
    assert not await cleared(setup, lease, make_bucket_access(mode, unreadable=how == "blind"))
    kept = await read_job(setup.database, lease.job_id)
    assert (kept.state, kept.reason) == (JobState.UNKNOWN, "bucket not readable")
    assert (kept.attempts_charged, kept.maybe_applied, kept.absent_since) == (1, True, None)
    assert kept.due_at > await now(setup.database)
    assert (await read_last_attempt(setup.database, lease.job_id)).code == NOT_SENT


async def test_a_look_up_that_fails_without_a_text_is_no_look_up(
    setup: StoreAndCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some network errors have no text; the job becomes unknown again all the same."""

    async def fail(*_arguments: object) -> object:
        raise httpx.ReadTimeout("")

    monkeypatch.setattr(pre_send_check, "look", fail)
    lease = await maybe_applied(setup)
    assert not await cleared(setup, lease)
    assert (await read_job(setup.database, lease.job_id)).state == JobState.UNKNOWN


async def test_the_baseline_of_an_exact_name_is_saved_first(setup: StoreAndCloud) -> None:
    """The ETag of each object is saved once; it is empty if there is no object."""
    await make_jobs(setup.database, [make_request(prefix="web", exact_names=True)])
    lease = await claim_one(setup.database)
    await setup.export_without_answer(lease.job_id)
    setup.finish_exports()
    there = setup.simulator.exports[0].objects[0]
    await add_expected_objects(setup.database, lease.job_id, there.key, "free.raw")
    await add_expected_objects(setup.database, lease.job_id, "noted.raw", baseline_etag="before")
    assert await cleared(setup, lease)
    noted = {
        row.key: row.baseline_etag for row in await read_rows(setup.database, objects, lease.job_id)
    }
    assert noted == {there.key: there.etag, "free.raw": "", "noted.raw": "before"}


async def test_an_exact_name_that_cannot_be_looked_up_waits(setup: StoreAndCloud) -> None:
    """A job that was never sent goes back to the queue, and no attempt is charged."""
    await make_jobs(setup.database, [make_request(prefix="web", exact_names=True)])
    lease = await claim_one(setup.database)
    await add_expected_objects(setup.database, lease.job_id, "one.raw")
    setup.deny("HeadObject", "GetBucket")
    assert not await cleared(setup, lease)
    kept = await read_job(setup.database, lease.job_id)
    assert (kept.state, kept.reason, kept.attempts_charged) == ("queued", "bucket not readable", 0)
    await update_job(setup.database, lease.job_id, due_at=await now(setup.database))
    setup.deny()
    assert await cleared(setup, await claim_one(setup.database))


async def test_an_exact_name_needs_no_look_up_if_verification_is_off(setup: StoreAndCloud) -> None:
    """With verification off no object is compared, so no look-up is needed."""
    await make_jobs(setup.database, [make_request(prefix="web", exact_names=True)])
    assert await cleared(setup, await claim_one(setup.database), make_bucket_access(VerifyMode.OFF))
    assert setup.lookup_actions() == []


@pytest.mark.parametrize("exact", [False, True], ids=["maybe_applied", "exact names"])
async def test_a_lease_that_expires_during_a_slow_look_up_is_not_used(
    setup: StoreAndCloud, monkeypatch: pytest.MonkeyPatch, exact: bool
) -> None:
    """Another process may own the job by then, so the request is not sent."""
    if exact:
        job_id = await make_job(setup.database, exact_names=True)
        await add_expected_objects(setup.database, job_id, "key.raw")
        lease = await claim_one(setup.database)
    else:
        lease = await maybe_applied(setup)
    name = "baselines" if exact else "look"
    look = getattr(pre_send_check, name)

    async def slow_look(*arguments: object) -> object:
        await advance_time(setup.database, seconds=60)
        return await look(*arguments)

    monkeypatch.setattr(pre_send_check, name, slow_look)
    assert not await cleared(setup, lease)
    kept = await read_job(setup.database, lease.job_id)
    assert kept.state == (JobState.QUEUED if exact else JobState.UNKNOWN)
    assert kept.owner is None
    assert (await read_last_attempt(setup.database, lease.job_id)).code == NOT_SENT


async def test_an_old_upload_under_an_exact_name_is_not_the_export(setup: StoreAndCloud) -> None:
    """A refused job with an exact name is sent although an old upload is open.

    Uploads stay until somebody ends them, and the job keeps its baseline.
    """
    (job_id,) = await make_jobs(setup.database, [make_request(prefix="web", exact_names=True)])
    await setup.export_without_answer(job_id)
    (upload, *_) = setup.simulator.exports[0].uploads
    await add_expected_objects(setup.database, job_id, upload.key)
    first = await claim_one(setup.database)
    assert await cleared(setup, first)
    (before,) = await read_rows(setup.database, objects, job_id)
    await record_outcome(setup.database, first, make_refusal(IMAGE_BUSY))
    await update_job(setup.database, job_id, due_at=await now(setup.database))
    assert await cleared(setup, await claim_one(setup.database))
    (after,) = await read_rows(setup.database, objects, job_id)
    assert (before.baseline_etag, after.baseline_etag) == ("", "")


async def test_a_look_up_that_takes_too_long_is_given_up(
    setup: StoreAndCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look-up that takes too long is cancelled: the lease must outlive it.

    While the bucket gives no answer, only one job at a time is looked up there.
    """
    monkeypatch.setattr(pre_send_check, "_MAX_LOOKUP", 0.05)
    lease, buckets = await answered(setup), make_bucket_access()
    setup.simulator.change(faults=(Fault("hang", action="cos"),))
    for _ in range(10):
        buckets.record_failure(f"{REGION}/{BUCKET}", "no answer")
    assert not await cleared(setup, lease, buckets)
    kept = await read_job(setup.database, lease.job_id)
    assert (kept.state, kept.reason) == ("queued", "bucket not readable")
    assert kept.due_at - await now(setup.database) > timedelta(seconds=30)


async def test_a_look_up_that_is_answered_counts_for_the_bucket(setup: StoreAndCloud) -> None:
    """Without an accepted job nothing else shows that the bucket answers again."""
    lease, buckets = await answered(setup), make_bucket_access()
    for _ in range(10):
        buckets.record_failure(f"{REGION}/{BUCKET}", "no answer")
    await anyio.sleep(1.1)  # until the circuit breaker admits a probe
    assert await cleared(setup, lease, buckets)
    assert buckets.failing_buckets() == []


async def test_a_refusal_of_a_look_up_is_reported(setup: StoreAndCloud) -> None:
    """A refused look-up is reported, because it may concern the whole account.

    Without an accepted job no other look-up would find that out.
    """
    reported: list[tuple[str, str]] = []

    async def report(bucket: str, refusal: CloudRefusal) -> None:
        reported.append((bucket, refusal.code))

    lease, buckets = await answered(setup), make_bucket_access()
    setup.deny("GetBucket")
    assert not await check_before_send(setup.database, setup.cos, buckets, lease, SETTINGS, report)
    assert reported == [(f"{REGION}/{BUCKET}", "AccessDenied")]


@pytest.mark.parametrize("is_unclear", [False, True], ids=["refused", "maybe applied"])
async def test_an_exact_name_that_is_not_known_cannot_be_looked_up(
    setup: StoreAndCloud, is_unclear: bool
) -> None:
    """If its exact name is not known, a job is sent again only after a refusal.

    There is nothing to look up, so a clear refusal has to be enough, and a lost answer is not.
    """
    job_id = await make_job(
        setup.database, maybe_applied=is_unclear, attempt=1, attempts_charged=1, exact_names=True
    )
    buckets = make_bucket_access()
    assert await cleared(setup, await claim_one(setup.database), buckets) is not is_unclear
    state = JobState.UNKNOWN if is_unclear else JobState.SENDING
    assert (await read_job(setup.database, job_id)).state == state
    assert setup.lookup_actions() == []
    assert not buckets.is_proven_readable(REGION, BUCKET)


@pytest.mark.parametrize("is_there", [False, True], ids=["nothing", "found"])
async def test_a_refused_job_is_looked_up_by_head_where_listings_are_refused(
    setup: StoreAndCloud, is_there: bool
) -> None:
    """If listings are refused, HEAD decides whether a refused job is sent.

    A job that is found is accepted; otherwise the refusal by the vendor has to be enough.
    """
    lease = await answered(setup)
    await setup.export_without_answer(lease.job_id)
    keys = [upload.key for upload in setup.simulator.exports[0].uploads]
    await add_expected_objects(setup.database, lease.job_id, *keys)
    setup.deny("GetBucket", "ListMultipartUploads")
    if is_there:
        setup.finish_exports()
    buckets = make_bucket_access()
    assert await cleared(setup, lease, buckets) is not is_there
    state = JobState.ACCEPTED if is_there else JobState.SENDING
    assert (await read_job(setup.database, lease.job_id)).state == state
    assert buckets.is_proven_readable(REGION, BUCKET)


@pytest.mark.parametrize("is_head_allowed", [True, False])
async def test_a_refused_job_without_keys_is_sent_where_only_listings_are_refused(
    setup: StoreAndCloud, monkeypatch: pytest.MonkeyPatch, is_head_allowed: bool
) -> None:
    """No HEAD request can look for it; where HEAD is refused too, that may pass."""
    monkeypatch.setattr(bucket_trust, "_LISTINGS_REFUSED_FOR", 0.0)
    lease = await answered(setup)
    setup.deny("GetBucket", "ListMultipartUploads", *([] if is_head_allowed else ["HeadObject"]))
    assert await cleared(setup, lease) is is_head_allowed


async def test_a_refused_job_with_keys_waits_for_its_head_requests(
    setup: StoreAndCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If listings are refused, a refused job with keys waits for its HEAD requests.

    A refused HEAD request may be a temporary fault, and the export may be there.
    """
    monkeypatch.setattr(bucket_trust, "_LISTINGS_REFUSED_FOR", 0.0)
    lease, buckets = await answered(setup), make_bucket_access()
    await add_expected_objects(setup.database, lease.job_id, f"{lease.order.name_prefix}_1.raw")
    buckets.trust[f"{REGION}/{BUCKET}"].is_listing_refused = True
    setup.deny("GetBucket", "ListMultipartUploads", "HeadObject")
    assert not await cleared(setup, lease, buckets)
    assert not buckets.is_proven_readable(REGION, BUCKET)


async def test_head_alone_does_not_rule_out_an_export(setup: StoreAndCloud) -> None:
    """If listings are refused and HEAD finds nothing, the job becomes unknown again.

    The export may have begun, and its objects may have other names.
    """
    lease = await maybe_applied(setup)
    await add_expected_objects(setup.database, lease.job_id, f"{lease.order.name_prefix}_1.raw")
    setup.deny("GetBucket", "ListMultipartUploads")
    assert not await cleared(setup, lease)
    assert (await read_job(setup.database, lease.job_id)).state == JobState.UNKNOWN


async def test_the_baseline_is_listed_where_head_is_refused(setup: StoreAndCloud) -> None:
    """A listing shows the ETag, too, so the job need not wait for a permission."""
    await make_jobs(setup.database, [make_request(prefix="web", exact_names=True)])
    lease = await claim_one(setup.database)
    await setup.export_without_answer(lease.job_id)
    setup.finish_exports()
    there = setup.simulator.exports[0].objects[0]
    await add_expected_objects(setup.database, lease.job_id, there.key, "free.raw")
    setup.deny("HeadObject")
    assert await cleared(setup, lease)
    noted = {
        row.key: row.baseline_etag for row in await read_rows(setup.database, objects, lease.job_id)
    }
    assert noted == {there.key: there.etag, "free.raw": ""}
