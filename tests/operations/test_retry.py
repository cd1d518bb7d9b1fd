"""Another try for what failed, was given up, or arrived in part."""

from datetime import timedelta

import pytest

from orchestrator.job_states import JobState
from orchestrator.operations.cancel import cancel
from orchestrator.operations.retry import Retry, retry
from orchestrator.store import Database
from orchestrator.store.tables import events, jobs, objects
from orchestrator.verification.accepted_jobs import NOT_DELIVERED
from tests.job_factory import (
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


async def retried(database: Database, *, dry_run: bool = False) -> Retry:
    """Every job of the store, tried again."""
    return await retry(database, jobs.c.id > 0, actor="person", dry_run=dry_run)


async def test_a_retry_takes_up_what_was_given_up(database: Database) -> None:
    """It waits again as it did before."""
    (job_id,) = await make_jobs(database)
    await cancel(database, jobs.c.id > 0, actor="person")
    assert await retried(database) == Retry(queued=1)
    assert (await claim_one(database)).job_id == job_id


async def test_a_retry_of_what_cannot_run_goes_back_to_the_queue(database: Database) -> None:
    """Failed or cancelled without a doubt: queued anew, with all its attempts."""
    failed = await make_job(
        database, JobState.FAILED, attempts_charged=5, code="InvalidImageId.NotFound"
    )
    cancelled = await make_job(database, JobState.CANCELLED)
    assert await retried(database) == Retry(queued=2)
    for job_id in (failed, cancelled):
        kept = await read_job(database, job_id)
        assert (kept.state, kept.attempts_charged, kept.code) == ("queued", 0, None)
        assert kept.finished_at is None
    event = (await read_rows(database, events, failed))[-1]
    assert (event.kind, event.details) == ("retried", {"after": "InvalidImageId.NotFound"})


async def test_a_retry_of_what_may_run_is_looked_for_first(database: Database) -> None:
    """A doubted job becomes unknown, with no clean look to its name yet."""
    since = await now(database) - timedelta(days=1)
    job_id = await make_job(
        database, JobState.FAILED, maybe_applied=True, absent_since=since, accepted_at=since
    )
    assert await retried(database) == Retry(unknown=1)
    kept = await read_job(database, job_id)
    assert (kept.state, kept.absent_since, kept.accepted_at) == ("unknown", None, None)
    assert kept.maybe_applied


async def test_a_retry_leaves_what_has_not_ended(database: Database) -> None:
    """Living and verified jobs are counted and not touched."""
    states = [JobState.QUEUED, JobState.UNKNOWN, JobState.ACCEPTED, JobState.VERIFIED]
    ids = [await make_job(database, state) for state in states]
    assert await retried(database) == Retry(untouched=4)
    assert [(await read_job(database, job_id)).state for job_id in ids] == states


async def partly_delivered(database: Database) -> int:
    """A job of three images, of which the first arrived."""
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


async def test_a_retry_of_a_part_makes_a_job_of_what_is_missing(database: Database) -> None:
    """It looks under the names of the old one, and belongs to the same account and batch."""
    job_id = await partly_delivered(database)
    assert await retried(database) == Retry(parts=1)
    old, part = await read_job(database, job_id), await read_job(database, job_id + 1)
    assert (part.state, part.image_ids, part.maybe_applied) == ("unknown", list(THREE[1:]), True)
    shared = ("object_prefix", "prefix", "profile", "batch", "bucket", "region", "format")
    assert [getattr(part, name) for name in shared] == [getattr(old, name) for name in shared]
    expected = [row.key for row in await read_rows(database, objects, part.id)]
    assert expected == [f"web-tag_{image}_system_snap.raw" for image in THREE[1:]]
    assert old.state == JobState.FAILED
    event = (await read_rows(database, events, job_id))[-1]
    assert event.details == {"missing": list(THREE[1:]), "job": part.id}
    assert await retried(database) == Retry(untouched=2)


async def test_a_retry_of_nothing_delivered_is_a_retry_of_the_whole(database: Database) -> None:
    """Where no image arrived there is nothing to keep: the job itself is tried again."""
    job_id = await partly_delivered(database)
    async with database.write() as connection:
        await connection.execute(objects.update().values(size=None))
    assert await retried(database) == Retry(unknown=1)
    assert (await read_job(database, job_id)).state == JobState.UNKNOWN


@pytest.mark.parametrize("maybe_applied", [False, True])
async def test_a_dry_run_changes_nothing(database: Database, maybe_applied: bool) -> None:
    """It says what would become of the jobs, and leaves them and their events as they are."""
    job_id = await make_job(database, JobState.FAILED, maybe_applied=maybe_applied)
    partly = await partly_delivered(database)
    tried = await retried(database, dry_run=True)
    assert (tried.queued, tried.unknown) == (not maybe_applied, maybe_applied)
    assert tried.parts == 1
    for each in (job_id, partly):
        assert (await read_job(database, each)).state == JobState.FAILED
        assert "retried" not in await read_event_kinds(database, each)
    assert (await read_last_attempt(database, partly)).answered_at is None
