"""Read a SQLite file without changing anything: which files decide how it is opened."""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from orchestrator.clock import SystemClock
from orchestrator.errors import NoStoreError, StoreError
from orchestrator.store import Database, Schema
from orchestrator.store.sqlite import Reading
from orchestrator.store.tables import scopes

pytestmark = pytest.mark.anyio


def names(path: Path) -> list[str]:
    """Return the files of a database without their common beginning."""
    return sorted(file.name.removeprefix(path.name) for file in path.parent.glob(f"{path.name}*"))


def content(path: Path) -> bytes:
    """Return the bytes of a file."""
    return path.read_bytes()


def erase_all_but_the_first_page(path: Path) -> None:
    """Damage a file, at another time than it was made also by a coarse clock."""
    pages = content(path)
    path.write_bytes(pages[:4096].ljust(len(pages), b"\0"))
    os.utime(path, (0, 0))


@pytest.fixture
def path(sqlite_url: str) -> Path:
    """A database that nobody has open, without other files."""
    path = Path(sa.make_url(sqlite_url).database or "")
    assert names(path) == [""]
    return path


@pytest.fixture
def writer(path: Path) -> Iterator[sqlite3.Connection]:
    """A writer beside, with one row in its log."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute("INSERT INTO scopes (profile, region, misses) VALUES ('p', 'r', 0)")
    yield connection
    connection.close()


def reader(path: Path) -> Database:
    url = sa.URL.create("sqlite+aiosqlite", database=str(path)).render_as_string()
    return Database(url, SystemClock(), read_only=True)


async def count(database: Database) -> int:
    async with database.read() as connection:
        query = sa.select(sa.func.count()).select_from(scopes)
        return (await connection.execute(query)).scalar_one()


async def count_in(path: Path) -> int:
    database = reader(path)
    try:
        await Schema(database).require(create=False)
        return await count(database)
    finally:
        await database.close()


@pytest.fixture
def stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user than the owner of the file."""
    monkeypatch.setattr("os.geteuid", lambda: 2**31 - 3)


@pytest.mark.usefixtures("stranger")
def test_how_a_file_is_opened(path: Path, writer: sqlite3.Connection) -> None:
    """A log with content, or the two files of a writer, exclude `immutable`."""

    def is_immutable() -> bool:
        return Reading(path, allow_network=False).is_immutable

    assert Path(f"{path}-wal").stat().st_size > 0
    assert not is_immutable()
    writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert Path(f"{path}-wal").stat().st_size == 0
    assert not is_immutable(), "a writer is there, although its log is empty"
    writer.close()
    assert names(path) == [""]
    assert is_immutable()
    Path(f"{path}-wal").touch()
    assert is_immutable(), "an empty log without an index has no writer"


def test_an_owner_reads_with_locks(path: Path) -> None:
    """A run that begins meanwhile is no error then."""
    assert not Reading(path, allow_network=False).is_immutable


async def test_an_owner_may_leave_empty_files(path: Path) -> None:
    """A read by the owner does not change the file, but may leave an empty log.

    SQLite creates the log and its index to read with locks, and does not remove them.
    """
    before = content(path)
    assert await count_in(path) == 0
    assert set(names(path)) <= {"", "-shm", "-wal"}
    assert all(content(file) == b"" for file in path.parent.glob("*-wal"))
    assert content(path) == before


@pytest.mark.usefixtures("stranger")
async def test_nothing_is_created(path: Path) -> None:
    """Reading a closed database leaves its folder as it was."""
    before = content(path)
    assert await count_in(path) == 0
    assert names(path) == [""]
    assert content(path) == before


async def test_the_log_of_a_writer_is_read(path: Path, writer: sqlite3.Connection) -> None:
    """Changes that are committed but still only in the log are read.

    With `immutable` they would not be seen.
    """
    assert await count_in(path) == 1
    blind = sqlite3.connect(f"file:{path}?immutable=1", uri=True)
    assert blind.execute("SELECT count(*) FROM scopes").fetchone() == (0,)
    blind.close()


