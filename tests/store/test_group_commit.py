"""Group commit: items added at the same time share a transaction; each caller gets its result."""

import sqlite3
from collections.abc import Sequence

import anyio
import pytest
from sqlalchemy.exc import DBAPIError

from orchestrator.store import GroupCommit
from orchestrator.store.error_classification import classify_store_error
from tests.store_errors import server_error, sqlite_error

pytestmark = pytest.mark.anyio


class Writer:
    """Writes numbers and refuses negative ones; a write lasts while the writer is held."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.held = anyio.Event()
        self.held.set()
        self.error: DBAPIError | None = None

    async def write(self, items: Sequence[int]) -> list[int]:
        """Return each number doubled."""
        self.groups.append(list(items))
        await self.held.wait()
        if self.error is not None and (
            classify_store_error(self.error).is_temporary or min(items) < 0
        ):
            raise self.error
        if min(items) < 0:
            raise ValueError(str(items))
        return [2 * item for item in items]


async def test_a_single_item_is_written_at_once() -> None:
    """It does not wait for others to form a group."""
    writer = Writer()
    assert await GroupCommit(writer.write).add(4) == 8
    assert writer.groups == [[4]]


async def test_a_store_error_fails_the_whole_group() -> None:
    """If the store is locked, all items of the group fail together.

    The items are not tried one by one, because each would wait as long again.
    """
    writer = Writer()
    writer.error = sqlite_error("database is locked", sqlite3.SQLITE_BUSY)
    results = await added(writer, [1, 2, 3, 4])
    assert set(results.values()) == {str(writer.error)}
    assert writer.groups == [[1], [2, 3, 4]]


async def test_an_item_that_the_store_rejects_fails_alone() -> None:
    """A violated constraint concerns one item, not the store."""
    writer = Writer()
    writer.error = server_error("23514")
    results = await added(writer, [1, 2, -3, 4])
    assert results == {1: 2, 2: 4, -3: str(writer.error), 4: 8}
    assert writer.groups == [[1], [2, -3, 4], [2], [-3], [4]]


async def added(writer: Writer, items: Sequence[int]) -> dict[int, object]:
    """Add the first item, and the others while it is written.

    Returns:
        What each caller gets, by item: the result or the text of the error.
    """
    grouped, results = GroupCommit(writer.write), dict[int, object]()

    async def add(item: int) -> None:
        try:
            results[item] = await grouped.add(item)
        except (ValueError, DBAPIError) as error:
            results[item] = str(error)

    writer.held = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(add, items[0])
        await anyio.wait_all_tasks_blocked()
        for item in items[1:]:
            tasks.start_soon(add, item)
        await anyio.wait_all_tasks_blocked()
        begun = dict(results)
        writer.held.set()
    assert begun == {}
    return results


async def test_items_added_during_a_write_form_a_group() -> None:
    """They share the next transaction, and each caller gets its own result."""
    writer = Writer()
    assert await added(writer, [1, 2, 3, 4]) == {1: 2, 2: 4, 3: 6, 4: 8}
    assert writer.groups == [[1], [2, 3, 4]]


async def test_an_invalid_item_fails_alone() -> None:
    """The other items of its group are written one by one."""
    writer = Writer()
    assert await added(writer, [1, 2, -3, 4]) == {1: 2, 2: 4, -3: "[-3]", 4: 8}


async def test_the_item_of_a_cancelled_caller_is_written() -> None:
    """An answer that has arrived is recorded even while the run is being stopped."""
    writer = Writer()
    with anyio.CancelScope() as stopped:
        stopped.cancel()
        await GroupCommit(writer.write).add(4)
    assert writer.groups == [[4]]
