"""Accepted jobs: verified when all objects are in the bucket, failed at the deadline."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from orchestrator.cloud.cos import CosClient
from orchestrator.cloud.error_codes import UNDATED_OBJECT, UNTRUSTED_READS, cos_code_for
from orchestrator.errors import CloudRefusal
from orchestrator.job_states import JobState
from orchestrator.learned_vendor_facts import NO, YES, VendorFact, facts_about
from orchestrator.model import NOT_DELIVERED, ImageFormat, ObjectFacts, UploadFacts
from orchestrator.simulator import Delivery, Duration, Fault, ImageSettings
from orchestrator.store import Database
from orchestrator.store.tables import events, jobs, objects
from orchestrator.verification.bucket_trust import BucketTrust, calibrate
from orchestrator.verification.delivery_check import Finding, check_delivery
from orchestrator.verification.object_lookup import is_own
from orchestrator.verification.tracked_jobs import save_baselines
from tests.job_factory import (
    BUCKET,
    DEADLINE,
    PROFILE,
    REGION,
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
from tests.store_and_cloud import StoreAndCloud, keys_in_event, make_trust

pytestmark = pytest.mark.anyio

TWO = ("img-00000001", "img-00000002")
TOOK = 201
"""Seconds after which an export of the setup has ended."""


async def accepted(
    setup: StoreAndCloud, *images: str, disks: int = 1, described: bool = True
) -> int:
    """Make a job whose export was accepted and recorded; return its id.

    Args:
        described: the keys that the answer named were expected.
    """
    shape = ImageSettings(sizes=(50, 100, 20)[:disks])
    setup.simulator.change(images=dict.fromkeys(images or TWO[:1], shape))
    (job_id,) = await make_jobs(setup.database, [make_request(image_ids=images or TWO[:1])])
    lease = await claim_one(setup.database)
    await record_outcome(setup.database, lease, await setup.send(lease))
    async with setup.database.write() as connection:
        this = objects.update().where(objects.c.job_id == job_id)
        await connection.execute(this.values(expected=described))
    return job_id


async def exact(setup: StoreAndCloud) -> int:
    """Make a job with an exact name and a running export; return its id.

    Its baseline is not saved yet.
    """
    job_id = await make_job(
        setup.database, JobState.ACCEPTED, exact_names=True, object_prefix="web", task_id="1"
    )
    await update_job(setup.database, job_id, image_ids=list(TWO[:1]))
    if not setup.simulator.exports:
        await setup.export_without_answer(job_id)
    for upload in setup.simulator.exports[0].uploads:
        await add_expected_objects(setup.database, job_id, upload.key, cos_path=f"/{upload.key}")
    return job_id


async def send_now(setup: StoreAndCloud, job_id: int) -> None:
    """Set the request time of an accepted job to now, later than every object.

    All clocks advance by 10 s first.
    """
    await pass_time(setup, 10)
    async with setup.database.read() as connection:
        now = await setup.database.now(connection)
    await update_job(setup.database, job_id, sent_at=now, accepted_at=now)


async def pass_time(setup: StoreAndCloud, seconds: float) -> None:
    """Advance all clocks together; COS tells the time."""
    setup.pass_time(seconds)
    await advance_time(setup.database, seconds=seconds)
    await setup.cos.list_uploads(REGION, BUCKET, "none")


async def learned(setup: StoreAndCloud) -> Mapping[VendorFact, str]:
    """Return what was learned of the bucket, from the store."""
    (job_id, *_) = await all_ids(setup.database)
    await setup.trust.save(setup.database, await setup.tracked_job(job_id))
    async with setup.database.read() as connection:
        return await facts_about(connection, PROFILE, f"{REGION}/{BUCKET}")


async def all_ids(database: Database) -> list[int]:
    """Return the ids of all jobs."""
    async with database.read() as connection:
        return list((await connection.execute(sa.select(jobs.c.id))).scalars())


async def drop_named_key(setup: StoreAndCloud, job_id: int, part: str) -> None:
    """Forget the keys of a job with this text, as if the vendor had not named them."""
    async with setup.database.write() as connection:
        await connection.execute(
            objects.delete().where(objects.c.job_id == job_id, objects.c.key.contains(part))
        )


class UndatedCosClient(CosClient):
    """A client behind a proxy that removes the times of objects."""

    def __init__(self, real: CosClient) -> None:
        self._real = real
        self.clock = real.clock

    async def head_object(self, region: str, bucket: str, key: str) -> ObjectFacts | None:
        """Return one object without its time."""
        facts = await self._real.head_object(region, bucket, key)
        return facts and replace(facts, last_modified=None)

    async def list_objects(self, region: str, bucket: str, prefix: str) -> tuple[ObjectFacts, ...]:
        """Return objects without their times."""
        found = await self._real.list_objects(region, bucket, prefix)
        return tuple(replace(facts, last_modified=None) for facts in found)

    async def list_uploads(self, region: str, bucket: str, prefix: str) -> tuple[UploadFacts, ...]:
        """Return the open uploads."""
        return await self._real.list_uploads(region, bucket, prefix)


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
    assert not Finding(await setup.tracked_job(await accepted(setup))).is_final


async def test_a_first_trace_is_never_earlier_than_its_request(setup: StoreAndCloud) -> None:
    """A trace that COS dates before the request gets the time of the request.

    Such a trace also proves that exports of this bucket can be found.
    """
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


@pytest.mark.parametrize("images", [TWO[:1], TWO], ids=["one image", "two images"])
async def test_expected_objects_are_waited_for_as_long_as_the_export_took(
    setup: StoreAndCloud, images: tuple[str, ...]
) -> None:
    """A job waits for an object that was not named, then is verified with a warning.

    The warning names the object. The time is derived from the times of the objects, so that it goes
    on after a restart.
    """
    job_id = await accepted(setup, *images)
    await add_expected_objects(setup.database, job_id, "never-named.raw")
    await pass_time(setup, TOOK + 10)
    assert await verified(setup, job_id) is JobState.ACCEPTED
    await pass_time(setup, TOOK)
    assert await verified(setup, job_id) is JobState.VERIFIED
    kept = await read_job(setup.database, job_id)
    assert "never-named.raw" in kept.warnings[0]
    assert (kept.reason, kept.code) == ("seen in the bucket, with a warning", None)


async def test_an_object_that_comes_late_is_no_warning(setup: StoreAndCloud) -> None:
    """A job waits for a data disk that CosPaths do not name, and has no warning.

    The open upload of the disk shows that its object will come.
    """
    setup.simulator.change(cos_paths="system-only", data_disks_after=500.0)
    job_id = await accepted(setup, disks=2)
    keys = [upload.key for upload in setup.simulator.exports[0].uploads]
    await add_expected_objects(setup.database, job_id, keys[1])
    await pass_time(setup, 2 * TOOK + 10)
    assert setup.simulator.exports[0].objects
    assert await verified(setup, job_id) is JobState.ACCEPTED  # its upload is open
    await pass_time(setup, 500)
    assert await verified(setup, job_id) is JobState.VERIFIED
    assert (await read_job(setup.database, job_id)).warnings is None


async def test_an_undescribed_job_waits_for_disks_that_were_not_named(
    setup: StoreAndCloud,
) -> None:
    """If one disk of two is named, the job waits, and a warning lists the objects.

    Uploads are hidden, so only time shows that nothing more comes.
    """
    setup.simulator.change(cos_paths="system-only", data_disks_after=50.0, hide_uploads=True)
    job_id = await accepted(setup, disks=2, described=False)
    await pass_time(setup, TOOK + 10)
    assert await verified(setup, job_id) is JobState.ACCEPTED
    await pass_time(setup, 2 * TOOK)
    assert await verified(setup, job_id) is JobState.VERIFIED
    (warning,) = (await read_job(setup.database, job_id)).warnings
    assert all(one.key in warning for one in setup.simulator.exports[0].objects)


async def test_where_uploads_may_not_be_listed_a_job_waits_for_longer(
    setup: StoreAndCloud,
) -> None:
    """Nothing shows that no upload is open, although uploads were seen here before."""
    job_id = await accepted(setup, described=False)
    for state in (JobState.ACCEPTED, JobState.VERIFIED):
        setup.deny()
        await pass_time(setup, 2 * TOOK + 10)
        setup.deny("ListMultipartUploads")
        assert await verified(setup, job_id) is state


async def test_a_failed_listing_of_uploads_is_not_an_empty_one(setup: StoreAndCloud) -> None:
    """If the listing of uploads fails, nothing is verified until the next look-up.

    A fault of the service is not an answer.
    """
    job_id = await accepted(setup, described=False)
    await pass_time(setup, 4 * TOOK)
    setup.simulator.set_faults(Fault("gateway", action="ListMultipartUploads", times=1))
    with pytest.raises(CloudRefusal) as caught:
        await verified(setup, job_id)
    assert caught.value.http_status == 502
    assert await verified(setup, job_id) is JobState.VERIFIED


@pytest.mark.parametrize("names", ["uppercase", "gz", "split", "other-snapshots"])
async def test_objects_under_other_names_are_found_under_the_tag(
    setup: StoreAndCloud, names: str
) -> None:
    """Tagged objects with other names count after a while, with a warning.

    No other job has the tag, and no upload is open.
    """
    setup.simulator.change(object_names=names)
    job_id = await accepted(setup, disks=2)
    await pass_time(setup, TOOK + 10)
    assert await verified(setup, job_id) is JobState.ACCEPTED
    await pass_time(setup, TOOK)
    assert await verified(setup, job_id) is JobState.VERIFIED
    (warning,) = (await read_job(setup.database, job_id)).warnings
    assert warning.startswith("Named differently: ")
    seen = {row.key for row in await read_rows(setup.database, objects, job_id) if row.size}
    assert seen == {one.key for one in setup.simulator.exports[0].objects}


async def test_fewer_objects_under_other_names_fail_at_the_deadline(setup: StoreAndCloud) -> None:
    """One of two files is not all, however long it has been there."""
    setup.simulator.change(object_names="gz", deliveries=(Delivery(kind="partial"),))
    job_id = await accepted(setup, disks=2)
    await pass_time(setup, 3 * TOOK)
    assert await verified(setup, job_id) is JobState.ACCEPTED
    await pass_time(setup, DEADLINE.total_seconds())
    assert await verified(setup, job_id) is JobState.FAILED


async def test_one_file_for_all_disks_counts_at_the_deadline(setup: StoreAndCloud) -> None:
    """One file for all disks counts at the deadline, and a warning names it.

    No answer names the file, so the job waits until the deadline.
    """
    setup.simulator.change(object_names="one-file", cos_paths="one-file")
    job_id = await accepted(setup, disks=2)
    (named,) = await read_rows(setup.database, objects, job_id)
    async with setup.database.write() as connection:
        await connection.execute(objects.delete().where(objects.c.job_id == job_id))
    for disk, gib in (("system", 50), ("data", 100)):
        await add_expected_objects(setup.database, job_id, f"{disk}.raw", disk_gib=gib)
    await update_job(setup.database, job_id, task_id=None)
    await pass_time(setup, DEADLINE.total_seconds() - 10)
    assert await verified(setup, job_id) is JobState.ACCEPTED
    await pass_time(setup, 20)
    assert await verified(setup, job_id) is JobState.VERIFIED
    (warning,) = (await read_job(setup.database, job_id)).warnings
    assert warning.startswith(f"Fewer objects than disks: {named.key}, for 2.")


async def test_an_open_upload_keeps_other_names_from_counting(setup: StoreAndCloud) -> None:
    """While something is being written under the tag, more may come."""
    setup.simulator.change(object_names="gz", data_disks_after=10 * TOOK)
    job_id = await accepted(setup, disks=2)
    # only the first of two disks is named, and it has the other name
    await drop_named_key(setup, job_id, "_data_")
    await pass_time(setup, 3 * TOOK)
    assert await verified(setup, job_id) is JobState.ACCEPTED
    await pass_time(setup, 8 * TOOK)
    assert await verified(setup, job_id) is JobState.ACCEPTED
    await pass_time(setup, 12 * TOOK)
    assert await verified(setup, job_id) is JobState.VERIFIED


@pytest.mark.parametrize("form", ["url", "encoded", "no-slash", "bucket-first"])
async def test_cos_paths_of_another_form_cost_nothing(setup: StoreAndCloud, form: str) -> None:
    """They are asked for as keys, and are stored as the vendor wrote them."""
    setup.simulator.change(cos_paths=form)
    job_id = await accepted(setup, disks=2)
    setup.finish_exports()
    assert await verified(setup, job_id) is JobState.VERIFIED
    kept = {row.cos_path for row in await read_rows(setup.database, objects, job_id)}
    assert kept == set(setup.simulator.ledger[0].cos_paths)
    assert (await read_job(setup.database, job_id)).warnings is None


async def test_an_older_object_under_a_key_without_the_tag_does_not_count(
    setup: StoreAndCloud,
) -> None:
    """A vendor that ignores the prefix, and last month's object of that name."""
    setup.simulator.change(ignore_prefix=True, old_objects=True)
    job_id = await accepted(setup)
    await pass_time(setup, TOOK - 20)
    assert await verified(setup, job_id) is JobState.ACCEPTED
    await pass_time(setup, 20)
    assert await verified(setup, job_id) is JobState.VERIFIED
    assert (await learned(setup))[VendorFact.PREFIX_HONOURED] == NO


