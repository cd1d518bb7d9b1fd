"""Who lives and who is gone, and what becomes of the jobs that the gone have held."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
import sqlalchemy as sa
from anyio.abc import Process
from anyio.streams.text import TextReceiveStream
from sqlalchemy.exc import DBAPIError

from orchestrator.cloud.clock_skew import SIGNATURE_LIFETIME
from orchestrator.job_queue.orphan_recovery import LOST, recover_orphans
from orchestrator.job_queue.worker_registry import GoneReason, lock_path, register_worker, why_gone
from orchestrator.job_states import JobState
from orchestrator.store import Database
from orchestrator.store.tables import attempts, events, instances
from tests.job_factory import (
    LEASE_DURATION,
    TESTER,
    advance_time,
    claim_one,
    make_job,
    make_jobs,
    make_requests,
    now,
    read_job,
    read_rows,
    try_claim,
    update_job,
)

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def another_process(database: Database) -> AsyncIterator[tuple[str, Process]]:
    """The name of an instance that another process holds, and that process."""
    url = database.url.render_as_string(hide_password=False)
    command = [sys.executable, "-m", "tests.job_queue.registered_process", url]
    root = Path(__file__).parents[2]
    async with await anyio.open_process(command, cwd=root, stderr=None) as process:
        assert process.stdout is not None
        try:
            with anyio.fail_after(60):
                name = await TextReceiveStream(process.stdout).receive()
            yield name.strip(), process
        finally:
            if process.returncode is None:
                process.kill()


async def row_of(database: Database, name: str) -> Any:
    """An instance as the store knows it."""
    async with database.read() as connection:
        query = sa.select(instances).where(instances.c.id == name)
        return (await connection.execute(query)).one()


async def proof(database: Database, name: str) -> GoneReason | None:
    """Why an instance counts as gone, if it does."""
    async with database.write() as connection:
        return await why_gone(database, connection, await row_of(database, name))


async def killed(database: Database, name: str, process: Process) -> None:
    """Kills a process; returns when a server, too, has seen that it is gone."""
    process.kill()
    await process.wait()
    with anyio.fail_after(60):
        while await proof(database, name) is None:
            await anyio.sleep(0.01)


async def test_an_instance_lives_as_long_as_its_process(database: Database) -> None:
    """While it lives its lock is held; killed on this machine, it is dead for certain."""
    async with another_process(database) as (name, process):
        assert await proof(database, name) is None
        await killed(database, name, process)
    assert await proof(database, name) is GoneReason.DEAD


async def test_the_file_of_an_instance_is_its_users_alone(sqlite: Database) -> None:
    """Nobody else may open it, and so hold its lock."""
    async with register_worker(sqlite) as me:
        path = lock_path(sqlite, me.name)
        assert path is not None
        assert path.stat().st_mode & 0o777 == 0o600


async def test_an_instance_that_ends_well_leaves_no_lock(database: Database) -> None:
    """It writes down its end, and nothing of it remains beside the database."""
    async with register_worker(database) as me:
        assert await proof(database, me.name) is None
    row = await row_of(database, me.name)
    assert row.ended_at >= row.started_at
    path = lock_path(database, me.name)
    assert path is None or not path.exists()


async def test_an_instance_that_ends_by_an_exception_is_gone(database: Database) -> None:
    """What it may still hold need not wait for the end of its lease."""
    with pytest.raises(RuntimeError, match="broken"):
        async with register_worker(database) as me:
            raise RuntimeError("the disk is broken")
    with anyio.fail_after(60):
        while await proof(database, me.name) is None:
            await anyio.sleep(0.01)


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_a_lost_session_proves_no_death(postgresql: Database, *, elsewhere: bool) -> None:
    """The server ends it while the process lives: others rescue at once, but behind the fence."""
    async with register_worker(postgresql) as me:
        (job_id,) = await make_jobs(postgresql)
        lease = await claim_one(postgresql, owner=me.name)
        async with postgresql.write() as connection:
            if elsewhere:
                await connection.execute(instances.update().values(host="another", pid=2**22 + 1))
            await connection.execute(_END_LOCKING_SESSIONS)
        with anyio.fail_after(60):
            while not await recover_orphans(postgresql, TESTER):
                await anyio.sleep(0.01)
        kept = await read_job(postgresql, job_id)
        assert kept.no_resend_before == lease.claimed_at + SIGNATURE_LIFETIME
        event = (await read_rows(postgresql, events, job_id))[-1]
        assert event.details["proof"] == GoneReason.SESSION_LOST


_END_LOCKING_SESSIONS = sa.text(
    "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


async def test_a_lost_session_is_opened_anew(postgresql: Database) -> None:
    """A process whose session has ended takes its lock again, and is known to live."""
    async with register_worker(postgresql) as me:
        async with postgresql.write() as connection:
            await connection.execute(_END_LOCKING_SESSIONS)
        with pytest.raises(DBAPIError):
            await me.renew_lock()
        await me.renew_lock()
        assert await proof(postgresql, me.name) is None


async def test_a_lock_that_was_never_registered_is_cleared_away(sqlite: Database) -> None:
    """A process that died before it could register leaves a file that nobody would ask for."""
    orphan = lock_path(sqlite, "killed-before-it-was-known")
    assert orphan is not None
    orphan.touch()
    async with register_worker(sqlite) as me:
        mine = lock_path(sqlite, me.name)
        assert mine is not None
        await recover_orphans(sqlite, TESTER)
        assert (orphan.exists(), mine.exists()) == (False, True)


async def test_what_a_dead_process_held_is_rescued_at_once(database: Database) -> None:
    """A free lock proves that nothing of it can still leave: there is nothing to wait for."""
    async with another_process(database) as (name, process):
        held, other = await make_jobs(database, make_requests(2))
        await claim_one(database, owner=name)
        await claim_one(database, owner=name)
        await killed(database, name, process)
    assert await recover_orphans(database, TESTER) == 2
    for job_id in (held, other):
        kept = await read_job(database, job_id)
        assert (kept.state, kept.reason, kept.no_resend_before) == ("unknown", "answer lost", None)
        assert (kept.owner, kept.code, kept.maybe_applied, kept.attempts_charged) == (
            None,
            LOST,
            True,
            1,
        )
        event = (await read_rows(database, events, job_id))[-1]
        assert (event.kind, event.actor) == ("rescued", TESTER)
        assert event.details == {"owner": name, "proof": "its lock was free"}
    assert (await row_of(database, name)).ended_at is not None
    path = lock_path(database, name)
    assert path is None or not path.exists()


async def test_a_living_owner_is_left_alone(database: Database) -> None:
    """Before its lease has run out, a process that lives keeps its jobs."""
    async with another_process(database) as (name, _):
        (job_id,) = await make_jobs(database)
        await claim_one(database, owner=name)
        assert await recover_orphans(database, TESTER) == 0
        assert (await read_job(database, job_id)).owner == name
        path = lock_path(database, name)
        assert path is None or path.exists()


async def test_an_expired_lease_is_rescued_behind_a_fence(database: Database) -> None:
    """An owner not proven gone may still send: not before its signature has expired."""
    (job_id,) = await make_jobs(database)
    lease = await claim_one(database, owner="asleep")
    assert await recover_orphans(database, TESTER) == 0
    await advance_time(database, seconds=46)
    assert await recover_orphans(database, TESTER) == 1
    kept = await read_job(database, job_id)
    (attempt,) = await read_rows(database, attempts, job_id)
    assert kept.state == JobState.UNKNOWN
    assert kept.no_resend_before == attempt.claimed_at + SIGNATURE_LIFETIME
    assert kept.absent_since is None
    event = (await read_rows(database, events, job_id))[-1]
    assert event.details == {"owner": lease.owner, "proof": "lease expired"}


async def test_a_living_owner_loses_what_it_holds_too_long(sqlite: Database) -> None:
    """A process that sleeps behind its lock loses the job at the lease's end, not its lock."""
    async with another_process(sqlite) as (name, _):
        (job_id,) = await make_jobs(sqlite)
        await claim_one(sqlite, owner=name)
        await advance_time(sqlite, seconds=46)
        assert await recover_orphans(sqlite, TESTER) == 1
        assert (await read_job(sqlite, job_id)).no_resend_before is not None
        path = lock_path(sqlite, name)
        assert path is not None
        assert path.exists()


