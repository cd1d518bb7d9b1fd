"""The schema: migrations make the declared tables, and upgrade the stores of older versions."""

import socket
import sys
import warnings
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from anyio.abc import Process
from sqlalchemy.types import TypeEngine

from orchestrator.clock import SystemClock
from orchestrator.errors import StoreError
from orchestrator.orchestrator import upgrade_store
from orchestrator.settings import load_settings
from orchestrator.store import Database, Schema
from orchestrator.store.migrations import HEAD, migrations_folder
from orchestrator.store.tables import UtcDateTime, attempts, jobs, metadata
from tests.job_factory import make_jobs, make_requests, read_event_kinds, read_job

pytestmark = pytest.mark.anyio


@pytest.fixture
async def empty(empty_url: str, anyio_backend: str) -> AsyncIterator[Database]:
    """An open store without tables."""
    opened = Database(empty_url, SystemClock())
    yield opened
    await opened.close()


async def mark(database: Database, revision: str) -> None:
    """Let the store look as if it were of this revision."""
    async with database.write() as connection:
        mark = sa.text("UPDATE alembic_version SET version_num = :revision")
        await connection.execute(mark, {"revision": revision})


ORDERED = {"ix_jobs_claim", "ix_jobs_describe"}
"""Indexes of expressions, which SQLite does not describe; the tests of query plans cover them."""


def migrate_to(connection: sa.Connection, revision: str) -> None:
    """Migrate to a revision before the newest."""
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def differences(connection: sa.Connection) -> list[object]:
    def is_comparable(_: object, name: str | None, *_more: object) -> bool:
        return not (connection.dialect.name == "sqlite" and name in ORDERED)

    options = {"compare_type": True, "include_object": is_comparable}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", f".*({'|'.join(ORDERED)})")
        return list(
            compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
        )


async def test_the_migrated_tables_are_the_declared_ones(database: Database) -> None:
    """Alembic finds no difference between the migrated and the declared tables."""
    async with database.read() as connection:
        assert await connection.run_sync(differences) == []


async def test_the_migrated_checks_are_the_declared_ones(database: Database) -> None:
    """The CHECK constraints, which Alembic does not compare, have the same names."""
    async with database.read() as connection:
        found = await connection.run_sync(
            lambda sync: {check["name"] for check in sa.inspect(sync).get_check_constraints("jobs")}
        )
    declared = {c.name for c in jobs.constraints if isinstance(c, sa.CheckConstraint)}
    assert found == declared


def test_the_newest_revision_is_the_newest_script() -> None:
    """The revision that the program requires is the last of the migrations."""
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


async def test_a_missing_store_is_an_error(empty: Database) -> None:
    """The message names the database and the command that creates the tables."""
    with pytest.raises(StoreError, match="There is no store at") as caught:
        await Schema(empty).require(create=False)
    assert (empty.url.database or "?") in caught.value.message
    assert "enqueue" in caught.value.remedy
    assert await Schema(empty).revision() is None


@pytest.mark.parametrize(
    "tables",
    [
        ("CREATE TABLE jobs (id INTEGER)",),
        (
            "CREATE TABLE alembic_version (version_num VARCHAR(32))",
            "INSERT INTO alembic_version VALUES ('1ae14f0b2c3d')",
        ),
        (
            "CREATE TABLE alembic_version (version_num VARCHAR(32))",
            "INSERT INTO alembic_version VALUES ('0003')",
        ),
        (
            "CREATE TABLE alembic_version (version_num VARCHAR(32))",
            "INSERT INTO alembic_version VALUES ('0003')",
            "CREATE TABLE jobs (id INTEGER)",
        ),
        ("CREATE VIEW jobs AS SELECT 1 AS id",),
    ],
    ids=[
        "a table of the same name",
        "revisions of another program",
        "numbers as revisions",
        "both",
        "a view of the same name",
    ],
)
async def test_tables_of_another_program_are_left_alone(
    empty: Database, tables: Sequence[str]
) -> None:
    """Nothing is created beside them, and the message says so."""
    async with empty.write() as connection:
        for statement in tables:
            await connection.execute(sa.text(statement))
        before = await connection.run_sync(_table_names)
    with pytest.raises(StoreError, match="tables of another program"):
        await Schema(empty).require(create=True)
    async with empty.read() as connection:
        assert await connection.run_sync(_table_names) == before


