"""From a list of images to verified exports, through HTTP."""

import pytest

from orchestrator.cloud.error_codes import CODES
from orchestrator.job_states import JobState
from orchestrator.model import Reaction
from orchestrator.orchestrator import Orchestrator
from orchestrator.simulator import Delivery, ImageSettings, Refusal, Simulator
from tests.end_to_end.harness import (
    BUCKET,
    OpenStore,
    count_exports,
    count_states,
    enqueue_and_run,
    make_image_ids,
    make_multi_image_request,
    make_requests_for,
    once_each,
    read_jobs,
    read_ledger,
    run_to_end,
)

pytestmark = pytest.mark.anyio

PERMANENT = sorted(name for name, code in CODES.items() if code.reaction is Reaction.FAIL)


async def test_one_job(orchestrator: Orchestrator, cloud: Simulator) -> None:
    """One image is described once, sent once, and verified once its object is in the bucket."""
    result = await enqueue_and_run(
        orchestrator, make_requests_for(make_image_ids(1), prefix="nightly")
    )
    assert result.counts[JobState.VERIFIED] == 1
    assert (result.requests, result.refused, result.left) == (1, 0, 0)
    assert len(read_ledger(cloud, "DescribeImages")) == 1
    (entry,) = read_ledger(cloud)
    (job,) = await read_jobs(orchestrator)
    assert entry.bucket == BUCKET
    assert entry.prefixes == (f"nightly-{job.tag}",)
    assert cloud.exports[0].ends_at <= (job.finished_at or job.created_at).timestamp()


async def test_every_row_equals_the_ledger(orchestrator: Orchestrator, cloud: Simulator) -> None:
    """Of forty images each is exported once, and its row holds what the vendor answered."""
    batch = make_image_ids(40)
    result = await enqueue_and_run(orchestrator, make_requests_for(batch))
    assert result.counts[JobState.VERIFIED] == 40
    assert count_exports(cloud) == once_each(batch)
    assert len(read_ledger(cloud)) == 40
    answers = {entry.image_ids: entry for entry in read_ledger(cloud)}
    for job in await read_jobs(orchestrator):
        answer = answers[job.image_ids]
        assert job.task_id == answer.task_id
        assert job.request_id == answer.request_id
        assert job.cos_paths == tuple(sorted(answer.cos_paths))
        assert (job.attempts, job.code) == (1, None)


async def test_what_was_seen_of_the_objects_is_kept(
    orchestrator: Orchestrator, cloud: Simulator
) -> None:
    """A verified job holds size, ETag and CRC64 of each of its objects, data disks included."""
    cloud.change(images={make_image_ids(1)[0]: ImageSettings(sizes=(20, 30, 40))})
    await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(1)))
    (job,) = await read_jobs(orchestrator)
    story = await orchestrator.show(str(job.id))
    assert story is not None
    there = {stored.key: stored for stored in cloud.exports[0].objects}
    assert len(there) == 3
    assert {kept["key"]: (kept["size"], kept["etag"], kept["crc64"]) for kept in story.objects} == {
        key: (stored.size, stored.etag, str(stored.crc64)) for key, stored in there.items()
    }


async def test_permanent_refusals_fail_their_job_alone(
    orchestrator: Orchestrator, cloud: Simulator
) -> None:
    """Every permanent code fails its image with code, message and remedy, and no other image."""
    batch = make_image_ids(len(PERMANENT) + 8)
    refused = dict(zip(batch, PERMANENT, strict=False))
    cloud.change(codes=tuple(Refusal(code, images=(image,)) for image, code in refused.items()))
    result = await enqueue_and_run(orchestrator, make_requests_for(batch))
    assert result.counts[JobState.FAILED] == len(PERMANENT)
    assert result.counts[JobState.VERIFIED] == 8
    assert result.left == 0
    request_ids = {entry.image_ids: entry.request_id for entry in read_ledger(cloud)}
    assert len(read_ledger(cloud)) == len(batch)
    for job in await read_jobs(orchestrator, states=("failed",)):
        code = refused[job.image_ids[0]]
        assert job.code == code
        assert job.message
        assert job.remedy == CODES[code].remedy
        assert job.request_id == request_ids[job.image_ids]