async def test_an_object_without_a_time_is_neither_proof_nor_failure(setup: StoreAndCloud) -> None:
    """An untagged object without a time neither verifies nor fails the job.

    Nothing shows whether the object is new, so the job stays accepted.
    """
    setup.simulator.change(ignore_prefix=True)
    job_id = await accepted(setup)
    await pass_time(setup, TOOK)
    undated = replace(setup, cos=UndatedCosClient(setup.cos))
    assert await verified(undated, job_id) is JobState.ACCEPTED
    await pass_time(setup, DEADLINE.total_seconds())
    with pytest.raises(CloudRefusal) as caught:
        await verified(undated, job_id)
    assert caught.value.code == UNDATED_OBJECT
    assert await verified(setup, job_id) is JobState.VERIFIED


async def test_a_wrong_date_of_cos_does_not_fail_a_good_export(setup: StoreAndCloud) -> None:
    """If only one of two clocks dates an object before the request, no job fails.

    It is unclear whether the object belongs to the job, so it does not count as missing.
    """
    setup.simulator.change(ignore_prefix=True, cos_date_skew=3600.0)
    job_id = await accepted(setup)
    await pass_time(setup, TOOK)
    assert await verified(setup, job_id) is JobState.ACCEPTED
    await pass_time(setup, DEADLINE.total_seconds())
    with pytest.raises(CloudRefusal) as caught:
        await verified(setup, job_id)
    assert caught.value.code == UNDATED_OBJECT
    assert "NTP" in cos_code_for(caught.value).remedy


