"""The concurrency limit, learned from the vendor's refusals and kept in the store."""

import anyio
import pytest

from orchestrator.job_states import JobState
from orchestrator.limits.region_waits import EXPORT_CAP
from orchestrator.orchestrator import Orchestrator
from orchestrator.simulator import Duration, ImageSettings, Refusal, Simulator
from tests.end_to_end.harness import (
    OpenStore,
    count_exports,
    count_states,
    enqueue_and_run,
    make_image_ids,
    make_requests_for,
    once_each,
    read_jobs,
    read_ledger,
    run_to_end,
    wait_until,
)

pytestmark = pytest.mark.anyio


def refusals(cloud: Simulator) -> int:
    """Count the refusals for capacity."""
    return sum(entry.code == EXPORT_CAP for entry in read_ledger(cloud))


async def test_a_small_cap(orchestrator: Orchestrator, cloud: Simulator) -> None:
    """Every image is exported, refusals are few, and none is charged as an attempt."""
    cloud.change(cap=5)
    result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(40)))
    assert result.counts[JobState.VERIFIED] == 40
    assert count_exports(cloud) == once_each(make_image_ids(40))
    assert {job.attempts for job in await read_jobs(orchestrator)} == {1}
    # Up to sixteen requests are in flight before the first answer; later one probe at a time, and
    # the more of them, the longer a busy machine takes.
    assert refusals(cloud) <= 40
    assert result.refused == refusals(cloud)


async def test_a_learned_ceiling_outlives_the_run(open_store: OpenStore, cloud: Simulator) -> None:
    """The next run is spared the first refusals."""
    cloud.change(cap=3)
    async with open_store() as orchestrator:
        await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(6)))
    learned = refusals(cloud)
    async with open_store() as orchestrator:
        await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(6, first=6)))
        (scope,) = (await orchestrator.status()).scopes
    assert scope.concurrency.ceiling is not None
    assert refusals(cloud) - learned <= 4
    assert count_exports(cloud) == once_each(make_image_ids(12))


async def test_a_cap_that_moves_while_running(orchestrator: Orchestrator, cloud: Simulator) -> None:
    """The ceiling follows a cap that falls and rises."""
    cloud.change(cap=6, duration=Duration(seconds=0.3))
    await orchestrator.enqueue(make_requests_for(make_image_ids(24)))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_to_end, orchestrator)
        await wait_until(lambda: len(cloud.exports) >= 8)
        cloud.change(cap=2)
        await wait_until(lambda: len(cloud.exports) >= 12)
        cloud.change(cap=30)
    assert count_exports(cloud) == once_each(make_image_ids(24))
    assert await count_states(orchestrator) == {JobState.VERIFIED: 24}
    assert {job.attempts for job in await read_jobs(orchestrator)} == {1}
    assert ((await orchestrator.status()).scopes[0].concurrency.ceiling or 0) > 2


async def test_a_region_at_capacity_does_not_hold_up_another(
    orchestrator: Orchestrator, cloud: Simulator
) -> None:
    """While one region refuses everything, all images of the other are exported."""
    full, free = make_image_ids(6), make_image_ids(12, first=6)
    cloud.change(codes=(Refusal(EXPORT_CAP, images=tuple(full)),))
    await orchestrator.enqueue(make_requests_for(full))
    await orchestrator.enqueue(make_requests_for(free, region="ap-tokyo"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_to_end, orchestrator)
        await wait_until(lambda: count_exports(cloud) == once_each(free))
        assert set(await count_states(orchestrator, regions=("ap-singapore",))) <= {
            JobState.QUEUED,
            JobState.SENDING,
        }
        cloud.change(codes=())
    assert await count_states(orchestrator) == {JobState.VERIFIED: 18}
    assert {job.attempts for job in await read_jobs(orchestrator)} == {1}


async def test_slots_that_another_program_frees_are_found(
    open_store: OpenStore, cloud: Simulator
) -> None:
    """While another program holds every slot, one probe at a time is sent."""
    cloud.change(cap=5, occupied=5)
    async with open_store(concurrency=1) as orchestrator, anyio.create_task_group() as tasks:
        await orchestrator.enqueue(make_requests_for(make_image_ids(8)))
        tasks.start_soon(run_to_end, orchestrator)
        await wait_until(lambda: refusals(cloud) >= 2)
        cloud.change(occupied=0)
        await wait_until(lambda: count_exports(cloud) == once_each(make_image_ids(8)))
    async with open_store() as orchestrator:
        assert {job.attempts for job in await read_jobs(orchestrator)} == {1}
        assert await count_states(orchestrator) == {JobState.VERIFIED: 8}


async def test_free_slots_are_found_without_verification(
    open_store: OpenStore, cloud: Simulator
) -> None:
    """No end is seen, so probes alone find the slots that become free."""
    cloud.change(cap=3)
    async with open_store(verify="off") as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(8)))
    assert result.counts[JobState.ACCEPTED] == 8
    assert result.left == 0
    assert count_exports(cloud) == once_each(make_image_ids(8))


