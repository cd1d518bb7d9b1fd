"""The schema: migrated equals declared, and a store of another version is told apart."""

import warnings
from collections.abc import AsyncIterator

import anyio
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from orchestrator.clock import SystemClock
from orchestrator.errors import StoreError
from orchestrator.job_states import JobState
from orchestrator.reporting.status import status
from orchestrator.store import Database, Schema
from orchestrator.store.migrations import HEAD, migrations_folder
from orchestrator.store.tables import jobs, metadata
from tests.stores import make_jobs, numbered

pytestmark = pytest.mark.anyio


@pytest.fixture
async def empty(empty_url: str, anyio_backend: str) -> AsyncIterator[Database]:
    """An open store without tables."""
    opened = Database(empty_url, SystemClock())
    yield opened
    await opened.close()


async def mark(database: Database, revision: str) -> None:
    async with database.write() as connection:
        mark = sa.text("UPDATE alembic_version SET version_num = :revision")
        await connection.execute(mark, {"revision": revision})


ORDERED = {"ix_jobs_claim", "ix_jobs_describe"}
"""Indexes of expressions, which SQLite does not tell; that they are there the plans show."""


def bring_to(connection: sa.Connection, revision: str) -> None:
    """Migrates that far and no farther."""
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
    """Nothing is left to migrate from what the migrations made to what the tables say."""
    async with database.read() as connection:
        assert await connection.run_sync(differences) == []


async def test_the_migrated_rules_are_the_declared_ones(database: Database) -> None:
    """The CHECK constraints, which no comparison looks at, bear the same names."""
    async with database.read() as connection:
        found = await connection.run_sync(
            lambda sync: {check["name"] for check in sa.inspect(sync).get_check_constraints("jobs")}
        )
    declared = {c.name for c in jobs.constraints if isinstance(c, sa.CheckConstraint)}
    assert found == declared


def test_the_newest_revision_is_the_newest_script() -> None:
    """The revision that the program asks for is the last of the migrations."""
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


async def test_a_missing_store_is_told(empty: Database) -> None:
    """Without tables the message names the place and the command that makes them."""
    with pytest.raises(StoreError, match="There is no store at") as caught:
        await Schema(empty).require(create=False)
    assert (empty.url.database or "?") in caught.value.message
    assert "enqueue" in caught.value.remedy
    assert await Schema(empty).revision() is None


async def test_a_missing_store_is_made(empty: Database) -> None:
    """Where it may be created it is there afterwards, and is not made again."""
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
    """An older or newer store is named as such, with what to do, and is not touched."""
    await Schema(empty).require(create=True)
    await mark(empty, revision)
    with pytest.raises(StoreError, match=f"is of an? {kind} version") as caught:
        await Schema(empty).require(create=create)
    assert remedy in caught.value.remedy
    assert await Schema(empty).revision() == revision


async def test_the_jobs_of_an_older_store_go_on(empty: Database) -> None:
    """What waited in it is there after the upgrade, and so is what comes after."""
    async with empty.write() as connection:
        await connection.run_sync(bring_to, "0001")
    await make_jobs(empty, numbered(3))
    await Schema(empty).upgrade()
    await make_jobs(empty, numbered(5))
    assert (await status(empty)).counts[JobState.QUEUED] == 5


async def test_several_may_make_it_at_once(empty_url: str) -> None:
    """Processes that start together on a missing store all find it made."""
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


async def test_a_password_is_not_told() -> None:
    """The message about a store names its URL without the password."""
    opened = Database("postgresql+psycopg://me:hunter2@127.0.0.1:1/none", SystemClock())
    assert "hunter2" not in Schema(opened)._name
    await opened.close()
