"""Jobs as JSON that the database writes: the same as of each job by itself."""

import json
from datetime import timedelta

import pytest

from orchestrator.cli.formatting import JOB_FIELDS, job_fields, to_json
from orchestrator.job_states import JobState
from orchestrator.model import JobFilter
from orchestrator.reporting.history import history
from orchestrator.reporting.lines import lines
from orchestrator.store import Database
from tests.job_factory import (
    claim_one,
    make_acceptance,
    make_job,
    make_jobs,
    make_request,
    now,
    record_outcome,
    update_job,
)

pytestmark = pytest.mark.anyio

AWKWARD = 'it\'s "quoted", 100 % ünï\\code\n\t\x07 {}'


async def written(database: Database) -> list[str]:
    return [
        line
        async for text in lines(database, JobFilter(), JOB_FIELDS)
        for line in text.splitlines()
    ]


async def test_a_line_says_what_its_job_says(database: Database) -> None:
    """Large numbers, times, paths, texts of any kind and what is not there, in the same order."""
    await make_jobs(
        database, [make_request(image_ids=("img-bbbbbbbb", "img-aaaaaaaa"), prefix="web")]
    )
    await record_outcome(
        database, await claim_one(database), make_acceptance(2**64 - 1, "/b.raw", "/a.raw")
    )
    failed = await make_job(database, JobState.FAILED, code="Some.Code", message=AWKWARD)
    at = await now(database) + timedelta(microseconds=999_999)
    await update_job(
        database, failed, remedy="", finished_at=at, created_at=at - timedelta(days=99)
    )
    await make_job(database)
    shown = [to_json(job_fields(job)) async for job in history(database, JobFilter())]
    told = await written(database)
    assert [json.loads(line) for line in told] == [json.loads(line) for line in shown]
    assert [list(json.loads(line)) for line in told] == 3 * [list(JOB_FIELDS)]
