"""Retry transactions while the store cannot be used: no received answer must be lost."""

import math
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from orchestrator.store.error_classification import (
    STORE_ERRORS,
    StoreFailure,
    classify_store_error,
    store_error_text,
)

_Result = TypeVar("_Result")

_PAUSE = 1.0
"""Seconds between two tries."""

_SHUTDOWN_TIMEOUT = 5.0
"""Seconds for which a transaction is still retried after the shutdown has begun."""


class BusyRetry:
    """Retries the transactions of one run while the store is locked, full or unreachable.

    The first error that is final stops the run: it is stored, and each task that meets one ends
    quietly, so that the others can still report the answers they have.

    Args:
        notify: takes a sentence for the user when the store fails and when it works again.
        give_up: called once, when the store cannot be used any more.
    """

    def __init__(
        self, notify: Callable[[str], None], give_up: Callable[[], None] = lambda: None
    ) -> None:
        self._notify = notify
        self._give_up = give_up
        self._waiting = 0
        self._shutdown_at = math.inf
        self._final_error: Exception | None = None

    def begin_shutdown(self) -> None:
        """Retry only for a few more seconds: the run is ending."""
        self._shutdown_at = min(self._shutdown_at, anyio.current_time())

    async def retry(self, action: Callable[[], Awaitable[_Result]]) -> _Result:
        """Repeat an action until it succeeds, and return its result.

        Args:
            action: one or more whole transactions, each idempotent: a commit that seems to fail may
                have been applied, if the connection was lost, and is repeated.

        Raises:
            DBAPIError, OSError: the error is not temporary, or lasted longer than the shutdown may.
            StoreGoneError: the database file was deleted or replaced.
        """
        try:
            return await action()
        except STORE_ERRORS as error:
            failed_at = anyio.current_time()
            self._raise_if_final(error, failed_at)
            if not self._waiting:  # otherwise another task has reported it already
                self._notify(
                    f"The store cannot be used just now ({store_error_text(error)}); no more jobs "
                    f"are claimed until it works again. {classify_store_error(error).remedy}"
                )
        self._waiting += 1
        try:
            result = await self._repeat(action, failed_at)
        finally:
            self._waiting -= 1
        if not self._waiting:
            self._notify("The store can be used again.")
        return result

    async def retry_or_report(
        self, action: Callable[[], Awaitable[object]], *, failure_message: str
    ) -> None:
        """Retry an action; notify the user if it fails for good or is cancelled.

        Args:
            failure_message: the sentence for the user, which says what is lost.

        Raises:
            Exception: as `retry` does.
        """
        try:
            await self.retry(action)
        except BaseException:
            self._notify(failure_message)
            raise

    async def run_guarded(self, task: Callable[[], Awaitable[object]]) -> None:
        """Run a task; end it quietly when the store cannot be used any more.

        An exception would cancel the tasks beside it, which may still have answers to report.
        """
        try:
            await task()
        except* STORE_ERRORS:
            if self._final_error is None:
                raise

    def raise_error(self) -> None:
        """Raise the error that made the store unusable, if there was one."""
        if self._final_error is not None:
            raise self._final_error

    async def _repeat(self, action: Callable[[], Awaitable[_Result]], failed_at: float) -> _Result:
        while True:
            await anyio.sleep(_PAUSE)
            try:
                return await action()
            except STORE_ERRORS as error:
                self._raise_if_final(error, failed_at)

    def _raise_if_final(self, error: StoreFailure, failed_at: float) -> None:
        """Raise the error unless the action may be repeated.

        Args:
            failed_at: when the action failed for the first time.
        """
        until = max(failed_at, self._shutdown_at) + _SHUTDOWN_TIMEOUT
        if classify_store_error(error).is_temporary and anyio.current_time() < until:
            return
        if self._final_error is None:
            self._final_error = error
            self._give_up()
        raise error
