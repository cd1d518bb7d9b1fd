"""Faults of the store's file during a run: locked, full, read-only, deleted, shared."""

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
def lock_store(folder: Path) -> Iterator[None]:
    """Another program writes to the store and does not end its transaction."""
    other = sqlite3.connect(folder / STORE, isolation_level=None, timeout=20)
    other.execute("BEGIN IMMEDIATE")
    yield
    other.execute("ROLLBACK")
    other.close()


async def test_temporary_lock_is_waited_for(shell: Shell, cloud: Simulator) -> None:
    """The run names the lock, waits, and goes on."""
    async with start_run(shell, cloud) as run:
        with lock_store(shell.folder):
            await run.wait_for_output("database is locked")
        assert await run.wait_for_exit() == 0, run.output
    assert "fuser or lsof on the file names it" in run.output
    assert "The store can be used again." in run.output
    await assert_each_exported_once(shell, cloud)


async def test_second_signal_ends_a_run_under_a_lock(shell: Shell, cloud: Simulator) -> None:
    """A second signal ends the run under a lock; each unrecorded answer is printed."""
    async with start_run(shell, cloud) as run:
        with lock_store(shell.folder):
            await run.wait_for_output("database is locked")
            run.signal(ONCE)
            await run.wait_for_output("Stopping")
            run.signal(ONCE)
            assert await run.wait_for_exit() == 143, run.output
    assert "accepted as task" in run.output
    await assert_each_exported_once(shell, cloud)


async def test_full_disk_is_waited_for(on_disk: Shell, disk: Path, cloud: Simulator) -> None:
    """On a full disk nothing more is sent, and the run goes on when there is space."""
    async with start_run(on_disk, cloud) as run:
        ballast = fill_disk(disk)
        await run.wait_for_output("database or disk is full")
        assert "Free space on its disk" in run.output
        ballast.unlink()
        assert await run.wait_for_exit() == 0, run.output
    await assert_each_exported_once(on_disk, cloud)


async def test_signal_ends_a_run_on_a_full_disk(
    on_disk: Shell, disk: Path, cloud: Simulator
) -> None:
    """One signal ends the run, which reports the answers it could not record.

    It also says that the next run looks for their exports.
    """
    async with start_run(on_disk, cloud) as run:
        ballast = fill_disk(disk)
        await run.wait_for_output("database or disk is full")
        run.signal(ONCE)
        assert await run.wait_for_exit() == 143, run.output
    assert "accepted as task" in run.output
    assert "The next run on this store looks for the export" in run.output
    assert "Traceback" not in run.output
    fresh = await on_disk.run("run")
    assert (fresh.code, fresh.out) == (1, "")
    assert "Free space on its disk" in fresh.err
    ballast.unlink()
    await assert_each_exported_once(on_disk, cloud)


async def test_time_limit_holds_on_a_full_disk(
    on_disk: Shell, disk: Path, cloud: Simulator
) -> None:
    """The time limit holds while the run waits for the store."""
    async with start_run(on_disk, cloud, "--time-limit", "10") as run:
        ballast = fill_disk(disk)
        assert await run.wait_for_exit() == 1, run.output
    assert "The database cannot be used: database or disk is full." in run.output
    ballast.unlink()
    await assert_each_exported_once(on_disk, cloud)


async def test_read_only_disk_is_reported(on_disk: Shell, disk: Path, cloud: Simulator) -> None:
    """A run on a read-only disk names the store and sends nothing.

    When the store is writable again, a run succeeds.
    """
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


def delete_store(folder: Path) -> None:
    """Delete the store's folder."""
    for path in sorted(folder.glob(f"{STORE}*")):
        path.unlink()


def replace_store(folder: Path) -> None:
    """Replace the store by another file."""
    shutil.copy(folder / STORE, folder / "other")
    (folder / "other").replace(folder / STORE)


def delete_log(folder: Path) -> None:
    """Delete the store's write-ahead log."""
    (folder / f"{STORE}-wal").unlink()


@pytest.mark.parametrize(
    ("do", "words"),
    [
        (delete_store, "was deleted or moved"),
        (replace_store, "was replaced by another file"),
        (delete_log, "was left without its write-ahead log"),
    ],
)
async def test_deleted_or_replaced_file_ends_the_run(
    shell: Shell, cloud: Simulator, do: Callable[[Path], None], words: str
) -> None:
    """A run that loses its store sends nothing more and prints the unrecorded tasks."""
    # so few at once that some jobs are not yet sent, however late the first answers come
    async with start_run(shell, cloud, "--concurrency", "4") as run:
        do(shell.folder)
        assert await run.wait_for_exit() == 1, run.output
    assert words in run.output
    assert "put back the original file" in run.output
    assert "Traceback" not in run.output
    begun = count_exports(cloud)
    assert len(begun) < COUNT
    assert max(begun.values()) == 1
    told = {entry.task_id for entry in cloud.ledger if str(entry.task_id) in run.output}
    assert len(told) >= 1


async def test_suspended_process_continues(shell: Shell, cloud: Simulator) -> None:
    """Suspended beyond its time-outs, the run looks up its requests and ends well."""
    async with start_run(shell, cloud, "--request-timeout", "3") as run:
        run.signal(signal.SIGSTOP)
        await anyio.sleep(4)
        run.signal(signal.SIGCONT)
        assert await run.wait_for_exit() == 0, run.output
    await assert_each_exported_once(shell, cloud)


async def test_two_runs_share_the_work(shell: Shell, cloud: Simulator) -> None:
    """Two runs on one file both end well, and each image is exported once."""
    async with start_run(shell, cloud) as one, shell.start("run") as process:
        assert await one.wait_for_exit() == 0, one.output
        with anyio.fail_after(2 * MAX_WAIT):
            assert await process.wait() == 0
    await assert_each_exported_once(shell, cloud)
