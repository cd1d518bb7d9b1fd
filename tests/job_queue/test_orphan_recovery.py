"""Orphan recovery: which processes count as gone, and what happens to their jobs."""

import errno
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
import sqlalchemy as sa
from anyio.abc import Process
from anyio.streams.text import TextReceiveStream

from orchestrator.cloud.clock_skew import SIGNATURE_LIFETIME
from orchestrator.errors import StoreError
from orchestrator.job_queue import worker_registry
from orchestrator.job_queue.orphan_recovery import LOST, recover_orphans
from orchestrator.job_queue.worker_registry import (
    GoneReason,
    is_run_active,
    lock_path,
    refuse_while_in_use,
    register_worker,
    why_gone,
)
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
    """Start another process that registers; yield its name and the process."""
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
    """Return the row of an instance."""
    async with database.read() as connection:
        query = sa.select(instances).where(instances.c.id == name)
        return (await connection.execute(query)).one()


async def proof(database: Database, name: str) -> GoneReason | None:
    """Return why an instance counts as gone, or None."""
    async with database.write() as connection:
        return await why_gone(database, connection, await row_of(database, name))


async def killed(database: Database, name: str, process: Process) -> None:
    """Kill a process; wait until its lock is free, on a server too."""
    process.kill()
    await process.wait()
    with anyio.fail_after(60):
        while await proof(database, name) is None:
            await anyio.sleep(0.01)


async def test_an_instance_lives_as_long_as_its_process(database: Database) -> None:
    """A process that was killed on this machine is certainly dead.

    While a process runs, it holds its lock.
    """
    async with another_process(database) as (name, process):
        assert await proof(database, name) is None
        await killed(database, name, process)
    assert await proof(database, name) is GoneReason.DEAD


async def test_a_run_is_active_while_its_process_lives(database: Database) -> None:
    """A run is no longer active after its process ended normally or was killed."""
    async with register_worker(database):
        assert await is_run_active(database)
    assert not await is_run_active(database)
    async with another_process(database) as (name, process):
        assert await is_run_active(database)
        await killed(database, name, process)
        assert not await is_run_active(database)


async def test_a_copy_of_a_store_has_no_active_run(sqlite: Database, tmp_path: Path) -> None:
    """The copy has the row of the process, but not its lock file."""
    assert sqlite.path is not None
    copy = tmp_path / "copy.db"
    async with register_worker(sqlite):
        with closing(sqlite3.connect(sqlite.path)) as connection:
            connection.execute("VACUUM INTO ?", (str(copy),))
    archive = Database(f"sqlite+aiosqlite:///{copy}", sqlite.clock)
    assert not await is_run_active(archive)
    await archive.close()


async def test_a_standby_does_not_show_that_a_run_has_ended(postgresql: Database) -> None:
    """It has the rows of its primary, but not the locks, which look free there."""
    async with another_process(postgresql) as (name, process):
        await killed(postgresql, name, process)
    assert not await is_run_active(postgresql)

    def on_standby(_c: Any, _u: Any, statement: str, parameters: Any, *_: Any) -> tuple[str, Any]:
        return statement.replace("pg_is_in_recovery()", "true"), parameters

    engine = postgresql._reader.sync_engine
    sa.event.listen(engine, "before_cursor_execute", on_standby, retval=True)
    assert await is_run_active(postgresql)


async def test_a_lock_file_is_private_to_its_user(sqlite: Database) -> None:
    """No other user can open the file, and so hold its lock."""
    async with register_worker(sqlite) as me:
        path = lock_path(sqlite, me.name)
        assert path is not None
        assert path.stat().st_mode & 0o777 == 0o600


async def test_a_normal_end_is_recorded_and_removes_the_lock(database: Database) -> None:
    """Its end is recorded, and its lock file is removed."""
    async with register_worker(database) as me:
        assert await proof(database, me.name) is None
    row = await row_of(database, me.name)
    assert row.ended_at >= row.started_at
    path = lock_path(database, me.name)
    assert path is None or not path.exists()


async def test_an_instance_that_ends_by_an_exception_is_gone(database: Database) -> None:
    """Its jobs can be recovered before their leases end."""
    with pytest.raises(RuntimeError, match="broken"):
        async with register_worker(database) as me:
            raise RuntimeError("the disk is broken")
    with anyio.fail_after(60):
        while await proof(database, me.name) is None:
            await anyio.sleep(0.01)


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_a_process_may_outlive_its_session(postgresql: Database, *, elsewhere: bool) -> None:
    """Jobs of a lost session are recovered immediately, but not resent yet.

    They are not resent before the signature has expired.
    """
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


async def test_a_lost_session_is_reopened(postgresql: Database) -> None:
    """A process whose session has ended takes its lock again, and counts as alive."""
    async with register_worker(postgresql) as me:
        async with postgresql.write() as connection:
            await connection.execute(_END_LOCKING_SESSIONS)
        await me.renew_lock()
        assert await proof(postgresql, me.name) is None


async def test_an_end_recorded_for_a_lost_session_is_withdrawn(postgresql: Database) -> None:
    """A run is active again once its process holds its lock again.

    The run then keeps other processes from migrating the store.
    """
    async with register_worker(postgresql) as me:
        async with postgresql.write() as connection:
            await connection.execute(_END_LOCKING_SESSIONS)
        with anyio.fail_after(60):
            while (await row_of(postgresql, me.name)).ended_at is None:
                await recover_orphans(postgresql, TESTER)
                await anyio.sleep(0.01)
        await me.renew_lock()
        assert await is_run_active(postgresql)
        with pytest.raises(StoreError, match="in use by"):
            await refuse_while_in_use(postgresql)


