"""Accepted jobs: verified when all objects are in the bucket, failed at the deadline."""

from datetime import timedelta

import pytest

from orchestrator.errors import CloudRefusal
from orchestrator.job_states import JobState
from orchestrator.model import NOT_DELIVERED
from orchestrator.simulator import Delivery, Fault, ImageSettings
from orchestrator.store.tables import events, objects
from orchestrator.verification.delivery_check import Finding
from tests.job_factory import (
    DEADLINE,
    SETTINGS,
    add_expected_objects,
    advance_time,
    claim_one,
    make_job,
    make_jobs,
    make_request,
    make_verified_job,
    now,
    read_event_kinds,
    read_job,
    read_rows,
    record_outcome,
    update_job,
)
from tests.store_and_cloud import StoreAndCloud, keys_in_event

pytestmark = pytest.mark.anyio

TWO = ("img-00000001", "img-00000002")


async def accepted(setup: StoreAndCloud, *images: str, disks: int = 1) -> int:
    """Make a job whose export was accepted and recorded; return its id."""
    shape = ImageSettings(sizes=(50, 100, 20)[:disks])
    setup.simulator.change(images=dict.fromkeys(images or TWO[:1], shape))
    (job_id,) = await make_jobs(setup.database, [make_request(image_ids=images or TWO[:1])])
    lease = await claim_one(setup.database)
    await record_outcome(setup.database, lease, await setup.send(lease))
    return job_id


async def exact(setup: StoreAndCloud) -> int:
    """Make a job with an exact name and a running export; its baseline is not saved yet."""
    job_id = await make_job(
        setup.database, JobState.ACCEPTED, exact_names=True, object_prefix="web", task_id="1"
    )
    await update_job(setup.database, job_id, image_ids=list(TWO[:1]))
    if not setup.simulator.exports:
        await setup.export_without_answer(job_id)
    for upload in setup.simulator.exports[0].uploads:
        await add_expected_objects(setup.database, job_id, upload.key, cos_path=f"/{upload.key}")
    return job_id


async def verified(setup: StoreAndCloud, job_id: int) -> JobState:
    return await setup.verify(await setup.tracked_job(job_id))


async def test_a_job_is_verified_when_all_its_objects_are_there(setup: StoreAndCloud) -> None:
    """Each object is stored with its evidence: size, ETag, CRC64 and time."""
    job_id = await accepted(setup, disks=2)
    setup.finish_exports()
    assert await verified(setup, job_id) is JobState.VERIFIED
    kept = await read_job(setup.database, job_id)
    assert (kept.state, kept.reason) == ("verified", "seen in the bucket")
    assert kept.finished_at >= kept.accepted_at
    seen = await read_rows(setup.database, objects, job_id)
    stored = {one.key: one for one in setup.simulator.exports[0].objects}
    assert {row.key for row in seen} == stored.keys()
    for row in seen:
        one = stored[row.key]
        assert (row.size, row.etag, row.crc64) == (one.size, one.etag, str(one.crc64))
        assert row.last_modified is not None
        assert row.seen_at is not None
    event = (await read_rows(setup.database, events, job_id))[-1]
    assert event.kind == "verified"
    assert set(keys_in_event(event, "objects")) == stored.keys()


async def test_no_required_objects_are_not_complete(setup: StoreAndCloud) -> None:
    """A job without required objects does not count as delivered."""
    assert not Finding(await setup.tracked_job(await accepted(setup))).is_complete


async def test_a_first_trace_is_never_earlier_than_its_request(setup: StoreAndCloud) -> None:
    """An object that looks older than its request, by the clock of COS, proves the bucket too."""
    job_id = await accepted(setup)
    setup.finish_exports()
    sent_at = await now(setup.database) + timedelta(seconds=60)
    await update_job(setup.database, job_id, sent_at=sent_at)
    assert await verified(setup, job_id) is JobState.VERIFIED
    assert (await read_job(setup.database, job_id)).first_trace_at == sent_at


