"""The schema's version: created, checked, upgraded by Alembic on our own connection."""

import threading
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from anyio import to_thread
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.errors import StoreError
from orchestrator.store.database import Database, acquire_exclusive_lock, describe_url

HEAD: Final = "0004"
"""Newest revision; written here so that no command waits for Alembic's import to check it."""

_MIGRATING = threading.Lock()
"""Alembic keeps the migration that it runs in a global of the process: one store at a time."""


class Schema:
    """The schema of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._name = describe_url(str(database.url))

    async def require(self, *, create: bool) -> None:
        """Makes sure that the schema is the one this program knows.

        Args:
            create: make the tables where there are none.

        Raises:
            StoreError: the schema is missing, older or newer; the message says what to do.
        """
        try:
            revision = await self.revision()
        except DBAPIError as error:
            raise StoreError(
                f"The store {self._name} cannot be used: {error.orig}.",
                "Check the path or URL; a damaged file comes back from a backup.",
            ) from error
        match revision:
            case revision if revision == HEAD:
                return
            case None if create:
                await self.upgrade()
            case None:
                raise StoreError(
                    f"There is no store at {self._name} yet.",
                    "`orchestrator enqueue` makes one; --database-url names another.",
                )
            case revision if revision < HEAD:
                raise StoreError(
                    f"The store {self._name} is of an older version ({revision}, not {HEAD}).",
                    "Back it up, then run `orchestrator db upgrade`.",
                )
            case revision:
                raise self._too_new(revision)

    async def revision(self) -> str | None:
        """The revision of the tables that are there; ``None`` where there are none."""
        async with self._database.read() as connection:
            if not await connection.run_sync(_has_table, "alembic_version"):
                await self._refuse_foreign_tables(connection)
                return None
            query = sa.text("SELECT version_num FROM alembic_version")
            revision: str | None = (await connection.execute(query)).scalar_one_or_none()
            return revision

    async def upgrade(self) -> None:
        """Brings the tables to the newest revision, all in one transaction.

        Raises:
            StoreError: they are of a newer revision than this program knows.
        """
        revision = await self.revision()
        if revision is not None and revision > HEAD:
            raise self._too_new(revision)
        await to_thread.run_sync(_MIGRATING.acquire)
        try:
            async with self._database.write() as connection:
                await acquire_exclusive_lock(connection)
                await connection.run_sync(_run_migrations)
        finally:
            _MIGRATING.release()

    async def _refuse_foreign_tables(self, connection: AsyncConnection) -> None:
        if await connection.run_sync(_has_table, "jobs"):
            raise StoreError(
                f"The database {self._name} holds tables of another program.",
                "Name another place with --database-url.",
            )

    def _too_new(self, revision: str) -> StoreError:
        return StoreError(
            f"The store {self._name} is of a newer version ({revision}, not {HEAD}).",
            "Use the version of orchestrator that wrote it, or a later one.",
        )


def _has_table(connection: sa.Connection, name: str) -> bool:
    return sa.inspect(connection).has_table(name)


def _run_migrations(connection: sa.Connection) -> None:
    from alembic import command  # noqa: PLC0415 - slow to import, and seldom needed
    from alembic.config import Config  # noqa: PLC0415 - likewise

    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def migrations_folder() -> Path:
    """The migrations: inside an installed package, beside it in a checkout."""
    package = Path(__file__).parent.parent
    inside = package / "migrations"
    return inside if inside.is_dir() else package.parent / "migrations"