async def test_a_stale_lock_file_is_removed(sqlite: Database) -> None:
    """A process that is killed before it registers leaves a lock file without a row."""
    orphan = lock_path(sqlite, "killed-before-it-was-known")
    assert orphan is not None
    orphan.touch()
    async with register_worker(sqlite) as me:
        mine = lock_path(sqlite, me.name)
        assert mine is not None
        await recover_orphans(sqlite, TESTER)
        assert (orphan.exists(), mine.exists()) == (False, True)


async def test_a_lock_file_of_another_user_keeps_no_run_from_starting(
    sqlite: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cannot be locked: its process counts as alive, and the file stays."""
    async with register_worker(sqlite) as me:
        path = lock_path(sqlite, me.name)
        assert path is not None

        def refuse(path: Path, **_options: object) -> None:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

        with monkeypatch.context() as patched:
            patched.setattr(worker_registry, "lock_file", refuse)
            assert await recover_orphans(sqlite, TESTER) == 0
            with pytest.raises(StoreError, match="in use by"):
                await refuse_while_in_use(sqlite)
        assert (await row_of(sqlite, me.name)).ended_at is None
        assert path.exists()


async def test_jobs_of_a_dead_process_are_recovered_at_once(database: Database) -> None:
    """A free lock proves that it can send nothing more, so there is no wait."""
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
        assert (event.kind, event.actor) == ("recovered", TESTER)
        assert event.details == {"owner": name, "proof": "its lock was free"}
    assert (await row_of(database, name)).ended_at is not None
    path = lock_path(database, name)
    assert path is None or not path.exists()


async def test_jobs_of_an_ended_process_are_recovered_at_once(sqlite: Database) -> None:
    """On SQLite a recorded end proves that the jobs of a process cannot be sent.

    A claim whose commit was uncertain may remain after the end.
    """
    (job_id,) = await make_jobs(sqlite)
    async with register_worker(sqlite) as me:
        await claim_one(sqlite, owner=me.name)
    assert await recover_orphans(sqlite, TESTER) == 1
    kept = await read_job(sqlite, job_id)
    assert (kept.state, kept.no_resend_before) == (JobState.UNKNOWN, None)


async def test_an_end_recorded_by_another_process_proves_nothing(postgresql: Database) -> None:
    """A process with a lost session counts as ended, but may still claim and send."""
    first, second = await make_jobs(postgresql, make_requests(2))
    async with register_worker(postgresql) as me:
        await me.end_session()
        await claim_one(postgresql, owner=me.name)
        assert await recover_orphans(postgresql, TESTER) == 1
        assert (await row_of(postgresql, me.name)).ended_at is not None
        await claim_one(postgresql, owner=me.name)
        assert await recover_orphans(postgresql, TESTER) == 1
        for job_id in (first, second):
            assert (await read_job(postgresql, job_id)).no_resend_before is not None


async def test_jobs_of_a_live_process_are_not_recovered(database: Database) -> None:
    """A running process owns its jobs until their leases expire."""
    async with another_process(database) as (name, _):
        (job_id,) = await make_jobs(database)
        await claim_one(database, owner=name)
        assert await recover_orphans(database, TESTER) == 0
        assert (await read_job(database, job_id)).owner == name
        path = lock_path(database, name)
        assert path is None or path.exists()


async def test_expired_lease_becomes_unknown(database: Database) -> None:
    """A job with an expired lease is not resent before its signature has expired.

    The owner of the job may still be alive.
    """
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


async def test_a_live_process_loses_a_job_with_an_expired_lease(sqlite: Database) -> None:
    """A suspended process loses the job when the lease expires, but not its lock."""
    async with another_process(sqlite) as (name, _):
        (job_id,) = await make_jobs(sqlite)
        await claim_one(sqlite, owner=name)
        await advance_time(sqlite, seconds=46)
        assert await recover_orphans(sqlite, TESTER) == 1
        assert (await read_job(sqlite, job_id)).no_resend_before is not None
        path = lock_path(sqlite, name)
        assert path is not None
        assert path.exists()


async def test_a_process_recovers_its_own_job_after_the_lease(database: Database) -> None:
    """A process recovers its own job only if its lease expires without an outcome."""
    (job_id,) = await make_jobs(database)
    await claim_one(database)
    await advance_time(database, seconds=LEASE_DURATION.total_seconds() / 2)
    assert await recover_orphans(database, TESTER) == 0
    await advance_time(database, seconds=LEASE_DURATION.total_seconds() / 2 + 1)
    assert await recover_orphans(database, TESTER) == 1
    assert (await read_job(database, job_id)).no_resend_before is not None


@pytest.mark.parametrize("state", sorted(set(JobState) - {JobState.SENDING}))
async def test_only_sending_jobs_are_recovered(database: Database, state: JobState) -> None:
    """A job in any other state has no owner."""
    job_id = await make_job(database, state)
    await update_job(database, job_id, expires_at=await now(database) - timedelta(days=1))
    assert await recover_orphans(database, TESTER) == 0


async def test_a_recovered_job_is_not_sent_before_a_look_up(database: Database) -> None:
    """It is unknown, not queued: only a look-up in the bucket can queue it again."""
    await make_jobs(database)
    await claim_one(database, owner="asleep")
    await advance_time(database, hours=1)
    await recover_orphans(database, TESTER)
    assert await try_claim(database) is None
