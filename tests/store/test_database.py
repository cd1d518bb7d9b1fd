"""Connections and transactions: private files, one clock, atomic writes."""

import asyncio
import signal
import sqlite3
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import anyio
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from orchestrator.clock import SystemClock
from orchestrator.store import Database, Schema
from orchestrator.store import database as database_module
from orchestrator.store import sqlite as files
from orchestrator.store.file_lock import lock_file
from orchestrator.store.tables import instances, scopes
from tests.job_factory import NOON, FakeClock, now

pytestmark = pytest.mark.anyio


async def count(database: Database, table: sa.Table) -> int:
    async with database.read() as connection:
        query = sa.select(sa.func.count()).select_from(table)
        return int((await connection.execute(query)).scalar_one())


async def add_scope(database: Database, region: str) -> None:
    async with database.write() as connection:
        await connection.execute(scopes.insert().values(profile="p", region=region, misses=0))


async def test_new_files_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    """The database, its write-ahead log and SQLite's other files have mode 0600."""
    path = tmp_path / "deep" / "er" / "store.db"
    opened = Database(f"sqlite+aiosqlite:///{path}", SystemClock())
    await Schema(opened).require(create=True)
    await add_scope(opened, "r")
    found = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    names = ("store.db", "store.db-wal", "store.db-shm", "store.db.lock")
    assert found == dict.fromkeys(names, 0o600)
    await opened.close()


async def test_a_symbolic_link_to_the_database_is_resolved(
    sqlite: Database, tmp_path: Path
) -> None:
    """Processes that open the file by different names use the same lock files."""
    (link := tmp_path / "link.db").symlink_to(sqlite.path or "")
    by_link = Database(f"sqlite+aiosqlite:///{link}", SystemClock())
    assert by_link.path == sqlite.path
    await by_link.close()


async def test_every_connection_has_our_settings(sqlite: Database) -> None:
    """All connections wait for locks, sync commits, use WAL and check foreign keys."""
    expected = {
        "busy_timeout": database_module.LOCK_TIMEOUT_MS,
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "wal_autocheckpoint": 0,
    }
    for transaction in (sqlite.write, sqlite.read):
        async with transaction() as connection:
            for name, value in expected.items():
                found = await connection.execute(sa.text(f"PRAGMA {name}"))
                assert found.scalar_one() == value, name


async def lock_timeouts(database: Database) -> set[int]:
    """Return how long a writer and a reader wait for a lock, in milliseconds."""
    found: set[int] = set()
    for transaction in (database.write, database.read):
        async with transaction() as connection:
            if database.is_sqlite:
                found.add(int(await connection.scalar(sa.text("PRAGMA busy_timeout"))))
            else:
                query = "SELECT setting FROM pg_settings WHERE name = 'lock_timeout'"
                found.add(int(await connection.scalar(sa.text(query))))
    return found


async def test_the_lock_timeout_is_short_within_the_block(database: Database) -> None:
    """Within the block the lock timeout of writers and readers is short.

    Blocks may be nested, and afterwards the timeout is long again.
    """
    assert await lock_timeouts(database) == {database_module.LOCK_TIMEOUT_MS}
    with database.short_lock_timeout():
        with database.short_lock_timeout():
            assert await lock_timeouts(database) == {database_module.SHORT_LOCK_TIMEOUT_MS}
        assert await lock_timeouts(database) == {database_module.SHORT_LOCK_TIMEOUT_MS}
    assert await lock_timeouts(database) == {database_module.LOCK_TIMEOUT_MS}


async def test_the_lock_timeout_survives_a_rollback(database: Database) -> None:
    """A server rolls the setting back with the transaction, and it is set again."""

    async def fail() -> None:
        async with database.write() as connection:
            await connection.execute(sa.select(1))
            raise RuntimeError("no")

    with database.short_lock_timeout():
        with pytest.raises(RuntimeError):
            await fail()
        assert await lock_timeouts(database) == {database_module.SHORT_LOCK_TIMEOUT_MS}
    with pytest.raises(RuntimeError):
        await fail()
    assert await lock_timeouts(database) == {database_module.LOCK_TIMEOUT_MS}


