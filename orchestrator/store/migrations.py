"""Create, check and upgrade the schema, with Alembic on a connection of ours."""

import threading
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from anyio import to_thread
from sqlalchemy.exc import DBAPIError

from orchestrator.errors import StoreError
from orchestrator.store.database import Database, acquire_exclusive_lock, describe_url

HEAD: Final = "0005"
"""Newest revision. Written here because Alembic's import is slow, and every command checks it."""

_MIGRATING = threading.Lock()
"""One migration at a time in this process: Alembic keeps its state in global variables."""


class Schema:
    """Check, create and upgrade the tables of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._name = describe_url(str(database.url))

    async def require(self, *, create: bool) -> None:
        """Check that the schema is of this program's version.

        Args:
            create: create the tables if there are none.

        Raises:
            StoreError: the tables are missing, older, newer, or cannot be read.
        """
        try:
            revision = await self.revision()
        except DBAPIError as error:
            raise StoreError(
                f"The store {self._name} cannot be used: {error.orig}.",
                "Check the path or URL; if the file is damaged, restore it from a backup.",
            ) from error
        if revision is None and create:
            await self.upgrade()
        elif revision is None:
            raise StoreError(
                f"There is no store at {self._name} yet.",
                "Create it with `orchestrator enqueue`, or name another with --database-url.",
            )
        elif revision < HEAD:
            raise StoreError(
                f"The store {self._name} is of an older version ({revision}, not {HEAD}).",
                "Back it up, then run `orchestrator db upgrade`.",
            )
        self._refuse_newer(revision)

    async def revision(self) -> str | None:
        """Return the revision of the tables; ``None`` if there are none."""
        async with self._database.read() as connection:
            if await connection.run_sync(_has_table, "alembic_version"):
                query = sa.text("SELECT version_num FROM alembic_version")
                revision: str | None = await connection.scalar(query)
                return revision
            if await connection.run_sync(_has_table, "jobs"):
                raise StoreError(
                    f"The database {self._name} contains tables of another program.",
                    "Name another database with --database-url.",
                )
            return None

    async def upgrade(self) -> None:
        """Create the tables, or upgrade them to the newest revision, in one transaction.

        Raises:
            StoreError: they are of a newer revision than this program's.
        """
        self._refuse_newer(await self.revision())
        await to_thread.run_sync(_MIGRATING.acquire)
        try:
            async with self._database.write() as connection:
                await acquire_exclusive_lock(connection)
                await connection.run_sync(_run_migrations)
        finally:
            _MIGRATING.release()

    def _refuse_newer(self, revision: str | None) -> None:
        if revision is not None and revision > HEAD:
            raise StoreError(
                f"The store {self._name} is of a newer version ({revision}, not {HEAD}).",
                "Use the version of orchestrator that upgraded it, or a later one.",
            )


def _has_table(connection: sa.Connection, name: str) -> bool:
    return sa.inspect(connection).has_table(name)


def _run_migrations(connection: sa.Connection) -> None:
    from alembic import command  # noqa: PLC0415 - slow to import, and rarely needed
    from alembic.config import Config  # noqa: PLC0415 - likewise

    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def migrations_folder() -> Path:
    """Return the folder of the migrations: in the installed package, or beside it in a checkout."""
    package = Path(__file__).parent.parent
    inside = package / "migrations"
    return inside if inside.is_dir() else package.parent / "migrations"
