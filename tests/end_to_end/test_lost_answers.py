"""Lost answers: the bucket shows what the request did, and no image is exported twice."""

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
    """Apply a fault to the first ExportImages of one image."""
    return Fault(
        fault.kind,
        action="ExportImages",
        after=fault.after,
        status=fault.status,
        images=(image_id,),
        times=1,
    )


async def read_event_kinds(orchestrator: Orchestrator, job: int) -> list[str]:
    """Return the kinds of a job's events, oldest first."""
    story = await orchestrator.show(str(job))
    assert story is not None
    return [event["kind"] for event in story.events]


async def test_answer_lost_after_the_export_began(open_store: OpenStore, cloud: Simulator) -> None:
    """However the answer was lost, the export is reconciled and never sent again."""
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
            assert "reconciled" in await read_event_kinds(orchestrator, job.id)
        assert all(job.task_id for job in found[len(AFTER) :])


async def test_request_lost_before_the_export_began(
    open_store: OpenStore, cloud: Simulator
) -> None:
    """A request that was never processed is sent again after enough empty lookups."""
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


async def test_internal_error_can_hide_an_export(
    orchestrator: Orchestrator, cloud: Simulator
) -> None:
    """After an InternalError there is exactly one export, whether one began or not."""
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


async def test_unknown_code_counts_as_a_lost_answer(
    orchestrator: Orchestrator, cloud: Simulator
) -> None:
    """A code that this program does not know counts as a lost answer."""
    cloud.change(codes=(Refusal("Novelty.OfTheDay", times=1, after=True),))
    result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(1)))
    assert result.counts[JobState.VERIFIED] == 1
    assert count_exports(cloud) == once_each(make_image_ids(1))


async def test_running_export_is_found_by_its_upload(
    open_store: OpenStore, cloud: Simulator
) -> None:
    """An export that is still being written is found by its upload."""
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


async def test_lost_answer_of_several_images(open_store: OpenStore, cloud: Simulator) -> None:
    """A lost request for several images is verified only with all expected objects."""
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


async def test_job_fails_after_the_maximum_of_attempts(
    open_store: OpenStore, cloud: Simulator
) -> None:
    """A request that never succeeds fails after the maximum number of attempts."""
    cloud.set_faults(Fault("reset", action="ExportImages"))
    async with open_store(max_attempts=2, resend_after=0.3, resend="always") as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(1)))
        (job,) = await read_jobs(orchestrator)
    assert result.counts[JobState.FAILED] == 1
    assert job.attempts == 2
    assert job.remedy
    assert len(read_ledger(cloud)) == 2


async def test_many_faults_and_a_cap(open_store: OpenStore, cloud: Simulator) -> None:
    """With lost requests, lost answers and a cap, each image is exported once."""
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
