"""How a run ends, and what the next run does."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

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
    make_credential_variables,
    make_image_ids,
    make_orchestrator,
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


async def test_time_limit_ends_the_run(orchestrator: Orchestrator, cloud: Simulator) -> None:
    """At its time limit a run sends nothing more; the next run continues."""
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


async def test_a_run_with_keys_in_the_environment_needs_no_home_folder(
    cloud: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container's user may have neither HOME nor an entry in the user database."""
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.getuid", lambda: 2**31 - 3)
    environ = {**make_credential_variables(), "HOME": "~"}
    async with make_orchestrator(cloud.url, tmp_path, environ=environ) as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(1)))
    assert result.counts[JobState.VERIFIED] == 1


async def test_shutdown_records_answers_in_flight(
    orchestrator: Orchestrator, cloud: Simulator
) -> None:
    """A run that shuts down claims no more jobs and records all answers in flight."""
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


async def test_shutdown_ends_an_idle_run(orchestrator: Orchestrator, cloud: Simulator) -> None:
    """An idle run with `--forever` ends as soon as shutdown is requested."""
    stop = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: run_to_end(orchestrator, forever=True, stop=stop))
        await orchestrator.enqueue(make_requests_for(make_image_ids(3)))
        await wait_until(lambda: count_exports(cloud) == once_each(make_image_ids(3)))
        stop.set()
    assert sum((await count_states(orchestrator)).values()) == 3


async def test_cancelled_run_is_continued_by_the_next(
    orchestrator: Orchestrator, cloud: Simulator
) -> None:
    """The next run continues the requests that a cancelled run left in flight.

    It finds each export in the bucket.
    """
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


async def test_job_is_not_sent_before_its_time(
    orchestrator: Orchestrator, cloud: Simulator
) -> None:
    """A run waits for a job with a `not_before`, and sends it no earlier."""
    moment = datetime.now(UTC) + timedelta(seconds=1.5)
    await orchestrator.enqueue(make_requests_for(make_image_ids(1), not_before=moment))
    await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(2, first=1)))
    late = next(
        entry for entry in read_ledger(cloud) if entry.image_ids == tuple(make_image_ids(1))
    )
    assert late.arrived >= moment.timestamp()
    assert await count_states(orchestrator) == {JobState.VERIFIED: 3}


async def test_job_due_after_the_time_limit_stays_queued(
    orchestrator: Orchestrator, cloud: Simulator
) -> None:
    """A job that is due after the time limit does not keep the run alive."""
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    await orchestrator.enqueue(make_requests_for(make_image_ids(1), not_before=tomorrow))
    result = await enqueue_and_run(
        orchestrator, make_requests_for(make_image_ids(2, first=1)), time_limit=600
    )
    assert not result.timed_out
    assert (result.counts[JobState.VERIFIED], result.left) == (2, 1)
    assert count_exports(cloud) == once_each(make_image_ids(2, first=1))


async def test_jobs_enqueued_during_a_run_are_exported(
    orchestrator: Orchestrator, cloud: Simulator
) -> None:
    """Jobs that are enqueued during a run, in a new region, are part of the run."""
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


async def test_run_works_for_one_profile(open_store: OpenStore, cloud: Simulator) -> None:
    """A run neither sends nor reports the jobs of another profile."""
    async with open_store(profile="other") as orchestrator:
        await orchestrator.enqueue(make_requests_for(make_image_ids(2)))
    async with open_store() as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(2, first=2)))
        assert await count_states(orchestrator) == {JobState.VERIFIED: 2, JobState.QUEUED: 2}
    assert sum(result.counts.values()) == 2
    assert count_exports(cloud) == once_each(make_image_ids(2, first=2))


async def test_run_of_an_empty_store_ends_at_once(
    orchestrator: Orchestrator, cloud: Simulator
) -> None:
    """A run of an empty store ends at once and sends no request."""
    result = await run_to_end(orchestrator)
    assert (sum(result.counts.values()), result.requests, result.left) == (0, 0, 0)
    assert not cloud.ledger
