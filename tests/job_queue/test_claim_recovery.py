"""A claim that was applied although it seemed to fail: its jobs are put back, and only those."""

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from sqlalchemy.exc import OperationalError

from orchestrator.job_queue.claim_recovery import Claims, put_back_unsent
from orchestrator.job_states import JobState
from orchestrator.model import NOT_SENT, Lease
from orchestrator.store import Database
from tests.reporting.query_plans import plans
from tests.store_errors import commit_in_doubt
from tests.stores import (
    ME,
    REGION,
    REGIONS,
    acceptance,
    change,
    claimed,
    claimer,
    job,
    kinds,
    last_attempt,
    make_jobs,
    now,
    numbered,
    request,
    set_scope,
    settle,
    wanted,
)

pytestmark = pytest.mark.anyio


async def claim_with(claims: Claims, database: Database, *, limit: int = 2) -> list[Lease]:
    """Claim the next jobs."""
    moment = await now(database)
    given = await claims.claim(claimer(database), wanted(), REGIONS, signed_at=moment, limit=limit)
    return [lease for lease, _ in given]


async def in_doubt(database: Database, action: Callable[[], Awaitable[Any]]) -> None:
    """Let the commit of a claim take effect, and its caller believe that it failed."""
    with commit_in_doubt(database, "INSERT INTO attempts"), pytest.raises(OperationalError):
        await action()


async def test_a_claim_is_repeated_with_the_same_jobs(database: Database) -> None:
    """What the first try claimed goes back into the queue, and the second try takes it."""
    ids = await make_jobs(database, numbered(2))
    claims = Claims(database, ME)
    await in_doubt(database, lambda: claim_with(claims, database))
    assert [(await job(database, job_id)).state for job_id in ids] == ["sending", "sending"]
    leases = await claim_with(claims, database)
    assert [(lease.job_id, lease.attempt) for lease in leases] == [(id_, 2) for id_ in ids]
    for job_id in ids:
        assert await kinds(database, job_id) == ["enqueued", "claimed", "not sent", "claimed"]
        assert (await job(database, job_id)).attempts_charged == 0


async def test_a_job_that_was_not_sent_waits_as_before(database: Database) -> None:
    """Nobody holds it, it is due, and its attempt says that no request left."""
    (job_id,) = await make_jobs(database)
    await claimed(database)
    assert await put_back_unsent(database, ME, [REGION], ()) == 1
    kept = await job(database, job_id)
    assert (kept.state, kept.reason, kept.owner) == (JobState.QUEUED, "not sent", None)
    assert (kept.expires_at, kept.attempts_charged, kept.deferrals) == (None, 0, 0)
    assert kept.due_at <= await now(database)
    attempt = await last_attempt(database, job_id)
    assert (attempt.code, attempt.effect) == (NOT_SENT, "no")
    assert attempt.answered_at is not None
    assert await put_back_unsent(database, ME, [REGION], ()) == 0
    assert (await claimed(database)).attempt == 2


async def test_a_job_that_may_have_been_exported_before_is_unknown(database: Database) -> None:
    """Before it is sent again the bucket is looked at for what the earlier attempt left."""
    (job_id,) = await make_jobs(database)
    await change(database, job_id, maybe_applied=True)
    await claimed(database)
    assert await put_back_unsent(database, ME, [REGION], ()) == 1
    kept = await job(database, job_id)
    assert (kept.state, kept.maybe_applied, kept.absent_since) == (JobState.UNKNOWN, True, None)


async def test_only_what_is_not_in_progress_is_put_back(database: Database) -> None:
    """An attempt in progress, another process's job and another region's are left alone."""
    regions = ("ap-tokyo", "ap-seoul")
    ids = await make_jobs(database, [*numbered(3), *(request(9, region=one) for one in regions)])
    leases = [await claimed(database, owner=ME if number != 2 else "other") for number in range(5)]
    sending = [(leases[0].job_id, leases[0].attempt), (leases[1].job_id, leases[1].attempt + 1)]
    assert await put_back_unsent(database, ME, [REGION, "ap-seoul"], sending) == 2
    found = {job_id: (await job(database, job_id)).state for job_id in ids}
    put_back = {lease.job_id for lease in (leases[1], leases[4])}
    assert found == {id_: "queued" if id_ in put_back else "sending" for id_ in ids}


