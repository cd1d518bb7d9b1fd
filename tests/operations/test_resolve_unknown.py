"""What a person decides: a verdict on an unknown job, or to give up what waits."""

from datetime import timedelta

import pytest

from orchestrator.errors import UsageError
from orchestrator.job_states import JobState
from orchestrator.operations.cancel import Cancel, cancel
from orchestrator.operations.resolve_unknown import Verdict, settle
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


async def settled(database: Database, *job_ids: int, verdict: Verdict) -> int:
    return await settle(
        database,
        jobs.c.id.in_(job_ids),
        verdict,
        why=WHY,
        export_deadline=DEADLINE,
        actor="person",
    )


async def doubtful(database: Database, **columns: object) -> int:
    """A job whose answer was lost."""
    given = {
        "attempt": 1,
        "attempts_charged": 1,
        "maybe_applied": True,
        "code": "InternalError",
        **columns,
    }
    return await make_job(database, JobState.UNKNOWN, **given)


async def test_a_persons_word_accepts_a_job(database: Database) -> None:
    """The job has a deadline from now on; who said it, and why, stands in its events."""
    job_id = await doubtful(database)
    assert await settled(database, job_id, verdict=Verdict.ACCEPTED) == job_id
    kept = await read_job(database, job_id)
    assert (kept.state, kept.code, kept.task_id) == ("accepted", None, None)
    assert kept.deadline_at - kept.accepted_at == DEADLINE
    event = (await read_rows(database, events, job_id))[-1]
    assert (event.kind, event.actor) == ("settled", "person")
    assert event.details == {"as": "accepted", "why": WHY}


async def test_a_persons_word_sends_a_job_again(database: Database) -> None:
    """Nothing of it is in doubt any more: it is sent without a look, with all its attempts."""
    job_id = await doubtful(database)
    await settled(database, job_id, verdict=Verdict.ABSENT)
    kept = await read_job(database, job_id)
    assert (kept.state, kept.maybe_applied, kept.attempts_charged) == ("queued", False, 0)
    assert (await claim_one(database)).attempt == 2


async def test_a_persons_word_does_not_lift_the_fence(database: Database) -> None:
    """A sleeping process may still send: before its signature has expired nobody can know."""
    fence = await now(database) + timedelta(seconds=300)
    job_id = await doubtful(database, no_resend_before=fence)
    with pytest.raises(UsageError, match="may still send") as refusal:
        await settled(database, job_id, verdict=Verdict.ABSENT)
    assert refusal.value.remedy
    assert (await read_job(database, job_id)).state == JobState.UNKNOWN
    await advance_time(database, seconds=301)
    await settled(database, job_id, verdict=Verdict.ABSENT)
    assert (await read_job(database, job_id)).state == JobState.QUEUED


@pytest.mark.parametrize("state", sorted(set(JobState) - {JobState.UNKNOWN}))
async def test_only_an_unknown_job_can_be_settled(database: Database, state: JobState) -> None:
    """Any other is left alone, and the message says what to do instead."""
    job_id = await make_job(database, state)
    with pytest.raises(UsageError, match=f"Job {job_id} is {state}, not unknown") as refusal:
        await settled(database, job_id, verdict=Verdict.ABSENT)
    assert refusal.value.remedy
    assert await read_event_kinds(database, job_id) == ["enqueued"]


async def test_one_job_is_settled_at_a_time(database: Database) -> None:
    """A word is about one export: neither about none nor about two."""
    one, other = await doubtful(database), await doubtful(database)
    with pytest.raises(UsageError, match="no such job"):
        await settled(database, other + 1, verdict=Verdict.ABSENT)
    with pytest.raises(UsageError, match="several"):
        await settled(database, one, other, verdict=Verdict.ABSENT)


@pytest.mark.parametrize("dry_run", [False, True])
async def test_only_what_waits_is_given_up(database: Database, *, dry_run: bool) -> None:
    """What was sent cannot be called back, and what has ended stays as it is."""
    by_state = {state: await make_job(database, state) for state in JobState}
    told = await cancel(database, jobs.c.id > 0, actor="person", dry_run=dry_run)
    assert told == Cancel(changed=1, untouched=len(JobState) - 1)
    for state, job_id in by_state.items():
        is_given_up = state is JobState.QUEUED and not dry_run
        kept = await read_job(database, job_id)
        assert kept.state == (JobState.CANCELLED if is_given_up else state)
        if is_given_up:
            event = (await read_rows(database, events, job_id))[-1]
            assert (event.kind, event.actor, kept.reason) == ("cancelled", "person", "given up")
            assert kept.finished_at is not None
