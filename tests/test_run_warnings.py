"""Warnings of runs: notified when they begin, stored until they end."""

from datetime import timedelta

import pytest

from orchestrator import run_warnings
from orchestrator.job_queue.worker_registry import register_worker
from orchestrator.run_warnings import RunWarnings, stored_warnings
from orchestrator.store import Database
from tests.job_factory import PROFILE, FakeClock

pytestmark = pytest.mark.anyio


async def messages(database: Database) -> list[str]:
    """Return the messages in the store."""
    async with database.read() as connection:
        return [warning.message for warning in await stored_warnings(connection)]


async def test_a_warning_is_notified_once_and_stored(database: Database) -> None:
    """A person reads it once, however often its cause is met; the store has one row."""
    said: list[str] = []
    warnings = RunWarnings(database, PROFILE, said.append)
    for _ in range(3):
        await warnings.warn("key", "No answer.")
    assert said == ["Warning: No answer."]
    assert await messages(database) == ["No answer."]


async def test_a_warning_ends_and_may_begin_again(database: Database) -> None:
    """The row of an ended warning is removed; if it begins again, it notifies again."""
    said: list[str] = []
    warnings = RunWarnings(database, PROFILE, said.append)
    await warnings.warn("key", "No answer.")
    await warnings.warn("other", "No trace.")
    assert await warnings.clear("key")
    assert not await warnings.clear("key")
    assert await messages(database) == ["No trace."]
    await warnings.warn("key", "No answer.")
    assert len(said) == 3


async def test_a_warning_that_lasts_is_renewed(
    sqlite: Database, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row keeps the time at which it began, and shows when it was seen last."""
    warnings = RunWarnings(sqlite, PROFILE, lambda _sentence: None)
    await warnings.warn("key", "No answer.")
    clock.advance(timedelta(minutes=5))
    await warnings.warn("key", "Still no answer.")
    assert await messages(sqlite) == ["No answer."]
    monkeypatch.setattr(run_warnings, "_RENEWAL", 0.0)
    await warnings.warn("key", "Still no answer.")
    async with sqlite.read() as connection:
        (stored,) = await stored_warnings(connection)
    assert stored.message == "Still no answer."
    assert stored.seen_at - stored.since == timedelta(minutes=5)


async def test_a_store_that_cannot_be_written_does_not_stop_a_warning(
    sqlite: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user is notified, and a later call stores it."""
    said: list[str] = []
    warnings = RunWarnings(sqlite, PROFILE, said.append)

    def fail() -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(sqlite, "write", fail)
        await warnings.warn("key", "No answer.")
    assert await messages(sqlite) == []
    await warnings.warn("key", "No answer.")
    assert await messages(sqlite) == ["No answer."]
    assert len(said) == 1


async def test_old_warnings_of_the_profile_are_removed(
    database: Database, clock: FakeClock
) -> None:
    """What an earlier run has left is removed, and what this run has stored is kept."""
    earlier = RunWarnings(database, PROFILE, lambda _sentence: None)
    await earlier.warn("old", "No answer.")
    other = RunWarnings(database, "another profile", lambda _sentence: None)
    await other.warn("old", "No answer there.")
    clock.advance(timedelta(seconds=1))
    async with register_worker(database) as me:
        warnings = RunWarnings(database, PROFILE, lambda _sentence: None)
        await warnings.warn("new", "No trace.")
        await warnings.remove_old(me.name)
    assert await messages(database) == ["No answer there.", "No trace."]
