"""Whether anything can still move, which is what keeps a run alive."""

from datetime import timedelta

import pytest
import sqlalchemy as sa

from orchestrator.job_queue.remaining_work import has_remaining_work
from orchestrator.job_states import JobState
from orchestrator.store import Database
from orchestrator.store.tables import jobs
from tests.job_factory import make_job, make_jobs, now, update_job

pytestmark = pytest.mark.anyio


async def moves(
    database: Database,
    *,
    sendable: bool = True,
    watched: bool = True,
    within: float | None = None,
) -> bool:
    return await has_remaining_work(
        database,
        jobs.c.batch == "night",
        sendable=sa.true() if sendable else sa.false(),
        watched=sa.true() if watched else sa.false(),
        within=within,
    )


@pytest.mark.parametrize(
    ("state", "plain", "stopped", "blind"),
    [
        (JobState.QUEUED, True, False, True),
        (JobState.SENDING, True, True, True),
        (JobState.UNKNOWN, True, True, False),
        (JobState.ACCEPTED, True, True, False),
        (JobState.VERIFIED, False, False, False),
        (JobState.FAILED, False, False, False),
        (JobState.CANCELLED, False, False, False),
    ],
)
async def test_what_can_still_move(
    database: Database, state: JobState, plain: bool, stopped: bool, blind: bool
) -> None:
    """What waits needs an open way, what runs needs an open eye, and what has ended is done."""
    await make_job(database, state)
    assert await moves(database) is plain
    assert await moves(database, sendable=False) is stopped
    assert await moves(database, watched=False) is blind


async def test_another_batch_moves_nobody(database: Database) -> None:
    """Jobs that a run is not about do not keep it alive."""
    await make_jobs(database, batch="morning")
    assert not await moves(database)


async def test_what_is_due_beyond_the_limit_is_out_of_reach(database: Database) -> None:
    """A run with a time limit does not wait for what comes later; one without waits for all."""
    job_id = await make_job(database)
    await update_job(database, job_id, due_at=await now(database) + timedelta(hours=1))
    assert await moves(database)
    assert await moves(database, within=3700)
    assert not await moves(database, within=3500)
