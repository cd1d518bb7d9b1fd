"""Unknown jobs: adopted on evidence, or sent again after a time of clean looks."""

from datetime import timedelta

import pytest

from orchestrator.errors import CloudRefusal
from orchestrator.job_states import JobState
from orchestrator.store.tables import events, objects
from orchestrator.verification.resend_policy import ResolvePolicy
from orchestrator.verification.unknown_jobs import resolve
from tests.job_factory import (
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

POLICY = ResolvePolicy(timedelta(seconds=120), 5, timedelta(hours=6))
LOOKS = ["ListMultipartUploads", "GetBucket"]


async def unknown(setup: StoreAndCloud, **columns: object) -> int:
    """A job whose answer was lost."""
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
    """A bucket in which an accepted job was found under its tag before."""
    await make_traced_job(setup.database)
    return setup


async def looked(setup: StoreAndCloud, job_id: int) -> JobState:
    return await resolve(
        setup.database, setup.cos, await setup.tracked_job(job_id), POLICY, setup.absence, TESTER
    )


async def test_an_upload_under_its_tag_adopts_the_job(setup: StoreAndCloud) -> None:
    """An export that still goes on is taken for the answer: no TaskId, but its keys."""
    job_id = await unknown(setup)
    await setup.export_without_answer(job_id)
    assert await looked(setup, job_id) is JobState.ACCEPTED
    kept = await read_job(setup.database, job_id)
    assert (kept.reason, kept.task_id, kept.code) == ("found in the bucket", None, None)
    assert kept.deadline_at - kept.accepted_at == POLICY.export_deadline
    event = (await read_rows(setup.database, events, job_id))[-1]
    uploads = {upload.key for upload in setup.simulator.exports[0].uploads}
    assert event.kind == "adopted"
    assert set(keys_in_event(event, "uploads")) == uploads
    assert keys_in_event(event, "objects") == []
    found = await read_rows(setup.database, objects, job_id)
    assert {(row.key, row.cos_path) for row in found} == {(key, f"/{key}") for key in uploads}


async def test_an_object_under_its_tag_adopts_the_job(setup: StoreAndCloud) -> None:
    """An export that has ended is adopted by what it left, with size and ETag."""
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


async def test_uploads_are_looked_for_before_objects(setup: StoreAndCloud) -> None:
    """An upload that ends between the two listings is seen as an object."""
    job_id = await unknown(setup)
    await looked(setup, job_id)
    assert setup.lookup_actions() == LOOKS


async def test_a_part_is_adopted_by_its_own_images_alone(setup: StoreAndCloud) -> None:
    """Under the names of the whole lie the images that came; they say nothing of the missing."""
    whole, part = await unknown(setup), await unknown(setup)
    prefix = (await read_job(setup.database, whole)).object_prefix
    await setup.export_without_answer(whole)
    await update_job(setup.database, part, object_prefix=prefix)
    assert await looked(setup, part) is JobState.UNKNOWN
    await setup.export_without_answer(part)
    assert await looked(setup, part) is JobState.ACCEPTED


async def test_another_jobs_objects_adopt_nobody(setup: StoreAndCloud) -> None:
    """Only what lies under the job's own tag is its own, be it the same image."""
    other = await unknown(setup)
    await setup.export_without_answer(other)
    job_id = await unknown(setup)
    image_ids = (await read_job(setup.database, other)).image_ids
    await update_job(setup.database, job_id, image_ids=image_ids)
    assert await looked(setup, job_id) is JobState.UNKNOWN


@pytest.mark.parametrize("known", [False, True], ids=["nothing expected", "one more expected"])
async def test_an_adopted_job_is_verified_by_what_was_expected_alone(
    setup: StoreAndCloud, known: bool
) -> None:
    """What was found may not be all: without every expected object it is not verified."""
    job_id = await unknown(setup)
    if known:
        await add_expected_objects(setup.database, job_id, "another-disk.raw")
    await setup.export_without_answer(job_id)
    setup.finish_exports()
    await looked(setup, job_id)
    assert await setup.verify(await setup.tracked_job(job_id)) is JobState.ACCEPTED


async def test_an_adopted_job_is_verified_when_all_expected_is_there(setup: StoreAndCloud) -> None:
    """With its disks known beforehand, evidence alone brings a job to its good end."""
    job_id = await unknown(setup)
    await setup.export_without_answer(job_id)
    keys = [upload.key for upload in setup.simulator.exports[0].uploads]
    await add_expected_objects(setup.database, job_id, *keys)
    setup.finish_exports()
    await looked(setup, job_id)
    assert await setup.verify(await setup.tracked_job(job_id)) is JobState.VERIFIED


async def test_clean_looks_over_the_grace_time_send_it_again(proven: StoreAndCloud) -> None:
    """One clean look proves nothing; the first begins the time, the last puts it back."""
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
async def test_a_listing_that_failed_is_no_look(setup: StoreAndCloud, action: str) -> None:
    """Where one of the two listings is refused, no clean time begins, and none ends."""
    since = await now(setup.database) - timedelta(hours=1)
    fresh, looked_at = await unknown(setup), await unknown(setup, absent_since=since)
    setup.deny(action)
    for job_id, absent_since in ((fresh, None), (looked_at, since)):
        with pytest.raises(CloudRefusal):
            await looked(setup, job_id)
        kept = await read_job(setup.database, job_id)
        assert (kept.state, kept.absent_since) == (JobState.UNKNOWN, absent_since)


async def test_a_request_that_may_still_leave_fences_the_next(proven: StoreAndCloud) -> None:
    """However many clean looks: the time of grace begins when its signature has expired."""
    fence = await now(proven.database) + timedelta(seconds=330)
    job_id = await unknown(proven, no_resend_before=fence)
    await looked(proven, job_id)
    await advance_time(proven.database, seconds=330 + 60)
    assert await looked(proven, job_id) is JobState.UNKNOWN
    await advance_time(proven.database, seconds=61)
    assert await looked(proven, job_id) is JobState.QUEUED


async def test_an_exact_name_is_never_sent_again_by_itself(setup: StoreAndCloud) -> None:
    """Its looks may all be clean: without a tag no look can prove that nothing comes."""
    job_id = await unknown(setup, exact_names=True)
    await add_expected_objects(
        setup.database, job_id, "web_img-00000001_system.raw", baseline_etag=""
    )
    await looked(setup, job_id)
    await advance_time(setup.database, days=30)
    assert await looked(setup, job_id) is JobState.UNKNOWN


async def test_an_exact_name_that_changed_is_adopted(setup: StoreAndCloud) -> None:
    """An upload or a new object under the very key is the lost answer; a longer key is not."""
    job_id = await unknown(setup, exact_names=True, object_prefix="web")
    await setup.export_without_answer(job_id)
    (key, *_) = (upload.key for upload in setup.simulator.exports[0].uploads)
    await add_expected_objects(setup.database, job_id, key.removesuffix(".raw"), baseline_etag="")
    assert await looked(setup, job_id) is JobState.UNKNOWN
    await add_expected_objects(setup.database, job_id, key, baseline_etag="")
    assert await looked(setup, job_id) is JobState.ACCEPTED
    event = (await read_rows(setup.database, events, job_id))[-1]
    assert keys_in_event(event, "uploads") == [key]


async def test_when_attempts_are_used_up_a_clean_time_ends_it(proven: StoreAndCloud) -> None:
    """Sent as often as allowed and never found: it has failed, in doubt, with its last code."""
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
    assert kept.finished_at is not None


async def test_a_job_that_was_settled_meanwhile_is_left_alone(setup: StoreAndCloud) -> None:
    """Evidence that comes after an answer changes neither state nor TaskId."""
    job_id = await unknown(setup)
    await setup.export_without_answer(job_id)
    before = await setup.tracked_job(job_id)
    await update_job(setup.database, job_id, state=JobState.ACCEPTED, task_id="7")
    told = await read_event_kinds(setup.database, job_id)
    await resolve(setup.database, setup.cos, before, POLICY, setup.absence, TESTER)
    kept = await read_job(setup.database, job_id)
    assert (kept.state, kept.task_id) == (JobState.ACCEPTED, "7")
    assert await read_event_kinds(setup.database, job_id) == told
