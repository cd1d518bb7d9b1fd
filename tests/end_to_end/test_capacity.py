"""The vendor's unpublished cap on exports that run at once, learned and kept."""

import anyio
import pytest

from orchestrator.job_states import JobState
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

FULL = "LimitExceeded.ExportImageTaskLimitExceeded"


def refusals(cloud: Simulator) -> int:
    """How often the vendor said that it was full."""
    return sum(entry.code == FULL for entry in read_ledger(cloud))


async def test_a_cap_of_five_over_forty_images(
    orchestrator: Orchestrator, cloud: Simulator
) -> None:
    """Under a small cap all is exported, refusals stay few, and none of them costs an attempt."""
    cloud.change(cap=5)
    result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(40)))
    assert result.counts[JobState.VERIFIED] == 40
    assert count_exports(cloud) == once_each(make_image_ids(40))
    assert {job.attempts for job in await read_jobs(orchestrator)} == {1}
    # the first sixteen leave before the first answer comes; after that one prober at a time
    assert refusals(cloud) <= 16 + 8
    assert result.refused == refusals(cloud)


async def test_a_learned_ceiling_outlives_the_run(open_store: OpenStore, cloud: Simulator) -> None:
    """What one run has learned of the cap spares the next one the first refusals."""
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
    """A cap that falls is met with fewer exports at once, and one that rises with more."""
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


async def test_a_full_region_does_not_hold_up_another(
    orchestrator: Orchestrator, cloud: Simulator
) -> None:
    """While one region is full the other is exported to its end; then the first goes on."""
    full, free = make_image_ids(6), make_image_ids(12, first=6)
    cloud.change(codes=(Refusal(FULL, images=tuple(full)),))
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


async def test_places_that_a_neighbour_frees(open_store: OpenStore, cloud: Simulator) -> None:
    """Where others hold every place, one prober waits for them, and all goes on when they end."""
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


async def test_places_are_found_without_a_look_into_the_bucket(
    open_store: OpenStore, cloud: Simulator
) -> None:
    """With verification off no end is seen, and probes alone bring every image through."""
    cloud.change(cap=3)
    async with open_store(verify="off") as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(8)))
    assert result.counts[JobState.ACCEPTED] == 8
    assert result.left == 0
    assert count_exports(cloud) == once_each(make_image_ids(8))


async def test_a_busy_image_waits(orchestrator: Orchestrator, cloud: Simulator) -> None:
    """An image that another task holds is tried again until it is free, at no attempt's cost."""
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


async def test_a_broken_image_is_not_waited_for(
    orchestrator: Orchestrator, cloud: Simulator
) -> None:
    """An image whose creation failed is busy for good: its job fails at the first refusal."""
    cloud.change(images={make_image_ids(1)[0]: ImageSettings(state="CREATEFAILED")})
    result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(1)))
    assert result.counts[JobState.FAILED] == 1
    (job,) = await read_jobs(orchestrator)
    assert job.code == "InvalidParameterValue.InvalidImageState"
    assert len(read_ledger(cloud)) == 1


async def test_two_formats_of_one_image(orchestrator: Orchestrator, cloud: Simulator) -> None:
    """The vendor exports an image once at a time: its second format waits unsent for the first."""
    await orchestrator.enqueue(make_requests_for(make_image_ids(1), format="QCOW2"))
    await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(1), format="VMDK"))
    assert await count_states(orchestrator) == {JobState.VERIFIED: 2}
    assert len(read_ledger(cloud)) == 2
    first, second = cloud.exports
    assert second.accepted_at >= first.ends_at


async def test_a_rate_refusal_slows_everyone_down(
    orchestrator: Orchestrator, cloud: Simulator
) -> None:
    """Once too many requests came in a second, what is claimed later leaves one by one."""
    cloud.change(codes=(Refusal("RequestLimitExceeded", times=3),))
    result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(60)))
    assert result.counts[JobState.VERIFIED] == 60
    assert result.refused == 3
    assert {job.attempts for job in await read_jobs(orchestrator)} == {1}
    arrivals = [entry.monotonic for entry in read_ledger(cloud)]
    assert arrivals[-1] - arrivals[-6] > 5 * 0.04


async def test_two_formats_of_one_image_where_no_end_is_seen(
    open_store: OpenStore, cloud: Simulator
) -> None:
    """An export whose end nobody looks for does not hold up the next of its image for ever."""
    async with open_store(verify="off") as orchestrator:
        await orchestrator.enqueue(make_requests_for(make_image_ids(1), format="QCOW2"))
        result = await enqueue_and_run(
            orchestrator, make_requests_for(make_image_ids(1), format="VMDK")
        )
    assert result.counts[JobState.ACCEPTED] == 2
    assert count_exports(cloud).total() == 2
