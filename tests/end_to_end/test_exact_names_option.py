"""Exact names (no tag in the key): older objects do not count, and nothing is sent twice."""

import pytest

from orchestrator.job_states import JobState
from orchestrator.orchestrator import Orchestrator
from orchestrator.reporting.history import Job
from orchestrator.simulator import BucketSettings, Delivery, Fault, Simulator
from orchestrator.verification import bucket_access
from tests.end_to_end.harness import (
    BUCKET,
    OpenStore,
    count_exports,
    enqueue_and_run,
    make_image_ids,
    make_requests_for,
    once_each,
    read_jobs,
    read_ledger,
    run_to_end,
)

pytestmark = pytest.mark.anyio

EXACT = make_requests_for(make_image_ids(1), prefix="golden", exact_names=True)


async def read_etag(orchestrator: Orchestrator, job: Job) -> str:
    """Return the ETag of a job's first object."""
    story = await orchestrator.show(str(job.id))
    assert story is not None
    etag: str = story.objects[0]["etag"]
    return etag


async def test_exact_name_is_the_prefix_alone(orchestrator: Orchestrator, cloud: Simulator) -> None:
    """With exact names the prefix is sent unchanged, and the object is verified."""
    result = await enqueue_and_run(orchestrator, EXACT)
    assert result.counts[JobState.VERIFIED] == 1
    assert read_ledger(cloud)[0].prefixes == ("golden",)


async def test_older_object_is_not_the_export(open_store: OpenStore, cloud: Simulator) -> None:
    """An object that existed under the key before does not verify the job."""
    async with open_store(export_deadline=1) as orchestrator:
        await enqueue_and_run(orchestrator, EXACT)
        cloud.change(deliveries=(Delivery("never"),))
        await orchestrator.enqueue(EXACT, again=True)
        result = await run_to_end(orchestrator)
    assert (result.counts[JobState.VERIFIED], result.counts[JobState.FAILED]) == (0, 1)


async def test_replaced_object_verifies_the_job(
    orchestrator: Orchestrator, cloud: Simulator
) -> None:
    """An export that replaces an older object is verified by its new ETag."""
    await enqueue_and_run(orchestrator, EXACT)
    await orchestrator.enqueue(EXACT, again=True)
    result = await run_to_end(orchestrator)
    assert result.counts[JobState.VERIFIED] == 1
    assert count_exports(cloud) == {make_image_ids(1)[0]: 2}
    old, new = [await read_etag(orchestrator, job) for job in await read_jobs(orchestrator)]
    assert old != new


async def test_lost_answer_is_reconciled(orchestrator: Orchestrator, cloud: Simulator) -> None:
    """A lost export over an older object is found by its upload or its new ETag."""
    await enqueue_and_run(orchestrator, EXACT)
    cloud.set_faults(Fault("reset", action="ExportImages", after=True, times=1))
    await orchestrator.enqueue(EXACT, again=True)
    result = await run_to_end(orchestrator)
    assert result.counts[JobState.VERIFIED] == 1
    assert len(read_ledger(cloud)) == 2


async def test_a_lost_request_is_never_sent_again(
    orchestrator: Orchestrator, cloud: Simulator
) -> None:
    """With an exact name a lost request is left to an operator and never resent.

    An empty look-up is not enough proof.
    """
    cloud.set_faults(Fault("reset", action="ExportImages", times=1))
    result = await enqueue_and_run(orchestrator, EXACT)
    assert result.counts[JobState.UNKNOWN] == 1
    assert len(read_ledger(cloud)) == 1
    assert (await run_to_end(orchestrator)).counts[JobState.UNKNOWN] == 1
    assert len(read_ledger(cloud)) == 1


async def test_exact_names_in_an_unreadable_bucket_end_accepted(
    open_store: OpenStore, cloud: Simulator
) -> None:
    """Jobs with exact names in an unreadable bucket are sent and end accepted.

    They are sent without a look-up only if no look-up is permitted.
    """
    cloud.change(buckets={BUCKET: BucketSettings(deny=("HeadObject", "GetBucket"))})
    async with open_store(concurrency=1) as orchestrator:
        result = await enqueue_and_run(
            orchestrator, make_requests_for(make_image_ids(3), exact_names=True)
        )
    assert (result.counts[JobState.ACCEPTED], result.left) == (3, 0)
    assert count_exports(cloud) == once_each(make_image_ids(3))
    first_look, first_export = read_ledger(cloud, "HeadObject")[0], read_ledger(cloud)[0]
    assert first_export.monotonic - first_look.monotonic >= bucket_access._MIN_REFUSED_FOR
