"""Resolving unknown jobs by an operator's verdict."""

from datetime import timedelta
from typing import Any

import pytest

from orchestrator.errors import UsageError
from orchestrator.job_states import JobState
from orchestrator.operations import Verdict, resolve
from orchestrator.store import Database
from orchestrator.store.tables import events, jobs
from tests.job_factory import (
    DEADLINE,
    advance_time,
    claim_one,
    make_job,
    now,
    read_event_kinds,
    read_job,
    read_rows,
)

pytestmark = pytest.mark.anyio

WHY = "looked into the bucket with the console"


async def resolved(database: Database, *job_ids: int, verdict: Verdict) -> int:
    """Resolve the jobs with these ids."""
    return await resolve(
        database,
        jobs.c.id.in_(job_ids),
        verdict,
        why=WHY,
        export_deadline=DEADLINE,
        actor="operator",
    )


async def unknown_job(database: Database, **columns: object) -> int:
    """Insert a job whose response was lost; return its id."""
    values = {
        "attempt": 1,
        "attempts_charged": 1,
        "maybe_applied": True,
        "code": "InternalError",
        **columns,
    }
    return await make_job(database, JobState.UNKNOWN, **values)


@pytest.mark.parametrize("verdict", ["Accepted", "", None])
async def test_another_verdict_is_refused(database: Database, verdict: Any) -> None:
    """A typo must not count as absent, which sends the image again."""
    job_id = await unknown_job(database)
    with pytest.raises(UsageError, match="not a verdict"):
        await resolved(database, job_id, verdict=verdict)
    assert (await read_job(database, job_id)).state == "unknown"


async def test_verdict_accepted_moves_the_job_to_accepted(database: Database) -> None:
    """The job gets a deadline, and its event names the operator and the reason."""
    job_id = await unknown_job(database)
    assert await resolved(database, job_id, verdict="accepted") == job_id
    kept = await read_job(database, job_id)
    assert (kept.state, kept.code, kept.task_id) == ("accepted", None, None)
    assert kept.deadline_at - kept.accepted_at == DEADLINE
    event = (await read_rows(database, events, job_id))[-1]
    assert (event.kind, event.actor) == ("resolved", "operator")
    assert event.details == {"as": "accepted", "why": WHY}


async def test_verdict_absent_moves_the_job_to_queued(database: Database) -> None:
    """The job is sent again without a look-up, and with all its attempts."""
    job_id = await unknown_job(database)
    await resolved(database, job_id, verdict="absent")
    kept = await read_job(database, job_id)
    assert (kept.state, kept.maybe_applied, kept.attempts_charged) == ("queued", False, 0)
    assert (await claim_one(database)).attempt == 2


async def test_verdict_absent_is_refused_while_a_suspended_process_may_send(
    database: Database,
) -> None:
    """Before the signature of the old request has expired the job stays unknown."""
    expiry = await now(database) + timedelta(seconds=300)
    job_id = await unknown_job(database, no_resend_before=expiry)
    with pytest.raises(UsageError, match="may still send") as error:
        await resolved(database, job_id, verdict="absent")
    assert error.value.remedy
    assert (await read_job(database, job_id)).state == JobState.UNKNOWN
    await advance_time(database, seconds=301)
    await resolved(database, job_id, verdict="absent")
    assert (await read_job(database, job_id)).state == JobState.QUEUED


@pytest.mark.parametrize("state", sorted(set(JobState) - {JobState.UNKNOWN}))
async def test_only_unknown_jobs_can_be_resolved(database: Database, state: JobState) -> None:
    """A job in another state stays unchanged, and the error says what to do instead."""
    job_id = await make_job(database, state)
    with pytest.raises(UsageError, match=f"Job {job_id} is {state}, not unknown") as error:
        await resolved(database, job_id, verdict="absent")
    assert error.value.remedy
    assert await read_event_kinds(database, job_id) == ["enqueued"]


async def test_one_job_is_resolved_at_a_time(database: Database) -> None:
    """A filter that matches no job or two jobs is refused."""
    one, other = await unknown_job(database), await unknown_job(database)
    with pytest.raises(UsageError, match="No such job"):
        await resolved(database, other + 1, verdict="absent")
    with pytest.raises(UsageError, match="several"):
        await resolved(database, one, other, verdict="absent")
