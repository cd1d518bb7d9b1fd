"""What a PostgreSQL server needs: sessions of our own, permissions, and settings of the session."""

import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import anyio
import psycopg
import pytest
import sqlalchemy as sa

from orchestrator.clock import SystemClock
from orchestrator.errors import NoStoreError, StoreError
from orchestrator.model import JobFilter
from orchestrator.orchestrator import Orchestrator
from orchestrator.settings import load_settings
from orchestrator.store import Database, Schema
from orchestrator.store import postgresql as module
from tests.postgresql_server import administer, fresh_database, text_of

pytestmark = pytest.mark.anyio


async def say(url: str, statement: str) -> str:
    database = Database(url, SystemClock())
    try:
        async with database.write() as connection:
            return str(await connection.scalar(sa.text(statement)))
    finally:
        await database.close()


async def require(url: str, *, create: bool = True, read_only: bool = False) -> None:
    database = Database(url, SystemClock(), read_only=read_only)
    try:
        await Schema(database).require(create=create)
    finally:
        await database.close()


@pytest.fixture
def role(postgresql_url: str) -> Iterator[sa.URL]:
    """A role of its own on the store; it has no permission yet."""
    url = sa.make_url(postgresql_url)
    name, password = f"orchestrator_{secrets.token_hex(4)}", secrets.token_hex(8)
    administer(url, f"CREATE ROLE {name} LOGIN PASSWORD '{password}'")
    yield url.set(username=name, password=password)
    administer(url, f"DROP OWNED BY {name}; DROP ROLE {name}")


def grant(role: sa.URL, store: str, *what: str) -> None:
    for one in what:
        administer(sa.make_url(store), f"{one} TO {role.username}")


READ = ("GRANT USAGE ON SCHEMA public", "GRANT SELECT ON ALL TABLES IN SCHEMA public")


async def test_a_role_with_select_may_look(role: sa.URL, postgresql_url: str) -> None:
    """A role with only SELECT can use `status`, `history` and `show`.

    Everything else is refused at its start.
    """
    grant(role, postgresql_url, *READ)
    settings = load_settings({"database_url": text_of(role)}, {})
    async with Orchestrator(settings=settings, read_only=True) as orchestrator:
        assert (await orchestrator.status()).total == 0
        assert [job async for job in orchestrator.history(JobFilter())] == []
        assert await orchestrator.show("1") is None
        with pytest.raises(StoreError, match="for reading only"):
            await orchestrator.enqueue([])
    with pytest.raises(StoreError, match="may not change the tables") as caught:
        await require(text_of(role))
    assert "status, history and show work" in caught.value.remedy


async def test_a_schema_that_may_not_be_used_is_named(role: sa.URL, postgresql_url: str) -> None:
    """Tables that this role cannot see are not reported as a missing store."""
    administer(sa.make_url(postgresql_url), "REVOKE ALL ON SCHEMA public FROM PUBLIC")
    try:
        with pytest.raises(StoreError, match="in the schema public") as caught:
            await require(text_of(role), create=False, read_only=True)
    finally:
        administer(sa.make_url(postgresql_url), "GRANT USAGE ON SCHEMA public TO PUBLIC")
    assert not isinstance(caught.value, NoStoreError)
    assert "GRANT USAGE" in caught.value.remedy


