"""Answers that arrive after the job was recovered: no TaskId is lost."""

import pytest

from orchestrator.cloud.error_classification import code_for_exception, code_for_reply
from orchestrator.job_queue.orphan_recovery import recover_orphans
from orchestrator.job_states import JobState
from orchestrator.model import Lease, Outcome, Reply
from orchestrator.operations import CancelResult, cancel
from orchestrator.store import Database
from orchestrator.store.tables import attempts, events, jobs, objects
from orchestrator.store.transitions import Transition, apply_transition
from tests.job_factory import (
    CAP_REACHED,
    LEASE_DURATION,
    advance_time,
    claim_one,
    make_acceptance,
    make_jobs,
    make_refusal,
    now,
    read_event_kinds,
    read_job,
    read_last_attempt,
    read_rows,
    record_outcome,
    update_job,
)

pytestmark = pytest.mark.anyio

TASK = 2**63 + 5


async def taken_over(database: Database) -> Lease:
    """Return the lease of a suspended process whose job another one has recovered."""
    await make_jobs(database)
    lease = await claim_one(database, owner="sleeper")
    await advance_time(database, seconds=LEASE_DURATION.total_seconds() + 1)
    assert await recover_orphans(database, "rescuer") == 1
    return lease


async def put_back(database: Database, lease: Lease) -> None:
    """Queue the job again, as after empty look-ups."""
    async with database.write() as connection:
        absent = Transition(
            lease.job_id,
            JobState.UNKNOWN,
            JobState.QUEUED,
            kind="absent",
            reason="not in the bucket",
            actor="rescuer",
            attempt=lease.attempt,
        )
        assert await apply_transition(connection, absent, at=await database.now(connection))


async def test_a_late_acceptance_resolves_an_unknown_job(database: Database) -> None:
    """The late TaskId accepts the job, and one attempt is charged."""
    lease = await taken_over(database)
    await record_outcome(database, lease, make_acceptance(TASK, "/a.raw", "/b.raw"))
    kept = await read_job(database, lease.job_id)
    assert (kept.state, kept.task_id, kept.request_id) == ("accepted", str(TASK), "request-1")
    assert (kept.attempts_charged, kept.maybe_applied, kept.code) == (1, False, None)
    assert kept.deadline_at > kept.accepted_at
    assert await read_event_kinds(database, lease.job_id) == [
        "enqueued",
        "claimed",
        "recovered",
        "late answer",
    ]
    assert [row.key for row in await read_rows(database, objects, lease.job_id)] == [
        "a.raw",
        "b.raw",
    ]


async def test_a_late_acceptance_prevents_a_resend(database: Database) -> None:
    """A job that waits to be sent again is accepted, and so leaves the queue."""
    lease = await taken_over(database)
    await put_back(database, lease)
    await record_outcome(database, lease, make_acceptance(TASK))
    kept = await read_job(database, lease.job_id)
    assert (kept.state, kept.task_id) == (JobState.ACCEPTED, str(TASK))


async def test_a_late_acceptance_accepts_a_failed_job(database: Database) -> None:
    """A job that failed because its answers were lost is accepted by a late TaskId."""
    lease = await taken_over(database)
    await update_job(database, lease.job_id, state=JobState.FAILED, code="Client.AnswerLost")
    await record_outcome(database, lease, make_acceptance(TASK))
    kept = await read_job(database, lease.job_id)
    assert (kept.state, kept.task_id, kept.code) == ("accepted", str(TASK), None)
    assert kept.finished_at is None


async def test_a_late_acceptance_accepts_a_cancelled_job(
    database: Database,
) -> None:
    """A queued job that an operator cancelled is accepted, because its export runs."""
    lease = await taken_over(database)
    await put_back(database, lease)
    given_up = await cancel(database, jobs.c.id == lease.job_id, actor="person")
    assert given_up == CancelResult(changed=1, maybe_applied=1)
    await record_outcome(database, lease, make_acceptance(TASK))
    kept = await read_job(database, lease.job_id)
    assert (kept.state, kept.task_id, kept.finished_at) == ("accepted", str(TASK), None)