async def test_an_incomplete_export_changes_nothing(setup: StoreAndCloud) -> None:
    """While objects are missing, look-ups change neither the job nor its events."""
    job_id = await accepted(setup)
    before = await read_job(setup.database, job_id)
    assert await verified(setup, job_id) is JobState.ACCEPTED
    assert await verified(setup, job_id) is JobState.ACCEPTED
    assert await read_job(setup.database, job_id) == before
    assert await read_event_kinds(setup.database, job_id) == ["enqueued", "claimed", "accepted"]


async def test_several_images_need_every_expected_object(setup: StoreAndCloud) -> None:
    """An object that was expected, but not named by the vendor, is required too."""
    job_id = await accepted(setup, *TWO)
    await add_expected_objects(setup.database, job_id, "never-named.raw")
    setup.finish_exports()
    assert await verified(setup, job_id) is JobState.ACCEPTED


async def test_an_empty_object_counts_as_missing(setup: StoreAndCloud) -> None:
    """No disk has 0 bytes, so at the deadline the export counts as not delivered."""
    setup.simulator.change(deliveries=(Delivery(kind="empty"),))
    job_id = await accepted(setup)
    setup.finish_exports()
    assert await verified(setup, job_id) is JobState.ACCEPTED
    await advance_time(setup.database, seconds=DEADLINE.total_seconds() + 1)
    assert await verified(setup, job_id) is JobState.FAILED
    said = (await read_job(setup.database, job_id)).message
    assert "0 of 1 objects are there, 1 without a byte" in said


async def test_an_export_still_being_written_gets_twice_the_time(setup: StoreAndCloud) -> None:
    """While an upload is open, twice the learned deadline is allowed."""
    seconds = 50 * 110  # the deadline learned from a single export of 50 s
    job_id = await accepted(setup)
    await make_verified_job(setup.database, took=50)
    await advance_time(setup.database, seconds=seconds + 1)
    assert await verified(setup, job_id) is JobState.ACCEPTED
    await advance_time(setup.database, seconds=seconds)
    assert await verified(setup, job_id) is JobState.FAILED
    event = (await read_rows(setup.database, events, job_id))[-1]
    uploads = {upload.key for upload in setup.simulator.exports[0].uploads}
    assert set(keys_in_event(event, "uploads")) == uploads


async def test_missing_images_are_named(setup: StoreAndCloud) -> None:
    """The failure of a request for two images names the one that arrived and the missing one."""
    lost, came = TWO
    setup.simulator.change(deliveries=(Delivery(kind="never", images=(lost,)),))
    job_id = await accepted(setup, lost, came)
    setup.finish_exports()
    await advance_time(setup.database, seconds=DEADLINE.total_seconds() + 1)
    assert await verified(setup, job_id) is JobState.FAILED
    kept = await read_job(setup.database, job_id)
    assert f"Arrived: {came}. Missing: {lost}." in kept.message


