"""Transactions are retried while the store cannot be used; the user is notified of it."""

import errno
import sqlite3
from functools import partial

import anyio
import pytest
from sqlalchemy.exc import OperationalError

from orchestrator.errors import StoreGoneError
from orchestrator.store import BusyRetry, busy_retry
from tests.store_errors import sqlite_error

pytestmark = pytest.mark.anyio

LOCKED = sqlite_error("database is locked", sqlite3.SQLITE_BUSY)
DAMAGED = sqlite_error("database disk image is malformed", sqlite3.SQLITE_CORRUPT)


@pytest.fixture(autouse=True)
def _short_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry after milliseconds instead of a second."""
    monkeypatch.setattr(busy_retry, "_PAUSE", 0.005)


class Store:
    """A store that fails with this error, until the error is removed."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self._tries = 0

    async def tried(self, times: int) -> None:
        """Wait until the action was tried this many times."""
        while self._tries < times:
            await anyio.sleep(0.001)

    async def act(self) -> None:
        """Succeed or fail."""
        self._tries += 1
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (LOCKED, "fuser"),
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
        (OSError(errno.ENOSPC, "No space left on device"), "Free space"),
    ],
)
async def test_an_error_is_reported_once(error: Exception, words: str) -> None:
    """Several tasks that fail report the error once, and its end once."""
    said: list[str] = []
    retry, store = BusyRetry(said.append), Store(error)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(retry.retry, store.act)
            await store.tried(3 + 3)
            await retry.retry(Store().act)
            assert len(said) == 1
            store.error = None
    assert len(said) == 2
    assert words in said[0]
    assert said[1] == "The store can be used again."


@pytest.mark.parametrize("error", [DAMAGED, StoreGoneError("The file is gone.")])
async def test_a_final_error_stops_the_run_once(error: Exception) -> None:
    """After a final error the tasks end quietly and the run gives up once.

    Answers in hand are reported, and the first error is raised at the end.
    """
    said: list[str] = []
    given_up: list[bool] = []
    retry, store = BusyRetry(said.append, lambda: given_up.append(True)), Store(error)
    await retry.run_guarded(partial(retry.retry_or_report, store.act, failure_message="task 7"))
    await retry.run_guarded(store.act)
    assert (said, given_up) == (["task 7"], [True])
    with pytest.raises(type(error)):
        retry.raise_error()


async def test_retries_end_soon_after_the_shutdown_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """During a shutdown a temporary error is retried only for a few seconds.

    Before the shutdown it is retried without a limit.
    """
    monkeypatch.setattr(busy_retry, "_SHUTDOWN_TIMEOUT", 0.05)
    said: list[str] = []
    retry, store = BusyRetry(said.append), Store(LOCKED)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            report = partial(retry.retry_or_report, store.act, failure_message="task 7")
            tasks.start_soon(retry.run_guarded, report)
            await store.tried(5)
            assert "task 7" not in said
            retry.begin_shutdown()
    assert said[-1] == "task 7"
    with pytest.raises(OperationalError, match="locked"):
        retry.raise_error()


async def test_a_cancelled_retry_reports_what_is_lost() -> None:
    """An answer in hand is also reported if the task is cancelled while it waits."""
    said: list[str] = []
    with anyio.move_on_after(0.05):
        await BusyRetry(said.append).retry_or_report(Store(LOCKED).act, failure_message="task 7")
    assert said[-1] == "task 7"