async def test_only_a_server_is_shared_with_other_programs(empty: Database) -> None:
    """Tables of other programs are refused in a file, but accepted on a server.

    Such a file belongs to another program, while a database on a server may be shared.
    """
    async with empty.write() as connection:
        await connection.execute(sa.text("CREATE TABLE articles (id INTEGER)"))
    if empty.is_sqlite:
        with pytest.raises(StoreError, match="tables of another program"):
            await Schema(empty).require(create=True)
    else:
        await Schema(empty).require(create=True)
        await make_jobs(empty, make_requests(1))


def _table_names(connection: sa.Connection) -> list[str]:
    return sorted(sa.inspect(connection).get_table_names())


async def test_a_missing_store_is_created(empty: Database) -> None:
    """If it may be created, it exists afterwards, and is not created again."""
    await Schema(empty).require(create=True)
    assert await Schema(empty).revision() == HEAD
    await Schema(empty).require(create=False)


@pytest.mark.parametrize("create", [False, True])
@pytest.mark.parametrize(
    ("revision", "kind", "remedy"),
    [("0000", "older", "orchestrator db upgrade"), ("9999", "newer", "or a later one")],
)
async def test_a_store_of_another_version_is_left_alone(
    empty: Database, revision: str, kind: str, remedy: str, create: bool
) -> None:
    """An older or newer store is an error that says what to do, and is not changed."""
    await Schema(empty).require(create=True)
    await mark(empty, revision)
    with pytest.raises(StoreError, match=f"is of an? {kind} version") as caught:
        await Schema(empty).require(create=create)
    assert remedy in caught.value.remedy
    assert await Schema(empty).revision() == revision


MORNING, NOON = (datetime(2026, 3, 1, hour, tzinfo=UTC) for hour in (8, 12))

OLD_JOB: Mapping[str, object] = {
    "tag": "t1",
    "object_prefix": "p-t1",
    "batch": "night",
    "profile": "default",
    "region": "ap-tokyo",
    "bucket": "b-1",
    "format": "RAW",
    "prefix": "p",
    "role_name": None,
    "exact_names": False,
    "only_root_disk": True,
    "priority": 3,
    "image_ids": ["img-1"],
    "fingerprint": "f1",
    "state": "unknown",
    "reason": "answer lost",
    "due_at": NOON,
    "size_gib": 50,
    "attempt": 4,
    "spent": 2,
    "waits": 5,
    "doubted": True,
    "clean_since": MORNING,
    "fenced_until": NOON,
    "created_at": MORNING,
}
"""A job in the columns of revision 0001."""

OLD_ATTEMPT = {
    "job_id": 1,
    "number": 4,
    "owner": "a",
    "probe": False,
    "claimed_at": MORNING,
    "signed_at": MORNING,
    "expires_at": NOON,
    "reaction": "stop",
}

OLD_EVENT = {"job_id": 1, "at": NOON, "kind": "claimed", "actor": "a", "details": {"a": 1}}

RENAMED = {
    "spent": "attempts_charged",
    "waits": "deferrals",
    "doubted": "maybe_applied",
    "clean_since": "absent_since",
    "fenced_until": "no_resend_before",
}


async def make_old_store(database: Database, **values: object) -> None:
    """Create a store of revision 0001 with one job, its attempt and its event.

    Args:
        values: values of the job that differ from `OLD_JOB`.
    """
    async with database.write() as connection:
        await connection.run_sync(migrate_to, "0001")
        for name, row in (
            ("jobs", {**OLD_JOB, **values}),
            ("attempts", OLD_ATTEMPT),
            ("events", OLD_EVENT),
        ):
            table = sa.table(name, *(sa.column(key, type_of(value)) for key, value in row.items()))
            await connection.execute(table.insert().values(row))


def type_of(value: object) -> TypeEngine[Any] | None:
    """Return the type of a column where SQLAlchemy does not know it from the value."""
    if isinstance(value, datetime):
        return UtcDateTime()
    return sa.JSON() if isinstance(value, list | dict) else None


async def test_the_jobs_of_an_older_store_are_kept(empty: Database) -> None:
    """After the upgrade each column has its value, and new jobs can be added."""
    await make_old_store(empty)
    await Schema(empty).upgrade()
    found = await read_job(empty, 1)
    expected = {RENAMED.get(name, name): value for name, value in OLD_JOB.items()}
    assert {name: getattr(found, name) for name in expected} == expected
    assert await read_event_kinds(empty, 1) == ["claimed"]
    assert await make_jobs(empty, make_requests(2)) == [2, 3]


