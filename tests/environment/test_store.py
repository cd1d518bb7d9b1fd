"""The store's file in trouble under a run: locked, full, read-only, gone, shared."""

import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from orchestrator.simulator import Simulator
from tests.cli_process import Shell
from tests.end_to_end.harness import MAX_WAIT, count_exports
from tests.environment.harness import (
    COUNT,
    STORE,
    assert_each_exported_once,
    fill_disk,
    mount_disk,
    start_run,
)

pytestmark = [pytest.mark.anyio, pytest.mark.faults]

ONCE = signal.SIGTERM


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Another program writes to the store and does not come to an end."""
    other = sqlite3.connect(folder / STORE, isolation_level=None, timeout=20)
    other.execute("BEGIN IMMEDIATE")
    yield
    other.execute("ROLLBACK")
    other.close()


async def test_locked_for_a_while(shell: Shell, cloud: Simulator) -> None:
    """A store that another program locks is waited for, by name, and the run goes on."""
    async with start_run(shell, cloud) as run:
        with locked(shell.folder):
            await run.wait_for_output("database is locked")
        assert await run.wait_for_exit() == 0, run.output
    assert "fuser or lsof on the file names it" in run.output
    assert "The store can be used again." in run.output
    await assert_each_exported_once(shell, cloud)


async def test_locked_for_good(shell: Shell, cloud: Simulator) -> None:
    """A second signal ends the run under a lock that stays; each answer in hand is told."""
    async with start_run(shell, cloud) as run:
        with locked(shell.folder):
            await run.wait_for_output("database is locked")
            run.signal(ONCE)
            await run.wait_for_output("Stopping")
            run.signal(ONCE)
            assert await run.wait_for_exit() == 143, run.output
    assert "accepted as task" in run.output
    await assert_each_exported_once(shell, cloud)


async def test_a_full_disk_that_is_cleared(on_disk: Shell, disk: Path, cloud: Simulator) -> None:
    """On a full disk nothing more is sent; when there is room the run goes on by itself."""
    async with start_run(on_disk, cloud) as run:
        ballast = fill_disk(disk)
        await run.wait_for_output("database or disk is full")
        assert "Make room on its disk" in run.output
        ballast.unlink()
        assert await run.wait_for_exit() == 0, run.output
    await assert_each_exported_once(on_disk, cloud)


async def test_a_full_disk_that_stays_full(on_disk: Shell, disk: Path, cloud: Simulator) -> None:
    """One signal ends the run: it says which answers could not be kept, and what that means."""
    async with start_run(on_disk, cloud) as run:
        ballast = fill_disk(disk)
        await run.wait_for_output("database or disk is full")
        run.signal(ONCE)
        assert await run.wait_for_exit() == 143, run.output
    assert "accepted as task" in run.output
    assert "the next run looks for it in the bucket" in run.output
    assert "Traceback" not in run.output
    fresh = await on_disk.run("run")
    assert (fresh.code, fresh.out) == (1, "")
    assert "Make room on its disk" in fresh.err
    ballast.unlink()
    await assert_each_exported_once(on_disk, cloud)


async def test_a_full_disk_and_a_time_limit(on_disk: Shell, disk: Path, cloud: Simulator) -> None:
    """The time limit holds while the store is waited for."""
    async with start_run(on_disk, cloud, "--time-limit", "10") as run:
        ballast = fill_disk(disk)
        assert await run.wait_for_exit() == 1, run.output
    assert "The database cannot be used: database or disk is full." in run.output
    ballast.unlink()
    await assert_each_exported_once(on_disk, cloud)


async def test_a_read_only_disk(on_disk: Shell, disk: Path, cloud: Simulator) -> None:
    """A store that may not be written is named, and nothing is sent; mended, all goes well."""
    async with start_run(on_disk, cloud) as run:
        run.signal(signal.SIGKILL)
        await run.wait_for_exit()
    assert mount_disk(disk, "-o", "remount,ro") == ""
    fresh = await on_disk.run("run")
    assert fresh.code == 2
    assert f"The database {disk / STORE} cannot be opened: Read-only file system" in fresh.err
    assert "Traceback" not in fresh.err
    assert mount_disk(disk, "-o", "remount,rw,size=12m") == ""
    await assert_each_exported_once(on_disk, cloud)


def delete(folder: Path) -> None:
    """Somebody clears the folder away."""
    for path in sorted(folder.glob(f"{STORE}*")):
        path.unlink()


def replace(folder: Path) -> None:
    """Somebody puts another file in the store's place."""
    shutil.copy(folder / STORE, folder / "other")
    (folder / "other").replace(folder / STORE)


def rob(folder: Path) -> None:
    """Somebody takes the log for rubbish."""
    (folder / f"{STORE}-wal").unlink()


@pytest.mark.parametrize(
    ("do", "words"),
    [
        (delete, "was deleted or moved away"),
        (replace, "was replaced by another file"),
        (rob, "was robbed of its log"),
    ],
)
async def test_a_file_that_is_taken_away(
    shell: Shell, cloud: Simulator, do: Callable[[Path], None], words: str
) -> None:
    """The run notices, sends nothing more, and tells the tasks that it could not record."""
    # so few at once that some jobs are not yet sent, however late the first answers come
    async with start_run(shell, cloud, "--concurrency", "4") as run:
        do(shell.folder)
        assert await run.wait_for_exit() == 1, run.output
    assert words in run.output
    assert "Put back the file itself" in run.output
    assert "Traceback" not in run.output
    begun = count_exports(cloud)
    assert len(begun) < COUNT
    assert max(begun.values()) == 1
    told = {entry.task_id for entry in cloud.ledger if str(entry.task_id) in run.output}
    assert len(told) >= 1


async def test_the_whole_process_is_stopped_and_goes_on(shell: Shell, cloud: Simulator) -> None:
    """Stopped past the time-out of its requests, it looks for what they did and ends well."""
    async with start_run(shell, cloud, "--request-timeout", "3") as run:
        run.signal(signal.SIGSTOP)
        await anyio.sleep(4)
        run.signal(signal.SIGCONT)
        assert await run.wait_for_exit() == 0, run.output
    await assert_each_exported_once(shell, cloud)


async def test_two_runs_at_once(shell: Shell, cloud: Simulator) -> None:
    """Two runs on one file share the work; both end well, and each image is exported once."""
    async with start_run(shell, cloud) as one, shell.start("run") as process:
        assert await one.wait_for_exit() == 0, one.output
        with anyio.fail_after(2 * MAX_WAIT):
            assert await process.wait() == 0
    await assert_each_exported_once(shell, cloud)
