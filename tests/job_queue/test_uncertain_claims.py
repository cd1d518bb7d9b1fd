"""Jobs of a claim that was committed although it seemed to fail are put back, and only those."""

import anyio
import pytest

from orchestrator.job_queue.uncertain_claims import put_back_unsent
from orchestrator.job_states import JobState
from orchestrator.model import NOT_SENT
from orchestrator.store import Database
from tests.job_factory import (
    REGION,
    TESTER,
    claim_one,
    make_jobs,
    make_request,
    make_requests,
    now,
    read_job,
    read_last_attempt,
    update_job,
    update_scope,
)
from tests.reporting.query_plans import plans

pytestmark = pytest.mark.anyio


async def test_an_unsent_job_is_queued_again(database: Database) -> None:
    """The job has no owner and is due, and its attempt is marked as not sent."""
    (job_id,) = await make_jobs(database)
    await claim_one(database)
    await put_back_unsent(database, TESTER, [REGION], ())
    kept = await read_job(database, job_id)
    assert (kept.state, kept.reason, kept.owner) == (JobState.QUEUED, "not sent", None)
    assert (kept.expires_at, kept.attempts_charged, kept.deferrals) == (None, 0, 0)
    assert kept.due_at <= await now(database)
    attempt = await read_last_attempt(database, job_id)
    assert (attempt.code, attempt.effect) == (NOT_SENT, "no")
    assert attempt.answered_at is not None
    await put_back_unsent(database, TESTER, [REGION], ())
    assert (await claim_one(database)).attempt == 2


async def test_a_job_that_may_have_been_exported_before_is_unknown(database: Database) -> None:
    """The bucket is searched for an earlier export before the job is sent again."""
    (job_id,) = await make_jobs(database)
    await update_job(database, job_id, maybe_applied=True)
    await claim_one(database)
    await put_back_unsent(database, TESTER, [REGION], ())
    kept = await read_job(database, job_id)
    assert (kept.state, kept.maybe_applied, kept.absent_since) == (JobState.UNKNOWN, True, None)


async def test_attempts_in_progress_are_not_put_back(database: Database) -> None:
    """Attempts in progress, and jobs of other processes or regions, are not changed."""
    regions = ("ap-tokyo", "ap-seoul")
    ids = await make_jobs(
        database, [*make_requests(3), *(make_request(9, region=one) for one in regions)]
    )
    leases = [
        await claim_one(database, owner=TESTER if number != 2 else "other") for number in range(5)
    ]
    sending = [(leases[0].job_id, leases[0].attempt), (leases[1].job_id, leases[1].attempt + 1)]
    await put_back_unsent(database, TESTER, [REGION, "ap-seoul"], sending)
    found = {job_id: (await read_job(database, job_id)).state for job_id in ids}
    put_back = {lease.job_id for lease in (leases[1], leases[4])}
    assert found == {id_: "queued" if id_ in put_back else "sending" for id_ in ids}


async def test_an_unsent_probe_does_not_delay_the_next_one(database: Database) -> None:
    """The job is no longer the probe of its scope."""
    await make_jobs(database)
    await update_scope(database, ceiling=0)
    assert (await claim_one(database)).probe
    await put_back_unsent(database, TESTER, [REGION], ())
    assert (await claim_one(database)).probe


async def test_a_pending_commit_of_a_claim_is_waited_for(postgresql: Database) -> None:
    """The server may still complete a commit whose connection was lost."""
    (job_id,) = await make_jobs(postgresql)
    released, is_done = anyio.Event(), anyio.Event()

    async def hold() -> None:
        async with postgresql.write() as connection:
            await connection.exec_driver_sql("SELECT * FROM scopes FOR UPDATE")
            values = f"state = 'sending', attempt = 1, owner = '{TESTER}'"
            await connection.exec_driver_sql(f"UPDATE jobs SET {values}")  # noqa: S608 - ours
            await released.wait()

    async def put_back() -> None:
        await put_back_unsent(postgresql, TESTER, [REGION], ())
        is_done.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hold)
        await anyio.sleep(0.1)
        tasks.start_soon(put_back)
        await anyio.sleep(0.2)
        assert not is_done.is_set()
        released.set()
    assert (await read_job(postgresql, job_id)).state == JobState.QUEUED


async def test_unsent_jobs_are_found_by_index(sqlite: Database) -> None:
    """However many jobs have ended, only those that are being sent are read."""
    await make_jobs(sqlite, make_requests(2))
    leases = [await claim_one(sqlite), await claim_one(sqlite)]
    in_progress = [(leases[0].job_id, leases[0].attempt)]
    async with plans(sqlite, writer=True) as steps:
        await put_back_unsent(sqlite, TESTER, [REGION], in_progress)
    assert (await read_job(sqlite, leases[1].job_id)).state == JobState.QUEUED
    assert any("jobs" in step for step in steps)
    assert [step for step in steps if step.startswith(("SCAN attempts", "SCAN jobs"))] == []
