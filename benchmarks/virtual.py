"""Hours of work in minutes: waiting takes no time, and what others would do is done at once."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar
from unittest.mock import patch

import aiosqlite.core
import anyio.to_thread

from tests.limits.instant import in_no_time

_Result = TypeVar("_Result")

_BEGIN = datetime(2026, 12, 1, tzinfo=UTC)


class VirtualClock:
    """The time of day by the running event loop."""

    def now(self) -> datetime:
        """The present moment, in UTC, aware."""
        return _BEGIN + timedelta(seconds=asyncio.get_running_loop().time())


def in_virtual_time(work: Callable[[], Awaitable[_Result]]) -> _Result:
    """Runs work in which waiting takes no time, though some of it is for other threads.

    aiosqlite gives every connection a thread and a queue to it. While a call were in there, the
    clock would have to stand, or it would run on to deadlines that the call keeps with ease. So
    each call is made where it stands: that is quicker, too, and two runs are the same. Whoever
    waits for a lock that another holds would wait for ever: work on one `Database`.
    """
    with (
        patch.multiple(aiosqlite.core, SimpleQueue=_Calls, Thread=_Idle),
        patch.object(anyio.to_thread, "run_sync", _at_once),
    ):
        return in_no_time(work)


async def _at_once(call: Callable[..., _Result], *arguments: Any, **_: object) -> _Result:
    return call(*arguments)


class _Calls:
    """Takes the place of the queue to a connection's thread."""

    def put_nowait(self, item: tuple[asyncio.Future[Any] | None, Callable[[], Any]]) -> None:
        """Makes the call; whoever waits for it goes on after what is ready by now, as always."""
        future, call = item
        if future is None:
            call()
            return
        try:
            answer = partial(aiosqlite.core.set_result, future, call())
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the caller's
            answer = partial(aiosqlite.core.set_exception, future, error)
        future.get_loop().call_soon(answer)


class _Idle:
    """Takes the place of the thread."""

    daemon = True

    def __init__(self, **_: object) -> None: ...

    def start(self) -> None:
        """There is nothing left to do for it."""
