"""What ``show`` tells an operator to look for."""

import pytest

from orchestrator.cli.show import _lines
from orchestrator.job_states import JobState
from orchestrator.reporting.history import job_details
from orchestrator.store import Database
from tests.job_factory import make_job, read_job, update_job

pytestmark = pytest.mark.anyio

IMAGE = "img-00000001"


async def what_to_check(database: Database, job_id: int) -> str:
    """Return the first sentence about what to look for in the bucket."""
    details = await job_details(database, str(job_id))
    assert details is not None
    (line,) = [line for line in _lines(details) if line.startswith("  check ")]
    return line.partition("whose key ")[2]


async def test_everything_under_the_tag_of_a_job_is_its_own(sqlite: Database) -> None:
    """No other job has the tag."""
    job_id = await make_job(sqlite, JobState.UNKNOWN)
    prefix = (await read_job(sqlite, job_id)).object_prefix
    expected = f"starts with {prefix!r}: they belong to this job"
    assert await what_to_check(sqlite, job_id) == expected


async def test_a_split_off_job_shares_its_prefix(sqlite: Database) -> None:
    """Objects of the images that were delivered are not its own."""
    job_id = await make_job(sqlite, JobState.UNKNOWN)
    job = await read_job(sqlite, job_id)
    await update_job(sqlite, job_id, tag=f"{job.tag}-{job_id}")
    expected = f"starts with {job.object_prefix!r} and contains {IMAGE}: they belong to this job"
    assert await what_to_check(sqlite, job_id) == expected


async def test_an_exact_name_says_nothing_about_older_objects(sqlite: Database) -> None:
    """The prefix, which may be empty, is that of many jobs, and of older exports."""
    job_id = await make_job(sqlite, JobState.UNKNOWN, exact_names=True, object_prefix="")
    expected = (
        f"starts with '' and contains {IMAGE}: they belong to this job if they are younger than "
        "the first request for it"
    )
    assert await what_to_check(sqlite, job_id) == expected