async def test_what_one_sends_oneself_is_given_up_last(database: Database) -> None:
    """A request of one's own is left alone while its lease runs; unrecorded then, it is lost."""
    (job_id,) = await make_jobs(database)
    await claim_one(database)
    await advance_time(database, seconds=LEASE_DURATION.total_seconds() / 2)
    assert await recover_orphans(database, TESTER) == 0
    await advance_time(database, seconds=LEASE_DURATION.total_seconds() / 2 + 1)
    assert await recover_orphans(database, TESTER) == 1
    assert (await read_job(database, job_id)).no_resend_before is not None


@pytest.mark.parametrize("state", sorted(set(JobState) - {JobState.SENDING}))
async def test_only_what_is_in_the_air_is_rescued(database: Database, state: JobState) -> None:
    """A job that nobody is sending has no owner to lose."""
    job_id = await make_job(database, state)
    await update_job(database, job_id, expires_at=await now(database) - timedelta(days=1))
    assert await recover_orphans(database, TESTER) == 0


async def test_a_rescued_job_is_not_sent_before_a_look(database: Database) -> None:
    """It is unknown, never queued: only the bucket can say whether it may go again."""
    await make_jobs(database)
    await claim_one(database, owner="asleep")
    await advance_time(database, hours=1)
    await recover_orphans(database, TESTER)
    assert await try_claim(database) is None
