"""Outcomes are recorded completely, once, and only by the job's owner."""

from datetime import timedelta

import anyio
import pytest

from orchestrator.job_states import JobState
from orchestrator.learned_vendor_facts import NO, VendorFact, facts_about
from orchestrator.store import Database
from orchestrator.store.tables import events, job_images, objects
from orchestrator.worker.outcome_policy import decide
from orchestrator.worker.outcome_recorder import AttemptResult, record, record_not_sent
from tests.job_factory import (
    BUCKET,
    CAP_REACHED,
    DEADLINE,
    IMAGE_BUSY,
    PROFILE,
    REGION,
    advance_time,
    claim_one,
    export_rate_limiter,
    make_acceptance,
    make_jobs,
    make_refusal,
    make_request,
    now,
    read_event_kinds,
    read_job,
    read_last_attempt,
    read_rows,
    record_outcome,
    update_job,
)

pytestmark = pytest.mark.anyio

TASK = 2**64 - 1
LOST = "InternalError"
GONE = "InvalidImageId.NotFound"


async def test_an_acceptance_is_stored_completely(database: Database) -> None:
    """An acceptance stores TaskId, RequestId and times, and clears the earlier error."""
    (job_id,) = await make_jobs(database)
    await update_job(
        database, job_id, code="Old", message="old", remedy="old", attempts_charged=1, deferrals=4
    )
    lease = await claim_one(database)
    await record_outcome(database, lease, make_acceptance(TASK))
    kept = await read_job(database, job_id)
    assert (kept.state, kept.reason) == (JobState.ACCEPTED, "exporting")
    assert (kept.task_id, kept.request_id) == (str(TASK), "request-1")
    assert (kept.code, kept.message, kept.remedy) == (None, None, None)
    assert (kept.attempts_charged, kept.deferrals, kept.maybe_applied) == (2, 0, False)
    assert kept.deadline_at == kept.accepted_at + DEADLINE
    assert kept.accepted_at >= lease.claimed_at
    event = (await read_rows(database, events, job_id))[-1]
    assert (event.kind, event.attempt, event.actor) == ("accepted", 1, lease.owner)
    assert event.details == {"task_id": str(TASK), "request_id": "request-1"}


async def test_every_cos_path_is_a_row(database: Database) -> None:
    """Each is stored as the vendor wrote it, under its key, beside the expected ones."""
    (job_id,) = await make_jobs(database)
    async with database.write() as connection:
        row = {"job_id": job_id, "key": "a_system.raw", "expected": True, "disk_gib": 50}
        await connection.execute(objects.insert().values(row))
    paths = ("/a_system.raw", "//b_data.raw", "c_data.raw")
    await record_outcome(database, await claim_one(database), make_acceptance(7, *paths))
    found = await read_rows(database, objects, job_id)
    assert {(row.key, row.cos_path, row.expected, row.disk_gib) for row in found} == {
        ("a_system.raw", "/a_system.raw", True, 50),
        ("/b_data.raw", "//b_data.raw", False, None),
        ("c_data.raw", "c_data.raw", False, None),
    }


async def test_each_attempt_has_its_own_answer(database: Database) -> None:
    """The answer of a later attempt does not overwrite that of an earlier one."""
    (job_id,) = await make_jobs(database)
    await record_outcome(database, await claim_one(database), make_refusal(IMAGE_BUSY, "occupied"))
    first = await read_last_attempt(database, job_id)
    await advance_time(database, minutes=1)
    await record_outcome(database, await claim_one(database), make_acceptance(TASK))
    second = await read_last_attempt(database, job_id)
    assert (first.number, first.code, first.message) == (1, IMAGE_BUSY, "occupied")
    assert (first.reaction, first.effect, first.http_status) == ("busy", "no", 200)
    assert (second.number, second.task_id, second.reaction) == (2, str(TASK), "accept")
    assert second.answered_at is not None


async def test_a_failure_has_code_and_remedy(database: Database) -> None:
    """Code, message, RequestId and remedy are stored with the failed job."""
    (job_id,) = await make_jobs(database)
    outcome = make_refusal(GONE, "there is no such image")
    await record_outcome(database, await claim_one(database), outcome)
    kept = await read_job(database, job_id)
    assert (kept.state, kept.code, kept.message) == ("failed", GONE, "there is no such image")
    assert (kept.remedy, kept.request_id) == (outcome.code.remedy, "request-1")
    assert kept.finished_at is not None
    event = (await read_rows(database, events, job_id))[-1]
    assert event.kind == "failed"
    assert event.details["code"] == GONE


async def test_a_deferral_charges_no_attempt(database: Database) -> None:
    """A busy image is not charged as an attempt, and its deferrals are counted."""
    (job_id,) = await make_jobs(database)
    for times in (1, 2, 3):
        before = await now(database)
        await record_outcome(database, await claim_one(database), make_refusal(IMAGE_BUSY))
        kept = await read_job(database, job_id)
        assert (kept.state, kept.reason) == (JobState.QUEUED, "image busy")
        assert (kept.attempt, kept.attempts_charged, kept.deferrals) == (times, 0, times)
        assert kept.due_at > before
        await advance_time(database, minutes=2)
    assert await read_event_kinds(database, job_id) == ["enqueued"] + 3 * ["claimed", "postponed"]


