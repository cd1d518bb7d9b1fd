"""Create, check and upgrade the schema, with Alembic on a connection of ours."""

import re
import threading
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from anyio import to_thread
from sqlalchemy.exc import DBAPIError

from orchestrator.database_url import describe_url
from orchestrator.errors import NoStoreError, StoreError
from orchestrator.store.database import Database, acquire_exclusive_lock
from orchestrator.store.error_classification import classify_store_error, store_error_text
from orchestrator.store.postgresql import check_server, connection_remedy, schema_with_tables

HEAD: Final = "0007"
"""Newest revision. Written here because Alembic's import is slow, and every command checks it."""

_OUR_REVISION = re.compile("[0-9]{4}")
_OUR_TABLES = {"jobs", "job_images", "attempts"}
"""Tables of every revision."""

_MAY_NOT_CREATE = {"42501", "3F000"}
"""SQLSTATE: insufficient privilege, and no schema in which to create."""

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
            NoStoreError: there are no tables, and none were to be created.
            StoreError: the tables are older, newer, or cannot be used.
        """
        try:
            await self._check_server()
            revision = await self.revision()
        except DBAPIError as error:
            remedy = classify_store_error(error).remedy
            if not self._database.is_sqlite and getattr(error.orig, "sqlstate", None) is None:
                remedy = connection_remedy(self._database.url)
            raise StoreError(
                f"The store {self._name} cannot be used: {store_error_text(error)}.", remedy
            ) from error
        if revision is None and create:
            await self._create()
        elif revision is None:
            await self._refuse_hidden()
            raise NoStoreError(self._name)
        elif revision < HEAD:
            raise StoreError(
                f"The store {self._name} is of an older version ({revision}, not {HEAD}).",
                "Back it up, then run `orchestrator db upgrade`. Without permission to write it, "
                "upgrade a copy.",
            )
        self._refuse_newer(revision)

    async def _check_server(self) -> None:
        if not self._database.is_sqlite:
            async with self._database.read() as connection:
                await check_server(connection, self._name, read_only=self._database.read_only)

    async def _create(self) -> None:
        """Create the tables.

        Raises:
            StoreError: this role may not create tables.
        """
        try:
            await self.upgrade()
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) not in _MAY_NOT_CREATE:
                raise
            raise StoreError(
                f"The tables of the store {self._name} cannot be created: "
                f"{store_error_text(error)}.",
                "Let an administrator grant it (GRANT CREATE, USAGE ON SCHEMA public TO ...), or "
                "create a database that belongs to this role.",
            ) from error

    async def _refuse_hidden(self) -> None:
        if self._database.is_sqlite:
            return
        async with self._database.read() as connection:
            schema = await schema_with_tables(connection)
        if schema is not None:
            raise StoreError(
                f"The tables of the store {self._name} are in the schema {schema}, which this role "
                "may not use, or which is not in its search_path.",
                f"GRANT USAGE ON SCHEMA {schema} and SELECT on its tables to this role, or set its "
                "search_path.",
            )

    async def revision(self) -> str | None:
        """Return the revision of the tables; ``None`` if there are none.

        Raises:
            StoreError: the database is that of another program.
        """
        async with self._database.read() as connection:
            tables = set(await connection.run_sync(_table_and_view_names))
            others = tables - {"alembic_version"}
            revision: str | None = None
            if "alembic_version" in tables:
                query = sa.text("SELECT version_num FROM alembic_version")
                revision = await connection.scalar(query)
        is_ours = others >= _OUR_TABLES
        if is_ours and revision is not None and _OUR_REVISION.fullmatch(revision):
            return revision
        # a database on a server may be shared, but not a file, nor a table's name
        if revision is not None or "jobs" in others or (self._database.is_sqlite and others):
            raise StoreError(
                f"The database {self._name} contains tables of another program.",
                "Name another database with --database-url.",
            )
        return None

    async def upgrade(self) -> None:
        """Create the tables, or upgrade them to the newest revision, in one transaction.

        Raises:
            StoreError: they are of a newer revision, or the server cannot hold a store.
        """
        await self._check_server()
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


def _table_and_view_names(connection: sa.Connection) -> list[str]:
    inspector = sa.inspect(connection)
    return [*inspector.get_table_names(), *inspector.get_view_names()]


def _run_migrations(connection: sa.Connection) -> None:
    from alembic import command  # noqa: PLC0415 - slow to import, and rarely needed
    from alembic.config import Config  # noqa: PLC0415 - likewise

    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def migrations_folder() -> Path:
    """Return the folder of the migrations.

    An installed package contains it. In a checkout it is beside the package.
    """
    package = Path(__file__).parent.parent
    inside = package / "migrations"
    return inside if inside.is_dir() else package.parent / "migrations"
