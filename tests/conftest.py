"""Fixtures for all tests: a fake clock, and a real store on each kind of database."""

import os
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path

import anyio
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings

from orchestrator.clock import SystemClock
from orchestrator.store import Database, Schema
from orchestrator.store.tables import metadata
from tests import postgresql_server as servers
from tests.postgresql_server import administer, fresh_database, text_of

from .job_factory import FakeClock
from .store_and_cloud import StoreAndCloud, open_store_and_cloud

# An example takes milliseconds, and several times as long on a busy machine. The usual deadline of
# 0.2 seconds would fail there; this one still finds work that grows with the square of its input.
settings.register_profile(
    "busy", deadline=timedelta(seconds=10), suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("busy")


def pytest_configure(config: pytest.Config) -> None:
    """Give all workers of pytest-xdist the same server.

    The process that starts the workers finds or starts the server.
    """
    is_controller = getattr(config.option, "numprocesses", None) and not hasattr(
        config, "workerinput"
    )
    if is_controller:
        stack = ExitStack()
        with suppress(servers.NoServerError):
            url = stack.enter_context(servers.server())
            os.environ[servers.VARIABLE] = url.render_as_string(hide_password=False)
        config.add_cleanup(stack.close)


@pytest.fixture
def anyio_backend() -> str:
    """Use asyncio: the database drivers run on nothing else."""
    return "asyncio"


@pytest.fixture
def clock() -> FakeClock:
    """A clock that shows noon until a test advances it."""
    return FakeClock()


@pytest.fixture
async def database(
    database_url: str, clock: FakeClock, anyio_backend: str
) -> AsyncIterator[Database]:
    """An open store with all tables, once on each kind of database."""
    opened = Database(database_url, clock)
    yield opened
    await opened.close()


@pytest.fixture
async def databases(
    database_url: str, clock: FakeClock, anyio_backend: str
) -> AsyncIterator[Sequence[Database]]:
    """One store, opened four times, as four processes would open it."""
    opened = [Database(database_url, clock) for _ in range(4)]
    yield opened
    for one in opened:
        await one.close()


@pytest.fixture
async def sqlite(sqlite_url: str, clock: FakeClock, anyio_backend: str) -> AsyncIterator[Database]:
    """An open SQLite store, for tests of what only SQLite has."""
    opened = Database(sqlite_url, clock)
    yield opened
    await opened.close()


@pytest.fixture
async def postgresql(
    postgresql_url: str, clock: FakeClock, anyio_backend: str
) -> AsyncIterator[Database]:
    """An open PostgreSQL store, for tests of what only PostgreSQL has."""
    opened = Database(postgresql_url, clock)
    yield opened
    await opened.close()


@pytest.fixture
async def setup(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[StoreAndCloud]:
    """Yield a store and a simulated cloud whose exports take 200 s.

    Each upload begins immediately. The cloud's clock measures the 200 s.
    """
    for name in ("http_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    async with open_store_and_cloud(database) as made:
        yield made


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """URL of a store with all tables, once on each kind of database."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of a store without tables, once on each kind of database."""
    if request.param == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path / 'new.db'}"
        return
    with fresh_database(request.getfixturevalue("postgresql_server")) as url:
        yield text_of(url)


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """URL of a SQLite file with all tables."""
    return f"sqlite+aiosqlite:///{shutil.copy(sqlite_template, tmp_path / 'store.db')}"


@pytest.fixture
def postgresql_url(postgresql_store: sa.URL) -> str:
    """URL of a PostgreSQL database with all tables, all of them empty."""
    names = ", ".join(metadata.tables)
    administer(
        postgresql_store,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"  # noqa: S608 - our tables' names
        " WHERE datname = current_database() AND pid <> pg_backend_pid();"
        " ALTER TABLE events DISABLE TRIGGER USER;"
        f" TRUNCATE {names} RESTART IDENTITY;"
        " ALTER TABLE events ENABLE TRIGGER USER",
    )
    return text_of(postgresql_store)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with all tables, which tests copy."""
    path = tmp_path_factory.mktemp("template") / "store.db"
    anyio.run(_make_tables, f"sqlite+aiosqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgresql_store(postgresql_server: sa.URL) -> Iterator[sa.URL]:
    """A PostgreSQL database with all tables; it is dropped after the session."""
    with fresh_database(postgresql_server) as url:
        anyio.run(_make_tables, text_of(url))
        yield url


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[sa.URL]:
    """A PostgreSQL server; without one, its tests are skipped with the reason.

    They fail where the environment asks for a server.
    """
    with ExitStack() as stack:
        try:
            url = stack.enter_context(servers.server())
        except servers.NoServerError as error:
            give_up = pytest.fail if os.environ.get(servers.VARIABLE) else pytest.skip
            give_up(f"no PostgreSQL server: {error}")
        yield url


async def _make_tables(url: str) -> None:
    opened = Database(url, SystemClock())
    await Schema(opened).require(create=True)
    await opened.checkpoint()
    await opened.close()
