"""Waiting for a store that cannot be written just now: an answer in hand must not be dropped."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
from sqlalchemy.exc import DBAPIError

_Result = TypeVar("_Result")

_PASSING = ("locked", "busy", "full", "disk i/o", "readonly", "unable to open")
_PAUSE = 1.0


class Patience:
    """Tries again for as long as the store's trouble may pass: locked, full, out of reach.

    Args:
        tell: takes a sentence for the user when trouble begins and when it is over.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._in_trouble = False

    async def until_done(self, action: Callable[[], Awaitable[_Result]]) -> _Result:
        """The action's result, from the first time that it succeeds.

        Args:
            action: one or more whole transactions, and nothing that may not be repeated.

        Raises:
            DBAPIError: trouble that waiting does not mend.
        """
        while True:
            try:
                result = await action()
            except DBAPIError as error:
                if not may_pass(error):
                    raise
                self._begin(error)
                await anyio.sleep(_PAUSE)
            else:
                self._end()
                return result

    def _begin(self, error: DBAPIError) -> None:
        if not self._in_trouble:
            self._in_trouble = True
            self._tell(f"The store cannot be used just now ({error.orig}); waiting until it can.")

    def _end(self) -> None:
        if self._in_trouble:
            self._in_trouble = False
            self._tell("The store can be used again.")


def may_pass(error: DBAPIError) -> bool:
    """Whether the trouble may be over in a while, without anything being wrong with the store."""
    said = str(error.orig).lower()
    return error.connection_invalidated or any(words in said for words in _PASSING)
