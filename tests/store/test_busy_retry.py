"""Patience with a store in trouble: how it is told, how long it lasts, and how it ends."""

import errno
import sqlite3

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
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits a second waits a moment."""
    monkeypatch.setattr(busy_retry, "_PAUSE", 0.005)


class Store:
    """A store that can be used when it is told so."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self._asked = 0

    async def asked(self, times: int) -> None:
        """Returns when it was tried so often."""
        while self._asked < times:
            await anyio.sleep(0.001)

    async def act(self) -> None:
        """Does what can be done."""
        self._asked += 1
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (LOCKED, "fuser"),
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
        (OSError(errno.ENOSPC, "No space left on device"), "Make room"),
    ],
)
async def test_trouble_is_told_once(error: Exception, words: str) -> None:
    """However many meet it, while reads go on: one sentence when it begins, one when it is over."""
    said: list[str] = []
    patient, store = BusyRetry(said.append), Store(error)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(patient.retry, store.act)
            await store.asked(3 + 3)
            await patient.retry(Store().act)
            assert len(said) == 1
            store.error = None
    assert len(said) == 2
    assert words in said[0]
    assert said[1] == "The store can be used again."


@pytest.mark.parametrize("error", [DAMAGED, StoreGoneError("The file is gone.")])
async def test_what_does_not_pass_ends_the_run_once(error: Exception) -> None:
    """Answers in hand are told, tasks end quietly, and the first fault is raised at the end."""
    said: list[str] = []
    given_up: list[bool] = []
    patient, store = BusyRetry(said.append, lambda: given_up.append(True)), Store(error)
    assert not await patient.retry_or_report(store.act, or_say="task 7")
    await patient.run_guarded(store.act)
    assert (said, given_up) == (["task 7"], [True])
    with pytest.raises(type(error)):
        patient.raise_error()


async def test_a_run_that_is_to_end_waits_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trouble that would be waited for for ever is final soon after the run was told to end."""
    monkeypatch.setattr(busy_retry, "_LAST", 0.05)
    said: list[str] = []
    patient, store = BusyRetry(said.append), Store(LOCKED)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: patient.retry_or_report(store.act, or_say="task 7"))
            await store.asked(5)
            assert "task 7" not in said
            patient.begin_shutdown()
    assert said[-1] == "task 7"
    with pytest.raises(OperationalError, match="locked"):
        patient.raise_error()


async def test_whoever_is_cut_off_says_what_is_lost() -> None:
    """Cancelled while it waits, an answer in hand is told too."""
    said: list[str] = []
    with anyio.move_on_after(0.05):
        await BusyRetry(said.append).retry_or_report(Store(LOCKED).act, or_say="task 7")
    assert said[-1] == "task 7"
