"""Retrying failed, cancelled and partly delivered jobs."""

from datetime import timedelta

import pytest

from orchestrator.errors import UsageError
from orchestrator.job_states import JobState
from orchestrator.model import NOT_DELIVERED, ObjectFacts
from orchestrator.operations import RetryResult, cancel, resolve, retry
from orchestrator.store import Database
from orchestrator.store.tables import events, jobs, objects
from orchestrator.verification.evidence import compare_with_keys
from orchestrator.verification.tracked_jobs import load_tracked_job
from tests.job_factory import (
    DEADLINE,
    TESTER,
    add_expected_objects,
    claim_one,
    make_job,
    make_jobs,
    make_request,
    now,
    read_event_kinds,
    read_job,
    read_last_attempt,
    read_rows,
    update_job,
)

pytestmark = pytest.mark.anyio

THREE = ("img-00000001", "img-00000002", "img-00000003")


async def retried(database: Database, *, dry_run: bool = False) -> RetryResult:
    """Retry every job of the database."""
    return await retry(database, jobs.c.id > 0, actor="operator", dry_run=dry_run)


async def test_a_cancelled_job_can_be_claimed_after_a_retry(database: Database) -> None:
    """A retried job is queued as it was before."""
    (job_id,) = await make_jobs(database)
    await cancel(database, jobs.c.id > 0, actor="operator")
    assert await retried(database) == RetryResult(queued=1)
    assert (await claim_one(database)).job_id == job_id


async def test_a_retried_job_waits_for_its_not_before(database: Database) -> None:
    """A retry does not send a job earlier than its request asked for."""
    later = await now(database) + timedelta(hours=1)
    job_id = await make_job(database, JobState.CANCELLED, not_before=later)
    assert await retried(database) == RetryResult(queued=1)
    assert (await read_job(database, job_id)).due_at == later


async def test_a_job_without_an_export_goes_back_to_the_queue(database: Database) -> None:
    """A job that cannot have started an export is queued with all its attempts."""
    failed = await make_job(
        database, JobState.FAILED, attempts_charged=5, code="InvalidImageId.NotFound"
    )
    cancelled = await make_job(database, JobState.CANCELLED)
    assert await retried(database) == RetryResult(queued=2)
    for job_id in (failed, cancelled):
        kept = await read_job(database, job_id)
        assert (kept.state, kept.attempts_charged, kept.code) == ("queued", 0, None)
        assert kept.finished_at is None
    event = (await read_rows(database, events, failed))[-1]
    assert (event.kind, event.details) == ("retried", {"after": "InvalidImageId.NotFound"})


async def test_a_job_that_may_have_an_export_becomes_unknown(database: Database) -> None:
    """Such a job becomes unknown, and earlier empty look-ups do not count."""
    since = await now(database) - timedelta(days=1)
    job_id = await make_job(
        database, JobState.FAILED, maybe_applied=True, absent_since=since, accepted_at=since
    )
    assert await retried(database) == RetryResult(unknown=1)
    kept = await read_job(database, job_id)
    assert (kept.state, kept.absent_since, kept.accepted_at) == ("unknown", None, None)
    assert kept.maybe_applied


async def test_jobs_that_have_not_failed_are_skipped(database: Database) -> None:
    """Unfinished and verified jobs are counted as skipped and stay unchanged."""
    states = [JobState.QUEUED, JobState.UNKNOWN, JobState.ACCEPTED, JobState.VERIFIED]
    ids = [await make_job(database, state) for state in states]
    assert await retried(database) == RetryResult(skipped=4)
    assert [(await read_job(database, job_id)).state for job_id in ids] == states


