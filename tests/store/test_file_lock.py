"""Lock files beside the database: private, never followed as links, never written."""

import fcntl
import os
import secrets
import shutil
import stat
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from orchestrator.clock import SystemClock
from orchestrator.errors import StoreError
from orchestrator.job_queue.orphan_recovery import recover_orphans
from orchestrator.job_queue.worker_registry import register_worker
from orchestrator.store import Database, Schema
from orchestrator.store.file_lock import lock_file, open_private_file
from orchestrator.store.sqlite import prepare_file
from tests.job_factory import TESTER

pytestmark = pytest.mark.anyio

NAME = "00000000"


@pytest.fixture(autouse=True)
def _usual_umask() -> Iterator[None]:
    """Use the common umask: all users can read new files by default."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture(autouse=True)
def _known_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the test know the name of the next instance."""
    monkeypatch.setattr(secrets, "token_hex", lambda _bytes: NAME)


async def create(path: Path) -> None:
    """Create the store."""
    with suppress(FileNotFoundError):
        os.remove(path)  # noqa: PTH107 - no blocking method of a path in an async function
    await opened(path, Schema.require)


async def opened(path: Path, use: Callable[..., Awaitable[object]]) -> None:
    """Open the store and use it."""
    database = Database(f"sqlite+aiosqlite:///{path}", SystemClock())
    try:
        if use is Schema.require:
            await Schema(database).require(create=True)
        else:
            await use(database)
    finally:
        await database.close()


async def look(path: Path) -> None:
    """Open the store as a command that only reads."""
    await opened(path, lambda database: Schema(database).revision())


async def checkpoint(path: Path) -> None:
    """Move the write-ahead log into the file."""
    await opened(path, Database.checkpoint)


async def register(path: Path) -> None:
    """Register a process, as a run does."""

    async def use(database: Database) -> None:
        async with register_worker(database):
            pass

    await opened(path, use)


async def recover(path: Path) -> None:
    """Recover what dead processes have left."""
    await opened(path, lambda database: recover_orphans(database, TESTER))


def alive(path: Path) -> Path:
    """Return the lock file of the next instance."""
    return Path(f"{path}.alive-{os.uname().nodename}-{os.getpid()}-{NAME}")


USES = {
    "lock, new store": (".lock", create),
    "lock": (".lock", look),
    "lock, checkpoint": (".lock", checkpoint),
    "instance": ("alive", register),
    "instance of another": ("alive", recover),
}


def beside(path: Path, suffix: str) -> Path:
    """Return a file beside the database."""
    return alive(path) if suffix == "alive" else Path(f"{path}{suffix}")


@pytest.fixture
def path(sqlite_template: Path, tmp_path: Path) -> Path:
    """A store without other files beside it."""
    return Path(shutil.copy(sqlite_template, tmp_path / "store.db"))


@pytest.mark.parametrize(("suffix", "use"), USES.values(), ids=USES)
async def test_a_link_is_not_followed(
    path: Path, suffix: str, use: Callable[[Path], Awaitable[None]]
) -> None:
    """The target is not truncated, locked or touched; the error names the link."""
    precious = path.parent / "precious"
    precious.write_text("precious")
    os.utime(precious, (1, 1))
    link = beside(path, suffix)
    link.symlink_to(precious)
    with pytest.raises(StoreError, match="symbolic link") as caught:
        await use(path)
    assert str(link) in caught.value.message
    assert "remove it" in caught.value.remedy
    assert (precious.read_text(), precious.stat().st_mtime) == ("precious", 1)
    assert link.is_symlink()


@pytest.mark.parametrize(("suffix", "use"), USES.values(), ids=USES)
async def test_a_dangling_link_creates_no_file(
    path: Path, suffix: str, use: Callable[[Path], Awaitable[None]]
) -> None:
    """The target of the link is not created."""
    target = path.parent / "target"
    beside(path, suffix).symlink_to(target)
    with pytest.raises(StoreError, match="symbolic link"):
        await use(path)
    assert not target.exists()


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo], ids=["folder", "pipe"])
async def test_only_a_regular_file_is_locked(path: Path, make: Callable[[Path], None]) -> None:
    """A folder or a pipe in place of a lock file is an error that names it."""
    make(beside(path, ".lock"))
    with pytest.raises(StoreError, match=r"store\.db\.lock is"):
        await look(path)


@pytest.mark.parametrize(("suffix", "use"), USES.values(), ids=USES)
async def test_a_lock_file_keeps_its_content(
    path: Path, suffix: str, use: Callable[[Path], Awaitable[None]]
) -> None:
    """A lock file is never written or truncated."""
    file = beside(path, suffix)
    file.write_text("content")
    with closing(file.open()) as before:
        await use(path)
        assert before.read() == "content"
        assert os.fstat(before.fileno()).st_size == len("content")


async def test_every_file_is_readable_by_its_owner_only(path: Path) -> None:
    """Files created beside the database have mode 0600."""
    modes: dict[str, int] = {}

    async def use(database: Database) -> None:
        async with register_worker(database):
            await database.checkpoint()
            for file in path.parent.iterdir():
                modes[file.name] = stat.S_IMODE(file.stat().st_mode)

    await opened(path, use)
    names = {file.name for suffix in (".lock", "alive") for file in [beside(path, suffix)]}
    assert names <= set(modes)
    assert set(modes.values()) == {0o600}


def test_child_processes_do_not_inherit_a_lock(tmp_path: Path) -> None:
    """A child process would hold the lock beyond the end of this process."""
    handle = open_private_file(tmp_path / "file")
    assert not os.get_inheritable(handle)
    os.close(handle)


@pytest.mark.parametrize("replace", [False, True])
def test_a_removed_file_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, replace: bool
) -> None:
    """If the file is removed or replaced before it is locked, the new one is locked.

    Other processes would not find a lock on the old file.
    """
    path, lock = tmp_path / "file", fcntl.flock

    def remove_and_lock(handle: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        path.unlink()
        if replace:
            path.touch()
        lock(handle, operation)

    monkeypatch.setattr(fcntl, "flock", remove_and_lock)
    with lock_file(path) as is_ours:
        assert is_ours
        with lock_file(path, create=False, wait=False) as is_also_ours:
            assert not is_also_ours


async def test_a_file_removed_before_it_is_locked_is_created_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process whose lock file has no name would look dead to the others."""
    file, flock = beside(path, "alive"), fcntl.flock

    def remove_and_lock(handle: int, operation: int) -> None:
        """Remove the file once, as another process may, and lock what is open."""
        monkeypatch.setattr(fcntl, "flock", flock)
        file.unlink()
        flock(handle, operation)

    async def use(database: Database) -> None:
        monkeypatch.setattr(fcntl, "flock", remove_and_lock)
        async with register_worker(database):
            with file.open() as other, pytest.raises(BlockingIOError):
                flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)

    await opened(path, use)


def test_a_new_folder_is_accessible_to_its_owner_only(tmp_path: Path) -> None:
    """New folders have mode 0700; a folder that exists keeps its mode."""
    tmp_path.chmod(0o755)
    prepare_file(tmp_path / "deep" / "er" / "store.db", create=True, allow_network=False)
    folders = (tmp_path, tmp_path / "deep", tmp_path / "deep" / "er")
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in folders] == [0o755, 0o700, 0o700]