async def test_a_new_reader_has_the_short_timeout(
    sqlite: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If another program has exclusive access to the file, a run's reader fails soon."""
    monkeypatch.setattr(database_module, "SHORT_LOCK_TIMEOUT_MS", 50)
    other = sqlite3.connect(sqlite.path or "", isolation_level=None)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    with anyio.fail_after(20), sqlite.short_lock_timeout(), pytest.raises(OperationalError):
        await count(sqlite, scopes)
    other.close()


async def test_queued_writers_are_refused_together(
    sqlite: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If another program keeps the lock, queued writers wait once, not one by one."""
    monkeypatch.setattr(database_module, "LOCK_TIMEOUT_MS", 1000)
    other = sqlite3.connect(sqlite.path or "", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    refused: list[str] = []

    async def try_to_write() -> None:
        try:
            await add_scope(sqlite, "r")
        except OperationalError as error:
            refused.append(str(error.orig))

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(try_to_write)
    other.close()
    assert refused == ["database is locked"] * 50
    await add_scope(sqlite, "r")


_INTERRUPTED = """
import signal, sys, anyio
from orchestrator.clock import SystemClock
from orchestrator.store import Database

async def work():
    database = Database(sys.argv[1], SystemClock())
    async with database.read(), database.write():
        print("at work", flush=True)
        await anyio.sleep(600)

# a process that was started in the background ignores the signal
signal.signal(signal.SIGINT, signal.default_int_handler)
anyio.run(work)
"""


def test_an_interrupted_process_ends(sqlite_url: str) -> None:
    """SQLAlchemy makes the thread of each aiosqlite connection a daemon."""
    command = [sys.executable, "-c", _INTERRUPTED, sqlite_url]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "at work\n"
        process.send_signal(signal.SIGINT)
        try:
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert "KeyboardInterrupt" in errors


async def test_one_process_checkpoints_at_a_time(sqlite: Database) -> None:
    """A checkpoint is skipped while another process makes one.

    A checkpoint moves the log into the file.
    """
    assert sqlite.path is not None
    await add_scope(sqlite, "one")
    before = sqlite.path.read_bytes()
    with lock_file(files.lock_path(sqlite.path), wait=False) as is_ours:
        assert is_ours
        await sqlite.checkpoint()
        assert sqlite.path.read_bytes() == before
    await sqlite.checkpoint()
    assert sqlite.path.read_bytes() != before


async def test_a_failed_transaction_is_rolled_back(database: Database) -> None:
    """After an exception nothing of the transaction is kept, and the next one works."""

    async def add_and_fail() -> None:
        async with database.write() as connection:
            await connection.execute(scopes.insert().values(profile="p", region="r", misses=0))
            raise RuntimeError("failed in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        await add_and_fail()
    assert await count(database, scopes) == 0
    await add_scope(database, "r")
    assert await count(database, scopes) == 1


async def test_a_cancelled_transaction_is_atomic(database: Database) -> None:
    """Cancelled at any moment, a transaction is kept as a whole or not at all."""
    for moment in range(40):
        with anyio.move_on_after(moment / 4000):
            async with database.write() as connection:
                for region in (f"a{moment}", f"b{moment}"):
                    row = {"profile": "p", "region": region, "misses": 0}
                    await connection.execute(scopes.insert().values(row))
                    await anyio.lowlevel.checkpoint()
    kept = await count(database, scopes)
    assert kept % 2 == 0
    await add_scope(database, "r")
    assert await count(database, scopes) == kept + 1


async def test_a_cancelled_reader_leaves_no_task_behind(database_url: str) -> None:
    """Such a task would keep the event loop from closing."""
    before = asyncio.all_tasks()
    stuck: set[asyncio.Task[Any]] = set()
    for moment in range(40):
        opened = Database(database_url, SystemClock())
        with anyio.move_on_after(moment / 4000):
            async with opened.read() as connection:
                await connection.execute(sa.select(1))
        await opened.close()
        stuck |= asyncio.all_tasks() - before
    with anyio.fail_after(60):
        while not all(task.done() for task in stuck):
            await anyio.lowlevel.checkpoint()


def locks_on(path: Path) -> list[str]:
    """Return the kernel's list of the locks on a file, without their numbers."""
    lines = Path("/proc/locks").read_text().splitlines()
    return [line.split(maxsplit=1)[1] for line in lines if f":{path.stat().st_ino} " in line]


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="this system does not list its locks")
async def test_opening_a_file_twice_keeps_its_locks(sqlite: Database) -> None:
    """A second `Database` of this process on a file releases no lock of the first."""
    assert sqlite.path is not None
    async with sqlite.read() as connection:
        await connection.execute(sa.select(scopes))
        before = locks_on(sqlite.path)
        await Database(str(sqlite.url), SystemClock()).close()
        assert locks_on(sqlite.path) == before != []


async def test_errors_of_direct_statements_are_sqlalchemy_errors(sqlite: Database) -> None:
    """A statement that bypasses SQLAlchemy fails with SQLAlchemy's error class."""
    await add_scope(sqlite, "r")
    again = "INSERT INTO scopes SELECT * FROM scopes"
    async with sqlite.write() as connection:
        with pytest.raises(sa.exc.IntegrityError, match="UNIQUE"):
            await connection.run_sync(files.execute_directly, again)


async def test_concurrent_writers_lose_no_update(database: Database) -> None:
    """Transactions that read a row and then write it run one after another."""
    await add_scope(database, "r")

    async def add_one() -> None:
        async with database.write() as connection:
            query = sa.select(scopes.c.misses).with_for_update()
            misses = (await connection.execute(query)).scalar_one()
            await connection.execute(scopes.update().values(misses=misses + 1))

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(add_one)
    async with database.read() as connection:
        assert (await connection.execute(sa.select(scopes.c.misses))).scalar_one() == 20


async def test_a_reader_sees_one_snapshot(database: Database) -> None:
    """A reader's transaction does not see what is committed meanwhile."""
    query = sa.select(sa.func.count()).select_from(scopes)
    async with database.read() as reader:
        assert (await reader.execute(query)).scalar_one() == 0
        await add_scope(database, "r")
        assert (await reader.execute(query)).scalar_one() == 0
    assert await count(database, scopes) == 1


async def test_times_are_stored_exactly(database: Database) -> None:
    """A time in any zone is kept to the microsecond, and is read with a time zone."""
    moment = datetime(2026, 3, 1, 20, 0, 0, 1, tzinfo=timezone(timedelta(hours=8)))
    async with database.write() as connection:
        row = {"id": "i", "host": "h", "pid": 1, "started_at": moment}
        await connection.execute(instances.insert().values(row))
    async with database.read() as connection:
        kept = (await connection.execute(sa.select(instances.c.started_at))).scalar_one()
        ended = (await connection.execute(sa.select(instances.c.ended_at))).scalar_one()
    assert kept == moment
    assert kept.tzinfo is not None
    assert ended is None


async def test_processes_on_a_store_share_one_clock(database: Database, clock: FakeClock) -> None:
    """On SQLite the time is this machine's; on PostgreSQL it is the server's.

    The server's time is right even if the client's clock is wrong, and advances within a
    transaction.
    """
    if database.is_sqlite:
        assert await now(database) == NOON
        return
    clock.advance(timedelta(days=1000))
    assert abs(await now(database) - datetime.now(UTC)) < timedelta(minutes=5)
    async with database.write() as connection:
        first = await database.now(connection)
        assert await database.now(connection) > first
