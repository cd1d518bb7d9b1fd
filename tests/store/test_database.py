"""Connections that can be trusted: private files, one clock, whole transactions."""

import asyncio
import sqlite3
import stat
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import anyio
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from orchestrator.clock import SystemClock
from orchestrator.errors import StoreError
from orchestrator.store import Database, Schema, describe_url
from orchestrator.store import sqlite as files
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


async def test_a_new_file_is_its_owners_alone(tmp_path: Path) -> None:
    """Nobody else reads the database, its log, or what SQLite lays beside it."""
    path = tmp_path / "deep" / "er" / "store.db"
    opened = Database(f"sqlite+aiosqlite:///{path}", SystemClock())
    await Schema(opened).require(create=True)
    await add_scope(opened, "r")
    found = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    names = ("store.db", "store.db-wal", "store.db-shm", "store.db.lock")
    assert found == dict.fromkeys(names, 0o600)
    await opened.close()


async def test_a_link_leads_to_what_lies_beside_the_file_itself(
    sqlite: Database, tmp_path: Path
) -> None:
    """Locks are found by whoever comes, under whatever name."""
    (link := tmp_path / "link.db").symlink_to(sqlite.path or "")
    by_link = Database(f"sqlite+aiosqlite:///{link}", SystemClock())
    assert by_link.path == sqlite.path
    await by_link.close()


async def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """A folder in the file's place, or a file in the folder's, is a message and no traceback."""
    (tmp_path / "file").touch()
    for place in (tmp_path, tmp_path / "file" / "store.db"):
        with pytest.raises(StoreError, match="cannot be opened") as caught:
            Database(f"sqlite+aiosqlite:///{place}", SystemClock())
        assert str(place) in caught.value.message


def test_a_network_file_system_is_refused(tmp_path: Path) -> None:
    """The file system that holds the file decides, not the one around it."""
    mounts = tmp_path / "mounts"
    mounts.write_text("none / ext4 rw 0 0\nhost:/x /mnt/my\\040share nfs4 rw 0 0\n")
    files.refuse_shared_file_system(Path("/mnt/store.db"), mounts)
    with pytest.raises(StoreError, match="nfs4"):
        files.refuse_shared_file_system(Path("/mnt/my share/deep/store.db"), mounts)


@pytest.mark.parametrize(
    ("version", "racy"),
    [((3, 40, 1), True), ((3, 44, 6), False), ((3, 50, 7), False), ((3, 51, 3), False)],
)
def test_the_versions_that_lose_commits_are_known(
    version: tuple[int, int, int], racy: bool
) -> None:
    """Where two checkpoints at once may lose commits, automatic ones are off."""
    assert files.has_wal_reset_race(version) is racy


async def test_every_connection_keeps_its_word(sqlite: Database) -> None:
    """Writers and readers wait long, sync fully, log ahead and mind foreign keys."""
    expected = {
        "busy_timeout": files.BUSY_TIMEOUT_MS,
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
    }
    for transaction in (sqlite.write, sqlite.read):
        async with transaction() as connection:
            for name, value in expected.items():
                said = await connection.execute(sa.text(f"PRAGMA {name}"))
                assert said.scalar_one() == value, name


async def limits(database: Database) -> set[int]:
    """Return how long a writer and a reader wait for a lock now, in milliseconds."""
    found: set[int] = set()
    for transaction in (database.write, database.read):
        async with transaction() as connection:
            if database.is_sqlite:
                found.add(int(await connection.scalar(sa.text("PRAGMA busy_timeout"))))
            else:
                query = "SELECT setting FROM pg_settings WHERE name = 'lock_timeout'"
                found.add(int(await connection.scalar(sa.text(query))))
    return found


async def test_a_run_waits_briefly_for_a_lock(database: Database) -> None:
    """Within the block, writers and readers are refused soon; after it they wait long again."""
    assert await limits(database) == {files.BUSY_TIMEOUT_MS}
    with database.short_lock_timeout():
        with database.short_lock_timeout():
            assert await limits(database) == {files.SHORT_TIMEOUT_MS}
        assert await limits(database) == {files.SHORT_TIMEOUT_MS}
    assert await limits(database) == {files.BUSY_TIMEOUT_MS}


