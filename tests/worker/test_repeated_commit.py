"""A commit that was applied although it seemed to fail: its repetition changes nothing."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Any

import anyio
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from orchestrator.cloud.error_classification import code_for_exception, code_for_reply
from orchestrator.job_states import JobState
from orchestrator.limits.rate_limiter import RateLimiter
from orchestrator.model import NOT_SENT, Lease, Outcome, Reply
from orchestrator.settings import VerifyMode
from orchestrator.store import BusyRetry, Database, busy_retry
from orchestrator.store.tables import attempts, jobs, metadata, objects
from orchestrator.verification.delivery_check import Finding, check_delivery, save_findings
from orchestrator.verification.tracked_jobs import postpone
from orchestrator.worker.outcome_policy import decide
from orchestrator.worker.outcome_recorder import AttemptResult, record
from orchestrator.worker.pre_send_check import check_before_send
from orchestrator.worker.send import NOT_SENT_AT_CAPACITY, NOT_SENT_FOR_NOW
from tests.job_factory import (
    CAP_REACHED,
    DEADLINE,
    EXPORT_RATE_KEY,
    IMAGE_BUSY,
    SETTINGS,
    TESTER,
    add_expected_objects,
    claim_one,
    make_acceptance,
    make_job,
    make_jobs,
    make_refusal,
    make_request,
    read_event_kinds,
    read_job,
    read_last_attempt,
    read_rows,
    update_job,
    update_scope,
)
from tests.reporting.query_plans import plans
from tests.store_and_cloud import StoreAndCloud, ignore_refusal, make_bucket_access
from tests.store_errors import uncertain_commit

pytestmark = pytest.mark.anyio

TASK = 2**63 + 5


@pytest.fixture(autouse=True)
def _short_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry after milliseconds instead of a second."""
    monkeypatch.setattr(busy_retry, "_PAUSE", 0.005)


async def content(database: Database) -> dict[str, list[Any]]:
    """Return every row of the store."""
    async with database.read() as connection:
        return {
            table.name: list(
                (await connection.execute(sa.select(table).order_by(*table.primary_key))).all()
            )
            for table in metadata.sorted_tables
        }


async def repeated(database: Database, action: Callable[[], Awaitable[Any]]) -> Any:
    """Repeat an action whose commit seemed to fail, and return its result.

    The content of the store after the repetition must be the one after the commit.
    """
    committed: list[dict[str, list[Any]]] = []
    sentences: list[str] = []

    async def action_with_snapshot() -> Any:
        try:
            return await action()
        except OperationalError:
            committed.append(await content(database))
            raise

    with uncertain_commit(database):
        result = await BusyRetry(sentences.append).retry(action_with_snapshot)
    assert len(committed) == 1
    assert len(sentences) == 2
    assert await content(database) == committed[0]
    return result


OUTCOMES = {
    "accepted": make_acceptance(TASK, "/a.raw", "/b.raw"),
    "a lost connection": Outcome(code_for_exception(ConnectionResetError()), "reset"),
    "a full vendor": make_refusal(CAP_REACHED),
    "too many requests": make_refusal("RequestLimitExceeded"),
    "a busy image": make_refusal(IMAGE_BUSY),
    "an unknown image": make_refusal("InvalidImageId.NotFound"),
    "a task without paths": Outcome(code_for_reply(Reply(200, task_id=TASK)), task_id=TASK),
    "not sent": NOT_SENT_FOR_NOW,
    "not sent to a full vendor": NOT_SENT_AT_CAPACITY,
}


@pytest.mark.parametrize("outcome", OUTCOMES.values(), ids=OUTCOMES)
@pytest.mark.parametrize("probe", [False, True], ids=["free slot", "probe"])
async def test_an_answer_is_recorded_once(
    database: Database, outcome: Outcome, probe: bool
) -> None:
    """The repetition adds no event and no slow-down, and changes no limit."""
    await make_jobs(database)
    if probe:
        await update_scope(database, ceiling=0)
    lease = await claim_one(database)
    assert lease.probe is probe
    decision = decide(lease, outcome, jitter=0.0)
    answer = AttemptResult(lease, outcome, decision, RateLimiter(database, EXPORT_RATE_KEY, 20))
    await repeated(database, partial(record, database, [answer], DEADLINE))


