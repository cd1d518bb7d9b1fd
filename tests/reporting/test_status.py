"""How things stand: counts, gates, time to expect."""

from datetime import datetime, timedelta

import pytest

from orchestrator.job_states import JobState
from orchestrator.reporting.status import status
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
    now,
    record_outcome,
    update_scope,
)
from tests.reporting.query_plans import plans

pytestmark = pytest.mark.anyio


async def verified_after(database: Database, seconds: float) -> None:
    """A job that took so long from acceptance to its end."""
    end = await now(database)
    columns = {"accepted_at": end - timedelta(seconds=seconds), "finished_at": end}
    await make_job(database, JobState.VERIFIED, **columns)


async def assert_seconds_left(database: Database, before: datetime, seconds: float) -> None:
    """Assert the time left in seconds; PostgreSQL's clock has gone on since ``before``."""
    left = (await status(database)).seconds_left
    passed = (await now(database) - before).total_seconds()
    assert left is not None
    assert seconds - passed - 0.5 <= left <= seconds + 0.5


async def test_an_empty_store_has_nothing_to_say(database: Database) -> None:
    """Every state is counted, with nothing in it, and there is no time to tell."""
    found = await status(database)
    assert found.counts == dict.fromkeys(JobState, 0)
    assert (found.total, found.scopes, found.reasons, found.seconds_left) == (0, (), {}, None)


async def test_each_state_is_counted(database: Database) -> None:
    """So many jobs of each state, in all or of one batch."""
    for times, state in enumerate(JobState, start=1):
        for _ in range(times):
            await make_job(database, state)
    await make_jobs(database, [make_request(99)], batch="morning")
    found = await status(database)
    expected = {state: times for times, state in enumerate(JobState, start=1)}
    assert found.counts == expected | {JobState.QUEUED: 2}
    assert found.total == sum(expected.values()) + 1
    morning = await status(database, batch="morning")
    assert (morning.total, morning.counts[JobState.QUEUED]) == (1, 1)


async def test_the_waiting_say_why(database: Database) -> None:
    """The reasons of what waits, for its turn or a look, are counted, and of nothing else."""
    await make_jobs(database, make_requests(4))
    await make_job(database, JobState.UNKNOWN, reason="answer lost")
    await record_outcome(database, await claim_one(database), make_refusal(IMAGE_BUSY))
    await record_outcome(database, await claim_one(database), make_acceptance())
    await record_outcome(database, await claim_one(database), make_refusal(CAP_REACHED))
    assert (await status(database)).reasons == {
        "new": 1,
        "image busy": 1,
        "capacity": 1,
        "answer lost": 1,
    }


async def test_each_scope_shows_its_gate(database: Database) -> None:
    """Ceiling, what runs and what waits stand apart for each region, in order."""
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


@pytest.mark.parametrize(
    ("ceiling", "waiting", "seconds"),
    [(2, 5, 300.0), (2, 4, 200.0), (None, 5, 100.0), (0, 2, 200.0), (2, 0, 0.0)],
    ids=["three rounds", "two rounds", "no ceiling learned", "a full vendor", "nothing to do"],
)
async def test_the_rest_takes_rounds_of_a_full_gate(
    database: Database, ceiling: int | None, waiting: int, seconds: float
) -> None:
    """The usual duration, the median of the latest, times the rounds that are left."""
    for lasted in (100, 1, 9999):
        await verified_after(database, lasted)
    for _ in range(waiting):
        await make_job(database)
    await update_scope(database, ceiling=ceiling)
    found = await status(database)
    assert found.scopes[0].usual_seconds == pytest.approx(100, abs=0.1)
    assert found.seconds_left == pytest.approx(seconds, abs=0.5)


@pytest.mark.parametrize(("ago", "seconds"), [((70, 40), 60), ((200,), 0)])
async def test_what_runs_already_is_that_much_nearer_to_its_end(
    database: Database, ago: tuple[int, ...], seconds: float
) -> None:
    """Where nothing waits the export that began last decides; one that is due tells no time."""
    await verified_after(database, 100)
    before = await now(database)
    for passed in ago:
        begun = before - timedelta(seconds=passed)
        await make_job(database, JobState.ACCEPTED, accepted_at=begun)
    await assert_seconds_left(database, before, seconds)


async def test_what_may_not_be_sent_yet_is_the_last_to_end(database: Database) -> None:
    """Beside a job that goes out now, one that must wait decides."""
    await verified_after(database, 100)
    await make_job(database)
    before = await now(database)
    await make_job(database, due_at=before + timedelta(seconds=500))
    await assert_seconds_left(database, before, 600)


async def test_nobody_knows_how_long_a_doubt_lasts(database: Database) -> None:
    """Beside a lost answer that is looked for, the exports that run tell no time."""
    await verified_after(database, 100)
    await make_job(database, JobState.ACCEPTED, accepted_at=await now(database))
    await make_job(database, JobState.UNKNOWN)
    assert (await status(database)).seconds_left is None


async def test_before_any_end_no_time_is_told(database: Database) -> None:
    """A guess would be worse than no answer."""
    await make_jobs(database, make_requests(2))
    assert (await status(database)).seconds_left is None


async def test_the_slowest_scope_decides(database: Database) -> None:
    """The whole is done when its last scope is, and unknown while one of them is."""
    await verified_after(database, 100)
    await make_jobs(database, [make_request(50, region="ap-tokyo")])
    assert (await status(database)).seconds_left is None
    async with database.write() as connection:
        in_tokyo = jobs.c.region == "ap-tokyo"
        await connection.execute(jobs.update().where(in_tokyo).values(state=JobState.CANCELLED))
    assert (await status(database)).seconds_left == 0.0


@pytest.mark.parametrize("batch", [None, "night"])
async def test_no_look_reads_the_jobs_themselves(sqlite: Database, batch: str | None) -> None:
    """The counts are read off an index in its order; those of a batch off its own."""
    await make_jobs(sqlite, make_requests(3))
    async with plans(sqlite) as steps:
        assert (await status(sqlite, batch=batch)).total == 3
    assert "SCAN jobs USING COVERING INDEX ix_jobs_scope" in steps
    assert not [step for step in steps if step == "SCAN jobs" or "TEMP" in step], steps
    by_batch = "SEARCH jobs USING COVERING INDEX ix_jobs_batch (batch=?)"
    assert (by_batch in steps) == (batch is not None)