async def partly_delivered(database: Database) -> int:
    """Insert a job of three images of which only the first arrived; return its id."""
    (job_id,) = await make_jobs(database, [make_request(image_ids=THREE, prefix="web")])
    await claim_one(database)
    await update_job(
        database,
        job_id,
        state=JobState.FAILED,
        owner=None,
        expires_at=None,
        code=NOT_DELIVERED,
        maybe_applied=True,
        object_prefix="web-tag",
    )
    for image in THREE:
        size = 100 if image == THREE[0] else None
        await add_expected_objects(database, job_id, f"web-tag_{image}_system_snap.raw", size=size)
    return job_id


async def test_missing_images_of_a_partial_delivery_become_a_new_job(database: Database) -> None:
    """The new job keeps the key prefix, profile and batch of the old one."""
    job_id = await partly_delivered(database)
    assert await retried(database) == RetryResult(split=1)
    old, part = await read_job(database, job_id), await read_job(database, job_id + 1)
    assert (part.state, part.image_ids, part.maybe_applied) == ("unknown", list(THREE[1:]), True)
    shared = ("object_prefix", "prefix", "profile", "batch", "bucket", "region", "format")
    assert [getattr(part, name) for name in shared] == [getattr(old, name) for name in shared]
    expected = [row.key for row in await read_rows(database, objects, part.id)]
    assert expected == [f"web-tag_{image}_system_snap.raw" for image in THREE[1:]]
    assert old.state == JobState.FAILED
    assert f"`orchestrator show {part.id}`" in old.remedy
    assert part.remedy is None
    with pytest.raises(UsageError, match="failed, not unknown") as refused:
        await resolve(
            database,
            jobs.c.id == job_id,
            "absent",
            why="seen",
            export_deadline=DEADLINE,
            actor=TESTER,
        )
    assert refused.value.remedy == old.remedy
    event = (await read_rows(database, events, job_id))[-1]
    assert event.details == {"missing": list(THREE[1:]), "job": part.id}
    assert await retried(database) == RetryResult(skipped=2)


async def test_a_new_job_of_missing_images_is_not_complete_without_an_unknown_name(
    database: Database,
) -> None:
    """The new job is not complete while the object name of one image is unknown.

    The object of the second image does not show that the third was exported.
    """
    job_id = await partly_delivered(database)
    third = f"web-tag_{THREE[2]}_system_snap.raw"
    async with database.write() as connection:
        await connection.execute(objects.delete().where(objects.c.key == third))
        named = {"expected": False, "cos_path": "/" + objects.c.key}
        await connection.execute(objects.update().values(named))
    assert await retried(database) == RetryResult(split=1)
    async with database.read() as connection:
        part = await load_tracked_job(connection, job_id + 1)
    assert list(part.image_ids) == list(THREE[1:])
    second = ObjectFacts(f"web-tag_{THREE[1]}_system_snap.raw", size=2**30, etag="e")
    assert not compare_with_keys(part, {second.key: second}).is_certain
    assert [key.key for key in part.known] == [second.key]


async def test_a_job_of_which_nothing_arrived_is_retried_as_a_whole(database: Database) -> None:
    """If no image arrived, the job itself becomes unknown and no new job is made."""
    job_id = await partly_delivered(database)
    async with database.write() as connection:
        await connection.execute(objects.update().values(size=None))
    assert await retried(database) == RetryResult(unknown=1)
    assert (await read_job(database, job_id)).state == JobState.UNKNOWN


@pytest.mark.parametrize("maybe_applied", [False, True])
async def test_a_dry_run_changes_nothing(database: Database, maybe_applied: bool) -> None:
    """A dry run counts the jobs and leaves them and their events unchanged."""
    job_id = await make_job(database, JobState.FAILED, maybe_applied=maybe_applied)
    partly = await partly_delivered(database)
    result = await retried(database, dry_run=True)
    assert (result.queued, result.unknown) == (not maybe_applied, maybe_applied)
    assert result.split == 1
    for each in (job_id, partly):
        assert (await read_job(database, each)).state == JobState.FAILED
        assert "retried" not in await read_event_kinds(database, each)
    assert (await read_last_attempt(database, partly)).answered_at is None
