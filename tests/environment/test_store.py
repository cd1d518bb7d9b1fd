"""A run whose store is locked, full, read-only, deleted, or used by a second run."""

import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from orchestrator.simulator import Simulator
from tests.command import Shell
from tests.end_to_end.scene import MAX_WAIT, accepted
from tests.environment.scene import COUNT, STORE, assert_each_once, at_work, fill, mount

pytestmark = [pytest.mark.anyio, pytest.mark.faults]

ONCE = signal.SIGTERM


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let another program hold the write lock of the store."""
    other = sqlite3.connect(folder / STORE, isolation_level=None, timeout=20)
    other.execute("BEGIN IMMEDIATE")
    yield
    other.execute("ROLLBACK")
    other.close()


async def test_locked_for_a_while(shell: Shell, cloud: Simulator) -> None:
    """The run says that the store is locked, waits, and continues when the lock is released."""
    async with at_work(shell, cloud) as run:
        with locked(shell.folder):
            await run.says("database is locked")
        assert await run.ends() == 0, run.said
    assert "fuser or lsof on the file names it" in run.said
    assert "The store can be used again." in run.said
    await assert_each_once(shell, cloud)


async def test_locked_for_good(shell: Shell, cloud: Simulator) -> None:
    """A second signal ends the run although the lock stays; it prints each answer in hand."""
    async with at_work(shell, cloud) as run:
        with locked(shell.folder):
            await run.says("database is locked")
            run.signal(ONCE)
            await run.says("Stopping")
            run.signal(ONCE)
            assert await run.ends() == 143, run.said
    assert "accepted as task" in run.said
    await assert_each_once(shell, cloud)


async def test_a_full_disk_that_is_cleared(on_disk: Shell, disk: Path, cloud: Simulator) -> None:
    """On a full disk nothing more is sent; the run continues when space is freed."""
    async with at_work(on_disk, cloud) as run:
        ballast = fill(disk)
        await run.says("database or disk is full")
        assert "Free space on its disk" in run.said
        ballast.unlink()
        assert await run.ends() == 0, run.said
    await assert_each_once(on_disk, cloud)


async def test_a_full_disk_that_stays_full(on_disk: Shell, disk: Path, cloud: Simulator) -> None:
    """One signal ends the run; it prints which answers could not be recorded."""
    async with at_work(on_disk, cloud) as run:
        ballast = fill(disk)
        await run.says("database or disk is full")
        run.signal(ONCE)
        assert await run.ends() == 143, run.said
    assert "accepted as task" in run.said
    assert "the next run looks for it in the bucket" in run.said
    assert "Traceback" not in run.said
    fresh = await on_disk.run("run")
    assert (fresh.code, fresh.out) == (1, "")
    assert "Free space on its disk" in fresh.err
    ballast.unlink()
    await assert_each_once(on_disk, cloud)


async def test_a_full_disk_and_a_time_limit(on_disk: Shell, disk: Path, cloud: Simulator) -> None:
    """The time limit also ends a run that waits for its store."""
    async with at_work(on_disk, cloud, "--time-limit", "10") as run:
        ballast = fill(disk)
        assert await run.ends() == 1, run.said
    assert "The database cannot be used: database or disk is full." in run.said
    ballast.unlink()
    await assert_each_once(on_disk, cloud)


async def test_a_read_only_disk(on_disk: Shell, disk: Path, cloud: Simulator) -> None:
    """The message names the file and nothing is sent; when it is writable again, a run succeeds."""
    async with at_work(on_disk, cloud) as run:
        run.signal(signal.SIGKILL)
        await run.ends()
    assert mount(disk, "-o", "remount,ro") == ""
    fresh = await on_disk.run("run")
    assert fresh.code == 2
    assert f"The database {disk / STORE} cannot be opened: Read-only file system" in fresh.err
    assert "Traceback" not in fresh.err
    assert mount(disk, "-o", "remount,rw,size=12m") == ""
    await assert_each_once(on_disk, cloud)


def delete(folder: Path) -> None:
    """Delete the store and the files beside it."""
    for path in sorted(folder.glob(f"{STORE}*")):
        path.unlink()


def replace(folder: Path) -> None:
    """Replace the store by another file."""
    shutil.copy(folder / STORE, folder / "other")
    (folder / "other").replace(folder / STORE)


def delete_log(folder: Path) -> None:
    """Delete the write-ahead log alone."""
    (folder / f"{STORE}-wal").unlink()


@pytest.mark.parametrize(
    ("do", "words"),
    [
        (delete, "was deleted or moved"),
        (replace, "was replaced by another file"),
        (delete_log, "was left without its write-ahead log"),
    ],
)
async def test_a_deleted_or_replaced_file(
    shell: Shell, cloud: Simulator, do: Callable[[Path], None], words: str
) -> None:
    """The run notices, sends nothing more, and prints the tasks that it could not record."""
    # a low concurrency, so that some jobs are not sent yet when the first answers arrive
    async with at_work(shell, cloud, "--concurrency", "4") as run:
        do(shell.folder)
        assert await run.ends() == 1, run.said
    assert words in run.said
    assert "put back the original file" in run.said
    assert "Traceback" not in run.said
    begun = accepted(cloud)
    assert len(begun) < COUNT
    assert max(begun.values()) == 1
    told = {entry.task_id for entry in cloud.ledger if str(entry.task_id) in run.said}
    assert len(told) >= 1


async def test_a_process_suspended_for_long(shell: Shell, cloud: Simulator) -> None:
    """Suspended beyond the time-out of its requests, a run looks up what they did and ends well."""
    async with at_work(shell, cloud, "--request-timeout", "3") as run:
        run.signal(signal.SIGSTOP)
        await anyio.sleep(4)
        run.signal(signal.SIGCONT)
        assert await run.ends() == 0, run.said
    await assert_each_once(shell, cloud)


async def test_two_runs_at_once(shell: Shell, cloud: Simulator) -> None:
    """Two runs on one file share the jobs; both end well, and each image is exported once."""
    async with at_work(shell, cloud) as one, shell.started("run") as process:
        assert await one.ends() == 0, one.said
        with anyio.fail_after(2 * MAX_WAIT):
            assert await process.wait() == 0
    await assert_each_once(shell, cloud)