async def test_a_probe_that_was_not_sent_leaves_the_next_one_free(database: Database) -> None:
    """The next probe need not wait for the end of its lease."""
    await make_jobs(database)
    await set_scope(database, ceiling=0)
    assert (await claimed(database)).probe
    await put_back_unsent(database, ME, [REGION], ())
    assert (await claimed(database)).probe


async def test_a_put_back_in_doubt_is_repeated(database: Database) -> None:
    """It may have been applied, too: then there is nothing left to put back."""
    (job_id,) = await make_jobs(database)
    claims = Claims(database, ME)
    await in_doubt(database, lambda: claim_with(claims, database))
    with commit_in_doubt(database, "UPDATE"), pytest.raises(OperationalError):
        await claim_with(claims, database)
    assert [lease.attempt for lease in await claim_with(claims, database)] == [2]
    assert await kinds(database, job_id) == ["enqueued", "claimed", "not sent", "claimed"]


async def test_what_was_sent_is_never_put_back(database: Database) -> None:
    """While its outcome is not in the store a request may have been sent, even at the end."""
    ids = await make_jobs(database, numbered(3))
    claims = Claims(database, ME)
    (first,) = await claim_with(claims, database, limit=1)
    (second,) = await claim_with(claims, database, limit=1)
    await settle(database, first, acceptance())
    claims.recorded(first)
    await in_doubt(database, lambda: claim_with(claims, database))
    await claims.close()
    states = [(await job(database, job_id)).state for job_id in ids]
    assert (second.job_id, states) == (ids[1], ["accepted", "sending", "queued"])


async def test_a_store_that_is_gone_ends_quietly(sqlite: Database) -> None:
    """At the end of a run, what cannot be put back is left to orphan recovery."""
    assert sqlite.path is not None
    await make_jobs(sqlite)
    claims = Claims(sqlite, ME)
    await in_doubt(sqlite, lambda: claim_with(claims, sqlite))
    sqlite.path.rename(sqlite.path.with_suffix(".moved"))
    await claims.close()


async def test_a_claim_whose_commit_is_under_way_is_waited_for(postgresql: Database) -> None:
    """The server may go on with a commit whose connection was lost."""
    (job_id,) = await make_jobs(postgresql)
    released, results = anyio.Event(), list[int]()

    async def hold() -> None:
        async with postgresql.write() as connection:
            await connection.exec_driver_sql("SELECT * FROM scopes FOR UPDATE")
            values = f"state = 'sending', attempt = 1, owner = '{ME}'"
            await connection.exec_driver_sql(f"UPDATE jobs SET {values}")  # noqa: S608 - ours
            await released.wait()

    async def put_back() -> None:
        results.append(await put_back_unsent(postgresql, ME, [REGION], ()))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hold)
        await anyio.sleep(0.1)
        tasks.start_soon(put_back)
        await anyio.sleep(0.2)
        assert results == []
        released.set()
    assert results == [1]
    assert (await job(postgresql, job_id)).state == JobState.QUEUED


async def test_what_is_put_back_is_found_by_index(sqlite: Database) -> None:
    """However many jobs have ended, only those that are being sent are read."""
    await make_jobs(sqlite, numbered(2))
    leases = [await claimed(sqlite), await claimed(sqlite)]
    in_progress = [(leases[0].job_id, leases[0].attempt)]
    async with plans(sqlite, writer=True) as steps:
        assert await put_back_unsent(sqlite, ME, [REGION], in_progress) == 1
    assert any("jobs" in step for step in steps)
    assert [step for step in steps if step.startswith(("SCAN attempts", "SCAN jobs"))] == []
