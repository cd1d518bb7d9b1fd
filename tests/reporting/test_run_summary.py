"""The account of one run: what it was about, and where that stands at its end."""

import pytest

from orchestrator.job_states import JobState
from orchestrator.model import Halt, Scope
from orchestrator.reporting.run_summary import Account, RunResult
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


async def close(account: Account, *, owner: str | None = TESTER) -> RunResult:
    left = jobs.c.state.in_([JobState.QUEUED, JobState.ACCEPTED])
    return await account.close(owner=owner, seconds=1.5, left=[left])


async def finish(database: Database, job_id: int, state: JobState) -> None:
    await update_job(database, job_id, state=state, finished_at=await now(database))


async def test_nothing_alive_is_nothing_to_do(database: Database) -> None:
    """A store whose jobs have all ended has no work, and nothing to report."""
    await finish(database, await make_job(database), JobState.FAILED)
    await advance_time(database, hours=1)
    account = await Account.open(database, PROFILE, None)
    assert not account.has_work
    result = await close(account, owner=None)
    assert sum(result.counts.values()) == 0
    assert (result.requests, result.refused, result.left) == (0, 0, 0)


@pytest.mark.parametrize("state", ["queued", "sending", "unknown", "accepted"])
async def test_anything_alive_is_work(database: Database, state: str) -> None:
    """Whatever is not final is something to do, for its own account and batch alone."""
    await make_job(database, JobState(state))
    assert (await Account.open(database, PROFILE, None)).has_work
    assert (await Account.open(database, PROFILE, "night")).has_work
    assert not (await Account.open(database, PROFILE, "morning")).has_work
    assert not (await Account.open(database, "somebody else", None)).has_work


async def test_a_resumed_batch_is_counted_whole(database: Database) -> None:
    """What an earlier run has brought to its end counts too; last month's batch does not."""
    old, done, alive = await make_jobs(database, make_requests(3), batch="tonight")
    await update_job(database, old, batch="last month")
    await finish(database, old, JobState.FAILED)
    await finish(database, done, JobState.VERIFIED)
    await advance_time(database, hours=1)
    account = await Account.open(database, PROFILE, None)
    await finish(database, alive, JobState.VERIFIED)
    result = await close(account)
    assert (result.counts[JobState.VERIFIED], result.counts[JobState.FAILED]) == (2, 0)
    assert result.seconds == 1.5


async def test_what_arrives_during_the_run_counts(database: Database) -> None:
    """A batch that is enqueued while the run goes on is part of its account."""
    account = await Account.open(database, PROFILE, None)
    await make_jobs(database, [make_request(1)], batch="arrived")
    (ended,) = await make_jobs(database, [make_request(2)], batch="arrived and ended")
    await advance_time(database, seconds=1)
    await finish(database, ended, JobState.FAILED)
    result = await close(account)
    assert (result.counts[JobState.QUEUED], result.counts[JobState.FAILED]) == (1, 1)
    assert result.left == 1


async def test_one_batch_is_counted_alone(database: Database) -> None:
    """A run of one batch speaks of no other."""
    await make_jobs(database, make_requests(2), batch="one")
    await make_jobs(database, [make_request(3)], batch="another")
    result = await close(await Account.open(database, PROFILE, "one"))
    assert sum(result.counts.values()) == 2
    assert result.left == 2


async def test_what_running_again_may_bring_further_is_left(database: Database) -> None:
    """The jobs that the run calls unfinished are counted."""
    for state in JobState:
        await make_job(database, state)
    account = await Account.open(database, PROFILE, None)
    assert (await close(account)).left == 2


async def test_requests_are_those_that_left(database: Database) -> None:
    """Its own requests, refusals for rate or capacity among them; none that was never sent."""
    await make_jobs(database, make_requests(7))
    account = await Account.open(database, PROFILE, None)
    outcomes = [
        make_acceptance(),
        make_refusal(IMAGE_BUSY),
        make_refusal("RequestLimitExceeded"),
        make_refusal(CAP_REACHED),
    ]
    leases = [await claim_one(database) for _ in range(6)]
    for lease, outcome in zip(leases, outcomes, strict=False):
        await record_outcome(database, lease, outcome)
    async with database.write() as connection:
        await record_not_sent(connection, leases[4], await database.now(connection))
    result = await close(account)
    assert (result.requests, result.refused) == (5, 2)
    assert (await close(account, owner="another")).requests == 0


async def test_what_a_person_must_mend_is_handed_on(database: Database) -> None:
    """The stops and the time limit of a run stand in its result as they were."""
    account = await Account.open(database, PROFILE, None)
    stop = Halt(Scope.BUCKET, "r/b", "Code", "message", "remedy")
    result = await account.close(owner=TESTER, seconds=1.0, timed_out=True, blocked=(stop,))
    assert (result.timed_out, result.blocked) == (True, (stop,))
