"""Waiting for a store that cannot be written just now: an answer in hand must not be dropped."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import anyio

from orchestrator.errors import StoreGoneError
from orchestrator.store.errors import STORE_ERRORS, classify_store_error, store_error_text

_Result = TypeVar("_Result")

_PAUSE = 1.0
_LAST = 5.0
"""Seconds that are still waited for a store in trouble when the run is to end."""

_FAULTS = (*STORE_ERRORS, StoreGoneError)


class BusyRetry:
    """Tries again for as long as the store's trouble may pass: locked, full, out of reach.

    Args:
        tell: takes a sentence for the user when trouble begins and when it is over.
        give_up: called when the store can no longer be used at all.
    """

    def __init__(
        self, notify: Callable[[str], None], give_up: Callable[[], None] = lambda: None
    ) -> None:
        self._notify = notify
        self._give_up = give_up
        self._waiting = 0
        self._hurried_at: float | None = None
        self._fault: Exception | None = None

    def begin_shutdown(self) -> None:
        """The run is to end: trouble that does not pass soon is waited for no more."""
        if self._hurried_at is None:
            self._hurried_at = anyio.current_time()

    async def retry(self, action: Callable[[], Awaitable[_Result]]) -> _Result:
        """The action's result, from the first time that it succeeds.

        Args:
            action: one or more whole transactions, each fenced or idempotent: a commit that seems
                to fail may have been applied, as when the connection is lost, and is repeated.

        Raises:
            DBAPIError, OSError: trouble that waiting does not mend, or not soon enough.
            StoreGoneError: there is nothing left to wait for.
        """
        try:
            return await action()
        except _FAULTS as error:
            self._see_that_it_may_pass(error, anyio.current_time())
            self._begin(error)
        try:
            result = await self._again_and_again(action, anyio.current_time())
        except BaseException:
            self._waiting -= 1
            raise
        self._waiting -= 1
        if not self._waiting:
            self._notify("The store can be used again.")
        return result

    async def retry_or_report(
        self, action: Callable[[], Awaitable[object]], *, or_say: str
    ) -> bool:
        """Keeps what cannot be had again; where that fails, the user is told instead.

        Args:
            or_say: what is lost to the store, and what becomes of it.
        """
        kept = False
        try:
            with self.note_error():
                await self.retry(action)
                kept = True
        finally:
            if not kept:
                self._notify(or_say)
        return kept

    @contextmanager
    def note_error(self) -> Iterator[None]:
        """Ends the block quietly when the store can no longer be used: others may still be busy.

        `raise_fault` says it when they have ended.
        """
        try:
            yield
        except* _FAULTS:
            if self._fault is None:
                raise

    async def run_guarded(self, task: Callable[[], Awaitable[object]]) -> None:
        """Runs a task that ends quietly when the store can no longer be used."""
        with self.note_error():
            await task()

    def raise_error(self) -> None:
        """Raises what made the store unusable, if anything did."""
        if self._fault is not None:
            raise self._fault

    async def _again_and_again(
        self, action: Callable[[], Awaitable[_Result]], since: float
    ) -> _Result:
        while True:
            await anyio.sleep(_PAUSE)
            try:
                return await action()
            except _FAULTS as error:
                self._see_that_it_may_pass(error, since)

    def _see_that_it_may_pass(self, error: Exception, since: float) -> None:
        """Raises the error where it is final; the first that is ends the run."""
        passes = isinstance(error, STORE_ERRORS) and classify_store_error(error).passes
        if passes and not self._is_out_of_time(since):
            return
        if self._fault is None:
            self._fault = error
            self._give_up()
        raise error

    def _is_out_of_time(self, since: float) -> bool:
        if self._hurried_at is None:
            return False
        return anyio.current_time() - max(since, self._hurried_at) >= _LAST

    def _begin(self, error: Exception) -> None:
        self._waiting += 1
        if self._waiting == 1 and isinstance(error, STORE_ERRORS):
            self._notify(
                f"The store cannot be used just now ({store_error_text(error)}); nothing is sent "
                f"until it can. {classify_store_error(error).remedy}"
            )
