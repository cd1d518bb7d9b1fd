"""Group commit: what many tasks bring at about the same time is kept in one transaction."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

import anyio

from orchestrator.errors import StoreGoneError
from orchestrator.store.errors import STORE_ERRORS, classify_store_error

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_MOST = 64


class GroupCommit(Generic[_Item, _Result]):
    """Keeps items together; whoever brings one goes on only when it is kept.

    Whoever comes while a transaction is under way waits for the next one, which takes all of them.
    Nothing is held back to make a group larger. When the store fails, all who wait are told so.

    Args:
        keep: keeps all of these in one transaction; a result for each, in their order.
    """

    def __init__(self, keep: Callable[[Sequence[_Item]], Awaitable[Sequence[_Result]]]) -> None:
        self._keep = keep
        self._turn = anyio.Lock(fast_acquire=True)
        self._waiting: list[_Entry[_Item, _Result]] = []

    async def add(self, item: _Item) -> _Result:
        """Returns what keeping the item gave, after the commit; not torn by a cancellation.

        Raises:
            Exception: whatever `keep` raised for this very item.
        """
        entry = _Entry[_Item, _Result](item)
        self._waiting.append(entry)
        with anyio.CancelScope(shield=True):
            async with self._turn:
                if not entry.is_settled:
                    group, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
                    await self._settle(group)
        return entry.result()

    async def _settle(self, group: "list[_Entry[_Item, _Result]]") -> None:
        try:
            results = await self._keep([entry.item for entry in group])
        except Exception as error:  # noqa: BLE001 - raised where the item came from
            is_store_error = _is_store_error(error)
            if is_store_error:
                # items that wait for the next transaction would only wait as long again, one by one
                group, self._waiting = group + self._waiting, []
            if is_store_error or len(group) == 1:
                for entry in group:
                    entry.fail(error)
                return
            # one bad item must not cost the others their place
            for entry in group:
                await self._settle([entry])
        else:
            for entry, result in zip(group, results, strict=True):
                entry.succeed(result)


def _is_store_error(error: Exception) -> bool:
    """Return whether the store failed, and not one of the items."""
    if isinstance(error, STORE_ERRORS):
        return classify_store_error(error).passes
    return isinstance(error, StoreGoneError)


class _Entry(Generic[_Item, _Result]):
    def __init__(self, item: _Item) -> None:
        self.item = item
        self.is_settled = False
        self._results: list[_Result] = []
        self._error: Exception | None = None

    def succeed(self, result: _Result) -> None:
        self._results.append(result)
        self.is_settled = True

    def fail(self, error: Exception) -> None:
        self._error = error
        self.is_settled = True

    def result(self) -> _Result:
        if self._error is not None:
            raise self._error
        return self._results[0]
