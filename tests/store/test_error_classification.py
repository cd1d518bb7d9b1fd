"""Store errors are classified by their codes, whatever words the message contains."""

import errno
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from orchestrator.clock import SystemClock
from orchestrator.store import Database
from orchestrator.store.error_classification import StoreErrorClass, classify_store_error
from tests.postgresql_server import text_of
from tests.store_errors import misuse_error, server_error, sqlite_error

pytestmark = pytest.mark.anyio

WORDS = "database is locked, busy, full, read-only, malformed, unable to open, disk I/O error"


async def error_class_of(database: Database, *statements: str) -> StoreErrorClass:
    """Return the class of the error that the last of these statements raises."""
    with pytest.raises(DBAPIError) as caught:
        await execute(database, *statements)
    return classify_store_error(caught.value)


async def execute(database: Database, *statements: str) -> None:
    """Execute the statements in one transaction."""
    async with database.write() as connection:
        for statement in statements:
            await connection.exec_driver_sql(statement)


MAKE_TABLE = (
    "CREATE TEMPORARY TABLE disk_full (busy varchar(9) NOT NULL CONSTRAINT pk_locked PRIMARY KEY, "
    "size integer CONSTRAINT ck_full CHECK (size < 3))"
)
REJECTED = {
    "a check": ("INSERT INTO disk_full VALUES ('busy', 3)",),
    "a key": ("INSERT INTO disk_full VALUES ('locked', 1)",) * 2,
    "a null": ("INSERT INTO disk_full VALUES (NULL, 1)",),
    "a missing column": ("SELECT readonly_locked_full FROM disk_full",),
    "a missing table": ("SELECT * FROM malformed_disk_is_full",),
    "a syntax error": ("SELECT 'locked' busy full",),
}


@pytest.mark.parametrize("statements", REJECTED.values(), ids=REJECTED)
async def test_a_rejected_statement_is_not_retried(
    database: Database, statements: tuple[str, ...]
) -> None:
    """A rejected statement is not retried, whatever words its message contains.

    Names or values in the message may contain the words of a temporary error.
    """
    assert not (await error_class_of(database, MAKE_TABLE, *statements)).is_temporary


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO disk_full VALUES ('disk full, busy', 1)",
        "INSERT INTO disk_full VALUES ('one', CAST('locked' AS integer))",
        "SELECT 1/0 AS locked",
    ],
)
async def test_an_invalid_value_is_not_retried(postgresql: Database, statement: str) -> None:
    """A value that is too long, or not a number, is not retried."""
    assert not (await error_class_of(postgresql, MAKE_TABLE, statement)).is_temporary


async def test_a_too_long_value_on_sqlite_is_not_retried(sqlite: Database) -> None:
    """SQLite's limit on the length of a value is not mistaken for a full disk."""
    value = "SELECT length(zeroblob(2000000000))"
    assert not (await error_class_of(sqlite, value)).is_temporary


