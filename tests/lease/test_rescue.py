"""Who lives and who is gone, and what becomes of the jobs that the gone have held."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import anyio
import pytest
import sqlalchemy as sa
from anyio.abc import Process
from anyio.streams.text import TextReceiveStream

from orchestrator.db import Database
from orchestrator.lease.owner import forget, instance, is_proven_gone, lock_path
from orchestrator.lease.rescue import LOST, SIGNATURE_LIFETIME, rescue
from orchestrator.model import JobState
from orchestrator.tables import attempts, events, instances
from tests.stores import (
    ME,
    change,
    claimed,
    job,
    let_pass,
    make_job,
    make_jobs,
    now,
    numbered,
    rows,
    try_claim,
)

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def another_process(database: Database) -> AsyncIterator[tuple[str, Process]]:
    """The name of an instance that another process holds, and that process."""
    url = database.url.render_as_string(hide_password=False)
    command = [sys.executable, "-m", "tests.lease.child", url]
    root = Path(__file__).parents[2]
    async with await anyio.open_process(command, cwd=root, stderr=None) as process:
        assert process.stdout is not None
        try:
            with anyio.fail_after(30):
                name = await TextReceiveStream(process.stdout).receive()
            yield name.strip(), process
        finally:
            if process.returncode is None:
                process.kill()


async def test_an_instance_lives_as_long_as_its_process(sqlite: Database) -> None:
    """While it lives its lock is held; killed, it is proven gone, and can be forgotten."""
    async with another_process(sqlite) as (name, process):
        path = lock_path(sqlite, name)
        assert path is not None
        assert path.stat().st_mode & 0o777 == 0o600
        assert not is_proven_gone(sqlite, name)
        process.kill()
        await process.wait()
    assert is_proven_gone(sqlite, name)
    assert path.exists()
    forget(sqlite, name)
    assert not path.exists()


async def test_an_instance_that_ends_well_leaves_no_lock(database: Database) -> None:
    """It writes down its end, and nothing of it remains beside the database."""
    async with instance(database) as name:
        assert not is_proven_gone(database, name)
    async with database.read() as connection:
        (row,) = (await connection.execute(sa.select(instances))).all()
    assert row.id == name
    assert row.ended_at >= row.started_at
    path = lock_path(database, name)
    assert path is None or not path.exists()


async def test_an_instance_that_ends_by_an_exception_is_gone(sqlite: Database) -> None:
    """What it may still hold need not wait for the end of its lease."""
    with pytest.raises(RuntimeError, match="broken"):
        async with instance(sqlite) as name:
            raise RuntimeError("the disk is broken")
    assert is_proven_gone(sqlite, name)


async def test_what_a_dead_process_held_is_rescued_at_once(sqlite: Database) -> None:
    """A free lock proves that nothing of it can still leave: there is nothing to wait for."""
    async with another_process(sqlite) as (name, process):
        held, other = await make_jobs(sqlite, numbered(2))
        await claimed(sqlite, owner=name)
        await claimed(sqlite, owner=name)
        process.kill()
        await process.wait()
    assert await rescue(sqlite, ME) == 2
    for job_id in (held, other):
        kept = await job(sqlite, job_id)
        assert (kept.state, kept.reason, kept.fenced_until) == ("unknown", "answer lost", None)
        assert (kept.owner, kept.code, kept.doubted, kept.spent) == (None, LOST, True, 1)
        event = (await rows(sqlite, events, job_id))[-1]
        assert (event.kind, event.actor) == ("rescued", ME)
        assert event.details == {"owner": name, "proof": "its lock was free"}
    path = lock_path(sqlite, name)
    assert path is not None
    assert not path.exists()


async def test_a_living_owner_is_left_alone(sqlite: Database) -> None:
    """Before its lease has run out, a process that lives keeps its jobs."""
    async with another_process(sqlite) as (name, _):
        (job_id,) = await make_jobs(sqlite)
        await claimed(sqlite, owner=name)
        assert await rescue(sqlite, ME) == 0
        assert (await job(sqlite, job_id)).owner == name
        path = lock_path(sqlite, name)
        assert path is not None
        assert path.exists()


async def test_an_expired_lease_is_rescued_behind_a_fence(database: Database) -> None:
    """An owner not proven gone may still send: not before its signature has expired."""
    (job_id,) = await make_jobs(database)
    lease = await claimed(database, owner="asleep")
    assert await rescue(database, ME) == 0
    await let_pass(database, seconds=46)
    assert await rescue(database, ME) == 1
    kept = await job(database, job_id)
    (attempt,) = await rows(database, attempts, job_id)
    assert kept.state == JobState.UNKNOWN
    assert kept.fenced_until == attempt.claimed_at + SIGNATURE_LIFETIME
    assert kept.clean_since is None
    event = (await rows(database, events, job_id))[-1]
    assert event.details == {"owner": lease.owner, "proof": "lease expired"}


async def test_a_living_owner_loses_what_it_holds_too_long(sqlite: Database) -> None:
    """A process that sleeps behind its lock loses the job at the lease's end, not its lock."""
    async with another_process(sqlite) as (name, _):
        (job_id,) = await make_jobs(sqlite)
        await claimed(sqlite, owner=name)
        await let_pass(sqlite, seconds=46)
        assert await rescue(sqlite, ME) == 1
        assert (await job(sqlite, job_id)).fenced_until is not None
        path = lock_path(sqlite, name)
        assert path is not None
        assert path.exists()


async def test_what_one_sends_oneself_is_given_up_last(database: Database) -> None:
    """A request of one's own is left alone while its lease runs; unrecorded then, it is lost."""
    (job_id,) = await make_jobs(database)
    await claimed(database)
    await let_pass(database, seconds=44)
    assert await rescue(database, ME) == 0
    await let_pass(database, seconds=2)
    assert await rescue(database, ME) == 1
    assert (await job(database, job_id)).fenced_until is not None


@pytest.mark.parametrize("state", sorted(set(JobState) - {JobState.SENDING}))
async def test_only_what_is_in_the_air_is_rescued(database: Database, state: JobState) -> None:
    """A job that nobody is sending has no owner to lose."""
    job_id = await make_job(database, state)
    await change(database, job_id, expires_at=await now(database) - timedelta(days=1))
    assert await rescue(database, ME) == 0


async def test_a_rescued_job_is_not_sent_before_a_look(database: Database) -> None:
    """It is unknown, never queued: only the bucket can say whether it may go again."""
    await make_jobs(database)
    await claimed(database, owner="asleep")
    await let_pass(database, hours=1)
    await rescue(database, ME)
    assert await try_claim(database) is None