@pytest.mark.parametrize(
    ("seconds", "expected"), [(-3610, False), (-3590, None), (-10, None), (0, True), (10, True)]
)
async def test_an_object_is_own_if_both_clocks_say_so(
    setup: StoreAndCloud, seconds: int, expected: bool | None
) -> None:
    """The clock of COS is an hour behind this machine's, and either may be right."""
    setup.simulator.change(ignore_prefix=True)
    job = await setup.tracked_job(await accepted(setup))
    later = (await now(setup.database)).replace(microsecond=0)
    written = ObjectFacts("key-without-tag", 1, "etag", later + timedelta(seconds=seconds))
    assert is_own(job, written, (later - timedelta(hours=1), later)) is expected


async def test_an_object_that_grows_is_looked_at_again(setup: StoreAndCloud) -> None:
    """A job is not verified while its object changes between two looks.

    An object can be visible before it is complete.
    """
    setup.simulator.change(growing_objects=True)
    forgetful = replace(setup, trust=make_trust(experienced=False))
    (job_id,) = await make_jobs(setup.database, [make_request(format=ImageFormat.QCOW2)])
    lease = await claim_one(setup.database)
    await record_outcome(setup.database, lease, await setup.send(lease))
    for _ in range(3):
        await pass_time(setup, 50)
        assert await verified(forgetful, job_id) is JobState.ACCEPTED
    assert (await learned(forgetful))[VendorFact.OBJECTS_COMPLETE] == NO