def sqlite_error_class(path: Path, *statements: str, options: str = "") -> StoreErrorClass:
    """Run statements on a file; return the error class of the last one."""
    engine = sa.create_engine(f"sqlite:///file:{path}?uri=true&timeout=0{options}")
    try:
        with engine.connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)
    except DBAPIError as error:
        return classify_store_error(error)
    finally:
        engine.dispose()
    raise AssertionError("no error was raised")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Make a SQLite file with one table."""
    path = tmp_path / "file.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (a)")
    connection.close()
    return path


ADD = "INSERT INTO t VALUES (zeroblob(100000))"


def test_a_locked_file_is_temporary(file: Path) -> None:
    """The remedy says how to find the program that holds the lock."""
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    found = sqlite_error_class(file, ADD)
    other.close()
    assert found.is_temporary
    assert "lsof" in found.remedy


def test_a_full_disk_is_temporary(file: Path) -> None:
    """The remedy says to free space."""
    found = sqlite_error_class(file, "PRAGMA max_page_count = 3", ADD)
    assert found.is_temporary
    assert "Free space" in found.remedy


@pytest.mark.parametrize(
    ("statements", "options"), [((ADD,), "&mode=ro"), (("PRAGMA query_only = 1", ADD), "")]
)
def test_a_read_only_file_is_temporary(
    file: Path, statements: tuple[str, ...], options: str
) -> None:
    """The remedy says to make it writable."""
    found = sqlite_error_class(file, *statements, options=options)
    assert found.is_temporary
    assert "writable" in found.remedy


def test_a_file_that_cannot_be_opened_is_temporary(tmp_path: Path) -> None:
    """One reason is a limit on open files, which the remedy names."""
    found = sqlite_error_class(tmp_path, "SELECT 1")
    assert found.is_temporary
    assert "ulimit" in found.remedy


def test_a_damaged_file_is_final(file: Path, tmp_path: Path) -> None:
    """A file with a broken page or foreign content must be restored from a backup."""
    content = bytearray(file.read_bytes())
    content[4096:] = b"\xff" * len(content[4096:])
    (broken := tmp_path / "broken.db").write_bytes(content)
    (foreign := tmp_path / "foreign.db").write_bytes(b"busy, full, locked" * 100)
    for path in (broken, foreign):
        found = sqlite_error_class(path, "SELECT * FROM t")
        assert not found.is_temporary
        assert "backup" in found.remedy


async def test_a_table_locked_by_another_session_is_temporary(postgresql: Database) -> None:
    """The remedy says how to find the session that holds the lock."""
    async with postgresql.write() as holder:
        await holder.execute(sa.text("LOCK TABLE jobs"))
        found = await error_class_of(postgresql, "SET lock_timeout = '20ms'", "LOCK TABLE jobs")
    assert found.is_temporary
    assert "pg_locks" in found.remedy


async def test_a_serialization_failure_is_temporary(postgresql: Database) -> None:
    """The second of two transactions that change a row may succeed when repeated."""
    insert = "INSERT INTO scopes (profile, region, misses) VALUES ('p', 'r', 0)"
    update = "UPDATE scopes SET misses = misses + 1"
    await execute(postgresql, insert)
    async with postgresql.write() as connection:
        await connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        await connection.exec_driver_sql("SELECT * FROM scopes")
        await execute(postgresql, update)
        with pytest.raises(DBAPIError) as caught:
            await connection.exec_driver_sql(update)
    assert classify_store_error(caught.value).is_temporary


async def test_a_read_only_server_is_temporary(postgresql: Database) -> None:
    """It may be a standby server or a setting, which the remedy says how to check."""
    insert = "INSERT INTO scopes (profile, region, misses) VALUES ('p', 'r', 0)"
    found = await error_class_of(postgresql, "SET TRANSACTION READ ONLY", insert)
    assert found.is_temporary
    assert "primary" in found.remedy


async def test_a_statement_timeout_is_temporary(postgresql: Database) -> None:
    """The statement may be fast enough when the load is lower."""
    slow = ("SET LOCAL statement_timeout = '20ms'", "SELECT pg_sleep(5)")
    found = await error_class_of(postgresql, *slow)
    assert found.is_temporary
    assert "statement_timeout" in found.remedy


async def test_a_terminated_session_is_temporary(postgresql: Database) -> None:
    """A server that restarts, or an administrator, terminates sessions."""
    own = "SELECT pg_terminate_backend(pg_backend_pid())"
    assert (await error_class_of(postgresql, own)).is_temporary


async def test_an_unreachable_server_is_temporary(postgresql: Database) -> None:
    """A refused connection has no SQLSTATE."""
    away = Database(text_of(postgresql.url.set(port=1)), SystemClock())
    assert (await error_class_of(away, "SELECT 1")).is_temporary


@pytest.mark.parametrize(
    ("code", "is_temporary"),
    [
        (sqlite3.SQLITE_BUSY, True),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, True),
        (sqlite3.SQLITE_LOCKED, True),
        (sqlite3.SQLITE_LOCKED_SHAREDCACHE, True),
        (sqlite3.SQLITE_PROTOCOL, True),
        (sqlite3.SQLITE_FULL, True),
        (sqlite3.SQLITE_READONLY, True),
        (sqlite3.SQLITE_READONLY_DIRECTORY, True),
        (sqlite3.SQLITE_PERM, True),
        (sqlite3.SQLITE_CANTOPEN, True),
        (sqlite3.SQLITE_IOERR, True),
        (sqlite3.SQLITE_IOERR_FSYNC, True),
        (sqlite3.SQLITE_NOMEM, True),
        (sqlite3.SQLITE_CORRUPT, False),
        (sqlite3.SQLITE_CORRUPT_INDEX, False),
        (sqlite3.SQLITE_NOTADB, False),
        (sqlite3.SQLITE_ERROR, False),
        (sqlite3.SQLITE_CONSTRAINT_CHECK, False),
        (sqlite3.SQLITE_TOOBIG, False),
        (sqlite3.SQLITE_MISMATCH, False),
        (sqlite3.SQLITE_MISUSE, False),
    ],
)
def test_sqlite_errors_are_classified_by_result_code(code: int, is_temporary: bool) -> None:
    """The primary result code decides, not the message."""
    assert classify_store_error(sqlite_error(WORDS, code)).is_temporary is is_temporary


@pytest.mark.parametrize(
    ("sqlstate", "is_temporary"),
    [
        *((state, True) for state in ("08000", "08001", "08003", "08006", "08P01")),
        *((state, True) for state in ("40001", "40P01", "53100", "53200", "53300", "53400")),
        *((state, True) for state in ("25006", "25P03", "25P04", "55P03", "57014", "58030")),
        *((state, True) for state in ("57P01", "57P02", "57P03", "57P05")),
        *((state, False) for state in ("57P04", "XX000", "XX001", "XX002", "40002", "55000")),
        *((state, False) for state in ("22001", "22P02", "23502", "23505", "23514", "25P02")),
        *((state, False) for state in ("28000", "28P01", "3D000", "42501", "42601", "42P01")),
    ],
)
def test_server_errors_are_classified_by_sqlstate(sqlstate: str, is_temporary: bool) -> None:
    """The SQLSTATE decides, not the message."""
    assert classify_store_error(server_error(sqlstate, WORDS)).is_temporary is is_temporary


def test_the_sqlstate_decides_even_if_the_connection_was_lost() -> None:
    """A violated constraint is final, even if the connection broke after it."""
    error = server_error("23514")
    error.connection_invalidated = True
    assert not classify_store_error(error).is_temporary


def test_a_missing_connection_is_temporary() -> None:
    """An error without a code is temporary, because it concerns the connection.

    Such an error of the sqlite3 module is temporary only if the connection was lost.
    """
    assert classify_store_error(server_error(None)).is_temporary
    assert classify_store_error(PoolTimeoutError()).is_temporary
    lost = misuse_error()
    assert not classify_store_error(lost).is_temporary
    lost.connection_invalidated = True
    assert classify_store_error(lost).is_temporary


@pytest.mark.parametrize(
    ("number", "is_temporary"),
    [
        *((number, True) for number in (errno.EAGAIN, errno.ENOSPC, errno.EDQUOT, errno.EFBIG)),
        *((number, True) for number in (errno.EROFS, errno.EACCES, errno.EMFILE, errno.EIO)),
        *((number, True) for number in (errno.EPERM, errno.ENFILE, errno.ENOMEM)),
        *((number, False) for number in (errno.ENOENT, errno.EISDIR, errno.EINVAL)),
    ],
)
def test_system_errors_are_classified_by_number(number: int, is_temporary: bool) -> None:
    """An error on a lock file beside the database is classified by its errno."""
    assert classify_store_error(OSError(number, WORDS)).is_temporary is is_temporary
