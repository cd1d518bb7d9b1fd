"""What waits by a clock that was set meanwhile."""

from datetime import timedelta

import pytest

from orchestrator.job_queue.clock_jump_recovery import reset_waits_after_clock_jump
from orchestrator.job_states import JobState
from orchestrator.store import Database
from tests.job_factory import make_job, make_jobs, make_request, now, read_job, update_job

pytestmark = pytest.mark.anyio

AHEAD = timedelta(hours=3)


async def begun_anew(database: Database) -> list[str]:
    """What the user hears when all waits begin anew."""
    said: list[str] = []
    await reset_waits_after_clock_jump(database, said.append)
    return said


async def test_a_wait_does_not_hold_a_job_up_for_hours(database: Database) -> None:
    """A job that was to be tried again in a while, by the old clock, is due."""
    job_id = await make_job(database, attempt=1, due_at=await now(database) + AHEAD)
    assert await begun_anew(database) == []
    assert (await read_job(database, job_id)).due_at <= await now(database)


async def test_what_a_user_wants_later_is_sent_later(database: Database) -> None:
    """A time of day that a person named is no wait."""
    wanted = await now(database) + AHEAD
    (job_id,) = await make_jobs(database, [make_request(not_before=wanted)])
    await begun_anew(database)
    assert (await read_job(database, job_id)).due_at == wanted


async def test_an_export_under_way_gets_its_whole_time(database: Database) -> None:
    """Its deadline is reckoned from now: nothing is given up because a clock was set."""
    long_ago = await now(database) - timedelta(days=400)
    job_id = await make_job(
        database, JobState.ACCEPTED, accepted_at=long_ago, deadline_at=long_ago + AHEAD
    )
    await begun_anew(database)
    kept = await read_job(database, job_id)
    assert await now(database) - kept.accepted_at < timedelta(minutes=1)
    assert kept.deadline_at is None


async def test_a_time_of_grace_begins_anew(database: Database) -> None:
    """Clean looks by another clock prove nothing; nobody holds an unsent request any more."""
    job_id = await make_job(database, JobState.UNKNOWN)
    moment = await now(database)
    await update_job(database, job_id, absent_since=moment - AHEAD, no_resend_before=moment + AHEAD)
    await begun_anew(database)
    kept = await read_job(database, job_id)
    assert (kept.absent_since, kept.no_resend_before) == (None, None)