async def test_an_open_upload_without_an_object_shows_that_objects_are_complete(
    setup: StoreAndCloud,
) -> None:
    """An object that is not visible during its upload needs no second look.

    It is complete as soon as it is visible.
    """
    forgetful = replace(setup, trust=make_trust(experienced=False))
    job_id = await accepted(setup)
    job = await setup.tracked_job(job_id)
    await check_delivery(
        setup.cos, forgetful.trust, job, timedelta(), [], SETTINGS, wants_trace=True
    )
    setup.finish_exports()
    assert await verified(forgetful, job_id) is JobState.VERIFIED
    facts = await learned(forgetful)
    assert facts[VendorFact.UPLOADS_VISIBLE] == facts[VendorFact.OBJECTS_COMPLETE] == YES


async def test_what_head_finds_does_not_count_where_it_finds_anything(
    setup: StoreAndCloud,
) -> None:
    """The listing decides; while it has shown nothing at all, no job fails either."""
    setup.simulator.change(head_finds_anything=True)
    job_id = await accepted(setup)
    careful = replace(setup, trust=BucketTrust())
    await calibrate(setup.database, setup.cos, careful.trust, await setup.tracked_job(job_id))
    await pass_time(setup, SETTINGS.resend_after.total_seconds() + 1)
    assert await verified(careful, job_id) is JobState.ACCEPTED
    await pass_time(setup, TOOK)
    # a listing shows the object; no other look-up has shown yet that objects are complete
    assert await verified(careful, job_id) is JobState.ACCEPTED
    assert (await learned(careful))[VendorFact.HEAD_TRUSTED] == NO
    careful.trust.learn_completeness()
    assert await verified(careful, job_id) is JobState.VERIFIED


