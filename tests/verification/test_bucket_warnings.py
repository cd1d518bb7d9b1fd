"""Warnings about buckets: exports that are overdue, and look-ups that fail."""

import pytest

from orchestrator.errors import CloudRefusal
from orchestrator.job_states import JobState
from orchestrator.run_warnings import RunWarnings
from orchestrator.store import Database
from orchestrator.verification.bucket_warnings import BucketWarnings
from tests.job_factory import (
    BUCKET,
    PROFILE,
    REGION,
    advance_time,
    make_job,
    make_traced_job,
    make_verified_job,
    now,
    update_job,
)
from tests.store_and_cloud import make_bucket_access
from tests.test_run_warnings import messages

pytestmark = pytest.mark.anyio


class Checks:
    """Checks of one run, and what a person reads."""

    def __init__(self, database: Database, *, is_read: bool = True) -> None:
        self.said: list[str] = []
        warnings = RunWarnings(database, PROFILE, self.said.append)
        self.buckets = make_bucket_access()
        if is_read:
            self.buckets.record_success(f"{REGION}/{BUCKET}")
        self._checked = BucketWarnings(database, PROFILE, self.buckets, warnings)

    async def check(self) -> list[str]:
        """Check once; return all that was said so far."""
        await self._checked.check()
        return self.said


async def accept_job(database: Database, *, task_id: str | None = "99", **columns: object) -> int:
    """Make an accepted job."""
    return await make_job(
        database, JobState.ACCEPTED, accepted_at=await now(database), task_id=task_id, **columns
    )


async def test_exports_without_a_trace_are_warned_of_after_two_minutes(database: Database) -> None:
    """The warning names the bucket, the oldest job with its task, and what to do."""
    checks, job_id = Checks(database), await accept_job(database)
    await advance_time(database, seconds=100)
    await accept_job(database)
    assert await checks.check() == []
    await advance_time(database, seconds=21)
    (sentence,) = await checks.check()
    assert sentence.startswith(f"Warning: {REGION}/{BUCKET}: none of 2 accepted exports has left")
    assert f"job {job_id} (img-{job_id:08}, task 99)" in sentence
    assert "check in the console" in sentence


async def test_the_warning_ends_with_the_first_trace(database: Database) -> None:
    """Where one export was seen, the others begin as late as they like."""
    checks, job_id = Checks(database), await accept_job(database)
    await advance_time(database, minutes=3)
    (sentence,) = await checks.check()
    assert "none of 1 accepted exports has left an upload" in sentence
    assert len(await messages(database)) == 1
    await update_job(database, job_id, first_trace_at=await now(database))
    assert len(await checks.check()) == 1
    assert await messages(database) == []


@pytest.mark.parametrize("columns", [{"exact_names": True}, {"task_id": None}])
async def test_jobs_that_leave_no_dated_trace_are_not_warned_of(
    database: Database, columns: dict[str, object]
) -> None:
    """Exact names and jobs without a TaskId cause no warning of a missing trace.

    An exact name has no tag, and a job without a TaskId was found in the bucket by its trace.
    """
    await accept_job(database, **columns)  # type: ignore[arg-type]
    await advance_time(database, minutes=30)
    assert await Checks(database).check() == []


@pytest.mark.parametrize(("took", "minutes"), [(600, 30), (1, 2)])
async def test_an_export_is_overdue_after_three_times_the_longest(
    database: Database, took: int, minutes: int
) -> None:
    """The limit is 3 times the longest finished export of the region, at least 2 min."""
    await make_traced_job(database, took=1)
    await make_verified_job(database, took=took)
    checks = Checks(database)
    await accept_job(database)
    await advance_time(database, minutes=minutes - 1)
    assert await checks.check() == []
    await advance_time(database, minutes=2)
    (sentence,) = await checks.check()
    assert f"an export is not finished, {minutes + 1} min after" in sentence


async def test_the_first_exports_are_overdue_after_an_hour(database: Database) -> None:
    """Before any export has finished, it is not known how long they take."""
    job_id = await accept_job(database)
    await update_job(database, job_id, first_trace_at=await now(database))
    checks = Checks(database)
    await advance_time(database, minutes=59)
    assert await checks.check() == []
    await advance_time(database, minutes=2)
    (sentence,) = await checks.check()
    assert "none has finished yet" in sentence


async def test_buckets_that_are_not_read_are_not_warned_of(database: Database) -> None:
    """A run that has not read a bucket does not warn of exports to it.

    It is a run of another batch, or it may not read the bucket.
    """
    await accept_job(database)
    await advance_time(database, minutes=30)
    assert await Checks(database, is_read=False).check() == []


async def test_a_refusal_that_may_pass_ends_no_warning(database: Database) -> None:
    """A warning stays until a refused bucket counts as unreadable.

    Until then only the warning shows what the run waits for.
    """
    checks = Checks(database)
    await accept_job(database)
    await advance_time(database, minutes=30)
    await checks.check()
    refusal = CloudRefusal("AccessDenied", "Denied.", http_status=403)
    assert not checks.buckets.record_refusal(f"{REGION}/{BUCKET}", refusal)
    await checks.check()
    assert len(await messages(database)) == 1


async def test_problems_of_look_ups_are_kept_for_status(database: Database) -> None:
    """The user has read them already; they are stored until the bucket answers again."""
    checks = Checks(database)
    for _ in range(10):
        checks.buckets.record_failure(f"{REGION}/{BUCKET}", "Http200: no listing")
    assert await checks.check() == []
    (message,) = await messages(database)
    assert "gives no answer (Http200: no listing)" in message
    checks.buckets.record_success(f"{REGION}/{BUCKET}")
    assert await checks.check() == []
    assert await messages(database) == []
