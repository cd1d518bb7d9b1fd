"""Unknown jobs: reconciled with the bucket, or queued again after empty look-ups."""

from datetime import timedelta

import pytest

from orchestrator.errors import CloudRefusal
from orchestrator.job_states import JobState
from orchestrator.model import NOT_RULED_OUT
from orchestrator.store.tables import events, objects
from orchestrator.verification import bucket_trust
from orchestrator.verification.unknown_jobs import look_up_unknown_job
from tests.job_factory import (
    SETTINGS,
    TESTER,
    add_expected_objects,
    advance_time,
    make_job,
    make_traced_job,
    now,
    read_event_kinds,
    read_job,
    read_rows,
    update_job,
)
from tests.store_and_cloud import StoreAndCloud, keys_in_event

pytestmark = pytest.mark.anyio

LOOKS = ["ListMultipartUploads", "GetBucket"]


async def unknown(setup: StoreAndCloud, **columns: object) -> int:
    """Make a job whose answer was lost; return its id."""
    given = {
        "attempt": 1,
        "attempts_charged": 1,
        "maybe_applied": True,
        "code": "InternalError",
        **columns,
    }
    return await make_job(setup.database, JobState.UNKNOWN, **given)


@pytest.fixture
async def proven(setup: StoreAndCloud) -> StoreAndCloud:
    """Return a store in whose bucket an accepted job was found under its tag before."""
    await make_traced_job(setup.database)
    return setup


async def looked(setup: StoreAndCloud, job_id: int) -> JobState:
    return await look_up_unknown_job(
        setup.database,
        setup.cos,
        setup.trust,
        await setup.tracked_job(job_id),
        SETTINGS,
        setup.absence,
        actor=TESTER,
    )


async def test_an_upload_under_its_tag_reconciles_the_job(setup: StoreAndCloud) -> None:
    """A running export counts as the answer: the job has keys, but no TaskId."""
    job_id = await unknown(setup)
    await setup.export_without_answer(job_id)
    assert await looked(setup, job_id) is JobState.ACCEPTED
    kept = await read_job(setup.database, job_id)
    assert (kept.reason, kept.task_id, kept.code) == ("found in the bucket", None, None)
    assert kept.deadline_at - kept.accepted_at == SETTINGS.export_deadline
    event = (await read_rows(setup.database, events, job_id))[-1]
    uploads = {upload.key for upload in setup.simulator.exports[0].uploads}
    assert event.kind == "reconciled"
    assert set(keys_in_event(event, "uploads")) == uploads
    assert keys_in_event(event, "objects") == []
    found = await read_rows(setup.database, objects, job_id)
    assert {(row.key, row.cos_path) for row in found} == {(key, f"/{key}") for key in uploads}


async def test_an_object_under_its_tag_reconciles_the_job(setup: StoreAndCloud) -> None:
    """A finished export counts as the answer, and size and ETag are stored."""
    job_id = await unknown(setup)
    await setup.export_without_answer(job_id)
    setup.finish_exports()
    assert await looked(setup, job_id) is JobState.ACCEPTED
    stored = {one.key: one for one in setup.simulator.exports[0].objects}
    found = await read_rows(setup.database, objects, job_id)
    assert {(row.key, row.size, row.etag) for row in found} == {
        (one.key, one.size, one.etag) for one in stored.values()
    }
    event = (await read_rows(setup.database, events, job_id))[-1]
    assert set(keys_in_event(event, "objects")) == stored.keys()


@pytest.mark.parametrize(("attempt", "is_dated"), [(1, True), (2, False)])
async def test_only_a_single_attempt_dates_its_trace(
    setup: StoreAndCloud, attempt: int, is_dated: bool
) -> None:
    """After several attempts nobody knows which of them began what is found."""
    job_id = await unknown(setup, attempt=attempt)
    await setup.export_without_answer(job_id)
    assert await looked(setup, job_id) is JobState.ACCEPTED
    kept = await read_job(setup.database, job_id)
    assert (kept.first_trace_at is not None) is is_dated