async def test_a_role_that_may_not_create_tables_is_refused(postgresql_server: sa.URL) -> None:
    """Since PostgreSQL 15 a new role may not create tables in the schema public."""
    with fresh_database(postgresql_server) as url:
        name = f"orchestrator_{secrets.token_hex(4)}"
        administer(url, f"CREATE ROLE {name} LOGIN PASSWORD 'x'")
        administer(url, "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        try:
            with pytest.raises(StoreError, match="cannot be created: permission denied") as caught:
                await require(text_of(url.set(username=name, password="x")))
        finally:
            administer(url, f"DROP ROLE {name}")
    assert "GRANT CREATE" in caught.value.remedy


@pytest.mark.parametrize(
    ("make", "words"),
    [
        ("ENCODING 'SQL_ASCII' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'", "SQL_ASCII"),
        ("ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'", "LATIN1"),
    ],
)
@pytest.mark.parametrize("read_only", [False, True])
async def test_other_encodings_are_refused(
    postgresql_server: sa.URL, make: str, words: str, *, read_only: bool
) -> None:
    """They would garble names, or fail in the middle of a run."""
    name = f"orchestrator_test_{secrets.token_hex(6)}"
    administer(postgresql_server, f"CREATE DATABASE {name} {make}")
    try:
        with pytest.raises(StoreError, match=f"encoding {words}") as caught:
            await require(text_of(postgresql_server.set(database=name)), read_only=read_only)
    finally:
        administer(postgresql_server, f"DROP DATABASE {name} WITH (FORCE)")
    assert "ENCODING 'UTF8'" in caught.value.remedy


async def test_an_old_server_is_refused(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message has its version and the oldest one that works."""
    monkeypatch.setattr(module, "_MIN_VERSION", 990_000)
    with pytest.raises(StoreError, match=r"the server is PostgreSQL \d+") as caught:
        await require(postgresql_url, read_only=True)
    assert "PostgreSQL 99 or later" in caught.value.remedy


async def test_a_read_only_default_is_refused_for_writers(postgresql_url: str) -> None:
    """As on a standby, or where an administrator has set it for a role."""
    url = f"{postgresql_url}?options=-c%20default_transaction_read_only%3Don"
    with pytest.raises(StoreError, match="default_transaction_read_only is on"):
        await require(url)
    await require(url, create=False, read_only=True)


async def test_a_standby_is_refused_for_writers(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands that only look work on it."""
    standby = module._SERVER.replace("pg_is_in_recovery()", "true")
    monkeypatch.setattr(module, "_SERVER", standby)
    with pytest.raises(StoreError, match="standby") as caught:
        await require(postgresql_url)
    assert "primary" in caught.value.remedy
    await require(postgresql_url, create=False, read_only=True)


async def test_settings_of_a_role_do_not_change_ours(
    role: sa.URL, postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time-outs are off, the isolation is ours, and text is UTF-8."""
    for setting in (
        "statement_timeout = '1s'",
        "idle_session_timeout = '1s'",
        "idle_in_transaction_session_timeout = '1s'",
        "default_transaction_isolation = 'serializable'",
        "timezone = 'Asia/Shanghai'",
    ):
        administer(sa.make_url(postgresql_url), f"ALTER ROLE {role.username} SET {setting}")
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    for name, value in (
        ("statement_timeout", "0"),
        ("idle_session_timeout", "0"),
        ("idle_in_transaction_session_timeout", "0"),
        ("transaction_isolation", "read committed"),
        ("client_encoding", "UTF8"),
    ):
        assert await say(text_of(role), f"SHOW {name}") == value, name
    last = "9999-12-31 23:59:59+00:00"
    assert await say(text_of(role), f"SELECT '{last}'::timestamptz") == last


async def test_parameters_of_the_url_take_precedence(postgresql_url: str) -> None:
    """An unknown one is refused without its value, which may be a secret."""
    arguments = module.connection_arguments(sa.make_url(f"{postgresql_url}?connect_timeout=3"))
    assert "connect_timeout" not in arguments
    assert "keepalives_idle" in arguments
    with pytest.raises(StoreError, match="Parameter 1 in the database") as caught:
        Database(f"{postgresql_url}?passwort=hush", SystemClock())
    assert "hush" not in str(caught.value)


def test_the_rest_of_a_password_is_not_shown() -> None:
    """After an & that is not escaped it looks like the name of a parameter."""
    url = sa.make_url("postgresql+psycopg://me@db/jobs?password=s3&cret=ef")
    with pytest.raises(StoreError, match="Parameter 2 in") as caught:
        module.connection_arguments(url)
    assert not any(part in f"{caught.value} {caught.value.remedy}" for part in ("cret", "s3"))
    assert "write & in a password as %26" in caught.value.remedy


async def test_a_bad_value_of_a_parameter_is_an_error_of_the_url(postgresql_url: str) -> None:
    """The driver rejects it before it connects."""
    with pytest.raises(StoreError, match="connect_timeout") as caught:
        await require(f"{postgresql_url}?connect_timeout=abc")
    assert "Check the URL and its parameters" in caught.value.remedy


async def test_errors_of_a_connection_show_no_password(postgresql_url: str) -> None:
    """Libpq quotes some values; a password among them is replaced."""
    url = sa.make_url(postgresql_url).set(password="hush-hush")
    bad = url.update_query_dict({"sslmode": "hush-hush"}).render_as_string(hide_password=False)
    with pytest.raises(StoreError, match="cannot be used") as caught:
        await require(bad)
    cause = caught.value.__cause__
    assert "sslmode" in str(caught.value)
    assert "hush-hush" not in f"{caught.value} {cause} {cause and getattr(cause, 'orig', '')}"


async def test_an_unreachable_server_is_named_in_one_line() -> None:
    """The message does not contain the further lines of libpq."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(StoreError) as caught:
        await require(f"postgresql+psycopg://orchestrator@127.0.0.1:{port}/jobs")
    line, remedy = str(caught.value).splitlines()
    assert line.endswith("Connection refused.")
    assert "is running and reachable" in remedy


async def test_a_session_of_our_own_is_accepted(postgresql: Database) -> None:
    """Directly on the server, and again: the check leaves no lock behind."""
    await postgresql.check_sessions()
    async with postgresql.read() as connection:
        count = sa.text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
        held = await connection.scalar(count)
    await postgresql.check_sessions()
    async with postgresql.read() as connection:
        assert await connection.scalar(count) == held


async def test_a_shared_session_is_refused(postgresql: Database) -> None:
    """A pooler may give both connections the same session."""
    session = await postgresql.session()
    try:
        with pytest.raises(StoreError, match="PgBouncer"):
            await module.require_own_session(session, lambda: nullcontext(session))
    finally:
        await session.invalidate()
        await session.close()


@contextmanager
def pgbouncer(server: sa.URL, folder: Path, mode: str) -> Iterator[sa.URL]:
    """Run PgBouncer before a database of the server, or skip if it is not installed."""
    places = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin"
    program = shutil.which("pgbouncer", path=places)
    if program is None:
        pytest.skip("pgbouncer is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    login = f"host={server.host} port={server.port or 5432} user={server.username}"
    if server.password:
        login += f" password={server.password}"
    settings = folder / "pgbouncer.ini"
    settings.write_text(
        f"[databases]\n{server.database} = {login}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\npool_mode = {mode}\n"
        "auth_type = any\nunix_socket_dir =\n"
    )
    # it refuses to run as root, and reads its settings before it changes the user
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    command = [program, *user, str(settings)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        url = server.set(host="127.0.0.1", port=port, password=None)
        try:
            _wait_for(url, process)
            yield url
        finally:
            process.terminate()


def _wait_for(url: sa.URL, process: subprocess.Popen[bytes]) -> None:
    ends_at = time.monotonic() + 30
    while True:
        try:
            administer(url, "SELECT 1")
        except psycopg.OperationalError as error:
            if process.poll() is None and time.monotonic() < ends_at:
                continue
            process.kill()
            assert process.stdout is not None
            pytest.fail(f"pgbouncer does not start: {error}, {process.stdout.read().decode()}")
        return


@pytest.mark.parametrize("mode", ["transaction", "transaction\nserver_round_robin = 1"])
async def test_transaction_pooling_is_refused_before_a_run(
    postgresql_url: str, tmp_path: Path, mode: str
) -> None:
    """`run` would lose its lock, and its prepared statements would collide."""
    with pgbouncer(sa.make_url(postgresql_url), tmp_path, mode) as url:
        settings = load_settings({"database_url": text_of(url)}, {})
        async with Orchestrator(settings=settings, environ={}) as orchestrator:
            with pytest.raises(StoreError, match="PgBouncer in transaction mode") as caught:
                await orchestrator.run()
    assert "pool_mode = session" in caught.value.remedy


async def test_session_pooling_is_accepted(postgresql_url: str, tmp_path: Path) -> None:
    """Each connection has a session of its own there."""
    with pgbouncer(sa.make_url(postgresql_url), tmp_path, "session") as url:
        settings = load_settings({"database_url": text_of(url)}, {})
        async with Orchestrator(settings=settings, environ={}) as orchestrator:
            assert (await orchestrator.run()).requests == 0


async def test_refused_options_are_explained(postgresql_url: str, tmp_path: Path) -> None:
    """PgBouncer refuses them when it connects."""
    with pgbouncer(sa.make_url(postgresql_url), tmp_path, "transaction") as url:
        given = f"{text_of(url)}?options=-c%20work_mem%3D8MB"
        with pytest.raises(StoreError, match="unsupported startup parameter") as caught:
            await require(given)
    assert "remove them from the URL, or unset PGOPTIONS" in caught.value.remedy


async def test_a_cancelled_statement_prints_nothing(
    postgresql: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """The cancellation of a statement logs no warning of psycopg.

    The end of a run cancels the reads in the background.
    """
    for _ in range(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_sleep_on_server, postgresql)
            await _wait_for_sleep(postgresql)
            tasks.cancel_scope.cancel()
    assert caplog.messages == []


async def _sleep_on_server(database: Database) -> None:
    async with database.read() as connection:
        await connection.execute(sa.text("SELECT pg_sleep(60)"))


async def _wait_for_sleep(database: Database) -> None:
    sleeping = sa.text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND state = 'active' AND query = 'SELECT pg_sleep(60)'"
    )
    with anyio.fail_after(30):
        while True:
            async with database.read() as connection:
                if await connection.scalar(sleeping):
                    return
            await anyio.sleep(0.01)