async def test_a_group_with_a_recorded_answer_records_the_others(database: Database) -> None:
    """If one answer of a group is recorded already, the others are still recorded."""
    await make_jobs(database, [make_request(1), make_request(2)])
    leases = [await claim_one(database), await claim_one(database)]
    rate_limiter = RateLimiter(database, EXPORT_RATE_KEY, 0)
    one, two = (
        AttemptResult(lease, outcome, decide(lease, outcome, jitter=0.0), rate_limiter)
        for lease, outcome in zip(leases, [make_acceptance(1), make_acceptance(2)], strict=True)
    )
    assert await record(database, [one], DEADLINE) == [True]
    assert await record(database, [one, two], DEADLINE) == [False, True]
    for lease, task_id in zip(leases, ("1", "2"), strict=True):
        assert (await read_job(database, lease.job_id)).task_id == task_id
        assert await read_event_kinds(database, lease.job_id) == ["enqueued", "claimed", "accepted"]


async def test_recorded_answers_are_found_by_index(sqlite: Database) -> None:
    """However long the history of attempts is, each answer costs the same."""
    await make_jobs(sqlite, [make_request(1), make_request(2)])
    leases = [await claim_one(sqlite), await claim_one(sqlite)]
    decision = decide(leases[0], make_acceptance(), jitter=0.0)
    rate_limiter = RateLimiter(sqlite, EXPORT_RATE_KEY, 0)
    async with plans(sqlite, writer=True) as steps:
        answers = [
            AttemptResult(lease, make_acceptance(), decision, rate_limiter) for lease in leases
        ]
        await record(sqlite, answers, DEADLINE)
    assert any("attempts" in step for step in steps)
    assert [step for step in steps if step.startswith(("SCAN attempts", "SCAN jobs"))] == []


async def test_a_commit_that_is_still_under_way_is_waited_for(postgresql: Database) -> None:
    """A repeated record waits until the server has completed the first commit.

    The server may still complete a commit whose connection was lost.
    """
    await make_jobs(postgresql)
    lease = await claim_one(postgresql)
    decision = decide(lease, make_acceptance(TASK), jitter=0.0)
    answer = AttemptResult(
        lease, make_acceptance(TASK), decision, RateLimiter(postgresql, EXPORT_RATE_KEY, 0)
    )
    this = (attempts.c.job_id == lease.job_id) & (attempts.c.number == lease.attempt)
    code = answer.outcome.code.name
    given = {"answered_at": lease.claimed_at, "code": code, "task_id": str(TASK)}
    moved = {"state": JobState.ACCEPTED, "owner": None, "task_id": str(TASK)}
    results: list[list[bool]] = []

    async def repeat() -> None:
        results.append(await record(postgresql, [answer], DEADLINE))

    async with anyio.create_task_group() as tasks, postgresql.write() as connection:
        await connection.execute(attempts.update().where(this).values(given))
        this_job = jobs.update().where(jobs.c.id == lease.job_id)
        await connection.execute(this_job.values(moved))
        tasks.start_soon(repeat)
        await anyio.sleep(0.2)
        assert results == []
    assert results == [[False]]


async def test_a_repeated_postponement_does_not_change_a_queued_job(database: Database) -> None:
    """A job that waits to be sent again keeps the time at which it is due."""
    job_id = await make_job(database)
    before = (await read_job(database, job_id)).due_at
    async with database.write() as connection:
        await postpone(connection, {job_id: before + timedelta(hours=1)})
    assert (await read_job(database, job_id)).due_at == before


async def test_a_task_id_is_always_stored(database: Database) -> None:
    """An attempt that holds another answer still takes a TaskId."""
    await make_jobs(database)
    lease = await claim_one(database)
    rate_limiter = RateLimiter(database, EXPORT_RATE_KEY, 0)
    for outcome in (NOT_SENT_FOR_NOW, make_acceptance(TASK)):
        decision = decide(lease, outcome, jitter=0.0)
        await record(database, [AttemptResult(lease, outcome, decision, rate_limiter)], DEADLINE)
    assert (await read_last_attempt(database, lease.job_id)).task_id == str(TASK)
    assert (await read_job(database, lease.job_id)).state == JobState.ACCEPTED


async def test_a_finding_is_recorded_once(setup: StoreAndCloud) -> None:
    """A job that was verified by the first commit is left alone by the second."""
    job_id = await exported(setup)
    finding = await finding_of(setup, job_id)
    await repeated(setup.database, partial(save_findings, setup.database, TESTER, [finding]))
    assert await read_event_kinds(setup.database, job_id) == [
        "enqueued",
        "claimed",
        "accepted",
        "verified",
    ]