async def test_uploads_are_listed_before_objects(setup: StoreAndCloud) -> None:
    """An upload that ends between the two listings is seen as an object."""
    job_id = await unknown(setup)
    await looked(setup, job_id)
    assert setup.lookup_actions() == LOOKS


async def test_a_split_off_job_is_reconciled_by_its_own_images_only(setup: StoreAndCloud) -> None:
    """Objects of the other images under the shared prefix do not count."""
    whole, part = await unknown(setup), await unknown(setup)
    prefix = (await read_job(setup.database, whole)).object_prefix
    await setup.export_without_answer(whole)
    await update_job(setup.database, part, object_prefix=prefix)
    assert await looked(setup, part) is JobState.UNKNOWN
    await setup.export_without_answer(part)
    assert await looked(setup, part) is JobState.ACCEPTED


async def test_objects_of_another_job_do_not_count(setup: StoreAndCloud) -> None:
    """Objects under another job's tag do not count, even if the image is the same."""
    other = await unknown(setup)
    await setup.export_without_answer(other)
    job_id = await unknown(setup)
    image_ids = (await read_job(setup.database, other)).image_ids
    await update_job(setup.database, job_id, image_ids=image_ids)
    assert await looked(setup, job_id) is JobState.UNKNOWN


@pytest.mark.parametrize("known", [False, True], ids=["nothing expected", "one more expected"])
async def test_a_reconciled_job_needs_every_expected_object(
    setup: StoreAndCloud, known: bool
) -> None:
    """A reconciled job is not verified unless every expected object is there.

    Objects may be missing, and without expected keys nothing shows how many there must be.
    """
    job_id = await unknown(setup)
    if known:
        await add_expected_objects(setup.database, job_id, "another-disk.raw")
    await setup.export_without_answer(job_id)
    setup.finish_exports()
    await looked(setup, job_id)
    assert await setup.verify(await setup.tracked_job(job_id)) is JobState.ACCEPTED


async def test_a_reconciled_job_is_verified_with_all_expected_objects(setup: StoreAndCloud) -> None:
    """If its disks were described before, a job without a TaskId can be verified."""
    job_id = await unknown(setup)
    await setup.export_without_answer(job_id)
    keys = [upload.key for upload in setup.simulator.exports[0].uploads]
    await add_expected_objects(setup.database, job_id, *keys)
    setup.finish_exports()
    await looked(setup, job_id)
    assert await setup.verify(await setup.tracked_job(job_id)) is JobState.VERIFIED


async def test_a_job_is_queued_again_after_empty_look_ups(proven: StoreAndCloud) -> None:
    """One empty look-up proves nothing; the required time begins with the first one."""
    job_id = await unknown(proven)
    began = await now(proven.database)
    assert await looked(proven, job_id) is JobState.UNKNOWN
    assert (await read_job(proven.database, job_id)).absent_since >= began
    await advance_time(proven.database, seconds=60)
    assert await looked(proven, job_id) is JobState.UNKNOWN
    await advance_time(proven.database, seconds=61)
    assert await looked(proven, job_id) is JobState.QUEUED
    kept = await read_job(proven.database, job_id)
    assert (kept.state, kept.reason, kept.maybe_applied) == ("queued", "not in the bucket", True)
    assert kept.attempts_charged == 1
    assert kept.due_at <= await now(proven.database)
    assert await read_event_kinds(proven.database, job_id) == ["enqueued", "absent"]


@pytest.mark.parametrize("action", LOOKS)
async def test_a_failed_listing_is_not_a_look_up(setup: StoreAndCloud, action: str) -> None:
    """If either listing is refused, the time of absence neither begins nor ends."""
    since = await now(setup.database) - timedelta(hours=1)
    fresh, looked_at = await unknown(setup), await unknown(setup, absent_since=since)
    setup.deny(action)
    for job_id, absent_since in ((fresh, None), (looked_at, since)):
        with pytest.raises(CloudRefusal):
            await looked(setup, job_id)
        kept = await read_job(setup.database, job_id)
        assert (kept.state, kept.absent_since) == (JobState.UNKNOWN, absent_since)