async def test_a_lost_answer_is_looked_up_at_once(database: Database) -> None:
    """The job is unknown and due, without `absent_since` or `no_resend_before`."""
    (job_id,) = await make_jobs(database)
    await record_outcome(database, await claim_one(database), make_refusal(LOST))
    kept = await read_job(database, job_id)
    assert (kept.state, kept.maybe_applied, kept.attempts_charged) == (JobState.UNKNOWN, True, 1)
    assert (kept.absent_since, kept.no_resend_before, kept.owner) == (None, None, None)
    assert kept.due_at <= await now(database)


@pytest.mark.parametrize("code", [CAP_REACHED, "RequestLimitExceeded", IMAGE_BUSY])
async def test_a_refusal_does_not_clear_maybe_applied(database: Database, code: str) -> None:
    """A refused second attempt does not show whether the first one began an export."""
    (job_id,) = await make_jobs(database)
    await update_job(database, job_id, maybe_applied=True)
    await record_outcome(database, await claim_one(database), make_refusal(code))
    assert (await read_job(database, job_id)).maybe_applied


@pytest.mark.parametrize("state", ["NORMAL", None])
@pytest.mark.parametrize("code", ["AuthFailure.SecretIdNotFound", IMAGE_BUSY])
async def test_what_a_halt_puts_back_is_described_again(
    database: Database, code: str, state: str | None
) -> None:
    """A job that a halt puts back is described again if its image has no state.

    A wrong key is refused to DescribeImages, too; another refusal says nothing about it.
    """
    (job_id,) = await make_jobs(database)
    async with database.write() as connection:
        await connection.execute(job_images.update().values(state=state))
    await record_outcome(database, await claim_one(database), make_refusal(code))
    kept = await read_job(database, job_id)
    is_kept = state is not None or code == IMAGE_BUSY
    assert (kept.state, kept.described_at is not None) == (JobState.QUEUED, is_kept)


async def test_a_cancelled_worker_still_records(database: Database) -> None:
    """An answer that has arrived is recorded even if its task is cancelled."""
    (job_id,) = await make_jobs(database)
    lease, outcome = await claim_one(database), make_acceptance(TASK)
    decision = decide(lease, outcome, jitter=0.0)
    with anyio.CancelScope() as stopped:
        stopped.cancel()
        answer = AttemptResult(lease, outcome, decision, export_rate_limiter(database))
        await record(database, [answer], timedelta(hours=1))
    assert (await read_job(database, job_id)).task_id == str(TASK)


async def test_an_unsent_request_is_marked(database: Database) -> None:
    """The attempt is marked as not sent and without an effect."""
    (job_id,) = await make_jobs(database, [make_request(1)])
    lease = await claim_one(database)
    async with database.write() as connection:
        await record_not_sent(connection, lease, await database.now(connection))
    attempt = await read_last_attempt(database, job_id)
    assert (attempt.code, attempt.effect) == ("Orchestrator.NotSent", "no")
    assert attempt.answered_at is not None


@pytest.mark.parametrize(
    ("path", "is_odd"),
    [
        ("/{prefix}_img-00000001_system_snap-1.raw", False),
        ("/{prefix}-elsewhere.raw", False),
        ("/img-00000001_system_snap-1.raw", False),
        ("/img-pq5pau1w_system_snap-fiux4bof.raw", True),
        ("/othertag_img-00000002_system_snap-2.raw", True),
    ],
)
async def test_paths_of_another_job_are_stored_with_a_warning(
    database: Database, path: str, is_odd: bool
) -> None:
    """The job is accepted with its TaskId, and has a warning if no path is its own."""
    (job_id,) = await make_jobs(database)
    lease = await claim_one(database)
    named = path.format(prefix=lease.order.name_prefix)
    await record_outcome(database, lease, make_acceptance(TASK, named))
    kept = await read_job(database, job_id)
    assert (kept.state, kept.task_id) == (JobState.ACCEPTED, str(TASK))
    assert bool(kept.warnings) is is_odd
    assert not is_odd or named in kept.warnings[0]
    (found,) = await read_rows(database, objects, job_id)
    assert found.cos_path == named


@pytest.mark.parametrize("has_tag", [True, False])
async def test_an_answer_without_the_tag_shows_that_the_prefix_was_dropped(
    database: Database, has_tag: bool
) -> None:
    """From then on an empty listing under a tag proves nothing in this bucket."""
    await make_jobs(database)
    lease = await claim_one(database)
    tag = f"{lease.order.name_prefix}_" if has_tag else ""
    path = f"/{tag}{lease.order.image_ids[0]}_system_snap-1.raw"
    await record_outcome(database, lease, make_acceptance(TASK, path))
    async with database.read() as connection:
        facts = await facts_about(connection, PROFILE, f"{REGION}/{BUCKET}")
    assert facts == ({} if has_tag else {VendorFact.PREFIX_HONOURED: NO})
