"""Answers that never come: the bucket tells what became of the request, and nothing runs twice."""

from collections.abc import Mapping

import anyio
import pytest

from orchestrator.job_states import JobState
from orchestrator.orchestrator import Orchestrator
from orchestrator.simulator import Duration, Fault, Refusal, Simulator
from tests.end_to_end.harness import (
    OpenStore,
    count_exports,
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

AFTER: Mapping[str, Fault] = {
    "reset": Fault("reset", after=True),
    "half an answer": Fault("half"),
    "silence": Fault("hang", after=True),
    "a gateway's page": Fault("gateway", after=True),
    "a page with status 200": Fault("html", after=True),
    "JSON without Response": Fault("bare", after=True),
}

BEFORE: Mapping[str, Fault] = {
    "reset": Fault("reset"),
    "silence": Fault("hang"),
    "a gateway's page": Fault("gateway", status=504),
}


def once(fault: Fault, image_id: str) -> Fault:
    """The fault, for the first ExportImages of one image."""
    return Fault(
        fault.kind,
        action="ExportImages",
        after=fault.after,
        status=fault.status,
        images=(image_id,),
        times=1,
    )


async def events_of(orchestrator: Orchestrator, job: int) -> list[str]:
    """What happened to a job, in order."""
    story = await orchestrator.show(str(job))
    assert story is not None
    return [event["kind"] for event in story.events]


async def test_lost_after_it_took_effect(open_store: OpenStore, cloud: Simulator) -> None:
    """However the answer is lost, a request that took effect is adopted, and never sent again."""
    batch = make_image_ids(len(AFTER) + 2)
    lost = dict(zip(batch, AFTER.values(), strict=False))
    cloud.set_faults(*(once(fault, image) for image, fault in lost.items()))
    async with open_store(request_timeout=5) as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for(batch))
        found = await read_jobs(orchestrator)
        assert result.counts[JobState.VERIFIED] == len(batch)
        assert count_exports(cloud) == once_each(batch)
        assert len(read_ledger(cloud)) == len(batch)
        for job in found[: len(AFTER)]:
            assert job.task_id is None
            assert job.cos_paths
            assert "adopted" in await events_of(orchestrator, job.id)
        assert all(job.task_id for job in found[len(AFTER) :])


async def test_lost_before_it_took_effect(open_store: OpenStore, cloud: Simulator) -> None:
    """A request that was never processed is sent again, but not before the time of clean looks."""
    batch = make_image_ids(len(BEFORE) + 1)
    lost = dict(zip(batch, BEFORE.values(), strict=False))
    cloud.set_faults(*(once(fault, image) for image, fault in lost.items()))
    async with open_store(request_timeout=5) as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for(batch))
    assert result.counts[JobState.VERIFIED] == len(batch)
    assert count_exports(cloud) == once_each(batch)
    for image in lost:
        first, second = (entry for entry in read_ledger(cloud) if entry.image_ids == (image,))
        assert second.monotonic - first.monotonic > 1
        assert second.accepted


async def test_a_code_that_leaves_it_open(orchestrator: Orchestrator, cloud: Simulator) -> None:
    """InternalError may hide an export that began, or not: both come to one export."""
    hidden, nothing = make_image_ids(2)
    cloud.change(
        codes=(
            Refusal("InternalError", images=(hidden,), times=1, after=True),
            Refusal("InternalError", images=(nothing,), times=1),
        )
    )
    result = await enqueue_and_run(orchestrator, make_requests_for([hidden, nothing]))
    assert result.counts[JobState.VERIFIED] == 2
    assert count_exports(cloud) == once_each([hidden, nothing])
    sent = [entry.image_ids[0] for entry in read_ledger(cloud)]
    assert (sent.count(hidden), sent.count(nothing)) == (1, 2)


async def test_a_code_that_nobody_knows(orchestrator: Orchestrator, cloud: Simulator) -> None:
    """A code that is new to us counts as a lost answer, whatever it meant."""
    cloud.change(codes=(Refusal("Novelty.OfTheDay", times=1, after=True),))
    result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(1)))
    assert result.counts[JobState.VERIFIED] == 1
    assert count_exports(cloud) == once_each(make_image_ids(1))


async def test_lost_answers_of_a_long_export(open_store: OpenStore, cloud: Simulator) -> None:
    """An export that is still being written is found by its upload, long before its object."""
    cloud.change(duration=Duration(seconds=200))
    cloud.set_faults(once(AFTER["reset"], make_image_ids(1)[0]))
    async with open_store() as orchestrator:
        await orchestrator.enqueue(make_requests_for(make_image_ids(1)))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run_to_end, orchestrator)
            while (await read_jobs(orchestrator))[0].state is not JobState.ACCEPTED:
                await anyio.lowlevel.checkpoint()
            cloud.change(skew=210)
        (job,) = await read_jobs(orchestrator)
    assert job.state is JobState.VERIFIED
    assert count_exports(cloud) == once_each(make_image_ids(1))


async def test_the_lost_answer_of_several_images(open_store: OpenStore, cloud: Simulator) -> None:
    """One lost request of several images is verified only when every expected object is there."""
    three = make_image_ids(3)
    cloud.set_faults(once(AFTER["reset"], three[0]))
    async with open_store() as orchestrator:
        result = await enqueue_and_run(orchestrator, [make_multi_image_request(three)])
        (job,) = await read_jobs(orchestrator)
    assert result.counts[JobState.VERIFIED] == 1
    assert job.task_id is None
    delivered = sorted(f"/{stored.key}" for export in cloud.exports for stored in export.objects)
    assert list(job.cos_paths) == delivered
    assert count_exports(cloud) == once_each(three)


async def test_answers_that_are_always_lost(open_store: OpenStore, cloud: Simulator) -> None:
    """A request that never gets through is given up after so many attempts, not tried for ever."""
    cloud.set_faults(Fault("reset", action="ExportImages"))
    async with open_store(max_attempts=2, resend_after=0.3, resend="always") as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(1)))
        (job,) = await read_jobs(orchestrator)
    assert result.counts[JobState.FAILED] == 1
    assert job.attempts == 2
    assert job.remedy
    assert len(read_ledger(cloud)) == 2


async def test_a_night_of_faults(open_store: OpenStore, cloud: Simulator) -> None:
    """With answers lost on either way, and a cap besides, each image is exported once."""
    cloud.change(
        cap=8,
        faults=(
            Fault("reset", action="ExportImages", after=True, chance=0.2, times=3),
            Fault("gateway", action="ExportImages", chance=0.2, times=3),
            Fault("half", action="cos", chance=0.05),
        ),
    )
    async with open_store() as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(24)))
    assert result.counts[JobState.VERIFIED] == 24
    assert count_exports(cloud) == once_each(make_image_ids(24))