async def test_a_job_does_not_fail_where_neither_read_is_trusted(setup: StoreAndCloud) -> None:
    """If neither HEAD nor listings are trusted, no job fails at the deadline.

    HEAD finds anything and listings show nothing, so absence is not proven.
    """
    setup.simulator.change(head_finds_anything=True, empty_listings=True)
    job_id = await accepted(setup)
    trust = make_trust()
    trust.learn(VendorFact.HEAD_TRUSTED, NO)
    await pass_time(setup, DEADLINE.total_seconds() + 1)
    with pytest.raises(CloudRefusal) as caught:
        await verified(replace(setup, trust=trust), job_id)
    assert caught.value.code == UNTRUSTED_READS


async def test_listed_keys_without_the_prefix_are_dropped(setup: StoreAndCloud) -> None:
    """A listing that ignores the prefix is not trusted; HEAD alone verifies the job."""
    setup.simulator.change(listings_ignore_prefix=True)
    first, second = await accepted(setup), await accepted(setup, "img-00000003")
    await pass_time(setup, TOOK)
    for job_id in (first, second):
        assert await verified(setup, job_id) is JobState.VERIFIED
    assert (await learned(setup))[VendorFact.LISTING_TRUSTED] == NO
    seen = {row.job_id: row.key for row in await read_rows(setup.database, objects, first)}
    assert list(seen.values()) == [setup.simulator.exports[0].objects[0].key]
    setup.trust.learn(VendorFact.HEAD_TRUSTED, NO)
    third = await accepted(setup, "img-00000004")
    with pytest.raises(CloudRefusal) as caught:
        await verified(replace(setup, trust=setup.trust), third)
    assert caught.value.code == UNTRUSTED_READS


async def test_a_listing_that_does_not_show_what_head_finds_is_not_trusted(
    setup: StoreAndCloud,
) -> None:
    """HEAD verifies the job, and listings of the bucket are not trusted any more.

    From then on an empty listing of this bucket proves nothing.
    """
    setup.simulator.change(empty_listings=True)
    job_id = await accepted(setup)
    await pass_time(setup, TOOK)
    assert await verified(setup, job_id) is JobState.VERIFIED
    assert (await learned(setup))[VendorFact.LISTING_TRUSTED] == NO


