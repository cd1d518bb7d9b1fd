"""The status: counts by state, the limits of each scope, and the estimated time left."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import pytest

from orchestrator.job_queue.worker_registry import register_worker
from orchestrator.job_states import JobState
from orchestrator.reporting.status import status, unfinished_batches
from orchestrator.store import Database
from orchestrator.store.tables import jobs
from tests.job_factory import (
    CAP_REACHED,
    IMAGE_BUSY,
    PROFILE,
    REGION,
    claim_one,
    make_acceptance,
    make_job,
    make_jobs,
    make_refusal,
    make_request,
    make_requests,
    make_verified_job,
    now,
    record_outcome,
    update_scope,
)
from tests.reporting.query_plans import plans

pytestmark = pytest.mark.anyio


@pytest.fixture
async def active_run(database: Database) -> AsyncIterator[None]:
    """Register a run that is active during the test."""
    async with register_worker(database):
        yield


async def assert_seconds_left(database: Database, before: datetime, seconds: float) -> None:
    """Assert the estimate, less the time that PostgreSQL's clock has advanced since."""
    left = (await status(database)).seconds_left
    passed = (await now(database) - before).total_seconds()
    assert left is not None
    assert seconds - passed - 0.5 <= left <= seconds + 0.5


async def test_empty_store_has_no_jobs_and_no_estimate(database: Database) -> None:
    """Every state has the count 0, and the time left is unknown."""
    found = await status(database)
    assert found.counts == dict.fromkeys(JobState, 0)
    assert (found.total, found.scopes, found.reasons, found.seconds_left) == (0, (), {}, None)


async def test_each_state_is_counted(database: Database) -> None:
    """Jobs are counted by state, in the whole store or in one batch."""
    for times, state in enumerate(JobState, start=1):
        for _ in range(times):
            await make_job(database, state)
    await make_jobs(database, [make_request(99)], batch="morning")
    found = await status(database)
    expected = {state: times for times, state in enumerate(JobState, start=1)}
    assert found.counts == expected | {JobState.QUEUED: 2}
    assert found.total == sum(expected.values()) + 1
    morning = await status(database, batches={"morning"})
    assert (morning.total, morning.counts[JobState.QUEUED]) == (1, 1)


async def test_waiting_jobs_are_counted_by_reason(database: Database) -> None:
    """Jobs that wait to be sent or looked up are counted by reason, and no others."""
    await make_jobs(database, make_requests(4))
    await make_job(database, JobState.UNKNOWN, reason="answer lost")
    # all are claimed first: after its back-off the busy one could be claimed again
    leases = [await claim_one(database) for _ in range(3)]
    for lease, outcome in zip(
        leases,
        (make_refusal(IMAGE_BUSY), make_acceptance(), make_refusal(CAP_REACHED)),
        strict=True,
    ):
        await record_outcome(database, lease, outcome)
    assert (await status(database)).reasons == {
        "new": 1,
        "image busy": 1,
        "capacity": 1,
        "answer lost": 1,
    }


async def test_each_scope_shows_its_concurrency_limit(database: Database) -> None:
    """Ceiling, running and waiting jobs are separate for each region, in order."""
    await make_jobs(database, [*make_requests(3), make_request(4, region="ap-tokyo")])
    await record_outcome(database, await claim_one(database), make_acceptance())
    await record_outcome(database, await claim_one(database), make_refusal(CAP_REACHED))
    here, there = (await status(database)).scopes
    assert (here.profile, here.concurrency.region, here.waiting) == (PROFILE, REGION, 2)
    assert (here.concurrency.ceiling, here.concurrency.running) == (1, 1)
    assert (there.concurrency.region, there.concurrency.ceiling, there.waiting) == (
        "ap-tokyo",
        None,
        1,
    )


@pytest.mark.usefixtures("active_run")
@pytest.mark.parametrize(
    ("ceiling", "waiting", "seconds"),
    [(2, 5, 300.0), (2, 4, 200.0), (None, 5, 100.0), (0, 2, 200.0), (2, 0, 0.0)],
    ids=["three rounds", "two rounds", "no ceiling", "ceiling of 0", "no job"],
)
async def test_queue_is_exported_in_rounds(
    database: Database, ceiling: int | None, waiting: int, seconds: float
) -> None:
    """The estimate is the median duration times the number of rounds."""
    for lasted in (100, 1, 9999):
        await make_verified_job(database, took=lasted)
    for _ in range(waiting):
        await make_job(database)
    await update_scope(database, ceiling=ceiling)
    found = await status(database)
    assert found.scopes[0].usual_seconds == pytest.approx(100, abs=0.1)
    assert found.seconds_left == pytest.approx(seconds, abs=0.5)


@pytest.mark.usefixtures("active_run")
@pytest.mark.parametrize(("ago", "seconds"), [((70, 40), 60), ((200,), 0)])
async def test_running_export_needs_the_rest_of_the_usual_time(
    database: Database, ago: tuple[int, ...], seconds: float
) -> None:
    """Without queued jobs the last accepted export decides; an overdue one gives 0."""
    await make_verified_job(database, took=100)
    before = await now(database)
    for passed in ago:
        accepted_at = before - timedelta(seconds=passed)
        await make_job(database, JobState.ACCEPTED, accepted_at=accepted_at)
    await assert_seconds_left(database, before, seconds)


