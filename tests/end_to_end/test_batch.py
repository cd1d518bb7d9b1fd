"""From a list of images to verified exports, over HTTP."""

from collections import Counter
from datetime import timedelta

import pytest

from orchestrator.cloud.error_codes import CODES, NOT_FOUND
from orchestrator.job_states import JobState
from orchestrator.model import Reaction
from orchestrator.orchestrator import Orchestrator
from orchestrator.simulator import Delivery, ImageSettings, Refusal, Simulator
from orchestrator.worker import outcome_policy
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


async def test_one_job_is_described_sent_and_verified(
    orchestrator: Orchestrator, cloud: Simulator
) -> None:
    """One image is described once, sent once, and verified when its object exists."""
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


async def test_job_rows_equal_the_ledger(orchestrator: Orchestrator, cloud: Simulator) -> None:
    """Each of forty images is exported once, and its row holds the vendor's answer."""
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


async def test_object_evidence_is_stored(orchestrator: Orchestrator, cloud: Simulator) -> None:
    """A verified job stores size, ETag and CRC64 of the objects of all its disks."""
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


async def test_permanent_refusal_fails_only_its_job(
    orchestrator: Orchestrator, cloud: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A permanent refusal fails only its own image, with code, message and remedy."""
    monkeypatch.setattr(outcome_policy, "backoff", lambda *_: timedelta(seconds=0.1))
    batch = make_image_ids(len(PERMANENT) + 8)
    refused = dict(zip(batch, PERMANENT, strict=False))
    cloud.change(codes=tuple(Refusal(code, images=(image,)) for image, code in refused.items()))
    result = await enqueue_and_run(orchestrator, make_requests_for(batch))
    assert result.counts[JobState.FAILED] == len(PERMANENT)
    assert result.counts[JobState.VERIFIED] == 8
    assert result.left == 0
    request_ids = {entry.image_ids: entry.request_id for entry in read_ledger(cloud)}
    requests = Counter(entry.image_ids[0] for entry in read_ledger(cloud))
    # DescribeImages has shown what is not found: it is asked for again
    again = {image for image, code in refused.items() if code in NOT_FOUND}
    assert requests == {image: 6 if image in again else 1 for image in batch}
    for job in await read_jobs(orchestrator, states=("failed",)):
        code = refused[job.image_ids[0]]
        assert job.code == code
        assert job.message
        assert job.remedy == CODES[code].remedy
        assert job.request_id == request_ids[job.image_ids]


async def test_request_with_several_images(orchestrator: Orchestrator, cloud: Simulator) -> None:
    """A request with three images has one TaskId.

    The job is verified when all objects exist.
    """
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


async def test_export_without_objects_fails_at_deadline(
    open_store: OpenStore, cloud: Simulator
) -> None:
    """An accepted export that lacks objects at its deadline fails.

    The message says how many objects were found.
    """
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


async def test_second_run_has_nothing_to_do(orchestrator: Orchestrator, cloud: Simulator) -> None:
    """When all jobs are done, a second run and a second enqueue send nothing."""
    await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(3)))
    before = len(cloud.ledger)
    again = await orchestrator.enqueue(make_requests_for(make_image_ids(3)))
    result = await run_to_end(orchestrator)
    assert (again.added, again.duplicates) == (0, 3)
    assert (result.requests, result.left) == (0, 0)
    assert len(cloud.ledger) == before


async def test_run_of_one_batch_leaves_others_alone(
    orchestrator: Orchestrator, cloud: Simulator
) -> None:
    """A run of one batch does not change or report jobs of another batch."""
    await orchestrator.enqueue(make_requests_for(make_image_ids(2)), batch="monday")
    await orchestrator.enqueue(make_requests_for(make_image_ids(2, first=2)), batch="tuesday")
    result = await run_to_end(orchestrator, batch="tuesday")
    assert count_exports(cloud) == once_each(make_image_ids(2, first=2))
    assert sum(result.counts.values()) == result.counts[JobState.VERIFIED] == 2
    assert await count_states(orchestrator, batches=("monday",)) == {JobState.QUEUED: 2}
    asked = {image for entry in read_ledger(cloud, "DescribeImages") for image in entry.image_ids}
    assert asked.isdisjoint(make_image_ids(2))


async def test_jobs_are_sent_by_priority_size_and_age(
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
