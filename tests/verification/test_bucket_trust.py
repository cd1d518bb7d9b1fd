"""How far the answers about a bucket are believed."""

from dataclasses import replace

import anyio
import pytest

from orchestrator.cloud.error_codes import OTHER_REGION
from orchestrator.errors import CloudRefusal
from orchestrator.learned_vendor_facts import NO, YES, VendorFact, facts_about, record_fact
from orchestrator.model import ObjectFacts
from orchestrator.simulator import BucketSettings, Fault
from orchestrator.verification import bucket_trust
from orchestrator.verification.bucket_trust import BucketTrust, calibrate
from tests.instant_loop import in_no_time
from tests.job_factory import BUCKET, PROFILE, REGION, make_job
from tests.store_and_cloud import StoreAndCloud

OBJECT = ObjectFacts("tag_a.raw", 1000, "etag")
GROWN = replace(OBJECT, size=2000)
NEXT = replace(OBJECT, key="tag_b.raw")


def looks(trust: BucketTrust, *seen: tuple[float, ObjectFacts]) -> list[bool]:
    """Look at objects, each after some seconds of virtual time; return the results."""

    async def take() -> list[bool]:
        results = []
        for seconds, facts in seen:
            await anyio.sleep(seconds)
            results.append(trust.are_unchanged([facts]))
        return results

    return in_no_time(take)


def test_the_first_object_needs_a_second_look() -> None:
    """Some seconds later; once an object has stayed the same, no other one needs it."""
    trust = BucketTrust()
    assert looks(trust, (0, OBJECT), (2, OBJECT), (1, OBJECT), (0, NEXT)) == [
        False,
        False,
        True,
        True,
    ]


def test_listings_count_as_refused_when_refusals_last() -> None:
    """A single 403 may be a temporary fault, however long the next look-up is away."""
    trust = BucketTrust()

    async def look_up() -> list[bool]:
        results = []
        for seconds, is_refused in [(60, True), (0, False), (60, True), (19, True), (1, True)]:
            await anyio.sleep(seconds)
            trust.record_listing(is_refused=is_refused)
            results.append(trust.is_listing_refused)
        trust.record_listing(is_refused=False)
        return [*results, trust.is_listing_refused]

    assert in_no_time(look_up) == [False, False, False, False, True, False]


def test_nothing_seen_shows_nothing() -> None:
    """A look-up that finds no object does not show that objects are complete."""
    trust = BucketTrust()

    async def look_at_nothing() -> bool:
        return trust.are_unchanged([])

    assert in_no_time(look_at_nothing)
    assert looks(trust, (0, OBJECT)) == [False]


def test_where_growth_was_seen_every_object_needs_a_second_look() -> None:
    """The time begins again with each change, and is longer."""
    trust = BucketTrust()
    assert looks(trust, (0, OBJECT), (1, GROWN), (9, GROWN), (1, GROWN)) == [
        False,
        False,
        False,
        True,
    ]
    assert looks(trust, (0, NEXT), (9, NEXT), (1, NEXT)) == [False, False, True]


@pytest.mark.parametrize(("known", "result"), [(YES, True), (NO, False)])
def test_what_the_store_knows_holds_for_the_next_run(known: str, result: bool) -> None:
    """A later run needs no second look, or needs one for every object."""
    trust = BucketTrust()
    trust.load({VendorFact.OBJECTS_COMPLETE: known})
    trust.learn_completeness()
    assert looks(trust, (0, OBJECT)) == [result]


def test_what_was_seen_not_to_hold_stays_so() -> None:
    """A listing that has once shown other keys is not trusted again in this run."""
    trust = BucketTrust()
    trust.learn(VendorFact.LISTING_TRUSTED, YES)
    assert trust.is_listing_trusted
    trust.learn(VendorFact.LISTING_TRUSTED, NO)
    trust.learn(VendorFact.LISTING_TRUSTED, YES)
    assert not trust.is_listing_trusted


async def calibrated(setup: StoreAndCloud) -> BucketTrust:
    """Calibrate the bucket of the setup; return the trust in it."""
    trust = BucketTrust()
    job = await setup.tracked_job(await make_job(setup.database))
    async with anyio.create_task_group() as looks:
        for _ in range(3):
            looks.start_soon(calibrate, setup.database, setup.cos, trust, job)
    return trust