@pytest.mark.usefixtures("active_run")
async def test_job_that_is_due_later_decides(database: Database) -> None:
    """Of a job that is sent now and one that is due later, the later one decides."""
    await make_verified_job(database, took=100)
    await make_job(database)
    before = await now(database)
    await make_job(database, due_at=before + timedelta(seconds=500))
    await assert_seconds_left(database, before, 600)


@pytest.mark.usefixtures("active_run")
async def test_unknown_job_makes_the_estimate_unknown(database: Database) -> None:
    """While an unknown job is looked up, running exports give no estimate."""
    await make_verified_job(database, took=100)
    await make_job(database, JobState.ACCEPTED, accepted_at=await now(database))
    await make_job(database, JobState.UNKNOWN)
    assert (await status(database)).seconds_left is None


async def test_nothing_is_estimated_without_an_active_run(database: Database) -> None:
    """Without an active run, no time left is estimated and no probe is due.

    Nothing happens until somebody starts a run.
    """
    await make_verified_job(database, took=100)
    before = await now(database)
    await make_job(database, due_at=before + timedelta(seconds=500))
    await update_scope(database, ceiling=0, full_since=before, probe_at=before)
    async with register_worker(database):
        active = await status(database)
    idle = await status(database)
    for found, is_active in ((active, True), (idle, False)):
        (scope,) = found.scopes
        assert found.is_run_active == is_active
        assert (found.seconds_left is not None) == is_active
        assert (scope.seconds_left is not None) == is_active
        assert (scope.concurrency.probe_at is not None) == is_active
    # what does not depend on a run is the same
    assert idle.next_due_at == active.next_due_at == before + timedelta(seconds=500)
    assert idle.scopes[0].usual_seconds == active.scopes[0].usual_seconds
    assert idle.scopes[0].concurrency.full_since == before


@pytest.mark.usefixtures("active_run")
async def test_no_estimate_before_the_first_export_finished(database: Database) -> None:
    """Without a finished export there is no duration to estimate from."""
    await make_jobs(database, make_requests(2))
    assert (await status(database)).seconds_left is None


@pytest.mark.usefixtures("active_run")
async def test_the_slowest_scope_decides(database: Database) -> None:
    """The estimate is that of the slowest scope, and unknown if any scope's is."""
    await make_verified_job(database, took=100)
    await make_jobs(database, [make_request(50, region="ap-tokyo")])
    assert (await status(database)).seconds_left is None
    async with database.write() as connection:
        in_tokyo = jobs.c.region == "ap-tokyo"
        await connection.execute(jobs.update().where(in_tokyo).values(state=JobState.CANCELLED))
    assert (await status(database)).seconds_left == 0.0


@pytest.mark.parametrize("batches", [None, {"night"}])
async def test_status_reads_only_indexes(sqlite: Database, batches: set[str] | None) -> None:
    """The status reads all counts from indexes, without a sort.

    The counts of a batch come from the index of batches.
    """
    await make_jobs(sqlite, make_requests(3))
    async with plans(sqlite) as steps:
        assert (await status(sqlite, batches=batches)).total == 3
    assert "SCAN jobs USING COVERING INDEX ix_jobs_scope" in steps
    assert not [step for step in steps if step == "SCAN jobs" or "TEMP" in step], steps
    by_batch = "SEARCH jobs USING COVERING INDEX ix_jobs_batch (batch=?)"
    assert (by_batch in steps) == (batches is not None)


async def test_progress_of_a_run_reads_only_indexes(sqlite: Database) -> None:
    """The progress reads the batches of a run and their counts only from indexes.

    The counts are those of one profile. Groups of several batches need a sort.
    """
    await make_jobs(sqlite, make_requests(3))
    await make_jobs(sqlite, [make_request(4)], batch="morning")
    async with plans(sqlite) as steps:
        batches = await unfinished_batches(sqlite, PROFILE)
        assert batches == {"night", "morning"}
        assert (await status(sqlite, batches=batches, profile=PROFILE)).total == 4
    assert "SCAN jobs USING COVERING INDEX ix_jobs_batch" in steps
    assert "SEARCH jobs USING COVERING INDEX ix_jobs_batch (batch=?)" in steps
    assert "SCAN jobs" not in steps
    assert not [step for step in steps if "USING INDEX ix_jobs_batch" in step]


async def test_progress_of_a_run_counts_one_profile(database: Database) -> None:
    """Jobs of another profile are not sent by the run, whatever their batch."""
    await make_job(database)
    await make_job(database, profile="other")
    await make_job(database, profile="other", batch="theirs")
    assert await unfinished_batches(database, PROFILE) == {"night"}
    assert (await status(database, batches={"night"}, profile=PROFILE)).total == 1
    assert (await status(database, batches={"night"})).total == 2
