"""Names without a tag: what lies there already is not ours, and nothing is sent twice."""

import pytest

from orchestrator.job_states import JobState
from orchestrator.orchestrator import Orchestrator
from orchestrator.reporting.history import Job
from orchestrator.simulator import BucketSettings, Delivery, Fault, Simulator
from orchestrator.verification import bucket_access as permissions
from tests.end_to_end.scene import (
    BUCKET,
    Store,
    accepted,
    drained,
    images,
    jobs_of,
    once_each,
    orders,
    ran,
    requests,
)

pytestmark = pytest.mark.anyio

EXACT = orders(images(1), prefix="golden", exact_names=True)


async def etag_of(orchestrator: Orchestrator, job: Job) -> str:
    """The ETag that a job's first object was seen with."""
    story = await orchestrator.show(str(job.id))
    assert story is not None
    etag: str = story.objects[0]["etag"]
    return etag


async def test_the_name_is_the_prefix_alone(orchestrator: Orchestrator, cloud: Simulator) -> None:
    """Under exact names the prefix goes out as it was given, and the object is verified."""
    result = await drained(orchestrator, EXACT)
    assert result.counts[JobState.VERIFIED] == 1
    assert requests(cloud)[0].prefixes == ("golden",)


async def test_an_older_object_proves_nothing(store: Store, cloud: Simulator) -> None:
    """An object that lay under the key before is not taken for the new export's."""
    async with store(export_deadline=1) as orchestrator:
        await drained(orchestrator, EXACT)
        cloud.change(deliveries=(Delivery("never"),))
        await orchestrator.enqueue(EXACT, again=True)
        result = await ran(orchestrator)
    assert (result.counts[JobState.VERIFIED], result.counts[JobState.FAILED]) == (0, 1)


async def test_a_newer_object_over_an_older_one(
    orchestrator: Orchestrator, cloud: Simulator
) -> None:
    """An export that replaces an older object is verified by what is new about it."""
    await drained(orchestrator, EXACT)
    await orchestrator.enqueue(EXACT, again=True)
    result = await ran(orchestrator)
    assert result.counts[JobState.VERIFIED] == 1
    assert accepted(cloud) == {images(1)[0]: 2}
    old, new = [await etag_of(orchestrator, job) for job in await jobs_of(orchestrator)]
    assert old != new


async def test_a_lost_answer_is_adopted(orchestrator: Orchestrator, cloud: Simulator) -> None:
    """A lost export over an older object is found by its upload or its new ETag."""
    await drained(orchestrator, EXACT)
    cloud.set_faults(Fault("reset", action="ExportImages", after=True, times=1))
    await orchestrator.enqueue(EXACT, again=True)
    result = await ran(orchestrator)
    assert result.counts[JobState.VERIFIED] == 1
    assert len(requests(cloud)) == 2


async def test_a_lost_request_is_never_sent_again(
    orchestrator: Orchestrator, cloud: Simulator
) -> None:
    """Under an exact name no clean look proves enough: what was lost is left to a person."""
    cloud.set_faults(Fault("reset", action="ExportImages", times=1))
    result = await drained(orchestrator, EXACT)
    assert result.counts[JobState.UNKNOWN] == 1
    assert len(requests(cloud)) == 1
    assert (await ran(orchestrator)).counts[JobState.UNKNOWN] == 1
    assert len(requests(cloud)) == 1


async def test_a_bucket_that_may_not_be_read(store: Store, cloud: Simulator) -> None:
    """Exact names are sent unlooked-at only once no look is allowed, and rest on accepted."""
    cloud.change(buckets={BUCKET: BucketSettings(deny=("HeadObject",))})
    async with store(concurrency=1) as orchestrator:
        result = await drained(orchestrator, orders(images(3), exact_names=True))
    assert (result.counts[JobState.ACCEPTED], result.left) == (3, 0)
    assert accepted(cloud) == once_each(images(3))
    first_look, first_export = requests(cloud, "HeadObject")[0], requests(cloud)[0]
    assert first_export.monotonic - first_look.monotonic >= permissions._MIN_REFUSED_FOR