@pytest.mark.parametrize("exact_names", [False, True], ids=["tag", "exact names"])
async def test_head_finds_an_export_where_listings_are_refused(
    setup: StoreAndCloud, exact_names: bool
) -> None:
    """If listings are refused, an object that HEAD finds reconciles the job.

    HEAD asks for the computed keys.
    """
    job_id = await unknown(setup, exact_names=exact_names)
    await setup.export_without_answer(job_id)
    for upload in setup.simulator.exports[0].uploads:
        await add_expected_objects(setup.database, job_id, upload.key, baseline_etag="")
    setup.deny(*LOOKS)
    assert await looked(setup, job_id) is JobState.UNKNOWN  # an upload is not visible by HEAD
    setup.finish_exports()
    assert await looked(setup, job_id) is JobState.ACCEPTED


async def test_head_alone_proves_no_absence(
    proven: StoreAndCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without listings the job stays unknown, with a reason for the operator.

    The required time begins when the bucket can be listed again.
    """
    monkeypatch.setattr(bucket_trust, "_LISTINGS_REFUSED_FOR", 0.0)
    job_id = await unknown(proven)
    prefix = (await read_job(proven.database, job_id)).object_prefix
    await add_expected_objects(proven.database, job_id, f"{prefix}_img-00000001_system_snap-1.raw")
    proven.deny(*LOOKS)
    await looked(proven, job_id)
    await advance_time(proven.database, days=1)
    assert await looked(proven, job_id) is JobState.UNKNOWN
    kept = await read_job(proven.database, job_id)
    assert kept.reason == NOT_RULED_OUT
    assert "its listings are refused" in kept.message
    assert proven.trust.is_listing_refused
    proven.deny()
    assert await looked(proven, job_id) is JobState.UNKNOWN  # only now the required time begins
    assert not proven.trust.is_listing_refused
    await advance_time(proven.database, seconds=121)
    assert await looked(proven, job_id) is JobState.QUEUED


async def test_one_refused_listing_leaves_no_job_to_an_operator(proven: StoreAndCloud) -> None:
    """After one refused listing the job still waits for the next listing.

    The refusal may be a temporary fault, and the next listing may find the export.
    """
    job_id = await unknown(proven)
    prefix = (await read_job(proven.database, job_id)).object_prefix
    await add_expected_objects(proven.database, job_id, f"{prefix}_img-00000001_system_snap-1.raw")
    await looked(proven, job_id)
    await advance_time(proven.database, seconds=121)
    proven.deny(*LOOKS)
    assert await looked(proven, job_id) is JobState.UNKNOWN
    assert not proven.trust.is_listing_refused
    assert (await read_job(proven.database, job_id)).reason != NOT_RULED_OUT
    proven.deny()
    assert await looked(proven, job_id) is JobState.QUEUED


async def test_a_look_up_without_listing_does_not_end_their_refusal(
    proven: StoreAndCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look-up without a listing does not end the refusal of listings.

    A job with exact names and without keys lists nothing, so another job must not wait for it.
    """
    monkeypatch.setattr(bucket_trust, "_LISTINGS_REFUSED_FOR", 0.0)
    job_id, without_keys = await unknown(proven), await unknown(proven, exact_names=True)
    prefix = (await read_job(proven.database, job_id)).object_prefix
    await add_expected_objects(proven.database, job_id, f"{prefix}_img-00000001_system_snap-1.raw")
    proven.deny(*LOOKS)
    await looked(proven, job_id)
    await looked(proven, without_keys)
    assert proven.trust.is_listing_refused


async def test_absence_is_counted_after_the_signature_has_expired(proven: StoreAndCloud) -> None:
    """The required time of empty look-ups begins when the signature has expired."""
    fence = await now(proven.database) + timedelta(seconds=330)
    job_id = await unknown(proven, no_resend_before=fence)
    await looked(proven, job_id)
    await advance_time(proven.database, seconds=330 + 60)
    assert await looked(proven, job_id) is JobState.UNKNOWN
    await advance_time(proven.database, seconds=61)
    assert await looked(proven, job_id) is JobState.QUEUED


async def test_exact_names_are_never_resent_automatically(setup: StoreAndCloud) -> None:
    """Without a tag no number of empty look-ups proves that no export began."""
    job_id = await unknown(setup, exact_names=True)
    await add_expected_objects(
        setup.database, job_id, "web_img-00000001_system.raw", baseline_etag=""
    )
    await looked(setup, job_id)
    await advance_time(setup.database, days=30)
    assert await looked(setup, job_id) is JobState.UNKNOWN


@pytest.mark.parametrize("found", ["uploads", "objects"])
async def test_a_changed_object_under_an_exact_name_counts(
    setup: StoreAndCloud, found: str
) -> None:
    """An upload or new object must have exactly the expected key, not a longer one."""
    job_id = await unknown(setup, exact_names=True, object_prefix="web")
    await setup.export_without_answer(job_id)
    (key, *_) = (upload.key for upload in setup.simulator.exports[0].uploads)
    if found == "objects":
        setup.finish_exports()
    await add_expected_objects(setup.database, job_id, key.removesuffix(".raw"), baseline_etag="")
    assert await looked(setup, job_id) is JobState.UNKNOWN
    await add_expected_objects(setup.database, job_id, key, baseline_etag="")
    assert await looked(setup, job_id) is JobState.ACCEPTED
    event = (await read_rows(setup.database, events, job_id))[-1]
    assert keys_in_event(event, found) == [key]


async def test_a_listing_is_enough_for_an_exact_name_where_head_is_refused(
    setup: StoreAndCloud,
) -> None:
    """The listed ETag shows whether the object has changed."""
    job_id = await unknown(setup, exact_names=True, object_prefix="web")
    await setup.export_without_answer(job_id)
    setup.finish_exports()
    there = setup.simulator.exports[0].objects[0]
    await add_expected_objects(setup.database, job_id, there.key, baseline_etag=there.etag)
    setup.deny("HeadObject")
    assert await looked(setup, job_id) is JobState.UNKNOWN
    async with setup.database.write() as connection:
        await connection.execute(objects.update().values(baseline_etag="before"))
    assert await looked(setup, job_id) is JobState.ACCEPTED


async def test_a_job_without_attempts_left_fails_if_not_found(proven: StoreAndCloud) -> None:
    """The job fails with its last code, and an export may still exist."""
    job_id = await unknown(proven, attempts_charged=5)
    await looked(proven, job_id)
    await advance_time(proven.database, seconds=121)
    assert await looked(proven, job_id) is JobState.FAILED
    kept = await read_job(proven.database, job_id)
    assert (kept.code, kept.maybe_applied, kept.reason) == (
        "InternalError",
        True,
        "not in the bucket",
    )
    assert kept.message == "5 requests got no answer, and the bucket holds nothing of this job."
    assert kept.finished_at is not None


async def test_a_job_resolved_meanwhile_is_not_changed(setup: StoreAndCloud) -> None:
    """A look-up that ends after a recorded answer changes neither state nor TaskId."""
    job_id = await unknown(setup)
    await setup.export_without_answer(job_id)
    before = await setup.tracked_job(job_id)
    await update_job(setup.database, job_id, state=JobState.ACCEPTED, task_id="7")
    told = await read_event_kinds(setup.database, job_id)
    await look_up_unknown_job(
        setup.database, setup.cos, setup.trust, before, SETTINGS, setup.absence, actor=TESTER
    )
    kept = await read_job(setup.database, job_id)
    assert (kept.state, kept.task_id) == (JobState.ACCEPTED, "7")
    assert await read_event_kinds(setup.database, job_id) == told