@pytest.mark.usefixtures("stranger")
async def test_a_copy_with_its_log_is_read_by_its_owner(
    path: Path, writer: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the index may be created, as in a folder of one's own, SQLite makes it."""
    copy = path.parent / "copy.db"
    for ending in ("", "-wal"):
        shutil.copy(f"{path}{ending}", f"{copy}{ending}")
    with pytest.raises(StoreError, match=r"newest changes are in copy\.db-wal"):
        await count_in(copy)
    monkeypatch.undo()
    assert await count_in(copy) == 1


@pytest.mark.usefixtures("stranger", "writer")
async def test_a_copy_with_its_log_and_index_is_read_by_anybody(path: Path) -> None:
    """Then SQLite need not create the index, as on a read-only mount."""
    copy = path.parent / "copy.db"
    for ending in ("", "-wal", "-shm"):
        shutil.copy(f"{path}{ending}", f"{copy}{ending}")
    assert await count_in(copy) == 1


async def test_a_file_name_may_contain_anything(path: Path) -> None:
    """The name becomes part of a URI."""
    odd = Path(shutil.move(path, path.parent / "odd ?#%25&mode=rw.db"))
    assert await count_in(odd) == 0
    assert names(odd)[0] == ""


@pytest.mark.usefixtures("stranger")
async def test_a_writer_that_begins_is_noticed(path: Path) -> None:
    """What was read without locks may be wrong then."""
    database = reader(path)
    writer = sqlite3.connect(path, isolation_level=None)
    try:
        assert await count(database) == 0
        writer.execute("INSERT INTO scopes (profile, region, misses) VALUES ('p', 'r', 0)")
        with pytest.raises(StoreError, match="was changed while it was read"):
            await count(database)
        writer.close()
        with pytest.raises(StoreError, match="Repeat the command"):
            await count(database)
    finally:
        writer.close()
        await database.close()
    assert await count_in(path) == 1


@pytest.mark.usefixtures("stranger")
async def test_a_change_halfway_is_not_called_damage(path: Path) -> None:
    """A malformed file that changed during the read is reported as changed.

    Pages of two versions do not fit together, so SQLite says that the file is malformed.
    """
    database = reader(path)
    try:
        erase_all_but_the_first_page(path)
        with pytest.raises(StoreError, match="was changed while it was read") as caught:
            await count(database)
        assert caught.value.remedy == "Repeat the command."
    finally:
        await database.close()
    database = reader(path)
    try:
        with pytest.raises(sa.exc.DatabaseError, match="malformed"):
            await count(database)
    finally:
        await database.close()


@pytest.mark.parametrize("make", [lambda _: None, Path.touch])
async def test_a_missing_or_empty_file_is_no_store(tmp_path: Path, make: object) -> None:
    """Nothing is created, also not by a command that may write."""
    assert callable(make)
    make(path := tmp_path / "missing.db")
    before = names(path)
    with pytest.raises(NoStoreError, match=str(path)):
        reader(path)
    with pytest.raises(NoStoreError, match=str(path)):
        Database(f"sqlite+aiosqlite:///{path}", SystemClock(), create=False)
    assert names(path) == before


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("create", [False, True])
@pytest.mark.parametrize("end", ["", "/store.db"])
def test_a_loop_of_symbolic_links_is_named(
    tmp_path: Path, end: str, *, create: bool, read_only: bool
) -> None:
    """Python has another exception for it in each version."""
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    url = f"sqlite+aiosqlite:///{tmp_path}/a{end}"
    is_made = bool(end) and create and not read_only
    said = "a is not a folder" if is_made else "Too many levels of symbolic links"
    with pytest.raises(StoreError, match=said) as caught:
        Database(url, SystemClock(), create=create, read_only=read_only)
    assert is_made or "links lead to each other" in caught.value.remedy


async def test_other_files_are_named(tmp_path: Path) -> None:
    """A folder, a path through a file, and a file of another program are errors."""
    (text := tmp_path / "text").write_text("not a database, " * 100)
    for path in (tmp_path, text / "store.db"):
        with pytest.raises(StoreError, match="cannot be read") as caught:
            reader(path)
        assert not isinstance(caught.value, NoStoreError)
    with pytest.raises(StoreError, match="not a database"):
        await count_in(text)


@pytest.mark.usefixtures("stranger")
async def test_a_store_of_another_version_is_not_migrated(path: Path) -> None:
    """Who may only read is told who can upgrade it."""
    for version, words in (("0001", "older version"), ("9999", "newer version")):
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE alembic_version SET version_num = ?", (version,))
        connection.close()
        before = content(path)
        with pytest.raises(StoreError, match=words) as caught:
            await count_in(path)
        assert version != "0001" or "upgrade a copy" in caught.value.remedy
        assert content(path) == before


async def test_nothing_can_be_written(path: Path) -> None:
    """A transaction that writes is refused, and SQLite would refuse it too."""
    database = reader(path)
    with pytest.raises(StoreError, match="for reading only"):
        async with database.write():
            pass
    with pytest.raises(sa.exc.OperationalError, match="readonly"):
        async with database.read() as connection:
            await connection.execute(sa.delete(scopes))
    await database.close()