@pytest.mark.parametrize("state", [JobState.ACCEPTED, JobState.VERIFIED, JobState.FAILED])
async def test_a_late_acceptance_adds_the_task_id_to_a_reconciled_job(
    database: Database, state: JobState
) -> None:
    """A job whose export was found in the bucket gets its TaskId and keeps its state."""
    lease = await taken_over(database)
    found_at = await now(database)
    await update_job(database, lease.job_id, state=state, accepted_at=found_at)
    await record_outcome(database, lease, make_acceptance(TASK))
    kept = await read_job(database, lease.job_id)
    assert (kept.state, kept.task_id, kept.request_id) == (state, str(TASK), "request-1")
    event = (await read_rows(database, events, lease.job_id))[-1]
    assert (event.kind, event.from_state, event.to_state) == ("late answer", None, None)
    assert event.details == {"task_id": str(TASK), "request_id": "request-1"}


async def test_a_task_id_is_not_overwritten(database: Database) -> None:
    """The TaskId of the job stays; the other one is stored with its attempt."""
    lease = await taken_over(database)
    await update_job(database, lease.job_id, state=JobState.ACCEPTED, task_id="1")
    await record_outcome(database, lease, make_acceptance(TASK))
    assert (await read_job(database, lease.job_id)).task_id == "1"
    assert (await read_last_attempt(database, lease.job_id)).task_id == str(TASK)


@pytest.mark.parametrize("later", [False, True], ids=["in flight", "accepted"])
async def test_an_older_attempts_task_is_a_possible_duplicate(
    database: Database, later: bool
) -> None:
    """An older attempt's TaskId is stored, but the job follows the later attempt.

    The TaskId is stored with its attempt and in an event.
    """
    lease = await taken_over(database)
    await put_back(database, lease)
    second = await claim_one(database, owner="rescuer")
    if later:
        await record_outcome(database, second, make_acceptance(9))
    before = await read_job(database, lease.job_id)
    await record_outcome(database, lease, make_acceptance(TASK))
    assert await read_job(database, lease.job_id) == before
    event = (await read_rows(database, events, lease.job_id))[-1]
    assert (event.kind, event.attempt) == ("possible duplicate", lease.attempt)
    assert event.details["task_id"] == str(TASK)
    first, *_ = await read_rows(database, attempts, lease.job_id)
    assert (first.number, first.task_id) == (lease.attempt, str(TASK))


async def test_an_older_task_id_counts_if_the_later_attempt_had_no_effect(
    database: Database,
) -> None:
    """The later attempt was refused, so only the older one began an export."""
    lease = await taken_over(database)
    await put_back(database, lease)
    await record_outcome(
        database, await claim_one(database, owner="rescuer"), make_refusal(CAP_REACHED)
    )
    await record_outcome(database, lease, make_acceptance(TASK))
    kept = await read_job(database, lease.job_id)
    assert (kept.state, kept.task_id) == (JobState.ACCEPTED, str(TASK))


LATE_FAULTS = {
    "a lost connection": Outcome(code_for_exception(ConnectionResetError()), "reset"),
    "a full vendor": make_refusal(CAP_REACHED),
    "an unknown image": make_refusal("InvalidImageId.NotFound"),
    "a task without paths": Outcome(code_for_reply(Reply(200, task_id=TASK)), task_id=TASK),
}


@pytest.mark.parametrize("outcome", LATE_FAULTS.values(), ids=LATE_FAULTS)
@pytest.mark.parametrize("waiting", [False, True], ids=["unknown", "queued"])
async def test_other_late_answers_do_not_change_the_job(
    database: Database, outcome: Outcome, waiting: bool
) -> None:
    """The outcome is stored with the attempt, and the job does not change."""
    lease = await taken_over(database)
    if waiting:
        await put_back(database, lease)
    before = await read_job(database, lease.job_id)
    await record_outcome(database, lease, outcome)
    assert await read_job(database, lease.job_id) == before
    attempt = await read_last_attempt(database, lease.job_id)
    assert attempt.code == outcome.code.name
    assert attempt.task_id == (None if outcome.task_id is None else str(TASK))
