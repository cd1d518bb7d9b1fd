"""The summary of a run: the batches it works on, and their counts at its end."""

from dataclasses import replace

import pytest
import sqlalchemy as sa

from orchestrator.job_states import JobState
from orchestrator.model import NOT_RULED_OUT, Halt, Reaction, Scope
from orchestrator.reporting.run_summary import RunResult, RunSummary
from orchestrator.store import Database
from orchestrator.store.tables import jobs
from orchestrator.worker.outcome_recorder import record_not_sent
from tests.job_factory import (
    CAP_REACHED,
    IMAGE_BUSY,
    PROFILE,
    TESTER,
    advance_time,
    claim_one,
    make_acceptance,
    make_job,
    make_jobs,
    make_refusal,
    make_request,
    make_requests,
    now,
    record_outcome,
    update_job,
)

pytestmark = pytest.mark.anyio


async def finish(summary: RunSummary, *, owner: str | None = TESTER) -> RunResult:
    of_run = sa.true() if summary.batch is None else jobs.c.batch == summary.batch
    left = of_run & jobs.c.state.in_([JobState.QUEUED, JobState.ACCEPTED])
    return await summary.finish(owner=owner, seconds=1.5, left=[left])


async def end_job(database: Database, job_id: int, state: JobState) -> None:
    await update_job(database, job_id, state=state, finished_at=await now(database))


async def test_finished_jobs_are_no_work(database: Database) -> None:
    """A store with only finished jobs has no work, and the result is empty."""
    await end_job(database, await make_job(database), JobState.FAILED)
    await advance_time(database, hours=1)
    summary = await RunSummary.begin(database, PROFILE, None)
    assert not summary.has_work
    result = await finish(summary, owner=None)
    assert sum(result.counts.values()) == 0
    assert (result.requests, result.refused, result.left) == (0, 0, 0)


@pytest.mark.parametrize("state", ["queued", "sending", "unknown", "accepted"])
async def test_living_job_is_work_for_its_profile_and_batch(database: Database, state: str) -> None:
    """A job in a state that is not final is work only for its profile and batch."""
    await make_job(database, JobState(state))
    assert (await RunSummary.begin(database, PROFILE, None)).has_work
    assert (await RunSummary.begin(database, PROFILE, "night")).has_work
    assert not (await RunSummary.begin(database, PROFILE, "morning")).has_work
    assert not (await RunSummary.begin(database, "another", None)).has_work


async def test_resumed_batch_is_counted_as_a_whole(database: Database) -> None:
    """Finished jobs of a resumed batch are counted; those of an old batch are not."""
    old, done, alive = await make_jobs(database, make_requests(3), batch="tonight")
    await update_job(database, old, batch="last month")
    await end_job(database, old, JobState.FAILED)
    await end_job(database, done, JobState.VERIFIED)
    await advance_time(database, hours=1)
    summary = await RunSummary.begin(database, PROFILE, None)
    await end_job(database, alive, JobState.VERIFIED)
    result = await finish(summary)
    assert (result.counts[JobState.VERIFIED], result.counts[JobState.FAILED]) == (2, 0)
    assert result.seconds == 1.5


async def test_batch_enqueued_during_the_run_is_counted(database: Database) -> None:
    """A batch that is enqueued during a run counts, even if its jobs have finished."""
    summary = await RunSummary.begin(database, PROFILE, None)
    await make_jobs(database, [make_request(1)], batch="arrived")
    (ended,) = await make_jobs(database, [make_request(2)], batch="arrived and ended")
    await advance_time(database, seconds=1)
    await end_job(database, ended, JobState.FAILED)
    result = await finish(summary)
    assert (result.counts[JobState.QUEUED], result.counts[JobState.FAILED]) == (1, 1)
    assert result.left == 1


async def test_run_of_one_batch_counts_no_other(database: Database) -> None:
    """The result of a run of one batch has the jobs of this batch only."""
    await make_jobs(database, make_requests(2), batch="one")
    await make_jobs(database, [make_request(3)], batch="another")
    result = await finish(await RunSummary.begin(database, PROFILE, "one"))
    assert sum(result.counts.values()) == 2
    assert result.left == 2


async def test_jobs_that_another_run_may_continue_are_left(database: Database) -> None:
    """The jobs for which one of the given conditions holds are counted."""
    for state in JobState:
        await make_job(database, state)
    summary = await RunSummary.begin(database, PROFILE, None)
    assert (await finish(summary)).left == 2


async def test_only_requests_that_were_sent_are_counted(database: Database) -> None:
    """Only requests that this instance has sent count, including refused ones."""
    await make_jobs(database, make_requests(8))
    summary = await RunSummary.begin(database, PROFILE, None)
    refusal = make_refusal("UnsupportedOperation")
    outcomes = [
        make_acceptance(),
        make_refusal(IMAGE_BUSY),
        make_refusal("RequestLimitExceeded"),
        make_refusal(CAP_REACHED),
        replace(refusal, code=replace(refusal.code, reaction=Reaction.SUSPECT_REGION)),
    ]
    leases = [await claim_one(database) for _ in range(7)]
    for lease, outcome in zip(leases, outcomes, strict=False):
        await record_outcome(database, lease, outcome)
    async with database.write() as connection:
        await record_not_sent(connection, leases[5], await database.now(connection))
    result = await finish(summary)
    assert (result.requests, result.refused) == (6, 3)
    assert (await finish(summary, owner="another")).requests == 0


async def test_halts_and_time_limit_are_in_the_result(database: Database) -> None:
    """The result has the halts that need an operator, and whether the run timed out."""
    summary = await RunSummary.begin(database, PROFILE, None)
    halt = Halt(Scope.BUCKET, "r/b", "Code", "message", "remedy")
    result = await summary.finish(owner=TESTER, seconds=1.0, timed_out=True, blocked=(halt,))
    assert (result.timed_out, result.blocked) == (True, (halt,))


async def test_warnings_and_undecided_jobs_are_counted(database: Database) -> None:
    """All jobs with a warning count, and unknown jobs count if they are not resent."""
    summary = await RunSummary.begin(database, PROFILE, None)
    await make_job(database, JobState.UNKNOWN, reason=NOT_RULED_OUT, warnings=["Look at it."])
    await make_job(database, JobState.UNKNOWN, reason="answer lost")
    await make_job(database, JobState.VERIFIED, warnings=["Too small.", "Archived."])
    await make_jobs(database, [make_request(9)])
    result = await finish(summary)
    assert (result.not_ruled_out, result.warned) == (1, 2)
    assert result.counts[JobState.UNKNOWN] == 2


async def test_living_jobs_of_other_profiles_are_counted(database: Database) -> None:
    """A run can name the profiles whose jobs it does not send, with their number."""
    for state in (JobState.QUEUED, JobState.ACCEPTED, JobState.FAILED):
        await update_job(database, await make_job(database, state), profile="other")
    await make_job(database)
    summary = await RunSummary.begin(database, PROFILE, None)
    assert await summary.living_jobs_of_other_profiles() == {"other": 2}
