"""How a run ends, and what the next one finds."""

from datetime import UTC, datetime, timedelta

import anyio
import pytest

from orchestrator.job_states import JobState
from orchestrator.orchestrator import Orchestrator
from orchestrator.simulator import Duration, Fault, Simulator
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
    run_and_stop_when,
    run_to_end,
    wait_until,
)

pytestmark = pytest.mark.anyio

SLOW = Fault("latency", action="ExportImages", seconds=0.6)


async def test_a_time_limit(orchestrator: Orchestrator, cloud: Simulator) -> None:
    """At its time limit a run sends nothing more and says what is left; the next one goes on."""
    cloud.change(cap=3, duration=Duration(seconds=200))
    await orchestrator.enqueue(make_requests_for(make_image_ids(8)))
    await run_and_stop_when(orchestrator, lambda: count_exports(cloud).total() == 3)
    result = await run_to_end(orchestrator, time_limit=1)
    assert result.timed_out
    assert result.counts[JobState.ACCEPTED] == 3
    assert (result.counts[JobState.QUEUED], result.left) == (5, 8)
    assert 1 <= result.seconds < 200
    cloud.change(skew=210, duration=Duration(seconds=0.2))
    assert (await run_to_end(orchestrator)).counts[JobState.VERIFIED] == 8
    assert count_exports(cloud) == once_each(make_image_ids(8))


async def test_a_stop(orchestrator: Orchestrator, cloud: Simulator) -> None:
    """Told to stop, a run claims nothing more, and records every answer that is in the air."""
    cloud.set_faults(SLOW)
    await orchestrator.enqueue(make_requests_for(make_image_ids(40)))
    counts = (await run_and_stop_when(orchestrator, lambda: len(read_ledger(cloud)) >= 4)).counts
    assert counts[JobState.SENDING] == counts[JobState.UNKNOWN] == 0
    assert counts[JobState.QUEUED] >= 40 - 16 - 4
    answers = {entry.image_ids: entry.task_id for entry in read_ledger(cloud)}
    sent = [job for job in await read_jobs(orchestrator) if job.state is not JobState.QUEUED]
    assert {job.image_ids: job.task_id for job in sent} == answers
    cloud.set_faults()
    assert (await run_to_end(orchestrator)).counts[JobState.VERIFIED] == 40
    assert count_exports(cloud) == once_each(make_image_ids(40))


async def test_a_stop_without_work_under_way(orchestrator: Orchestrator, cloud: Simulator) -> None:
    """A run that only waits, for ever if need be, ends as soon as it is told to."""
    stop = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: run_to_end(orchestrator, forever=True, stop=stop))
        await orchestrator.enqueue(make_requests_for(make_image_ids(3)))
        await wait_until(lambda: count_exports(cloud) == once_each(make_image_ids(3)))
        stop.set()
    assert sum((await count_states(orchestrator)).values()) == 3


async def test_a_run_that_is_torn_away(orchestrator: Orchestrator, cloud: Simulator) -> None:
    """A cancelled run leaves its requests to the next, which finds each of them in the bucket."""
    cloud.set_faults(SLOW)
    await orchestrator.enqueue(make_requests_for(make_image_ids(20)))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(orchestrator.run)
        await wait_until(lambda: len(read_ledger(cloud)) >= 4)
        tasks.cancel_scope.cancel()
    assert (await count_states(orchestrator))[JobState.SENDING] > 0
    cloud.set_faults()
    result = await run_to_end(orchestrator)
    assert result.counts[JobState.VERIFIED] == 20
    assert count_exports(cloud) == once_each(make_image_ids(20))


async def test_not_before(orchestrator: Orchestrator, cloud: Simulator) -> None:
    """A job with a time of its own is waited for, and sent no earlier than that."""
    moment = datetime.now(UTC) + timedelta(seconds=1.5)
    await orchestrator.enqueue(make_requests_for(make_image_ids(1), not_before=moment))
    await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(2, first=1)))
    late = next(
        entry for entry in read_ledger(cloud) if entry.image_ids == tuple(make_image_ids(1))
    )
    assert late.arrived >= moment.timestamp()
    assert await count_states(orchestrator) == {JobState.VERIFIED: 3}


async def test_not_before_out_of_reach(orchestrator: Orchestrator, cloud: Simulator) -> None:
    """A job that is due after the time limit keeps no run alive, and stays in the queue."""
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    await orchestrator.enqueue(make_requests_for(make_image_ids(1), not_before=tomorrow))
    result = await enqueue_and_run(
        orchestrator, make_requests_for(make_image_ids(2, first=1)), time_limit=600
    )
    assert not result.timed_out
    assert (result.counts[JobState.VERIFIED], result.left) == (2, 1)
    assert count_exports(cloud) == once_each(make_image_ids(2, first=1))


async def test_jobs_that_come_while_running(orchestrator: Orchestrator, cloud: Simulator) -> None:
    """Jobs enqueued while a run lasts, in a region new to it, are part of it."""
    cloud.change(duration=Duration(seconds=200))
    await orchestrator.enqueue(make_requests_for(make_image_ids(2)))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_to_end, orchestrator)
        await wait_until(lambda: len(cloud.exports) == 2)
        await orchestrator.enqueue(
            make_requests_for(make_image_ids(2, first=2), region="eu-frankfurt")
        )
        cloud.change(skew=210, duration=Duration(seconds=0.2))
    assert await count_states(orchestrator) == {JobState.VERIFIED: 4}


async def test_two_accounts_in_one_open_store(open_store: OpenStore, cloud: Simulator) -> None:
    """A run works for one profile: the jobs of another are neither sent nor told of."""
    async with open_store(profile="other") as orchestrator:
        await orchestrator.enqueue(make_requests_for(make_image_ids(2)))
    async with open_store() as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(2, first=2)))
        assert await count_states(orchestrator) == {JobState.VERIFIED: 2, JobState.QUEUED: 2}
    assert sum(result.counts.values()) == 2
    assert count_exports(cloud) == once_each(make_image_ids(2, first=2))


async def test_nothing_was_ever_enqueued(orchestrator: Orchestrator, cloud: Simulator) -> None:
    """A run over an empty store ends at once, without a request and without keys."""
    result = await run_to_end(orchestrator)
    assert (sum(result.counts.values()), result.requests, result.left) == (0, 0, 0)
    assert not cloud.ledger