@pytest.mark.anyio
async def test_a_bucket_is_calibrated_once(setup: StoreAndCloud) -> None:
    """Concurrent look-ups send two requests in all, and the result is stored."""
    trust = await calibrated(setup)
    assert setup.lookup_actions() == ["HeadBucket", "HeadObject"]
    assert trust.is_head_trusted
    async with setup.database.read() as connection:
        facts = await facts_about(connection, PROFILE, f"{REGION}/{BUCKET}")
    assert facts == {VendorFact.HEAD_TRUSTED: YES}


@pytest.mark.anyio
async def test_calibration_begins_with_what_the_store_knows(setup: StoreAndCloud) -> None:
    """What an earlier run learned of the bucket holds."""
    async with setup.database.write() as connection:
        moment = await setup.database.now(connection)
        location, fact = f"{REGION}/{BUCKET}", VendorFact.UPLOADS_VISIBLE
        await record_fact(connection, PROFILE, location, fact, YES, moment)
    assert (await calibrated(setup)).uploads_are_visible


@pytest.mark.anyio
@pytest.mark.parametrize("answers", ["anything", "page"])
async def test_a_head_that_finds_a_missing_key_is_not_trusted(
    setup: StoreAndCloud, answers: str
) -> None:
    """HEAD is not trusted if a random key gets an object or a page with status 200.

    COS does not answer like this.
    """
    setup.simulator.change(head_finds_anything=answers == "anything")
    if answers == "page":
        setup.simulator.set_faults(Fault("html", action="HeadObject"))
    assert not (await calibrated(setup)).is_head_trusted


@pytest.mark.anyio
async def test_no_permission_is_no_fault(setup: StoreAndCloud) -> None:
    """Without the right to HEAD the bucket or an object, the look-ups go on."""
    setup.deny("HeadBucket", "HeadObject")
    trust = await calibrated(setup)
    assert trust.is_calibrated
    assert trust.is_head_trusted


@pytest.mark.anyio
async def test_a_bad_request_that_only_the_bucket_answers_is_no_fault(
    setup: StoreAndCloud,
) -> None:
    """A listing shows that the bucket is there, so the look-ups go on."""
    setup.simulator.set_faults(Fault("gateway", action="HeadBucket", status=400))
    trust = await calibrated(setup)
    assert trust.is_calibrated
    assert setup.lookup_actions() == ["HeadBucket", "GetBucket", "HeadObject"]


@pytest.mark.anyio
async def test_facts_are_saved_in_order(
    setup: StoreAndCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Facts are saved in a fixed order, whatever was seen first.

    Otherwise two processes could wait for each other's rows.
    """
    saved: list[VendorFact] = []

    async def save_one(*given: object) -> None:
        saved.extend(one for one in given if isinstance(one, VendorFact))

    monkeypatch.setattr(bucket_trust, "record_fact", save_one)
    job = await setup.tracked_job(await make_job(setup.database))
    trust = BucketTrust()
    for fact in sorted(VendorFact, reverse=True):
        trust.learn(fact, YES)
    await trust.save(setup.database, job)
    assert saved == sorted(VendorFact)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("bucket", "code", "says"),
    [
        (BucketSettings(missing=True), "NoSuchBucket", REGION),
        (BucketSettings(region="ap-tokyo"), "NoSuchBucket", REGION),
        (BucketSettings(redirect="ap-tokyo"), OTHER_REGION, "ap-tokyo"),
    ],
    ids=["missing", "elsewhere", "redirect"],
)
async def test_a_bucket_that_is_not_here_is_reported(
    setup: StoreAndCloud, bucket: BucketSettings, code: str, says: str
) -> None:
    """HEAD of an object would only say 404; so the bucket itself is asked for first."""
    setup.simulator.change(buckets={BUCKET: bucket})
    job = await setup.tracked_job(await make_job(setup.database))
    trust = BucketTrust()
    with pytest.raises(CloudRefusal, match=says) as caught:
        await calibrate(setup.database, setup.cos, trust, job)
    assert caught.value.code == code
    setup.simulator.change(buckets={})
    await calibrate(setup.database, setup.cos, trust, job)
    assert trust.is_calibrated