async def test_stored_values_of_an_older_store_are_renamed(empty: Database) -> None:
    """The reaction of an attempt and the reason of a job that a halt has put back."""
    await make_old_store(empty, reason="stopped: clock")
    await Schema(empty).upgrade()
    async with empty.read() as connection:
        reactions = (await connection.execute(sa.select(attempts.c.reaction))).scalars().all()
    assert (await read_job(empty, 1)).reason == "halted: clock"
    assert reactions == ["halt"]


@pytest.mark.parametrize(("reason", "kept"), [("not before", NOON), ("retried", None)])
async def test_the_requested_time_of_an_older_store_is_kept_where_it_is_known(
    empty: Database, reason: str, kept: datetime | None
) -> None:
    """An upgrade keeps the requested time of a job that was not sent or postponed.

    Until then `due_at` is the time that was requested.
    """
    await make_old_store(empty, state="queued", reason=reason)
    await Schema(empty).upgrade()
    found = await read_job(empty, 1)
    assert (found.not_before, found.due_at) == (kept, NOON)


async def test_events_of_an_older_store_stay_append_only(empty: Database) -> None:
    """The triggers that protect the events are still there after the upgrade."""
    await make_old_store(empty)
    await Schema(empty).upgrade()
    statements = ["UPDATE events SET kind = 'x'", "DELETE FROM events"]
    for statement in [*statements, *([] if empty.is_sqlite else ["TRUNCATE events"])]:
        with pytest.raises(sa.exc.DBAPIError, match="append-only"):
            await execute(empty, statement)


async def execute(database: Database, statement: str) -> None:
    """Execute a statement in a transaction of its own."""
    async with database.write() as connection:
        await connection.execute(sa.text(statement))


@asynccontextmanager
async def running(url: str) -> AsyncIterator[Process]:
    """Start a process that works on the store; kill it at the end of the block."""
    command = [sys.executable, "-m", "tests.job_queue.registered_process", url]
    root = Path(__file__).parents[2]
    async with await anyio.open_process(command, cwd=root, stderr=None) as process:
        assert process.stdout is not None
        try:
            with anyio.fail_after(60):
                await process.stdout.receive()
            yield process
        finally:
            if process.returncode is None:
                process.kill()


async def test_a_store_in_use_is_not_upgraded(empty: Database, empty_url: str) -> None:
    """A store in use is not upgraded, and the message names the processes.

    When they have ended, the store is upgraded.
    """
    async with empty.write() as connection:
        await connection.run_sync(migrate_to, "0003")
    settings = load_settings({"database_url": empty_url}, {})
    async with running(empty_url) as one, running(empty_url) as other:
        with pytest.raises(StoreError, match="is in use by") as caught:
            await upgrade_store(settings)
        for process in (one, other):
            assert f"{socket.gethostname()} (pid {process.pid})" in caught.value.message
        assert "Action required" in caught.value.remedy
        assert await Schema(empty).revision() == "0003"
        one.kill()  # its row in the table of instances remains
        assert other.stdin is not None
        await other.stdin.aclose()
        await one.wait()
        await other.wait()
        assert await upgrade_store(settings) == ("0003", HEAD)


async def test_a_current_store_in_use_needs_no_upgrade(database: Database) -> None:
    """If there is nothing to upgrade, the command succeeds beside a running process."""
    url = database.url.render_as_string(hide_password=False)
    async with running(url):
        assert await upgrade_store(load_settings({"database_url": url}, {})) == (HEAD, HEAD)


async def test_several_processes_may_create_the_store(empty_url: str) -> None:
    """Processes that start at the same time on a missing store all find it created."""
    opened = [Database(empty_url, SystemClock()) for _ in range(6)]

    async def require(database: Database) -> None:
        try:
            await Schema(database).require(create=True)
            assert await Schema(database).revision() == HEAD
        finally:
            await database.close()

    async with anyio.create_task_group() as tasks:
        for one in opened:
            tasks.start_soon(require, one)


async def test_messages_do_not_contain_the_password() -> None:
    """They name the URL of a store without its password."""
    opened = Database("postgresql+psycopg://me:hunter2@127.0.0.1:1/none", SystemClock())
    assert "hunter2" not in Schema(opened)._name
    await opened.close()
