"""Group commit: whoever brings something goes on only when it is kept, and pays only for itself."""

import sqlite3
from collections.abc import Sequence

import anyio
import pytest
from sqlalchemy.exc import DBAPIError

from orchestrator.store import GroupCommit
from orchestrator.store.errors import classify_store_error
from tests.store_errors import server_error, sqlite_error

pytestmark = pytest.mark.anyio


class Keeper:
    """Keeps numbers, and refuses negative ones; while it is held, what it has begun goes on."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.held = anyio.Event()
        self.held.set()
        self.error: DBAPIError | None = None

    async def keep(self, items: Sequence[int]) -> list[int]:
        """Each number doubled."""
        self.groups.append(list(items))
        await self.held.wait()
        if self.error is not None and (classify_store_error(self.error).passes or min(items) < 0):
            raise self.error
        if min(items) < 0:
            raise ValueError(str(items))
        return [2 * item for item in items]


async def test_one_alone_is_kept_at_once() -> None:
    """Nothing waits for company."""
    keeper = Keeper()
    assert await GroupCommit(keeper.keep).add(4) == 8
    assert keeper.groups == [[4]]


async def test_a_store_error_concerns_all() -> None:
    """When the store fails, nobody waits for it to fail once more for each item."""
    keeper = Keeper()
    keeper.error = sqlite_error("database is locked", sqlite3.SQLITE_BUSY)
    results = await added(keeper, [1, 2, 3, 4])
    assert set(results.values()) == {str(keeper.error)}
    assert keeper.groups == [[1]]


async def test_an_item_that_the_store_rejects_fails_alone() -> None:
    """A constraint concerns one item, and not the store."""
    keeper = Keeper()
    keeper.error = server_error("23514")
    results = await added(keeper, [1, 2, -3, 4])
    assert results == {1: 2, 2: 4, -3: str(keeper.error), 4: 8}
    assert keeper.groups == [[1], [2, -3, 4], [2], [-3], [4]]


async def added(keeper: Keeper, items: Sequence[int]) -> dict[int, object]:
    """What each gets that comes while the first is being kept."""
    grouped, results = GroupCommit(keeper.keep), dict[int, object]()

    async def add(item: int) -> None:
        try:
            results[item] = await grouped.add(item)
        except (ValueError, DBAPIError) as error:
            results[item] = str(error)

    keeper.held = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(add, items[0])
        await anyio.wait_all_tasks_blocked()
        for item in items[1:]:
            tasks.start_soon(add, item)
        await anyio.wait_all_tasks_blocked()
        begun = dict(results)
        keeper.held.set()
    assert begun == {}
    return results


async def test_what_comes_meanwhile_is_kept_together() -> None:
    """All that came while the first was being kept share the next transaction; each its result."""
    keeper = Keeper()
    assert await added(keeper, [1, 2, 3, 4]) == {1: 2, 2: 4, 3: 6, 4: 8}
    assert keeper.groups == [[1], [2, 3, 4]]


async def test_a_bad_item_fails_alone() -> None:
    """What cannot be kept costs nobody else his place: the others are kept one by one."""
    keeper = Keeper()
    assert await added(keeper, [1, 2, -3, 4]) == {1: 2, 2: 4, -3: "[-3]", 4: 8}


async def test_a_cancelled_caller_is_kept_all_the_same() -> None:
    """An answer that has come is written down, whoever wants to stop in that moment."""
    keeper = Keeper()
    with anyio.CancelScope() as stopped:
        stopped.cancel()
        await GroupCommit(keeper.keep).add(4)
    assert keeper.groups == [[4]]
