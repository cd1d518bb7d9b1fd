"""State transitions follow the transition table and are refused if the job has changed."""

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from orchestrator.job_states import FINAL, TRANSITIONS, JobState
from orchestrator.store import Database
from orchestrator.store.tables import events, jobs
from orchestrator.store.transitions import Transition, apply_transition
from tests.job_factory import (
    LEASE_DURATION,
    TESTER,
    make_job,
    now,
    read_event_kinds,
    read_job,
    read_rows,
    update_job,
)

pytestmark = pytest.mark.anyio

PAIRS = [(source, target) for source in JobState for target in JobState]
ALLOWED = [(source, target) for source, target in PAIRS if target in TRANSITIONS[source]]
REFUSED = [pair for pair in PAIRS if pair not in ALLOWED]


async def try_transition(
    database: Database, job_id: int, source: JobState, target: JobState, *, attempt: int = 0
) -> bool:
    async with database.write() as connection:
        moment = await database.now(connection)
        held = (
            {"owner": TESTER, "expires_at": moment + LEASE_DURATION}
            if target is JobState.SENDING
            else {}
        )
        tried = Transition(
            job_id,
            source,
            target,
            kind="tried",
            reason="a test",
            actor=TESTER,
            attempt=attempt,
            changes=held,
            details={"answer": 42},
        )
        return await apply_transition(connection, tried, at=moment)


async def test_each_allowed_transition_writes_state_and_event(database: Database) -> None:
    """It changes the state and its reason, and writes one event with its details."""
    for source, target in ALLOWED:
        job_id = await make_job(database, source)
        assert await try_transition(database, job_id, source, target)
        moved = await read_job(database, job_id)
        assert (moved.state, moved.reason) == (target, "a test")
        event = (await read_rows(database, events, job_id))[-1]
        assert (event.kind, event.from_state, event.to_state) == ("tried", source, target)
        assert (event.actor, event.details) == (TESTER, {"answer": 42})


async def test_any_other_transition_is_refused(database: Database) -> None:
    """It is a bug in the caller, and nothing is written."""
    assert len(REFUSED) + len(ALLOWED) == len(JobState) ** 2
    for source, target in REFUSED:
        job_id = await make_job(database, source)
        with pytest.raises(ValueError, match=f"from {source} to {target}"):
            await try_transition(database, job_id, source, target)
        assert (await read_job(database, job_id)).state == source
        assert await read_event_kinds(database, job_id) == ["enqueued"]


@pytest.mark.parametrize(
    ("source", "attempt"),
    [(JobState.UNKNOWN, 3), (JobState.SENDING, 2), (JobState.SENDING, 4)],
    ids=["another state", "an older attempt", "an attempt that does not exist"],
)
async def test_a_job_that_has_changed_is_left_alone(
    database: Database, source: JobState, attempt: int
) -> None:
    """If the job has another state or attempt meanwhile, nothing is written."""
    job_id = await make_job(database, JobState.SENDING, attempt=3)
    before = await read_job(database, job_id)
    assert not await try_transition(database, job_id, source, JobState.ACCEPTED, attempt=attempt)
    assert await read_job(database, job_id) == before
    assert await read_event_kinds(database, job_id) == ["enqueued"]


async def test_the_lease_ends_with_the_sending(database: Database) -> None:
    """A job that is no longer being sent has no owner and no lease."""
    job_id = await make_job(database, JobState.SENDING)
    await try_transition(database, job_id, JobState.SENDING, JobState.UNKNOWN)
    moved = await read_job(database, job_id)
    assert (moved.owner, moved.expires_at) == (None, None)


async def test_only_a_final_state_has_an_end_time(database: Database) -> None:
    """A final state sets the end time; leaving it clears the time."""
    for source, target in ALLOWED:
        ended = await now(database) - timedelta(days=1) if source in FINAL else None
        job_id = await make_job(database, source, finished_at=ended)
        await try_transition(database, job_id, source, target)
        finished_at = (await read_job(database, job_id)).finished_at
        assert (finished_at is not None) == (target in FINAL), (source, target)


async def test_state_and_event_are_rolled_back_together(database: Database) -> None:
    """If the database transaction fails, neither is written."""
    job_id = await make_job(database)

    async def transition_and_fail() -> None:
        async with database.write() as connection:
            tried = Transition(
                job_id,
                JobState.QUEUED,
                JobState.CANCELLED,
                kind="tried",
                reason="a test",
                actor=TESTER,
                attempt=0,
            )
            await apply_transition(connection, tried, at=await database.now(connection))
            await connection.execute(jobs.insert().values(id=job_id))

    with pytest.raises(sa.exc.IntegrityError):
        await transition_and_fail()
    assert (await read_job(database, job_id)).state == JobState.QUEUED
    assert await read_event_kinds(database, job_id) == ["enqueued"]


async def test_the_database_checks_states_itself(database: Database) -> None:
    """The table's constraints refuse an invalid row, however it is written."""
    wrong: list[dict[str, Any]] = [
        {"state": "sent"},
        {"format": "TAR"},
        {"state": JobState.SENDING, "owner": None},
        {"state": JobState.QUEUED, "owner": TESTER},
    ]
    job_id = await make_job(database)
    for columns in wrong:
        with pytest.raises(sa.exc.IntegrityError):
            await update_job(database, job_id, **columns)
    assert (await read_job(database, job_id)).state == JobState.QUEUED


@pytest.mark.parametrize(
    "statement",
    [events.update().values(kind="another"), events.delete(), jobs.delete()],
    ids=["update", "delete", "delete the job"],
)
async def test_events_are_append_only(database: Database, statement: sa.Executable) -> None:
    """No statement changes or deletes an event, or deletes its job."""
    job_id = await make_job(database)

    async def execute() -> None:
        async with database.write() as connection:
            await connection.execute(statement)

    with pytest.raises(sa.exc.DBAPIError, match=r"append-only|(?i:foreign key)"):
        await execute()
    assert await read_event_kinds(database, job_id) == ["enqueued"]
