"""Answers about a bucket that cannot be believed: no false verified, no failed job, and a word."""

from datetime import timedelta

import pytest

from orchestrator.cli.exit_codes import exit_code_of_run
from orchestrator.cloud.error_codes import OTHER_REGION
from orchestrator.job_states import JobState
from orchestrator.learned_vendor_facts import YES, VendorFact
from orchestrator.model import ImageFormat, Scope
from orchestrator.orchestrator import Orchestrator
from orchestrator.simulator import BucketSettings, Duration, Simulator
from orchestrator.verification import bucket_trust
from tests.end_to_end.harness import (
    BUCKET,
    REGION,
    OpenStore,
    count_exports,
    enqueue_and_run,
    make_image_ids,
    make_requests_for,
    once_each,
    read_jobs,
    read_ledger,
)

pytestmark = pytest.mark.anyio

IMAGES = make_image_ids(8)


async def test_a_bucket_in_another_region_is_halted(
    open_store: OpenStore, cloud: Simulator
) -> None:
    """A redirect halts the bucket with the region that it names; no job fails."""
    cloud.change(buckets={BUCKET: BucketSettings(redirect="ap-tokyo")})
    said: list[str] = []
    async with open_store(notify=said.append, rate=8) as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(30)))
    (stop,) = result.blocked
    assert (stop.scope, stop.value, stop.code) == (Scope.BUCKET, f"{REGION}/{BUCKET}", OTHER_REGION)
    assert exit_code_of_run(result) == 6
    assert result.counts[JobState.QUEUED] > 0
    assert result.counts[JobState.QUEUED] + result.counts[JobState.ACCEPTED] == 30
    (sentence,) = said
    assert "ap-tokyo" in sentence


async def test_nothing_is_verified_before_its_export_ends_where_head_finds_anything(
    orchestrator: Orchestrator, cloud: Simulator
) -> None:
    """The listing decides."""
    cloud.change(head_finds_anything=True, duration=Duration(seconds=2))
    result = await enqueue_and_run(orchestrator, make_requests_for(IMAGES))
    assert result.counts[JobState.VERIFIED] == len(IMAGES)
    await check_ends(orchestrator, cloud)


async def test_nothing_is_verified_while_its_objects_grow(
    orchestrator: Orchestrator, cloud: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No job is verified while its objects are still growing.

    The objects show from the start of their uploads, and their final size is unknown.
    """
    monkeypatch.setattr(bucket_trust, "_SECOND_LOOK_AFTER_GROWTH", timedelta(seconds=0.5))
    cloud.change(growing_objects=True, duration=Duration(seconds=2))
    requests = make_requests_for(IMAGES, format=ImageFormat.QCOW2)
    result = await enqueue_and_run(orchestrator, requests)
    assert result.counts[JobState.VERIFIED] == len(IMAGES)
    await check_ends(orchestrator, cloud)


async def test_old_objects_without_the_tag_are_not_verified(
    orchestrator: Orchestrator, cloud: Simulator
) -> None:
    """The vendor drops the prefix, and last month's objects have these names."""
    cloud.change(ignore_prefix=True, old_objects=True, duration=Duration(seconds=2))
    result = await enqueue_and_run(
        orchestrator, make_requests_for(IMAGES, only_root_disk=True), time_limit=30
    )
    await check_ends(orchestrator, cloud)
    assert result.counts[JobState.FAILED] == 0
    assert count_exports(cloud) == once_each(IMAGES)


async def test_an_unreliable_bucket_leaves_jobs_accepted(
    open_store: OpenStore, cloud: Simulator
) -> None:
    """If neither HEAD nor listings can be trusted, all jobs end accepted.

    The run ends and gives the reason in one sentence.
    """
    cloud.change(head_finds_anything=True, listings_ignore_prefix=True)
    said: list[str] = []
    async with open_store(notify=said.append) as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for(IMAGES))
    assert result.counts[JobState.ACCEPTED] == len(IMAGES)
    (sentence,) = said
    assert "show other keys than asked for" in sentence


async def test_a_bucket_is_calibrated_with_two_requests(
    orchestrator: Orchestrator, cloud: Simulator
) -> None:
    """One HEAD of the bucket and one of a missing key, for all jobs of a run."""
    await enqueue_and_run(orchestrator, make_requests_for(IMAGES))
    assert len(read_ledger(cloud, "HeadBucket")) == 1
    keys = [entry.key or "" for entry in read_ledger(cloud, "HeadObject")]
    assert sum(key.startswith("no-such-object-") for key in keys) == 1


@pytest.mark.parametrize(("written", "form"), [("documented", "documented"), ("url", "URL")])
async def test_what_a_run_learns_of_a_bucket_is_stored(
    orchestrator: Orchestrator, cloud: Simulator, written: str, form: str
) -> None:
    """The look-ups of accepted jobs are enough; `status` shows the facts."""
    cloud.change(cos_paths=written)
    await enqueue_and_run(orchestrator, make_requests_for(IMAGES))
    facts = {known.fact: known.value for known in (await orchestrator.status()).vendor}
    assert facts[VendorFact.PREFIX_HONOURED] == YES
    assert facts[VendorFact.LISTING_TRUSTED] == YES
    assert facts[VendorFact.COS_PATHS_FORM] == form


async def check_ends(orchestrator: Orchestrator, cloud: Simulator) -> None:
    """Check that no job was verified before its export ended."""
    ended = {export.image_id: export.ends_at for export in cloud.exports}
    for job in await read_jobs(orchestrator, states=("verified",)):
        assert job.finished_at is not None
        assert job.finished_at.timestamp() >= ended[job.image_ids[0]]