async def test_a_transaction_that_was_rolled_back_leaves_the_limit(database: Database) -> None:
    """A server takes back with a transaction what was set in it."""

    async def fail() -> None:
        async with database.write() as connection:
            await connection.execute(sa.select(1))
            raise RuntimeError("no")

    with database.short_lock_timeout():
        with pytest.raises(RuntimeError):
            await fail()
        assert await limits(database) == {files.SHORT_TIMEOUT_MS}
    with pytest.raises(RuntimeError):
        await fail()
    assert await limits(database) == {files.BUSY_TIMEOUT_MS}


async def test_a_reader_is_refused_soon(sqlite: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program that holds the file for itself alone keeps a run's reader only briefly."""
    monkeypatch.setattr(files, "SHORT_TIMEOUT_MS", 50)
    other = sqlite3.connect(sqlite.path or "", isolation_level=None)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    with anyio.fail_after(20), sqlite.short_lock_timeout(), pytest.raises(OperationalError):
        await count(sqlite, scopes)
    other.close()


async def test_one_process_checkpoints_at_a_time(sqlite: Database) -> None:
    """A checkpoint moves the log into the file; while another holds the right, it passes by."""
    assert sqlite.path is not None
    await add_scope(sqlite, "one")
    before = sqlite.path.read_bytes()
    with files.sole_checkpointer(sqlite.path) as alone:
        assert alone
        await sqlite.checkpoint()
        assert sqlite.path.read_bytes() == before
    await sqlite.checkpoint()
    assert sqlite.path.read_bytes() != before


async def test_a_transaction_is_whole_or_not_at_all(database: Database) -> None:
    """What an exception interrupts leaves nothing, and the next transaction goes on."""

    async def add_and_fail() -> None:
        async with database.write() as connection:
            await connection.execute(scopes.insert().values(profile="p", region="r", misses=0))
            raise RuntimeError("the plug was pulled")

    with pytest.raises(RuntimeError, match="plug"):
        await add_and_fail()
    assert await count(database, scopes) == 0
    await add_scope(database, "r")
    assert await count(database, scopes) == 1


async def test_a_cancelled_transaction_is_whole_or_not_at_all(database: Database) -> None:
    """Cancelled over and over, at any moment, the store keeps nothing half done and goes on."""
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


async def test_whoever_is_cut_off_leaves_nothing_behind(database_url: str) -> None:
    """A reader may be cancelled at any moment: no task of it stays to hold up the loop's end."""
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
    """The kernel's list of the locks on a file, without their numbers."""
    lines = Path("/proc/locks").read_text().splitlines()
    return [line.split(maxsplit=1)[1] for line in lines if f":{path.stat().st_ino} " in line]


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="this system does not list its locks")
async def test_opening_a_file_twice_keeps_its_locks(sqlite: Database) -> None:
    """A second store of this process on the same file takes no lock from the first."""
    assert sqlite.path is not None
    async with sqlite.read() as connection:
        await connection.execute(sa.select(scopes))
        before = locks_on(sqlite.path)
        await Database(str(sqlite.url), SystemClock()).close()
        assert locks_on(sqlite.path) == before != []


async def test_many_writers_take_turns(database: Database) -> None:
    """Transactions that read first and write later lose no update to one another."""
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
    """What is written meanwhile does not show within a reader's transaction."""
    query = sa.select(sa.func.count()).select_from(scopes)
    async with database.read() as reader:
        assert (await reader.execute(query)).scalar_one() == 0
        await add_scope(database, "r")
        assert (await reader.execute(query)).scalar_one() == 0
    assert await count(database, scopes) == 1


async def test_moments_come_back_as_they_went(database: Database) -> None:
    """A moment of any zone is kept to the microsecond, and is aware when it is read."""
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


async def test_all_who_share_a_store_share_its_clock(database: Database, clock: FakeClock) -> None:
    """A file goes by this machine's clock, a server by its own, whatever its clients' clocks."""
    if database.is_sqlite:
        assert await now(database) == NOON
        return
    clock.advance(timedelta(days=1000))
    assert abs(await now(database) - datetime.now(UTC)) < timedelta(minutes=5)
    async with database.write() as connection:
        first = await database.now(connection)
        assert await database.now(connection) > first


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("sqlite+aiosqlite:////var/x.db", "/var/x.db"),
        ("postgresql+psycopg://me:secret@host/db", "postgresql+psycopg://me:***@host/db"),
    ],
)
def test_a_store_is_named_without_its_password(url: str, name: str) -> None:
    """A person reads a path, or a URL that gives no password away."""
    assert describe_url(url) == name