async def exported(setup: StoreAndCloud) -> int:
    """Return a described job that was accepted and whose export has ended."""
    (job_id,) = await make_jobs(setup.database)
    lease = await claim_one(setup.database)
    outcome = await setup.send(lease)
    decision = decide(lease, outcome, jitter=0.0)
    answer = AttemptResult(
        lease, outcome, decision, RateLimiter(setup.database, EXPORT_RATE_KEY, 0)
    )
    await record(setup.database, [answer], DEADLINE)
    async with setup.database.write() as connection:
        this = objects.update().where(objects.c.job_id == job_id)
        await connection.execute(this.values(expected=True))
    setup.finish_exports()
    return job_id


async def finding_of(setup: StoreAndCloud, job_id: int) -> Finding:
    """Return what one look-up finds."""
    seen = await setup.tracked_job(job_id)
    finding = await check_delivery(setup.cos, setup.trust, seen, timedelta(), [], SETTINGS)
    assert finding.is_final
    return finding


async def cleared_again(setup: StoreAndCloud, lease: Lease, *denied: str) -> bool:
    """Check twice, with a first commit that seems to fail; return the second result.

    Args:
        denied: what the bucket refuses, the first time only.
    """
    seen = make_bucket_access()
    clear = partial(
        check_before_send, setup.database, setup.cos, seen, lease, SETTINGS, ignore_refusal
    )
    setup.deny(*denied)
    with uncertain_commit(setup.database, "UPDATE"), pytest.raises(OperationalError):
        await clear()
    before = await content(setup.database)
    setup.deny()
    is_cleared = await clear()
    assert await content(setup.database) == before
    return is_cleared


async def exact(setup: StoreAndCloud) -> Lease:
    """Return the lease of a job with an exact name that is known."""
    await make_jobs(setup.database, [make_request(prefix="web", exact_names=True)])
    lease = await claim_one(setup.database)
    await add_expected_objects(setup.database, lease.job_id, "one.raw")
    return lease


async def maybe_applied(setup: StoreAndCloud) -> Lease:
    """Return the lease of a job whose earlier attempt may have taken effect."""
    await make_job(setup.database, maybe_applied=True, attempt=1, attempts_charged=1)
    return await claim_one(setup.database)


async def test_an_exact_name_that_was_put_back_is_not_sent(setup: StoreAndCloud) -> None:
    """A repeated check does not send a job that the first check has queued again.

    The bucket can be read again when the check is repeated.
    """
    lease = await exact(setup)
    assert not await cleared_again(setup, lease, "HeadObject", "GetBucket")
    assert (await read_job(setup.database, lease.job_id)).state == JobState.QUEUED
    assert (await read_last_attempt(setup.database, lease.job_id)).code == NOT_SENT


async def test_a_maybe_applied_job_that_was_put_back_is_not_sent(setup: StoreAndCloud) -> None:
    """A repeated check does not send a job that the first check has made unknown.

    The bucket can be read again when the check is repeated.
    """
    lease = await maybe_applied(setup)
    assert not await cleared_again(setup, lease, "HeadObject", "GetBucket")
    assert (await read_job(setup.database, lease.job_id)).state == JobState.UNKNOWN


async def test_an_export_that_was_found_is_not_sent_again(setup: StoreAndCloud) -> None:
    """The job was accepted because its export was found in the bucket."""
    lease = await maybe_applied(setup)
    await setup.export_without_answer(lease.job_id)
    assert not await cleared_again(setup, lease)
    assert (await read_job(setup.database, lease.job_id)).state == JobState.ACCEPTED


@pytest.mark.parametrize("mode", [VerifyMode.AUTO, VerifyMode.OFF])
async def test_an_exact_name_is_sent_only_under_its_lease(
    setup: StoreAndCloud, mode: VerifyMode
) -> None:
    """A suspended process neither sends another owner's job nor saves its baseline."""
    lease = await exact(setup)
    await update_job(setup.database, lease.job_id, owner="another", attempt=2)
    cleared = await check_before_send(
        setup.database, setup.cos, make_bucket_access(mode), lease, SETTINGS, ignore_refusal
    )
    assert not cleared
    assert (await read_rows(setup.database, objects, lease.job_id))[0].baseline_etag is None


async def test_a_baseline_is_saved_once(setup: StoreAndCloud) -> None:
    """The baseline of the commit that seemed to fail is the one that is compared."""
    lease = await exact(setup)
    clear = partial(
        check_before_send,
        setup.database,
        setup.cos,
        make_bucket_access(),
        lease,
        SETTINGS,
        ignore_refusal,
    )
    with uncertain_commit(setup.database, "INSERT INTO objects"), pytest.raises(OperationalError):
        await clear()
    assert await clear()
    assert [
        row.baseline_etag for row in await read_rows(setup.database, objects, lease.job_id)
    ] == [""]