async def test_an_empty_object_counts_as_missing(setup: StoreAndCloud) -> None:
    """No disk has 0 bytes, so at the deadline the export counts as not delivered."""
    setup.simulator.change(deliveries=(Delivery(kind="empty"),))
    job_id = await accepted(setup)
    setup.finish_exports()
    assert await verified(setup, job_id) is JobState.ACCEPTED
    await advance_time(setup.database, seconds=DEADLINE.total_seconds() + 1)
    assert await verified(setup, job_id) is JobState.FAILED
    said = (await read_job(setup.database, job_id)).message
    assert "passed with 0 of 1 objects in the bucket, 1 too small to be a disk image" in said


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
    """A failed job of two images names the one that arrived and the missing one."""
    lost, came = TWO
    setup.simulator.change(deliveries=(Delivery(kind="never", images=(lost,)),))
    job_id = await accepted(setup, lost, came)
    setup.finish_exports()
    await advance_time(setup.database, seconds=DEADLINE.total_seconds() + 1)
    assert await verified(setup, job_id) is JobState.FAILED
    kept = await read_job(setup.database, job_id)
    assert f"Arrived: {came}. Missing: {lost}." in kept.message


async def test_a_raw_file_shorter_than_its_disk_is_reported(setup: StoreAndCloud) -> None:
    """A RAW file that is too short is verified after a while; a warning names it.

    The job does not fail, because the size is not documented.
    """
    job_id = await accepted(setup)
    await pass_time(setup, TOOK + 10)
    (stored,) = setup.simulator.exports[0].objects
    async with setup.database.write() as connection:
        this = objects.update().where(objects.c.key == stored.key)
        await connection.execute(this.values(disk_gib=2 * stored.size // 2**30))
    assert await verified(setup, job_id) is JobState.ACCEPTED
    await pass_time(setup, TOOK)
    assert await verified(setup, job_id) is JobState.VERIFIED
    kept = await read_job(setup.database, job_id)
    assert stored.key in kept.warnings[0]
    assert "as long as its disk" in kept.warnings[0]
    assert kept.code is None


@pytest.mark.parametrize("drops_prefix", [False, True])
async def test_the_second_look_is_judged_by_the_time_of_the_first(
    setup: StoreAndCloud, monkeypatch: pytest.MonkeyPatch, drops_prefix: bool
) -> None:
    """The age of the export is of that time, too: later clocks would contradict it.

    By them a request seems later than it was, and an object without the tag older than it.
    """
    setup.simulator.change(duration=Duration(seconds=3), ignore_prefix=drops_prefix)
    job_id = await accepted(setup, described=False)
    await pass_time(setup, 100)
    list_uploads = setup.cos.list_uploads

    async def list_slowly(region: str, bucket: str, prefix: str) -> tuple[UploadFacts, ...]:
        setup.pass_time(5)
        return await list_uploads(region, bucket, prefix)

    monkeypatch.setattr(setup.cos, "list_uploads", list_slowly)
    assert await verified(setup, job_id) is JobState.VERIFIED


async def test_missing_objects_are_named_at_the_deadline(setup: StoreAndCloud) -> None:
    """The failure has the number and keys of the objects, and a remedy.

    An export may still exist, so the job is marked as maybe applied.
    """
    setup.simulator.change(deliveries=(Delivery(kind="partial"),))
    job_id = await accepted(setup, disks=3)
    setup.finish_exports()
    await advance_time(setup.database, seconds=DEADLINE.total_seconds() - 60)
    assert await verified(setup, job_id) is JobState.ACCEPTED
    await advance_time(setup.database, seconds=61)
    assert await verified(setup, job_id) is JobState.FAILED
    kept = await read_job(setup.database, job_id)
    assert (kept.code, kept.reason, kept.maybe_applied) == (NOT_DELIVERED, "not delivered", True)
    assert "passed with 2 of 3 objects in the bucket" in kept.message
    assert f"retry --job {job_id}" in kept.remedy
    event = (await read_rows(setup.database, events, job_id))[-1]
    assert len(keys_in_event(event, "found")) == 2
    assert len(keys_in_event(event, "missing")) == 1
    sizes = {row.key: row.size for row in await read_rows(setup.database, objects, job_id)}
    assert all(sizes[key] for key in keys_in_event(event, "found"))


async def test_objects_found_after_the_deadline_count(setup: StoreAndCloud) -> None:
    """A job is verified if the first look-up after the deadline finds all objects."""
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
    """An object from before the request does not count; its replacement does."""
    older, newer = [await exact(setup) for _ in range(2)]
    setup.finish_exports()
    await setup.save_baselines(older)
    await send_now(setup, older)
    assert await verified(setup, older) is JobState.ACCEPTED
    await setup.export_without_answer(newer)
    setup.finish_exports()
    assert await verified(setup, older) is JobState.VERIFIED


async def test_an_exact_name_written_again_with_the_same_content_counts(
    setup: StoreAndCloud,
) -> None:
    """An object with the same ETag counts if it is newer than the request.

    The same image has the same ETag.
    """
    job_id = await exact(setup)
    setup.finish_exports()
    await setup.save_baselines(job_id)
    await send_now(setup, job_id)
    assert await verified(setup, job_id) is JobState.ACCEPTED
    await setup.export_without_answer(job_id)
    await pass_time(setup, TOOK)
    etags = {one.key: one.etag for one in await setup.cos.list_objects(REGION, BUCKET, "web")}
    async with setup.database.write() as connection:
        await save_baselines(connection, job_id, etags)
    assert await verified(setup, job_id) is JobState.VERIFIED


async def test_a_listed_older_object_is_not_overruled_by_head(setup: StoreAndCloud) -> None:
    """If a listing shows an older object, no HEAD request is sent.

    The answer to a HEAD may be that of another request; only an empty listing is not trusted.
    """
    job_id = await exact(setup)
    setup.finish_exports()
    await setup.save_baselines(job_id)
    await send_now(setup, job_id)
    await pass_time(setup, SETTINGS.resend_after.total_seconds() + 1)
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
    await pass_time(setup, TOOK)
    sent_at = (await read_job(setup.database, job_id)).sent_at
    await update_job(setup.database, job_id, sent_at=sent_at + timedelta(days=1000))
    assert await verified(setup, job_id) is JobState.ACCEPTED
    await update_job(setup.database, job_id, sent_at=sent_at)
    assert await verified(setup, job_id) is JobState.VERIFIED


@pytest.mark.parametrize("names", ["gz", "uppercase", "one-file", "other-snapshots"])
async def test_without_a_listing_a_missing_key_fails_no_job(
    setup: StoreAndCloud, names: str
) -> None:
    """If listings are refused, a job whose keys HEAD does not find stays accepted.

    HEAD shows only expected names, and the objects may have other names.
    """
    setup.simulator.change(object_names=names)
    job_id = await accepted(setup, disks=2)
    await pass_time(setup, DEADLINE.total_seconds() + 20)
    setup.deny("GetBucket", "ListMultipartUploads")
    with pytest.raises(CloudRefusal, match="AccessDenied"):
        await setup.verify(await setup.tracked_job(job_id))
    assert (await read_job(setup.database, job_id)).state == JobState.ACCEPTED


@pytest.mark.parametrize("late", [False, True], ids=["early", "at the deadline"])
async def test_without_keys_a_refused_listing_is_no_look_up(
    setup: StoreAndCloud, late: bool
) -> None:
    """There is no key to send a HEAD for, so the refusal is the only answer."""
    job_id = await accepted(setup)
    await drop_named_key(setup, job_id, "")
    await pass_time(setup, DEADLINE.total_seconds() + 20 if late else 0)
    setup.deny("GetBucket", "ListMultipartUploads")
    with pytest.raises(CloudRefusal, match="AccessDenied"):
        await setup.verify(await setup.tracked_job(job_id))