async def test_several_images_in_one_request(orchestrator: Orchestrator, cloud: Simulator) -> None:
    """One request of three images has one TaskId, and is verified when all objects are there."""
    three = make_image_ids(3)
    cloud.change(images={image: ImageSettings(sizes=(10, 20)) for image in three})
    await enqueue_and_run(orchestrator, [make_multi_image_request(three)])
    (job,) = await read_jobs(orchestrator)
    (entry,) = read_ledger(cloud)
    assert entry.image_ids == tuple(three)
    assert job.state is JobState.VERIFIED
    assert job.task_id == entry.task_id
    assert len(job.cos_paths) == 6
    assert job.cos_paths == tuple(sorted(entry.cos_paths))


async def test_an_export_that_brings_nothing(open_store: OpenStore, cloud: Simulator) -> None:
    """What was accepted but is not there by its deadline has failed, and says what is missing."""
    never, partly, empty, good = make_image_ids(4)
    cloud.change(
        images={partly: ImageSettings(sizes=(10, 10))},
        deliveries=(
            Delivery("never", images=(never,)),
            Delivery("partial", images=(partly,)),
            Delivery("empty", images=(empty,)),
        ),
    )
    async with open_store(export_deadline=1) as orchestrator:
        result = await enqueue_and_run(
            orchestrator, make_requests_for([never, partly, empty, good])
        )
        assert result.counts[JobState.FAILED] == 3
        lost = {job.image_ids[0]: job for job in await read_jobs(orchestrator, states=("failed",))}
    assert {job.code for job in lost.values()} == {"Orchestrator.NotDelivered"}
    assert "0 of 1" in (lost[never].message or "")
    assert "1 of 2" in (lost[partly].message or "")
    assert lost[never].task_id is not None
    assert count_exports(cloud) == once_each([never, partly, empty, good])


async def test_a_second_run_finds_nothing_to_do(
    orchestrator: Orchestrator, cloud: Simulator
) -> None:
    """When all is done, running and enqueueing again send nothing at all."""
    await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(3)))
    before = len(cloud.ledger)
    again = await orchestrator.enqueue(make_requests_for(make_image_ids(3)))
    result = await run_to_end(orchestrator)
    assert (again.added, again.duplicates) == (0, 3)
    assert (result.requests, result.left) == (0, 0)
    assert len(cloud.ledger) == before


async def test_only_the_batch_that_is_asked_for(
    orchestrator: Orchestrator, cloud: Simulator
) -> None:
    """A run of one batch touches no other, and tells of no other."""
    await orchestrator.enqueue(make_requests_for(make_image_ids(2)), batch="monday")
    await orchestrator.enqueue(make_requests_for(make_image_ids(2, first=2)), batch="tuesday")
    result = await run_to_end(orchestrator, batch="tuesday")
    assert count_exports(cloud) == once_each(make_image_ids(2, first=2))
    assert sum(result.counts.values()) == result.counts[JobState.VERIFIED] == 2
    assert await count_states(orchestrator, batches=("monday",)) == {JobState.QUEUED: 2}
    asked = {image for entry in read_ledger(cloud, "DescribeImages") for image in entry.image_ids}
    assert asked.isdisjoint(make_image_ids(2))


async def test_larger_and_more_urgent_images_go_first(
    open_store: OpenStore, cloud: Simulator
) -> None:
    """Priority comes first, then size, then age."""
    small, large, urgent, late = make_image_ids(4)
    cloud.change(images={large: ImageSettings(sizes=(400,)), urgent: ImageSettings(sizes=(10,))})
    async with open_store(concurrency=1) as orchestrator:
        await orchestrator.enqueue(make_requests_for([small, large]))
        await orchestrator.enqueue(make_requests_for([urgent], priority=5))
        await orchestrator.enqueue(make_requests_for([late]))
        await run_to_end(orchestrator)
    assert [entry.image_ids[0] for entry in read_ledger(cloud)] == [urgent, large, small, late]
