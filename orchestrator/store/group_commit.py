"""Group commit: items that several tasks add at the same time are written in one transaction."""

from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

import anyio

from orchestrator.store.error_classification import STORE_ERRORS, classify_store_error

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class GroupCommit(Generic[_Item, _Result]):
    """Writes items in groups; `add` returns after the commit of its item.

    An item that is added during a transaction waits for the next one, which takes all that wait.
    If no transaction is in progress, the item is written immediately and alone.

    Args:
        write: writes all of these items in one transaction; returns their results in order.
    """

    def __init__(self, write: Callable[[Sequence[_Item]], Awaitable[Sequence[_Result]]]) -> None:
        self._write = write
        self._lock = anyio.Lock(fast_acquire=True)
        self._waiting: list[tuple[_Item, Future[_Result]]] = []

    async def add(self, item: _Item) -> _Result:
        """Write an item and return its result; a cancellation does not interrupt this.

        Raises:
            Exception: what `write` raised for this item.
        """
        written = Future[_Result]()
        self._waiting.append((item, written))
        with anyio.CancelScope(shield=True):
            async with self._lock:
                if not written.done():  # otherwise written already, in the group before
                    group, self._waiting = self._waiting, []
                    await self._write_group(group)
        return written.result()

    async def _write_group(self, group: list[tuple[_Item, Future[_Result]]]) -> None:
        try:
            results = await self._write([item for item, _ in group])
        except Exception as error:  # noqa: BLE001 - raised where the item was added
            is_temporary = (
                isinstance(error, STORE_ERRORS) and classify_store_error(error).is_temporary
            )
            if is_temporary or len(group) == 1:
                for _, written in group:
                    written.set_exception(error)
            else:
                # one item is invalid: written alone, the others succeed
                for entry in group:
                    await self._write_group([entry])
        else:
            for (_, written), result in zip(group, results, strict=True):
                written.set_result(result)