async def test_a_busy_image_waits(orchestrator: Orchestrator, cloud: Simulator) -> None:
    """An image that another task uses is tried again without charging an attempt."""
    busy, free = make_image_ids(2)
    cloud.change(images={busy: ImageSettings(state="SYNCING")})
    await orchestrator.enqueue(make_requests_for([busy, free]))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_to_end, orchestrator)
        await wait_until(lambda: len(read_ledger(cloud)) >= 2)
        cloud.change(images={})
    (held, _) = await read_jobs(orchestrator)
    assert held.state is JobState.VERIFIED
    assert held.attempts == 1
    assert count_exports(cloud) == once_each([busy, free])


async def test_a_broken_image_fails_at_once(orchestrator: Orchestrator, cloud: Simulator) -> None:
    """An image whose creation failed stays busy: its job fails at the first refusal."""
    cloud.change(images={make_image_ids(1)[0]: ImageSettings(state="CREATEFAILED")})
    result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(1)))
    assert result.counts[JobState.FAILED] == 1
    (job,) = await read_jobs(orchestrator)
    assert job.code == "InvalidParameterValue.InvalidImageState"
    assert len(read_ledger(cloud)) == 1


async def test_two_formats_of_one_image_are_exported_one_after_the_other(
    orchestrator: Orchestrator, cloud: Simulator
) -> None:
    """The vendor exports an image once at a time: the second one waits for the first."""
    await orchestrator.enqueue(make_requests_for(make_image_ids(1), format="QCOW2"))
    await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(1), format="VMDK"))
    assert await count_states(orchestrator) == {JobState.VERIFIED: 2}
    assert len(read_ledger(cloud)) == 2
    first, second = cloud.exports
    assert second.accepted_at >= first.ends_at


async def test_a_refusal_for_rate_slows_all_requests_down(
    orchestrator: Orchestrator, cloud: Simulator
) -> None:
    """Requests that are claimed later are spaced."""
    cloud.change(codes=(Refusal("RequestLimitExceeded", times=3),))
    result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(60)))
    assert result.counts[JobState.VERIFIED] == 60
    assert result.refused == 3
    assert {job.attempts for job in await read_jobs(orchestrator)} == {1}
    arrivals = [entry.monotonic for entry in read_ledger(cloud)]
    # Each may be up to 0.11 s late on a busy machine, so that is measured over many.
    assert arrivals[-1] - arrivals[-31] > 30 * 0.04


async def test_two_formats_of_one_image_without_verification(
    open_store: OpenStore, cloud: Simulator
) -> None:
    """An export whose end is never seen does not hold up the next one of its image."""
    async with open_store(verify="off") as orchestrator:
        await orchestrator.enqueue(make_requests_for(make_image_ids(1), format="QCOW2"))
        result = await enqueue_and_run(
            orchestrator, make_requests_for(make_image_ids(1), format="VMDK")
        )
    assert result.counts[JobState.ACCEPTED] == 2
    assert count_exports(cloud).total() == 2