async def test_a_raw_file_shorter_than_its_disk_is_reported(setup: StoreAndCloud) -> None:
    """It is verified, because the size is not documented, and its message names the file."""
    job_id = await accepted(setup)
    setup.finish_exports()
    (stored,) = setup.simulator.exports[0].objects
    await add_expected_objects(setup.database, job_id, stored.key + ".other", disk_gib=50)
    async with setup.database.write() as connection:
        this = objects.update().where(objects.c.key == stored.key)
        await connection.execute(this.values(disk_gib=2 * stored.size // 2**30))
    assert await verified(setup, job_id) is JobState.VERIFIED
    kept = await read_job(setup.database, job_id)
    assert stored.key in kept.message
    assert "as long as its disk" in kept.remedy
    assert kept.code is None


async def test_missing_objects_are_named_at_the_deadline(setup: StoreAndCloud) -> None:
    """The failure has number and keys of the objects, and a remedy; an export may still exist."""
    setup.simulator.change(deliveries=(Delivery(kind="partial"),))
    job_id = await accepted(setup, disks=3)
    setup.finish_exports()
    await advance_time(setup.database, seconds=DEADLINE.total_seconds() - 60)
    assert await verified(setup, job_id) is JobState.ACCEPTED
    await advance_time(setup.database, seconds=61)
    assert await verified(setup, job_id) is JobState.FAILED
    kept = await read_job(setup.database, job_id)
    assert (kept.code, kept.reason, kept.maybe_applied) == (NOT_DELIVERED, "not delivered", True)
    assert "2 of 3 objects are there" in kept.message
    assert f"retry --job {job_id}" in kept.remedy
    event = (await read_rows(setup.database, events, job_id))[-1]
    assert len(keys_in_event(event, "found")) == 2
    assert len(keys_in_event(event, "missing")) == 1
    sizes = {row.key: row.size for row in await read_rows(setup.database, objects, job_id)}
    assert all(sizes[key] for key in keys_in_event(event, "found"))


async def test_objects_found_after_the_deadline_count(setup: StoreAndCloud) -> None:
    """If all objects exist at the first look-up after the deadline, the job is verified."""
    job_id = await accepted(setup)
    setup.finish_exports()
    await advance_time(setup.database, seconds=DEADLINE.total_seconds() + 1)
    assert await verified(setup, job_id) is JobState.VERIFIED


async def test_a_failed_look_up_changes_nothing(setup: StoreAndCloud) -> None:
    """A refused or failed look-up proves nothing, even after the deadline."""
    job_id = await accepted(setup)
    await advance_time(setup.database, seconds=DEADLINE.total_seconds() + 1)
    before = await read_job(setup.database, job_id)
    setup.deny("HeadObject")
    with pytest.raises(CloudRefusal):
        await verified(setup, job_id)
    setup.deny()
    setup.simulator.set_faults(Fault(kind="gateway", action="cos"))
    with pytest.raises(CloudRefusal):
        await verified(setup, job_id)
    assert await read_job(setup.database, job_id) == before


async def test_a_job_verified_meanwhile_is_not_changed(setup: StoreAndCloud) -> None:
    """A look-up of a job that was verified meanwhile writes no second event."""
    job_id = await accepted(setup)
    setup.finish_exports()
    seen_before = await setup.tracked_job(job_id)
    await verified(setup, job_id)
    told = await read_event_kinds(setup.database, job_id)
    assert await setup.verify(seen_before) is JobState.ACCEPTED
    assert await read_event_kinds(setup.database, job_id) == told


async def test_an_older_object_under_an_exact_name_does_not_count(setup: StoreAndCloud) -> None:
    """An object from before the request does not count; the one that replaces it does."""
    older, newer = [await exact(setup) for _ in range(2)]
    setup.finish_exports()
    await setup.save_baselines(older)
    assert await verified(setup, older) is JobState.ACCEPTED
    await setup.export_without_answer(newer)
    setup.finish_exports()
    assert await verified(setup, older) is JobState.VERIFIED


async def test_a_listed_older_object_is_not_overruled_by_head(setup: StoreAndCloud) -> None:
    """The answer to a HEAD may be that of another request; only an empty listing is not trusted."""
    job_id = await exact(setup)
    setup.finish_exports()
    await setup.save_baselines(job_id)
    await advance_time(setup.database, seconds=SETTINGS.resend_after.total_seconds() + 1)
    before = len(setup.lookup_actions())
    assert await verified(setup, job_id) is JobState.ACCEPTED
    assert set(setup.lookup_actions()[before:]) == {"GetBucket"}


async def test_an_object_under_an_unused_exact_name_counts(setup: StoreAndCloud) -> None:
    """If there was no object before the request, any object counts."""
    job_id = await exact(setup)
    await setup.save_baselines(job_id)
    assert await verified(setup, job_id) is JobState.ACCEPTED
    setup.finish_exports()
    assert await verified(setup, job_id) is JobState.VERIFIED


async def test_without_a_baseline_the_time_of_the_object_decides(setup: StoreAndCloud) -> None:
    """If no baseline was saved, only an object written after the request counts."""
    job_id = await exact(setup)
    setup.finish_exports()
    sent_at = (await read_job(setup.database, job_id)).sent_at
    await update_job(setup.database, job_id, sent_at=sent_at + timedelta(days=1000))
    assert await verified(setup, job_id) is JobState.ACCEPTED
    await update_job(setup.database, job_id, sent_at=sent_at)
    assert await verified(setup, job_id) is JobState.VERIFIED
